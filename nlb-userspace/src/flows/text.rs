//! Flows for people, and as JSON.

use std::fmt::Write as _;

use nlb_common::tick::Clock;
use serde_json::{Value, json};

use super::{
    Flow, Table,
    scan::{Counts, Found},
};
use crate::{
    explain::fact::{Protocol, state},
    names::Names,
    table::Table as Rows,
};

/// What flows are shown with.
#[derive(Clone, Copy)]
pub struct Shown<'s> {
    /// The records that flows name.
    pub table: &'s Table<'s>,
    /// What things are called.
    pub names: &'s Names,
    /// How long a tick is.
    pub clock: Clock,
}

impl Shown<'_> {
    /// A table of flows, and what is not in it.
    pub fn flows(self, found: &Found) -> String {
        let mut rows = Rows::default();
        rows.row([
            "PROTOCOL",
            "CLIENT",
            "VIP",
            "TARGET",
            "STATE",
            "SEEN BY THE TARGET AS",
            "SILENT",
            "FORGOTTEN IN",
        ]);
        for flow in &found.flows {
            rows.cells(self.cells(flow));
        }
        let mut text = String::new();
        if found.flows.is_empty() {
            text += "no flows\n";
        } else {
            rows.write(0, 6, &mut text);
        }
        let more = found.counts.flows.saturating_sub(found.flows.len() as u64);
        if more > 0 {
            let _infallible = writeln!(
                text,
                "and {more} more; --limit shows more of them, --count counts them"
            );
        }
        text + &self.note()
    }

    /// A flow's cells.
    pub fn cells(self, flow: &Flow) -> Vec<String> {
        let seconds = |ticks| format!("{} s", self.clock.seconds_of_count(ticks));
        vec![
            Protocol(flow.protocol).to_string(),
            flow.client.to_string(),
            (self.table.vip(flow.listener))
                .map_or_else(|| "-".to_owned(), |(vip, _)| vip.to_string()),
            self.target(flow.target),
            state(flow.state).to_owned(),
            flow.source
                .map_or_else(|| "-".to_owned(), |source| source.to_string()),
            seconds(flow.silent_ticks),
            seconds(flow.idle_ticks.saturating_sub(flow.silent_ticks)),
        ]
    }

    /// How many flows there are, by what they have in common.
    pub fn counts(self, counts: &Counts, capacity: usize) -> String {
        let mut text = format!(
            "{} flows; the table has room for {capacity}\n",
            counts.flows
        );
        let mut rows = Rows::default();
        let by_state = counts.by_state.iter();
        let by_state = by_state.map(|(state, count)| ("state", (*state).to_owned(), *count));
        let by_listener = counts.by_listener.iter();
        let by_listener = by_listener.map(|(id, count)| ("listener", self.listener(*id), *count));
        let by_target = counts.by_target.iter();
        let by_target = by_target.map(|(id, count)| ("target", self.target(*id), *count));
        for (kind, name, count) in by_state.chain(by_listener).chain(by_target) {
            rows.row([kind, &name, &count.to_string()]);
        }
        rows.write(2, 2, &mut text);
        text + &self.note()
    }

    /// The same for programs.
    pub fn json(self, found: &Found, capacity: usize) -> Value {
        let flows: Vec<Value> = found.flows.iter().map(|flow| self.flow(flow)).collect();
        let counts = &found.counts;
        let named = |name: String, count: &u64| json!({ "name": name, "flows": count });
        json!({
            "flows": flows,
            "count": counts.flows,
            "capacity": capacity,
            "by_state": counts.by_state,
            "by_listener": (counts.by_listener.iter())
                .map(|(id, count)| named(self.listener(*id), count)).collect::<Vec<_>>(),
            "by_target": (counts.by_target.iter())
                .map(|(id, count)| named(self.target(*id), count)).collect::<Vec<_>>(),
            "pins_on_change": self.table.on_change()
                .map(|id| self.listener(id)).collect::<Vec<_>>(),
        })
    }

    /// A flow for programs.
    pub fn flow(self, flow: &Flow) -> Value {
        let seconds = |ticks| self.clock.seconds_of_count(ticks);
        json!({
            "protocol": Protocol(flow.protocol),
            "client": flow.client,
            "vip": self.table.vip(flow.listener).map(|(vip, _)| vip),
            "listener": self.listener(flow.listener),
            "target": self.table.target(flow.target),
            "target_group": self.names.target(flow.target).map(|target| &target.group),
            "state": state(flow.state),
            "source_translated_to": flow.source,
            "silent_seconds": seconds(flow.silent_ticks),
            "forgotten_in_seconds": seconds(flow.idle_ticks.saturating_sub(flow.silent_ticks)),
        })
    }

    /// A listener's name, or where it listens.
    fn listener(self, id: u16) -> String {
        let Some((at, protocol)) = self.table.vip(id) else {
            return format!("listener {id}, which is gone");
        };
        let name = self.names.listener(at, protocol).unwrap_or_default();
        format!("{name} {} {at}", Protocol(protocol))
            .trim_start()
            .to_owned()
    }

    /// A target's name, or its address.
    fn target(self, id: u32) -> String {
        let name = self.names.target(id).map(ToString::to_string);
        let address = || self.table.target(id).map(|address| address.to_string());
        name.or_else(address)
            .unwrap_or_else(|| format!("target {id}, which is gone"))
    }

    /// What the table does not hold.
    fn note(self) -> String {
        let on_change: Vec<String> = self.table.on_change().map(|id| self.listener(id)).collect();
        if on_change.is_empty() {
            return String::new();
        }
        format!(
            "these listeners pin flows on change: of their flows only those are in the table that are \
             not where the ring would send them now: {}\n",
            on_change.join(", ")
        )
    }
}
