//! Geometry of the Maglev ring, shared by the daemon that builds it and the packets that read it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{target::TargetId, word::Word};

/// Slots of a ring: a prime, as Maglev's permutations need, and far more than any group's targets
/// (NSDI'16 §5.3 uses the same).
pub const SLOTS: usize = 65_537;

/// What stands in a slot of a ring: a target, and whether flows of the slot may be with another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Slot(pub u32);

impl Slot {
    /// Says that flows of the slot must be looked for in the flow table. Set in rings of listeners
    /// that pin flows on change only; see `docs/adr/0011-pinning-on-change.md`.
    pub const CHANGED: u32 = 1 << 31;

    /// The target for new flows, if there is one.
    #[inline(always)]
    pub const fn target(self) -> Option<TargetId> {
        match self.0 & !Self::CHANGED {
            0 => None,
            id => Some(TargetId(id)),
        }
    }

    /// Whether every flow of the slot that is not in the flow table is with [`Self::target`], and
    /// none is in the flow table with another one.
    #[inline(always)]
    pub const fn is_settled(self) -> bool {
        self.0 & Self::CHANGED == 0
    }
}

/// A ring: what stands in each [`Slot`], 0 where there is no target. One map value.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Ring {
    /// [`Slot`]s; in `RING_BASES`, target ids.
    pub slots: [u32; SLOTS],
    /// No meaning, zero: BPF rounds values up to eight bytes.
    pub zero: u32,
}

/// The same memory for the daemon that changes it while packets read: two slots to a word.
#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct SharedRing {
    words: [Word; SLOTS.div_ceil(2)],
}

#[cfg(not(target_arch = "bpf"))]
impl SharedRing {
    /// Makes these its slots, one after the other; those that say so already are left alone. A packet
    /// reads one slot, and finds there what was, or what will be.
    pub fn write(&self, slots: &[u32]) {
        for (word, pair) in self.words.iter().zip(slots.chunks(2)) {
            let slot = |index| pair.get(index).copied().unwrap_or(0);
            let pair: [u32; 2] = [slot(0), slot(1)];
            let new: u64 = zerocopy::transmute!(pair);
            if word.load() != new {
                word.store(new);
            }
        }
    }

    /// What stands in its slots.
    pub fn slots(&self) -> impl Iterator<Item = u32> {
        let pairs = self.words.iter().map(|word| -> [u32; 2] {
            let word = word.load();
            zerocopy::transmute!(word)
        });
        pairs.flatten().take(SLOTS)
    }
}

/// The slot that a flow's hash falls on: the high half of `hash` scaled to the ring, because a
/// multiplication, unlike a remainder, tells the verifier the result's bounds.
#[inline(always)]
pub const fn slot(hash: u64) -> usize {
    (((hash >> 32) * SLOTS as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use zerocopy::FromZeros as _;

    use super::*;

    #[test]
    fn what_the_daemon_writes_is_the_ring_that_packets_read() {
        let slots: Vec<u32> = (1..).take(SLOTS).collect();
        let mut shared = SharedRing::new_zeroed();
        shared.write(&slots);
        assert!(shared.slots().eq(slots.iter().copied()));
        let ring = Ring::ref_from_bytes(shared.as_mut_bytes()).unwrap();
        assert_eq!(ring.slots.as_slice(), &slots);
        assert_eq!(ring.zero, 0);
    }

    #[test]
    fn every_hash_falls_on_the_ring_and_both_ends_are_reached() {
        assert_eq!(slot(0), 0);
        assert_eq!(slot(u64::MAX), SLOTS - 1);
    }
}
