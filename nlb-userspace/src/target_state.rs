//! The words of a target's lifecycle, and the rule that turns them into a choice of targets.
//!
//! States, reason codes and descriptions are NLB's (`DescribeTargetHealth`), letter for letter, so
//! that what an operator knows about NLB holds here. How a target moves between states is in
//! [`crate::health::state`]; here is only what a state *means*: which targets of a group take new
//! flows ([`routable`]). Nothing here knows time, probes or maps.

use std::fmt;

use serde::{Serialize, Serializer};

/// Where a target is in its life (NLB's `TargetHealth.State`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TargetState {
    /// Registered, and no verdict yet. Takes no flows unless its group fails open.
    Initial,
    /// Takes new flows.
    Healthy,
    /// Takes no new flows unless its group fails open.
    Unhealthy,
    /// Failed its checks a moment ago: no new flows, those it has stay for the group's
    /// `target_health_state.unhealthy.draining_interval_seconds`.
    UnhealthyDraining,
    /// Deregistered: no new flows, not even in fail-open, those it has stay for the deregistration
    /// delay.
    Draining,
    /// Not registered, or registered in a group that no listener uses.
    Unused,
    /// Not checked. nlb routes to it as to a healthy one.
    Unavailable,
}

impl TargetState {
    /// All states, in the order of the table in [`crate::health::state`].
    pub const ALL: [Self; 7] = [
        Self::Initial,
        Self::Healthy,
        Self::Unhealthy,
        Self::UnhealthyDraining,
        Self::Draining,
        Self::Unused,
        Self::Unavailable,
    ];

    /// NLB's name of the state.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::UnhealthyDraining => "unhealthy.draining",
            Self::Draining => "draining",
            Self::Unused => "unused",
            Self::Unavailable => "unavailable",
        }
    }

    /// Whether new flows may go to the target for its own sake, fail-open aside.
    pub const fn takes_new_flows(self) -> bool {
        matches!(self, Self::Healthy | Self::Unavailable)
    }

    /// Whether new flows may go to the target when its group fails open: it is registered, in use
    /// and not on its way out.
    pub const fn takes_new_flows_in_fail_open(self) -> bool {
        match self {
            Self::Initial
            | Self::Healthy
            | Self::Unhealthy
            | Self::UnhealthyDraining
            | Self::Unavailable => true,
            Self::Draining | Self::Unused => false,
        }
    }
}

impl fmt::Display for TargetState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for TargetState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Why a target is in its state (NLB's `TargetHealth.Reason`); `healthy` has none.
///
/// NLB's codes for what nlb has no cause to say are left out: `Target.InvalidState` (a stopped
/// instance), `Target.IpUnusable`, `Elb.InternalError`, and ALB's `Target.Timeout` and
/// `Target.ResponseCodeMismatch` (as with NLB, each is a `Target.FailedHealthChecks`; what exactly
/// failed is in [`crate::health::ProbeFailure`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// `initial`: no check has ended yet.
    RegistrationInProgress,
    /// `initial`: checks have failed, fewer than the unhealthy threshold.
    InitialHealthChecking,
    /// `unhealthy` and `unhealthy.draining`.
    FailedHealthChecks,
    /// `draining`.
    DeregistrationInProgress,
    /// `unused`: the deregistration delay is over.
    NotRegistered,
    /// `unused`: no listener forwards to the target group.
    NotInUse,
    /// `unavailable`: the target group's health check is off.
    HealthCheckDisabled,
}

impl Reason {
    /// NLB's reason code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::RegistrationInProgress => "Elb.RegistrationInProgress",
            Self::InitialHealthChecking => "Elb.InitialHealthChecking",
            Self::FailedHealthChecks => "Target.FailedHealthChecks",
            Self::DeregistrationInProgress => "Target.DeregistrationInProgress",
            Self::NotRegistered => "Target.NotRegistered",
            Self::NotInUse => "Target.NotInUse",
            Self::HealthCheckDisabled => "Target.HealthCheckDisabled",
        }
    }

    /// NLB's sentence for the code.
    pub const fn description(self) -> &'static str {
        match self {
            Self::RegistrationInProgress => "Target registration is in progress",
            Self::InitialHealthChecking => "Initial health checks in progress",
            Self::FailedHealthChecks => "Health checks failed",
            Self::DeregistrationInProgress => "Target deregistration is in progress",
            Self::NotRegistered => "Target is not registered to the target group",
            Self::NotInUse => {
                "Target group is not configured to receive traffic from the load balancer"
            }
            Self::HealthCheckDisabled => "Health checks are disabled for this target",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

/// Which targets of a group take new flows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Selection {
    /// No target is fit for new flows, so that all registered ones take them. Also the case of a
    /// group without targets; not of one that no listener uses, which gets no flows to route.
    pub fail_open: bool,
    /// Positions in the list given to [`routable`], ascending.
    pub members: Vec<usize>,
}

/// Chooses among all targets of one group, given by their states: those that are healthy or not
/// checked; if there are none, all that are registered ("fail open", NLB's routing failover at its
/// default threshold of one healthy target).
pub fn routable(states: &[TargetState]) -> Selection {
    let positions = |fit: fn(TargetState) -> bool| -> Vec<usize> {
        (0..)
            .zip(states)
            .filter(|(_, state)| fit(**state))
            .map(|(position, _)| position)
            .collect()
    };
    let members = positions(TargetState::takes_new_flows);
    if !members.is_empty() {
        return Selection {
            fail_open: false,
            members,
        };
    }
    let in_use = states.is_empty() || states.iter().any(|state| *state != TargetState::Unused);
    Selection {
        fail_open: in_use,
        members: positions(TargetState::takes_new_flows_in_fail_open),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::TargetState::{
        Draining, Healthy, Initial, Unavailable, Unhealthy, UnhealthyDraining, Unused,
    };
    use super::*;

    fn selection(fail_open: bool, members: &[usize]) -> Selection {
        Selection {
            fail_open,
            members: members.to_vec(),
        }
    }

    #[test]
    fn new_flows_go_to_healthy_targets_and_without_any_to_all_registered_ones() {
        for (states, expected) in [
            (
                &[Healthy, Unhealthy, Initial, Healthy][..],
                selection(false, &[0, 3]),
            ),
            (&[Unhealthy, Unavailable], selection(false, &[1])),
            (&[Initial, Initial], selection(true, &[0, 1])),
            (
                &[Unhealthy, Draining, Initial, UnhealthyDraining],
                selection(true, &[0, 2, 3]),
            ),
            (&[Healthy, Draining], selection(false, &[0])),
            (&[Draining], selection(true, &[])),
            (&[Draining, Unused], selection(true, &[])),
            (&[Unused, Unused], selection(false, &[])),
            (&[], selection(true, &[])),
        ] {
            assert_eq!(routable(states), expected, "{states:?}");
        }
    }

    #[test]
    fn states_and_reasons_are_spelled_as_nlb_spells_them() {
        let json = serde_json::to_string(&TargetState::ALL).expect("states serialize");
        assert_eq!(
            json,
            r#"["initial","healthy","unhealthy","unhealthy.draining","draining","unused","unavailable"]"#
        );
        let json = serde_json::to_string(&Reason::NotInUse).expect("reasons serialize");
        assert_eq!(json, r#""Target.NotInUse""#);
    }

    proptest! {
        #[test]
        fn a_draining_or_unused_target_never_takes_new_flows(
            states in proptest::collection::vec(proptest::sample::select(&TargetState::ALL), 0..12),
        ) {
            let selection = routable(&states);
            for &member in &selection.members {
                prop_assert!(!matches!(states[member], Draining | Unused));
                prop_assert_eq!(selection.fail_open, !states[member].takes_new_flows());
            }
            let fit = states.iter().filter(|state| state.takes_new_flows()).count();
            if fit > 0 {
                prop_assert_eq!(selection.members.len(), fit);
            }
        }
    }
}
