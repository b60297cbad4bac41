//! The words that the decapsulating program and `nlb decap` share.
//!
//! | map | key → value | written by | read by |
//! |---|---|---|---|
//! | `DECAP_OWN` | [`Address`] of this host → 1 | command | every packet of a tunnel's protocol |
//! | `DECAP_VIPS` | [`Address`] of a VIP → 1 | command | every packet of a tunnel |
//! | `DECAP_SOURCES` | prefix of a load balancer's addresses → 1 | command | the same, if sources are restricted |
//! | `DECAP_COUNTERS` | [`Encapsulation`] → [`Decapsulated`] per CPU | packet | command |
//! | `DECAP_STOPS` | [`DecapStop`] → u64 per CPU | packet | command |

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, big_endian::U16};

use crate::{address::Address, stop::stops};

/// How packets are wrapped. The number is the index in the counters' map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encapsulation {
    /// An IP header alone.
    Ipip,
    /// UDP and GUE of variant 0 or 1.
    Gue,
    /// UDP and Geneve.
    Geneve,
}

impl Encapsulation {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Ipip, Self::Gue, Self::Geneve];

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Gue => "gue",
            Self::Geneve => "geneve",
        }
    }
}

/// What was taken out of one encapsulation.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Decapsulated {
    /// Packets.
    pub packets: u64,
    /// Bytes of the inner IP packets.
    pub bytes: u64,
}

impl core::ops::AddAssign for Decapsulated {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// The constants that the loader patches into the program.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct DecapSettings {
    /// The UDP port of GUE; zero if there is none.
    pub gue_port: U16,
    /// The UDP port of Geneve; zero if there is none.
    pub geneve_port: U16,
    /// Not 0: IP in IP is taken off.
    pub takes_ipip: u16,
    /// Not 0: only sources in `DECAP_SOURCES` may send through tunnels.
    pub restricts_sources: u16,
}

/// What stands behind the prefix length in a key of `DECAP_SOURCES`.
///
/// The kernel wants the length in the first four bytes. Another four put the address where it is
/// aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SourceKey {
    /// No meaning, zero; part of every prefix.
    pub zero: [u8; 4],
    /// The address, of either version.
    pub address: [u8; 16],
}

impl SourceKey {
    /// How many bits of a key stand before the address.
    pub const BITS_BEFORE: u32 = 32;
    /// How many bits a key has.
    pub const BITS: u32 = Self::BITS_BEFORE + 128;

    /// The key of an address.
    #[inline(always)]
    pub const fn of(address: Address) -> Self {
        Self {
            zero: [0; 4],
            address: address.v6_bytes(),
        }
    }
}

stops! {
    enum DecapStop;
    /// Not a tunnel's packet for an address of this host with a VIP inside; passed on untouched and not counted.
    NotOurs "not_ours" Pass,
    /// The outer IP header contradicts itself or has a wrong checksum; left to the host's stack, which drops it.
    OuterHeader "outer_header" Pass,
    /// The outer packet is a fragment; left to the host's stack. The path's MTU has no room for the outer headers.
    Fragment "fragment" Pass,
    /// A control message of GUE or Geneve; left to the host's stack.
    Control "control" Pass,
    /// GUE or Geneve around something other than an IP packet; left to the host's stack.
    NotIp "not_ip" Pass,
    /// A tunnel header that is cut short or contradicts itself, or no IP packet where it promises one.
    Malformed "malformed" Drop,
    /// The inner packet begins further behind than this program looks: too many options.
    TooDeep "too_deep" Drop,
    /// GUE flags, or critical Geneve options, that change the meaning of the packet in a way not known here.
    UnknownOption "unknown_option" Drop,
    /// A packet for a VIP out of a tunnel from an address that is in no `--from`.
    ForeignSource "foreign_source" Drop,
    /// The inner packet says that it is longer than the outer has room for, or shorter than its own header.
    InnerLength "inner_length" Drop,
    /// The tunnel's path was congested and the inner packet cannot be marked so; RFC 6040 wants it dropped.
    Congestion "congestion" Drop,
    /// The driver refused to shorten the packet.
    NoRoom "no_room" Drop,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_counted_is_found_under_its_own_number_and_has_a_name_of_its_own() {
        for (index, stop) in DecapStop::ALL.iter().enumerate() {
            assert_eq!(*stop as usize, index);
            assert!(stop.meaning().ends_with('.'));
            assert!(
                DecapStop::ALL[..index]
                    .iter()
                    .all(|other| other.name() != stop.name())
            );
        }
        for (index, encapsulation) in Encapsulation::ALL.iter().enumerate() {
            assert_eq!(*encapsulation as usize, index);
        }
    }
}
