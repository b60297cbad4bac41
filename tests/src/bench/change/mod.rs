//! Connections broken by changes, in the lab of the tests: connections that are open when something
//! happens, and new ones that come all the while.
//!
//! * [`events`]: what happens.
//! * [`clients`]: the connections.

mod clients;
mod events;

use anyhow::Result;
use serde_json::{Value, json};

pub use self::events::Event;
use self::{
    clients::{Held, Newcomers},
    events::Stage,
};
use super::markdown::Markdown;
use crate::lab::addresses::{DSR_VIP_V4, HTTP_PORT, NAT_VIP_V4};

/// Open connections of each mode.
pub const HELD: usize = 300;

/// What an event did to the connections of one mode.
#[derive(Clone, Debug)]
pub struct Row {
    /// What happened.
    pub event: Event,
    /// The mode.
    pub mode: &'static str,
    /// Open connections that nobody could have saved: their server was killed.
    pub lost_with_server: usize,
    /// Open connections that broke, or whose answers came from another server.
    pub broken: usize,
    /// New connections that came from the event on.
    pub newcomers: usize,
    /// How many of them came to nothing.
    pub refused: usize,
}

/// Lets everything happen, one after another; quickly what is most likely to break something.
pub fn measure(is_quick: bool) -> Result<Vec<Row>> {
    let mut stage = Stage::set()?;
    let mut rows = Vec::new();
    let events: &[Event] = if is_quick { &Event::FEW } else { &Event::ALL };
    for event in events.iter().copied() {
        eprintln!("{}", event.name());
        stage.before(event)?;
        let modes = [("nat", NAT_VIP_V4), ("dsr-l2", DSR_VIP_V4)];
        let mut watched = Vec::new();
        for (mode, vip) in modes {
            let vip = (vip, HTTP_PORT).into();
            let held = Held::open(stage.lab(), vip, HELD)?;
            watched.push((mode, held, Newcomers::start(stage.lab(), vip)));
        }
        stage.let_happen(event)?;
        for (mode, mut held, newcomers) in watched {
            let (came, refused) = newcomers.end()?;
            let lost_with_server = match event {
                Event::Fails => held.of(stage.victim()),
                _ => 0,
            };
            rows.push(Row {
                event,
                mode,
                lost_with_server,
                broken: held.broken() - lost_with_server,
                newcomers: came,
                refused,
            });
        }
    }
    Ok(rows)
}

/// The rows as they stand in the report.
pub fn table(rows: &[Row]) -> String {
    let mut table = Markdown::new([
        "event",
        "mode",
        "open connections",
        "lost with their server",
        "broken",
        "new meanwhile",
        "of these failed",
    ]);
    for row in rows {
        let new = [row.newcomers, row.refused].map(|count| {
            if row.event.interrupts() {
                "–".to_owned()
            } else {
                count.to_string()
            }
        });
        let [newcomers, refused] = new;
        table.row([
            row.event.name().into(),
            row.mode.into(),
            HELD.to_string(),
            row.lost_with_server.to_string(),
            row.broken.to_string(),
            newcomers,
            refused,
        ]);
    }
    table.finish()
}

/// The rows for machines.
pub fn json(rows: &[Row]) -> Value {
    let one = |row: &Row| {
        json!({
            "event": row.event.name(),
            "mode": row.mode,
            "open": HELD,
            "lost_with_server": row.lost_with_server,
            "broken": row.broken,
            "new": row.newcomers,
            "new_failed": row.refused,
        })
    };
    rows.iter().map(one).collect()
}
