//! How the maps come to say what is wished, and no more is looked at than may differ.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use nlb_common::next_hop::NextHopId;

use super::{Daemon, DaemonError, groups::Way};
use crate::{
    dataplane::Dataplane as _,
    events::What,
    next_hop::book::Book,
    plan::{self, PlanError, Planned},
};

/// What may differ from what is live.
#[derive(Debug, Default)]
pub(super) enum Stale {
    /// Nothing.
    #[default]
    Nothing,
    /// What these groups' targets take, and how they are reached: places in the list of groups.
    Groups(BTreeSet<usize>),
    /// Anything.
    Everything,
}

impl Stale {
    /// Something of a group may differ.
    pub(super) fn group(&mut self, place: usize) {
        match self {
            Self::Nothing => *self = Self::Groups(BTreeSet::from([place])),
            Self::Groups(places) => {
                places.insert(place);
            }
            Self::Everything => {}
        }
    }
}

/// The id of the next hop on a way.
fn next_hop(book: &Book, way: &Way) -> NextHopId {
    match way {
        Way::Through {
            interface,
            neighbour,
        } => book
            .get(*interface, *neighbour)
            .map_or(NextHopId::NONE, |(id, _)| id),
        Way::Unknown | Way::None(_) | Way::Failed(_) => NextHopId::NONE,
    }
}

impl Daemon {
    /// Wishes anew what may differ, and carries out what does; says how many steps it took.
    pub(super) fn reconcile(&mut self) -> Result<usize, DaemonError> {
        let result = self.carry_out();
        self.is_live = result.is_ok();
        if !self.is_live {
            self.stale = Stale::Everything;
        }
        result
    }

    pub(super) fn reconcile_or_log(&mut self) {
        match self.reconcile() {
            // What is wrong has not changed, either, or the next sweep finds it.
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => tracing::error!("cannot bring the data plane up to date: {error}"),
        }
        self.look_for_warnings();
    }

    fn carry_out(&mut self) -> Result<usize, DaemonError> {
        let now = self.started.elapsed();
        let steps = match std::mem::take(&mut self.stale) {
            Stale::Nothing => return Ok(0),
            Stale::Groups(places) => match self.plan_groups(&places, now) {
                Some(steps) => steps,
                None => self.plan_everything(now)?,
            },
            Stale::Everything => self.plan_everything(now)?,
        };
        // Rings follow each other, and many are not much dearer than one.
        let are_rings = |one: &Planned, next: &Planned| one.ring.is_some() && next.ring.is_some();
        for run in steps.chunk_by(are_rings) {
            match run {
                [one] => self.loaded.maps.take(&one.step)?,
                rings => (self.loaded.maps).replace_rings(rings.iter().map(|ring| &ring.step))?,
            }
            for planned in run {
                self.actual.note(&planned.step);
                if let Some(ring) = &planned.ring {
                    self.actual.note_ring(ring.clone());
                }
            }
        }
        self.generation
            .store(self.actual.generation, Ordering::Relaxed);
        let after = self.first_outcome.take().map(|at| at.elapsed());
        if !steps.is_empty() {
            self.events.tell(What::Generation {
                generation: self.actual.generation,
                steps: steps.len(),
                after_us: after.and_then(|after| u64::try_from(after.as_micros()).ok()),
            });
        }
        Ok(steps.len())
    }

    fn plan_everything(&mut self, now: Duration) -> Result<Vec<Planned>, PlanError> {
        let way = |way: &Way| next_hop(&self.book, way);
        let wish = self.groups.wish(&self.desired, now, way);
        let steps = plan::plan(&self.actual, &wish, self.limits())?;
        if wish != self.wish {
            self.last_wish_change = Instant::now();
        }
        self.wish = wish;
        // Ids are others, perhaps, and records may have been left without a wish.
        self.suspicion.forget();
        self.is_tidy = false;
        Ok(steps)
    }

    /// The steps if nothing has changed but shares of these groups' targets, and ways to them.
    fn plan_groups(&mut self, places: &BTreeSet<usize>, now: Duration) -> Option<Vec<Planned>> {
        let sources = &self.desired.node.tunnel_sources;
        let mut changed = BTreeMap::new();
        for place in places {
            let group = self.groups.list.get(*place)?;
            let group = group.wish(now, sources, &|way| next_hop(&self.book, way));
            let old = self.wish.groups.get(*place)?;
            if !group.differs_in_shares_only(old) {
                return None;
            }
            if group != *old {
                changed.insert(*place, group);
            }
        }
        if changed.is_empty() {
            return Some(Vec::new());
        }
        self.last_wish_change = Instant::now();
        let places = changed.keys().copied().collect();
        for (place, group) in changed {
            if let Some(wished) = self.wish.groups.get_mut(place) {
                *wished = group;
            }
        }
        plan::plan_groups(&self.actual, &self.wish, &places)
    }
}
