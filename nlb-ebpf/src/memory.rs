//! [`Frame`] and [`Tables`] over ordinary memory: for tests, fuzzing, benches and `nlb explain`.
//!
//! The records are the very types that the kernel's maps hold.
extern crate std;

use core::{
    cell::{Cell, RefCell, RefMut},
    ops::Deref,
};
use std::{boxed::Box, collections::HashMap, vec::Vec};

use nlb_common::{
    address::Address,
    admission::{ALLOW, Admission, AdmissionPolicy, Source, SourceRecord},
    counter::Traffic,
    early::{Claim, EarlyFragment, FRAME_BYTES},
    event::Event,
    flow::{Bucket, NEAR_SHARE, far_bucket},
    fragment::{FragmentKey, FragmentRecord, Identifications},
    hash::{Key, Secret},
    listener::{Listener, ListenerId, ListenerKey, ListenerPolicy},
    maps::{MAX_FRAGMENTS, Prefilter, Side},
    next_hop::{NeighbourKey, NextHop, NextHopId, NextHopSlot},
    quic::ServerIdKey,
    ring::Slot,
    sequence::Sequences,
    source::{Pool, SourceBucket, SourceId, Translations},
    stop::Stop,
    target::{Target, TargetControl, TargetId, TargetIdentity},
    tick::Tick,
    tunnel::TunnelSlot,
    wire::protocol::TCP,
    word::Word,
};
use zerocopy::{FromZeros as _, big_endian::U16};

use crate::{
    frame::{Frame, Header, Offset},
    tables::{Cookie, Handshake, Passage, PassageKind, Route, RouteQuery, Tables},
};

/// A frame in a vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryFrame {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The index of the interface that it came in through.
    pub interface: u32,
    /// How many bytes the driver leaves in front.
    pub headroom_bytes: usize,
}

impl MemoryFrame {
    /// A frame with as much in front of it as drivers leave.
    pub const fn new(bytes: Vec<u8>, interface: u32) -> Self {
        Self {
            bytes,
            interface,
            headroom_bytes: HEADROOM_BYTES,
        }
    }
}

/// `XDP_PACKET_HEADROOM` of `linux/bpf.h`.
const HEADROOM_BYTES: usize = 256;

/// What the kernel gives a program of a frame in one buffer, where `BPF_PROG_TEST_RUN` makes it: a page
/// of 4 KiB without headroom and without `struct skb_shared_info`.
const FIRST_BUFFER_BYTES: usize = 4096 - 256 - 320;

impl Frame for MemoryFrame {
    fn get<H: Header>(&self, at: Offset) -> Option<&H> {
        let reachable = usize::from(at.0)..self.first_buffer_bytes();
        let (header, _) = H::ref_from_prefix(self.bytes.get(reachable)?).ok()?;
        Some(header)
    }

    fn get_mut<H: Header>(&mut self, at: Offset) -> Option<&mut H> {
        let reachable = usize::from(at.0)..self.first_buffer_bytes();
        let (header, _) = H::mut_from_prefix(self.bytes.get_mut(reachable)?).ok()?;
        Some(header)
    }

    fn move_start(&mut self, bytes: i16) -> Result<(), Stop> {
        let count = usize::from(bytes.unsigned_abs());
        if bytes >= 0 && count <= self.headroom_bytes {
            self.bytes.splice(..0, core::iter::repeat_n(0, count));
            self.headroom_bytes -= count;
        } else if bytes < 0 && count < self.bytes.len() {
            self.bytes.drain(..count);
            self.headroom_bytes += count;
        } else {
            return Err(Stop::NoRoom);
        }
        Ok(())
    }

    fn move_end(&mut self, bytes: i16) -> Result<(), Stop> {
        let count = usize::from(bytes.unsigned_abs());
        let length = self.bytes.len();
        if bytes >= 0 {
            self.bytes.resize(length + count, 0);
        } else if count < length {
            self.bytes.truncate(length - count);
        } else {
            return Err(Stop::NoRoom);
        }
        Ok(())
    }

    fn forget_ends(&mut self) {}

    fn first_buffer_bytes(&self) -> usize {
        self.bytes.len().min(FIRST_BUFFER_BYTES)
    }

    fn length_bytes(&self) -> usize {
        self.bytes.len()
    }

    fn copy_to(&self, to: &mut [u8; FRAME_BYTES]) -> Option<u32> {
        let length = u32::try_from(self.bytes.len()).ok()?;
        to.get_mut(..self.bytes.len())?.copy_from_slice(&self.bytes);
        (length > 0).then_some(length)
    }

    fn interface(&self) -> u32 {
        self.interface
    }
}

/// All maps, in memory.
#[derive(Debug)]
pub struct MemoryTables {
    /// The secret that places flows.
    pub table_key: Key,
    /// The secret that chooses targets.
    pub select_key: Key,
    /// The present tick.
    pub now: Cell<u16>,
    /// The bits of endpoints that may be ours.
    pub prefilter: Box<Prefilter>,
    /// Listener ids by key.
    pub listener_index: HashMap<ListenerKey, ListenerId>,
    /// Listeners by id.
    pub listeners: Vec<Listener>,
    /// Listeners' records of admission, by id.
    pub admissions: Vec<Admission>,
    /// Listeners' rules: prefix, how many of its bits count, and what becomes of its flows.
    pub rules: HashMap<ListenerId, Vec<(Address, u8, u32)>>,
    /// What was counted of sources.
    pub admission_sources: RefCell<HashMap<Source, SourceRecord>>,
    /// Targets by id.
    pub targets: Vec<Target>,
    /// Tunnels by target group.
    pub tunnels: Vec<TunnelSlot>,
    /// Rings by target group.
    pub rings: HashMap<u16, Vec<u32>>,
    /// Targets that flows had before slots changed, by target group.
    pub ring_bases: HashMap<u16, Vec<u32>>,
    /// Whether there may be listeners that pin flows on change.
    pub pins_on_change: bool,
    /// Listeners by the number of their bit.
    pub hints: HashMap<u16, ListenerId>,
    /// Targets by the number in QUIC connection IDs.
    pub server_ids: HashMap<ServerIdKey, TargetId>,
    /// Next hops by id.
    pub next_hops: Vec<NextHopSlot>,
    /// Next hop ids by neighbour.
    pub next_hop_index: HashMap<NeighbourKey, NextHopId>,
    /// The flow table; a power of two.
    pub buckets: Vec<Bucket>,
    /// Marks of its near buckets.
    pub spills: Vec<Word>,
    /// What first fragments left.
    pub fragments: RefCell<HashMap<FragmentKey, FragmentRecord>>,
    /// Fragments that were to be kept.
    pub early: RefCell<Vec<EarlyFragment>>,
    /// How many numbers such datagrams were given.
    pub identifications: Identifications,
    /// Whether there is room to translate sources.
    pub translates_sources: bool,
    /// Whether there may be listeners that answer with SYN cookies.
    pub makes_cookies: bool,
    /// Sequence numbers; as many as buckets.
    pub sequences: Vec<Sequences>,
    /// Our addresses that sources are translated to.
    pub pool: Pool,
    /// What sources become; as many as buckets.
    pub translations: Vec<Translations>,
    /// Who owns what; as many as buckets.
    pub sources: Vec<SourceBucket>,
    /// The kernel's routes, by destination; anything else has none.
    pub routes: HashMap<Address, Result<Route, Stop>>,
    /// What was counted per listener.
    pub listener_counters: RefCell<HashMap<ListenerId, Traffic>>,
    /// What was counted per target.
    pub target_counters: RefCell<HashMap<TargetId, Traffic>>,
    /// What was counted per stop.
    pub stop_counters: RefCell<[u64; Stop::COUNT]>,
    /// What one stage left for the next.
    pub handover: Cell<u64>,
    /// [`nlb_common::answer::ErrorBudget`].
    pub error_budget: Cell<u64>,
    /// What was told.
    pub events: RefCell<Vec<Event>>,
}

fn records<R: Default>(count: usize) -> Vec<R> {
    core::iter::repeat_with(R::default).take(count).collect()
}

impl MemoryTables {
    /// Empty tables with these capacities; `buckets` is rounded up to a power of two.
    pub fn new(table_key: Key, select_key: Key, buckets: usize) -> Self {
        Self {
            table_key,
            select_key,
            now: Cell::new(0),
            prefilter: Box::new(Prefilter::new_zeroed()),
            listener_index: HashMap::new(),
            listeners: records(128),
            admissions: records(128),
            rules: HashMap::new(),
            admission_sources: RefCell::default(),
            targets: records(128),
            tunnels: records(128),
            rings: HashMap::new(),
            ring_bases: HashMap::new(),
            pins_on_change: true,
            hints: HashMap::new(),
            server_ids: HashMap::new(),
            next_hops: records(64),
            next_hop_index: HashMap::new(),
            buckets: records(buckets.next_power_of_two()),
            fragments: RefCell::default(),
            early: RefCell::default(),
            identifications: Identifications::default(),
            translates_sources: true,
            makes_cookies: true,
            spills: records((buckets.next_power_of_two() / NEAR_SHARE as usize).max(1)),
            sequences: records(buckets.next_power_of_two()),
            pool: Pool::default(),
            translations: records(buckets.next_power_of_two()),
            sources: records(buckets.next_power_of_two()),
            routes: HashMap::new(),
            listener_counters: RefCell::default(),
            target_counters: RefCell::default(),
            stop_counters: RefCell::new([0; Stop::COUNT]),
            handover: Cell::new(0),
            error_budget: Cell::new(0),
            events: RefCell::default(),
        }
    }

    /// Sets an endpoint's bit.
    pub fn admit(&self, side: Side, address: Address, protocol: u8, port: U16) {
        let (word, mask) = Prefilter::bit(side, address, protocol, port);
        if let Some(word) = self.prefilter.words.get(word) {
            word.store(word.load() | mask);
        }
    }

    /// Adds a listener and its VIP.
    pub fn add_listener(&mut self, id: ListenerId, key: ListenerKey, policy: ListenerPolicy) {
        if let Some(record) = self.listeners.get(usize::from(id.0)) {
            record.write(&key, policy);
        }
        let vip = ListenerKey::vip(key.address);
        self.listener_index.insert(key, id);
        self.listener_index.insert(vip, id);
        self.admit(Side::Listener, key.address, key.protocol, key.port);
        self.admit(Side::Listener, vip.address, vip.protocol, vip.port);
    }

    /// Gives a listener rules and limits, or takes them away.
    pub fn set_admission(&self, id: ListenerId, policy: &AdmissionPolicy) {
        let index = usize::from(id.0);
        if let (Some(record), Some(listener)) =
            (self.admissions.get(index), self.listeners.get(index))
        {
            record.set_policy(policy);
            let is_asked = policy.has_rules || policy.has_limits();
            let old = listener.policy();
            listener.set_policy(ListenerPolicy {
                flags: old.flags.with_admission(is_asked),
                ..old
            });
        }
    }

    /// Adds a target, whose group's tunnel is there already; `protocol` is what its listeners speak.
    pub fn add_target(
        &self,
        id: TargetId,
        identity: &TargetIdentity,
        control: TargetControl,
        protocol: u8,
    ) {
        if let Some(record) = self.targets.get(id.0 as usize) {
            record.write(identity, control);
        }
        if control.mode.is_translated() {
            self.admit(Side::Target, identity.address, protocol, identity.port);
            self.admit(Side::Target, identity.address, 0, U16::ZERO);
        }
        if control.mode.is_tunnel()
            && let Some(tunnel) = self.tunnels.get(usize::from(identity.group))
            && let Some(end) = tunnel.end(true)
        {
            for (protocol, port) in control.mode.arrivals(end.port()) {
                self.admit(Side::Tunnel, identity.address, protocol, port);
            }
        }
    }

    /// Gives a target group a ring.
    pub fn set_ring(&mut self, group: u16, slots: &[u32]) {
        self.rings.insert(group, slots.to_vec());
    }

    /// Adds a next hop that the index knows, to a neighbour on this interface.
    pub fn add_next_hop(
        &mut self,
        id: NextHopId,
        interface: u32,
        neighbour: Address,
        next_hop: &NextHop,
    ) {
        if let Some(slot) = self.next_hops.get(usize::from(id.0)) {
            slot.write(next_hop);
        }
        self.next_hop_index
            .insert(NeighbourKey::new(interface, neighbour), id);
    }

    /// Makes these the pool, numbered from 1.
    pub fn set_pool(&self, addresses: &[Address]) {
        let numbered = || (1..).map(SourceId).zip(addresses.iter().copied());
        for (id, address) in numbered() {
            self.pool.write(id, address);
        }
        for is_v4 in [true, false] {
            let ids: Vec<SourceId> = numbered()
                .filter(|(_, address)| address.is_v4() == is_v4)
                .map(|(id, _)| id)
                .collect();
            self.pool.set_turns(is_v4, &ids);
        }
    }

    /// About a minute, as a number: the time for which cookies are the same.
    fn minute(&self) -> u16 {
        self.now.get() >> 6
    }

    /// The cookie for a handshake in a minute, with the segment size under this index in its two
    /// lowest bits. The kernel's are other numbers, of which the same is true.
    #[expect(clippy::cast_possible_truncation, reason = "half a hash is enough")]
    fn cookie(&self, handshake: &Handshake, minute: u16, index: usize) -> u32 {
        let Handshake { client, vip, .. } = handshake;
        let hash = self.table_key.select_with_sequence(
            client.address,
            client.port,
            vip.address,
            vip.port,
            TCP,
            handshake.sequence ^ u32::from(minute) << 20,
        );
        (hash as u32 & !3) | index as u32
    }

    /// How often a stop was counted.
    pub fn stops(&self, stop: Stop) -> u64 {
        self.stop_counters
            .borrow()
            .get(stop as usize)
            .copied()
            .unwrap_or_default()
    }
}

impl Tables for MemoryTables {
    fn table_key(&self) -> impl Secret {
        self.table_key
    }

    fn select_key(&self) -> impl Secret {
        self.select_key
    }

    fn now(&self) -> Tick {
        Tick(self.now.get())
    }

    fn prefilter(&self) -> Option<&Prefilter> {
        Some(&self.prefilter)
    }

    fn listener_id(&self, key: &ListenerKey) -> Option<ListenerId> {
        self.listener_index.get(key).copied()
    }

    fn listener(&self, id: ListenerId) -> Option<&Listener> {
        self.listeners.get(usize::from(id.0))
    }

    fn admission(&self, id: ListenerId) -> Option<&Admission> {
        self.admissions.get(usize::from(id.0))
    }

    fn admits(&self, listener: ListenerId, source: Address) -> bool {
        let rules = self.rules.get(&listener).into_iter().flatten();
        rules
            .filter(|(prefix, bits, _)| source.prefix(*bits) == *prefix)
            .max_by_key(|(_, bits, _)| *bits)
            .is_some_and(|(_, _, verdict)| *verdict == ALLOW)
    }

    fn source(&self, source: &Source) -> Option<impl Deref<Target = SourceRecord>> {
        let sources = self.admission_sources.borrow_mut();
        Some(RefMut::map(sources, |sources| {
            sources.entry(*source).or_default()
        }))
    }

    fn target(&self, id: TargetId) -> Option<&Target> {
        self.targets.get(id.0 as usize)
    }

    fn tunnel(&self, group: u16) -> Option<&TunnelSlot> {
        self.tunnels.get(usize::from(group))
    }

    fn ring_slot(&self, group: u16, slot: usize) -> Option<Slot> {
        Some(Slot(*self.rings.get(&group)?.get(slot)?))
    }

    fn base_slot(&self, group: u16, slot: usize) -> Option<TargetId> {
        Slot(*self.ring_bases.get(&group)?.get(slot)?).target()
    }

    fn pins_on_change(&self) -> bool {
        self.pins_on_change
    }

    fn hint(&self, number: u16) -> ListenerId {
        self.hints.get(&number).copied().unwrap_or(ListenerId(0))
    }

    fn server(&self, key: &ServerIdKey) -> Option<TargetId> {
        self.server_ids.get(key).copied()
    }

    fn bucket(&self, hash: u32) -> Option<&Bucket> {
        self.buckets.get(hash as usize & (self.buckets.len() - 1))
    }

    #[expect(clippy::cast_possible_truncation, reason = "at most 2³² buckets")]
    fn bucket_number(&self, hash: u32) -> u32 {
        hash & (self.buckets.len() - 1) as u32
    }

    #[expect(clippy::cast_possible_truncation, reason = "fewer than buckets")]
    fn near(&self, hash: u32) -> u32 {
        hash & (self.spills.len() - 1) as u32
    }

    #[expect(clippy::cast_possible_truncation, reason = "at most 2³² buckets")]
    fn far(&self, hash: u32) -> u32 {
        far_bucket(
            hash,
            (self.spills.len() - 1) as u32,
            (self.buckets.len() - 1) as u32,
        )
    }

    fn spill(&self, near: u32) -> Option<&Word> {
        self.spills.get(near as usize)
    }

    fn translates_sources(&self) -> bool {
        self.translates_sources
    }

    fn makes_cookies(&self) -> bool {
        self.makes_cookies
    }

    fn make_cookie(&self, handshake: &Handshake, segment_bytes: u16) -> Option<Cookie> {
        let sizes = segment_sizes(handshake);
        let index = sizes.iter().rposition(|size| *size <= segment_bytes);
        let index = index.unwrap_or(0);
        Some(Cookie {
            number: self.cookie(handshake, self.minute(), index),
            segment_bytes: *sizes.get(index)?,
        })
    }

    fn is_cookie(&self, handshake: &Handshake, number: u32) -> bool {
        let now = self.minute();
        [now, now.wrapping_sub(1)].iter().any(|minute| {
            (0..segment_sizes(handshake).len())
                .any(|index| self.cookie(handshake, *minute, index) == number)
        })
    }

    fn sequences(&self, bucket: u32) -> Option<&Sequences> {
        self.sequences
            .get(bucket as usize & (self.sequences.len() - 1))
    }

    fn pool(&self) -> Option<&Pool> {
        Some(&self.pool)
    }

    fn translations(&self, bucket: u32) -> Option<&Translations> {
        self.translations
            .get(bucket as usize & (self.translations.len() - 1))
    }

    fn source_bucket(&self, hash: u32) -> Option<&SourceBucket> {
        self.sources.get(hash as usize & (self.sources.len() - 1))
    }

    fn swap(&self, word: &Word, seen: u64, new: u64) -> bool {
        word.swap(seen, new)
    }

    fn forget(&self, value: u64, _unknown: u64) -> u64 {
        value
    }

    fn keep(&self, value: u64) -> u64 {
        value
    }

    fn next_hop(&self, id: NextHopId) -> Option<&NextHopSlot> {
        self.next_hops.get(usize::from(id.0))
    }

    fn next_hop_id(&self, neighbour: &NeighbourKey) -> Option<NextHopId> {
        self.next_hop_index.get(neighbour).copied()
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentRecord> {
        self.fragments.borrow().get(key).copied()
    }

    fn remember_fragment(&self, key: &FragmentKey, record: &FragmentRecord) {
        let mut fragments = self.fragments.borrow_mut();
        // The oldest goes, which is near enough to the least recently used.
        if fragments.len() >= MAX_FRAGMENTS as usize
            && !fragments.contains_key(key)
            && let Some(oldest) = fragments
                .iter()
                .max_by_key(|(_, record)| self.now().since(record.seen()))
                .map(|(key, _)| *key)
        {
            fragments.remove(&oldest);
        }
        fragments.insert(*key, *record);
    }

    fn keep_early<F: Frame>(&self, frame: &F, key: &FragmentKey, claim: Claim) -> bool {
        let mut bytes = [0; FRAME_BYTES];
        let Some(length_bytes) = frame.copy_to(&mut bytes) else {
            return false;
        };
        self.early.borrow_mut().push(EarlyFragment {
            key: *key,
            interface: frame.interface(),
            length_bytes,
            is_copy: u64::from(claim == Claim::Perhaps),
            bytes,
        });
        true
    }

    #[expect(clippy::cast_possible_truncation, reason = "it begins anew")]
    fn next_identification(&self, hash: u32) -> u32 {
        self.identifications.counter(hash).map_or(0, |counter| {
            let count = counter.load();
            counter.store(count.wrapping_add(1));
            count as u32
        })
    }

    fn route(&self, query: &RouteQuery) -> Result<Route, Stop> {
        self.routes
            .get(&query.destination)
            .copied()
            .unwrap_or(Err(Stop::NoRoute))
    }

    fn count(&self, passage: &Passage) {
        let bytes = u64::from(passage.length_bytes);
        let add = |traffic: &mut Traffic| match passage.kind {
            PassageKind::Return => {
                traffic.return_packets += 1;
                traffic.return_bytes += bytes;
            }
            kind => {
                traffic.packets += 1;
                traffic.bytes += bytes;
                traffic.new_flows += u64::from(kind == PassageKind::New);
                traffic.unpinned_packets += u64::from(kind == PassageKind::Unpinned);
            }
        };
        add(self
            .listener_counters
            .borrow_mut()
            .entry(passage.listener)
            .or_default());
        add(self
            .target_counters
            .borrow_mut()
            .entry(passage.target)
            .or_default());
    }

    fn count_stop(&self, stop: Stop) {
        if let Some(count) = self.stop_counters.borrow_mut().get_mut(stop as usize) {
            *count += 1;
        }
    }

    fn hand_over(&self, word: u64) {
        self.handover.set(word);
    }

    fn handed_over(&self) -> u64 {
        self.handover.get()
    }

    fn error_budget(&self) -> u64 {
        self.error_budget.get()
    }

    fn set_error_budget(&self, budget: u64) {
        self.error_budget.set(budget);
    }

    fn tell(&self, event: &Event) {
        self.events.borrow_mut().push(*event);
    }
}

/// The segment sizes that cookies tell apart: the kernel's.
fn segment_sizes(handshake: &Handshake) -> &'static [u16] {
    if handshake.client.address.is_v4() {
        &[536, 1300, 1440, 1460]
    } else {
        &[1220, 1420, 1440, 8940]
    }
}

/// How many entries of these buckets hold a flow.
pub fn occupied(buckets: &[Bucket]) -> usize {
    use nlb_common::flow::Choice;
    buckets
        .iter()
        .flat_map(|bucket| &bucket.entries)
        .filter(|entry| entry.choice.load() != Choice::EMPTY)
        .count()
}
