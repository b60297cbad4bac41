//! Slow start: a target that has just become healthy gets its share of new flows bit by bit, as a
//! pure function of time.
//!
//! The rules are ALB's `slow_start.duration_seconds`, as NLB has none: a target enters slow start
//! when it becomes healthy, unless it belongs to the first targets of its group or no healthy target
//! would be left that is not in slow start; it leaves it when its time is over or when it is no
//! longer healthy. Who enters is decided in [`crate::daemon`]; here is what follows from it.
//!
//! A share grows linearly from a tenth, in [`STEPS`] steps: each is a new ring, and with stickiness
//! moves clients, so there should be few.

use std::time::Duration;

/// Steps of a ramp. The last is the whole weight.
pub const STEPS: u16 = 10;

/// The step that a target has reached which became healthy at `since`: 1 to [`STEPS`].
pub fn step(since: Duration, now: Duration, duration: Duration) -> u16 {
    let elapsed = now.saturating_sub(since);
    if elapsed >= duration {
        return STEPS;
    }
    let done = elapsed.as_millis() * u128::from(STEPS - 1) / duration.as_millis().max(1);
    u16::try_from(done).map_or(STEPS, |done| (1 + done).min(STEPS))
}

/// The weights that a ring is built from, of targets that take new flows: each one's own weight and
/// its [`step`].
///
/// If any target is held back, all weights are in units of a step, which is the same to a ring.
/// None is held back if no other would take what it leaves.
pub fn weights(targets: &[(u16, u16)]) -> Vec<u16> {
    let carries = |(weight, step): &(u16, u16)| *weight > 0 && *step >= STEPS;
    let is_held_back = |(weight, step): &(u16, u16)| *weight > 0 && *step < STEPS;
    let slowed = targets.iter().any(carries) && targets.iter().any(is_held_back);
    targets
        .iter()
        .map(|(weight, step)| {
            if slowed {
                weight.saturating_mul(*step)
            } else {
                *weight
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DURATION: Duration = Duration::from_secs(30);

    fn after(millis: u64) -> u16 {
        let since = Duration::from_secs(7);
        step(since, since + Duration::from_millis(millis), DURATION)
    }

    #[test]
    fn a_ramp_begins_with_a_tenth_and_ends_with_its_time() {
        assert_eq!([after(0), after(3_333), after(3_334)], [1, 1, 2]);
        assert_eq!([after(15_000), after(29_999)], [5, 9]);
        assert_eq!([after(30_000), after(u64::MAX / 2)], [STEPS, STEPS]);
        assert_eq!(step(DURATION, DURATION, Duration::ZERO), STEPS);
        // A clock that steps back holds nothing up for longer.
        assert_eq!(step(DURATION, Duration::ZERO, DURATION), 1);
    }

    #[test]
    fn nobody_is_held_back_when_nobody_else_would_carry_on() {
        assert_eq!(weights(&[(3, 1), (5, 4)]), [3, 5]);
        assert_eq!(weights(&[(3, 1), (0, STEPS)]), [3, 0]);
        assert_eq!(weights(&[(3, 1), (5, STEPS)]), [3, 50]);
        assert_eq!(weights(&[(0, 1), (5, STEPS)]), [0, 5]);
        assert_eq!(weights(&[]), [0u16; 0]);
    }

    proptest! {
        #[test]
        fn a_share_never_shrinks_and_is_never_above_the_line(
            seconds in 30u64..=900, mut times in prop::collection::vec(0u64..1_000_000, 2..20),
        ) {
            times.sort_unstable();
            let duration = Duration::from_secs(seconds);
            let mut last = 0;
            for time in times {
                let step = step(Duration::ZERO, Duration::from_millis(time), duration);
                prop_assert!((1..=STEPS).contains(&step) && step >= last);
                let line = 1 + u64::from(STEPS - 1) * time / (seconds * 1000);
                prop_assert!(u64::from(step) <= line);
                last = step;
            }
        }

        #[test]
        fn several_targets_start_slowly_each_on_its_own(
            targets in prop::collection::vec((0u16..=999, 1u16..=STEPS), 1..20),
        ) {
            let found = weights(&targets);
            let total = |step: fn(u16) -> u16| targets.iter()
                .any(|(weight, own)| *weight > 0 && step(*own) == STEPS);
            for ((weight, step), effective) in targets.iter().zip(&found) {
                // Weight 0 stays 0, and any other stays above it.
                prop_assert_eq!(*effective == 0, *weight == 0);
                if total(|step| step) && found.iter().zip(&targets).any(|(e, (w, _))| e != w) {
                    prop_assert_eq!(*effective, weight * step);
                } else {
                    prop_assert_eq!(effective, weight);
                }
            }
        }
    }
}
