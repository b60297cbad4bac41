//! [`Tables`] over the maps of a running program, for a packet that nobody sends: each record is copied
//! when the packet first asks for it, and whatever the packet changes is changed in the copy.
//!
//! So the snapshot costs what the packet asks for, whatever the size of the flow table, and nothing is
//! ever written to a map that packets use.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    ops::Deref,
};

use aya::maps::{
    Array, ArrayOfMaps, HashMap, LpmTrie, MapData, MapError, PerCpuArray, lpm_trie::Key as Prefix,
};
use elsa::FrozenMap;
use nlb_common::{
    address::Address,
    admission::{ALLOW, Admission, Source, SourceRecord},
    decap::SourceKey,
    early::{Claim, FRAME_BYTES},
    event::Event,
    flow::{Bucket, far_bucket},
    fragment::{FragmentKey, FragmentRecord, Identifications},
    hash::Secret,
    listener::{Listener, ListenerId, ListenerKey},
    maps::{Hints, Prefilter},
    next_hop::{NeighbourKey, NextHopId, NextHopSlot, VlanLink},
    plain::Plain,
    quic::ServerIdKey,
    ring::{Ring, Slot},
    sequence::Sequences,
    settings::Settings,
    source::{Pool, SourceBucket, Translations},
    stop::Stop,
    target::{Target, TargetId},
    tick::Tick,
    tunnel::TunnelSlot,
    word::Word,
};
use nlb_ebpf::{
    frame::Frame,
    tables::{Cookie, Handshake, Passage, Route, RouteQuery, Tables},
};
use zerocopy::FromBytes;

use super::{DataplaneError, kernel::map_error, routes::Routes, running::Running};
use crate::clock;

/// Records of an array map, each copied when it is asked for.
struct Copies<R, const N: usize> {
    name: &'static str,
    map: Array<MapData, [u8; N]>,
    made: FrozenMap<u32, Box<R>>,
}

impl<R: FromBytes, const N: usize> Copies<R, N> {
    const SIZE: () = assert!(size_of::<R>() == N, "N is the size of a record");

    fn of(running: &Running, name: &'static str) -> Result<Self, DataplaneError> {
        const { Self::SIZE };
        Ok(Self {
            name,
            map: running.map(name)?,
            made: FrozenMap::new(),
        })
    }

    /// Which records were asked for.
    fn asked(self) -> Asked {
        (self.name, self.made.into_map().into_keys().collect())
    }

    fn get(&self, index: u32, failure: &Failure) -> Option<&R> {
        if let Some(record) = self.made.get(&index) {
            return Some(record);
        }
        if index >= self.map.len() {
            return None;
        }
        let bytes = failure.none(self.map.get(&index, 0), self.name)?;
        let record = R::read_from_bytes(&bytes).ok()?;
        Some(self.made.insert(index, Box::new(record)))
    }
}

/// The first thing that could not be read.
#[derive(Default)]
struct Failure(RefCell<Option<DataplaneError>>);

impl Failure {
    /// What was read; what is not there is none.
    fn none<V>(&self, read: Result<V, MapError>, map: &'static str) -> Option<V> {
        match read {
            Ok(value) => Some(value),
            Err(MapError::KeyNotFound | MapError::ElementNotFound) => None,
            Err(error) => {
                self.note(map_error("read", map)(error));
                None
            }
        }
    }

    fn note(&self, error: DataplaneError) {
        self.0.borrow_mut().get_or_insert(error);
    }
}

/// A ring's map.
pub(super) type RingMap = ArrayOfMaps<MapData, Array<MapData, Plain<Ring>>>;
/// Listeners' rules.
pub(super) type RuleMap = ArrayOfMaps<MapData, LpmTrie<MapData, Plain<SourceKey>, u32>>;

/// Records of a map that a packet asked for.
pub(super) type Asked = (&'static str, Vec<u32>);

/// What one packet sees of the maps of a running program.
pub struct Snapshot<'r> {
    settings: Settings,
    now: Tick,
    failure: Failure,
    routes: &'r Routes,
    prefilter: Copies<Prefilter, { size_of::<Prefilter>() }>,
    listeners: Copies<Listener, { size_of::<Listener>() }>,
    admissions: Copies<Admission, { size_of::<Admission>() }>,
    targets: Copies<Target, { size_of::<Target>() }>,
    tunnels: Copies<TunnelSlot, { size_of::<TunnelSlot>() }>,
    next_hops: Copies<NextHopSlot, { size_of::<NextHopSlot>() }>,
    hints: Copies<Hints, { size_of::<Hints>() }>,
    flows: Copies<Bucket, { size_of::<Bucket>() }>,
    spills: Copies<Word, { size_of::<Word>() }>,
    translations: Copies<Translations, { size_of::<Translations>() }>,
    sources: Copies<SourceBucket, { size_of::<SourceBucket>() }>,
    sequences: Copies<Sequences, { size_of::<Sequences>() }>,
    pool: Copies<Pool, { size_of::<Pool>() }>,
    identifications: Copies<Identifications, { size_of::<Identifications>() }>,
    rings: RingMap,
    ring_bases: RingMap,
    rules: RuleMap,
    listener_index: HashMap<MapData, Plain<ListenerKey>, u32>,
    next_hop_index: HashMap<MapData, Plain<NeighbourKey>, u32>,
    vlan_links: HashMap<MapData, u32, u64>,
    server_ids: HashMap<MapData, Plain<ServerIdKey>, u32>,
    fragments: HashMap<MapData, Plain<FragmentKey>, Plain<FragmentRecord>>,
    admission_sources: HashMap<MapData, Plain<Source>, [u64; 2]>,
    counted_sources: FrozenMap<Source, Box<SourceRecord>>,
    error_budget: Cell<u64>,
    handover: Cell<u64>,
    groups: RefCell<BTreeSet<u16>>,
    asked_rules: RefCell<BTreeSet<u16>>,
}

/// What a packet asked the maps for, so far as they are not small enough to be had whole.
#[derive(Debug)]
pub struct Questions {
    pub(super) records: [Asked; 13],
    /// Rings.
    pub(super) groups: BTreeSet<u16>,
    /// Listeners' rules.
    pub(super) rules: BTreeSet<u16>,
}

impl std::fmt::Debug for Snapshot<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Snapshot(..)")
    }
}

impl<'r> Snapshot<'r> {
    /// A snapshot for one packet; the kernel's routes are asked there.
    pub fn of(running: &Running, routes: &'r Routes) -> Result<Self, DataplaneError> {
        let budgets: PerCpuArray<MapData, u64> = running.map("ERROR_BUDGET")?;
        let budgets = budgets
            .get(&0, 0)
            .map_err(map_error("read", "ERROR_BUDGET"))?;
        // As if the packet came to the processor that we are on.
        let budget = budgets.get(rustix::thread::sched_getcpu()).copied();
        Ok(Self {
            settings: running.settings,
            now: clock::now_of(running.settings.tick_shift),
            failure: Failure::default(),
            routes,
            prefilter: Copies::of(running, "PREFILTER")?,
            listeners: Copies::of(running, "LISTENERS")?,
            admissions: Copies::of(running, "ADMISSION")?,
            targets: Copies::of(running, "TARGETS")?,
            tunnels: Copies::of(running, "TUNNELS")?,
            next_hops: Copies::of(running, "NEXT_HOPS")?,
            hints: Copies::of(running, "LISTENER_HINTS")?,
            flows: Copies::of(running, "FLOWS")?,
            spills: Copies::of(running, "SPILLS")?,
            translations: Copies::of(running, "TRANSLATIONS")?,
            sources: Copies::of(running, "SOURCES")?,
            sequences: Copies::of(running, "SEQUENCES")?,
            pool: Copies::of(running, "SNAT_POOL")?,
            identifications: Copies::of(running, "IDENTIFICATIONS")?,
            rings: running.map("RINGS")?,
            ring_bases: running.map("RING_BASES")?,
            rules: running.map("RULES")?,
            listener_index: running.map("LISTENER_INDEX")?,
            next_hop_index: running.map("NEXT_HOP_INDEX")?,
            vlan_links: running.map("VLAN_LINKS")?,
            server_ids: running.map("SERVER_IDS")?,
            fragments: running.map("FRAGMENTS")?,
            admission_sources: running.map("ADMISSION_SOURCES")?,
            counted_sources: FrozenMap::new(),
            error_budget: Cell::new(budget.unwrap_or(0)),
            handover: Cell::new(0),
            groups: RefCell::default(),
            asked_rules: RefCell::default(),
        })
    }

    /// What the packet asked for. An error if any of it could not be read: then what became of the
    /// packet means nothing.
    pub fn end(self) -> Result<Questions, DataplaneError> {
        if let Some(error) = self.failure.0.into_inner() {
            return Err(error);
        }
        Ok(Questions {
            records: [
                self.prefilter.asked(),
                self.listeners.asked(),
                self.admissions.asked(),
                self.targets.asked(),
                self.tunnels.asked(),
                self.next_hops.asked(),
                self.hints.asked(),
                self.flows.asked(),
                self.translations.asked(),
                self.sources.asked(),
                self.sequences.asked(),
                self.pool.asked(),
                self.identifications.asked(),
            ],
            groups: self.groups.into_inner(),
            rules: self.asked_rules.into_inner(),
        })
    }

    fn slot(&self, rings: &RingMap, name: &'static str, group: u16, slot: usize) -> Option<Slot> {
        self.groups.borrow_mut().insert(group);
        // A ring that was never put in has no inner map.
        let ring = rings.get(&group.into(), 0).ok()?;
        let ring = self.failure.none(ring.get(&0, 0), name)?;
        Some(Slot(*ring.0.slots.get(slot)?))
    }
}

impl Tables for Snapshot<'_> {
    fn table_key(&self) -> impl Secret {
        self.settings.table_key
    }

    fn select_key(&self) -> impl Secret {
        self.settings.select_key
    }

    fn now(&self) -> Tick {
        self.now
    }

    fn prefilter(&self) -> Option<&Prefilter> {
        self.prefilter.get(0, &self.failure)
    }

    fn listener_id(&self, key: &ListenerKey) -> Option<ListenerId> {
        let id = self.listener_index.get(&Plain(*key), 0);
        let id = self.failure.none(id, "LISTENER_INDEX")?;
        u16::try_from(id).ok().map(ListenerId)
    }

    fn listener(&self, id: ListenerId) -> Option<&Listener> {
        self.listeners.get(id.0.into(), &self.failure)
    }

    fn admission(&self, id: ListenerId) -> Option<&Admission> {
        self.admissions.get(id.0.into(), &self.failure)
    }

    fn admits(&self, listener: ListenerId, source: Address) -> bool {
        self.asked_rules.borrow_mut().insert(listener.0);
        // A listener without rules has no inner map.
        let Ok(rules) = self.rules.get(&listener.0.into(), 0) else {
            return false;
        };
        let key = Prefix::new(SourceKey::BITS, Plain(SourceKey::of(source)));
        self.failure.none(rules.get(&key, 0), "RULES") == Some(ALLOW)
    }

    fn source(&self, source: &Source) -> Option<impl Deref<Target = SourceRecord>> {
        let record = self.counted_sources.get(source).unwrap_or_else(|| {
            let counted = self.admission_sources.get(&Plain(*source), 0);
            let record = SourceRecord::default();
            if let Some([window, active]) = self.failure.none(counted, "ADMISSION_SOURCES") {
                record.window.store(window);
                record.active.store(active);
            }
            self.counted_sources.insert(*source, Box::new(record))
        });
        Some(record)
    }

    fn target(&self, id: TargetId) -> Option<&Target> {
        self.targets.get(id.0, &self.failure)
    }

    fn tunnel(&self, group: u16) -> Option<&TunnelSlot> {
        self.tunnels.get(group.into(), &self.failure)
    }

    fn ring_slot(&self, group: u16, slot: usize) -> Option<Slot> {
        self.slot(&self.rings, "RINGS", group, slot)
    }

    fn base_slot(&self, group: u16, slot: usize) -> Option<TargetId> {
        self.slot(&self.ring_bases, "RING_BASES", group, slot)?
            .target()
    }

    fn pins_on_change(&self) -> bool {
        self.settings.pins_on_change != 0
    }

    fn hint(&self, number: u16) -> ListenerId {
        let hints = self.hints.get(0, &self.failure);
        hints.map_or(ListenerId(0), |hints| hints.get(number))
    }

    fn server(&self, key: &ServerIdKey) -> Option<TargetId> {
        let id = self.server_ids.get(&Plain(*key), 0);
        self.failure.none(id, "SERVER_IDS").map(TargetId)
    }

    fn bucket(&self, hash: u32) -> Option<&Bucket> {
        self.flows.get(self.bucket_number(hash), &self.failure)
    }

    fn bucket_number(&self, hash: u32) -> u32 {
        hash & self.settings.bucket_mask
    }

    fn near(&self, hash: u32) -> u32 {
        hash & self.settings.near_mask
    }

    fn far(&self, hash: u32) -> u32 {
        far_bucket(hash, self.settings.near_mask, self.settings.bucket_mask)
    }

    fn spill(&self, near: u32) -> Option<&Word> {
        self.spills.get(near, &self.failure)
    }

    fn translates_sources(&self) -> bool {
        self.settings.translates_sources != 0
    }

    fn makes_cookies(&self) -> bool {
        self.settings.makes_cookies != 0
    }

    /// Only the kernel knows which number it would be: zero stands for it.
    fn make_cookie(&self, _: &Handshake, segment_bytes: u16) -> Option<Cookie> {
        Some(Cookie {
            number: 0,
            segment_bytes,
        })
    }

    /// Only the kernel can tell: the packet is taken at its word.
    fn is_cookie(&self, _: &Handshake, _: u32) -> bool {
        true
    }

    fn sequences(&self, bucket: u32) -> Option<&Sequences> {
        self.sequences
            .get(self.bucket_number(bucket), &self.failure)
    }

    fn pool(&self) -> Option<&Pool> {
        self.pool.get(0, &self.failure)
    }

    fn translations(&self, bucket: u32) -> Option<&Translations> {
        let number = self.bucket_number(bucket);
        self.translations.get(number, &self.failure)
    }

    fn source_bucket(&self, hash: u32) -> Option<&SourceBucket> {
        self.sources.get(self.bucket_number(hash), &self.failure)
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
        self.next_hops.get(id.0.into(), &self.failure)
    }

    fn next_hop_id(&self, neighbour: &NeighbourKey) -> Option<NextHopId> {
        let id = self.next_hop_index.get(&Plain(*neighbour), 0);
        let id = self.failure.none(id, "NEXT_HOP_INDEX")?;
        u16::try_from(id).ok().map(NextHopId)
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentRecord> {
        let record = self.fragments.get(&Plain(*key), 0);
        Some(self.failure.none(record, "FRAGMENTS")?.0)
    }

    fn remember_fragment(&self, _: &FragmentKey, _: &FragmentRecord) {}

    fn keep_early<F: Frame>(&self, frame: &F, _: &FragmentKey, _: Claim) -> bool {
        // As if there were room in the ring buffer, which only the packet program can ask.
        frame.copy_to(&mut [0; FRAME_BYTES]).is_some()
    }

    fn next_identification(&self, hash: u32) -> u32 {
        let all = self.identifications.get(0, &self.failure);
        let count = all.and_then(|all| all.counter(hash)).map_or(0, |counter| {
            let count = counter.load();
            counter.store(count.wrapping_add(1));
            count
        });
        u32::try_from(count & u64::from(u32::MAX)).unwrap_or(0)
    }

    fn route(&self, query: &RouteQuery) -> Result<Route, Stop> {
        let vlan_link = |interface| {
            let word = self.vlan_links.get(&interface, 0);
            let word = self.failure.none(word, "VLAN_LINKS")?;
            Some(VlanLink::of_word(word))
        };
        self.routes.ask(query, vlan_link).unwrap_or_else(|error| {
            self.failure.note(error);
            Err(Stop::NoRoute)
        })
    }

    fn count(&self, _: &Passage) {}

    fn count_stop(&self, _: Stop) {}

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

    fn tell(&self, _: &Event) {}
}
