//! What health checks found, counted: a histogram of how long they took, and how many failed.

use std::time::Duration;

use crate::health::ProbeOutcome;

/// Upper bounds of the histogram's buckets, in seconds: from a neighbour in the same rack to the
/// longest time-out that NLB knows. The last bucket takes the rest.
pub const BOUNDS_SECONDS: [f64; 13] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0, 10.0,
];

/// What was found of a target group.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ProbeStatistics {
    /// How many passed, by how long they took: each in the first bucket that holds it.
    passed: [u64; BOUNDS_SECONDS.len() + 1],
    /// How long they took together.
    sum: Duration,
    /// How many failed.
    failed: u64,
}

impl ProbeStatistics {
    /// Takes one more in.
    pub fn count(&mut self, outcome: &ProbeOutcome) {
        match outcome {
            ProbeOutcome::Passed { latency } => {
                let seconds = latency.as_secs_f64();
                let bucket = BOUNDS_SECONDS.partition_point(|bound| *bound < seconds);
                if let Some(count) = self.passed.get_mut(bucket) {
                    *count += 1;
                }
                self.sum += *latency;
            }
            ProbeOutcome::Failed { .. } => self.failed += 1,
        }
    }

    /// The buckets by their upper bounds, the last of which is infinite; each with those of its own
    /// only.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = BOUNDS_SECONDS.into_iter().chain([f64::INFINITY]);
        bounds.zip(self.passed)
    }

    /// How many passed.
    pub fn passed(&self) -> u64 {
        self.passed.iter().sum()
    }

    /// How long those took together.
    pub const fn sum(&self) -> Duration {
        self.sum
    }

    /// How many failed.
    pub const fn failed(&self) -> u64 {
        self.failed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::health::ProbeFailure;

    proptest! {
        #[test]
        fn every_check_is_in_one_bucket_and_that_holds_it(micros in prop::collection::vec(0_u64..20_000_000, 0..50)) {
            let mut statistics = ProbeStatistics::default();
            for latency in micros.iter().map(|micros| Duration::from_micros(*micros)) {
                let before = statistics;
                statistics.count(&ProbeOutcome::Passed { latency });
                let mut lower = 0.0;
                for ((bound, old), (_, new)) in before.buckets().zip(statistics.buckets()) {
                    let is_here = latency.as_secs_f64() <= bound && (latency.as_secs_f64() > lower || lower == 0.0);
                    prop_assert_eq!(new - old, u64::from(is_here), "{:?} in {}", latency, bound);
                    lower = bound;
                }
            }
            prop_assert_eq!(statistics.passed(), micros.len() as u64);
            prop_assert_eq!(statistics.sum(), Duration::from_micros(micros.iter().sum()));
        }
    }

    #[test]
    fn a_check_that_failed_has_no_latency() {
        let mut statistics = ProbeStatistics::default();
        let reason = ProbeFailure::TimedOut;
        statistics.count(&ProbeOutcome::Failed { reason });
        assert_eq!((statistics.passed(), statistics.failed()), (0, 1));
    }
}
