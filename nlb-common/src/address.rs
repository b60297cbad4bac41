//! An IP address of either version in one shape, so that one text handles both.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

/// An IPv6 address, or an IPv4 address mapped into IPv6 (RFC 4291 §2.5.5.2), in network order.
///
/// Two words, because the packet program compares and copies words, never bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Address {
    /// The first and the second eight bytes, each as it stands in memory.
    pub words: [u64; 2],
}

/// The first `bits` of a word in network order; all 64 for more.
const fn first_bits(bits: u8) -> u64 {
    match bits {
        0 => 0,
        1..64 => (u64::MAX << (64 - bits)).to_be(),
        _ => u64::MAX,
    }
}

/// What stands before an IPv4 address in the second word: `00 00 ff ff`.
const MAPPED_PREFIX: [u8; 4] = [0, 0, 0xff, 0xff];

impl Address {
    /// `::`, which no record holds: unwritten memory.
    pub const UNSPECIFIED: Self = Self { words: [0; 2] };

    /// The address whose 16 bytes in network order are these.
    #[inline(always)]
    pub const fn from_v6_bytes(bytes: [u8; 16]) -> Self {
        Self {
            words: transmute!(bytes),
        }
    }

    /// The IPv4 address whose 4 bytes in network order are these.
    #[inline(always)]
    pub const fn from_v4_bytes(bytes: [u8; 4]) -> Self {
        // One load of four bytes, where an array of eight would be put together byte by byte.
        let low = u32::from_le_bytes(MAPPED_PREFIX) as u64;
        let high = u32::from_le_bytes(bytes) as u64;
        Self {
            words: [0, u64::from_le(low | high << 32)],
        }
    }

    /// The same with all bits behind the first `bits` zero.
    #[inline(always)]
    #[must_use]
    pub const fn prefix(self, bits: u8) -> Self {
        let [first, second] = self.words;
        if bits <= 64 {
            Self {
                words: [first & first_bits(bits), 0],
            }
        } else {
            Self {
                words: [first, second & first_bits(bits - 64)],
            }
        }
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        let [w, x, y, z, ..] = self.words[1].to_ne_bytes();
        let [p, q, r, s] = MAPPED_PREFIX;
        self.words[0] == 0 && w == p && x == q && y == r && z == s
    }

    /// The last four bytes: the whole of an IPv4 address, in network order.
    #[inline(always)]
    pub const fn v4_bytes(self) -> [u8; 4] {
        let [_, _, _, _, a, b, c, d] = self.words[1].to_ne_bytes();
        [a, b, c, d]
    }

    /// All sixteen bytes in network order.
    #[inline(always)]
    pub const fn v6_bytes(self) -> [u8; 16] {
        transmute!(self.words)
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::from_v4_bytes(v4.octets()),
            IpAddr::V6(v6) => Self::from_v6_bytes(v6.octets()),
        }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        if address.is_v4() {
            Self::V4(Ipv4Addr::from(address.v4_bytes()))
        } else {
            Self::V6(Ipv6Addr::from(address.v6_bytes()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_either_version_survives_the_round_trip() {
        for text in [
            IpAddr::from([192, 0, 2, 1]),
            IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
        ] {
            assert_eq!(IpAddr::from(Address::from(text)), text);
        }
    }

    #[test]
    fn an_ipv4_address_is_told_from_its_ipv6_neighbours() {
        assert!(Address::from(IpAddr::from([1, 2, 3, 4])).is_v4());
        assert!(!Address::from(IpAddr::from([0, 0, 0, 0, 0, 0, 0x102, 0x304])).is_v4());
        assert!(!Address::from(IpAddr::from([1, 0, 0, 0, 0, 0xffff, 0x102, 0x304])).is_v4());
    }
}
