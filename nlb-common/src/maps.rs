//! Every map: its name, what it holds, and the version of all that together.
//!
//! | map | key → value | written by | read by |
//! |---|---|---|---|
//! | `PREFILTER` | – → bitmap of endpoints that may be ours | daemon | every packet |
//! | `LISTENER_INDEX` | [`ListenerKey`](crate::listener::ListenerKey) → listener id | daemon | a flow's first packet |
//! | `LISTENERS` | listener id → [`Listener`](crate::listener::Listener) | daemon | packet |
//! | `ADMISSION` | listener id → [`Admission`](crate::admission::Admission) | daemon; packet: its counts | a flow's first packet |
//! | `RULES` | listener id → longest prefix of a source → admitted or blocked, replaced whole | daemon | a flow's first packet |
//! | `ADMISSION_SOURCES` | [`Source`](crate::admission::Source) → [`SourceRecord`](crate::admission::SourceRecord), least recently used out first | a flow's first packet; daemon: its flows | a flow's first packet |
//! | `RINGS` | target group id → [`Ring`](crate::ring::Ring), changed slot by slot | daemon | a flow's first packet; each of a listener that pins on change |
//! | `RING_BASES` | target group id → [`Ring`](crate::ring::Ring) of targets that flows had before a slot changed, the same; first | daemon | packet of a slot that has changed |
//! | `LISTENER_HINTS` | – → [`Hints`] | daemon | packet, if any listener pins on change |
//! | `TARGETS` | target id → [`Target`](crate::target::Target) | daemon | packet |
//! | `TUNNELS` | target group id → [`TunnelSlot`](crate::tunnel::TunnelSlot) | daemon | packet in a tunnel mode |
//! | `NEXT_HOPS` | next hop id → [`NextHopSlot`](crate::next_hop::NextHopSlot) | daemon | packet |
//! | `NEXT_HOP_INDEX` | [`NeighbourKey`](crate::next_hop::NeighbourKey) → next hop id | daemon | a flow's first answer |
//! | `VLAN_LINKS` | VLAN interface's index → [`VlanLink`](crate::next_hop::VlanLink) | daemon | a flow's first answer |
//! | `SERVER_IDS` | [`ServerIdKey`](crate::quic::ServerIdKey) → target id | daemon | a packet for a QUIC listener |
//! | `FLOWS` | bucket → [`Bucket`](crate::flow::Bucket) | packet | packet, daemon |
//! | `SPILLS` | near bucket → when one of its flows last found no room there ([`spilled`](crate::flow::spilled)) | packet; daemon: takes old ones away | packet |
//! | `FRAGMENTS` | [`FragmentKey`](crate::fragment::FragmentKey) → [`FragmentRecord`](crate::fragment::FragmentRecord), least recently used out first | packet | packet |
//! | `IDENTIFICATIONS` | – → [`Identifications`](crate::fragment::Identifications) | packet | a fragment with a translated source |
//! | `TRANSLATIONS` | the same → [`Translations`](crate::source::Translations) | packet | packet, daemon |
//! | `SOURCES` | hash of what a flow owns → [`SourceBucket`](crate::source::SourceBucket) | packet | packet |
//! | `SEQUENCES` | bucket → [`Sequences`](crate::sequence::Sequences) | packet | packet |
//! | `SNAT_POOL` | – → [`Pool`](crate::source::Pool) | daemon | packet |
//! | `LISTENER_COUNTERS`, `TARGET_COUNTERS` | id → [`Traffic`](crate::counter::Traffic) per CPU | packet | daemon |
//! | `STOP_COUNTERS` | [`Stop`](crate::stop::Stop) → u64 per CPU | packet | daemon |
//! | `EVENTS` | ring buffer of [`Event`](crate::event::Event) | packet | daemon |
//! | `EARLY` | ring buffer of [`EarlyFragment`](crate::early::EarlyFragment) | packet | daemon |
//! | `HANDOVER` | – → u64 per CPU, what one stage tells the next, such as an [`Answer`](crate::answer::Answer) | packet | packet |
//! | `ERROR_BUDGET` | – → [`ErrorBudget`](crate::answer::ErrorBudget) per CPU | packet | packet |
//! | `HEADER` | – → [`Header`] | daemon | daemon |

use zerocopy::big_endian::U16;

use crate::{address::Address, listener::ListenerId, word::Word};

/// Changes with the layout or the meaning of any map. A daemon adopts pinned maps only if they
/// have its own version.
pub const LAYOUT_VERSION: u64 = 6;

/// Words of the prefilter's bitmap: 65,536 bits, 8 KiB, which stay in the first-level cache.
pub const PREFILTER_WORDS: usize = 1024;

/// Next hops: as many as an id can name.
pub const MAX_NEXT_HOPS: u32 = 1 << 16;
/// Fragmented datagrams that are remembered at a time.
pub const MAX_FRAGMENTS: u32 = 1 << 13;
/// VLAN interfaces: as many as one carrier can have.
pub const MAX_VLAN_LINKS: u32 = 1 << 12;
/// Entries of `SERVER_IDS` for each target record: a target's number stands there once for each
/// ring that leads to it.
pub const SERVER_IDS_PER_TARGET: u32 = 4;
/// Bytes of the events' ring buffer.
pub const EVENT_BYTES: u32 = 1 << 16;

/// The bitmap of endpoints that may be ours.
///
/// A packet looks for its destination (does it go to a VIP?) and its source (does it come from a
/// translated target?). All bits of an address are in one word: where that is zero nothing of the
/// address is ours, whatever else the packet says. Addresses as such, for packets without ports, are
/// there with port and protocol 0. A clear bit is an answer; a set bit means that it is worth
/// looking. Bits are set before and cleared after what they stand for.
///
/// Not keyed: whoever aims at a bit gains no more than a look at the tables.
#[derive(Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)]
#[repr(C)]
pub struct Prefilter {
    /// The bits.
    pub words: [Word; PREFILTER_WORDS],
}

/// Which end of a packet an endpoint is looked for at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A listener, looked for in the destination.
    Listener,
    /// A target whose answers are translated, looked for in the source.
    Target,
    /// What decapsulates on a target, looked for in packets that ICMP errors quote: with the outer
    /// header's protocol, and its port where that is UDP.
    Tunnel,
}

/// Where the bits of an address are in the [`Prefilter`].
#[derive(Clone, Copy, Debug)]
pub struct AddressBits(u64);

impl AddressBits {
    /// Those of an address at one side.
    #[inline(always)]
    pub const fn of(side: Side, address: Address) -> Self {
        let salt = match side {
            Side::Listener => 0,
            Side::Target => 1 << 17,
            Side::Tunnel => 1 << 18,
        };
        let folded = address.words[1] ^ address.words[0].rotate_left(23);
        Self((folded ^ salt).wrapping_mul(0xC2B2_AE3D_27D4_EB4F))
    }

    /// Their word's index, below [`PREFILTER_WORDS`].
    #[inline(always)]
    pub const fn word(self) -> usize {
        self.number_of_word() as usize
    }

    #[inline(always)]
    const fn number_of_word(self) -> u16 {
        (self.0 >> 48) as u16 >> (u16::BITS - PREFILTER_WORDS.ilog2())
    }

    /// The bit of an endpoint with this address.
    #[inline(always)]
    pub const fn mask(self, protocol: u8, port: U16) -> u64 {
        1 << self.bit(protocol, port)
    }

    /// The bit's place in its word.
    #[inline(always)]
    const fn bit(self, protocol: u8, port: U16) -> u16 {
        let meta = u16::from_ne_bytes(port.to_bytes()) as u64 | (protocol as u64) << 16;
        ((self.0 ^ meta).wrapping_mul(0x9E37_79B1_85EB_CA87) >> 58) as u16
    }
}

const _: () = assert!(
    PREFILTER_WORDS.is_power_of_two(),
    "an index is so many bits"
);

impl Prefilter {
    /// The bit of an endpoint: `(word, mask)`.
    pub const fn bit(side: Side, address: Address, protocol: u8, port: U16) -> (usize, u64) {
        let bits = AddressBits::of(side, address);
        (bits.word(), bits.mask(protocol, port))
    }

    /// The number of an endpoint's bit.
    #[inline(always)]
    pub const fn number(side: Side, address: Address, protocol: u8, port: U16) -> u16 {
        let bits = AddressBits::of(side, address);
        bits.number_of_word() << 6 | bits.bit(protocol, port)
    }

    /// The word of an address; zero if nothing of it may be ours.
    #[inline(always)]
    pub fn word(&self, bits: AddressBits) -> u64 {
        // VERIFIER: no index is larger, which it sees.
        self.words
            .get(bits.word() & (PREFILTER_WORDS - 1))
            .map_or(0, Word::load)
    }

    /// Whether an endpoint may be ours.
    #[inline(always)]
    pub fn admits(&self, side: Side, address: Address, protocol: u8, port: U16) -> bool {
        let bits = AddressBits::of(side, address);
        self.word(bits) & bits.mask(protocol, port) != 0
    }
}

/// Listeners' ids by the number of their endpoint's bit in the [`Prefilter`]; 0 where there is none.
///
/// A way to a listener's record that costs one load. It is a guess, which the record confirms or
/// refutes: of two endpoints with one number only one has its listener here.
#[derive(Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)]
#[repr(C)]
pub struct Hints {
    /// Four ids each.
    pub words: [Word; HINT_WORDS],
}

/// Words of [`Hints`].
pub const HINT_WORDS: usize = 1 << 14;

impl Hints {
    /// Where a number's id stands: the word, and how far to shift it.
    #[inline(always)]
    pub const fn place(number: u16) -> (usize, u32) {
        ((number >> 2) as usize, (number as u32 & 3) * 16)
    }

    /// The listener under a number; id 0 if there is none.
    pub fn get(&self, number: u16) -> ListenerId {
        let (word, shift) = Self::place(number);
        let ids = self.words.get(word).map_or(0, Word::load);
        ListenerId(u16::try_from(ids >> shift & 0xffff).unwrap_or(0))
    }

    /// Puts a listener under a number; id 0 for none.
    pub fn set(&self, number: u16, id: ListenerId) {
        let (word, shift) = Self::place(number);
        if let Some(word) = self.words.get(word) {
            word.store(word.load() & !(0xffff << shift) | u64::from(id.0) << shift);
        }
    }
}

/// What a daemon must know about maps that it finds pinned.
#[derive(Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)]
#[repr(C)]
pub struct Header {
    /// [`LAYOUT_VERSION`] of the daemon that made the maps; 0 until they are complete.
    pub layout_version: Word,
    /// The generation of the configuration that is live.
    pub generation: Word,
    /// The secret that the flow table's key is derived from: it must survive with the table.
    pub table_secret: [Word; 4],
    /// Zero.
    pub zero: [Word; 2],
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;

    #[test]
    fn an_endpoints_bit_depends_on_all_of_it_and_lies_in_the_map() {
        let address = Address::from(IpAddr::from([192, 0, 2, 1]));
        let bit = Prefilter::bit(Side::Listener, address, 6, U16::new(80));
        assert!(bit.0 < PREFILTER_WORDS);
        assert_eq!(bit.1.count_ones(), 1);
        let other = Address::from(IpAddr::from([192, 0, 2, 2]));
        assert_ne!(bit, Prefilter::bit(Side::Target, address, 6, U16::new(80)));
        assert_ne!(bit, Prefilter::bit(Side::Tunnel, address, 6, U16::new(80)));
        assert_ne!(bit, Prefilter::bit(Side::Listener, other, 6, U16::new(80)));
        assert_ne!(
            bit,
            Prefilter::bit(Side::Listener, address, 17, U16::new(80))
        );
        assert_ne!(
            bit,
            Prefilter::bit(Side::Listener, address, 6, U16::new(81))
        );
    }
}
