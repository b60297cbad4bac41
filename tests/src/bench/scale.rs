//! Large tables: what a flow table takes, how long a sweep over it is, and how long a ring takes to
//! build.

use std::time::Instant;

use anyhow::{Result, ensure};
use nlb_common::{target::Mode, wire::protocol::TCP};
use serde_json::{Value, json};

use super::{disruption, kind::Kind, markdown::Markdown, short, subject::Subject};

/// Flows that tables are asked for.
const FLOWS: [u32; 3] = [1_000_000, 10_000_000, 16_000_000];
/// Targets of rings.
const TARGETS: [u32; 3] = [10, 1_000, 10_000];

/// A flow table.
#[derive(Clone, Copy, Debug)]
pub struct TableRow {
    /// Flows that were asked for.
    pub asked: u32,
    /// Entries that there are: a power of two.
    pub entries: usize,
    /// What the kernel accounts to it, with what stands beside it to translate sources.
    pub memory_bytes: u64,
    /// Making it, loading all programs included.
    pub load_ms: f64,
    /// A sweep over it where it is empty.
    pub empty_sweep_ms: f64,
    /// And where every entry holds a live flow.
    pub full_sweep_ms: f64,
}

/// A ring.
#[derive(Clone, Copy, Debug)]
pub struct RingRow {
    /// Its targets.
    pub targets: u32,
    /// Building it.
    pub build_ms: f64,
}

/// Everything.
#[derive(Clone, Debug)]
pub struct Report {
    tables: Vec<TableRow>,
    rings: Vec<RingRow>,
}

/// Measures tables of all sizes, or the smallest only.
pub fn measure(is_quick: bool) -> Result<Report> {
    let sizes = if is_quick { &FLOWS[..1] } else { &FLOWS };
    Ok(Report {
        tables: sizes
            .iter()
            .map(|asked| table(*asked))
            .collect::<Result<_>>()?,
        rings: TARGETS.into_iter().map(ring).collect(),
    })
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn table(asked: u32) -> Result<TableRow> {
    let begin = Instant::now();
    let subject = Subject::load(asked)?;
    let load_ms = milliseconds(begin);
    let begin = Instant::now();
    ensure!(subject.sweep().active == 0, "a new table is empty");
    let empty_sweep_ms = milliseconds(begin);
    subject.fill_up(Kind {
        mode: Mode::NAT,
        is_v6: false,
        protocol: TCP,
    })?;
    let entries = subject.entries();
    let begin = Instant::now();
    let seen = subject.sweep().active;
    let full_sweep_ms = milliseconds(begin);
    ensure!(
        seen == entries as u64,
        "{seen} of {entries} flows were seen"
    );
    Ok(TableRow {
        asked,
        entries,
        memory_bytes: subject.flow_memory_bytes(),
        load_ms,
        empty_sweep_ms,
        full_sweep_ms,
    })
}

fn ring(targets: u32) -> RingRow {
    let begin = Instant::now();
    let slots = disruption::ring(targets);
    let build_ms = milliseconds(begin);
    assert!(slots.contains(&targets), "every target has a slot");
    RingRow { targets, build_ms }
}

impl Report {
    /// The report's tables.
    pub fn tables(&self) -> String {
        let mut tables = Markdown::new([
            "flows asked for",
            "entries",
            "memory, MiB",
            "load, ms",
            "sweep, empty, ms",
            "sweep, full, ms",
        ]);
        for row in &self.tables {
            tables.row([
                short(row.asked),
                row.entries.to_string(),
                (row.memory_bytes >> 20).to_string(),
                format!("{:.0}", row.load_ms),
                format!("{:.1}", row.empty_sweep_ms),
                format!("{:.1}", row.full_sweep_ms),
            ]);
        }
        let mut rings = Markdown::new(["targets", "building the ring, ms"]);
        for row in &self.rings {
            rings.row([row.targets.to_string(), format!("{:.1}", row.build_ms)]);
        }
        tables.finish() + rings.finish().trim_start()
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let tables: Vec<Value> = self
            .tables
            .iter()
            .map(|row| {
                json!({
                    "flows": row.asked,
                    "entries": row.entries,
                    "memory_bytes": row.memory_bytes,
                    "load_ms": row.load_ms,
                    "empty_sweep_ms": row.empty_sweep_ms,
                    "full_sweep_ms": row.full_sweep_ms,
                })
            })
            .collect();
        let rings: Vec<Value> = self
            .rings
            .iter()
            .map(|row| json!({ "targets": row.targets, "build_ms": row.build_ms }))
            .collect();
        json!({ "tables": tables, "rings": rings })
    }
}
