//! The flow table: what is remembered of each flow, 32 bytes exact, in buckets of two cache lines.
//!
//! One entry serves both directions of a translated flow. It is found by the client's endpoint
//! alone: the bucket comes from a hash of (client address, client port, protocol), which a packet
//! from the client carries as its source and a packet from the target as its destination. The VIP
//! is then compared through the listener's record and the target through the target's record. So
//! there is one insertion per flow, one state, one time-out, and two flows of a client's port to
//! different VIPs lie in the same bucket, where a collision between them at a target can be seen.

use zerocopy::big_endian::U16;

use crate::{
    address::Address,
    listener::ListenerId,
    next_hop::{Epoch, NextHopId},
    target::TargetId,
    tick::Tick,
    word::Word,
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
    /// The target sees an address and a port of ours, which stand in [`crate::source`]'s array.
    pub const SOURCE_TRANSLATED: Self = Self(32);

    /// The flow began before it was remembered, so that it is not half-open; what proves it is its
    /// next packet.
    pub const RESUMED: Self = Self(64);
    /// The client counts the target's bytes from a SYN cookie; the difference stands in
    /// [`crate::sequence`]'s array.
    pub const SEQUENCE_TRANSLATED: Self = Self(128);

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
        } else if self.0 & (Self::ESTABLISHED.0 | Self::RESUMED.0) != 0 {
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
const OPENING_TICKS: u16 = Tick::at_least_seconds(30);
/// Half-closed connections may still carry data one way, but are not kept for hours.
const CLOSING_TICKS: u16 = Tick::at_least_seconds(120);
/// Long enough for the last acknowledgements.
const OVER_TICKS: u16 = Tick::at_least_seconds(10);

/// What changes while a flow lives, next to the half of its key that fills the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// How far the flow has come.
    pub state: FlowState,
    /// When a packet of the flow was last seen.
    pub last_seen: Tick,
    /// The epoch of the way back, as it was when the flow asked the routes.
    pub epoch: Epoch,
    /// Client's port and protocol, as they stand in the word.
    endpoint: u32,
}

impl Progress {
    /// The IP protocol.
    #[inline(always)]
    pub const fn protocol(self) -> u8 {
        let [_, _, protocol, _] = self.endpoint.to_le_bytes();
        protocol
    }

    /// Whether the flow is one that goes on in this tick, so that a packet that opens and ends
    /// nothing has no news of it: what it answers to is there, and nothing else is.
    #[inline(always)]
    pub const fn goes_on(self, now: Tick) -> bool {
        self.state.0 & !FlowState::ANSWERED.0 == FlowState::ESTABLISHED.0
            && self.last_seen.0 == now.0
    }

    /// Whether both are of flows with the same client's port and protocol.
    #[inline(always)]
    pub const fn is_of_same_endpoint(self, other: Self) -> bool {
        self.endpoint == other.endpoint
    }

    /// The progress of no flow.
    pub const NONE: Self = Self::of_word(0);

    /// The progress as an entry's word.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        self.endpoint as u64
            | (self.state.0 as u64) << 24
            | (self.last_seen.0 as u64) << 32
            | (self.epoch.0 as u64) << 48
    }

    /// The progress after one more packet.
    #[inline(always)]
    #[must_use]
    pub const fn after(self, state: FlowState, now: Tick, epoch: Epoch) -> Self {
        Self {
            state,
            last_seen: now,
            epoch,
            ..self
        }
    }

    /// The progress in an entry's word.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "takes the word apart")]
    pub const fn of_word(word: u64) -> Self {
        Self {
            endpoint: word as u32 & ENDPOINT,
            state: FlowState((word >> 24) as u8),
            last_seen: Tick((word >> 32) as u16),
            epoch: Epoch((word >> 48) as u16),
        }
    }
}

/// The bits of [`FlowEntry::progress`] that hold the client's port and the protocol.
const ENDPOINT: u32 = 0x00ff_ffff;

/// A remembered flow.
///
/// `choice` is both content and lock. Whoever wants to fill an entry swaps the word that it saw
/// there for [`Choice::BUSY`] (compare and swap), writes the rest, and stores the new choice last.
/// Whoever reads takes `choice`, compares the client, and takes `choice` again: if the two words
/// are equal, the client belongs to them. `progress` changes by compare and swap only; since it
/// holds half of the key, news of an old flow never reach the one that took its place.
#[derive(Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)]
#[repr(C, align(32))]
pub struct FlowEntry {
    /// [`Choice`], or empty, or busy.
    pub choice: Word,
    client: [Word; 2],
    /// [`Progress`].
    pub progress: Word,
}

/// Entries that one hash leads to: two cache lines that the processor fetches together.
#[derive(Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)]
#[repr(C, align(64))]
pub struct Bucket {
    /// The entries, in no order.
    pub entries: [FlowEntry; WAYS],
}

/// The share of the table's buckets that are near ones: one in so many.
pub const NEAR_SHARE: u32 = 16;

/// Fewer buckets than this have no near and far ones.
pub const LEAST_BUCKETS: u32 = 2;

/// How many of so many buckets are near ones; both are powers of two.
#[inline(always)]
#[must_use]
pub const fn near_buckets(buckets: u32) -> u32 {
    if buckets < NEAR_SHARE {
        1
    } else {
        buckets / NEAR_SHARE
    }
}

/// The number of the far bucket that a hash leads to, by its upper bits: any but the near ones.
#[inline(always)]
#[must_use]
pub const fn far_bucket(hash: u32, near_mask: u32, bucket_mask: u32) -> u32 {
    let far = bucket_mask.wrapping_sub(near_mask);
    let index = (hash as u64 * far as u64) >> 32;
    near_mask.wrapping_add(1).wrapping_add(index as u32)
}

/// The mark of a near bucket one of whose flows found no room there; never 0, which is that of a
/// bucket whose flows are all there.
#[inline(always)]
#[must_use]
pub const fn spilled(now: Tick) -> u64 {
    1 << 16 | now.0 as u64
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

impl Client {
    #[inline(always)]
    fn endpoint(&self) -> u32 {
        u32::from(u16::from_ne_bytes(self.port.to_bytes())) | u32::from(self.protocol) << 16
    }
}

impl FlowEntry {
    /// The choice's word, if the entry holds a flow of this client.
    #[inline(always)]
    pub fn choice_for(&self, client: &Client) -> Option<u64> {
        if self.client[1].load() != client.address.words[1] {
            return None;
        }
        let word = self.choice.load();
        if word == Choice::EMPTY || word == Choice::BUSY {
            return None;
        }
        if self.client[0].load() != client.address.words[0]
            || self.client[1].load() != client.address.words[1]
            || self.progress().endpoint != client.endpoint()
            || self.choice.load() != word
        {
            return None;
        }
        Some(word)
    }

    /// Fills an entry that the caller has made busy, and opens it.
    #[inline(always)]
    pub fn fill(&self, client: &Client, choice: Choice, state: FlowState, now: Tick) {
        self.client[0].store(client.address.words[0]);
        self.client[1].store(client.address.words[1]);
        let progress = Progress {
            state,
            last_seen: now,
            epoch: Epoch(0),
            endpoint: client.endpoint(),
        };
        self.progress.store(progress.to_word());
        self.choice.store(choice.to_word());
    }

    /// The client's end.
    #[inline(always)]
    pub fn client(&self) -> Client {
        let [port_0, port_1, protocol, _] = self.progress().endpoint.to_le_bytes();
        Client {
            address: Address {
                words: [self.client[0].load(), self.client[1].load()],
            },
            port: U16::from_bytes(u16::from_le_bytes([port_0, port_1]).to_ne_bytes()),
            protocol,
        }
    }

    /// How far the flow has come, and when.
    #[inline(always)]
    pub fn progress(&self) -> Progress {
        Progress::of_word(self.progress.load())
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
        assert_eq!(entry.progress().last_seen, Tick(5));
        assert_eq!(
            Progress::of_word(entry.progress().to_word()),
            entry.progress()
        );
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
        entry.choice.store(Choice::BUSY);
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
        for state in 0..64 {
            assert!(FlowState(state).idle_ticks(6000) <= 6000);
            assert!(FlowState(state).idle_ticks(100) <= 100);
        }
    }
}
