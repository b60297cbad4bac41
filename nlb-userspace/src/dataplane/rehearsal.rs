//! A second instance of the packet program, over maps of its own, on which a packet is tried: what
//! `nlb explain --live` holds its explanation against.
//!
//! To run the instance that packets meet would not do: a run of it remembers flows and counts, in the maps
//! that packets use. So the same instructions are loaded once more; what the packet asked for is copied from
//! the maps of the running instance; and the kernel runs them on the frame (`BPF_PROG_TEST_RUN`), which sends
//! nothing. Rings and rules are not copied but lent: no program ever writes them.

use std::collections::BTreeSet;

use aya::{
    Ebpf, EbpfLoader,
    maps::{
        Array, ArrayOfMaps, HashMap, LpmTrie, MapData, PerCpuArray, PerCpuValues, ProgramArray,
    },
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use nlb_common::{
    admission::Source,
    decap::SourceKey,
    fragment::{FragmentKey, FragmentRecord},
    listener::ListenerKey,
    next_hop::NeighbourKey,
    plain::Plain,
    quic::ServerIdKey,
    ring::Ring,
    stage::Stage,
};
use zerocopy::IntoBytes as _;

use super::{
    DataplaneError, XDP_OBJECT,
    kernel::map_error,
    running::{Running, tag},
    snapshot::{Questions, RingMap, RuleMap},
    stages,
};

/// Maps whose sizes the loader sets, and which must be as large as those of the running instance: where a
/// flow lies depends on it.
const SIZED: [&str; 16] = [
    "FLOWS",
    "SPILLS",
    "TRANSLATIONS",
    "SOURCES",
    "SEQUENCES",
    "LISTENERS",
    "ADMISSION",
    "RULES",
    "LISTENER_INDEX",
    "LISTENER_COUNTERS",
    "RINGS",
    "RING_BASES",
    "TARGETS",
    "TARGET_COUNTERS",
    "TUNNELS",
    "SERVER_IDS",
];

/// The second instance.
pub struct Rehearsal {
    object: Ebpf,
    // Kept: the kernel empties an array of programs that nobody holds.
    _stages: ProgramArray<MapData>,
    /// Whether its instructions are those of the running instance, stage by stage.
    pub is_same_program: bool,
}

/// What the kernel's run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// What the program returned: a value of `enum xdp_action`.
    pub action: u32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
}

impl std::fmt::Debug for Rehearsal {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Rehearsal(..)")
    }
}

impl Rehearsal {
    /// Loads it with the constants and sizes of the running instance.
    pub fn of(running: &Running) -> Result<Self, DataplaneError> {
        let mut loader = EbpfLoader::new();
        for name in SIZED {
            let info = running.data(name)?.info();
            let size = info.map_err(map_error("look at", name))?.max_entries();
            loader.map_max_entries(name, size);
        }
        let settings = running.settings;
        loader.override_global("SETTINGS", settings.as_bytes(), true);
        let mut object = loader.load(XDP_OBJECT)?;
        let stages = stages::load(&mut object)?;
        let names = Stage::ALL.iter().map(|stage| stage.program());
        let mut is_same_program = true;
        for name in names.chain([Stage::FRONT_PROGRAM]) {
            let info = stages::program(&mut object, name)?.info();
            let info = info.map_err(DataplaneError::Program)?;
            is_same_program &= tag(&info).is_some_and(|tag| running.has(&tag));
        }
        Ok(Self {
            object,
            _stages: stages,
            is_same_program,
        })
    }

    /// Runs it on a frame that comes in through this interface, over copies of what is asked for.
    pub fn run(
        &mut self,
        running: &Running,
        questions: &Questions,
        frame: &[u8],
        interface: u32,
    ) -> Result<Tried, DataplaneError> {
        self.copy(running, questions)?;
        let program: &Xdp = stages::program(&mut self.object, Stage::FRONT_PROGRAM)?;
        let end = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index,
        // egress_ifindex.
        let context = [0, end, 0, interface, 0, 0].map(u32::to_ne_bytes).concat();
        let mut out = vec![0; frame.len() + MOST_PUT_AROUND];
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.data_out = Some(&mut out);
        options.ctx_in = Some(&context);
        let result = program.test_run(options).map_err(DataplaneError::Program)?;
        out.truncate(usize::try_from(result.data_size_out).unwrap_or(usize::MAX));
        Ok(Tried {
            action: result.return_value,
            frame: out,
        })
    }

    fn copy(&mut self, running: &Running, questions: &Questions) -> Result<(), DataplaneError> {
        macro_rules! records {
            ($($name:literal: $record:ty),+ $(,)?) => {
                for (name, asked) in &questions.records {
                    match *name {
                        $($name => self.array::<{ size_of::<$record>() }>(running, $name, asked)?,)+
                        _ => return Err(DataplaneError::NoMap(name)),
                    }
                }
            };
        }
        records!(
            "PREFILTER": nlb_common::maps::Prefilter,
            "LISTENERS": nlb_common::listener::Listener,
            "ADMISSION": nlb_common::admission::Admission,
            "TARGETS": nlb_common::target::Target,
            "TUNNELS": nlb_common::tunnel::TunnelSlot,
            "NEXT_HOPS": nlb_common::next_hop::NextHopSlot,
            "LISTENER_HINTS": nlb_common::maps::Hints,
            "FLOWS": nlb_common::flow::Bucket,
            "SPILLS": nlb_common::word::Word,
            "TRANSLATIONS": nlb_common::source::Translations,
            "SOURCES": nlb_common::source::SourceBucket,
            "SEQUENCES": nlb_common::sequence::Sequences,
            "SNAT_POOL": nlb_common::source::Pool,
            "IDENTIFICATIONS": nlb_common::fragment::Identifications,
        );
        self.hash::<Plain<ListenerKey>, u32>(running, "LISTENER_INDEX")?;
        self.hash::<Plain<NeighbourKey>, u32>(running, "NEXT_HOP_INDEX")?;
        self.hash::<u32, u64>(running, "VLAN_LINKS")?;
        self.hash::<Plain<ServerIdKey>, u32>(running, "SERVER_IDS")?;
        self.hash::<Plain<FragmentKey>, Plain<FragmentRecord>>(running, "FRAGMENTS")?;
        self.hash::<Plain<Source>, [u64; 2]>(running, "ADMISSION_SOURCES")?;
        self.lend_rings(running, "RINGS", &questions.groups)?;
        self.lend_rings(running, "RING_BASES", &questions.groups)?;
        self.lend_rules(running, &questions.rules)?;
        let budgets: PerCpuArray<MapData, u64> = running.map("ERROR_BUDGET")?;
        let failed = map_error("copy", "ERROR_BUDGET");
        let values = budgets.get(&0, 0).map_err(&failed)?;
        let values = PerCpuValues::try_from(values.to_vec())
            .map_err(|source| failed(aya::maps::MapError::IoError(source)))?;
        let mut own: PerCpuArray<_, u64> = own(&mut self.object, "ERROR_BUDGET")?;
        own.set(0, values, 0).map_err(failed)
    }

    fn array<const N: usize>(
        &mut self,
        running: &Running,
        name: &'static str,
        asked: &[u32],
    ) -> Result<(), DataplaneError> {
        let theirs: Array<MapData, [u8; N]> = running.map(name)?;
        let mut own: Array<_, [u8; N]> = own(&mut self.object, name)?;
        for index in asked {
            let record = theirs.get(index, 0).map_err(map_error("read", name))?;
            own.set(*index, record, 0)
                .map_err(map_error("copy", name))?;
        }
        Ok(())
    }

    fn hash<K: aya::Pod, V: aya::Pod>(
        &mut self,
        running: &Running,
        name: &'static str,
    ) -> Result<(), DataplaneError> {
        let theirs: HashMap<MapData, K, V> = running.map(name)?;
        let mut own: HashMap<_, K, V> = own(&mut self.object, name)?;
        let failed = map_error("copy", name);
        // What an earlier packet has left.
        let old: Vec<K> = own.keys().collect::<Result<_, _>>().map_err(&failed)?;
        for key in old {
            own.remove(&key).map_err(&failed)?;
        }
        for entry in &theirs {
            let (key, value) = entry.map_err(map_error("read", name))?;
            own.insert(key, value, 0).map_err(&failed)?;
        }
        Ok(())
    }

    fn lend_rings(
        &mut self,
        running: &Running,
        name: &'static str,
        groups: &BTreeSet<u16>,
    ) -> Result<(), DataplaneError> {
        let theirs: RingMap = running.map(name)?;
        let mut own: ArrayOfMaps<_, Array<MapData, Plain<Ring>>> = own(&mut self.object, name)?;
        for group in groups {
            // One that was never put in has no inner map.
            if let Ok(ring) = theirs.get(&(*group).into(), 0) {
                let lent = own.set((*group).into(), &ring, 0);
                lent.map_err(map_error("lend a ring of", name))?;
            }
        }
        Ok(())
    }

    fn lend_rules(
        &mut self,
        running: &Running,
        listeners: &BTreeSet<u16>,
    ) -> Result<(), DataplaneError> {
        let theirs: RuleMap = running.map("RULES")?;
        let mut own: ArrayOfMaps<_, LpmTrie<MapData, Plain<SourceKey>, u32>> =
            own(&mut self.object, "RULES")?;
        for listener in listeners {
            if let Ok(rules) = theirs.get(&(*listener).into(), 0) {
                let lent = own.set((*listener).into(), &rules, 0);
                lent.map_err(map_error("lend rules of", "RULES"))?;
            }
        }
        Ok(())
    }
}

/// More bytes than any tunnel's headers have.
const MOST_PUT_AROUND: usize = 256;

/// A map of our own instance.
fn own<'o, M>(object: &'o mut Ebpf, name: &'static str) -> Result<M, DataplaneError>
where
    M: TryFrom<&'o mut aya::maps::Map, Error = aya::maps::MapError>,
{
    let map = object.map_mut(name).ok_or(DataplaneError::NoMap(name))?;
    M::try_from(map).map_err(map_error("use", name))
}
