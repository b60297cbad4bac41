//! The life of one target, as a pure state machine.
//!
//! Time comes in as an argument (a [`Duration`] since the daemon started, any fixed origin will do)
//! and nothing goes out but the return value, so that every path can be tested without waiting.
//! A clock that stands still or steps back delays what is due and does nothing else.
//!
//! # Transitions
//!
//! | From | To | When |
//! |---|---|---|
//! | `initial` | `healthy` | the first check that passes, whatever the threshold |
//! | `initial` | `unhealthy` | unhealthy threshold: that many failures |
//! | `healthy` | `unhealthy` | unhealthy threshold: that many failures in a row |
//! | `healthy` | `unhealthy.draining` | the same, with a draining interval above 0 (default 0) |
//! | `unhealthy.draining` | `healthy` | healthy threshold: that many passes in a row |
//! | `unhealthy.draining` | `unhealthy` | the draining interval is over |
//! | `unhealthy` | `healthy` | healthy threshold: that many passes in a row |
//! | `initial`, `healthy`, `unhealthy`, `unhealthy.draining`, `unavailable` | `draining` | deregistered |
//! | the same | `unused` | deregistered with a delay of 0, or the group's last listener went |
//! | `initial`, `healthy`, `unhealthy`, `unhealthy.draining` | `unavailable` | health checks turned off |
//! | `unavailable` | `initial` | health checks turned on |
//! | `draining` | `unused` | the deregistration delay is over, or registered again in a group not in use |
//! | `draining`, `unused` | `initial` | registered again; or a listener takes up the group (`unused` only) |
//! | `draining`, `unused` | `unavailable` | the same, with health checks off |
//!
//! [`TRANSITIONS`] is this table for tests and graphs. Two changes of reason come without a change
//! of state: the first failed check of an `initial` target, and the deregistration of a target that
//! is `unused` because its group is.

use std::time::Duration;

use serde::ser::{Serialize, SerializeStruct as _, Serializer};

use super::{ProbeFailure, ProbeOutcome};
use crate::target_state::{Reason, TargetState};

/// Every change of state there is.
pub const TRANSITIONS: [(TargetState, TargetState); 27] = {
    use TargetState::{
        Draining, Healthy, Initial, Unavailable, Unhealthy, UnhealthyDraining, Unused,
    };
    [
        (Initial, Healthy),
        (Initial, Unhealthy),
        (Healthy, Unhealthy),
        (Healthy, UnhealthyDraining),
        (UnhealthyDraining, Healthy),
        (UnhealthyDraining, Unhealthy),
        (Unhealthy, Healthy),
        (Initial, Draining),
        (Healthy, Draining),
        (Unhealthy, Draining),
        (UnhealthyDraining, Draining),
        (Unavailable, Draining),
        (Initial, Unused),
        (Healthy, Unused),
        (Unhealthy, Unused),
        (UnhealthyDraining, Unused),
        (Unavailable, Unused),
        (Initial, Unavailable),
        (Healthy, Unavailable),
        (Unhealthy, Unavailable),
        (UnhealthyDraining, Unavailable),
        (Unavailable, Initial),
        (Draining, Unused),
        (Draining, Initial),
        (Draining, Unavailable),
        (Unused, Initial),
        (Unused, Unavailable),
    ]
};

/// How a target group judges its targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Passes in a row that make an unhealthy target healthy (`HealthyThresholdCount`). 0 is taken
    /// as 1, here and below.
    pub healthy: u32,
    /// Failures in a row that make a target unhealthy (`UnhealthyThresholdCount`).
    pub unhealthy: u32,
    /// How long a target that turned unhealthy keeps its flows
    /// (`target_health_state.unhealthy.draining_interval_seconds`; 0 by default, which skips the
    /// state `unhealthy.draining`).
    pub unhealthy_draining_interval: Duration,
}

impl Default for Thresholds {
    /// NLB's defaults.
    fn default() -> Self {
        Self {
            healthy: 5,
            unhealthy: 2,
            unhealthy_draining_interval: Duration::ZERO,
        }
    }
}

/// A change of state, for the log, events and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// When, on the clock of the caller.
    pub at: Duration,
    /// The state before.
    pub from: TargetState,
    /// The state since.
    pub to: TargetState,
    /// Why; none for `healthy`.
    pub reason: Option<Reason>,
}

/// State, and what it takes to leave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Initial { failures: u32 },
    Healthy { failures: u32 },
    Unhealthy { passes: u32 },
    UnhealthyDraining { passes: u32, until: Duration },
    Draining { until: Duration },
    NotInUse,
    NotRegistered,
    Unavailable,
}

impl Phase {
    const fn state(self) -> TargetState {
        match self {
            Self::Initial { .. } => TargetState::Initial,
            Self::Healthy { .. } => TargetState::Healthy,
            Self::Unhealthy { .. } => TargetState::Unhealthy,
            Self::UnhealthyDraining { .. } => TargetState::UnhealthyDraining,
            Self::Draining { .. } => TargetState::Draining,
            Self::NotInUse | Self::NotRegistered => TargetState::Unused,
            Self::Unavailable => TargetState::Unavailable,
        }
    }

    const fn reason(self) -> Option<Reason> {
        match self {
            Self::Initial { failures: 0 } => Some(Reason::RegistrationInProgress),
            Self::Initial { .. } => Some(Reason::InitialHealthChecking),
            Self::Healthy { .. } => None,
            Self::Unhealthy { .. } | Self::UnhealthyDraining { .. } => {
                Some(Reason::FailedHealthChecks)
            }
            Self::Draining { .. } => Some(Reason::DeregistrationInProgress),
            Self::NotInUse => Some(Reason::NotInUse),
            Self::NotRegistered => Some(Reason::NotRegistered),
            Self::Unavailable => Some(Reason::HealthCheckDisabled),
        }
    }

    /// What the phase has become by `now`.
    fn at(self, now: Duration) -> Self {
        match self {
            Self::UnhealthyDraining { passes, until } if now >= until => Self::Unhealthy { passes },
            Self::Draining { until } if now >= until => Self::NotRegistered,
            lasting => lasting,
        }
    }
}

/// The health of one target in one target group.
///
/// Serializes as `{"state", "reason", "description"}` with NLB's strings (no reason, no fields for
/// it) and, while checks fail, nlb's own `"last_failure"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetHealth {
    phase: Phase,
    /// `None`: the group's health checks are off.
    thresholds: Option<Thresholds>,
    in_use: bool,
    last_failure: Option<ProbeFailure>,
}

impl TargetHealth {
    /// A target that is new in its group. `thresholds` of `None` says that the group's health
    /// checks are off; `in_use`, that a listener forwards to the group.
    pub const fn registered(thresholds: Option<Thresholds>, in_use: bool) -> Self {
        let phase = Self::phase_at_registration(thresholds, in_use);
        Self {
            phase,
            thresholds,
            in_use,
            last_failure: None,
        }
    }

    /// A target that an earlier life of the daemon has judged, so that a restart neither stops new
    /// flows to it nor makes its group fail open: it is what it was, and its counts start anew.
    /// With health checks off it is `unavailable`, as any other.
    ///
    /// One that was draining: this, and then [`deregister`](Self::deregister) with what was left of
    /// its delay.
    pub const fn adopted(healthy: bool, thresholds: Option<Thresholds>) -> Self {
        let phase = match (thresholds, healthy) {
            (None, _) => Phase::Unavailable,
            (Some(_), true) => Phase::Healthy { failures: 0 },
            (Some(_), false) => Phase::Unhealthy { passes: 0 },
        };
        Self {
            phase,
            thresholds,
            in_use: true,
            last_failure: None,
        }
    }

    const fn phase_at_registration(thresholds: Option<Thresholds>, in_use: bool) -> Phase {
        match (in_use, thresholds) {
            (false, _) => Phase::NotInUse,
            (true, None) => Phase::Unavailable,
            (true, Some(_)) => Phase::Initial { failures: 0 },
        }
    }

    /// The state.
    pub const fn state(&self) -> TargetState {
        self.phase.state()
    }

    /// Why it is in that state; `None` for `healthy`.
    pub const fn reason(&self) -> Option<Reason> {
        self.phase.reason()
    }

    /// What the latest check said, unless it passed.
    pub const fn last_failure(&self) -> Option<&ProbeFailure> {
        self.last_failure.as_ref()
    }

    /// Whether the target has left its group for good and can be forgotten.
    pub const fn is_gone(&self) -> bool {
        matches!(self.phase, Phase::NotRegistered)
    }

    /// Whether probing the target says anything.
    pub const fn wants_probes(&self) -> bool {
        matches!(
            self.phase,
            Phase::Initial { .. }
                | Phase::Healthy { .. }
                | Phase::Unhealthy { .. }
                | Phase::UnhealthyDraining { .. }
        )
    }

    /// When [`tick`](Self::tick) has something to do next, if ever.
    pub const fn due(&self) -> Option<Duration> {
        match self.phase {
            Phase::UnhealthyDraining { until, .. } | Phase::Draining { until } => Some(until),
            _ => None,
        }
    }

    /// Takes in what came of a probe. Probes that end after the target stopped being checked (they
    /// were under way) change nothing.
    pub fn observe(&mut self, now: Duration, outcome: ProbeOutcome) -> Option<Transition> {
        let Some(thresholds) = self.thresholds.filter(|_| self.wants_probes()) else {
            return self.tick(now);
        };
        self.last_failure = match outcome {
            ProbeOutcome::Passed { .. } => None,
            ProbeOutcome::Failed { reason } => Some(reason),
        };
        let next = match &self.last_failure {
            None => self.after_pass(thresholds, now),
            Some(_) => self.after_failure(thresholds, now),
        };
        self.enter(now, next)
    }

    fn after_pass(&self, thresholds: Thresholds, now: Duration) -> Phase {
        let healthy = Phase::Healthy { failures: 0 };
        match self.phase {
            Phase::Initial { .. } | Phase::Healthy { .. } => healthy,
            Phase::Unhealthy { passes } | Phase::UnhealthyDraining { passes, .. }
                if passes.saturating_add(1) >= thresholds.healthy =>
            {
                healthy
            }
            Phase::Unhealthy { passes } => Phase::Unhealthy {
                passes: passes.saturating_add(1),
            },
            Phase::UnhealthyDraining { passes, until } => {
                let passes = passes.saturating_add(1);
                Phase::UnhealthyDraining { passes, until }.at(now)
            }
            unchecked => unchecked,
        }
    }

    fn after_failure(&self, thresholds: Thresholds, now: Duration) -> Phase {
        let unhealthy = Phase::Unhealthy { passes: 0 };
        match self.phase {
            Phase::Initial { failures } => {
                let failures = failures.saturating_add(1);
                if failures >= thresholds.unhealthy {
                    unhealthy
                } else {
                    Phase::Initial { failures }
                }
            }
            Phase::Healthy { failures } => {
                let failures = failures.saturating_add(1);
                if failures < thresholds.unhealthy {
                    return Phase::Healthy { failures };
                }
                match thresholds.unhealthy_draining_interval {
                    Duration::ZERO => unhealthy,
                    interval => {
                        let until = now.saturating_add(interval);
                        Phase::UnhealthyDraining { passes: 0, until }
                    }
                }
            }
            Phase::Unhealthy { .. } => unhealthy,
            Phase::UnhealthyDraining { until, .. } => {
                Phase::UnhealthyDraining { passes: 0, until }.at(now)
            }
            unchecked => unchecked,
        }
    }

    /// Does what time alone brings: the end of an unhealthy target's draining interval and of a
    /// deregistration delay.
    pub fn tick(&mut self, now: Duration) -> Option<Transition> {
        self.enter(now, self.phase.at(now))
    }

    /// Takes the target out of its group, keeping its flows for `delay`
    /// (`deregistration_delay.timeout_seconds`). Deregistering twice does not lengthen the delay.
    pub fn deregister(&mut self, now: Duration, delay: Duration) -> Option<Transition> {
        let next = match self.phase {
            Phase::Draining { .. } => self.phase.at(now),
            Phase::NotInUse | Phase::NotRegistered => Phase::NotRegistered,
            _ if delay.is_zero() => Phase::NotRegistered,
            _ => Phase::Draining {
                until: now.saturating_add(delay),
            },
        };
        self.enter(now, next)
    }

    /// Puts a deregistered target back into its group, where it starts like a new one. Does nothing
    /// to a target that is registered.
    pub fn reregister(&mut self, now: Duration) -> Option<Transition> {
        let next = match self.phase {
            Phase::Draining { .. } | Phase::NotRegistered => {
                Self::phase_at_registration(self.thresholds, self.in_use)
            }
            registered => registered,
        };
        self.enter(now, next)
    }

    /// Tells whether a listener forwards to the target's group.
    pub fn set_in_use(&mut self, now: Duration, in_use: bool) -> Option<Transition> {
        self.in_use = in_use;
        let next = match self.phase {
            Phase::NotInUse if in_use => Self::phase_at_registration(self.thresholds, in_use),
            leaving @ (Phase::Draining { .. } | Phase::NotRegistered) => leaving,
            _ if !in_use => Phase::NotInUse,
            unchanged => unchanged,
        };
        self.enter(now, next)
    }

    /// Tells how the group judges its targets from now on, `None` if not at all. New thresholds
    /// hold from the next check; what was counted stays counted.
    pub fn set_thresholds(
        &mut self,
        now: Duration,
        thresholds: Option<Thresholds>,
    ) -> Option<Transition> {
        self.thresholds = thresholds;
        let next = match (self.phase, thresholds) {
            (Phase::Unavailable, Some(_)) => Phase::Initial { failures: 0 },
            (_, None) if self.wants_probes() => Phase::Unavailable,
            (unchanged, _) => unchanged,
        };
        self.enter(now, next)
    }

    fn enter(&mut self, at: Duration, next: Phase) -> Option<Transition> {
        let from = self.state();
        self.phase = next;
        if !self.wants_probes() || matches!(next, Phase::Initial { failures: 0 }) {
            self.last_failure = None;
        }
        let to = self.state();
        (from != to).then(|| Transition {
            at,
            from,
            to,
            reason: self.reason(),
        })
    }
}

impl Serialize for TargetHealth {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let reason = self.reason();
        let fields =
            1 + 2 * usize::from(reason.is_some()) + usize::from(self.last_failure.is_some());
        let mut health = serializer.serialize_struct("TargetHealth", fields)?;
        health.serialize_field("state", &self.state())?;
        if let Some(reason) = reason {
            health.serialize_field("reason", &reason)?;
            health.serialize_field("description", reason.description())?;
        }
        if let Some(failure) = &self.last_failure {
            health.serialize_field("last_failure", &failure)?;
        }
        health.end()
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
