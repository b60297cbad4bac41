//! `nlb stops`: why packets end early: how often, how fast, and what each reason means.
//!
//! The counters are the packet program's own, read where they are. There is one for each reason on each
//! processor; how many there are of one listener nobody counts, because a packet may be stopped before it is
//! known whose it is.

use std::{fmt::Write as _, time::Duration};

use nlb_common::stop::{Stop, StopVerdict};
use serde_json::{Value, json};

use crate::table::Table;

/// How often each reason was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts(pub [u64; Stop::COUNT]);

impl Counts {
    fn of(&self, stop: Stop) -> u64 {
        self.0.get(stop as usize).copied().unwrap_or(0)
    }
}

/// Two looks at the counters.
#[derive(Clone, Copy, Debug)]
pub struct Samples<'c> {
    /// The first.
    pub before: &'c Counts,
    /// The second.
    pub after: &'c Counts,
    /// What was between them.
    pub apart: Duration,
    /// Whether reasons that were never counted are shown, too.
    pub shows_all: bool,
}

/// One reason.
struct Line {
    stop: Stop,
    count: u64,
    per_second: f64,
}

impl Samples<'_> {
    /// Reasons, those that are counted fastest first, then those that were counted most.
    fn lines(self) -> Vec<Line> {
        let seconds = self.apart.as_secs_f64();
        let mut lines: Vec<Line> = Stop::ALL
            .iter()
            // It is never counted.
            .filter(|stop| **stop != Stop::NotOurs)
            .map(|stop| {
                let count = self.after.of(*stop);
                // Fewer than before: the maps were made anew in between.
                let more = u32::try_from(count.saturating_sub(self.before.of(*stop)));
                Line {
                    stop: *stop,
                    count,
                    per_second: f64::from(more.unwrap_or(u32::MAX)) / seconds.max(0.001),
                }
            })
            .filter(|line| self.shows_all || line.count > 0)
            .collect();
        lines.sort_by(|one, other| {
            other
                .per_second
                .total_cmp(&one.per_second)
                .then(other.count.cmp(&one.count))
        });
        lines
    }

    /// For people.
    pub fn to_text(self) -> String {
        let lines = self.lines();
        if lines.is_empty() {
            return "no packet was stopped\n".to_owned();
        }
        let mut table = Table::default();
        table.row(["REASON", "PACKETS ARE", "COUNT", "PER SECOND"]);
        for line in &lines {
            table.row([
                line.stop.name(),
                becomes(line.stop),
                &line.count.to_string(),
                &format!("{:.1}", line.per_second),
            ]);
        }
        let mut text = String::new();
        table.write(0, 2, &mut text);
        text.push('\n');
        for line in &lines {
            let _infallible = writeln!(text, "{}: {}", line.stop.name(), line.stop.meaning());
        }
        text
    }

    /// For programs.
    pub fn to_json(self) -> Value {
        let stops: Vec<Value> = (self.lines().iter())
            .map(|line| {
                json!({
                    "name": line.stop.name(),
                    "verdict": becomes(line.stop),
                    "count": line.count,
                    "per_second": line.per_second,
                    "meaning": line.stop.meaning(),
                })
            })
            .collect();
        json!({ "seconds": self.apart.as_secs_f64(), "stops": stops })
    }
}

/// What becomes of packets.
const fn becomes(stop: Stop) -> &'static str {
    match stop.verdict() {
        StopVerdict::Pass => "passed on",
        StopVerdict::Drop => "dropped",
        StopVerdict::Answer => "answered",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(Stop, u64)]) -> Counts {
        let mut counts = [0; Stop::COUNT];
        for (stop, count) in of {
            counts[*stop as usize] = *count;
        }
        Counts(counts)
    }

    #[test]
    fn what_is_counted_fastest_comes_first_and_what_never_was_is_left_out() {
        let before = counts(&[(Stop::Stray, 1000), (Stop::NoTarget, 2)]);
        let after = counts(&[(Stop::Stray, 1000), (Stop::NoTarget, 12)]);
        let mut samples = Samples {
            before: &before,
            after: &after,
            apart: Duration::from_secs(2),
            shows_all: false,
        };
        let text = samples.to_text();
        let rows: Vec<Vec<&str>> = text
            .lines()
            .take(3)
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rows[1], ["no_target", "dropped", "12", "5.0"]);
        assert_eq!(rows[2], ["stray", "dropped", "1000", "0.0"]);
        assert!(text.contains(Stop::NoTarget.meaning()));
        assert!(!text.contains("ttl_expired"));
        samples.shows_all = true;
        assert!(samples.to_text().contains("ttl_expired"));
        assert!(!samples.to_text().contains("not_ours"));
        // Maps that were made anew begin at zero, and nothing is counted backwards.
        let again = Samples {
            before: &after,
            after: &before,
            ..samples
        };
        assert!(again.lines().iter().all(|line| line.per_second == 0.0));
    }
}
