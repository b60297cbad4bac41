//! A next hop: the interface and the MAC addresses that lead to a neighbour.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{address::Address, wire::ethernet::MacAddress, word::Word};

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

/// The two MAC addresses that a frame begins with, as the words that the packet path moves.
///
/// VERIFIER: as arrays of six bytes they are kept on the stack in pieces that straddle words
/// ("misaligned stack access off -94 size 4"; Linux 6.18, rustc 1.96).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacPair {
    /// The first eight bytes of a frame, as they stand in memory.
    pub head: u64,
    /// The next four.
    pub tail: u32,
}

impl MacPair {
    /// From one neighbour to another.
    #[inline(always)]
    pub const fn new(destination: MacAddress, source: MacAddress) -> Self {
        let [a, b, c, d, e, f] = destination.0;
        let [g, h, i, j, k, l] = source.0;
        Self {
            head: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            tail: u32::from_ne_bytes([i, j, k, l]),
        }
    }

    /// Where the frame goes.
    pub const fn destination(self) -> MacAddress {
        let [a, b, c, d, e, f, ..] = self.head.to_ne_bytes();
        MacAddress([a, b, c, d, e, f])
    }

    /// Who sends it.
    pub const fn source(self) -> MacAddress {
        let [.., g, h] = self.head.to_ne_bytes();
        let [i, j, k, l] = self.tail.to_ne_bytes();
        MacAddress([g, h, i, j, k, l])
    }
}

/// The VLAN that frames of a next hop carry a tag of (IEEE 802.1Q): 1 to 4094, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct VlanId(pub u16);

impl VlanId {
    /// Frames are untagged.
    pub const NONE: Self = Self(0);
}

/// What stands behind a VLAN interface: the value of `VLAN_LINKS`, whose key is the interface's
/// index. Programs cannot send through a VLAN interface, only through what carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanLink {
    /// The index of the interface that carries the VLAN's frames.
    pub carrier: u32,
    /// Which VLAN.
    pub vlan: VlanId,
}

impl VlanLink {
    /// As the map's value.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        self.carrier as u64 | (self.vlan.0 as u64) << 32
    }

    /// Out of the map's value.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "takes the word apart")]
    pub const fn of_word(word: u64) -> Self {
        Self {
            carrier: word as u32,
            vlan: VlanId((word >> 32) as u16),
        }
    }
}

/// Where a frame goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The neighbour's MAC address, and ours on the interface.
    pub macs: MacPair,
    /// The index of the interface that the frame leaves through: for a VLAN, of the one that
    /// carries it.
    pub interface: u32,
    /// The largest IP packet that the link takes, in bytes.
    pub mtu_bytes: u16,
    /// The tag that the frame leaves with.
    pub vlan: VlanId,
}

/// A next hop's record.
///
/// A reader that finds `control` invalid, or changed while it read, asks the kernel's routes
/// instead; so a writer invalidates first and validates last, and nobody waits for anybody.
#[derive(Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)]
#[repr(C, align(32))]
pub struct NextHopSlot {
    /// MTU (low 16 bits), epoch (16–31), 1 in bit 32: valid, VLAN (48–63)
    control: Word,
    /// destination MAC, first two bytes of the source MAC: as the first eight bytes of a frame
    macs: Word,
    /// last four bytes of the source MAC (low 32 bits), interface index (high 32 bits)
    rest: Word,
    /// No meaning, zero.
    zero: Word,
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
        self.macs.store(next_hop.macs.head);
        let tail = u64::from(next_hop.macs.tail);
        self.rest.store(tail | u64::from(next_hop.interface) << 32);
        let control = u64::from(next_hop.mtu_bytes)
            | u64::from(epoch.0) << 16
            | VALID
            | u64::from(next_hop.vlan.0) << 48;
        self.control.store(control);
    }

    /// Makes packets ask the kernel's routes until the next `write`; returns the new epoch.
    pub fn invalidate(&self) -> Epoch {
        let epoch = Epoch(self.epoch().0.wrapping_add(1));
        self.control.store(u64::from(epoch.0) << 16);
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
        let [_, _, a, b, ..] = self.control.load().to_le_bytes();
        Epoch(u16::from_le_bytes([a, b]))
    }

    /// The next hop and its epoch, unless it is invalid or being changed.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "takes the words apart")]
    pub fn read(&self) -> Option<(NextHop, Epoch)> {
        let control = self.control.load();
        if control & VALID == 0 {
            return None;
        }
        let head = self.macs.load();
        let rest = self.rest.load();
        if self.control.load() != control {
            return None;
        }
        let next_hop = NextHop {
            macs: MacPair {
                head,
                tail: rest as u32,
            },
            interface: (rest >> 32) as u32,
            mtu_bytes: control as u16,
            vlan: VlanId((control >> 48) as u16),
        };
        Some((next_hop, Epoch((control >> 16) as u16)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOP: NextHop = NextHop {
        macs: MacPair::new(
            MacAddress([2, 0, 0, 0, 0, 1]),
            MacAddress([2, 0, 0, 0, 0, 2]),
        ),
        interface: 0x0102_0304,
        mtu_bytes: 9001,
        vlan: VlanId(4094),
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
