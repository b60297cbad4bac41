//! A listener as packets know it: one (address, protocol, port) of a VIP.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, big_endian::U16};

use crate::{address::Address, quic::CidLayout, word::Word};

/// Names a listener's record. 0 is never valid, so an unwritten word is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct ListenerId(pub u16);

/// What a packet must be addressed to: the key of the listener index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ListenerKey {
    /// The VIP.
    pub address: Address,
    /// The port, 0 in [`ListenerKey::vip`].
    pub port: U16,
    /// The IP protocol number, 0 in [`ListenerKey::vip`].
    pub protocol: u8,
    /// No meaning; zero, because hash maps compare every byte.
    pub zero: [u8; 5],
}

impl ListenerKey {
    /// The key of a listener.
    #[inline(always)]
    pub const fn new(address: Address, protocol: u8, port: U16) -> Self {
        Self {
            address,
            port,
            protocol,
            zero: [0; 5],
        }
    }

    /// The key that says that an address is a VIP at all: fragments and ICMP have no port.
    #[inline(always)]
    pub const fn vip(address: Address) -> Self {
        Self::new(address, 0, U16::ZERO)
    }
}

/// A listener's record.
///
/// Written once per id before the index names it ([`Listener::write`]); afterwards only `policy`
/// and `cid_layout` change, by one store each. An id is never given to another key while the data plane lives.
#[derive(Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)]
#[repr(C, align(64))]
pub struct Listener {
    address: [Word; 2],
    /// port (raw, low 16 bits), protocol (bits 16–23), 1 in bit 24: written
    endpoint: Word,
    /// target group (low 16 bits), idle ticks (16–31), flags (32–47: hash input 32–33, stray segments
    /// 34–35, expired flows 36–37), MSS clamp (48–63)
    policy: Word,
    /// Room for what listeners will be able to do, zero.
    zero: [Word; 3],
    /// [`CidLayout`]; means nothing unless `policy` says that the listener is a QUIC one
    cid_layout: Word,
}

/// Bit of `endpoint` that says the record was written.
const WRITTEN: u64 = 1 << 24;

/// What becomes of a TCP segment that opens nothing and has no live flow; a wire number of two bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Stranded(pub u8);

impl Stranded {
    /// It goes where a flow of its addresses would go, and is remembered as one.
    pub const FORWARD: Self = Self(0);
    /// It is answered with an RST.
    pub const RESET: Self = Self(1);
    /// It is dropped.
    pub const DROP: Self = Self(2);
    /// It is answered with an RST; and the daemon sees to it that both ends get one when the flow's
    /// time runs out.
    pub const RESET_AT_EXPIRY: Self = Self(3);

    /// Whether it is answered with an RST.
    #[inline(always)]
    pub const fn resets(self) -> bool {
        // Both of them are odd.
        self.0 & Self::RESET.0 != 0
    }
}

/// What a listener does with flows, in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerPolicy {
    /// The ring that new flows choose from: a target group's, or the listener's own if it forwards
    /// to several.
    pub group: u16,
    /// How long an established flow may be silent, in ticks.
    pub idle_ticks: u16,
    /// What becomes of TCP segments of no known flow.
    pub stray: Stranded,
    /// What becomes of TCP segments of a flow whose idle time has run out, while it is remembered.
    pub expired: Stranded,
    /// The largest TCP maximum segment size that a SYN may name, in bytes; 0 for any.
    pub mss_clamp_bytes: u16,
    /// The rest.
    pub flags: ListenerFlags,
}

/// A listener's choices of one or two bits each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct ListenerFlags(u16);

/// What a new flow's choice of a target depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HashInput {
    /// Protocol, both addresses and both ports: a client that opens the same connection again gets
    /// the same target.
    #[default]
    FiveTuple,
    /// The same and a SYN's sequence number, as NLB has it.
    FiveTupleAndSequence,
    /// The client's address alone: NLB's `stickiness.type` `source_ip`.
    Source,
}

impl ListenerFlags {
    const HASH_INPUT: u16 = 0b11;
    const QUIC: u16 = 1 << 6;
    const HAS_ADMISSION: u16 = 1 << 7;
    const NO_ECHO: u16 = 1 << 8;
    const PINS_ON_CHANGE: u16 = 1 << 9;
    const SYN_COOKIES: u16 = 1 << 10;

    /// Answering SYNs with cookies, or not.
    #[inline(always)]
    #[must_use]
    pub const fn with_syn_cookies(self, is_on: bool) -> Self {
        let bit = if is_on { Self::SYN_COOKIES } else { 0 };
        Self(self.0 & !Self::SYN_COOKIES | bit)
    }

    /// Whether a SYN is answered with a cookie, and its flow begins when that has come back.
    #[inline(always)]
    pub const fn has_syn_cookies(self) -> bool {
        self.0 & Self::SYN_COOKIES != 0
    }

    /// Remembering flows always, or only while their ring changes.
    #[inline(always)]
    #[must_use]
    pub const fn with_pinning_on_change(self, is_on_change: bool) -> Self {
        let bit = if is_on_change {
            Self::PINS_ON_CHANGE
        } else {
            0
        };
        Self(self.0 & !Self::PINS_ON_CHANGE | bit)
    }

    /// Whether flows are remembered only while their ring changes.
    #[inline(always)]
    pub const fn pins_on_change(self) -> bool {
        self.0 & Self::PINS_ON_CHANGE != 0
    }

    /// With this answer to whether we answer echo requests to the VIP, if it is this listener that
    /// stands for it under [`ListenerKey::vip`].
    #[inline(always)]
    #[must_use]
    pub const fn with_echo(self, is_answered: bool) -> Self {
        if is_answered {
            Self(self.0 & !Self::NO_ECHO)
        } else {
            Self(self.0 | Self::NO_ECHO)
        }
    }

    /// Whether we answer echo requests to the VIP.
    #[inline(always)]
    pub const fn answers_echo(self) -> bool {
        self.0 & Self::NO_ECHO == 0
    }
    /// All bits but those that [`Stranded`] has in the same word.
    const OWN: u16 = !0b11_1100;

    /// With this input of the hash.
    #[inline(always)]
    #[must_use]
    pub const fn with_hash_input(self, input: HashInput) -> Self {
        Self(self.0 & !Self::HASH_INPUT | input as u16)
    }

    /// With or without a record of [`Admission`](crate::admission::Admission) that is asked.
    #[inline(always)]
    #[must_use]
    pub const fn with_admission(self, is_asked: bool) -> Self {
        let bit = if is_asked { Self::HAS_ADMISSION } else { 0 };
        Self(self.0 & !Self::HAS_ADMISSION | bit)
    }

    /// Whether a flow that begins is subject to rules or limits.
    #[inline(always)]
    pub const fn has_admission(self) -> bool {
        self.0 & Self::HAS_ADMISSION != 0
    }

    /// What a new flow's choice of a target depends on.
    #[inline(always)]
    pub const fn hash_input(self) -> HashInput {
        match self.0 & Self::HASH_INPUT {
            1 => HashInput::FiveTupleAndSequence,
            2 => HashInput::Source,
            _ => HashInput::FiveTuple,
        }
    }

    /// Looking for the server in QUIC connection IDs, or not.
    #[inline(always)]
    #[must_use]
    pub const fn with_quic(self, is_quic: bool) -> Self {
        if is_quic {
            Self(self.0 | Self::QUIC)
        } else {
            Self(self.0 & !Self::QUIC)
        }
    }

    /// Whether a packet's QUIC connection ID goes before what is remembered of its flow.
    #[inline(always)]
    pub const fn is_quic(self) -> bool {
        self.0 & Self::QUIC != 0
    }
}

impl Listener {
    /// Fills the record, the key first and the mark that it is whole last.
    pub fn write(&self, key: &ListenerKey, policy: ListenerPolicy) {
        self.set_policy(policy);
        self.address[0].store(key.address.words[0]);
        self.address[1].store(key.address.words[1]);
        let port = u64::from(u16::from_ne_bytes(key.port.to_bytes()));
        self.endpoint
            .store(port | u64::from(key.protocol) << 16 | WRITTEN);
    }

    /// Replaces what the listener does with its flows: one store.
    pub fn set_policy(&self, policy: ListenerPolicy) {
        let word = u64::from(policy.group)
            | u64::from(policy.idle_ticks) << 16
            | u64::from(policy.flags.0 & ListenerFlags::OWN) << 32
            | u64::from(policy.stray.0 & 3) << 34
            | u64::from(policy.expired.0 & 3) << 36
            | u64::from(policy.mss_clamp_bytes) << 48;
        self.policy.store(word);
    }

    /// Says how connection IDs are read; before `policy` says that they are.
    pub fn set_cid_layout(&self, layout: CidLayout) {
        self.cid_layout.store(layout.to_word());
    }

    /// How connection IDs are read.
    #[inline(always)]
    pub fn cid_layout(&self) -> Option<CidLayout> {
        CidLayout::of_word(self.cid_layout.load())
    }

    /// Takes the record out of use; only when no flow and no index entry names it any more.
    pub fn clear(&self) {
        self.endpoint.store(0);
    }

    /// The (address, protocol, port) if the record was written.
    #[inline(always)]
    pub fn key(&self) -> Option<ListenerKey> {
        let endpoint = self.endpoint.load();
        if endpoint & WRITTEN == 0 {
            return None;
        }
        let [a, b, protocol, ..] = endpoint.to_le_bytes();
        let port = U16::from_bytes(u16::from_le_bytes([a, b]).to_ne_bytes());
        Some(ListenerKey::new(self.address(), protocol, port))
    }

    /// The VIP.
    #[inline(always)]
    pub fn address(&self) -> Address {
        Address {
            words: [self.address[0].load(), self.address[1].load()],
        }
    }

    /// Whether this is the written record of exactly this endpoint: the packet path's comparison.
    #[inline(always)]
    pub fn is(&self, address: Address, protocol: u8, port: U16) -> bool {
        let endpoint =
            u64::from(u16::from_ne_bytes(port.to_bytes())) | u64::from(protocol) << 16 | WRITTEN;
        self.endpoint.load() == endpoint && self.address() == address
    }

    /// What the listener does with its flows.
    #[inline(always)]
    pub fn policy(&self) -> ListenerPolicy {
        let word = self.policy.load();
        let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
        ListenerPolicy {
            group: u16::from_le_bytes([a, b]),
            idle_ticks: u16::from_le_bytes([c, d]),
            stray: Stranded(e >> 2 & 3),
            expired: Stranded(e >> 4 & 3),
            mss_clamp_bytes: u16::from_le_bytes([g, h]),
            flags: ListenerFlags(u16::from_le_bytes([e, f]) & ListenerFlags::OWN),
        }
    }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;

    #[test]
    fn a_listener_reads_back_what_was_written() {
        let record = Listener::default();
        assert_eq!(record.key(), None);
        let key = ListenerKey::new(
            Address::from(IpAddr::from([192, 0, 2, 1])),
            6,
            U16::new(443),
        );
        let policy = ListenerPolicy {
            group: 7,
            idle_ticks: 327,
            stray: Stranded::RESET,
            expired: Stranded::DROP,
            mss_clamp_bytes: 1360,
            flags: ListenerFlags::default().with_hash_input(HashInput::Source),
        };
        record.write(&key, policy);
        assert_eq!(record.key(), Some(key));
        assert_eq!(record.policy(), policy);
        let quiet = ListenerPolicy { ..policy };
        record.set_policy(quiet);
        assert_eq!(record.policy(), quiet);
        assert!(record.is(key.address, 6, key.port));
        assert!(!record.is(key.address, 17, key.port));
        assert!(!record.is(key.address, 6, U16::new(444)));
    }

    #[test]
    fn every_hash_input_reads_back_and_replaces_the_one_before() {
        let mut flags = ListenerFlags::default().with_quic(true);
        assert_eq!(flags.hash_input(), HashInput::FiveTuple);
        for input in [
            HashInput::Source,
            HashInput::FiveTupleAndSequence,
            HashInput::FiveTuple,
        ] {
            flags = flags.with_hash_input(input);
            assert_eq!(flags.hash_input(), input);
            assert!(flags.is_quic());
        }
        assert!(!flags.with_quic(false).is_quic());
    }
}
