//! Geometry of the Maglev ring, shared by the daemon that builds it and the packets that read it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Slots of a ring: a prime, as Maglev's permutations need, and far more than any group's targets
/// (NSDI'16 §5.3 uses the same).
pub const SLOTS: usize = 65_537;

/// A ring: the target id of each slot, 0 where there is none. One map value, so that a new ring
/// replaces the old one at once.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Ring {
    /// Target ids.
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
