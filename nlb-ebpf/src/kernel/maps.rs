//! [`Tables`] over the kernel's maps.

use core::ops::Deref;

use aya_ebpf::{
    btf_maps::{
        Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf,
        lpm_trie::Key as Prefix,
    },
    helpers::generated::bpf_jiffies64,
    macros::btf_map,
    programs::XdpContext,
};
use nlb_common::{
    address::Address,
    admission::{ALLOW, Admission, MAX_SOURCES, Source, SourceRecord},
    counter::Traffic,
    decap::SourceKey,
    early::Claim,
    event::Event,
    flow::{Bucket, far_bucket},
    fragment::{FragmentKey, FragmentRecord},
    hash::{Key, Secret},
    listener::{Listener, ListenerId, ListenerKey},
    maps::{
        EVENT_BYTES, HINT_WORDS, Header, Hints, MAX_FRAGMENTS, MAX_NEXT_HOPS, MAX_VLAN_LINKS,
        Prefilter,
    },
    next_hop::{NeighbourKey, NextHopId, NextHopSlot, VlanLink},
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
    tables::{Cookie, Handshake, Passage, PassageKind, Route, RouteQuery, Tables},
};

use super::{
    cookies, early,
    instructions::{compare_and_swap, forget, keep},
    numbers, route,
};

/// `BPF_F_MMAPABLE`: the daemon maps these and changes them word by word.
pub(super) const MMAPABLE: usize = 1 << 10;
/// `BPF_NOEXIST` of `linux/bpf.h`.
const BPF_NOEXIST: u64 = 1;
/// `BPF_F_NO_PREALLOC`.
const NO_PREALLOC: usize = 1;

// Capacities marked "set by the loader" come from the configuration.
#[btf_map]
static PREFILTER: Array<Prefilter, 1, MMAPABLE> = Array::new();
#[btf_map]
static LISTENER_INDEX: HashMap<ListenerKey, u32, 1024> = HashMap::new(); // set by the loader
#[btf_map]
static LISTENERS: Array<Listener, 1024, MMAPABLE> = Array::new(); // set by the loader
#[btf_map]
static ADMISSION: Array<Admission, 1024, MMAPABLE> = Array::new(); // set by the loader
#[btf_map]
static RULES: ArrayOfMaps<LpmTrie<SourceKey, u32, 1>, 1024> = ArrayOfMaps::new(); // set by the loader
#[btf_map]
static ADMISSION_SOURCES: LruHashMap<Source, SourceRecord, { MAX_SOURCES as usize }> =
    LruHashMap::new();
#[btf_map]
static RINGS: ArrayOfMaps<Array<Ring, 1, MMAPABLE>, 1024> = ArrayOfMaps::new(); // set by the loader
#[btf_map]
static RING_BASES: ArrayOfMaps<Array<Ring, 1, MMAPABLE>, 1024> = ArrayOfMaps::new(); // set by the loader
#[btf_map]
static LISTENER_HINTS: Array<Hints, 1, MMAPABLE> = Array::new();
#[btf_map]
static TARGETS: Array<Target, 4096, MMAPABLE> = Array::new(); // set by the loader
#[btf_map]
static TUNNELS: Array<TunnelSlot, 1024, MMAPABLE> = Array::new(); // set by the loader
#[btf_map]
static NEXT_HOPS: Array<NextHopSlot, { MAX_NEXT_HOPS as usize }, MMAPABLE> = Array::new();
#[btf_map]
static NEXT_HOP_INDEX: HashMap<NeighbourKey, u32, { MAX_NEXT_HOPS as usize }, NO_PREALLOC> =
    HashMap::new();
#[btf_map]
static VLAN_LINKS: HashMap<u32, u64, { MAX_VLAN_LINKS as usize }, NO_PREALLOC> = HashMap::new();
#[btf_map]
static SERVER_IDS: HashMap<ServerIdKey, u32, 4096, NO_PREALLOC> = HashMap::new(); // set by the loader
#[btf_map]
static FLOWS: Array<Bucket, 1024, MMAPABLE> = Array::new(); // set by the loader
#[btf_map]
static SPILLS: Array<Word, 64, MMAPABLE> = Array::new(); // set by the loader
#[btf_map]
static FRAGMENTS: LruHashMap<FragmentKey, FragmentRecord, { MAX_FRAGMENTS as usize }> =
    LruHashMap::new();
#[btf_map]
static TRANSLATIONS: Array<Translations, 1, MMAPABLE> = Array::new(); // set by the loader
#[btf_map]
static SOURCES: Array<SourceBucket, 1, MMAPABLE> = Array::new(); // set by the loader
#[btf_map]
static SEQUENCES: Array<Sequences, 1, MMAPABLE> = Array::new(); // set by the loader
#[btf_map]
static SNAT_POOL: Array<Pool, 1, MMAPABLE> = Array::new();
#[btf_map]
static LISTENER_COUNTERS: PerCpuArray<Traffic, 1024> = PerCpuArray::new(); // set by the loader
#[btf_map]
static TARGET_COUNTERS: PerCpuArray<Traffic, 4096> = PerCpuArray::new(); // set by the loader
#[btf_map]
static STOP_COUNTERS: PerCpuArray<u64, { Stop::COUNT }> = PerCpuArray::new();
#[btf_map]
static HANDOVER: PerCpuArray<u64, 1> = PerCpuArray::new();
#[btf_map]
static ERROR_BUDGET: PerCpuArray<u64, 1> = PerCpuArray::new();
#[btf_map]
static EVENTS: RingBuf<Event, { EVENT_BYTES as usize }> = RingBuf::new();
#[btf_map]
static HEADER: Array<Header, 1, MMAPABLE> = Array::new();

/// Patched by the loader. Each field is read for itself: reading the whole would double the
/// verifier's work. In a section, and so in a map, of its own, where `nlb explain` reads what a running
/// program was loaded with ([`nlb_common::settings::SECTION`]).
#[unsafe(link_section = ".rodata.nlb")]
#[unsafe(no_mangle)]
static SETTINGS: Settings = Settings {
    select_key: Key {
        seed: 0,
        words: [0; 5],
    },
    table_key: Key {
        seed: 0,
        words: [0; 5],
    },
    bucket_mask: 0,
    near_mask: 0,
    log_faults: 0,
    tick_shift: 8,
    translates_sources: 0,
    pins_on_change: 0,
    makes_cookies: 0,
    reserved: 0,
};

/// Reads one of the loader's constants where it stands.
macro_rules! setting {
    ($field:expr) => {{
        let place = &raw const $field;
        // SAFETY: a field of a static that lives as long as the program and that nobody writes
        // after loading; volatile, because the compiler must not take the value it knows.
        unsafe { place.read_volatile() }
    }};
}

/// The key that places flows.
struct TableKey;

impl Secret for TableKey {
    #[inline(always)]
    fn seed(&self) -> u64 {
        setting!(SETTINGS.table_key.seed)
    }

    #[inline(always)]
    fn word(&self, index: usize) -> u64 {
        match index {
            0 => setting!(SETTINGS.table_key.words[0]),
            1 => setting!(SETTINGS.table_key.words[1]),
            2 => setting!(SETTINGS.table_key.words[2]),
            3 => setting!(SETTINGS.table_key.words[3]),
            _ => setting!(SETTINGS.table_key.words[4]),
        }
    }
}

/// The key that chooses targets.
struct SelectKey;

impl Secret for SelectKey {
    #[inline(always)]
    fn seed(&self) -> u64 {
        setting!(SETTINGS.select_key.seed)
    }

    #[inline(always)]
    fn word(&self, index: usize) -> u64 {
        match index {
            0 => setting!(SETTINGS.select_key.words[0]),
            1 => setting!(SETTINGS.select_key.words[1]),
            2 => setting!(SETTINGS.select_key.words[2]),
            3 => setting!(SETTINGS.select_key.words[3]),
            _ => setting!(SETTINGS.select_key.words[4]),
        }
    }
}

/// VERIFIER: a key of aya's is packed, and the stack has no unaligned words.
#[repr(align(8))]
struct Placed(Prefix<SourceKey>);

/// The kernel's maps, and the packet's context, which the kernel's routes are asked with.
pub(crate) struct Maps<'c> {
    /// The context.
    pub(crate) context: &'c XdpContext,
}

/// Whether faults of the daemon are logged.
#[inline(always)]
pub(crate) fn logs_faults() -> bool {
    setting!(SETTINGS.log_faults) != 0
}

impl Tables for Maps<'_> {
    #[inline(always)]
    fn table_key(&self) -> impl Secret {
        TableKey
    }

    #[inline(always)]
    fn select_key(&self) -> impl Secret {
        SelectKey
    }

    #[inline(always)]
    fn now(&self) -> Tick {
        // SAFETY: a helper without arguments, which the JIT replaces by a load.
        let jiffies = unsafe { bpf_jiffies64() };
        Tick::of_jiffies(jiffies, setting!(SETTINGS.tick_shift))
    }

    #[inline(always)]
    fn prefilter(&self) -> Option<&Prefilter> {
        PREFILTER.get(0)
    }

    #[inline(always)]
    fn listener_id(&self, key: &ListenerKey) -> Option<ListenerId> {
        // SAFETY: the value is copied at once; the daemon replaces it as a whole or deletes it, and
        // a deleted element that is reused holds another listener's id, whose record is then
        // compared with the packet by no one worse off than one packet earlier.
        let id = unsafe { LISTENER_INDEX.get(key) }?;
        u16::try_from(*id).ok().map(ListenerId)
    }

    #[inline(always)]
    fn listener(&self, id: ListenerId) -> Option<&Listener> {
        LISTENERS.get(u32::from(id.0))
    }

    #[inline(always)]
    fn admission(&self, id: ListenerId) -> Option<&Admission> {
        ADMISSION.get(u32::from(id.0))
    }

    #[inline(always)]
    fn admits(&self, listener: ListenerId, source: Address) -> bool {
        let key = Placed(Prefix::new(SourceKey::BITS, SourceKey::of(source)));
        let Some(verdict) = RULES.get_value_ptr_mut(u32::from(listener.0), &key.0) else {
            return false;
        };
        // SAFETY: nobody writes into a set of rules that packets can see, and the kernel frees it
        // when no program that has found it runs any more.
        unsafe { *verdict == ALLOW }
    }

    #[inline(always)]
    fn source(&self, source: &Source) -> Option<impl Deref<Target = SourceRecord>> {
        // SAFETY: words change by compare and swap; at worst they have become another source's in
        // the meantime, which is then counted one flow too much.
        let mut record = unsafe { ADMISSION_SOURCES.get(source) };
        if record.is_none() {
            // If another processor was quicker, its record is found below.
            let _ = ADMISSION_SOURCES.insert(source, SourceRecord::default(), BPF_NOEXIST);
            // SAFETY: as above.
            record = unsafe { ADMISSION_SOURCES.get(source) };
        }
        record
    }

    #[inline(always)]
    fn target(&self, id: TargetId) -> Option<&Target> {
        TARGETS.get(id.0)
    }

    #[inline(always)]
    fn tunnel(&self, group: u16) -> Option<&TunnelSlot> {
        TUNNELS.get(u32::from(group))
    }

    #[inline(always)]
    fn ring_slot(&self, group: u16, slot: usize) -> Option<Slot> {
        let ring = RINGS.get_value(u32::from(group), &0)?;
        Some(Slot(*ring.slots.get(slot)?))
    }

    #[inline(always)]
    fn base_slot(&self, group: u16, slot: usize) -> Option<TargetId> {
        let bases = RING_BASES.get_value(u32::from(group), &0)?;
        Slot(*bases.slots.get(slot)?).target()
    }

    #[inline(always)]
    fn pins_on_change(&self) -> bool {
        setting!(SETTINGS.pins_on_change) != 0
    }

    #[inline(always)]
    fn hint(&self, number: u16) -> ListenerId {
        let Some(hints) = LISTENER_HINTS.get(0) else {
            return ListenerId(0);
        };
        let (word, shift) = Hints::place(number);
        // Masked for the verifier; no number leads to a larger one.
        match hints.words.get(word & (HINT_WORDS - 1)) {
            Some(word) => ListenerId((word.load() >> shift) as u16),
            None => ListenerId(0),
        }
    }

    #[inline(always)]
    fn server(&self, key: &ServerIdKey) -> Option<TargetId> {
        // SAFETY: four bytes, copied at once; a deleted element that is reused names another
        // target, whose record is then compared with nothing: its packet goes to a server that does
        // not know the connection, which the packet's own would not have kept either.
        let id = unsafe { SERVER_IDS.get(key) }?;
        Some(TargetId(*id))
    }

    #[inline(always)]
    fn bucket(&self, hash: u32) -> Option<&Bucket> {
        FLOWS.get(hash & setting!(SETTINGS.bucket_mask))
    }

    #[inline(always)]
    fn near(&self, hash: u32) -> u32 {
        hash & setting!(SETTINGS.near_mask)
    }

    #[inline(always)]
    fn far(&self, hash: u32) -> u32 {
        far_bucket(
            hash,
            setting!(SETTINGS.near_mask),
            setting!(SETTINGS.bucket_mask),
        )
    }

    #[inline(always)]
    fn spill(&self, near: u32) -> Option<&Word> {
        SPILLS.get(near)
    }

    #[inline(always)]
    fn bucket_number(&self, hash: u32) -> u32 {
        hash & setting!(SETTINGS.bucket_mask)
    }

    #[inline(always)]
    fn translates_sources(&self) -> bool {
        setting!(SETTINGS.translates_sources) != 0
    }

    #[inline(always)]
    fn makes_cookies(&self) -> bool {
        setting!(SETTINGS.makes_cookies) != 0
    }

    #[inline(always)]
    fn make_cookie(&self, handshake: &Handshake, segment_bytes: u16) -> Option<Cookie> {
        cookies::make(handshake, segment_bytes)
    }

    #[inline(always)]
    fn is_cookie(&self, handshake: &Handshake, number: u32) -> bool {
        cookies::is_one(handshake, number)
    }

    #[inline(always)]
    fn sequences(&self, bucket: u32) -> Option<&Sequences> {
        SEQUENCES.get(bucket & setting!(SETTINGS.bucket_mask))
    }

    #[inline(always)]
    fn pool(&self) -> Option<&Pool> {
        SNAT_POOL.get(0)
    }

    #[inline(always)]
    fn translations(&self, bucket: u32) -> Option<&Translations> {
        TRANSLATIONS.get(bucket & setting!(SETTINGS.bucket_mask))
    }

    #[inline(always)]
    fn source_bucket(&self, hash: u32) -> Option<&SourceBucket> {
        SOURCES.get(hash & setting!(SETTINGS.bucket_mask))
    }

    #[inline(always)]
    fn swap(&self, word: &Word, seen: u64, new: u64) -> bool {
        compare_and_swap(word, seen, new)
    }

    #[inline(always)]
    fn forget(&self, value: u64, unknown: u64) -> u64 {
        forget(value, unknown)
    }

    #[inline(always)]
    fn keep(&self, value: u64) -> u64 {
        keep(value)
    }

    #[inline(always)]
    fn next_hop(&self, id: NextHopId) -> Option<&NextHopSlot> {
        NEXT_HOPS.get(u32::from(id.0))
    }

    #[inline(always)]
    fn next_hop_id(&self, neighbour: &NeighbourKey) -> Option<NextHopId> {
        // SAFETY: copied at once, and compared with what the routes said before it is used.
        let id = unsafe { NEXT_HOP_INDEX.get(neighbour) }?;
        u16::try_from(*id).ok().map(NextHopId)
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentRecord> {
        // SAFETY: copied at once. An element that is given to another datagram meanwhile says so
        // (`FragmentRecord::is_for`).
        unsafe { FRAGMENTS.get(key) }.copied()
    }

    #[inline(always)]
    fn remember_fragment(&self, key: &FragmentKey, record: &FragmentRecord) {
        // Fails only if other cores have all free elements in hand: then the later fragments are
        // stopped, and counted.
        let _ = FRAGMENTS.insert(key, record, 0);
    }

    #[inline(always)]
    fn keep_early<F: Frame>(&self, frame: &F, key: &FragmentKey, claim: Claim) -> bool {
        early::keep(frame, key, claim)
    }

    #[inline(always)]
    fn next_identification(&self, hash: u32) -> u32 {
        numbers::next(hash)
    }

    #[inline(always)]
    fn route(&self, query: &RouteQuery) -> Result<Route, Stop> {
        let vlan_link = |interface| {
            // SAFETY: copied at once, eight bytes that change as a whole.
            unsafe { VLAN_LINKS.get(&interface) }.map(|word| VlanLink::of_word(*word))
        };
        route::look_up(self.context, query, vlan_link, |event| self.tell(event))
    }

    #[inline(always)]
    fn count(&self, passage: &Passage) {
        add(
            LISTENER_COUNTERS.get_ptr_mut(u32::from(passage.listener.0)),
            passage,
        );
        add(TARGET_COUNTERS.get_ptr_mut(passage.target.0), passage);
    }

    #[inline(always)]
    fn count_stop(&self, stop: Stop) {
        if let Some(count) = STOP_COUNTERS.get_ptr_mut(stop as u32) {
            // SAFETY: this CPU's own value, and XDP programs do not interrupt each other on a CPU.
            unsafe { *count += 1 };
        }
    }

    #[inline(always)]
    fn hand_over(&self, word: u64) {
        put(HANDOVER.get_ptr_mut(0), word);
    }

    #[inline(always)]
    fn handed_over(&self) -> u64 {
        take(HANDOVER.get_ptr(0))
    }

    #[inline(always)]
    fn error_budget(&self) -> u64 {
        take(ERROR_BUDGET.get_ptr(0))
    }

    #[inline(always)]
    fn set_error_budget(&self, budget: u64) {
        put(ERROR_BUDGET.get_ptr_mut(0), budget);
    }

    #[inline(always)]
    fn tell(&self, event: &Event) {
        // A full buffer means that the daemon has work already.
        let _ = EVENTS.output(*event, 0);
    }
}

/// Reads this CPU's word.
#[inline(always)]
fn take(place: Option<*const u64>) -> u64 {
    match place {
        // SAFETY: this CPU's own value, and XDP programs do not interrupt each other on a CPU.
        Some(place) => unsafe { *place },
        None => 0,
    }
}

/// Writes this CPU's word.
#[inline(always)]
fn put(place: Option<*mut u64>, word: u64) {
    if let Some(place) = place {
        // SAFETY: as in `take`.
        unsafe { *place = word };
    }
}

#[inline(always)]
fn add(traffic: Option<*mut Traffic>, passage: &Passage) {
    let Some(traffic) = traffic else {
        return;
    };
    // SAFETY: this CPU's own value, and XDP programs do not interrupt each other on a CPU.
    let traffic = unsafe { &mut *traffic };
    let bytes = u64::from(passage.length_bytes);
    match passage.kind {
        PassageKind::Return => {
            traffic.return_packets += 1;
            traffic.return_bytes += bytes;
        }
        kind => {
            traffic.packets += 1;
            traffic.bytes += bytes;
            if matches!(kind, PassageKind::New) {
                traffic.new_flows += 1;
            }
            if matches!(kind, PassageKind::Unpinned) {
                traffic.unpinned_packets += 1;
            }
        }
    }
}
