//! Internet checksums. Those of packets that go on are adjusted for what changed (RFC 1624) and
//! never computed anew: an error that happened before us stays visible behind us. Those of packets
//! of our own are computed (RFC 1071).

use nlb_common::address::Address;
use zerocopy::{
    big_endian::{U16, U32},
    native_endian,
};

use crate::{
    frame::{Frame, Offset},
    tables::Tables,
};

/// The sum of all changes to the bytes under a checksum, in one's complement arithmetic.
///
/// Words are added as they stand in memory: the sum's byte order follows its input's (RFC 1071
/// §2 B).
#[derive(Clone, Copy, Debug, Default)]
pub struct Change(u64);

impl Change {
    /// One 16-bit word became another.
    #[inline(always)]
    #[must_use]
    pub fn word(self, old: U16, new: U16) -> Self {
        Self(self.0 + u64::from(!raw(old)) + u64::from(raw(new)))
    }

    /// One 32-bit word became another.
    #[inline(always)]
    #[must_use]
    pub fn long(self, old: U32, new: U32) -> Self {
        let raw = |long: U32| u32::from_ne_bytes(long.to_bytes());
        Self(self.0 + u64::from(!raw(old)) + u64::from(raw(new)))
    }

    /// One address became another; both of one version.
    #[inline(always)]
    #[must_use]
    pub fn address(self, old: Address, new: Address) -> Self {
        let mut sum = self.0;
        for (old, new) in old.words.into_iter().zip(new.words) {
            sum += (!old & 0xffff_ffff) + (!old >> 32) + (new & 0xffff_ffff) + (new >> 32);
        }
        Self(sum)
    }

    /// A UDP checksum after the change. Zero means that the sender computed none, and stays; a sum
    /// that comes out as zero is sent as all ones (RFC 768).
    #[inline(always)]
    pub fn apply_to_udp(self, checksum: U16) -> U16 {
        if checksum == U16::ZERO {
            return checksum;
        }
        let sum = self.apply(checksum);
        if sum == U16::ZERO {
            U16::MAX_VALUE
        } else {
            sum
        }
    }

    /// A 16-bit word was added.
    #[inline(always)]
    #[must_use]
    pub fn added(self, word: U16) -> Self {
        Self(self.0 + u64::from(raw(word)))
    }

    /// Four bytes were added.
    #[inline(always)]
    #[must_use]
    pub fn added_four(self, bytes: [u8; 4]) -> Self {
        Self(self.0 + u64::from(u32::from_ne_bytes(bytes)))
    }

    /// The checksum after the change: ~(~HC + ~m + m'), RFC 1624 eqn. 3.
    #[inline(always)]
    pub fn apply(self, checksum: U16) -> U16 {
        complement(self.0 + u64::from(!raw(checksum)))
    }
}

/// The sum of all that a checksum covers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// 16 bits more.
    #[inline(always)]
    #[must_use]
    pub fn word(self, word: U16) -> Self {
        Self(self.0 + u64::from(raw(word)))
    }

    /// 32 bits more.
    #[inline(always)]
    #[must_use]
    pub fn long(self, long: U32) -> Self {
        Self(self.0 + u64::from(u32::from_ne_bytes(long.to_bytes())))
    }

    /// An address more. What stands before an IPv4 address in its words is `ff ff`, which in one's
    /// complement arithmetic is nothing.
    #[inline(always)]
    #[must_use]
    pub fn address(self, address: Address) -> Self {
        let mut sum = self.0;
        for word in address.words {
            sum += (word & 0xffff_ffff) + (word >> 32);
        }
        Self(sum)
    }

    /// What TCP and `ICMPv6` cover of the IP header (RFC 9293 §3.1, RFC 8200 §8.1).
    #[inline(always)]
    #[must_use]
    pub fn pseudo_header(
        self,
        source: Address,
        destination: Address,
        protocol: u8,
        length_bytes: u16,
    ) -> Self {
        self.address(source)
            .address(destination)
            .word(U16::from_bytes([0, protocol]))
            .word(U16::new(length_bytes))
    }

    /// So many bytes of the frame, a multiple of 4 and at most [`crate::answer::QUOTE_BYTES`].
    ///
    /// VERIFIER: the sum is forgotten in each turn, or every turn has a state of its own.
    #[inline(always)]
    #[must_use]
    pub fn bytes<F: Frame, T: Tables>(
        self,
        frame: &F,
        at: Offset,
        length_bytes: u16,
        tables: &T,
    ) -> Self {
        let mut sum = self.0;
        let mut done = 0;
        while done < crate::answer::QUOTE_BYTES {
            if done >= length_bytes {
                break;
            }
            let Some(place) = at.plus_in_quote(done) else {
                break;
            };
            let Some(word) = frame.get::<native_endian::U32>(place) else {
                break;
            };
            sum = tables.forget(sum + u64::from(word.get()), self.0);
            done += 4;
        }
        Self(sum)
    }

    /// The checksum.
    #[inline(always)]
    pub fn finish(self) -> U16 {
        complement(self.0)
    }
}

/// A sum's complement in 16 bits.
#[inline(always)]
fn complement(sum: u64) -> U16 {
    let mut sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    let [a, b, ..] = (!sum).to_le_bytes();
    U16::from_bytes(u16::from_le_bytes([a, b]).to_ne_bytes())
}

/// Whether the sum of all 4-byte words under a checksum, itself among them, is the one of intact
/// bytes: all ones.
#[inline(always)]
pub const fn is_right(sum: u64) -> bool {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum == 0xffff
}

/// A word as it stands in memory.
#[inline(always)]
fn raw(word: U16) -> u16 {
    u16::from_ne_bytes(word.to_bytes())
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// RFC 1071, as plainly as it can be written.
    fn sum(bytes: &[u8]) -> U16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([
                pair[0],
                pair.get(1).copied().unwrap_or(0),
            ]));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        U16::new(!u16::try_from(sum).unwrap())
    }

    /// The two zeros of one's complement arithmetic are the same number.
    fn same(a: U16, b: U16) -> bool {
        a == b
            || [a, b]
                .iter()
                .all(|sum| sum.get() == 0 || sum.get() == 0xffff)
    }

    proptest! {
        #[test]
        fn an_adjusted_checksum_is_the_one_computed_anew(
            old: [u8; 16], new: [u8; 16], ports: (u16, u16), rest: Vec<u8>,
        ) {
            let bytes = |address: &[u8], port: u16| {
                [address, &port.to_be_bytes(), &rest].concat()
            };
            let (old, new): ([u8; 16], [u8; 16]) = (old, new);
            let before = sum(&bytes(&old, ports.0));
            let after = sum(&bytes(&new, ports.1));
            let change = Change::default()
                .address(Address::from_v6_bytes(old), Address::from_v6_bytes(new))
                .word(U16::new(ports.0), U16::new(ports.1));
            prop_assert!(same(change.apply(before), after));
        }
    }
}
