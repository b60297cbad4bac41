//! What happens, told as it happens: health, generations, changes and who made them, warnings.
//!
//! ```text
//!  the loop, the guard ─► Events::tell ─┬─► the log, as structured fields (journald keeps them)
//!                                       └─► ring of the last 4096 ─► GET /v1/events ─► nlb events
//! ```
//!
//! [`warnings`] makes events of states: what is wrong now and was not before.

mod log;
pub mod warnings;

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::access::audit::Outcome;

/// How many are kept; beyond that the oldest are forgotten.
pub const KEPT: usize = 4096;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Counts from 1 since the daemon started.
    pub number: u64,
    /// When, in UTC (RFC 3339).
    pub time: String,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// The daemon runs.
    Started {
        /// Its version.
        version: String,
        /// Whether it found the data plane running.
        adopted: bool,
    },
    /// A target's health changed.
    TargetHealth {
        /// Its group.
        target_group: String,
        /// Its address and port.
        target: String,
        /// NLB's state that it left.
        from: String,
        /// NLB's state that it is in.
        to: String,
        /// NLB's reason code.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// The same in words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        description: Option<String>,
    },
    /// The maps changed.
    Generation {
        /// What is live now.
        generation: u64,
        /// In how many steps.
        steps: usize,
        /// How long after the health check that brought it about, in microseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after_us: Option<u64>,
    },
    /// Somebody changed something over the API, or was refused.
    Call {
        /// Who: a user of this host, or a certificate's name.
        who: Option<String>,
        /// Their process, if it is of this host.
        pid: Option<i32>,
        /// Where from, if over the network.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        remote: Option<String>,
        /// What was asked for, such as `targets:drain`.
        action: String,
        /// Of which resource.
        resource: String,
        /// What became of it: `done`, `refused` or `failed`.
        #[schema(value_type = String)]
        outcome: Outcome,
        /// Why it was refused or failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// The generation that is live after it.
        generation: u64,
    },
    /// The daemon was told by a signal to read its file again.
    Reload {
        /// The generation that is live after it.
        generation: u64,
        /// Why nothing has changed, if so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused: Option<String>,
    },
    /// Something is wrong that was not, or is not any more.
    Warning {
        /// What kind of thing, such as `fail_open`.
        warning: String,
        /// With what: a group, a target, an interface; empty for the node.
        subject: String,
        /// What it means, and what helps.
        text: String,
        /// Whether it is over.
        over: bool,
    },
}

impl What {
    /// Its name, as in JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::TargetHealth { .. } => "target_health",
            Self::Generation { .. } => "generation",
            Self::Call { .. } => "call",
            Self::Reload { .. } => "reload",
            Self::Warning { .. } => "warning",
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { version, adopted } => {
                let how = if *adopted { "took over" } else { "loaded" };
                write!(out, "nlb {version} {how} the data plane")
            }
            Self::TargetHealth {
                target_group,
                target,
                from,
                to,
                description,
                ..
            } => {
                write!(out, "{target_group} {target}: {from} -> {to}")?;
                match description {
                    Some(words) => write!(out, " ({words})"),
                    None => Ok(()),
                }
            }
            Self::Generation {
                generation, steps, ..
            } => {
                let plural = if *steps == 1 { "" } else { "s" };
                write!(out, "{generation} is live, {steps} step{plural}")
            }
            Self::Call {
                who,
                pid,
                remote,
                action,
                resource,
                outcome,
                reason,
                generation,
            } => {
                out.write_str(who.as_deref().unwrap_or("somebody"))?;
                match (pid, remote) {
                    (Some(pid), _) => write!(out, " (process {pid})")?,
                    (None, Some(remote)) => write!(out, " ({remote})")?,
                    (None, None) => {}
                }
                write!(out, ": {action} {resource}: ")?;
                match (outcome, reason) {
                    (Outcome::Done, _) => write!(out, "done, generation {generation}"),
                    (Outcome::Refused, reason) => {
                        write!(
                            out,
                            "refused, {}",
                            reason.as_deref().unwrap_or("not allowed")
                        )
                    }
                    (Outcome::Failed, reason) => {
                        write!(
                            out,
                            "failed, {}",
                            reason.as_deref().unwrap_or("see the log")
                        )
                    }
                }
            }
            Self::Reload {
                generation,
                refused: None,
            } => write!(out, "by signal, generation {generation} is live"),
            Self::Reload {
                refused: Some(why), ..
            } => write!(out, "by signal, refused: {why}"),
            Self::Warning {
                warning,
                subject,
                text,
                over,
            } => {
                write!(out, "{warning}")?;
                if !subject.is_empty() {
                    write!(out, " {subject}")?;
                }
                match over {
                    true => out.write_str(": over"),
                    false => write!(out, ": {text}"),
                }
            }
        }
    }
}

/// Events after some number: the answer of `GET /v1/events`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page {
    /// The events, oldest first.
    pub events: Vec<Event>,
    /// What to ask for next, as `after`.
    pub next: u64,
    /// How many were forgotten between the number that was asked for and the first of these.
    pub lost: u64,
}

/// Where events are told, and read. Clones are the same place.
#[derive(Debug, Clone)]
pub struct Events {
    ring: Arc<Mutex<Ring>>,
    latest: watch::Sender<u64>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            ring: Arc::default(),
            latest: watch::Sender::new(0),
        }
    }
}

impl Events {
    /// Tells what happened just now: to the log, and to whoever listens.
    pub fn tell(&self, what: What) {
        log::log(&what);
        let time = humantime::format_rfc3339_millis(wall_clock()).to_string();
        let number = self.ring().push(time, what);
        self.latest.send_replace(number);
    }

    /// What happened after that number.
    pub fn after(&self, number: u64) -> Page {
        self.ring().after(number)
    }

    /// The same; if nothing has, waits until something does.
    pub async fn next_after(&self, number: u64) -> Page {
        let mut latest = self.latest.subscribe();
        loop {
            latest.mark_unchanged();
            let page = self.after(number);
            if !page.events.is_empty() || latest.changed().await.is_err() {
                return page;
            }
        }
    }

    fn ring(&self) -> std::sync::MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last events.
#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Event>,
    told: u64,
}

impl Ring {
    fn push(&mut self, time: String, what: What) -> u64 {
        self.told += 1;
        if self.events.len() == KEPT {
            self.events.pop_front();
        }
        self.events.push_back(Event {
            number: self.told,
            time,
            what,
        });
        self.told
    }

    fn after(&self, number: u64) -> Page {
        // Somebody who listened to an earlier daemon has missed all of this one.
        let number = if number > self.told { 0 } else { number };
        let first = self
            .events
            .front()
            .map_or(self.told + 1, |event| event.number);
        let known = self.events.partition_point(|event| event.number <= number);
        Page {
            events: self.events.range(known..).cloned().collect(),
            next: self.told,
            lost: first.saturating_sub(number + 1),
        }
    }
}

/// The time of day, which may jump: to be shown, never to be counted with.
#[expect(
    clippy::disallowed_methods,
    reason = "people want to know when something happened"
)]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn generation(generation: u64) -> What {
        What::Generation {
            generation,
            steps: 1,
            after_us: None,
        }
    }

    proptest! {
        #[test]
        fn a_reader_sees_each_event_once_or_is_told_that_it_was_lost(told in 0_u64..9000, asked in 0_u64..9000) {
            let mut ring = Ring::default();
            for number in 1..=told {
                prop_assert_eq!(ring.push(String::new(), generation(number)), number);
            }
            let page = ring.after(asked);
            let asked = if asked > told { 0 } else { asked };
            prop_assert_eq!(page.next, told);
            prop_assert_eq!(page.lost + page.events.len() as u64, told - asked);
            prop_assert!(page.events.len() <= KEPT);
            for (event, number) in page.events.iter().zip(asked + page.lost + 1..) {
                prop_assert_eq!(event.number, number);
            }
        }
    }

    #[tokio::test]
    async fn who_waits_hears_of_the_next_one_and_nobody_waits_for_what_there_is() {
        let events = Events::default();
        let waiting = tokio::spawn({
            let events = events.clone();
            async move { events.next_after(0).await }
        });
        tokio::task::yield_now().await;
        events.tell(generation(7));
        let page = waiting.await.unwrap();
        assert_eq!(page.events.len(), 1);
        assert_eq!(page.events[0].what, generation(7));
        assert_eq!(events.next_after(0).await, page);
        assert_eq!(events.after(page.next).events, []);
    }

    #[test]
    fn an_event_in_json_is_flat_and_comes_back() {
        let event = Event {
            number: 3,
            time: "2026-01-01T00:00:00.000Z".to_owned(),
            what: What::TargetHealth {
                target_group: "web".to_owned(),
                target: "10.0.0.11:80".to_owned(),
                from: "healthy".to_owned(),
                to: "unhealthy".to_owned(),
                reason: Some("Target.Timeout".to_owned()),
                description: None,
            },
        };
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(json["event"], event.what.name());
        assert_eq!(json["target_group"], "web");
        assert_eq!(serde_json::from_value::<Event>(json).unwrap(), event);
    }
}
