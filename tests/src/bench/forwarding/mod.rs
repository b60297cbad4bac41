//! Forwarding, beside what else forwards: real TCP connections and live frames through a gateway.
//!
//! Everything is in the lab of the tests, client, gateway and servers on one machine, so a figure
//! is the work of all of them: it says who is ahead and by how much less than it would be on a
//! machine of its own. All rivals take turns, round by round; what is told are medians, and their
//! ratios to plain routing.
//!
//! * [`rivals`]: who forwards, and how each is set up.
//! * [`load`]: the clients.
//! * [`live`]: frames without clients.

pub mod live;
pub mod load;
pub mod rivals;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use self::{
    load::Latency,
    rivals::{Rival, Running},
};
use super::markdown::Markdown;
use crate::lab::{Lab, wait::wait_until};

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rounds of all rivals.
    pub rounds: usize,
    /// Of each kind of load.
    pub each: Duration,
    /// Live frames of a round.
    pub frames: u32,
}

impl Effort {
    /// For a report.
    pub const FULL: Self = Self {
        rounds: 3,
        each: Duration::from_secs(2),
        frames: 2_000_000,
    };
    /// To see whether something has become slower.
    pub const QUICK: Self = Self {
        rounds: 1,
        each: Duration::from_secs(1),
        frames: 1_000_000,
    };
}

/// What one rival did in one round.
#[derive(Clone, Copy, Debug)]
struct Round {
    connections_per_second: f64,
    bytes_per_second: f64,
    latency: Latency,
    failed: u32,
    frames_per_second: Option<f64>,
}

/// What one rival did.
#[derive(Clone, Debug)]
pub struct Row {
    /// Who.
    pub rival: Rival,
    /// New connections with one request each.
    pub connections_per_second: f64,
    /// Of large answers.
    pub bytes_per_second: f64,
    /// Of requests that come at a fixed rate.
    pub latency: Latency,
    /// Requests that came to nothing, of all rounds.
    pub failed: u32,
    /// Frames of 256 UDP flows that came out behind the gateway; nothing where sockets forward.
    pub frames_per_second: Option<f64>,
}

/// Measures all rivals.
pub fn measure(effort: Effort) -> Result<Vec<Row>> {
    let lab = Lab::new("forward")?;
    load::prepare(&lab)?;
    let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); Rival::ALL.len()];
    for number in 1..=effort.rounds {
        for (rival, rounds) in Rival::ALL.into_iter().zip(&mut rounds) {
            eprintln!("round {number} of {}: {}", effort.rounds, rival.name());
            let running = rival.start(&lab)?;
            let round = round(&lab, &running, effort);
            running.stop(&lab)?;
            rounds.push(round.with_context(|| rival.name())?);
        }
    }
    let rows = Rival::ALL.into_iter().zip(&rounds);
    Ok(rows.map(|(rival, rounds)| row(rival, rounds)).collect())
}

fn round(lab: &Lab, running: &Running, effort: Effort) -> Result<Round> {
    let addresses = running.addresses();
    wait_until("every address answers", Duration::from_secs(20), || {
        load::answers(lab, addresses)
    })?;
    let (connections_per_second, unanswered) = load::connections(lab, addresses, effort.each)?;
    let (bytes_per_second, unfinished) = load::transfer(lab, addresses, effort.each)?;
    let (latency, late) = load::requests(lab, addresses, effort.each)?;
    let round = Round {
        connections_per_second,
        bytes_per_second,
        latency,
        failed: unanswered + unfinished + late,
        frames_per_second: match running.udp() {
            Some(address) => Some(live::forwarded(lab, address, effort.frames)?),
            None => None,
        },
    };
    ensure!(
        round.connections_per_second > 0.0,
        "no connection came through"
    );
    Ok(round)
}

/// The middle of some figures.
fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn row(rival: Rival, rounds: &[Round]) -> Row {
    let of = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure));
    let of_latency =
        |figure: fn(&Latency) -> f64| median(rounds.iter().map(|round| figure(&round.latency)));
    let has_frames = rounds.iter().all(|round| round.frames_per_second.is_some());
    Row {
        rival,
        connections_per_second: of(|round| round.connections_per_second),
        bytes_per_second: of(|round| round.bytes_per_second),
        latency: Latency {
            p50_us: of_latency(|latency| latency.p50_us),
            p99_us: of_latency(|latency| latency.p99_us),
            p999_us: of_latency(|latency| latency.p999_us),
        },
        failed: rounds.iter().map(|round| round.failed).sum(),
        frames_per_second: has_frames
            .then(|| of(|round| round.frames_per_second.unwrap_or_default())),
    }
}

/// The rows as they stand in the report: ratios and additions to plain routing, the first row.
pub fn table(rows: &[Row]) -> String {
    let mut table = Markdown::new([
        "gateway",
        "connections/s",
        "ratio",
        "Gbit/s",
        "ratio",
        "added latency p50 / p99 / p99.9, µs",
        "requests failed",
        "million frames/s",
        "ratio",
    ]);
    let routing = &rows[0];
    for row in rows {
        let (frames, frames_ratio) = match (row.frames_per_second, routing.frames_per_second) {
            (Some(own), Some(base)) => (format!("{:.2}", own / 1e6), ratio(own, base)),
            _ => ("–".into(), "–".into()),
        };
        table.row([
            row.rival.name().into(),
            format!("{:.0}", row.connections_per_second),
            ratio(row.connections_per_second, routing.connections_per_second),
            format!("{:.1}", row.bytes_per_second * 8.0 / 1e9),
            ratio(row.bytes_per_second, routing.bytes_per_second),
            latency(row, routing),
            row.failed.to_string(),
            frames,
            frames_ratio,
        ]);
    }
    table.finish()
}

fn ratio(own: f64, base: f64) -> String {
    format!("{:.2}", own / base)
}

/// What is added to routing's; of routing itself what it has.
fn latency(row: &Row, routing: &Row) -> String {
    let (own, base) = (row.latency, routing.latency);
    if row.rival == routing.rival {
        return format!(
            "(has {:.0} / {:.0} / {:.0})",
            own.p50_us, own.p99_us, own.p999_us
        );
    }
    format!(
        "{:+.0} / {:+.0} / {:+.0}",
        own.p50_us - base.p50_us,
        own.p99_us - base.p99_us,
        own.p999_us - base.p999_us
    )
}

/// The rows for machines.
pub fn json(rows: &[Row]) -> Value {
    let one = |row: &Row| {
        json!({
            "gateway": row.rival.name(),
            "connections_per_second": row.connections_per_second.round(),
            "bytes_per_second": row.bytes_per_second.round(),
            "requests_failed": row.failed,
            "latency_p50_us": row.latency.p50_us.round(),
            "latency_p99_us": row.latency.p99_us.round(),
            "latency_p999_us": row.latency.p999_us.round(),
            "frames_per_second": row.frames_per_second.map(f64::round),
        })
    };
    rows.iter().map(one).collect()
}
