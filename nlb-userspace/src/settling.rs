//! The rings of listeners that pin flows on change only: which slots have changed, what their flows
//! were with before, and when that no longer matters.
//!
//! A slot is in one of three states, which its two words in the maps tell:
//!
//! | state | mark | base | a packet without an entry |
//! |---|---|---|---|
//! | settled | no | – | goes to the target, and is not remembered |
//! | open | yes | not the target | goes to the base and is remembered, unless it opens a connection |
//! | closed | yes | the target | goes to the target, and is remembered |
//!
//! * A slot that gets another target **opens**: whoever began a flow before has no entry, and is with
//!   the base. A slot that is open keeps its base, because whoever began a flow since has an entry.
//! * An open slot **closes** when the flows' idle time has passed: a flow that sent nothing in all that
//!   time is over, and every other one has an entry by now.
//! * A closed slot **settles** when no live entry is with another target.
//!
//! Pure: who calls says what time it is.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use nlb_common::ring::Slot;

use crate::dataplane::RingSlots;

/// Flows of changed slots that are with other targets than new ones, as slots.
pub type Exceptions = HashSet<usize>;

/// A ring of a listener that pins flows on change only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settling {
    /// As they stand in the maps, marks among them.
    slots: Arc<[u32]>,
    bases: Arc<[u32]>,
    /// Since when each slot is in its state, as far as that was asked; empty if all are settled.
    since: Vec<Option<Duration>>,
}

impl Settling {
    /// A ring whose flows may be with other targets: those of a listener that has pinned every flow
    /// until now.
    pub fn closed(targets: &[u32]) -> Self {
        Self::found(
            targets.iter().map(|id| mark(*id)).collect(),
            targets.to_vec().into(),
        )
    }

    /// What stands in the maps. Since when it does is not known; so all times begin anew.
    pub fn found(slots: Arc<[u32]>, bases: Arc<[u32]>) -> Self {
        let since = if slots.iter().all(|slot| Slot(*slot).is_settled()) {
            Vec::new()
        } else {
            vec![None; slots.len()]
        };
        Self {
            slots,
            bases,
            since,
        }
    }

    /// What stands in the maps.
    pub fn maps(&self) -> (RingSlots, RingSlots) {
        (
            RingSlots(Arc::clone(&self.slots)),
            RingSlots(Arc::clone(&self.bases)),
        )
    }

    /// The target for new flows of a slot, 0 for none.
    pub fn target(&self, slot: usize) -> u32 {
        self.slots.get(slot).map_or(0, |slot| target(*slot))
    }

    /// Targets that flows may be with which have no entry to say so: the bases of open slots.
    pub fn open_bases(&self) -> BTreeSet<u32> {
        if self.is_settled() {
            return BTreeSet::new();
        }
        let slots = self.slots.iter().zip(&*self.bases);
        slots
            .filter(|(slot, base)| **base != target(**slot))
            .map(|(_, base)| *base)
            .collect()
    }

    /// Whether no flow needs to be looked for.
    pub const fn is_settled(&self) -> bool {
        self.since.is_empty()
    }

    /// The ring with these targets for new flows.
    #[must_use]
    pub fn changed(&self, targets: &[u32]) -> Self {
        let mut slots = self.slots.to_vec();
        let mut bases = self.bases.to_vec();
        let mut since = self.since.clone();
        since.resize(slots.len(), None);
        for (((slot, base), since), new) in slots
            .iter_mut()
            .zip(&mut bases)
            .zip(&mut since)
            .zip(targets)
        {
            let old = target(*slot);
            if *new == old {
                continue;
            }
            let is_open = *slot != old && *base != old;
            if !is_open {
                // Where there was no target there were no flows either.
                *base = if old == 0 { *new } else { old };
            }
            *slot = mark(*new);
            *since = None;
        }
        Self::with(slots, bases, since)
    }

    /// Takes a step towards settled, at most one per slot: `idle` is how long the listener's flows may
    /// be silent, and `exceptions` are what a sweep saw that began after the last call.
    #[must_use]
    pub fn settled(&self, now: Duration, idle: Duration, exceptions: &Exceptions) -> Self {
        let mut slots = self.slots.to_vec();
        let mut bases = self.bases.to_vec();
        let mut all_since = self.since.clone();
        let records = slots.iter_mut().zip(&mut bases).zip(&mut all_since);
        for (index, ((slot, base), since)) in records.enumerate() {
            let id = target(*slot);
            if *slot == id {
                continue;
            }
            let Some(began) = *since else {
                *since = Some(now);
                continue;
            };
            if *base != id {
                if now.saturating_sub(began) > idle {
                    *base = id;
                    *since = Some(now);
                }
            } else if now > began && !exceptions.contains(&index) {
                *slot = id;
            }
        }
        Self::with(slots, bases, all_since)
    }

    fn with(slots: Vec<u32>, bases: Vec<u32>, since: Vec<Option<Duration>>) -> Self {
        let is_settled = slots.iter().all(|slot| Slot(*slot).is_settled());
        Self {
            slots: slots.into(),
            bases: bases.into(),
            since: if is_settled { Vec::new() } else { since },
        }
    }

    /// Whether the maps hold the same.
    pub fn is_in_maps_as(&self, other: &Self) -> bool {
        self.slots == other.slots && self.bases == other.bases
    }
}

/// A word that says that the slot's flows must be looked for.
const fn mark(id: u32) -> u32 {
    id | Slot::CHANGED
}

/// The target of a word, 0 for none.
const fn target(word: u32) -> u32 {
    word & !Slot::CHANGED
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(350);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn settled_ring(targets: &[u32]) -> Settling {
        Settling::found(targets.to_vec().into(), targets.to_vec().into())
    }

    #[test]
    fn a_slot_that_changes_opens_closes_and_settles() {
        let none = Exceptions::new();
        let ring = settled_ring(&[1, 2]).changed(&[3, 2]);
        assert_eq!(*ring.slots, [mark(3), 2]);
        assert_eq!(*ring.bases, [1, 2]);
        assert_eq!(ring.open_bases(), BTreeSet::from([1]));
        let ring = ring.settled(at(10), IDLE, &none);
        let ring = ring.settled(at(360), IDLE, &none);
        assert_eq!(*ring.bases, [1, 2], "the idle time has not passed");
        let ring = ring.settled(at(361), IDLE, &none);
        assert_eq!(
            (&*ring.slots, &*ring.bases),
            (&[mark(3), 2][..], &[3, 2][..])
        );
        assert!(ring.open_bases().is_empty());
        let seen = ring.settled(at(366), IDLE, &Exceptions::from([0]));
        assert!(!seen.is_settled(), "a flow is still with another target");
        let ring = seen.settled(at(371), IDLE, &none);
        assert!(ring.is_settled());
        assert_eq!(*ring.slots, [3, 2]);
    }

    #[test]
    fn an_open_slot_keeps_its_base_whatever_it_changes_to() {
        let ring = settled_ring(&[1]).changed(&[2]).changed(&[3]);
        assert_eq!((&*ring.slots, &*ring.bases), (&[mark(3)][..], &[1][..]));
        let back = ring.changed(&[1]);
        assert_eq!((&*back.slots, &*back.bases), (&[mark(1)][..], &[1][..]));
        // Closed: whoever is not in the table is with 1, and so the next change has base 1.
        let on = back.changed(&[4]);
        assert_eq!((&*on.slots, &*on.bases), (&[mark(4)][..], &[1][..]));
    }

    #[test]
    fn a_slot_without_a_target_has_no_flows_to_look_for() {
        let ring = settled_ring(&[0]).changed(&[2]);
        assert_eq!((&*ring.slots, &*ring.bases), (&[mark(2)][..], &[2][..]));
        let gone = settled_ring(&[2]).changed(&[0]);
        assert_eq!((&*gone.slots, &*gone.bases), (&[mark(0)][..], &[2][..]));
    }

    #[test]
    fn times_begin_anew_for_who_finds_a_ring() {
        let ring = settled_ring(&[1])
            .changed(&[2])
            .settled(at(5), IDLE, &Exceptions::new());
        let found = Settling::found(Arc::clone(&ring.slots), Arc::clone(&ring.bases));
        let later = found.settled(at(1_000), IDLE, &Exceptions::new());
        assert_eq!(*later.bases, [1]);
        assert!(later.is_in_maps_as(&ring));
    }
}
