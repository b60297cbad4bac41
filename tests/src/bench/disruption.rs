//! How much of a ring moves when a target comes or goes, beside the least that must.

use std::net::{Ipv4Addr, SocketAddr};

use nlb_userspace::ring::{Identity, RingEntry, SLOTS, build};
use serde_json::{Value, json};

use super::markdown::Markdown;

/// Targets before the change.
pub const TARGETS: [u32; 3] = [10, 100, 1_000];

/// One change of a ring.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Targets before the change.
    pub targets: u32,
    /// Whether one is added, or else removed.
    pub adds: bool,
    /// Slots that have another target afterwards, in percent of all.
    pub moved_percent: f64,
    /// What the new target's or the removed one's share is: the least that must move.
    pub least_percent: f64,
}

/// A ring of so many targets of equal weight.
pub fn ring(targets: u32) -> Vec<u32> {
    let entries: Vec<RingEntry> = (1..=targets)
        .map(|id| RingEntry {
            target_id: id,
            identity: Identity::from(SocketAddr::from((Ipv4Addr::from(0x0a00_0000 + id), 8080))),
            weight: 1,
        })
        .collect();
    build(&entries, SLOTS)
}

/// Every change.
pub fn measure() -> Vec<Row> {
    let rows = TARGETS.into_iter().flat_map(|targets| {
        let before = ring(targets);
        [true, false].map(|adds| {
            let other = if adds { targets + 1 } else { targets - 1 };
            let after = ring(other);
            // The last target, which one of the rings has and the other has not.
            let last = targets.max(other);
            let own = if adds { &after } else { &before };
            let percent = |slots: usize| share(slots) * 100.0;
            let moved = before.iter().zip(&after).filter(|(old, new)| old != new);
            Row {
                targets,
                adds,
                moved_percent: percent(moved.count()),
                least_percent: percent(own.iter().filter(|slot| **slot == last).count()),
            }
        })
    });
    rows.collect()
}

/// Of all slots.
fn share(slots: usize) -> f64 {
    let count = |slots: usize| f64::from(u32::try_from(slots).unwrap_or(u32::MAX));
    count(slots) / count(SLOTS)
}

impl Row {
    /// What happens.
    pub fn name(&self) -> String {
        let what = if self.adds {
            "one more than"
        } else {
            "one less than"
        };
        format!("{what} {}", self.targets)
    }
}

/// The rows as they stand in the report.
pub fn table(rows: &[Row]) -> String {
    let mut table = Markdown::new([
        "targets",
        "slots moved, %",
        "least that must, %",
        "beyond that, % of all slots",
    ]);
    for row in rows {
        let beyond = row.moved_percent - row.least_percent;
        let [moved, least, beyond] =
            [row.moved_percent, row.least_percent, beyond].map(|percent| format!("{percent:.3}"));
        table.row([row.name(), moved, least, beyond]);
    }
    table.finish()
}

/// The rows for machines.
pub fn json(rows: &[Row]) -> Value {
    let one = |row: &Row| {
        json!({
            "targets": row.targets,
            "adds": row.adds,
            "moved_percent": row.moved_percent,
            "least_percent": row.least_percent,
        })
    };
    rows.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_less_moves_than_must_and_hardly_more() {
        for row in measure() {
            assert!(row.moved_percent >= row.least_percent, "{row:?}");
            assert!(row.moved_percent <= row.least_percent + 2.0, "{row:?}");
        }
    }
}
