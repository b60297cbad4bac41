//! What monitoring sees: counters and states in OpenMetrics' text, to be scraped by Prometheus and its
//! like.
//!
//! ```text
//!  a scrape ─► server ─► the daemon's loop: snapshot ─► families (pure) ─► text
//! ```
//!
//! [`catalogue`] is the one table of what there is: names, labels, meanings, and NLB's name for the
//! same. [`families`] fills it from a [`Snapshot`], [`text`] writes it down, and docs/metrics.md is
//! printed from it.
//!
//! Nothing that traffic brings becomes a label: labels are names of the configuration, stops and
//! fixed words. So there are as many series as the configuration has listeners and targets, and no
//! sender of packets can make more; beyond [`families::MOST_TARGETS`] targets have none of their own.

pub mod catalogue;
pub mod families;
pub mod log;
pub mod probes;
pub mod server;
mod text;

use self::probes::ProbeStatistics;
use crate::status::Status;

/// Everything that one answer is made from: one moment's state.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// What `nlb status` shows.
    pub status: Status,
    /// What the daemon says of itself.
    pub own: Own,
    /// What health checks found, by target group.
    pub probes: Vec<(String, ProbeStatistics)>,
}

/// The daemon's own health.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Own {
    /// Whether the maps say what is configured.
    pub is_live: bool,
    /// Changes by reloads and over the API.
    pub changes: Changes,
    /// Records in use and room for them, by what they are of.
    pub maps: Vec<MapFill>,
    /// Warnings and errors that were logged.
    pub logged: log::Counts,
}

/// How many changes were asked for, by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// Made.
    pub done: u64,
    /// Refused.
    pub refused: u64,
}

/// How full a map is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapFill {
    /// What is in it.
    pub map: &'static str,
    /// How many entries are in use.
    pub used: u64,
    /// How many there is room for.
    pub capacity: u64,
}

/// The snapshot in OpenMetrics' text.
pub fn render(snapshot: &Snapshot) -> String {
    text::write(families::of(snapshot))
}
