//! Flow tables of several designs on equal terms: the same parser, the same hash, the same clients.
//!
//! Each `lookup_…` reads the packet, finds its client's flow and counts it in `FOUND`; each
//! `insert_…` remembers it. What the three tables compare:
//!
//! | | entry | what is compared |
//! |---|---|---|
//! | exact | the load balancer's own: 32 bytes, 4 per 128-byte bucket, two choices | client; VIP by the listener's record |
//! | tag | 16 bytes, 4 per 64-byte line, two choices | the hash's 64 bits; VIP by the listener's record |
//! | lru | the kernel's `BPF_MAP_TYPE_LRU_HASH`, 16-byte values | client and VIP, as the key |

use core::ops::Deref;

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, LruHashMap},
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use nlb_common::{
    address::Address,
    admission::{Admission, Source, SourceRecord},
    early::Claim,
    event::Event,
    flow::{Bucket, Choice, Client, FlowState, NEAR_SHARE, far_bucket},
    fragment::{FragmentKey, FragmentRecord},
    hash::{Key, Secret},
    listener::{Listener, ListenerId, ListenerKey},
    maps::Prefilter,
    next_hop::{NeighbourKey, NextHopId, NextHopSlot},
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
use nlb_ebpf::{
    flows::{self, Place},
    frame::Frame,
    parse::{Packet, parse},
    tables::{Cookie, Handshake, Passage, Route, RouteQuery, Tables},
};
use zerocopy::big_endian::U16;

use crate::{
    frame::XdpFrame,
    instructions::{compare_and_swap, forget, keep},
};

/// `BPF_F_MMAPABLE`, as the load balancer's table has it: it puts values at a page's start.
const MMAPABLE: usize = 1 << 10;

/// Four short entries: tag and choice.
#[repr(C, align(64))]
struct Line([[Word; 2]; 4]);

/// The key of a flow in the kernel's table.
#[repr(C)]
struct FlowKey {
    client: Address,
    vip: Address,
    client_port: U16,
    vip_port: U16,
    protocol: u32,
}

// Capacities are set by the loader.
#[btf_map]
static EXACT: Array<Bucket, 1, MMAPABLE> = Array::new();
#[btf_map]
static SPILLS: Array<Word, 1, MMAPABLE> = Array::new();
#[btf_map]
static TAGS: Array<Line, 1, MMAPABLE> = Array::new();
#[btf_map]
static LRU: LruHashMap<FlowKey, [u64; 2], 1> = LruHashMap::new();
#[btf_map]
static BENCH_LISTENERS: Array<Listener, 16, MMAPABLE> = Array::new();
/// How many packets found their flow, or a place for it.
#[btf_map]
static FOUND: Array<u64, 1> = Array::new();

/// Patched by the loader.
#[unsafe(no_mangle)]
static BENCH_KEY: Key = Key {
    seed: 0,
    words: [0; 5],
};
/// Buckets of `EXACT` − 1, then lines of `TAGS` − 1.
#[unsafe(no_mangle)]
static BENCH_MASKS: [u32; 2] = [0; 2];

/// What every flow was decided to be.
const CHOICE: Choice = Choice {
    target: TargetId(1),
    listener: ListenerId(1),
    next_hop: NextHopId(1),
};

/// Reads one of the loader's constants where it stands.
macro_rules! setting {
    ($field:expr) => {{
        let place = &raw const $field;
        // SAFETY: as in `kernel/maps.rs`.
        unsafe { place.read_volatile() }
    }};
}

struct TableKey;

impl Secret for TableKey {
    #[inline(always)]
    fn seed(&self) -> u64 {
        setting!(BENCH_KEY.seed)
    }

    #[inline(always)]
    fn word(&self, index: usize) -> u64 {
        match index {
            0 => setting!(BENCH_KEY.words[0]),
            1 => setting!(BENCH_KEY.words[1]),
            _ => setting!(BENCH_KEY.words[2]),
        }
    }
}

/// Only what a flow table asks for; the clock stands still.
struct FlowTables;

impl Tables for FlowTables {
    #[inline(always)]
    fn table_key(&self) -> impl Secret {
        TableKey
    }

    #[inline(always)]
    fn select_key(&self) -> impl Secret {
        TableKey
    }

    #[inline(always)]
    fn now(&self) -> Tick {
        Tick(0)
    }

    #[inline(always)]
    fn prefilter(&self) -> Option<&Prefilter> {
        None
    }

    #[inline(always)]
    fn listener_id(&self, _: &ListenerKey) -> Option<ListenerId> {
        None
    }

    #[inline(always)]
    fn listener(&self, id: ListenerId) -> Option<&Listener> {
        BENCH_LISTENERS.get(u32::from(id.0))
    }

    #[inline(always)]
    fn admission(&self, _: ListenerId) -> Option<&Admission> {
        None
    }

    #[inline(always)]
    fn admits(&self, _: ListenerId, _: Address) -> bool {
        true
    }

    #[inline(always)]
    fn source(&self, _: &Source) -> Option<impl Deref<Target = SourceRecord>> {
        None::<&SourceRecord>
    }

    #[inline(always)]
    fn target(&self, _: TargetId) -> Option<&Target> {
        None
    }

    #[inline(always)]
    fn tunnel(&self, _: u16) -> Option<&TunnelSlot> {
        None
    }

    #[inline(always)]
    fn ring_slot(&self, _: u16, _: usize) -> Option<Slot> {
        None
    }

    #[inline(always)]
    fn base_slot(&self, _: u16, _: usize) -> Option<TargetId> {
        None
    }

    #[inline(always)]
    fn pins_on_change(&self) -> bool {
        false
    }

    #[inline(always)]
    fn hint(&self, _: u16) -> ListenerId {
        ListenerId(0)
    }

    #[inline(always)]
    fn server(&self, _: &ServerIdKey) -> Option<TargetId> {
        None
    }

    #[inline(always)]
    fn bucket(&self, hash: u32) -> Option<&Bucket> {
        EXACT.get(hash & setting!(BENCH_MASKS[0]))
    }

    #[inline(always)]
    fn near(&self, hash: u32) -> u32 {
        hash & (setting!(BENCH_MASKS[0]) / NEAR_SHARE)
    }

    #[inline(always)]
    fn far(&self, hash: u32) -> u32 {
        far_bucket(
            hash,
            setting!(BENCH_MASKS[0]) / NEAR_SHARE,
            setting!(BENCH_MASKS[0]),
        )
    }

    #[inline(always)]
    fn spill(&self, near: u32) -> Option<&Word> {
        SPILLS.get(near)
    }

    #[inline(always)]
    fn bucket_number(&self, hash: u32) -> u32 {
        hash
    }

    #[inline(always)]
    fn translates_sources(&self) -> bool {
        false
    }

    #[inline(always)]
    fn makes_cookies(&self) -> bool {
        false
    }

    #[inline(always)]
    fn make_cookie(&self, _: &Handshake, _: u16) -> Option<Cookie> {
        None
    }

    #[inline(always)]
    fn is_cookie(&self, _: &Handshake, _: u32) -> bool {
        false
    }

    #[inline(always)]
    fn sequences(&self, _: u32) -> Option<&Sequences> {
        None
    }

    #[inline(always)]
    fn pool(&self) -> Option<&Pool> {
        None
    }

    #[inline(always)]
    fn translations(&self, _bucket: u32) -> Option<&Translations> {
        None
    }

    #[inline(always)]
    fn source_bucket(&self, _hash: u32) -> Option<&SourceBucket> {
        None
    }

    #[inline(always)]
    fn forget(&self, value: u64, unknown: u64) -> u64 {
        forget(value, unknown)
    }

    fn swap(&self, word: &Word, seen: u64, new: u64) -> bool {
        compare_and_swap(word, seen, new)
    }

    #[inline(always)]
    fn keep(&self, value: u64) -> u64 {
        keep(value)
    }

    #[inline(always)]
    fn next_hop(&self, _: NextHopId) -> Option<&NextHopSlot> {
        None
    }

    #[inline(always)]
    fn next_hop_id(&self, _: &NeighbourKey) -> Option<NextHopId> {
        None
    }

    #[inline(always)]
    fn fragment(&self, _: &FragmentKey) -> Option<FragmentRecord> {
        None
    }

    fn remember_fragment(&self, _: &FragmentKey, _: &FragmentRecord) {}

    fn keep_early<F: Frame>(&self, _: &F, _: &FragmentKey, _: Claim) -> bool {
        true
    }

    fn next_identification(&self, _: u32) -> u32 {
        0
    }

    fn hand_over(&self, _word: u64) {}

    #[inline(always)]
    fn handed_over(&self) -> u64 {
        0
    }

    #[inline(always)]
    fn error_budget(&self) -> u64 {
        0
    }

    #[inline(always)]
    fn set_error_budget(&self, _budget: u64) {}

    #[inline(always)]
    fn route(&self, _: &RouteQuery) -> Result<Route, Stop> {
        Err(Stop::NoRoute)
    }

    fn count(&self, _: &Passage) {}

    fn count_stop(&self, _: Stop) {}

    fn tell(&self, _: &Event) {}
}

/// Reads the packet, and counts it if `is_found` says so.
#[inline(always)]
fn with_client(context: &XdpContext, is_found: impl FnOnce(&Packet, &Client) -> bool) -> u32 {
    let Ok(packet) = parse(&XdpFrame::new(context)) else {
        return xdp_action::XDP_ABORTED;
    };
    let client = Client {
        address: packet.source,
        port: packet.source_port,
        protocol: packet.protocol,
    };
    if !is_found(&packet, &client) {
        return xdp_action::XDP_DROP;
    }
    if let Some(found) = FOUND.get_ptr_mut(0) {
        // SAFETY: one CPU runs the benchmark, and userspace reads when it has ended.
        unsafe { *found += 1 };
    }
    xdp_action::XDP_TX
}

#[inline(always)]
fn is_for(packet: &Packet, choice: Choice) -> bool {
    match FlowTables.listener(choice.listener) {
        Some(listener) => listener.is(packet.destination, packet.protocol, packet.destination_port),
        None => false,
    }
}

/// The floor: the client is hashed, and nothing is looked up.
#[xdp(frags)]
fn lookup_nothing(context: XdpContext) -> u32 {
    with_client(&context, |_, client| {
        TableKey.table(client.address, client.port, client.protocol) != 0
    })
}

/// In the load balancer's table, by its own code.
#[xdp(frags)]
fn lookup_exact(context: XdpContext) -> u32 {
    with_client(&context, |packet, client| {
        let place = Place::of(&FlowTables, client);
        flows::find(&FlowTables, place, client, |choice, _| {
            is_for(packet, choice)
        })
        .entry
        .is_some()
    })
}

/// Fills the load balancer's table.
#[xdp(frags)]
fn insert_exact(context: XdpContext) -> u32 {
    with_client(&context, |packet, client| {
        let place = Place::of(&FlowTables, client);
        let known = flows::find(&FlowTables, place, client, |choice, _| {
            is_for(packet, choice)
        });
        known.entry.is_some()
            || flows::pin(
                &FlowTables,
                place,
                client,
                CHOICE,
                FlowState::ESTABLISHED,
                Tick(0),
            )
    })
}

/// The line that one half of a hash leads to.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "takes the low half")]
fn line(half: u64) -> Option<&'static Line> {
    TAGS.get(half as u32 & setting!(BENCH_MASKS[1]))
}

/// Whether the line holds a flow of this tag that is for the packet.
#[inline(always)]
fn tagged(packet: &Packet, line: &Line, tag: u64) -> bool {
    for [entry, choice] in &line.0 {
        if entry.load() == tag && is_for(packet, Choice::of_word(choice.load())) {
            return true;
        }
    }
    false
}

/// In the table of short entries.
#[xdp(frags)]
fn lookup_tag(context: XdpContext) -> u32 {
    with_client(&context, |packet, client| {
        let tag = TableKey.table(client.address, client.port, client.protocol);
        line(tag).is_some_and(|line| tagged(packet, line, tag))
            || line(tag >> 32).is_some_and(|line| tagged(packet, line, tag))
    })
}

/// Fills the table of short entries.
#[xdp(frags)]
fn insert_tag(context: XdpContext) -> u32 {
    with_client(&context, |packet, client| {
        let tag = TableKey.table(client.address, client.port, client.protocol);
        let (Some(first), Some(second)) = (line(tag), line(tag >> 32)) else {
            return false;
        };
        if tagged(packet, first, tag) || tagged(packet, second, tag) {
            return true;
        }
        for line in [first, second] {
            for [entry, choice] in &line.0 {
                if entry.load() == 0 {
                    entry.store(tag);
                    choice.store(CHOICE.to_word());
                    return true;
                }
            }
        }
        false
    })
}

#[inline(always)]
fn key(packet: &Packet, client: &Client) -> FlowKey {
    FlowKey {
        client: client.address,
        vip: packet.destination,
        client_port: client.port,
        vip_port: packet.destination_port,
        protocol: u32::from(packet.protocol),
    }
}

/// In the kernel's table.
#[xdp(frags)]
fn lookup_lru(context: XdpContext) -> u32 {
    with_client(&context, |packet, client| {
        // SAFETY: the value is read at once, and nobody removes it meanwhile.
        match unsafe { LRU.get(&key(packet, client)) } {
            Some([choice, _]) => Choice::of_word(*choice).listener == CHOICE.listener,
            None => false,
        }
    })
}

/// Fills the kernel's table.
#[xdp(frags)]
fn insert_lru(context: XdpContext) -> u32 {
    with_client(&context, |packet, client| {
        LRU.insert(&key(packet, client), &[CHOICE.to_word(), 0], 0)
            .is_ok()
    })
}
