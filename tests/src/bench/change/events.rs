//! What happens to a load balancer while connections are open.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::lab::{
    Lab,
    addresses::target_v4,
    daemon::Daemon,
    wait::{pause, wait_until},
};

const EXAMPLE: &str = include_str!("../../../../docs/examples/demo.toml");
/// The target that all of it is about: `target2`.
const VICTIM: usize = 1;
/// How long a change may take to be seen.
const SOON: Duration = Duration::from_secs(20);
/// Traffic before and after each event.
const CALM: Duration = Duration::from_secs(2);

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A target comes.
    Added,
    /// A target is deregistered; it has its deregistration delay.
    Removed,
    /// A target's weight becomes 0.
    Drained,
    /// A target's server is killed.
    Fails,
    /// The daemon ends and starts again, with which the program is replaced.
    Restarts,
    /// The same after a SIGKILL.
    Killed,
    /// Another node takes over that has the same hash key and knows none of the flows.
    TakenOver,
    /// The same where listeners forward strays, which those of `nat` otherwise reset.
    TakenOverWithStrays,
}

impl Event {
    /// Everything, in an order in which one does not disturb the next.
    pub const ALL: [Self; 8] = [
        Self::Added,
        Self::Removed,
        Self::Drained,
        Self::Fails,
        Self::Restarts,
        Self::Killed,
        Self::TakenOver,
        Self::TakenOverWithStrays,
    ];

    /// Those that are looked at quickly.
    pub const FEW: [Self; 4] = [Self::Removed, Self::Fails, Self::Restarts, Self::TakenOver];

    /// What the report calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Added => "a target is added",
            Self::Removed => "a target is deregistered",
            Self::Drained => "a target's weight becomes 0",
            Self::Fails => "a target's server is killed",
            Self::Restarts => "the daemon restarts; its program is replaced",
            Self::Killed => "the daemon is killed and started again",
            Self::TakenOver => "a node without the flows takes over",
            Self::TakenOverWithStrays => "the same, `tcp.stray.action = \"forward\"`",
        }
    }

    /// The same in a word or two.
    pub const fn short_name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "deregistered",
            Self::Drained => "weight 0",
            Self::Fails => "server killed",
            Self::Restarts => "restart",
            Self::Killed => "kill -9",
            Self::TakenOver => "other node",
            Self::TakenOverWithStrays => "…, strays",
        }
    }

    /// Whether there is a time without any node, in which new connections cannot but fail: a second
    /// one would have been there already.
    pub const fn interrupts(self) -> bool {
        matches!(self, Self::TakenOver | Self::TakenOverWithStrays)
    }
}

/// The lab, and the daemon in it.
pub(super) struct Stage {
    lab: Lab,
    daemon: Daemon,
}

impl Stage {
    pub(super) fn set() -> Result<Self> {
        let lab = Lab::new("change")?;
        lab.write_config(EXAMPLE)?;
        let daemon = lab.start_nlb()?;
        Ok(Self { lab, daemon })
    }

    pub(super) const fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The name that the victim answers with.
    pub(super) fn victim(&self) -> &str {
        self.lab.target(VICTIM).name()
    }

    /// Everything as it is to be before an event.
    pub(super) fn before(&mut self, event: Event) -> Result<()> {
        let text = match event {
            Event::Added => without_victim()?,
            Event::TakenOverWithStrays => with_strays()?,
            _ => EXAMPLE.to_owned(),
        };
        // A check that a busy machine answers late would be a change of its own.
        let text = match event {
            Event::Fails => text,
            _ => patient(&text),
        };
        self.reload(&text)?;
        self.wait_until_all_are("healthy")
    }

    /// The event; returns when it is over.
    pub(super) fn let_happen(&mut self, event: Event) -> Result<()> {
        pause(CALM)?;
        match event {
            Event::Added => {
                self.reload(&patient(EXAMPLE))?;
                self.wait_until_all_are("healthy")?;
            }
            Event::Removed => self.reload(&patient(&without_victim()?))?,
            Event::Drained => {
                let text = with_victim(|address| format!("{address}  weight = 0\n"))?;
                self.reload(&patient(&text))?;
            }
            Event::Fails => {
                self.lab.kill_nginx(VICTIM)?;
                let victim = target_v4(VICTIM).to_string();
                wait_until("the victim is unhealthy", SOON, || {
                    states(&self.daemon).is_ok_and(|states| {
                        let mut own = states
                            .iter()
                            .filter(|(address, _)| address.contains(&victim));
                        own.all(|(_, state)| state == "unhealthy")
                    })
                })?;
            }
            Event::Restarts => {
                self.daemon.terminate()?;
                self.daemon = self.lab.start_nlb()?;
            }
            Event::Killed => {
                self.daemon.kill_9()?;
                self.daemon = self.lab.start_nlb()?;
            }
            Event::TakenOver | Event::TakenOverWithStrays => {
                self.daemon.terminate()?;
                self.daemon.detach(&self.lab)?;
                self.daemon = self.lab.start_nlb()?;
                // The other node would have looked at the targets for long.
                self.wait_until_all_are("healthy")?;
            }
        }
        pause(CALM)?;
        if event == Event::Fails {
            self.lab.start_nginx(VICTIM)?;
        }
        Ok(())
    }

    fn reload(&self, text: &str) -> Result<()> {
        self.lab.write_config(text)?;
        let output = self.daemon.reload()?;
        ensure!(output.status.success(), "{output:?}");
        Ok(())
    }

    fn wait_until_all_are(&self, wanted: &str) -> Result<()> {
        wait_until(&format!("all targets are {wanted}"), SOON, || {
            states(&self.daemon).is_ok_and(|states| {
                let mut present = states.iter().filter(|(_, state)| state != "draining");
                present.all(|(_, state)| state == wanted)
            })
        })?;
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What is left goes with the lab.
        drop(self.daemon.terminate());
    }
}

/// Each target's address and state.
fn states(daemon: &Daemon) -> Result<Vec<(String, String)>> {
    let status = daemon.status()?;
    let groups = status["target_groups"].as_array().context("no groups")?;
    let targets = groups
        .iter()
        .flat_map(|group| group["targets"].as_array().into_iter().flatten());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(targets
        .map(|target| (text(&target["address"]), text(&target["state"])))
        .collect())
}

/// A configuration in which a target must fail often.
fn patient(text: &str) -> String {
    text.replace(
        "unhealthy_threshold_count = 2",
        "unhealthy_threshold_count = 10",
    )
}

/// The configuration with something else in place of the victim's address.
fn with_victim(change: impl Fn(&str) -> String) -> Result<String> {
    let line = format!("  address = \"{}\"\n", target_v4(VICTIM));
    ensure!(EXAMPLE.contains(&line), "the example has the victim");
    Ok(EXAMPLE.replace(&line, &change(&line)))
}

fn without_victim() -> Result<String> {
    let removed = with_victim(|_| "REMOVED\n".to_owned())?;
    Ok(removed.replace("  [[target_group.target]]\nREMOVED\n", ""))
}

/// The configuration with listeners that forward strays.
fn with_strays() -> Result<String> {
    let line = "  target_group = \"nat-web-v4\"\n";
    ensure!(EXAMPLE.contains(line), "the example has nat-web-v4");
    Ok(EXAMPLE.replace(line, &format!("{line}  tcp.stray.action = \"forward\"\n")))
}
