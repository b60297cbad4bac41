//! What the lifecycle promises: the table of transitions row by row, and properties over any
//! sequence of events, with a naive counter as the second opinion on thresholds.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::target_state::TargetState::{
    Draining, Healthy, Initial, Unavailable, Unhealthy, UnhealthyDraining, Unused,
};

const PASS: ProbeOutcome = ProbeOutcome::Passed {
    latency: Duration::from_millis(1),
};
const FAIL: ProbeOutcome = ProbeOutcome::Failed {
    reason: ProbeFailure::Refused,
};

const fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "what every constructor takes is an option"
)]
const fn thresholds(healthy: u32, unhealthy: u32, interval: u64) -> Option<Thresholds> {
    Some(Thresholds {
        healthy,
        unhealthy,
        unhealthy_draining_interval: at(interval),
    })
}

/// Feeds one outcome a second, returns the state after each.
fn states(target: &mut TargetHealth, outcomes: &[ProbeOutcome]) -> Vec<TargetState> {
    (0..)
        .zip(outcomes)
        .map(|(second, outcome)| {
            target.observe(at(second), outcome.clone());
            target.state()
        })
        .collect()
}

#[test]
fn the_first_passed_check_makes_a_new_target_healthy_whatever_the_threshold() {
    let mut target = TargetHealth::registered(thresholds(10, 2, 0), true);
    assert_eq!(target.reason(), Some(Reason::RegistrationInProgress));
    assert_eq!(target.observe(at(1), FAIL), None);
    assert_eq!(target.reason(), Some(Reason::InitialHealthChecking));
    let transition = Transition {
        at: at(2),
        from: Initial,
        to: Healthy,
        reason: None,
    };
    assert_eq!(target.observe(at(2), PASS), Some(transition));
}

#[test]
fn a_new_target_turns_unhealthy_at_the_threshold() {
    let mut target = TargetHealth::registered(thresholds(5, 3, 60), true);
    assert_eq!(
        states(&mut target, &[FAIL, FAIL, FAIL]),
        [Initial, Initial, Unhealthy]
    );
    assert_eq!(target.reason(), Some(Reason::FailedHealthChecks));
}

#[test]
fn only_failures_in_a_row_make_a_target_unhealthy() {
    let mut target = TargetHealth::adopted(true, thresholds(2, 2, 0));
    assert_eq!(
        states(&mut target, &[FAIL, PASS, FAIL, FAIL]),
        [Healthy, Healthy, Healthy, Unhealthy]
    );
}

#[test]
fn only_passes_in_a_row_make_a_target_healthy_again() {
    let mut target = TargetHealth::adopted(false, thresholds(2, 2, 0));
    assert_eq!(
        states(&mut target, &[PASS, FAIL, PASS, PASS]),
        [Unhealthy, Unhealthy, Unhealthy, Healthy]
    );
}

#[test]
fn a_draining_interval_lets_an_unhealthy_target_keep_its_flows_for_that_long() {
    let mut target = TargetHealth::adopted(true, thresholds(3, 1, 10));
    target.observe(at(5), FAIL);
    assert_eq!(target.state(), UnhealthyDraining);
    assert_eq!(target.reason(), Some(Reason::FailedHealthChecks));
    assert_eq!(target.due(), Some(at(15)));
    assert_eq!(target.tick(at(14)), None);
    assert_eq!(
        target.tick(at(15)).map(|transition| transition.to),
        Some(Unhealthy)
    );
}

#[test]
fn passes_counted_while_an_unhealthy_target_drains_count_after_it() {
    let mut target = TargetHealth::adopted(true, thresholds(3, 1, 10));
    target.observe(at(0), FAIL);
    assert_eq!(target.observe(at(9), PASS), None);
    assert_eq!(
        target.observe(at(11), PASS).map(|transition| transition.to),
        Some(Unhealthy)
    );
    assert_eq!(
        target.observe(at(12), PASS).map(|transition| transition.to),
        Some(Healthy)
    );
}

#[test]
fn a_deregistered_target_drains_for_the_delay_and_is_then_gone() {
    for mut target in [
        TargetHealth::registered(thresholds(2, 2, 0), true),
        TargetHealth::adopted(true, thresholds(2, 2, 0)),
        TargetHealth::adopted(false, thresholds(2, 2, 0)),
        TargetHealth::registered(None, true),
    ] {
        assert_eq!(
            target
                .deregister(at(100), at(300))
                .map(|transition| transition.to),
            Some(Draining)
        );
        assert_eq!(target.reason(), Some(Reason::DeregistrationInProgress));
        assert_eq!(target.deregister(at(200), at(300)), None);
        assert_eq!(target.observe(at(399), PASS), None);
        assert!(!target.is_gone());
        assert_eq!(
            target.tick(at(400)).map(|transition| transition.to),
            Some(Unused)
        );
        assert_eq!(target.reason(), Some(Reason::NotRegistered));
        assert!(target.is_gone());
    }
}

#[test]
fn without_a_delay_a_deregistered_target_is_gone_at_once() {
    let mut target = TargetHealth::adopted(true, thresholds(2, 2, 0));
    assert_eq!(
        target
            .deregister(at(1), Duration::ZERO)
            .map(|transition| transition.to),
        Some(Unused)
    );
    assert!(target.is_gone());
}

#[test]
fn a_target_registered_again_starts_like_a_new_one() {
    let mut target = TargetHealth::adopted(true, thresholds(2, 2, 0));
    assert_eq!(target.reregister(at(0)), None);
    target.deregister(at(1), at(300));
    assert_eq!(
        target.reregister(at(2)).map(|transition| transition.to),
        Some(Initial)
    );
    assert_eq!(target.due(), None);
    assert_eq!(
        target.observe(at(3), PASS).map(|transition| transition.to),
        Some(Healthy)
    );
}

#[test]
fn a_target_of_a_group_without_listener_is_not_in_use_until_a_listener_comes() {
    let mut target = TargetHealth::registered(thresholds(2, 2, 0), false);
    assert_eq!(
        (target.state(), target.reason()),
        (Unused, Some(Reason::NotInUse))
    );
    assert!(!target.wants_probes() && !target.is_gone());
    assert_eq!(target.observe(at(1), PASS), None);
    assert_eq!(
        target
            .set_in_use(at(2), true)
            .map(|transition| transition.to),
        Some(Initial)
    );
    assert_eq!(
        target
            .set_in_use(at(3), false)
            .map(|transition| transition.to),
        Some(Unused)
    );
    assert_eq!(target.deregister(at(4), at(300)), None);
    assert!(target.is_gone());
}

#[test]
fn a_target_that_is_not_checked_is_unavailable_and_takes_flows() {
    let mut target = TargetHealth::adopted(false, thresholds(2, 2, 0));
    assert_eq!(
        target
            .set_thresholds(at(1), None)
            .map(|transition| transition.to),
        Some(Unavailable)
    );
    assert_eq!(target.reason(), Some(Reason::HealthCheckDisabled));
    assert!(target.state().takes_new_flows());
    assert_eq!(target.observe(at(2), FAIL), None);
    assert_eq!(
        target
            .set_thresholds(at(3), thresholds(2, 2, 0))
            .map(|transition| transition.to),
        Some(Initial)
    );
}

#[test]
fn health_serializes_as_state_reason_and_description() {
    let mut target = TargetHealth::adopted(true, thresholds(2, 1, 0));
    assert_eq!(
        serde_json::to_string(&target).expect("json"),
        r#"{"state":"healthy"}"#
    );
    target.observe(at(1), FAIL);
    let json = serde_json::to_value(&target).expect("json");
    assert_eq!(json["state"], "unhealthy");
    assert_eq!(json["reason"], "Target.FailedHealthChecks");
    assert_eq!(json["description"], "Health checks failed");
    assert_eq!(json["last_failure"], ProbeFailure::Refused.to_string());
}

#[derive(Debug, Clone)]
enum Event {
    Observe(bool),
    Tick,
    Deregister(u64),
    Reregister,
    InUse(bool),
    Thresholds(Option<Thresholds>),
}

fn any_thresholds() -> impl Strategy<Value = Option<Thresholds>> {
    proptest::option::weighted(
        0.8,
        (
            0..4_u32,
            0..4_u32,
            prop_oneof![Just(0), 1..20_u64, Just(u64::MAX)],
        )
            .prop_map(|(healthy, unhealthy, interval)| Thresholds {
                healthy,
                unhealthy,
                unhealthy_draining_interval: at(interval),
            }),
    )
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => any::<bool>().prop_map(Event::Observe),
        2 => Just(Event::Tick),
        1 => prop_oneof![0..20_u64, Just(u64::MAX)].prop_map(Event::Deregister),
        1 => Just(Event::Reregister),
        1 => any::<bool>().prop_map(Event::InUse),
        1 => any_thresholds().prop_map(Event::Thresholds),
    ]
}

fn apply(target: &mut TargetHealth, now: Duration, event: &Event) -> Option<Transition> {
    match event {
        Event::Observe(true) => target.observe(now, PASS),
        Event::Observe(false) => target.observe(now, FAIL),
        Event::Tick => target.tick(now),
        Event::Deregister(delay) => target.deregister(now, at(*delay)),
        Event::Reregister => target.reregister(now),
        Event::InUse(in_use) => target.set_in_use(now, *in_use),
        Event::Thresholds(thresholds) => target.set_thresholds(now, *thresholds),
    }
}

proptest! {
    /// Times are any times, in any order.
    #[test]
    fn whatever_happens_states_change_only_as_listed_and_every_change_is_told(
        first in any_thresholds(),
        in_use in any::<bool>(),
        events in proptest::collection::vec((0..60_u64, any_event()), 0..80),
    ) {
        let mut target = TargetHealth::registered(first, in_use);
        for (seconds, event) in events {
            let before = target.state();
            let told = apply(&mut target, at(seconds), &event);
            let after = target.state();
            prop_assert_eq!(told.is_some(), before != after);
            if let Some(transition) = told {
                prop_assert_eq!((transition.from, transition.to), (before, after));
                prop_assert_eq!(transition.reason, target.reason());
                prop_assert!(TRANSITIONS.contains(&(before, after)), "{before} -> {after}");
            }
            prop_assert_eq!(target.reason().is_none(), after == Healthy);
            prop_assert_eq!(target.due().is_some(), matches!(after, Draining | UnhealthyDraining));
        }
    }

    #[test]
    fn time_that_stands_still_changes_nothing_more(
        events in proptest::collection::vec((0..60_u64, any_event()), 0..40),
        now in 0..60_u64,
        earlier in 0..60_u64,
    ) {
        let mut target = TargetHealth::registered(thresholds(2, 2, 5), true);
        for (seconds, event) in events {
            apply(&mut target, at(seconds), &event);
        }
        target.tick(at(now));
        let settled = target.clone();
        target.tick(at(now));
        target.tick(at(earlier.min(now)));
        prop_assert_eq!(target, settled);
    }

    #[test]
    fn thresholds_are_those_of_a_naive_counter(
        healthy_threshold in 1..6_u32,
        unhealthy_threshold in 1..6_u32,
        outcomes in proptest::collection::vec(any::<bool>(), 0..80),
    ) {
        let mut target =
            TargetHealth::registered(thresholds(healthy_threshold, unhealthy_threshold, 0), true);
        let mut expected = Initial;
        for end in 1..=outcomes.len() {
            let history = &outcomes[..end];
            let passed = history[end - 1];
            let in_a_row = (0_u32..)
                .zip(history.iter().rev())
                .take_while(|(_, outcome)| **outcome == passed)
                .map(|(before, _)| before + 1)
                .last()
                .unwrap_or(0);
            expected = match (expected, passed) {
                (Initial, true) => Healthy,
                (Unhealthy, true) if in_a_row >= healthy_threshold => Healthy,
                (Initial | Healthy, false) if in_a_row >= unhealthy_threshold => Unhealthy,
                (unchanged, _) => unchanged,
            };
            target.observe(at(end as u64), if passed { PASS } else { FAIL });
            prop_assert_eq!(target.state(), expected);
        }
    }
}
