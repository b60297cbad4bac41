//! The data plane outlives the daemon, and a bad file changes nothing.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::{maps::loaded_maps, programs::loaded_programs};
use nlb_tests::lab::{
    Lab,
    host::Host,
    http::{Answer, HttpConnection},
    nginx::LARGE_BYTES,
    wait::wait_until,
};
use serde_json::Value;

use super::{
    PATIENCE, SOON, ask_http, configuration, http_vips, listeners, targets, text, udp_vips,
    wait_for_states, who_answers, with_configuration, with_nlb,
};

/// A download that takes about ten seconds.
pub(crate) struct Transfer {
    vip: SocketAddr,
    target: String,
    received_bytes: Arc<AtomicU64>,
    thread: JoinHandle<std::io::Result<Answer>>,
}

impl Transfer {
    pub(crate) fn start(lab: &Lab, vip: SocketAddr) -> Result<Self> {
        let mut connection = HttpConnection::from(lab.client(), vip, PATIENCE)?;
        let target = connection.get("/")?.target;
        let received_bytes = Arc::new(AtomicU64::new(0));
        let received = Arc::clone(&received_bytes);
        let thread = thread::spawn(move || {
            connection.get_with("/slow", |bytes| received.store(bytes, Ordering::Relaxed))
        });
        Ok(Self {
            vip,
            target,
            received_bytes,
            thread,
        })
    }

    /// Waits until some more has come.
    pub(crate) fn goes_on(&self) -> Result<()> {
        let received = || self.received_bytes.load(Ordering::Relaxed);
        let (before, vip) = (received(), self.vip);
        wait_until(&format!("the transfer from {vip} goes on"), SOON, || {
            received() > before || self.thread.is_finished()
        })?;
        ensure!(
            received() > before,
            "{vip}: the transfer ended at {before} bytes"
        );
        Ok(())
    }

    pub(crate) fn finishes(self) -> Result<()> {
        let vip = self.vip;
        let answer = self.thread.join().expect("the transfer's thread");
        let answer = answer.with_context(|| format!("the transfer from {vip}"))?;
        ensure!(
            answer.target == self.target && answer.body_bytes == LARGE_BYTES as u64,
            "{vip}, begun with {}: {answer:?}",
            self.target
        );
        Ok(())
    }
}

/// What the kernel may take to free maps while other tests make and free theirs.
const FREED: Duration = Duration::from_mins(1);

#[test]
fn sigkill_and_restart_of_the_daemon_break_no_transfer() -> Result<()> {
    with_nlb("sigkill", |lab, daemon| {
        let transfers = http_vips()
            .into_iter()
            .map(|vip| Transfer::start(lab, vip))
            .collect::<Result<Vec<_>>>()?;
        transfers.iter().try_for_each(Transfer::goes_on)?;
        let before = daemon.status()?;
        let program = attached(lab.gateway(), "eth0")?;

        daemon.kill_9()?;
        transfers.iter().try_for_each(Transfer::goes_on)?;
        for (web, datagrams) in http_vips().into_iter().zip(udp_vips()) {
            ask_http(lab, web).context("without a daemon")?;
            super::ask_udp(lab, datagrams).context("without a daemon")?;
        }

        // An upgrade is no more than this: whatever program a daemon brings takes the place of the
        // one that was there.
        let logged = daemon.log()?.len();
        *daemon = lab.start_nlb()?;
        let replaced = attached(lab.gateway(), "eth0")?;
        ensure!(
            replaced.is_some() && replaced != program,
            "{program:?} stayed"
        );
        let after = daemon.status()?;
        let generation = |status: &Value| status["generation"].as_u64().expect("a generation");
        assert!(
            generation(&after) >= generation(&before),
            "{before}\n{after}"
        );
        assert!(after["flows"]["active"].as_u64() >= Some(4), "{after}");
        no_counter_went_back(&before, &after);
        transfers.iter().try_for_each(Transfer::goes_on)?;
        wait_for_states(daemon, |_, state| state == "healthy")?;
        ensure!(
            !daemon.log()?[logged..].contains("from=\"initial\""),
            "it knows which targets took new flows"
        );
        for vip in http_vips() {
            who_answers(|| ask_http(lab, vip))?;
        }
        transfers.into_iter().try_for_each(Transfer::finishes)
    })
}

fn no_counter_went_back(before: &Value, after: &Value) {
    let all = |status: &Value| -> Vec<(String, Value)> {
        let listeners =
            listeners(status).map(|(_, listener)| (text(&listener["name"]), listener.clone()));
        let targets = targets(status).map(|target| (target["id"].to_string(), target.clone()));
        listeners.chain(targets).collect()
    };
    let (before, after) = (all(before), all(after));
    assert_eq!(before.len(), after.len());
    for ((name, old), (same, new)) in before.iter().zip(&after) {
        assert_eq!(name, same);
        for counter in ["packets", "bytes", "return_packets", "new_flows"] {
            assert!(
                new[counter].as_u64() >= old[counter].as_u64(),
                "{counter} of {name} went back: {old}\n{new}"
            );
        }
    }
}

#[test]
fn a_bad_file_changes_nothing_and_every_fault_is_told() -> Result<()> {
    with_nlb("bad_reload", |lab, daemon| {
        let mut connections = Vec::new();
        for vip in http_vips() {
            let mut connection = HttpConnection::from(lab.client(), vip, PATIENCE)?;
            let target = connection.get("/")?.target;
            connections.push((vip, connection, target));
        }
        let before = daemon.status()?;
        lab.write_config(
            &configuration()
                .replacen("port = 80\n", "port = 99999\n", 1)
                .replacen("path = \"/health\"", "path = \"health\"", 1)
                .replace("target_group = \"dsr-dns-v6\"", "target_group = \"absent\""),
        )?;
        let output = daemon.reload()?;
        let told =
            String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success(), "{told}");
        for fault in ["99999", "health", "absent"] {
            assert!(told.contains(fault), "{fault} is not in:\n{told}");
        }
        let after = daemon.status()?;
        assert_eq!(before["generation"], after["generation"]);
        assert_eq!(targets(&before).count(), targets(&after).count());
        for (vip, connection, target) in &mut connections {
            assert_eq!(connection.get("/")?.target, *target, "{vip}");
            who_answers(|| ask_http(lab, *vip))?;
        }

        lab.write_config(&configuration())?;
        let output = daemon.reload()?;
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the right file again: {told}");
        for (vip, connection, target) in &mut connections {
            assert_eq!(connection.get("/")?.target, *target, "{vip}");
        }
        Ok(())
    })
}

#[test]
fn detach_leaves_no_program_no_map_and_no_pin() -> Result<()> {
    with_nlb("detach", |lab, daemon| {
        daemon.terminate()?;
        for vip in http_vips() {
            ask_http(lab, vip).context("the data plane stays when the daemon ends")?;
        }
        let used = InKernel::of(lab)?;
        daemon.detach(lab)?;
        used.is_gone(lab)
    })
}

#[test]
fn with_on_exit_detach_the_data_plane_ends_with_the_daemon() -> Result<()> {
    let text = configuration().replacen("[node]\n", "[node]\non_exit = \"detach\"\n", 1);
    with_configuration("on_exit", &text, |lab, daemon| {
        let used = InKernel::of(lab)?;
        // Whoever is killed has no say; the next daemon takes over what is there.
        daemon.kill_9()?;
        for vip in http_vips() {
            ask_http(lab, vip).context("a daemon that is killed leaves the data plane")?;
        }
        *daemon = lab.start_nlb()?;
        daemon.terminate()?;
        used.is_gone(lab)
    })
}

/// What the data plane has in the kernel.
struct InKernel {
    programs: Vec<u32>,
    maps: Vec<u32>,
}

impl InKernel {
    /// The programs on the lab's interfaces and their maps.
    fn of(lab: &Lab) -> Result<Self> {
        let mut programs = Vec::new();
        for interface in ["eth0", "eth1"] {
            let program = attached(lab.gateway(), interface)?;
            programs.push(program.with_context(|| format!("no program on {interface}"))?);
        }
        let mut maps = Vec::new();
        for program in loaded_programs() {
            let program = program?;
            if programs.contains(&program.id()) {
                maps.extend(
                    program
                        .map_ids()?
                        .context("the kernel names a program's maps")?,
                );
            }
        }
        ensure!(!maps.is_empty(), "programs {programs:?} use no map");
        Ok(Self { programs, maps })
    }

    /// Nothing of it is left, and the hosts reach each other without it.
    fn is_gone(&self, lab: &Lab) -> Result<()> {
        for interface in ["eth0", "eth1"] {
            assert_eq!(attached(lab.gateway(), interface)?, None, "{interface}");
        }
        let pins = lab.bpffs().join("nlb");
        assert!(!pins.exists(), "{} is still there", pins.display());
        let Self { programs, maps } = self;
        // The kernel frees them some time after their last user is gone: when all processors have
        // passed a point where nobody uses them, and its workers get to it.
        wait_until("programs and maps are freed", FREED, || {
            let programs_gone = loaded_programs()
                .flatten()
                .all(|program| !programs.contains(&program.id()));
            let maps_gone = loaded_maps().flatten().all(|map| !maps.contains(&map.id()));
            programs_gone && maps_gone
        })?;
        lab.client().run("ping -n -q -c 1 -W 2 10.2.0.11")?;
        Ok(())
    }
}

/// The id of the XDP program on an interface.
pub(crate) fn attached(host: &Host, interface: &str) -> Result<Option<u32>> {
    let links = host.run(&format!("ip -json -details link show dev {interface}"))?;
    let links: Value = serde_json::from_str(&links)?;
    let id = links[0]["xdp"]["prog"]["id"].as_u64();
    Ok(id.and_then(|id| u32::try_from(id).ok()))
}
