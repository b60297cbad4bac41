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

/// How many healthy targets are enough (NLB's `minimum_healthy_targets`): both numbers must be
/// reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Minimum {
    /// So many targets.
    pub count: Option<u32>,
    /// So many percent of the registered ones.
    pub percentage: Option<u8>,
}

impl Minimum {
    /// NLB's default: one healthy target.
    pub const ONE: Self = Self {
        count: Some(1),
        percentage: None,
    };

    /// Whether so many healthy targets of so many registered ones are enough.
    pub fn is_met(&self, healthy: usize, registered: usize) -> bool {
        self.count
            .is_none_or(|count| healthy as u64 >= u64::from(count))
            && self.percentage.is_none_or(|percentage| {
                healthy as u64 * 100 >= u64::from(percentage) * registered as u64
            })
    }
}

/// Which targets of a group take new flows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Selection {
    /// Too few targets are healthy, so that all registered ones take new flows. Also the case of a
    /// group without targets; not of one that no listener uses, which gets no flows to route.
    pub fail_open: bool,
    /// Whether enough targets are healthy for the group to count as available: NLB's DNS failover
    /// looks at this. A group that no listener uses is not looked at.
    pub is_available: bool,
    /// Positions in the list given to [`routable`], ascending.
    pub members: Vec<usize>,
}

/// Chooses among all targets of one group, given by their states and weights: those that are healthy
/// or not checked; if these are fewer than `routing` asks for, all that are registered ("fail open",
/// NLB's `unhealthy_state_routing`).
///
/// A target of weight 0 was taken out by the operator: it takes no new flows, and is neither healthy
/// nor registered to the minimums.
pub fn routable(
    targets: &[(TargetState, u16)],
    routing: Minimum,
    dns_failover: Minimum,
) -> Selection {
    let positions = |fit: fn(TargetState) -> bool| -> Vec<usize> {
        (0..)
            .zip(targets)
            .filter(|(_, (state, weight))| *weight > 0 && fit(*state))
            .map(|(position, _)| position)
            .collect()
    };
    let healthy = positions(TargetState::takes_new_flows);
    let registered = positions(TargetState::takes_new_flows_in_fail_open);
    let in_use = targets.is_empty()
        || targets
            .iter()
            .any(|(state, _)| *state != TargetState::Unused);
    let is_met = |minimum: Minimum| !in_use || minimum.is_met(healthy.len(), registered.len());
    let fail_open = !is_met(routing);
    Selection {
        fail_open,
        is_available: is_met(dns_failover),
        members: if fail_open { registered } else { healthy },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::TargetState::{
        Draining, Healthy, Initial, Unavailable, Unhealthy, UnhealthyDraining, Unused,
    };
    use super::*;

    fn at_weight_1(states: &[TargetState]) -> Vec<(TargetState, u16)> {
        states.iter().map(|state| (*state, 1)).collect()
    }

    fn selection(fail_open: bool, members: &[usize]) -> Selection {
        Selection {
            fail_open,
            is_available: !fail_open,
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
            let found = routable(&at_weight_1(states), Minimum::ONE, Minimum::ONE);
            assert_eq!(found, expected, "{states:?}");
        }
    }

    #[test]
    fn a_group_fails_open_below_either_minimum_and_is_unavailable_below_the_other_two() {
        let minimum = |count, percentage| Minimum { count, percentage };
        let states = at_weight_1(&[Healthy, Healthy, Unhealthy, Initial, Draining]);
        for (routing, dns_failover, fail_open, is_available) in [
            (minimum(Some(2), None), minimum(Some(2), None), false, true),
            (minimum(Some(2), None), minimum(Some(3), None), false, false),
            (minimum(Some(3), None), minimum(None, None), true, true),
            (
                minimum(None, Some(50)),
                minimum(None, Some(51)),
                false,
                false,
            ),
            (
                minimum(Some(1), Some(51)),
                minimum(Some(1), None),
                true,
                true,
            ),
        ] {
            let found = routable(&states, routing, dns_failover);
            assert_eq!(found.fail_open, fail_open, "{routing:?}");
            assert_eq!(found.is_available, is_available, "{dns_failover:?}");
            let members: &[usize] = if fail_open { &[0, 1, 2, 3] } else { &[0, 1] };
            assert_eq!(found.members, members);
        }
    }

    #[test]
    fn a_target_of_weight_0_takes_no_new_flows_and_does_not_count() {
        let found = |targets| routable(targets, Minimum::ONE, Minimum::ONE);
        assert_eq!(found(&[(Healthy, 1), (Healthy, 0)]), selection(false, &[0]));
        assert_eq!(
            found(&[(Unhealthy, 1), (Healthy, 0)]),
            selection(true, &[0])
        );
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
            let selection = routable(&at_weight_1(&states), Minimum::ONE, Minimum::ONE);
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
