//! What `nlb capture` and its kernel program tell each other: which packets are meant, and what became of
//! each.
//!
//! The program stands in the packet program's place, and only while somebody captures. None of these records
//! is in the packet program's maps.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, big_endian::U16};

use crate::{address::Address, stop::Stop};

/// The most bytes that are kept of a frame.
pub const FRAME_BYTES: usize = 4096;

/// How many ends a list has room for.
pub const ENDS: usize = 16;

/// What is known of a packet, at the head of its record; its bytes as it came in follow, then those as it
/// left.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Captured {
    /// When it had left, by the clock that counts from boot (`CLOCK_MONOTONIC`).
    pub at_ns: u64,
    /// The reasons for which it was stopped: a bit for each [`Stop`].
    pub stops: u64,
    /// What the packet program returned: a value of `enum xdp_action`.
    pub action: u32,
    /// The index of the interface that it came in through.
    pub interface: u32,
    /// How it came in.
    pub came: Length,
    /// How it left; nothing if it did not.
    pub left: Length,
}

/// How much there is of a frame.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Length {
    /// Bytes that follow.
    pub kept_bytes: u32,
    /// Bytes that it had.
    pub frame_bytes: u32,
}

const _: () = assert!(Stop::COUNT <= 64, "each reason has a bit");

/// Who captures, and until when, unless it is said anew.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Lease {
    /// By the clock that counts from boot (`CLOCK_MONOTONIC`).
    pub until_ns: u64,
    /// The id of the front program that packets go on to.
    pub front: u64,
}

/// Packets that are not in the ring buffer, on one processor.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Missed {
    /// There was no room for so many.
    pub lost: u64,
    /// So many were more than the limit for each second.
    pub limited: u64,
}

/// An address, and a port, which is 0 for any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct End {
    /// The address.
    pub address: Address,
    /// The port, in network order.
    pub port: U16,
    /// Zero.
    pub zero: [u16; 3],
}

impl End {
    /// Any end, or none.
    pub const UNSPECIFIED: Self = Self::new(Address::UNSPECIFIED, U16::ZERO);

    /// The end at this address and port.
    #[inline(always)]
    pub const fn new(address: Address, port: U16) -> Self {
        Self {
            address,
            port,
            zero: [0; 3],
        }
    }

    #[inline(always)]
    fn is_at(&self, wanted: &Self) -> bool {
        let is_any_port = wanted.port == U16::ZERO;
        self.address == wanted.address && (is_any_port || self.port == wanted.port)
    }
}

/// Ends of which a packet must have one; any packet does if there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Ends {
    /// The first `count` of them count.
    pub ends: [End; ENDS],
    /// How many there are.
    pub count: u64,
}

impl Ends {
    /// No end is asked for.
    pub const ANY: Self = Self {
        ends: [End::UNSPECIFIED; ENDS],
        count: 0,
    };

    #[inline(always)]
    fn has_one_of(&self, packet: &Both) -> bool {
        if self.count == 0 {
            return true;
        }
        for (index, wanted) in (0..).zip(&self.ends) {
            if index < self.count && packet.has(|end| end.is_at(wanted)) {
                return true;
            }
        }
        false
    }
}

/// Which packets are meant, and how many of them are shown at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Wish {
    /// Listeners.
    pub listeners: Ends,
    /// Targets.
    pub targets: Ends,
    /// The first bits of a client's address.
    pub client: Address,
    /// How many bits of it are meant; 0 for any client.
    pub client_bits: u32,
    /// The IP protocol, or 0 for any.
    pub protocol: u32,
    /// Packets that were stopped for any of these reasons; 0 for all packets.
    pub stops: u64,
    /// Bytes that are kept of a frame.
    pub frame_bytes: u32,
    /// Packets that are shown in each second, for each processor.
    pub packets_per_second: u32,
}

impl Wish {
    /// Every packet, whole.
    #[expect(clippy::cast_possible_truncation, reason = "a frame is not that long")]
    pub const EVERYTHING: Self = Self {
        listeners: Ends::ANY,
        targets: Ends::ANY,
        client: Address::UNSPECIFIED,
        client_bits: 0,
        protocol: 0,
        stops: 0,
        frame_bytes: FRAME_BYTES as u32,
        packets_per_second: u32::MAX,
    };

    /// Whether a packet is meant, as far as that is told by what it was stopped for.
    #[inline(always)]
    pub const fn is_about(&self, stops: u64) -> bool {
        self.stops == 0 || self.stops & stops != 0
    }

    /// Whether it asks for anything that only headers tell.
    #[inline(always)]
    pub const fn asks_for_ends(&self) -> bool {
        self.listeners.count != 0
            || self.targets.count != 0
            || self.client_bits != 0
            || self.protocol != 0
    }

    /// Whether a packet is meant, as far as that is told by its headers.
    #[inline(always)]
    pub fn has(&self, packet: &Both) -> bool {
        (self.protocol == 0 || self.protocol == packet.protocol)
            && self.listeners.has_one_of(packet)
            && self.targets.has_one_of(packet)
            && (self.client_bits == 0 || packet.has(|end| self.is_client(end.address)))
    }

    #[inline(always)]
    fn is_client(&self, address: Address) -> bool {
        address.prefix((self.client_bits & 0xff) as u8) == self.client
    }
}

/// The ends of a packet as it came in and as it left: the answer of a target names the listener only when it
/// leaves, and a packet to a target names that only then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Both {
    /// Its protocol as it came in.
    pub protocol: u32,
    /// Where it came from and went, as it came in, and the same as it left.
    pub ends: [End; 4],
}

impl Both {
    #[inline(always)]
    fn has(&self, is_meant: impl Fn(&End) -> bool) -> bool {
        let [a, b, c, d] = &self.ends;
        is_meant(a) || is_meant(b) || is_meant(c) || is_meant(d)
    }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;

    fn end(address: [u8; 4], port: u16) -> End {
        End::new(Address::from(IpAddr::from(address)), U16::new(port))
    }

    fn packet() -> Both {
        Both {
            protocol: 6,
            ends: [
                end([203, 0, 113, 9], 40_000),
                end([192, 0, 2, 10], 80),
                end([203, 0, 113, 9], 40_000),
                end([10, 0, 0, 11], 8080),
            ],
        }
    }

    fn ends(wanted: End) -> Ends {
        let mut ends = Ends::ANY;
        ends.ends[0] = wanted;
        ends.count = 1;
        ends
    }

    #[test]
    fn a_packet_is_meant_by_what_it_was_or_became_and_by_nothing_else() {
        let all = Wish::EVERYTHING;
        assert!(all.has(&packet()) && !all.asks_for_ends());
        let cases = [
            (end([192, 0, 2, 10], 80), true),
            (end([192, 0, 2, 10], 0), true),
            (end([192, 0, 2, 10], 81), false),
            (end([10, 0, 0, 11], 8080), true),
            (end([10, 0, 0, 12], 0), false),
        ];
        for (wanted, is_meant) in cases {
            let listeners = ends(wanted);
            let targets = listeners;
            assert_eq!(Wish { listeners, ..all }.has(&packet()), is_meant);
            assert_eq!(Wish { targets, ..all }.has(&packet()), is_meant);
        }
        // Each thing that is asked for must be there.
        let both = Wish {
            listeners: ends(end([192, 0, 2, 10], 80)),
            targets: ends(end([10, 0, 0, 12], 0)),
            ..all
        };
        assert!(both.asks_for_ends() && !both.has(&packet()));
        assert!(
            !Wish {
                protocol: 17,
                ..all
            }
            .has(&packet())
        );
    }

    #[test]
    fn clients_are_meant_by_their_prefix() {
        let client = |address: [u8; 4], bits: u8| Wish {
            client: Address::from(IpAddr::from(address)).prefix(96 + bits),
            client_bits: u32::from(96 + bits),
            ..Wish::EVERYTHING
        };
        assert!(client([203, 0, 113, 0], 24).has(&packet()));
        assert!(client([203, 0, 113, 9], 32).has(&packet()));
        assert!(!client([203, 0, 113, 8], 32).has(&packet()));
    }

    #[test]
    fn reasons_are_meant_if_they_are_among_those_asked_for() {
        let all = Wish::EVERYTHING;
        assert!(all.is_about(0));
        let wish = Wish {
            stops: 0b110,
            ..all
        };
        assert!(wish.is_about(0b010));
        assert!(!wish.is_about(0b001) && !wish.is_about(0));
    }
}
