//! A target as packets know it: where a flow goes, and how.

use zerocopy::big_endian::U16;

use crate::{address::Address, next_hop::NextHopId, word::Word};

/// Names a target's record. 0 is never valid, so an unwritten ring slot is seen and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct TargetId(pub u32);

/// How a packet reaches its target: a wire number, because any byte may stand in a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Mode(pub u8);

impl Mode {
    /// Destination address and port are translated; the return path leads through us.
    pub const NAT: Self = Self(1);
    /// Only the destination MAC changes; the target owns the VIP and answers directly.
    pub const DSR_L2: Self = Self(2);
    /// The packet travels inside of an IP packet (RFC 2003, RFC 2473, RFC 4213); the target owns
    /// the VIP and answers directly.
    pub const DSR_IPIP: Self = Self(4);
    /// The same, inside of UDP with a GUE header (draft-ietf-intarea-gue).
    pub const DSR_GUE: Self = Self(5);
    /// The same, inside of UDP with a Geneve header (RFC 8926).
    pub const DSR_GENEVE: Self = Self(6);
    /// Both ends are translated: the target answers an address of ours.
    pub const FULL_NAT: Self = Self(3);

    /// Whether the destination is translated, so that answers come back through us.
    #[inline(always)]
    pub const fn is_translated(self) -> bool {
        // Bit 1 is all that the two numbers differ in.
        self.0 & !2 == Self::NAT.0
    }
}

const _: () = assert!(
    Mode::NAT.0 | 2 == Mode::FULL_NAT.0,
    "`is_translated` compares once"
);

/// The identity of a target: what an id stands for as long as the data plane lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TargetIdentity {
    /// The target's own address.
    pub address: Address,
    /// Where it listens.
    pub port: U16,
    /// The target group's id: the index of its ring.
    pub group: u16,
    /// A fingerprint of the target group's name, so that a restarted daemon knows its groups again.
    pub group_fingerprint: u32,
}

/// What may change about a target while flows use it, in one word.
///
/// VERIFIER: in this order LLVM carries it in whole pieces; in its own, it joins one byte and half
/// of a neighbour ("misaligned stack access off -95 size 2"; Linux 6.18, rustc 1.96).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct TargetControl {
    /// How packets get there.
    pub mode: Mode,
    /// Whether a SYN may begin a flow here. The rings say so too; this is for a SYN whose flow is
    /// still remembered.
    pub takes_new_flows: bool,
    /// The way there; [`NextHopId::NONE`] asks the kernel's routes for each packet.
    pub next_hop: NextHopId,
    /// Whether the flows it still has end with their next packet: TCP is answered with an RST, UDP
    /// goes to another target. Never together with [`Self::takes_new_flows`].
    pub resets_flows: bool,
}

/// A target's record.
///
/// The identity is written once per id, before any ring names it; afterwards only `control`
/// changes, by one store.
#[derive(Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)]
#[repr(C, align(32))]
pub struct Target {
    /// mode (low 8 bits, 0 = unwritten), 1 in bit 8: takes new flows, 1 in bit 9: resets
    /// flows, next hop (bits 16–31)
    control: Word,
    address: [Word; 2],
    /// port (raw, low 16 bits), group (16–31), group fingerprint (32–63)
    identity: Word,
}

impl Target {
    /// Fills the record, `control`, which marks it as written, last.
    pub fn write(&self, identity: &TargetIdentity, control: TargetControl) {
        self.address[0].store(identity.address.words[0]);
        self.address[1].store(identity.address.words[1]);
        let port = u64::from(u16::from_ne_bytes(identity.port.to_bytes()));
        let group = u64::from(identity.group) << 16 | u64::from(identity.group_fingerprint) << 32;
        self.identity.store(port | group);
        self.set_control(control);
    }

    /// Replaces all that may change: one store.
    pub fn set_control(&self, control: TargetControl) {
        let word = u64::from(control.mode.0)
            | u64::from(control.takes_new_flows) << 8
            | u64::from(control.resets_flows) << 9
            | u64::from(control.next_hop.0) << 16;
        self.control.store(word);
    }

    /// Takes the record out of use; only when no flow and no ring names it any more.
    pub fn clear(&self) {
        self.control.store(0);
    }

    /// All that may change, if the record was written.
    #[inline(always)]
    pub fn control(&self) -> Option<TargetControl> {
        let [mode, flags, a, b, ..] = self.control.load().to_le_bytes();
        if mode == 0 {
            return None;
        }
        Some(TargetControl {
            mode: Mode(mode),
            takes_new_flows: flags & 1 != 0,
            next_hop: NextHopId(u16::from_le_bytes([a, b])),
            resets_flows: flags & 2 != 0,
        })
    }

    /// The target's own address.
    #[inline(always)]
    pub fn address(&self) -> Address {
        Address {
            words: [self.address[0].load(), self.address[1].load()],
        }
    }

    /// Where the target listens.
    #[inline(always)]
    pub fn port(&self) -> U16 {
        let [a, b, ..] = self.identity.load().to_le_bytes();
        U16::from_bytes(u16::from_le_bytes([a, b]).to_ne_bytes())
    }

    /// The target group's id.
    #[inline(always)]
    pub fn group(&self) -> u16 {
        let [_, _, a, b, ..] = self.identity.load().to_le_bytes();
        u16::from_le_bytes([a, b])
    }

    /// Everything that an id stands for.
    pub fn identity(&self) -> TargetIdentity {
        let [_, _, a, b, c, d, e, f] = self.identity.load().to_le_bytes();
        TargetIdentity {
            address: self.address(),
            port: self.port(),
            group: u16::from_le_bytes([a, b]),
            group_fingerprint: u32::from_le_bytes([c, d, e, f]),
        }
    }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;

    #[test]
    fn a_target_reads_back_what_was_written() {
        let record = Target::default();
        assert_eq!(record.control(), None);
        let identity = TargetIdentity {
            address: Address::from(IpAddr::from([10, 0, 0, 1])),
            port: U16::new(8080),
            group: 0x1234,
            group_fingerprint: 0xdead_beef,
        };
        let control = TargetControl {
            mode: Mode::NAT,
            takes_new_flows: true,
            resets_flows: true,
            next_hop: NextHopId(0xabcd),
        };
        record.write(&identity, control);
        assert_eq!(record.identity(), identity);
        assert_eq!(record.control(), Some(control));
        assert_eq!(record.port(), U16::new(8080));
        assert_eq!(record.group(), 0x1234);
    }
}
