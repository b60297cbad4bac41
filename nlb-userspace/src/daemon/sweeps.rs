//! What the daemon does every few seconds: it looks over the flow table, and takes away what no flow
//! needs any more: entries, marks of rings that have settled, and records.

use std::time::Duration;

use super::{Daemon, SWEEP_EVERY};
use crate::{
    clock,
    dataplane::{Dataplane as _, Step, sweep::Sweep},
    farewell,
    flows::{
        filter::{Filter, FilterError},
        scan,
    },
    names::Names,
    plan,
    settling::{Exceptions, Settling},
};

impl Daemon {
    /// Sweeps the flow table, and has the ends of flows told that expired.
    pub(super) fn sweep_flows(&self) -> Sweep {
        let (settling, key) = (self.actual.settling(), &self.loaded.select_key);
        let mut sweep = self.loaded.maps.sweep(clock::now(), settling, key);
        let expired = std::mem::take(&mut sweep.expired);
        if !expired.is_empty() {
            // Thousands of system calls, perhaps, and nobody waits for them.
            tokio::task::spawn_blocking(move || {
                if let Err(error) = farewell::tell(&expired) {
                    tracing::error!(flows = expired.len(), "{error}");
                }
            });
        }
        sweep
    }

    /// Forgets flows: how many.
    pub(super) async fn kill_flows(&self, filter: &Filter) -> Result<u64, FilterError> {
        filter.or_all()?;
        let names = Names::of(&self.report().await);
        let table = self.loaded.maps.flow_table(clock::now());
        let selection = filter.resolve(&table, &names, clock::of_this_kernel())?;
        let killed = scan::kill(&table, &selection);
        tracing::info!(killed, ?filter, "flows were killed");
        Ok(killed)
    }

    /// Lets rings settle whose flows, as a sweep has seen, need no looking for.
    fn settle_rings(&mut self, sweep: &Sweep) {
        let now = self.started.elapsed();
        let none = Exceptions::new();
        let unsettled = self.actual.settling().iter();
        let next: Vec<(u16, Settling, bool)> = unsettled
            .filter(|(_, ring)| !ring.is_settled())
            .map(|(group, ring)| {
                let idle = clock::of_this_kernel().seconds_of_count(self.actual.idle_ticks(*group));
                // Two ticks of grace, as entries have them, and the time of a sweep.
                let idle = Duration::from_secs(idle) + SWEEP_EVERY;
                let exceptions = sweep.exceptions.get(group).unwrap_or(&none);
                let next = ring.settled(now, idle, exceptions);
                let is_written = next.is_in_maps_as(ring);
                (*group, next, is_written)
            })
            .collect();
        for (group, ring, is_written) in next {
            let (slots, bases) = ring.maps();
            let step = Step::ReplaceRing {
                group,
                slots,
                bases: Some(bases),
            };
            if !is_written && let Err(error) = self.loaded.maps.take(&step) {
                tracing::error!(
                    "cannot let a ring settle, so its flows go on being looked for: {error}"
                );
                continue;
            }
            self.actual.note_settling(group, ring);
        }
    }

    /// Sweeps the flow table and takes away what nothing needs any more.
    pub(super) fn sweep(&mut self) {
        match self.loaded.end_dead_captures() {
            Ok(0) => {}
            Ok(links) => tracing::warn!(links, "took away what a killed capture had left behind"),
            Err(error) => tracing::error!("cannot take away what a capture left behind: {error}"),
        }
        let before = self.loaded.maps.flows_of_sources();
        let sweep = self.sweep_flows();
        let maps = &mut self.loaded.maps;
        if let Err(error) = before.and_then(|before| maps.settle_sources(&before, &sweep)) {
            tracing::error!("cannot settle how many flows sources have: {error}");
        }
        self.settle_rings(&sweep);
        self.loaded
            .maps
            .tidy_spills(clock::now(), &self.loaded.table_key);
        let [_, newer] = std::mem::take(&mut self.sweeps);
        self.sweeps = [newer, sweep];
        // Flows that began before the last change must have been seen by both sweeps.
        if !self.is_tidy && self.last_wish_change.elapsed() > SWEEP_EVERY * 3 {
            let [older, newer] = &self.sweeps;
            for step in plan::retire(&self.actual, &self.wish, [older, newer]) {
                match self.loaded.maps.take(&step) {
                    Ok(()) => self.actual.note(&step),
                    Err(error) => tracing::error!("cannot take a record away: {error}"),
                }
            }
            self.actual.forget_groups(&self.wish);
            self.is_tidy = plan::is_tidy(&self.actual, &self.wish);
        }
    }
}
