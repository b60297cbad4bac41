//! Fragmented datagrams: only the first fragment has ports, so it leaves a record by which the later
//! ones find its way.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{address::Address, listener::ListenerId, target::TargetId, tick::Tick};

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

/// What a first fragment leaves for the later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FragmentRecord {
    /// target (low 32 bits), listener (32–47), tick of the first fragment (48–63)
    choice: u64,
    /// identification (low 32 bits), way (32–39)
    datagram: u64,
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
        }
    }

    /// Whether this is a datagram's record, and the first fragment is not too long ago.
    ///
    /// The identification is compared because the kernel may give an element of the table to
    /// another datagram while it is read.
    #[inline(always)]
    pub const fn is_for(&self, key: &FragmentKey, now: Tick) -> bool {
        self.datagram & 0xffff_ffff == key.identification as u64
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
