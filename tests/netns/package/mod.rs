//! The Debian package in clean Debian roots: installed, upgraded, removed and purged by apt, with
//! systemd, on the lab's gateway, while connections go through it.
//!
//! `cargo xtask deb --dev` makes the package and the roots.

mod download;
mod machine;

use std::{collections::BTreeSet, env, fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use nlb_tests::lab::{Lab, wait::wait_until};
use serde_json::Value;

use self::{download::Download, machine::Machine};
use super::{
    EXAMPLE, SOON, configuration,
    daemon_life::attached,
    http_vips, targets, text,
    upgrade::{another_version, patched},
};

const CONFIG: &str = "/etc/nlb/nlb.toml";
/// Where the packages are on the machine.
const OURS: &str = "/opt/ours.deb";
const THEIRS: &str = "/opt/theirs.deb";

/// Where `cargo xtask deb --dev` leaves what it makes: beside cargo's profiles.
fn made(file: &str) -> Option<PathBuf> {
    let program = env::current_exe().ok()?;
    let target = program.ancestors().nth(3)?;
    Some(target.join("package").join(file)).filter(|path| path.exists())
}

/// Runs a claim on a machine of a Debian release, with the package laid ready.
fn with_machine(
    name: &str,
    release: &str,
    claim: impl FnOnce(&Lab, &Machine) -> Result<()>,
) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED {name}: not root");
        return Ok(());
    }
    let (Some(package), Some(archive)) = (made("nlb.deb"), made(&format!("{release}.tar"))) else {
        println!("SKIPPED {name}: no package and root here (`cargo xtask deb --dev` makes both)");
        return Ok(());
    };
    let lab = Lab::new(release)?;
    let Some(machine) = Machine::boot(&lab, &archive)? else {
        println!("SKIPPED {name}: no control groups of version 2 here");
        return Ok(());
    };
    fs::copy(&package, machine.file(OURS))?;
    claim(&lab, &machine).with_context(|| {
        let journal = machine.run(&["journalctl", "--no-pager", "--lines=60"]);
        format!("the journal says:\n{}", journal.unwrap_or_default())
    })
}

/// The same package with a higher version, and a program in it that says another version of itself.
fn next_release(lab: &Lab, machine: &Machine) -> Result<String> {
    let ours = text(&status(machine)?["version"]);
    let theirs = another_version(&ours);
    let tree = lab.directory().join("next");
    let run = |command: &mut Command| -> Result<()> {
        ensure!(command.output()?.status.success(), "{command:?}");
        Ok(())
    };
    run(Command::new("dpkg-deb")
        .arg("--raw-extract")
        .arg(machine.file(OURS))
        .arg(&tree))?;
    let control = tree.join("DEBIAN/control");
    let old = format!("Version: {ours}-1\n");
    let description = fs::read_to_string(&control)?;
    ensure!(description.contains(&old), "{description}");
    fs::write(
        &control,
        description.replace(&old, &format!("Version: {theirs}-1\n")),
    )?;
    let program = tree.join("usr/bin/nlb");
    fs::write(&program, patched(fs::read(&program)?, &ours, &theirs))?;
    run(Command::new("dpkg-deb")
        .args(["--root-owner-group", "-Znone", "--build"])
        .arg(&tree)
        .arg(machine.file(THEIRS)))?;
    fs::remove_dir_all(&tree)?;
    Ok(theirs)
}

fn apt(machine: &Machine, words: &[&str]) -> Result<String> {
    let apt = [
        &["apt-get", "--quiet", "--yes", "--allow-downgrades"],
        words,
    ]
    .concat();
    machine.run(&apt)
}

fn status(machine: &Machine) -> Result<Value> {
    let said = machine.run(&["nlb", "status", "--json"])?;
    serde_json::from_str(&said).context("nlb status --json printed no JSON")
}

/// The daemon's process, if systemd says that the service is active.
fn main_pid(machine: &Machine) -> Result<Option<u32>> {
    let properties = "--property=ActiveState,MainPID,NRestarts";
    let said = machine.run(&["systemctl", "show", properties, "nlb.service"])?;
    let value = |name: &str| said.lines().find_map(|line| line.strip_prefix(name));
    ensure!(
        value("NRestarts=") == Some("0"),
        "it did not stay up: {said}"
    );
    let pid = value("MainPID=").context("no MainPID")?.parse()?;
    Ok((value("ActiveState=") == Some("active")).then_some(pid))
}

/// Every path of the machine's disk and its volatile files, but for what apt, dpkg and the journal keep
/// for themselves, and what systemd does by the clock.
fn paths(machine: &Machine) -> Result<BTreeSet<String>> {
    let found = machine.sh(
        "find / \\( -path /proc -o -path /dev -o -path '/sys/[^f]*' -o -path /sys/fs/cgroup -o -path /opt \
         -o -path /var/cache -o -path /var/log -o -path /var/lib/apt -o -path /tmp -o -path /var/tmp \
         -o -path /run/systemd -o -path '/var/lib/dpkg/*-old' -o -path /var/backups \
         -o -path /var/lib/systemd/timers \\) -prune -o -print",
    )?;
    Ok(found.lines().map(str::to_owned).collect())
}

fn wait_until_healthy(machine: &Machine) -> Result<()> {
    wait_until("all targets are healthy", SOON, || {
        let Ok(report) = status(machine) else {
            return false;
        };
        let mut all = targets(&report);
        all.next().is_some() && targets(&report).all(|target| target["state"] == "healthy")
    })?;
    Ok(())
}

/// The lab's configuration, without what a reload cannot change: with the places and sizes that are
/// the default.
fn operators_configuration() -> String {
    let fixed = [
        "\"/run/nlb-demo",
        "hash_key =",
        "[node.capacity]",
        "flows =",
    ];
    let kept: Vec<String> = configuration()
        .lines()
        .filter(|line| !fixed.iter().any(|key| line.contains(key)))
        .map(str::to_owned)
        .collect();
    kept.join("\n")
}

/// What a fresh installation is: running, enabled, attached to nothing, and with all that a person
/// looks for.
fn is_installed_well(lab: &Lab, machine: &Machine) -> Result<()> {
    ensure!(main_pid(machine)?.is_some(), "the service does not run");
    machine.run(&["systemctl", "is-enabled", "nlb.service"])?;
    let status = status(machine)?;
    ensure!(status["adopted"] == false, "{status}");
    for interface in ["eth0", "eth1"] {
        ensure!(attached(lab.gateway(), interface)?.is_none(), "{interface}");
    }
    let verified = machine.run(&["dpkg", "--verify", "nlb"])?;
    ensure!(verified.is_empty(), "{verified}");
    for (path, mode) in [
        ("/usr/bin/nlb", "755"),
        (CONFIG, "644"),
        ("/usr/lib/systemd/system/nlb.service", "644"),
        ("/usr/share/doc/nlb/copyright", "644"),
        ("/usr/share/doc/nlb/changelog.Debian.gz", "644"),
        ("/usr/share/doc/nlb/examples/nlb.socket", "644"),
        ("/run/nlb/hash.key", "600"),
        ("/var/lib/nlb", "700"),
    ] {
        let said = machine.run(&["stat", "--format=%a %U:%G", path])?;
        ensure!(said == format!("{mode} root:root\n"), "{path}: {said}");
    }
    let conffiles = machine.run(&["dpkg-query", "--show", "--showformat=${Conffiles}", "nlb"])?;
    ensure!(conffiles.contains(CONFIG), "{conffiles}");
    let page = machine.sh("zcat /usr/share/man/man1/nlb-target-drain.1.gz")?;
    ensure!(page.contains(".TH"), "{page}");
    // As bash-completion loads it when a person types `nlb `.
    let completed = machine.run(&[
        "bash",
        "-euc",
        "source /usr/share/bash-completion/completions/nlb; complete -p nlb",
    ])?;
    ensure!(completed.contains("_nlb"), "{completed}");
    Ok(())
}

/// A release that refuses the configuration leaves the daemon of the old one at work, and says so.
fn a_refused_upgrade_leaves_the_daemon(machine: &Machine) -> Result<()> {
    let before = main_pid(machine)?;
    let good = fs::read_to_string(machine.file(CONFIG))?;
    fs::write(machine.file(CONFIG), format!("{good}\n[surprise]\n"))?;
    let said = apt(machine, &["install", OURS])?;
    ensure!(
        said.contains("surprise") && said.contains("was not restarted"),
        "{said}"
    );
    ensure!(main_pid(machine)? == before, "{before:?}");
    fs::write(machine.file(CONFIG), &good)?;
    Ok(())
}

fn lives_on_a_machine(lab: &Lab, machine: &Machine) -> Result<()> {
    let before = paths(machine)?;
    apt(machine, &["install", OURS])?;
    is_installed_well(lab, machine)?;

    let wanted = operators_configuration();
    ensure!(
        wanted.len() < EXAMPLE.len() && !wanted.contains("nlb-demo"),
        "{wanted}"
    );
    fs::write(machine.file(CONFIG), &wanted)?;
    machine.run(&["systemctl", "reload", "nlb.service"])?;
    wait_until_healthy(machine)?;

    // An upgrade under load.
    let theirs = next_release(lab, machine)?;
    let downloads = http_vips()
        .into_iter()
        .map(|vip| Download::start(lab, vip))
        .collect::<Result<Vec<_>>>()?;
    downloads.iter().try_for_each(Download::goes_on)?;
    let (old, program) = (main_pid(machine)?, attached(lab.gateway(), "eth0")?);
    apt(machine, &["install", THEIRS])?;
    let status = status(machine)?;
    ensure!(
        text(&status["version"]) == theirs && status["adopted"] == true,
        "{status}"
    );
    ensure!(main_pid(machine)? != old, "the daemon is the old one still");
    let replaced = attached(lab.gateway(), "eth0")?;
    ensure!(replaced.is_some() && replaced != program, "{program:?}");
    ensure!(
        fs::read_to_string(machine.file(CONFIG))? == wanted,
        "the operator's file"
    );
    downloads.iter().try_for_each(Download::goes_on)?;
    a_refused_upgrade_leaves_the_daemon(machine)?;
    downloads.into_iter().try_for_each(Download::ends_well)?;

    // Removed: no program, no pins, but the configuration stays for another time.
    apt(machine, &["remove", "nlb"])?;
    ensure!(
        attached(lab.gateway(), "eth0")?.is_none(),
        "XDP without nlb"
    );
    machine.run(&["test", "!", "-e", "/sys/fs/bpf/nlb"])?;
    ensure!(
        fs::read_to_string(machine.file(CONFIG))? == wanted,
        "the operator's file"
    );

    apt(machine, &["purge", "nlb"])?;
    let after = paths(machine)?;
    let differs: Vec<&String> = before.symmetric_difference(&after).collect();
    ensure!(differs.is_empty(), "what is left, or gone: {differs:#?}");
    Ok(())
}

#[test]
fn the_package_lives_and_dies_on_debian_12_and_an_upgrade_breaks_no_transfer() -> Result<()> {
    with_machine("debian_12", "bookworm", lives_on_a_machine)
}

#[test]
fn the_package_lives_and_dies_on_debian_13_and_an_upgrade_breaks_no_transfer() -> Result<()> {
    with_machine("debian_13", "trixie", lives_on_a_machine)
}
