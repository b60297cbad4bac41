//! A next hop: the interface and the MAC addresses that lead to a neighbour.

use core::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{address::Address, wire::ethernet::MacAddress};

/// Names a next hop's record. 0 is never valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct NextHopId(pub u16);

impl NextHopId {
    /// No next hop known: the packet asks the kernel's routes.
    pub const NONE: Self = Self(0);
}

/// What a next hop is to the kernel: a neighbour on an interface. The key of the next-hop index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NeighbourKey {
    /// The neighbour's IP address on the link.
    pub address: Address,
    /// The interface's index.
    pub interface: u32,
    /// No meaning; zero, because hash maps compare every byte.
    pub zero: u32,
}

impl NeighbourKey {
    /// The neighbour with this address on this interface.
    #[inline(always)]
    pub const fn new(interface: u32, address: Address) -> Self {
        Self {
            address,
            interface,
            zero: 0,
        }
    }
}

/// Where a frame goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The neighbour's MAC address.
    pub destination_mac: MacAddress,
    /// Our MAC address on the interface.
    pub source_mac: MacAddress,
    /// The index of the interface that the frame leaves through.
    pub interface: u32,
    /// The largest IP packet that the link takes, in bytes.
    pub mtu_bytes: u16,
}

/// A next hop's record.
///
/// A reader that finds `control` invalid, or changed while it read, asks the kernel's routes
/// instead; so a writer invalidates first and validates last, and nobody waits for anybody.
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(C, align(32))]
pub struct NextHopSlot {
    /// MTU (low 16 bits), epoch (16–31), 1 in bit 32: valid
    control: AtomicU64,
    /// destination MAC, first two bytes of the source MAC: as the first eight bytes of a frame
    macs: AtomicU64,
    /// last four bytes of the source MAC (low 32 bits), interface index (high 32 bits)
    rest: AtomicU64,
    /// No meaning, zero.
    zero: AtomicU64,
}

/// Bit of `control` that says the record may be used.
const VALID: u64 = 1 << 32;

/// Changes whenever what a next hop leads to may have changed; flows remember it with the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Epoch(pub u16);

impl NextHopSlot {
    /// Puts a next hop in, under the next epoch.
    pub fn write(&self, next_hop: &NextHop) {
        let epoch = self.invalidate();
        let [a, b, c, d, e, f] = next_hop.destination_mac.0;
        let [g, h, i, j, k, l] = next_hop.source_mac.0;
        self.macs
            .store(u64::from_ne_bytes([a, b, c, d, e, f, g, h]), Relaxed);
        let tail = u64::from(u32::from_ne_bytes([i, j, k, l]));
        self.rest
            .store(tail | u64::from(next_hop.interface) << 32, Relaxed);
        let control = u64::from(next_hop.mtu_bytes) | u64::from(epoch.0) << 16 | VALID;
        self.control.store(control, Release);
    }

    /// Makes packets ask the kernel's routes until the next `write`; returns the new epoch.
    pub fn invalidate(&self) -> Epoch {
        let epoch = Epoch(self.epoch().0.wrapping_add(1));
        self.control.store(u64::from(epoch.0) << 16, Release);
        epoch
    }

    /// Starts a new epoch for an unchanged next hop: flows that remembered it ask the routes again.
    pub fn renew(&self) {
        if let Some((next_hop, _)) = self.read() {
            self.write(&next_hop);
        }
    }

    /// The present epoch.
    #[inline(always)]
    pub fn epoch(&self) -> Epoch {
        let [_, _, a, b, ..] = self.control.load(Relaxed).to_le_bytes();
        Epoch(u16::from_le_bytes([a, b]))
    }

    /// The next hop and its epoch, unless it is invalid or being changed.
    #[inline(always)]
    pub fn read(&self) -> Option<(NextHop, Epoch)> {
        let control = self.control.load(Acquire);
        if control & VALID == 0 {
            return None;
        }
        let [a, b, c, d, e, f, g, h] = self.macs.load(Relaxed).to_ne_bytes();
        let rest = self.rest.load(Relaxed);
        if self.control.load(Acquire) != control {
            return None;
        }
        let [r0, r1, r2, r3, i0, i1, i2, i3] = rest.to_le_bytes();
        let [i, j, k, l] = u32::from_le_bytes([r0, r1, r2, r3]).to_ne_bytes();
        let [m0, m1, e0, e1, ..] = control.to_le_bytes();
        let next_hop = NextHop {
            destination_mac: MacAddress([a, b, c, d, e, f]),
            source_mac: MacAddress([g, h, i, j, k, l]),
            interface: u32::from_le_bytes([i0, i1, i2, i3]),
            mtu_bytes: u16::from_le_bytes([m0, m1]),
        };
        Some((next_hop, Epoch(u16::from_le_bytes([e0, e1]))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOP: NextHop = NextHop {
        destination_mac: MacAddress([2, 0, 0, 0, 0, 1]),
        source_mac: MacAddress([2, 0, 0, 0, 0, 2]),
        interface: 0x0102_0304,
        mtu_bytes: 9001,
    };

    #[test]
    fn a_next_hop_reads_back_what_was_written() {
        let slot = NextHopSlot::default();
        assert_eq!(slot.read(), None);
        slot.write(&HOP);
        assert_eq!(slot.read(), Some((HOP, Epoch(1))));
    }

    #[test]
    fn an_invalidated_next_hop_is_not_read_and_comes_back_in_another_epoch() {
        let slot = NextHopSlot::default();
        slot.write(&HOP);
        slot.invalidate();
        assert_eq!(slot.read(), None);
        slot.write(&HOP);
        assert_eq!(slot.read(), Some((HOP, Epoch(3))));
        slot.renew();
        assert_eq!(slot.read(), Some((HOP, Epoch(4))));
    }
}
