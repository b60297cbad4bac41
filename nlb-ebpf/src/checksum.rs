//! Internet checksums, adjusted for what changed (RFC 1624) and never computed anew: an error that
//! happened before us stays visible behind us.

use nlb_common::address::Address;
use zerocopy::big_endian::U16;

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

    /// The checksum after the change: ~(~HC + ~m + m'), RFC 1624 eqn. 3.
    #[inline(always)]
    pub fn apply(self, checksum: U16) -> U16 {
        let mut sum = self.0 + u64::from(!raw(checksum));
        sum = (sum & 0xffff_ffff) + (sum >> 32);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        let [a, b, ..] = (!sum).to_le_bytes();
        U16::from_bytes(u16::from_le_bytes([a, b]).to_ne_bytes())
    }
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
