//! The loaded kernel program, run frame by frame (`BPF_PROG_TEST_RUN`) over maps that hold what the
//! memory body's tables hold, in a network namespace that answers as their routes do.

mod network;

use std::collections::HashMap;

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{
        Array, ArrayOfMaps, HashMap as KernelHashMap, LpmTrie, MapData, PerCpuArray, PerCpuValues,
        ProgramArray, RingBuf, lpm_trie::Key as Prefix,
    },
    programs::{TestRun as _, TestRunOptions, Xdp, xdp::XdpMode},
};
use nlb_common::{
    address::Address,
    admission::{Source, Window},
    counter::Traffic,
    decap::SourceKey,
    early::EarlyFragment,
    fragment::{COUNTERS, FragmentKey, FragmentRecord},
    listener::{ListenerId, ListenerKey},
    maps::{HINT_WORDS, Hints, PREFILTER_WORDS},
    next_hop::{NeighbourKey, VlanId, VlanLink},
    plain::Plain,
    quic::ServerIdKey,
    ring,
    settings::Settings,
    stage::Stage,
    stop::Stop,
    tick::Tick,
    word::Word,
};
use nlb_ebpf::{Verdict, memory::MemoryTables};
use nlb_userspace::dataplane::stages;
use zerocopy::{FromBytes, FromZeros as _, IntoBytes, KnownLayout};

pub use self::network::{in_lab, set_forwarding, stay_on_this_processor, unavailable};
use crate::world::VLANS;

/// The shortest frame that the kernel runs a program on, in bytes.
pub const SHORTEST_FRAME_BYTES: usize = 14;
/// `BPF_F_MMAPABLE`.
const MMAPABLE: u32 = 1 << 10;
/// A tick of so many jiffies, as a power of two, that none has ended yet.
const STANDSTILL: u32 = 63;
/// `BPF_F_NO_PREALLOC`.
const NO_PREALLOC: u32 = 1;

/// The loaded program and its maps.
pub struct Kernel {
    ebpf: Ebpf,
    // Kept: the kernel empties an array of programs that nobody holds.
    _stages: ProgramArray<MapData>,
    rings: HashMap<(&'static str, u16), (Vec<u32>, RingMap)>,
    rules: HashMap<ListenerId, Vec<(Address, u8, u32)>>,
    early_ring: RingBuf<MapData>,
    early: Vec<EarlyFragment>,
}

/// A ring's inner map.
type RingMap = Array<MapData, Plain<ring::Ring>>;
/// A listener's rules.
type RuleMap = LpmTrie<MapData, Plain<SourceKey>, u32>;

/// What first fragments left.
type FragmentMap<'k> = KernelHashMap<&'k mut MapData, Plain<FragmentKey>, Plain<FragmentRecord>>;

/// A record's bytes, as a map's value.
fn value<const N: usize>(record: &mut (impl IntoBytes + FromBytes + KnownLayout)) -> [u8; N] {
    record
        .as_mut_bytes()
        .try_into()
        .expect("N is the record's size")
}

impl Kernel {
    /// The tick at which the clock of [`Self::load`] stands.
    pub const NOW: Tick = Tick(0);

    /// Loads the program with the settings and capacities of these tables, and their contents.
    ///
    /// Must be called [`in_lab`]: the program is attached to the links, because the kernel runs a
    /// program for an interface only when the interface's queues are set up for XDP.
    ///
    /// Its clock stands still at [`Self::NOW`], so that no outcome hangs on how long anything takes.
    pub fn load(object: &[u8], tables: &mut MemoryTables) -> Result<Self> {
        Self::load_with(object, tables, STANDSTILL)
    }

    /// The same, with a clock that goes as the daemon lets it.
    pub fn load_ticking(object: &[u8], tables: &mut MemoryTables) -> Result<Self> {
        let shift = nlb_userspace::clock::of_this_kernel().shift;
        Self::load_with(object, tables, shift)
    }

    fn load_with(object: &[u8], tables: &mut MemoryTables, tick_shift: u32) -> Result<Self> {
        let settings = Plain(Settings {
            select_key: tables.select_key,
            table_key: tables.table_key,
            bucket_mask: u32::try_from(tables.buckets.len() - 1)?,
            near_mask: u32::try_from(tables.spills.len() - 1)?,
            log_faults: 1,
            tick_shift,
            translates_sources: tables.translates_sources.into(),
            pins_on_change: tables.pins_on_change.into(),
            makes_cookies: tables.makes_cookies.into(),
            reserved: 0,
        });
        let (listeners, targets) = (
            u32::try_from(tables.listeners.len())?,
            u32::try_from(tables.targets.len())?,
        );
        let mut ebpf = EbpfLoader::new()
            .override_global("SETTINGS", &settings, true)
            .map_max_entries("FLOWS", settings.0.bucket_mask + 1)
            .map_max_entries("SPILLS", settings.0.near_mask + 1)
            .map_max_entries("TRANSLATIONS", settings.0.bucket_mask + 1)
            .map_max_entries("SOURCES", settings.0.bucket_mask + 1)
            .map_max_entries("SEQUENCES", settings.0.bucket_mask + 1)
            .map_max_entries("LISTENERS", listeners)
            .map_max_entries("ADMISSION", listeners)
            .map_max_entries("RULES", listeners)
            .map_max_entries("LISTENER_INDEX", 2 * listeners)
            .map_max_entries("LISTENER_COUNTERS", listeners)
            .map_max_entries("TARGETS", targets)
            .map_max_entries("TARGET_COUNTERS", targets)
            .map_max_entries("TUNNELS", u32::try_from(tables.tunnels.len())?)
            .load(object)
            .context("loading the kernel program's maps")?;
        let stages = stages::load(&mut ebpf).context("the verifier")?;
        let program = stages::program(&mut ebpf, Stage::FRONT_PROGRAM)?;
        for name in ["eth0", "eth1"] {
            program
                .attach(name, XdpMode::default())
                .with_context(|| format!("attaching to {name}"))?;
        }
        let early_ring = ebpf.take_map("EARLY").context("no map EARLY")?;
        let mut kernel = Self {
            early_ring: RingBuf::try_from(early_ring)?,
            early: Vec::new(),
            ebpf,
            _stages: stages,
            rings: HashMap::new(),
            rules: HashMap::new(),
        };
        kernel.write(tables)?;
        kernel.write_flows(tables)?;
        Ok(kernel)
    }

    /// The number under which the kernel knows the front stage.
    pub fn program_id(&self) -> Result<u32> {
        let program = self.ebpf.program(Stage::FRONT_PROGRAM);
        let program: &Xdp = program.context("no front stage")?.try_into()?;
        Ok(program.info()?.id())
    }

    /// How many instructions the verifier followed in a program.
    pub fn verified_instructions(&self, name: &str) -> Result<u32> {
        let program: &Xdp = self
            .ebpf
            .program(name)
            .with_context(|| format!("no program `{name}`"))?
            .try_into()?;
        program
            .info()?
            .verified_instruction_count()
            .context("this kernel does not say what it verified (before 5.16)")
    }

    fn array<V: Pod>(&mut self, name: &str) -> Result<Array<&mut MapData, V>> {
        let map = self
            .ebpf
            .map_mut(name)
            .with_context(|| format!("no map {name}"))?;
        Array::try_from(map).with_context(|| format!("the map {name}"))
    }

    fn write_array<const N: usize>(
        &mut self,
        name: &str,
        records: &mut [impl IntoBytes + FromBytes + KnownLayout],
    ) -> Result<()> {
        let mut map = self.array::<[u8; N]>(name)?;
        for (index, record) in records.iter_mut().enumerate() {
            map.set(u32::try_from(index)?, value::<N>(record), 0)?;
        }
        Ok(())
    }

    fn write_hash<K: Pod + PartialEq, V: Pod>(
        &mut self,
        name: &str,
        wanted: &[(K, V)],
    ) -> Result<()> {
        let map = self
            .ebpf
            .map_mut(name)
            .with_context(|| format!("no map {name}"))?;
        let mut map = KernelHashMap::<_, K, V>::try_from(map)?;
        let old: Vec<K> = map.keys().collect::<Result<_, _>>()?;
        for key in old {
            if wanted.iter().all(|(wanted, _)| *wanted != key) {
                map.remove(&key)?;
            }
        }
        for (key, id) in wanted {
            map.insert(key, id, 0)?;
        }
        Ok(())
    }

    /// Writes everything but the flow table and the counters.
    pub fn write(&mut self, tables: &mut MemoryTables) -> Result<()> {
        let mut prefilter = [0u64; PREFILTER_WORDS];
        for (word, seen) in prefilter.iter_mut().zip(&tables.prefilter.words) {
            *word = seen.load();
        }
        self.array::<[u64; PREFILTER_WORDS]>("PREFILTER")?
            .set(0, prefilter, 0)?;
        self.write_array::<64>("LISTENERS", &mut tables.listeners)?;
        self.write_array::<64>("ADMISSION", &mut tables.admissions)?;
        self.write_rules(tables)?;
        self.write_array::<32>("TARGETS", &mut tables.targets)?;
        self.write_array::<64>("TUNNELS", &mut tables.tunnels)?;
        self.write_array::<32>("NEXT_HOPS", &mut tables.next_hops)?;
        self.write_array::<3072>("SNAT_POOL", std::slice::from_mut(&mut tables.pool))?;
        let index: Vec<(Plain<ListenerKey>, u32)> = tables
            .listener_index
            .iter()
            .map(|(key, id)| (Plain(*key), u32::from(id.0)))
            .collect();
        self.write_hash("LISTENER_INDEX", &index)?;
        let index: Vec<(Plain<NeighbourKey>, u32)> = tables
            .next_hop_index
            .iter()
            .map(|(key, id)| (Plain(*key), u32::from(id.0)))
            .collect();
        self.write_hash("NEXT_HOP_INDEX", &index)?;
        self.write_error_budget(tables.error_budget.get())?;
        let index: Vec<(Plain<ServerIdKey>, u32)> = tables
            .server_ids
            .iter()
            .map(|(key, id)| (Plain(*key), id.0))
            .collect();
        self.write_hash("SERVER_IDS", &index)?;
        let map = self.ebpf.map_mut("VLAN_LINKS").context("no VLAN_LINKS")?;
        let mut map = KernelHashMap::<_, u32, u64>::try_from(map)?;
        for (_, index, carrier, vlan, _) in VLANS {
            let link = VlanLink {
                carrier: *carrier,
                vlan: VlanId(*vlan),
            };
            map.insert(index, link.to_word(), 0)?;
        }
        // Packets see a base no later than the slot that it is the base of.
        for (group, slots) in &tables.ring_bases {
            self.write_ring("RING_BASES", *group, slots)?;
        }
        for (group, slots) in &tables.rings {
            self.write_ring("RINGS", *group, slots)?;
        }
        let mut hints: Box<[u64; HINT_WORDS]> = vec![0; HINT_WORDS]
            .into_boxed_slice()
            .try_into()
            .expect("as long as it was made");
        for (number, id) in &tables.hints {
            let (word, shift) = Hints::place(*number);
            hints[word] |= u64::from(id.0) << shift;
        }
        self.array::<[u64; HINT_WORDS]>("LISTENER_HINTS")?
            .set(0, hints.as_ref(), 0)?;
        Ok(())
    }

    fn write_rules(&mut self, tables: &MemoryTables) -> Result<()> {
        let sources: Vec<(Plain<Source>, [u64; 2])> = tables
            .admission_sources
            .borrow()
            .iter()
            .map(|(source, record)| {
                let words = [record.window.load(), record.active.load()];
                (Plain(*source), words)
            })
            .collect();
        self.write_hash("ADMISSION_SOURCES", &sources)?;
        for (listener, rules) in &tables.rules {
            if self.rules.get(listener) == Some(rules) {
                continue;
            }
            let mut inner = RuleMap::create(u32::try_from(rules.len().max(1))?, NO_PREALLOC)?;
            for (prefix, bits, verdict) in rules {
                let bits = SourceKey::BITS_BEFORE + u32::from(*bits);
                let key = Prefix::new(bits, Plain(SourceKey::of(*prefix)));
                inner.insert(&key, verdict, 0)?;
            }
            let map = self.ebpf.map_mut("RULES").context("no map RULES")?;
            ArrayOfMaps::<_, RuleMap>::try_from(map)?
                .set(u32::from(listener.0), &inner, 0)
                .context("setting rules")?;
            self.rules.insert(*listener, rules.clone());
        }
        Ok(())
    }

    /// How many prefixes the kernel holds in a listener's rules.
    pub fn count_rules(&mut self, listener: ListenerId) -> Result<usize> {
        let map = self.ebpf.map_mut("RULES").context("no map RULES")?;
        let inner: RuleMap = ArrayOfMaps::<_, RuleMap>::try_from(map)?
            .get(&u32::from(listener.0), 0)
            .context("finding rules")?;
        let mut count = 0;
        for key in inner.keys() {
            key?;
            count += 1;
        }
        Ok(count)
    }

    /// Where what was counted against limits differs from the memory body's.
    pub fn admission_difference(&mut self, tables: &MemoryTables) -> Result<Option<String>> {
        let records = self.array::<[u64; 8]>("ADMISSION")?;
        for (index, memory) in tables.admissions.iter().enumerate() {
            let record = records.get(&u32::try_from(index)?, 0)?;
            let ours = [&memory.window, &memory.active, &memory.pressure].map(Word::load);
            if [record[3], record[4], record[6]] != ours {
                return Ok(Some(format!(
                    "listener {index}: {record:x?}, memory {ours:x?}"
                )));
            }
        }
        let map = self
            .ebpf
            .map_mut("ADMISSION_SOURCES")
            .context("no map ADMISSION_SOURCES")?;
        let map = KernelHashMap::<_, Plain<Source>, [u64; 2]>::try_from(map)?;
        let theirs: HashMap<Source, (Window, u64)> = map
            .iter()
            .map(|entry| {
                entry
                    .map(|(source, [window, active])| (source.0, (Window::of_word(window), active)))
            })
            .collect::<Result<_, _>>()?;
        let ours = tables.admission_sources.borrow();
        let is_same = ours.iter().all(|(source, record)| {
            let memory = (Window::of_word(record.window.load()), record.active.load());
            theirs.get(source) == Some(&memory)
        });
        Ok((!is_same || theirs.len() != ours.len())
            .then(|| format!("sources: {theirs:x?}, memory {ours:x?}")))
    }

    /// Gives every CPU the same budget of ICMP errors.
    fn write_error_budget(&mut self, budget: u64) -> Result<()> {
        let map = self
            .ebpf
            .map_mut("ERROR_BUDGET")
            .context("no map ERROR_BUDGET")?;
        let mut map = PerCpuArray::<_, u64>::try_from(map)?;
        let cpus = map.get(&0, 0)?.len();
        let values = PerCpuValues::try_from(vec![budget; cpus])?;
        map.set(0, values, 0).context("setting ERROR_BUDGET")
    }

    fn write_ring(&mut self, map: &'static str, group: u16, slots: &[u32]) -> Result<()> {
        let place = (map, group);
        if (self.rings.get(&place)).is_some_and(|(old, _)| old == slots) {
            return Ok(());
        }
        // On the heap: a quarter of a megabyte.
        let mut value = Box::new(Plain(ring::Ring::new_zeroed()));
        value.0.slots.copy_from_slice(slots);
        let mut inner = RingMap::create(1, MMAPABLE)?;
        inner.set(0, value.as_ref(), 0)?;
        let map = self.ebpf.map_mut(map).context("no map of rings")?;
        let mut rings = ArrayOfMaps::<_, RingMap>::try_from(map)?;
        rings
            .set(u32::from(group), &inner, 0)
            .context("setting a ring")?;
        self.rings.insert(place, (slots.to_vec(), inner));
        Ok(())
    }

    fn fragments(&mut self) -> Result<FragmentMap<'_>> {
        let map = self.ebpf.map_mut("FRAGMENTS").context("no map FRAGMENTS")?;
        Ok(KernelHashMap::try_from(map)?)
    }

    fn write_fragments(&mut self, tables: &MemoryTables) -> Result<()> {
        let mut map = self.fragments()?;
        let old: Vec<Plain<FragmentKey>> = map.keys().collect::<Result<_, _>>()?;
        for key in old {
            map.remove(&key)?;
        }
        for (key, record) in tables.fragments.borrow().iter() {
            map.insert(Plain(*key), Plain(*record), 0)?;
        }
        Ok(())
    }

    fn fragment_difference(&mut self, tables: &MemoryTables) -> Result<Option<String>> {
        let mut memory = tables.fragments.borrow().clone();
        for entry in &self.fragments()? {
            let (Plain(key), Plain(record)) = entry?;
            let ours = memory.remove(&key);
            if ours != Some(record) {
                return Ok(Some(format!("{key:?}: kernel {record:?}, memory {ours:?}")));
            }
        }
        if !memory.is_empty() {
            return Ok(Some(format!("only in memory: {memory:?}")));
        }
        let given = self
            .array::<[u64; COUNTERS]>("IDENTIFICATIONS")?
            .get(&0, 0)?;
        let ours = tables.identifications.counters.iter().map(Word::load);
        let is_same = ours.eq(given);
        Ok((!is_same).then(|| format!("numbers were given otherwise: {given:?}")))
    }

    /// Replaces what is remembered: flows, and fragmented datagrams.
    pub fn write_flows(&mut self, tables: &mut MemoryTables) -> Result<()> {
        self.write_fragments(tables)?;
        let numbers = std::slice::from_mut(&mut tables.identifications);
        self.write_array::<{ 8 * COUNTERS }>("IDENTIFICATIONS", numbers)?;
        self.write_array::<128>("FLOWS", &mut tables.buckets)?;
        self.write_array::<8>("SPILLS", &mut tables.spills)?;
        self.write_array::<32>("TRANSLATIONS", &mut tables.translations)?;
        self.write_array::<64>("SOURCES", &mut tables.sources)
    }

    /// The flow table: each bucket as sixteen words.
    pub fn flows(&mut self) -> Result<Vec<[u64; 16]>> {
        Ok(self
            .array::<[u64; 16]>("FLOWS")?
            .iter()
            .collect::<Result<_, _>>()?)
    }

    /// Where what is remembered here and in the memory body differs.
    pub fn flow_difference(&mut self, tables: &mut MemoryTables) -> Result<Option<String>> {
        if let Some(difference) = self.fragment_difference(tables)? {
            return Ok(Some(difference));
        }
        if let Some(difference) = self.source_difference(tables)? {
            return Ok(Some(difference));
        }
        let marks: Vec<u64> = self
            .array::<u64>("SPILLS")?
            .iter()
            .collect::<Result<_, _>>()?;
        for (near, (kernel, memory)) in marks.iter().zip(&tables.spills).enumerate() {
            if (*kernel == 0) != (memory.load() == 0) {
                return Ok(Some(format!(
                    "mark of near bucket {near}: kernel {kernel:#x}, memory {:#x}",
                    memory.load()
                )));
            }
        }
        let ours = self.flows()?;
        for (index, (kernel, memory)) in ours.iter().zip(&mut tables.buckets).enumerate() {
            let bytes: [u8; 128] = value(memory);
            for (way, (entry, other)) in kernel.chunks(4).zip(bytes.chunks(32)).enumerate() {
                let word = |at: usize| {
                    let bytes = other[8 * at..8 * at + 8].try_into().expect("eight bytes");
                    u64::from_ne_bytes(bytes)
                };
                let memory = [word(0), word(1), word(2), word(3)];
                if entry != memory {
                    return Ok(Some(format!(
                        "bucket {index} entry {way}: kernel {entry:#018x?}, memory {memory:#018x?}"
                    )));
                }
            }
        }
        Ok(None)
    }

    /// Where translated sources and who claims them differ from the memory body's.
    fn source_difference(&mut self, tables: &mut MemoryTables) -> Result<Option<String>> {
        let ours: Vec<[u8; 32]> = self
            .array("TRANSLATIONS")?
            .iter()
            .collect::<Result<_, _>>()?;
        for (bucket, (kernel, memory)) in ours.iter().zip(&mut tables.translations).enumerate() {
            let memory: [u8; 32] = value(memory);
            if *kernel != memory {
                return Ok(Some(format!(
                    "sources of bucket {bucket}: kernel {kernel:x?}, memory {memory:x?}"
                )));
            }
        }
        let ours: Vec<[u8; 64]> = self.array("SOURCES")?.iter().collect::<Result<_, _>>()?;
        for (bucket, (kernel, memory)) in ours.iter().zip(&mut tables.sources).enumerate() {
            let memory: [u8; 64] = value(memory);
            if *kernel != memory {
                return Ok(Some(format!(
                    "claims of bucket {bucket}: kernel {kernel:x?}, memory {memory:x?}"
                )));
            }
        }
        Ok(None)
    }

    /// Runs the program on a frame that came in through this interface.
    pub fn run(&mut self, frame: &[u8], interface: u32) -> Result<(Answer, Vec<u8>)> {
        let program: &mut Xdp = self
            .ebpf
            .program_mut("nlb")
            .context("no `nlb`")?
            .try_into()?;
        let end = u32::try_from(frame.len())?;
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index,
        // egress_ifindex.
        let context = [0, end, 0, interface, 0, 0].map(u32::to_ne_bytes).concat();
        let mut out = vec![0xa5; frame.len() + 256];
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.data_out = Some(&mut out);
        options.ctx_in = Some(&context);
        let result = program.test_run(options).context("BPF_PROG_TEST_RUN")?;
        out.truncate(usize::try_from(result.data_size_out)?);
        // Read at once, as the daemon does: or there would be no room for the next ones.
        while let Some(item) = self.early_ring.next() {
            let read = EarlyFragment::read_from_bytes(&item[..size_of::<EarlyFragment>()]);
            self.early
                .push(read.map_err(|error| anyhow!("an early fragment: {error}"))?);
        }
        let answer = match result.return_value {
            1 => Answer::Drop,
            2 => Answer::Pass,
            3 => Answer::Transmit,
            4 => Answer::Redirect,
            other => bail!("the program returned {other}"),
        };
        Ok((answer, out))
    }

    /// The fragments that the daemon was asked to keep since this was asked.
    pub fn take_early(&mut self) -> Vec<EarlyFragment> {
        std::mem::take(&mut self.early)
    }

    fn traffic(&mut self, name: &str, id: u32) -> Result<Traffic> {
        let map = self
            .ebpf
            .map_mut(name)
            .with_context(|| format!("no map {name}"))?;
        let map = PerCpuArray::<_, Plain<Traffic>>::try_from(map)?;
        let mut sum = Traffic::default();
        for part in map.get(&id, 0)?.iter() {
            sum += part.0;
        }
        Ok(sum)
    }

    /// What was counted for a listener.
    pub fn listener(&mut self, id: u16) -> Result<Traffic> {
        self.traffic("LISTENER_COUNTERS", u32::from(id))
    }

    /// What was counted for a target.
    pub fn target(&mut self, id: u32) -> Result<Traffic> {
        self.traffic("TARGET_COUNTERS", id)
    }

    /// What was counted per stop.
    pub fn stops(&mut self) -> Result<[u64; Stop::COUNT]> {
        let map = self
            .ebpf
            .map_mut("STOP_COUNTERS")
            .context("no map STOP_COUNTERS")?;
        let map = PerCpuArray::<_, u64>::try_from(map)?;
        let mut stops = [0; Stop::COUNT];
        for (index, sum) in stops.iter_mut().enumerate() {
            *sum = map.get(&u32::try_from(index)?, 0)?.iter().sum();
        }
        Ok(stops)
    }
}

/// A [`Verdict`] as the kernel tells it: without the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// `XDP_DROP`.
    Drop,
    /// `XDP_PASS`.
    Pass,
    /// `XDP_TX`.
    Transmit,
    /// `XDP_REDIRECT`.
    Redirect,
}

impl From<Verdict> for Answer {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Drop => Self::Drop,
            Verdict::Pass => Self::Pass,
            Verdict::Transmit => Self::Transmit,
            Verdict::Redirect(_) => Self::Redirect,
        }
    }
}
