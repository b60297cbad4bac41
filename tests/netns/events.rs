//! What `nlb events` tells: what happens to targets, maps and the node, who changed what, and what is
//! wrong; to those who follow, and to journald.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::{SocketAddr, UdpSocket},
    os::unix::{fs::MetadataExt as _, net::UnixDatagram},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
};

use anyhow::{Context as _, Result, ensure};
use nlb_tests::lab::{
    Lab,
    addresses::{NAT_VIP_V4, TARGETS, UDP_PORT},
    daemon::{self, Daemon},
    wait::wait_until,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{SOON, configuration, wait_for_states, with_configuration, with_nlb};

const GROUP: &str = "nat-web-v4";

/// What `nlb events --json` prints with these words.
fn events(daemon: &Daemon, words: &[&str]) -> Result<Vec<Value>> {
    let output = daemon.nlb(&[&["events", "--json"], words].concat())?;
    ensure!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout)?;
    Ok(text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?)
}

/// Waits for an event that has all of these members, and gives the last one.
fn wait_for_event(daemon: &Daemon, members: &Value) -> Result<Value> {
    let mut found = None;
    let wanted = members.as_object().context("members")?;
    wait_until(&members.to_string(), SOON, || {
        let events = events(daemon, &[]).unwrap_or_default();
        let is_it = |event: &Value| wanted.iter().all(|(key, value)| event[key] == *value);
        found = events.into_iter().rfind(is_it);
        found.is_some()
    })?;
    found.context("an event")
}

fn warning(name: &str, subject: &str, over: bool) -> Value {
    json!({ "event": "warning", "warning": name, "subject": subject, "over": over })
}

#[test]
fn events_tell_of_health_generations_callers_and_what_is_wrong() -> Result<()> {
    with_nlb("events", |lab, daemon| {
        let first = events(daemon, &[])?;
        ensure!(first[0]["number"] == 1, "{first:?}");
        wait_for_event(daemon, &json!({ "event": "started", "adopted": false }))?;

        // Who did what, what came of it, and what it took.
        ensure!(
            daemon
                .nlb(&["target", "drain", GROUP, "10.2.0.12"])?
                .status
                .success()
        );
        let call = wait_for_event(
            daemon,
            &json!({ "event": "call", "action": "targets:drain" }),
        )?;
        ensure!(
            call["who"] == "user 0" && call["outcome"] == "done",
            "{call}"
        );
        ensure!(
            call["resource"] == "target-group/nat-web-v4/target/10.2.0.12:8080",
            "{call}"
        );
        let live = json!({ "event": "generation", "generation": call["generation"] });
        wait_for_event(daemon, &live)?;

        // All targets of a group fail, one by one; then it fails open, until they are back.
        for index in 0..TARGETS {
            lab.kill_nginx(index)?;
        }
        let flip = json!({ "event": "target_health", "target_group": GROUP, "to": "unhealthy",
            "target": "10.2.0.11:8080", "from": "healthy", "reason": "Target.FailedHealthChecks" });
        wait_for_event(daemon, &flip)?;
        wait_for_event(daemon, &warning("fail_open", GROUP, false))?;
        for index in 0..TARGETS {
            lab.start_nginx(index)?;
        }
        wait_for_event(daemon, &warning("fail_open", GROUP, true))?;

        // A cable is pulled, and the interface renamed.
        let target = format!("{GROUP} 10.2.0.11:8080");
        lab.gateway().ip("link set eth1 down")?;
        wait_for_event(daemon, &warning("next_hop_lost", &target, false))?;
        lab.gateway().ip("link set eth1 name away")?;
        wait_for_event(daemon, &warning("interface_gone", "eth1", false))?;
        lab.gateway()
            .ip("link set away name eth1\nlink set eth1 up")?;
        wait_for_event(daemon, &warning("interface_gone", "eth1", true))?;
        wait_for_event(daemon, &warning("next_hop_lost", &target, true))?;

        // For people; and what is older than was asked for is left out.
        let output = daemon.nlb(&["events"])?;
        let text = String::from_utf8(output.stdout)?;
        let told = text.lines().find(|line| line.contains("  target_health  "));
        ensure!(
            told.is_some_and(|line| line.contains('T') && line.contains(" -> ")),
            "{text}"
        );
        ensure!(text.contains("targets:drain target-group/nat-web-v4/target/10.2.0.12:8080: done"));
        ensure!(events(daemon, &["--since", "1h"])?.len() >= first.len());
        ensure!(events(daemon, &["--since", "0s"])?.is_empty());
        Ok(())
    })
}

#[test]
fn a_follower_hears_of_reloads_as_they_happen_and_also_why_they_are_refused() -> Result<()> {
    with_nlb("follow", |lab, daemon| {
        let mut follower = Command::new(daemon::binary()?)
            .args(["events", "--follow", "--json", "--socket"])
            .arg(lab.socket())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(follower.stdout.take().context("its output")?).lines();
        let mut happened =
            lines.map(|line| Ok::<Value, anyhow::Error>(serde_json::from_str(&line?)?));
        let hang_up = || -> Result<()> {
            let pid = daemon
                .pid()
                .and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
            Ok(kill_process(pid.context("a running daemon")?, Signal::HUP)?)
        };
        let mut hears = |is_refused: bool| -> Result<()> {
            let event = happened.find(|event| match event {
                Ok(event) => event["event"] == "reload",
                Err(_) => true,
            });
            let event = event.context("an event")??;
            ensure!(event["refused"].is_string() == is_refused, "{event}");
            Ok(())
        };
        let result = (|| {
            hang_up()?;
            hears(false)?;
            lab.write_config("nonsense")?;
            hang_up()?;
            hears(true)
        })();
        follower.kill()?;
        follower.wait()?;
        result
    })
}

#[test]
fn a_full_flow_table_is_told_once_and_again_when_it_is_over() -> Result<()> {
    let small = configuration().replacen(
        "[node.capacity]\nflows = 65536\n",
        "[node.capacity]\nflows = 1024\n",
        1,
    );
    with_configuration("full_table", &small, |lab, daemon| {
        let vip: SocketAddr = (NAT_VIP_V4, UDP_PORT).into();
        let full = warning("flow_table_full", "", false);
        wait_until("the flow table is full", SOON, || {
            let sent = lab.client().enter(|| {
                (0..1000).try_for_each(|_| {
                    UdpSocket::bind(("0.0.0.0", 0))?
                        .send_to(b"fill", vip)
                        .map(drop)
                })
            });
            let told = events(daemon, &[]).unwrap_or_default();
            sent.is_ok()
                && (told.iter())
                    .any(|event| event["warning"] == full["warning"] && event["over"] == false)
        })?;
        wait_for_event(daemon, &warning("flow_table_full", "", true))?;
        let told = events(daemon, &[])?;
        let of_it = told
            .iter()
            .filter(|event| event["warning"] == "flow_table_full");
        ensure!(of_it.count() == 2, "{told:?}");
        Ok(())
    })
}

/// A daemon whose standard error and journal are the test's own.
fn start_under_a_journal(lab: &Lab, folder: &Path) -> Result<Daemon> {
    let binary = daemon::binary()?;
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(lab.directory().join("nlb.log"))?;
    let log = log.metadata()?;
    // The journal's place is fixed, so the daemon has a mount namespace with another one there.
    let script = lab.directory().join("journalled");
    let (stream, folder, binary) = (
        format!("{}:{}", log.dev(), log.ino()),
        folder.display(),
        binary.display(),
    );
    let text = format!(
        "#!/bin/sh\nexport JOURNAL_STREAM={stream}\nexec unshare --mount sh -c 'mkdir -p \
         /run/systemd/journal && mount --bind {folder} /run/systemd/journal && exec {binary} \
         \"$@\"' nlb \"$@\"\n"
    );
    fs::write(&script, text)?;
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    lab.start_nlb_binary(&script)
}

#[test]
fn under_systemd_events_are_in_the_journal_with_their_fields() -> Result<()> {
    with_nlb("journald", |lab, daemon| {
        daemon.terminate()?;
        let before = daemon.log()?;
        let folder = lab.directory().join("journal");
        fs::create_dir(&folder)?;
        let journal = UnixDatagram::bind(folder.join("socket"))?;
        // Read all along: a journal that nobody reads blocks whoever writes.
        let (sender, entries) = mpsc::channel();
        thread::spawn(move || {
            let mut entry = vec![0; 65536];
            while let Ok(length) = journal.recv(&mut entry) {
                if sender.send(entry[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        *daemon = start_under_a_journal(lab, &folder)?;
        wait_for_states(daemon, |_, state| state == "healthy")?;
        lab.kill_nginx(0)?;
        loop {
            let entry = entries.recv_timeout(SOON);
            let entry = entry.context("nothing of the failing target")?;
            let has = |name: &str, value: &str| {
                let length = (value.len() as u64).to_le_bytes();
                let field = [name.as_bytes(), b"\n", &length, value.as_bytes(), b"\n"].concat();
                entry.windows(field.len()).any(|part| part == field)
            };
            if has("NLB_EVENT", "target_health") && has("NLB_TO", "unhealthy") {
                let text = String::from_utf8_lossy(&entry);
                ensure!(has("SYSLOG_IDENTIFIER", "nlb"), "{text}");
                ensure!(has("NLB_FROM", "healthy"), "{text}");
                ensure!(has("NLB_REASON", "Target.FailedHealthChecks"), "{text}");
                break;
            }
        }
        let log = daemon.log()?;
        ensure!(log == before, "lines on standard error, too: {log}");
        Ok(())
    })
}
