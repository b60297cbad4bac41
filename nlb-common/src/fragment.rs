//! Fragmented datagrams: only the first fragment has ports, so it leaves a record by which the later
//! ones find its way.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{address::Address, listener::ListenerId, target::TargetId, tick::Tick, word::Word};

/// How long later fragments may follow their first.
///
/// RFC 8200 §4.5 gives a receiver 60 s to put a packet together, Linux 30 s (IPv4) and 60 s (IPv6).
/// The shorter time, because sixteen bits of identification are soon used again (RFC 6864 §5.3).
pub const LIFE_TICKS: u16 = Tick::at_least_seconds(30);

/// What all fragments of one datagram have in common (RFC 791 §3.2, RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FragmentKey {
    /// Where the datagram comes from, as it came in.
    pub source: Address,
    /// Where it goes, as it came in.
    pub destination: Address,
    /// The sender's number for the datagram: 16 bits in IPv4, 32 in IPv6.
    pub identification: u32,
    /// The IP protocol in the low eight bits; 0 for IPv6, where fragments need not agree about it.
    pub protocol: u32,
}

/// Which way a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From a client to a target.
    ToTarget,
    /// From a translated target to a client.
    ToClient,
    /// Back to its sender: an echo request to a VIP, which is answered from here.
    Echo,
}

/// What becomes of the fragments of a datagram that is translated, besides what their way says.
///
/// What several senders sent, or what one sender sent to several, has one sender and one receiver then:
/// the answers of a VIP's targets to one client, all clients' datagrams behind a source of ours, one
/// client's to several VIPs of one target. It is told apart by its numbers only. Those that the senders
/// chose may be the same, and two datagrams would be put together as one; so all fragments of a datagram
/// get another number (RFC 6864 §5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disguise {
    /// To the target the source becomes this, to the client the destination; perhaps what it was.
    pub address: Address,
    /// What the identification becomes: 16 bits in IPv4, 32 in IPv6.
    pub identification: u32,
}

/// Counters that numbers are taken from.
pub const COUNTERS: usize = 256;

/// The numbers that datagrams are given: each counter those of the senders and receivers that a hash
/// leads to it, so that sixteen bits last longer.
#[derive(Debug, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Identifications {
    /// How many numbers each has given.
    pub counters: [Word; COUNTERS],
}

impl Default for Identifications {
    fn default() -> Self {
        zerocopy::FromZeros::new_zeroed()
    }
}

impl Identifications {
    /// The counter that a hash leads to.
    #[inline(always)]
    pub fn counter(&self, hash: u32) -> Option<&Word> {
        self.counters.get(hash as usize & (COUNTERS - 1))
    }

    /// The number that follows from a count: as many begin elsewhere as there are senders and
    /// receivers, so that nobody else can tell what the next one will be (RFC 7739 §5.3).
    #[inline(always)]
    pub const fn number(count: u32, hash: u64, is_v4: bool) -> u32 {
        let [.., a, b, c, d] = hash.to_le_bytes();
        let number = count.wrapping_add(u32::from_le_bytes([a, b, c, d]));
        if is_v4 { number & 0xffff } else { number }
    }
}

/// What a first fragment leaves for the later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FragmentRecord {
    /// target (low 32 bits), listener (32–47), tick of the first fragment (48–63)
    choice: u64,
    /// identification (low 32 bits), way (32–39)
    datagram: u64,
    /// [`Disguise::address`], or `::`
    address: Address,
    /// [`Disguise::identification`] (low 32 bits), [`Self::seal`] (32–63)
    number: u64,
}

impl FragmentRecord {
    /// The record of a datagram.
    #[inline(always)]
    pub const fn new(
        key: &FragmentKey,
        listener: ListenerId,
        target: TargetId,
        way: Way,
        now: Tick,
    ) -> Self {
        let number = match way {
            Way::ToTarget => 0,
            Way::ToClient => 1,
            Way::Echo => 2,
        };
        Self {
            choice: target.0 as u64 | (listener.0 as u64) << 32 | (now.0 as u64) << 48,
            datagram: key.identification as u64 | number << 32,
            address: Address::UNSPECIFIED,
            number: 0,
        }
        .sealed()
    }

    /// The same record of a datagram that arrives in disguise.
    #[inline(always)]
    #[must_use]
    pub const fn disguised(self, disguise: Disguise) -> Self {
        Self {
            address: disguise.address,
            number: disguise.identification as u64,
            ..self
        }
        .sealed()
    }

    /// What its fragments become besides, if anything.
    #[inline(always)]
    pub fn disguise(&self) -> Option<Disguise> {
        if self.address == Address::UNSPECIFIED {
            return None;
        }
        let [a, b, c, d, ..] = self.number.to_le_bytes();
        Some(Disguise {
            address: self.address,
            identification: u32::from_le_bytes([a, b, c, d]),
        })
    }

    /// The same record with a seal on what it says.
    #[inline(always)]
    const fn sealed(self) -> Self {
        let number = self.number & 0xffff_ffff;
        Self {
            number: number | (self.seal() as u64) << 32,
            ..self
        }
    }

    /// A sum over all that it says. (The multipliers are XXH64's.)
    #[inline(always)]
    const fn seal(&self) -> u32 {
        let [first, second] = self.address.words;
        let sum = self.choice.wrapping_mul(0x9E37_79B1_85EB_CA87)
            ^ self.datagram.wrapping_mul(0xC2B2_AE3D_27D4_EB4F)
            ^ first.wrapping_mul(0x1656_67B1_9E37_79F9)
            ^ second.wrapping_mul(0x85EB_CA77_C2B2_AE63)
            ^ (self.number & 0xffff_ffff).wrapping_mul(0x27D4_EB2F_1656_67C5);
        let [.., a, b, c, d] = sum.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    /// Whether this is a datagram's record, and the first fragment is not too long ago.
    ///
    /// The kernel may give an element of the table to another datagram while it is read. So the
    /// identification is compared, and what is part of one record and part of another has neither's
    /// seal.
    #[inline(always)]
    pub const fn is_for(&self, key: &FragmentKey, now: Tick) -> bool {
        self.datagram & 0xffff_ffff == key.identification as u64
            && self.number >> 32 == self.seal() as u64
            && now.since(self.seen()) <= LIFE_TICKS
    }

    /// When the first fragment was seen.
    #[inline(always)]
    pub const fn seen(&self) -> Tick {
        let [.., a, b] = self.choice.to_le_bytes();
        Tick(u16::from_le_bytes([a, b]))
    }

    /// The same record, its first fragment seen at another time.
    #[must_use]
    pub const fn seen_at(self, seen: Tick) -> Self {
        Self {
            choice: self.choice & u64::MAX >> 16 | (seen.0 as u64) << 48,
            ..self
        }
        .sealed()
    }

    /// The listener that the datagram belongs to.
    #[inline(always)]
    pub const fn listener(&self) -> ListenerId {
        let [_, _, _, _, a, b, ..] = self.choice.to_le_bytes();
        ListenerId(u16::from_le_bytes([a, b]))
    }

    /// The target that it goes to or comes from.
    #[inline(always)]
    pub const fn target(&self) -> TargetId {
        let [a, b, c, d, ..] = self.choice.to_le_bytes();
        TargetId(u32::from_le_bytes([a, b, c, d]))
    }

    /// Which way it goes.
    #[inline(always)]
    pub const fn way(&self) -> Way {
        let [_, _, _, _, number, ..] = self.datagram.to_le_bytes();
        match number {
            0 => Way::ToTarget,
            1 => Way::ToClient,
            _ => Way::Echo,
        }
    }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;

    fn key(identification: u32) -> FragmentKey {
        FragmentKey {
            source: Address::from(IpAddr::from([198, 51, 100, 7])),
            destination: Address::from(IpAddr::from([192, 0, 2, 10])),
            identification,
            protocol: 17,
        }
    }

    #[test]
    fn a_record_reads_back_what_was_written() {
        for way in [Way::ToTarget, Way::ToClient, Way::Echo] {
            let (listener, target) = (ListenerId(0xfedc), TargetId(0x89ab_cdef));
            let record = FragmentRecord::new(&key(u32::MAX), listener, target, way, Tick(0xf00d));
            assert_eq!(record.listener(), listener);
            assert_eq!(record.target(), target);
            assert_eq!(record.way(), way);
            assert_eq!(record.seen(), Tick(0xf00d));
            assert_eq!(record.seen_at(Tick(7)).seen(), Tick(7));
            assert_eq!(record.seen_at(Tick(7)).seen_at(Tick(0xf00d)), record);
            assert_eq!(record.disguise(), None);
            let disguise = Disguise {
                address: Address::from(IpAddr::from([192, 0, 2, 50])),
                identification: 0xfeed_f00d,
            };
            let disguised = record.disguised(disguise);
            assert_eq!(disguised.disguise(), Some(disguise));
            assert_eq!(disguised.way(), way);
        }
    }

    #[test]
    fn a_record_that_is_part_of_one_and_part_of_another_is_nobodys() {
        let record = |last, target, tick| {
            let disguise = Disguise {
                address: Address::from(IpAddr::from([192, 0, 2, last])),
                identification: u32::from(last),
            };
            let way = Way::ToTarget;
            FragmentRecord::new(&key(9), ListenerId(1), TargetId(target), way, Tick(tick))
                .disguised(disguise)
        };
        let [old, new] = [record(50, 1, 100), record(51, 2, 101)];
        let bytes = |record: &FragmentRecord| -> [u8; 40] { zerocopy::transmute!(*record) };
        for words in 0..=5 {
            let mut torn = bytes(&old);
            torn[..8 * words].copy_from_slice(&bytes(&new)[..8 * words]);
            let torn: FragmentRecord = zerocopy::transmute!(torn);
            let is_whole = torn == old || torn == new;
            assert_eq!(torn.is_for(&key(9), Tick(101)), is_whole, "{words} words");
        }
    }

    #[test]
    fn numbers_do_not_repeat_before_all_were_given() {
        for hash in [0, 0x1234_ffff_0000_0001, u64::MAX] {
            let mut given = [0u64; 1 << 10];
            for count in 0..1 << 16 {
                let number = Identifications::number(count, hash, true) as usize;
                let (word, bit) = (&mut given[number / 64], 1 << (number % 64));
                assert!(*word & bit == 0, "{number}");
                *word |= bit;
            }
        }
    }

    #[test]
    fn a_record_is_one_datagrams_and_for_a_while_only() {
        let record = FragmentRecord::new(
            &key(9),
            ListenerId(1),
            TargetId(1),
            Way::ToTarget,
            Tick(100),
        );
        assert!(record.is_for(&key(9), Tick(100)));
        assert!(record.is_for(&key(9), Tick(100 + LIFE_TICKS)));
        assert!(!record.is_for(&key(9), Tick(101 + LIFE_TICKS)));
        assert!(!record.is_for(&key(8), Tick(100)));
    }
}
