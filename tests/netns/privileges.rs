//! What the daemon has given up once it runs, and that it still does its work.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt as _};

use anyhow::{Context as _, Result, ensure};
use nlb_tests::lab::daemon::Daemon;

use super::{ask_http, configuration, http_vips, wait_for_states, with_configuration, with_nlb};

/// `CAP_NET_ADMIN`, `CAP_NET_RAW` and `CAP_BPF` of `linux/capability.h`.
const RUNNING: u64 = 1 << 12 | 1 << 13 | 1 << 39;
/// And `CAP_PERFMON`.
const STARTING: u64 = RUNNING | 1 << 38;

/// `/proc/PID/status` of each of the daemon's threads.
fn threads(daemon: &Daemon) -> Result<Vec<BTreeMap<String, String>>> {
    let pid = daemon.pid().context("a running daemon")?;
    fs::read_dir(format!("/proc/{pid}/task"))?
        .map(|entry| {
            let text = fs::read_to_string(entry?.path().join("status"))?;
            let lines = text.lines().filter_map(|line| line.split_once(':'));
            Ok(lines
                .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
                .collect())
        })
        .collect()
}

pub(super) fn has_given_up(daemon: &Daemon) -> Result<()> {
    for thread in threads(daemon)? {
        let mask = |key: &str| u64::from_str_radix(&thread[key], 16);
        assert_eq!(mask("CapEff")?, RUNNING, "{thread:?}");
        assert_eq!(mask("CapPrm")?, RUNNING, "{thread:?}");
        assert_eq!(mask("CapInh")?, 0, "{thread:?}");
        assert_eq!(mask("CapBnd")?, STARTING, "{thread:?}");
        assert_eq!(thread["NoNewPrivs"], "1");
        assert_eq!(thread["Seccomp"], "2", "a filter");
    }
    Ok(())
}

#[test]
fn a_daemon_that_runs_has_three_capabilities_and_a_filter_of_system_calls() -> Result<()> {
    with_nlb("privileges", |lab, daemon| {
        has_given_up(daemon)?;
        // With that it does what a reload can ask: interfaces, rings, targets.
        let text = configuration().replacen("[\"eth0\", \"eth1\"]", "[\"eth0\"]", 1);
        for text in [text, configuration()] {
            lab.write_config(&text)?;
            let reload = daemon.reload()?;
            ensure!(reload.status.success(), "{reload:?}");
        }
        for vip in http_vips() {
            ask_http(lab, vip)?;
        }
        let log = daemon.log()?;
        ensure!(!log.contains("not permitted"), "{log}");
        has_given_up(daemon)
    })
}

#[test]
fn a_daemon_runs_as_a_user_of_its_own_also_over_pins_that_were_roots() -> Result<()> {
    with_nlb("own_user", |lab, daemon| {
        // Root's pins, which the next one takes over.
        daemon.terminate()?;
        let user = "user = \"nobody\"\n";
        lab.write_config(&configuration().replacen("[node]\n", &format!("[node]\n{user}"), 1))?;
        for _ in 0..2 {
            *daemon = lab.start_nlb()?;
            for thread in threads(daemon)? {
                let uids: Vec<&str> = thread["Uid"].split_whitespace().collect();
                assert_eq!(uids, ["65534"; 4]);
            }
            has_given_up(daemon)?;
            // What a process has below /proc is its user's, or root's if it must not be dumped: then
            // its memory is in no core, either.
            let pid = daemon.pid().context("a running daemon")?;
            assert_eq!(fs::metadata(format!("/proc/{pid}/mem"))?.uid(), 0);
            wait_for_states(daemon, |_, state| state == "healthy")?;
            for vip in http_vips() {
                ask_http(lab, vip)?;
            }
            daemon.terminate()?;
        }
        assert_eq!(fs::metadata(lab.bpffs().join("nlb/FLOWS"))?.uid(), 65534);
        daemon.detach(lab)
    })
}

#[test]
fn a_user_who_may_not_enter_the_bpffs_is_told_what_to_do() -> Result<()> {
    let text = configuration();
    with_configuration("no_entry", &text, |lab, daemon| {
        daemon.terminate()?;
        let closed = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(lab.bpffs(), closed)?;
        lab.write_config(&text.replacen("[node]\n", "[node]\nuser = \"nobody\"\n", 1))?;
        let mut refused = lab.spawn_nlb()?;
        ensure!(!refused.ends()?, "it started");
        let log = refused.log()?;
        ensure!(
            log.contains("node.user") && log.contains("mount a bpffs"),
            "{log}"
        );
        // The old data plane does not mind.
        ask_http(lab, http_vips()[0])?;
        daemon.detach(lab)
    })
}

#[test]
fn the_hash_key_is_in_no_log_and_no_answer() -> Result<()> {
    let key = "5ec7e70000000000".repeat(4);
    let part = &key[..16];
    let text: Vec<String> = configuration()
        .lines()
        .map(|line| match line.split_once("hash_key = ") {
            Some(_) => format!("hash_key = \"{key}\"\n"),
            None => format!("{line}\n"),
        })
        .collect();
    let text = text.concat();
    ensure!(text.contains(&key), "the example has a key");
    with_configuration("secrets", &text, |lab, daemon| {
        daemon.terminate()?;
        *daemon = lab.start_nlb_with(|command| {
            command.env("NLB_LOG", "trace");
        })?;
        let mut told = vec![daemon.status()?.to_string()];
        // Also where it is what is wrong.
        for broken in [format!("{part}x"), format!("{key}{part}")] {
            lab.write_config(&text.replacen(&key, &broken, 1))?;
            let reload = daemon.reload()?;
            ensure!(!reload.status.success());
            told.push(String::from_utf8(reload.stderr)? + &String::from_utf8(reload.stdout)?);
        }
        told.push(daemon.log()?);
        for text in told {
            ensure!(!text.is_empty() && !text.contains(part), "{text}");
        }
        Ok(())
    })
}
