//! Geometry of the Maglev ring, shared by the daemon that builds it and the packets that read it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::target::TargetId;

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

/// A ring: what stands in each [`Slot`], 0 where there is no target. One map value, so that a new
/// ring replaces the old one at once.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Ring {
    /// [`Slot`]s; in `RING_BASES`, target ids.
    pub slots: [u32; SLOTS],
    /// No meaning, zero: BPF rounds values up to eight bytes.
    pub zero: u32,
}

/// The slot that a flow's hash falls on: the high half of `hash` scaled to the ring, because a
/// multiplication, unlike a remainder, tells the verifier the result's bounds.
#[inline(always)]
pub const fn slot(hash: u64) -> usize {
    (((hash >> 32) * SLOTS as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hash_falls_on_the_ring_and_both_ends_are_reached() {
        assert_eq!(slot(0), 0);
        assert_eq!(slot(u64::MAX), SLOTS - 1);
    }
}
