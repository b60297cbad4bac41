//! From counters to rates, and from rates to a few letters.

use std::time::Duration;

use crate::status::Counters;

/// What went by in a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// Packets, both ways.
    pub packets: f64,
    /// Bits, both ways.
    pub bits: f64,
    /// Flows that began.
    pub new_flows: f64,
}

impl Rates {
    /// Between two looks. Counters that went back belong to another: nothing is known of them yet.
    pub fn between(before: &Counters, now: &Counters, elapsed: Duration) -> Self {
        let per_second = |field: fn(&Counters) -> u64| rate(field(before), field(now), elapsed);
        Self {
            packets: per_second(|it| it.packets + it.return_packets),
            bits: per_second(|it| it.bytes + it.return_bytes) * 8.0,
            new_flows: per_second(|it| it.new_flows),
        }
    }
}

/// How much a counter grew in a second.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
pub(super) fn rate(before: u64, now: u64, elapsed: Duration) -> f64 {
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 {
        now.saturating_sub(before) as f64 / seconds
    } else {
        0.0
    }
}

/// `0`, `7.5`, `123`, `1.2k`, `56M`: at most five letters below 10^15.
pub(super) fn short(value: f64) -> String {
    let mut value = value;
    for unit in ["", "k", "M", "G", "T"] {
        let digits = usize::from(value < 9.95 && value > 0.0);
        if value < 999.5 {
            return format!("{value:.digits$}{unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.0}P")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_as_short_as_they_read_well() {
        for (value, text) in [
            (0.0, "0"),
            (0.5, "0.5"),
            (9.96, "10"),
            (999.0, "999"),
            (999.7, "1.0k"),
            (56_400_000.0, "56M"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    proptest! {
        #[test]
        fn numbers_fit_their_column(value in 0.0_f64..1e15) {
            prop_assert!(short(value).len() <= 5, "{}", short(value));
        }

        #[test]
        fn rates_are_what_was_counted_and_never_below_nothing(before in 0_u64..1 << 50, grown in 0_u64..1 << 40, millis in 1_u64..10_000) {
            let elapsed = Duration::from_millis(millis);
            let counted = rate(before, before + grown, elapsed) * elapsed.as_secs_f64();
            #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
            let grown_exactly = grown as f64;
            prop_assert!((counted - grown_exactly).abs() <= grown_exactly * 1e-9);
            prop_assert!(rate(before + grown, before, elapsed) == 0.0 || grown == 0);
        }
    }
}
