//! Translated sources: the pool of our own addresses, which flow has which (address, port) of it,
//! and how an answer finds the flow.
//!
//! A flow entry is full, so what its source becomes stands in an array beside the flow table: one
//! word for each entry, under the entry's number ([`Translations`]). That is the truth. An answer
//! comes to a (target, pool address and port) and looks for the entry in [`SourceBucket`]s: words
//! that name an entry and carry a part of the hash of what the entry says that it owns. A word whose
//! entry says otherwise is nobody's, and may be taken. So nothing need be deleted when a flow ends.
//!
//! One (pool address, port) serves at the same time towards every (target, port, protocol).

use zerocopy::big_endian::U16;

use crate::{address::Address, flow::WAYS, word::Word};

/// Addresses of a pool, those among them that only old flows use, and the unused number 0.
pub const MAX_SOURCES: usize = 128;

/// Turns that the addresses of one IP version take with new flows.
pub const TURNS: usize = 64;

/// The first port of a pool address that is given to flows; below are those of services.
pub const FIRST_PORT: u16 = 1024;

/// How many ports a pool address has for each target.
pub const PORTS: u32 = 65_536 - FIRST_PORT as u32;

/// Words of a [`SourceBucket`].
pub const CLAIMS: usize = 8;

/// Names a pool address. 0 is never valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct SourceId(pub u8);

/// The pool.
#[derive(Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)]
#[repr(C, align(64))]
pub struct Pool {
    /// By [`SourceId`]; written while no flow and no turn names it.
    addresses: [[Word; 2]; MAX_SOURCES],
    /// Whose turn it is, for IPv4 and for IPv6: a [`SourceId`], 0 if there is none.
    turns: [[Word; TURNS]; 2],
}

impl Default for Pool {
    fn default() -> Self {
        zerocopy::FromZeros::new_zeroed()
    }
}

impl Pool {
    /// Gives a number to an address.
    pub fn write(&self, id: SourceId, address: Address) {
        if let Some([first, second]) = self.addresses.get(usize::from(id.0)) {
            first.store(address.words[0]);
            second.store(address.words[1]);
        }
    }

    /// The address under a number; `::` if there is none.
    #[inline(always)]
    pub fn address(&self, id: SourceId) -> Address {
        // Masked for the verifier; no larger number is ever given.
        match self.addresses.get(usize::from(id.0) & (MAX_SOURCES - 1)) {
            Some([first, second]) => Address {
                words: [first.load(), second.load()],
            },
            None => Address::UNSPECIFIED,
        }
    }

    /// Lets these addresses, all of one IP version, take turns with new flows.
    pub fn set_turns(&self, is_v4: bool, ids: &[SourceId]) {
        let turns = ids.iter().map(|id| u64::from(id.0)).cycle();
        // Without an address `cycle` ends at once.
        let turns = turns.chain(core::iter::repeat(0));
        for (word, id) in self.turns_of(is_v4).iter().zip(turns) {
            word.store(id);
        }
    }

    /// Whose turn it is.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "as it was written")]
    pub fn turn(&self, is_v4: bool, number: usize) -> Option<SourceId> {
        let id = self.turns_of(is_v4).get(number & (TURNS - 1))?.load() as u8;
        if id == 0 { None } else { Some(SourceId(id)) }
    }

    #[inline(always)]
    const fn turns_of(&self, is_v4: bool) -> &[Word; TURNS] {
        let [v4, v6] = &self.turns;
        if is_v4 { v4 } else { v6 }
    }

    /// All addresses that have a number.
    pub fn all(&self) -> impl Iterator<Item = (SourceId, Address)> {
        (0..=u8::MAX)
            .zip(&self.addresses)
            .map(|(id, _)| (SourceId(id), self.address(SourceId(id))))
            .filter(|(_, address)| *address != Address::UNSPECIFIED)
    }
}

/// Names an entry of the flow table: its bucket's number times [`WAYS`], and its place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct EntryNumber(pub u32);

impl EntryNumber {
    /// The entry in this place of a bucket.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "below WAYS")]
    pub const fn new(bucket: u32, way: u64) -> Self {
        Self(bucket * WAYS as u32 + (way as u32 & (WAYS as u32 - 1)))
    }

    /// The number in the lower half of a word.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "takes the word apart")]
    pub const fn of_word(word: u64) -> Self {
        Self(word as u32)
    }

    /// The bucket.
    #[inline(always)]
    pub const fn bucket(self) -> u32 {
        self.0 >> WAYS.trailing_zeros()
    }

    /// The place in it.
    #[inline(always)]
    pub const fn way(self) -> u64 {
        self.0 as u64 & (WAYS as u64 - 1)
    }
}

/// What the source of a flow becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The address.
    pub source: SourceId,
    /// The port.
    pub port: U16,
    /// Half of the hash of all that the flow owns: target, pool address, both ports, protocol.
    pub tag: u32,
}

impl Translation {
    /// As a word.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        let port = u16::from_ne_bytes(self.port.to_bytes());
        self.source.0 as u64 | (port as u64) << 8 | (self.tag as u64) << 32
    }

    /// Of a word; nonsense for the word of an entry whose flow is not translated.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "takes the word apart")]
    pub const fn of_word(word: u64) -> Self {
        Self {
            source: SourceId(word as u8),
            port: U16::from_bytes(((word >> 8) as u16).to_ne_bytes()),
            tag: (word >> 32) as u32,
        }
    }
}

/// A [`Translation`] for each entry of a bucket of the flow table.
#[derive(Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)]
#[repr(C, align(32))]
pub struct Translations {
    /// In the entries' order.
    pub entries: [Word; WAYS],
}

/// Who may own what one hash leads to: a cache line.
#[derive(Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)]
#[repr(C, align(64))]
pub struct SourceBucket {
    /// [`Claim`]s, 0 for none.
    pub claims: [Word; CLAIMS],
}

/// A word that says which entry to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The entry.
    pub entry: EntryNumber,
    /// The entry's [`Translation::tag`], if the claim is still good.
    pub tag: u32,
}

impl Claim {
    /// The word of no claim.
    pub const NONE: u64 = 0;

    /// As a word, which is never [`Self::NONE`].
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        (self.entry.0 as u64 + 1) | (self.tag as u64) << 32
    }

    /// Of a word that is not [`Self::NONE`].
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "takes the word apart")]
    pub const fn of_word(word: u64) -> Self {
        Self {
            entry: EntryNumber((word as u32).wrapping_sub(1)),
            tag: (word >> 32) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use core::net::IpAddr;

    use super::*;

    #[test]
    fn addresses_of_each_version_take_turns_among_themselves() {
        let pool = Pool::default();
        assert_eq!(pool.turn(true, 0), None);
        let address = Address::from(IpAddr::from([192, 0, 2, 1]));
        pool.write(SourceId(3), address);
        pool.set_turns(true, &[SourceId(3), SourceId(5)]);
        assert_eq!(pool.turn(true, 0), Some(SourceId(3)));
        assert_eq!(pool.turn(true, 63), Some(SourceId(5)));
        assert_eq!(pool.turn(true, 64), Some(SourceId(3)));
        assert_eq!(pool.turn(false, 0), None);
        assert_eq!(pool.address(SourceId(3)), address);
        assert!(pool.all().eq([(SourceId(3), address)]));
        pool.set_turns(true, &[]);
        assert_eq!(pool.turn(true, 7), None);
    }

    #[test]
    fn words_hold_what_was_put_into_them() {
        let translation = Translation {
            source: SourceId(127),
            port: U16::new(0xfedc),
            tag: 0x89ab_cdef,
        };
        assert_eq!(Translation::of_word(translation.to_word()), translation);
        let claim = Claim {
            entry: EntryNumber::new(0, 0),
            tag: 0,
        };
        assert_ne!(claim.to_word(), Claim::NONE);
        assert_eq!(Claim::of_word(claim.to_word()), claim);
        let entry = EntryNumber::new((1 << 26) - 1, 3);
        assert_eq!((entry.bucket(), entry.way()), ((1 << 26) - 1, 3));
    }
}
