//! What was found: figures, what was not as it should be, and how both are told.

use std::fmt::{self, Display, Formatter};

use serde_json::{Value, json};

/// All figures.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) spread: Vec<Spread>,
    pub(crate) preserved: Preserved,
    /// Answers that the gateway carried.
    pub(crate) nat_return_packets: u64,
    pub(crate) dsr_packets: u64,
    pub(crate) dsr_return_packets: u64,
    pub(crate) failover: Option<Failover>,
    pub(crate) seconds: f64,
    /// What was not as it should be; empty is success.
    pub(crate) problems: Vec<String>,
}

/// New flows to one VIP by one protocol.
#[derive(Clone, Debug)]
pub(crate) struct Spread {
    pub(crate) name: String,
    pub(crate) per_target: Vec<usize>,
    pub(crate) failed: usize,
}

/// Flows whose target saw the client's own address and port.
#[derive(Clone, Debug, Default)]
pub(crate) struct Preserved {
    pub(crate) tcp: usize,
    pub(crate) udp: usize,
    /// Of so many each.
    pub(crate) of: usize,
}

/// The kill and what came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failover {
    pub(crate) victim: String,
    pub(crate) limit_seconds: f64,
    pub(crate) unhealthy_first_seconds: f64,
    pub(crate) unhealthy_seconds: f64,
    /// Since the restart.
    pub(crate) healthy_again_seconds: f64,
    /// Since the restart: every VIP had a new connection to it.
    pub(crate) used_again_seconds: f64,
    pub(crate) new_connections: usize,
    pub(crate) new_failed: usize,
    pub(crate) new_failed_outside: usize,
    pub(crate) first_failure_seconds: Option<f64>,
    pub(crate) last_failure_seconds: Option<f64>,
    pub(crate) pinned_elsewhere: usize,
    pub(crate) pinned_on_victim: usize,
    pub(crate) pinned_requests: u64,
    pub(crate) pinned_wrong_target: u64,
    pub(crate) pinned_broken: usize,
    pub(crate) downloads: usize,
    pub(crate) downloads_finished: usize,
    /// Some of the failures, in words.
    pub(crate) examples: Vec<String>,
}

impl Report {
    /// Notes a problem, once, unless all is well.
    pub(crate) fn check(&mut self, well: bool, otherwise: impl FnOnce() -> String) {
        if !well {
            let problem = otherwise();
            if !self.problems.contains(&problem) {
                self.problems.push(problem);
            }
        }
    }

    /// For `--json`.
    pub(crate) fn figures(&self) -> Value {
        let spread: Vec<Value> = self
            .spread
            .iter()
            .map(|spread| {
                json!({
                    "name": spread.name,
                    "flows_per_target": spread.per_target,
                    "failed": spread.failed,
                })
            })
            .collect();
        json!({
            "ok": self.problems.is_empty(),
            "problems": self.problems,
            "seconds": self.seconds,
            "spread": spread,
            "client_address_preserved": {
                "tcp": self.preserved.tcp,
                "udp": self.preserved.udp,
                "of_each": self.preserved.of,
            },
            "gateway": {
                "nat_return_packets": self.nat_return_packets,
                "dsr_packets": self.dsr_packets,
                "dsr_return_packets": self.dsr_return_packets,
            },
            "failover": self.failover.as_ref().map(Failover::figures),
        })
    }
}

impl Failover {
    /// From the first failure's start to the last one's end.
    fn window_seconds(&self) -> Option<f64> {
        Some(self.last_failure_seconds? - self.first_failure_seconds?)
    }

    fn figures(&self) -> Value {
        json!({
            "victim": self.victim,
            "window_limit_seconds": self.limit_seconds,
            "window_seconds": self.window_seconds(),
            "first_failure_seconds_after_kill": self.first_failure_seconds,
            "last_failure_seconds_after_kill": self.last_failure_seconds,
            "first_unhealthy_seconds_after_kill": self.unhealthy_first_seconds,
            "all_unhealthy_seconds_after_kill": self.unhealthy_seconds,
            "healthy_seconds_after_restart": self.healthy_again_seconds,
            "used_by_all_vips_seconds_after_restart": self.used_again_seconds,
            "new_connections": self.new_connections,
            "new_connections_failed": self.new_failed,
            "new_connections_failed_outside_window": self.new_failed_outside,
            "pinned_flows_on_other_targets": self.pinned_elsewhere,
            "pinned_flows_on_victim": self.pinned_on_victim,
            "pinned_requests": self.pinned_requests,
            "pinned_answers_from_wrong_target": self.pinned_wrong_target,
            "pinned_flows_broken": self.pinned_broken,
            "downloads": self.downloads,
            "downloads_finished": self.downloads_finished,
            "examples": self.examples,
        })
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "New flows            target1  target2  target3   failed")?;
        for spread in &self.spread {
            write!(f, "  {:<18}", spread.name)?;
            for count in &spread.per_target {
                write!(f, " {count:>8}")?;
            }
            writeln!(f, " {:>7}", spread.failed)?;
        }
        let Preserved { tcp, udp, of } = self.preserved;
        line(
            f,
            "Client's own address",
            format_args!("seen by the target in {tcp} of {of} requests, {udp} of {of} datagrams"),
        )?;
        line(
            f,
            "Way back",
            format_args!(
                "nat: {} packets through the gateway; dsr: {} of {}",
                self.nat_return_packets, self.dsr_return_packets, self.dsr_packets
            ),
        )?;
        if let Some(failover) = &self.failover {
            write!(f, "{failover}")?;
        }
        if self.problems.is_empty() {
            return write!(f, "\nAll is as it should be ({:.0} s).", self.seconds);
        }
        write!(f, "\nNot as it should be:")?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl Display for Failover {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\nThe web server of {} killed, and started again",
            self.victim
        )?;
        line(
            f,
            "  new connections",
            format_args!("{} of {} failed", self.new_failed, self.new_connections),
        )?;
        if let (Some(first), Some(last)) = (self.first_failure_seconds, self.last_failure_seconds) {
            line(
                f,
                "  they failed from",
                format_args!(
                    "{first:.2} s to {last:.2} s after the kill (allowed: {:.1} s); outside: {}",
                    self.limit_seconds, self.new_failed_outside
                ),
            )?;
        }
        line(
            f,
            "  seen unhealthy",
            format_args!("{:.2} s after the kill", self.unhealthy_seconds),
        )?;
        line(
            f,
            "  pinned elsewhere",
            format_args!(
                "{} flows, {} requests: {} broken, {} answers from a wrong target",
                self.pinned_elsewhere,
                self.pinned_requests,
                self.pinned_broken,
                self.pinned_wrong_target
            ),
        )?;
        line(
            f,
            "  downloads elsewhere",
            format_args!("{} of {} finished", self.downloads_finished, self.downloads),
        )?;
        line(
            f,
            "  healthy again",
            format_args!(
                "{:.2} s after the restart, new connections on every VIP after {:.2} s",
                self.healthy_again_seconds, self.used_again_seconds
            ),
        )
    }
}

fn line(f: &mut Formatter<'_>, name: &str, value: fmt::Arguments<'_>) -> fmt::Result {
    writeln!(f, "{name:<22} {value}")
}
