//! Everything that a packet may ask or tell: maps in the kernel, collections in memory.

use core::ops::Deref;

use nlb_common::{
    address::Address,
    admission::{Admission, Source, SourceRecord},
    early::Claim,
    event::Event,
    flow::Bucket,
    fragment::{FragmentKey, FragmentRecord},
    hash::Secret,
    listener::{Listener, ListenerId, ListenerKey},
    maps::Prefilter,
    next_hop::{NeighbourKey, NextHop, NextHopId, NextHopSlot},
    quic::ServerIdKey,
    ring::Slot,
    sequence::Sequences,
    source::{Pool, SourceBucket, Translations},
    stop::Stop,
    target::{Target, TargetId},
    tick::Tick,
    tunnel::TunnelSlot,
    word::Word,
};

use crate::{frame::Frame, rewrite::Endpoint};

/// A question to the kernel's routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteQuery {
    /// Where the packet goes.
    pub destination: Address,
    /// Where it comes from; policy rules may look at it.
    pub source: Address,
    /// The interface that it came in through.
    pub interface: u32,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// The IP protocol.
    pub protocol: u8,
}

/// The kernel's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where the frame goes.
    pub next_hop: NextHop,
    /// The neighbour's address: the destination itself, or the gateway.
    pub neighbour: Address,
    /// The index of the interface that the neighbour is on: a VLAN's own, where `next_hop` has that
    /// of its carrier.
    pub interface: u32,
}

/// A connection that a client asks for: all that a SYN cookie depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The client's end.
    pub client: Endpoint,
    /// The listener's.
    pub vip: Endpoint,
    /// The client's first sequence number, which its SYN has.
    pub sequence: u32,
}

/// A SYN cookie (D. J. Bernstein, 1996): a first sequence number that only we can tell from others,
/// so that whoever sends it back has seen it, and nothing needs to be remembered until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// The number.
    pub number: u32,
    /// The size of segments, in bytes, that the number stands for: the one that was asked for, or the
    /// next smaller of a few.
    pub segment_bytes: u16,
}

/// What is counted about a packet that was sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// The listener that it belongs to.
    pub listener: ListenerId,
    /// The target that it goes to or comes from.
    pub target: TargetId,
    /// Bytes of the IP packet.
    pub length_bytes: u16,
    /// What kind of packet it was.
    pub kind: PassageKind,
}

/// The kinds of packets that are sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassageKind {
    /// To the target, of a remembered flow.
    Known,
    /// To the target, the first of a flow.
    New,
    /// To the target, by the ring alone: there is no room to remember the flow.
    Unpinned,
    /// To the client.
    Return,
}

/// What a packet may ask and tell.
pub trait Tables {
    /// The secret behind [`Secret::table`].
    fn table_key(&self) -> impl Secret;

    /// The secret behind [`Secret::select`].
    fn select_key(&self) -> impl Secret;

    /// The present tick.
    fn now(&self) -> Tick;

    /// Which endpoints may be ours.
    fn prefilter(&self) -> Option<&Prefilter>;

    /// The listener under this key.
    fn listener_id(&self, key: &ListenerKey) -> Option<ListenerId>;

    /// A listener's record.
    fn listener(&self, id: ListenerId) -> Option<&Listener>;

    /// A listener's record of admission.
    fn admission(&self, id: ListenerId) -> Option<&Admission>;

    /// Whether the longest prefix of a source in a listener's rules admits it; not without one.
    fn admits(&self, listener: ListenerId, source: Address) -> bool;

    /// What was counted of a source, if anything; `None` if there is no room for it.
    ///
    /// Not shown to a closure: one that two stages call is not inlined, and a call between BPF
    /// functions passes everything through the stack.
    fn source(&self, source: &Source) -> Option<impl Deref<Target = SourceRecord>>;

    /// A target's record.
    fn target(&self, id: TargetId) -> Option<&Target>;

    /// The record of a target group's tunnel.
    fn tunnel(&self, group: u16) -> Option<&TunnelSlot>;

    /// What stands in a slot, below [`nlb_common::ring::SLOTS`], of a group's ring; nothing if there
    /// is no ring.
    fn ring_slot(&self, group: u16, slot: usize) -> Option<Slot>;

    /// The target that flows had before a slot changed.
    fn base_slot(&self, group: u16, slot: usize) -> Option<TargetId>;

    /// Whether there may be listeners that pin flows on change; constant.
    fn pins_on_change(&self) -> bool;

    /// The listener that [`nlb_common::maps::Hints`] names under a number; 0 for none.
    fn hint(&self, number: u16) -> ListenerId;

    /// The target that a ring leads to and whose QUIC connection IDs carry a number.
    fn server(&self, key: &ServerIdKey) -> Option<TargetId>;

    /// The bucket of a number, of which the lower bits count.
    fn bucket(&self, number: u32) -> Option<&Bucket>;

    /// The number of the near bucket that a hash leads to.
    fn near(&self, hash: u32) -> u32;

    /// The number of the far bucket that a hash leads to ([`nlb_common::flow::far_bucket`]).
    fn far(&self, hash: u32) -> u32;

    /// The mark of a near bucket: when one of its flows last spilled ([`nlb_common::flow::spilled`]),
    /// or 0.
    fn spill(&self, near: u32) -> Option<&Word>;

    /// Those bits of a bucket's number.
    fn bucket_number(&self, number: u32) -> u32;

    /// Whether there is room to translate sources; constant.
    fn translates_sources(&self) -> bool;

    /// Whether there may be listeners that answer with SYN cookies; constant.
    fn makes_cookies(&self) -> bool;

    /// The cookie for a handshake with a client that takes segments of this size; nothing if none can
    /// be made. Within a minute or so the same question has the same answer.
    fn make_cookie(&self, handshake: &Handshake, segment_bytes: u16) -> Option<Cookie>;

    /// Whether a number is a cookie that was made for this handshake within the last minutes.
    fn is_cookie(&self, handshake: &Handshake, number: u32) -> bool;

    /// The sequence numbers of a bucket's flows.
    fn sequences(&self, bucket: u32) -> Option<&Sequences>;

    /// Our addresses that sources are translated to.
    fn pool(&self) -> Option<&Pool>;

    /// What the sources of a bucket's flows become.
    fn translations(&self, bucket: u32) -> Option<&Translations>;

    /// Who may own what this hash leads to.
    fn source_bucket(&self, hash: u32) -> Option<&SourceBucket>;

    /// Stores `new` in `word` if it holds `seen`; says whether it did.
    ///
    /// Here because the BPF target of Rust's `core` has no compare-and-swap.
    fn swap(&self, word: &Word, seen: u64, new: u64) -> bool;

    /// The same value, of which the verifier knows nothing any more.
    ///
    /// VERIFIER: it follows a loop's every combination of values that it knows, and one of values
    /// that it does not.
    /// `unknown` is any number that it knows nothing of.
    fn forget(&self, value: u64, unknown: u64) -> u64;

    /// The same value, for which the compiler can compute nothing in advance.
    ///
    /// VERIFIER: or LLVM computes an address before it compares the index with its bound ("math
    /// between `map_value` pointer and register with unbounded min value"; Linux 6.18, rustc 1.96).
    fn keep(&self, value: u64) -> u64;

    /// A next hop's record.
    fn next_hop(&self, id: NextHopId) -> Option<&NextHopSlot>;

    /// The id of a neighbour that the daemon knows.
    fn next_hop_id(&self, neighbour: &NeighbourKey) -> Option<NextHopId>;

    /// What a datagram's first fragment left.
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentRecord>;

    /// Leaves a record for a datagram's later fragments; it takes the place of the one that was used
    /// least recently.
    fn remember_fragment(&self, key: &FragmentKey, record: &FragmentRecord);

    /// Asks the daemon to keep a fragment until its datagram's first one comes; says whether there was
    /// room to ask.
    fn keep_early<F: Frame>(&self, frame: &F, key: &FragmentKey, claim: Claim) -> bool;

    /// How many numbers the counter that a hash leads to had given before; now it is one more.
    fn next_identification(&self, hash: u32) -> u32;

    /// Asks the kernel's routes and neighbours.
    fn route(&self, query: &RouteQuery) -> Result<Route, Stop>;

    /// Counts a packet that was sent on.
    fn count(&self, passage: &Passage);

    /// Counts a packet that was stopped.
    fn count_stop(&self, stop: Stop);

    /// Leaves a word for the stage that goes on with this packet.
    fn hand_over(&self, word: u64);

    /// What the stage before left.
    fn handed_over(&self) -> u64;

    /// This CPU's [`nlb_common::answer::ErrorBudget`].
    fn error_budget(&self) -> u64;

    /// Replaces this CPU's error budget.
    fn set_error_budget(&self, budget: u64);

    /// Tells the daemon something; lost if it does not listen.
    fn tell(&self, event: &Event);
}
