//! What `nlb doctor` finds: each condition is made in the lab, found, and mended by the very command
//! that is printed.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use nlb_tests::lab::{Lab, daemon, host::Host};
use nlb_userspace::dataplane::PASS_OBJECT;
use serde_json::Value;

use super::{configuration, with_configuration, with_nlb};

/// What a line of shell prints on a host.
fn shell(host: &Host, line: &str) -> Result<String> {
    let output = host.command("sh").args(["-c", line]).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{line}: {stderr}");
    Ok(String::from_utf8(output.stdout)?)
}

/// What `nlb doctor` finds on the gateway, for that configuration.
fn doctor(lab: &Lab, config: &Path) -> Result<Vec<Value>> {
    let output = lab
        .gateway()
        .command(daemon::binary()?)
        .args(["doctor", "--json", "--config"])
        .arg(config)
        .arg("--socket")
        .arg(lab.socket())
        .output()?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let findings = report["findings"].as_array().context("findings")?.clone();
    let has_problem = findings.iter().any(|it| it["severity"] == "problem");
    ensure!(
        output.status.code() == Some(i32::from(has_problem)),
        "{output:?}"
    );
    Ok(findings)
}

/// What was found by that check, of that subject.
fn found<'f>(findings: &'f [Value], check: &str, subject: &str) -> Option<&'f Value> {
    let mut findings = findings.iter();
    findings.find(|it| it["check"] == check && it["subject"] == subject)
}

/// That a condition is found where it was not, and is gone after the printed command; `fill_in` has
/// the words in capitals replaced.
fn is_found_and_mended(
    lab: &Lab,
    config: &Path,
    condition: impl FnOnce() -> Result<()>,
    (check, subject): (&str, &str),
    fill_in: impl FnOnce(&str) -> String,
) -> Result<()> {
    let before = doctor(lab, config)?;
    ensure!(
        found(&before, check, subject).is_none(),
        "before: {before:?}"
    );
    condition()?;
    let findings = doctor(lab, config)?;
    let finding = found(&findings, check, subject);
    let finding = finding.with_context(|| format!("no {check} {subject} in {findings:?}"))?;
    let mend = finding["mend"].as_str().context("a command")?;
    shell(lab.gateway(), &fill_in(mend))?;
    let after = doctor(lab, config)?;
    ensure!(
        found(&after, check, subject).is_none(),
        "after {mend}: {after:?}"
    );
    Ok(())
}

#[test]
fn what_is_wrong_with_a_host_without_a_daemon_is_found_and_the_printed_command_mends_it()
-> Result<()> {
    with_nlb("doctor", |lab, daemon| {
        daemon.terminate()?;
        daemon.detach(lab)?;
        let config = lab.directory().join("nlb.toml");
        let gateway = lab.gateway();
        let as_is = str::to_owned;
        for (condition, finding) in [
            (
                "sysctl -w net.ipv4.conf.all.rp_filter=1",
                ("rp_filter", "eth0"),
            ),
            ("sysctl -w net.ipv4.ip_forward=0", ("forwarding", "eth1")),
            (
                "sysctl -w net.ipv6.conf.all.forwarding=0",
                ("forwarding", "eth0"),
            ),
            ("ip link set dev eth1 mtu 1400", ("mtu", "eth1")),
        ] {
            let make = || shell(gateway, condition).map(drop);
            is_found_and_mended(lab, &config, make, finding, as_is)?;
        }

        // A target that answers no ARP.
        let target = &lab.target(0).host;
        let link = shell(target, "ip -o link show dev eth0")?;
        let mac = link.split_once("link/ether ").context("a MAC address")?.1;
        let mac = mac.split(' ').next().context("a MAC address")?;
        let silence = || {
            shell(target, "ip link set dev eth0 arp off")?;
            shell(gateway, "ip neigh flush all").map(drop)
        };
        let finding = ("neighbour", "nat-web-v4 10.2.0.11:8080");
        let fill_in = |mend: &str| mend.replace("MAC", mac);
        is_found_and_mended(lab, &config, silence, finding, fill_in)?;
        shell(target, "ip link set dev eth0 arp on")?;

        // Another's program.
        let object = lab.directory().join("other.o");
        fs::write(&object, PASS_OBJECT)?;
        let attach = format!(
            "ip link set dev eth1 xdpgeneric object {} section xdp.frags",
            object.display()
        );
        let make = || shell(gateway, &attach).map(drop);
        is_found_and_mended(lab, &config, make, ("other_xdp", "eth1"), as_is)?;

        // A folder that is no bpffs.
        let bpffs = lab.directory().join("other-bpf").display().to_string();
        let elsewhere = lab.directory().join("elsewhere.toml");
        let text = fs::read_to_string(&config)?;
        let own = lab.bpffs().display().to_string();
        fs::write(
            &elsewhere,
            text.replace(&format!("\"{own}\""), &format!("\"{bpffs}\"")),
        )?;
        let findings = doctor(lab, &elsewhere)?;
        let mend = found(&findings, "bpffs", &bpffs).context("no bpffs")?["mend"].clone();
        shell(gateway, mend.as_str().context("a command")?)?;
        let after = doctor(lab, &elsewhere);
        shell(gateway, &format!("umount {bpffs}"))?;
        ensure!(found(&after?, "bpffs", &bpffs).is_none(), "{mend}");

        // Last, since IPv6 addresses do not come back.
        let make = || shell(gateway, "ip link set dev eth1 down").map(drop);
        is_found_and_mended(lab, &config, make, ("interface", "eth1"), as_is)
    })
}

#[test]
fn what_is_wrong_beside_a_daemon_is_found_and_told_to_people() -> Result<()> {
    let generic = configuration().replacen("[node]\n", "[node]\nxdp_mode = \"generic\"\n", 1);
    with_configuration("doctor_gro", &generic, |lab, daemon| {
        let config = lab.directory().join("nlb.toml");
        shell(lab.gateway(), "ethtool -K eth1 gro off")?;
        let findings = doctor(lab, &config)?;
        ensure!(
            found(&findings, "xdp_mode", "eth0").is_some(),
            "{findings:?}"
        );
        ensure!(
            found(&findings, "other_xdp", "eth0").is_none(),
            "{findings:?}"
        );
        ensure!(found(&findings, "daemon", "").is_none(), "{findings:?}");
        let make = || shell(lab.gateway(), "ethtool -K eth1 gro on").map(drop);
        is_found_and_mended(lab, &config, make, ("gro", "eth1"), str::to_owned)?;

        // The daemon says which configuration; and people get text.
        let doctor = lab
            .gateway()
            .command(daemon::binary()?)
            .arg("doctor")
            .arg("--socket")
            .arg(lab.socket())
            .output()?;
        let text = String::from_utf8(doctor.stdout)?;
        ensure!(
            text.contains("advice   xdp_mode eth0: XDP is generic"),
            "{text}"
        );
        ensure!(text.contains("breaks: speed"), "{text}");
        ensure!(
            text.contains("looked at this host, 2 interfaces and "),
            "{text}"
        );

        // Nobody may look at nothing.
        daemon.terminate()?;
        let mut nlb = lab.gateway().command(daemon::binary()?);
        let lost = nlb.args(["doctor", "--config", "/nowhere.toml"]).output()?;
        ensure!(lost.status.code() == Some(2), "{lost:?}");
        Ok(())
    })
}
