//! The flow table: what is remembered of each flow, 32 bytes exact, in buckets of two cache lines.
//!
//! One entry serves both directions of a translated flow. It is found by the client's endpoint
//! alone: the bucket comes from a hash of (client address, client port, protocol), which a packet
//! from the client carries as its source and a packet from the target as its destination. The VIP
//! is then compared through the listener's record and the target through the target's record. So
//! there is one insertion per flow, one state, one time-out, and two flows of a client's port to
//! different VIPs lie in the same bucket, where a collision between them at a target can be seen.

use core::sync::atomic::{
    AtomicU8, AtomicU16, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use zerocopy::{FromBytes, IntoBytes, KnownLayout, big_endian::U16};

use crate::{
    address::Address,
    listener::ListenerId,
    next_hop::{Epoch, NextHopId},
    target::TargetId,
    tick::Tick,
};

/// Entries of a bucket.
pub const WAYS: usize = 4;

/// What was decided when the flow began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Where the flow goes.
    pub target: TargetId,
    /// Which listener it came to.
    pub listener: ListenerId,
    /// The way back to the client; [`NextHopId::NONE`] until a packet has asked the routes.
    pub next_hop: NextHopId,
}

impl Choice {
    /// The word of an entry that holds no flow.
    pub const EMPTY: u64 = 0;
    /// The word of an entry that is being filled.
    pub const BUSY: u64 = u64::MAX;

    /// The choice as an entry's word.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        self.target.0 as u64 | (self.listener.0 as u64) << 32 | (self.next_hop.0 as u64) << 48
    }

    /// The choice in an entry's word; nonsense for [`Self::EMPTY`] and [`Self::BUSY`].
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "takes the word apart")]
    pub const fn of_word(word: u64) -> Self {
        Self {
            target: TargetId(word as u32),
            listener: ListenerId((word >> 32) as u16),
            next_hop: NextHopId((word >> 48) as u16),
        }
    }
}

/// How far a flow has come, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct FlowState(pub u8);

impl FlowState {
    /// Only the client's first packets were seen.
    pub const NEW: Self = Self(0);
    /// The target has answered.
    pub const ANSWERED: Self = Self(1);
    /// The client has gone on after the answer, or, where we do not see answers, after its first
    /// packet.
    pub const ESTABLISHED: Self = Self(2);
    /// The client has sent its FIN.
    pub const CLIENT_CLOSED: Self = Self(4);
    /// The target has sent its FIN.
    pub const TARGET_CLOSED: Self = Self(8);
    /// Either side has sent an RST.
    pub const RESET: Self = Self(16);

    /// Both.
    #[inline(always)]
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all bits of `other` are set.
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether nothing more is expected, so that a new SYN begins a new flow.
    #[inline(always)]
    pub const fn is_over(self) -> bool {
        self.has(Self::RESET) || self.has(Self(Self::CLIENT_CLOSED.0 | Self::TARGET_CLOSED.0))
    }

    /// Whether another flow may not take the entry's place while this one's time has not run out.
    #[inline(always)]
    pub const fn is_protected(self) -> bool {
        self.has(Self::ESTABLISHED) && !self.is_over()
    }

    /// After how many ticks of silence the flow is forgotten.
    #[inline(always)]
    pub const fn idle_ticks(self, established: u16) -> u16 {
        if self.is_over() {
            OVER_TICKS
        } else if self.0 & (Self::CLIENT_CLOSED.0 | Self::TARGET_CLOSED.0) != 0 {
            min(CLOSING_TICKS, established)
        } else if self.has(Self::ESTABLISHED) {
            established
        } else {
            min(OPENING_TICKS, established)
        }
    }
}

const fn min(a: u16, b: u16) -> u16 {
    if a < b { a } else { b }
}

/// A target must answer within 30 s (NLB: "establish a return path").
const OPENING_TICKS: u16 = Tick::count_of_seconds(30);
/// Half-closed connections may still carry data one way, but are not kept for hours.
const CLOSING_TICKS: u16 = Tick::count_of_seconds(120);
/// Long enough for the last acknowledgements.
const OVER_TICKS: u16 = Tick::count_of_seconds(10);

/// A remembered flow.
///
/// `choice` is both content and lock. Whoever wants to fill an entry swaps the word that it saw
/// there for [`Choice::BUSY`] (compare and swap), writes the rest, and stores the new choice last.
/// Whoever reads takes `choice`, compares the client, and takes `choice` again: if the two words
/// are equal, the client belongs to them.
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(C, align(32))]
pub struct FlowEntry {
    /// [`Choice`], or empty, or busy.
    pub choice: AtomicU64,
    client: [AtomicU64; 2],
    /// Raw, in network order.
    client_port: AtomicU16,
    last_seen: AtomicU16,
    epoch: AtomicU16,
    state: AtomicU8,
    protocol: AtomicU8,
}

/// Entries that one hash leads to: two cache lines that the processor fetches together.
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(C, align(64))]
pub struct Bucket {
    /// The entries, in no order.
    pub entries: [FlowEntry; WAYS],
}

/// A client's end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// Its address.
    pub address: Address,
    /// Its port.
    pub port: U16,
    /// The IP protocol.
    pub protocol: u8,
}

impl FlowEntry {
    /// The choice's word, if the entry holds a flow of this client.
    #[inline(always)]
    pub fn choice_for(&self, client: &Client) -> Option<u64> {
        if self.client[1].load(Relaxed) != client.address.words[1] {
            return None;
        }
        let word = self.choice.load(Acquire);
        if word == Choice::EMPTY || word == Choice::BUSY {
            return None;
        }
        if self.client[0].load(Relaxed) != client.address.words[0]
            || self.client[1].load(Relaxed) != client.address.words[1]
            || self.client_port.load(Relaxed) != u16::from_ne_bytes(client.port.to_bytes())
            || self.protocol.load(Relaxed) != client.protocol
            || self.choice.load(Acquire) != word
        {
            return None;
        }
        Some(word)
    }

    /// Fills an entry that the caller has made busy, and opens it.
    #[inline(always)]
    pub fn fill(&self, client: &Client, choice: Choice, state: FlowState, now: Tick) {
        self.client[0].store(client.address.words[0], Relaxed);
        self.client[1].store(client.address.words[1], Relaxed);
        self.client_port
            .store(u16::from_ne_bytes(client.port.to_bytes()), Relaxed);
        self.protocol.store(client.protocol, Relaxed);
        self.epoch.store(0, Relaxed);
        self.state.store(state.0, Relaxed);
        self.last_seen.store(now.0, Relaxed);
        self.choice.store(choice.to_word(), Release);
    }

    /// The client's end.
    pub fn client(&self) -> Client {
        Client {
            address: Address {
                words: [self.client[0].load(Relaxed), self.client[1].load(Relaxed)],
            },
            port: U16::from_bytes(self.client_port.load(Relaxed).to_ne_bytes()),
            protocol: self.protocol.load(Relaxed),
        }
    }

    /// How far the flow has come.
    #[inline(always)]
    pub fn state(&self) -> FlowState {
        FlowState(self.state.load(Relaxed))
    }

    /// Notes how far the flow has come; writes only what is new, to keep the cache line clean.
    #[inline(always)]
    pub fn set_state(&self, state: FlowState) {
        if self.state() != state {
            self.state.store(state.0, Relaxed);
        }
    }

    /// When a packet of the flow was last seen.
    #[inline(always)]
    pub fn last_seen(&self) -> Tick {
        Tick(self.last_seen.load(Relaxed))
    }

    /// Notes that a packet was seen; writes about once a second.
    #[inline(always)]
    pub fn touch(&self, now: Tick) {
        if self.last_seen() != now {
            self.last_seen.store(now.0, Relaxed);
        }
    }

    /// The epoch of the way back, as it was when the flow asked the routes.
    #[inline(always)]
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Relaxed))
    }

    /// Notes the epoch of the way back.
    #[inline(always)]
    pub fn set_epoch(&self, epoch: Epoch) {
        self.epoch.store(epoch.0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;

    fn client(port: u16) -> Client {
        Client {
            address: Address::from(IpAddr::from([198, 51, 100, 7])),
            port: U16::new(port),
            protocol: 6,
        }
    }

    const CHOICE: Choice = Choice {
        target: TargetId(70_000),
        listener: ListenerId(3),
        next_hop: NextHopId(9),
    };

    #[test]
    fn an_entry_is_found_by_its_client_only() {
        let entry = FlowEntry::default();
        assert_eq!(entry.choice_for(&client(1)), None);
        entry.fill(&client(1), CHOICE, FlowState::NEW, Tick(5));
        let word = entry.choice_for(&client(1)).unwrap();
        assert_eq!(Choice::of_word(word), CHOICE);
        assert_eq!(entry.choice_for(&client(2)), None);
        assert_eq!(
            entry.choice_for(&Client {
                protocol: 17,
                ..client(1)
            }),
            None
        );
        assert_eq!(entry.client(), client(1));
        assert_eq!(entry.last_seen(), Tick(5));
    }

    #[test]
    fn an_empty_or_busy_entry_is_nobodys_even_for_the_unspecified_address() {
        let entry = FlowEntry::default();
        let nobody = Client {
            address: Address::UNSPECIFIED,
            port: U16::ZERO,
            protocol: 0,
        };
        assert_eq!(entry.choice_for(&nobody), None);
        entry.choice.store(Choice::BUSY, Relaxed);
        assert_eq!(entry.choice_for(&nobody), None);
    }

    #[test]
    fn a_flow_is_protected_from_its_establishment_to_its_end() {
        let established = FlowState::ANSWERED.with(FlowState::ESTABLISHED);
        assert!(!FlowState::NEW.is_protected());
        assert!(!FlowState::ANSWERED.is_protected());
        assert!(established.is_protected());
        assert!(established.with(FlowState::CLIENT_CLOSED).is_protected());
        assert!(!established.with(FlowState::RESET).is_protected());
        let both = FlowState::CLIENT_CLOSED.with(FlowState::TARGET_CLOSED);
        assert!(!established.with(both).is_protected());
    }

    #[test]
    fn no_state_outlives_the_listeners_idle_timeout_by_being_closed_or_half_open() {
        for state in 0..32 {
            assert!(FlowState(state).idle_ticks(6000) <= 6000);
            assert!(FlowState(state).idle_ticks(100) <= 100);
        }
    }
}
