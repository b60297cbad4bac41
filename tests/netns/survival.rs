//! What can be taken away from under a daemon, and what it does about it: traffic goes on, or the
//! fault is told by name; and nothing leaks.

use std::{env, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use aya::maps::loaded_maps;
use nlb_tests::lab::{Lab, daemon::Daemon, wait::wait_until};
use nlb_userspace::{client, config::HashKeySource, daemon::Written, secret};

use super::{
    SOON, ask_http, configuration, daemon_life::attached, http_vips, wait_for_states,
    with_configuration, with_nlb,
};

fn asks_all(lab: &Lab, when: &'static str) -> Result<()> {
    for vip in http_vips() {
        ask_http(lab, vip).context(when)?;
    }
    Ok(())
}

fn warnings(daemon: &Daemon) -> Result<String> {
    Ok(daemon.status()?["warnings"].to_string())
}

#[test]
fn a_socket_folder_that_is_removed_comes_back() -> Result<()> {
    let text = configuration().replace("/nlb.sock", "/control/nlb.sock");
    with_moved_socket(&text, |lab, socket| {
        let folder = socket.parent().context("a folder")?;
        fs::remove_dir_all(folder)?;
        wait_until("the daemon answers again", SOON, || status(socket))?;
        asks_all(lab, "meanwhile")
    })
}

/// A lab whose daemon has its socket in a folder of its own.
fn with_moved_socket(text: &str, claim: impl FnOnce(&Lab, &Path) -> Result<()>) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED a_socket_folder_that_is_removed: not root");
        return Ok(());
    }
    let lab = Lab::new("socket")?;
    lab.write_config(text)?;
    let socket = lab.directory().join("control/nlb.sock");
    let mut daemon = lab.spawn_nlb()?;
    wait_until("nlb is ready", SOON, || status(&socket))?;
    let claimed = claim(&lab, &socket);
    let log = daemon.log()?;
    daemon.terminate()?;
    daemon.detach(&lab)?;
    claimed.context(log)
}

fn status(socket: &Path) -> bool {
    let binary = nlb_tests::lab::daemon::binary().expect("an nlb");
    let output = Command::new(binary)
        .args(["status", "--json", "--socket"])
        .arg(socket)
        .output();
    output.is_ok_and(|output| output.status.success())
}

#[test]
fn of_daemons_that_start_at_once_one_runs_and_can_be_reached() -> Result<()> {
    with_nlb("at_once", |lab, daemon| {
        daemon.terminate()?;
        let mut daemons = (0..4)
            .map(|_| lab.spawn_nlb())
            .collect::<Result<Vec<_>>>()?;
        let mut running = daemons.len();
        wait_until("all but one have ended", SOON, || {
            running = (daemons.iter_mut())
                .map(|daemon| usize::from(daemon.is_running()))
                .sum();
            running <= 1
        })?;
        assert_eq!(running, 1, "{}", daemon.log()?);
        wait_until("the one that runs answers", SOON, || status(&lab.socket()))?;
        let log = daemon.log()?;
        ensure!(log.contains("another nlb"), "{log}");
        asks_all(lab, "with one of four")
    })
}

#[test]
fn a_bpffs_that_is_unmounted_stops_no_traffic_and_is_told() -> Result<()> {
    with_nlb("unmounted", |lab, daemon| {
        ensure!(!warnings(daemon)?.contains("the pins"), "too early");
        // The far ends' pinned programs stay with the mount that the daemon holds.
        let unmounted = Command::new("umount")
            .arg("--lazy")
            .arg(lab.bpffs())
            .status()?;
        ensure!(unmounted.success());
        wait_until("the daemon says that the pins are gone", SOON, || {
            warnings(daemon).is_ok_and(|text| text.contains("the pins in "))
        })?;
        asks_all(lab, "with the bpffs unmounted")?;
        let reload = daemon.reload()?;
        ensure!(reload.status.success(), "{reload:?}");
        asks_all(lab, "after a reload")
    })
}

#[test]
fn an_interface_that_is_renamed_goes_on_and_its_new_name_is_told() -> Result<()> {
    with_nlb("renamed", |lab, daemon| {
        let program = attached(lab.gateway(), "eth1")?.context("a program on eth1")?;
        lab.gateway().ip("link set eth1 name lan1\n")?;
        wait_until("the daemon knows the new name", SOON, || {
            warnings(daemon).is_ok_and(|text| text.contains("eth1 is called lan1 now"))
        })?;
        asks_all(lab, "under another name")?;

        // The file as it was names an interface that is not there.
        let refused = daemon.reload()?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(!refused.status.success() && said.contains("eth1"), "{said}");
        lab.write_config(&configuration().replace("\"eth1\"", "\"lan1\""))?;
        let reload = daemon.reload()?;
        ensure!(reload.status.success(), "{reload:?}");
        assert_eq!(
            attached(lab.gateway(), "lan1")?,
            Some(program),
            "the same one all along"
        );
        ensure!(!warnings(daemon)?.contains("lan1"));
        asks_all(lab, "with the new name in the file")
    })
}

#[test]
fn an_interface_that_went_into_another_namespace_gets_its_program_when_it_is_back() -> Result<()> {
    with_nlb("moved", |lab, daemon| {
        let gateway = lab.gateway();
        let elsewhere = lab.switch().namespace();
        let status = daemon.status()?;
        let index = &status["interfaces"][1]["index"];
        gateway.ip(&format!("link set eth1 netns {elsewhere} name away\n"))?;
        wait_until("the daemon misses it", SOON, || {
            warnings(daemon).is_ok_and(|text| text.contains("there is no interface eth1"))
        })?;
        wait_until("it lost its program", SOON, || {
            attached(lab.switch(), "away").is_ok_and(|program| program.is_none())
        })?;
        // Another interface has its index by then, so it comes back as a stranger.
        gateway.ip(&format!("link add other index {index} type bridge\n"))?;
        let home = gateway.namespace();
        lab.switch()
            .ip(&format!("link set away netns {home} name eth1\n"))?;
        gateway.ip("link set eth1 up\n\
             address add 10.2.0.1/24 dev eth1\n\
             address add fd00:2::1/64 dev eth1 nodad\n")?;
        wait_until("it has its program", SOON, || {
            attached(gateway, "eth1").is_ok_and(|program| program.is_some())
        })?;
        wait_for_states(daemon, |_, state| state == "healthy")?;
        asks_all(lab, "with the interface back")
    })
}

#[test]
fn a_key_that_finds_no_room_on_the_disk_leaves_no_half_of_itself() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED a_key_that_finds_no_room: not root");
        return Ok(());
    }
    let folder = env::temp_dir().join(format!("nlb-full-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4k", "tmpfs"])
        .arg(&folder)
        .status()?;
    ensure!(mount.success());
    let result = (|| {
        // One page, and it is taken.
        fs::write(folder.join("other"), [0; 4096])?;
        let Err(error) = secret::deployment_key(&HashKeySource::Kept, &folder) else {
            anyhow::bail!("a key was written to a full disk");
        };
        let error = error.to_string();
        ensure!(
            error.contains("write") && error.contains("hash.key"),
            "{error}"
        );
        fs::remove_file(folder.join("other"))?;
        secret::deployment_key(&HashKeySource::Kept, &folder).context("with room again")?;
        Ok(())
    })();
    let unmounted = Command::new("umount").arg(&folder).status()?;
    ensure!(unmounted.success());
    fs::remove_dir(&folder)?;
    result
}

/// What a process holds.
#[derive(Debug)]
struct Held {
    descriptors: usize,
    resident_kib: u64,
}

impl Held {
    fn by(daemon: &Daemon) -> Result<Self> {
        let pid = daemon.pid().context("a running daemon")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB"))
            .context("VmRSS")?;
        Ok(Self {
            descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
            resident_kib: resident.parse()?,
        })
    }
}

/// `NLB_RELOADS` says how many; 10,000 take minutes.
#[test]
fn reload_after_reload_leaks_neither_descriptors_nor_memory_nor_maps() -> Result<()> {
    let reloads = env::var("NLB_RELOADS").map_or(Ok(60), |text| text.parse::<u32>())?;
    let one = configuration();
    // Other weights and targets: rings, records and probes come and go.
    let other = one
        .replacen(
            "address = \"10.2.0.12\"",
            "address = \"10.2.0.12\"\nweight = 3",
            1,
        )
        .replacen("address = \"10.2.0.13\"", "address = \"10.2.0.14\"", 1);
    ensure!(one != other);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    with_configuration("reloads", &one, |lab, daemon| {
        let socket = client::Endpoint::Socket(lab.socket());
        let reload = |text: &str| -> Result<Written> {
            lab.write_config(text)?;
            let call = client::Call::new(hyper::Method::POST, "/v1/reload");
            Ok(runtime.block_on(client::send(&socket, call))?)
        };
        let pins = || Ok::<_, anyhow::Error>(fs::read_dir(lab.bpffs().join("nlb"))?.count());
        // The allocator finds its size first.
        for _ in 0..(reloads / 20).max(10) {
            reload(&other)?;
            reload(&one)?;
        }
        let maps_before = loaded_maps().count();
        let (before, pins_before) = (Held::by(daemon)?, pins()?);
        let mut generation = 0;
        for _ in 0..reloads / 2 {
            reload(&other)?;
            let reloaded = reload(&one)?;
            ensure!(reloaded.generation > generation, "{reloaded:?}");
            generation = reloaded.generation;
        }
        let mut after = Held::by(daemon)?;
        // A probe that is under way has a descriptor.
        wait_until("no more descriptors than before", SOON, || {
            Held::by(daemon).is_ok_and(|held| {
                after = held;
                after.descriptors <= before.descriptors + 16
            })
        })
        .with_context(|| format!("{before:?}, {after:?}"))?;
        let maps = loaded_maps().count();
        println!(
            "{reloads} reloads, generation {generation}: {before:?}, {after:?}, {maps_before} maps \
             of all programs here, {maps} after"
        );
        let most_kib = before.resident_kib + before.resident_kib / 4 + 1024;
        ensure!(after.resident_kib <= most_kib, "{before:?}, {after:?}");
        assert_eq!(pins()?, pins_before);
        // One that is in the file every other time drains.
        wait_for_states(daemon, |address, state| {
            state == "healthy" || address == "10.2.0.14"
        })?;
        asks_all(lab, "after all reloads")
    })
}
