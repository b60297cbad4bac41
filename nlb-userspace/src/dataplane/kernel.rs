//! The kernel's maps: taking the steps of a plan, reading what is there, counting.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::AsFd as _,
    sync::Arc,
};

use aya::{
    Ebpf,
    maps::{
        Array, ArrayOfMaps, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, RingBuf,
        lpm_trie::Key as Prefix,
    },
};
use nlb_common::{
    address::Address,
    admission::{ALLOW, Admission, AdmissionPolicy, DENY, MAX_SOURCES, Source, settled},
    counter::Traffic,
    decap::SourceKey,
    flow::Bucket,
    hash::Key,
    listener::{Listener, ListenerId, ListenerKey, ListenerPolicy},
    maps::{Header, Hints, Prefilter},
    next_hop::{NeighbourKey, NextHop, NextHopId, NextHopSlot, VlanLink},
    plain::Plain,
    quic::{CidLayout, ServerIdKey},
    ring::Ring,
    source::{Pool, SourceId, TURNS, Translations},
    stop::Stop,
    target::{Target, TargetControl, TargetId, TargetIdentity},
    tick::Tick,
    tunnel::{Tunnel, TunnelSlot},
};
use zerocopy::FromZeros as _;

use super::{
    Dataplane, DataplaneError, RingSlots, Step,
    shared::Shared,
    sweep::{self, FlowsBySource, Sweep},
};
use crate::{flows::Table, plan::Limits, settling::Settling, source_rules::SourceRules};

/// `BPF_F_MMAPABLE` of `linux/bpf.h`: the inner maps of `RINGS` must have the template's flags.
const MMAPABLE: u32 = 1 << 10;

/// `BPF_F_NO_PREALLOC` of `linux/bpf.h`, which tries must have.
const NO_PREALLOC: u32 = 1;

/// Listeners' rules in the kernel.
type RuleMap = LpmTrie<MapData, Plain<SourceKey>, u32>;

/// Rings in the kernel.
type RingMaps = ArrayOfMaps<MapData, Array<MapData, Plain<Ring>>>;

/// Sets of rules that are kept open, for listeners that share them.
const OPEN_RULES: usize = 16;

/// Every map that the daemon uses.
pub struct KernelMaps {
    header: Shared<Header>,
    prefilter: Shared<Prefilter>,
    listeners: Shared<Listener>,
    targets: Shared<Target>,
    tunnels: Shared<TunnelSlot>,
    next_hops: Shared<NextHopSlot>,
    flows: Shared<Bucket>,
    translations: Shared<Translations>,
    pool: Shared<Pool>,
    listener_index: HashMap<MapData, Plain<ListenerKey>, u32>,
    next_hop_index: HashMap<MapData, Plain<NeighbourKey>, u32>,
    vlan_links: HashMap<MapData, u32, u64>,
    server_ids: HashMap<MapData, Plain<ServerIdKey>, u32>,
    admissions: Shared<Admission>,
    rules: ArrayOfMaps<MapData, RuleMap>,
    sources: HashMap<MapData, Plain<Source>, [u64; 2]>,
    /// The sets of rules that were made last.
    made_rules: Vec<(SourceRules, RuleMap)>,
    rings: RingMaps,
    ring_bases: RingMaps,
    hints: Shared<Hints>,
    listener_counters: PerCpuArray<MapData, Plain<Traffic>>,
    target_counters: PerCpuArray<MapData, Plain<Traffic>>,
    stop_counters: PerCpuArray<MapData, u64>,
}

/// What a daemon finds in maps that another one left.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The generation that was live.
    pub generation: u64,
    /// Listeners' records.
    pub listeners: Vec<(ListenerId, ListenerKey, ListenerPolicy)>,
    /// Listeners' rules and limits.
    pub admissions: Vec<(ListenerId, AdmissionPolicy)>,
    /// What new flows find.
    pub listener_index: Vec<(ListenerKey, ListenerId)>,
    /// Targets' records.
    pub targets: Vec<(TargetId, TargetIdentity, TargetControl)>,
    /// Tunnels by target group.
    pub tunnels: Vec<(u16, Tunnel)>,
    /// The prefilter's bitmap.
    pub prefilter: Vec<u64>,
    /// Targets that a ring names: those that took new flows.
    pub in_rings: BTreeSet<TargetId>,
    /// The pool's addresses.
    pub sources: Vec<(SourceId, Address)>,
    /// Those that new flows get.
    pub turns: BTreeSet<SourceId>,
    /// Next hops by neighbour; `None` where the record is invalid.
    pub next_hops: Vec<(NeighbourKey, NextHopId, Option<NextHop>)>,
    /// What is behind VLAN interfaces, by their indexes.
    pub vlan_links: Vec<(u32, VlanLink)>,
    /// How listeners read QUIC connection IDs.
    pub cid_layouts: Vec<(ListenerId, CidLayout)>,
    /// QUIC servers by their numbers.
    pub server_ids: Vec<(ServerIdKey, TargetId)>,
    /// Rings of listeners that pin flows on change: slots and bases.
    pub settling: Vec<FoundRing>,
    /// Listeners that packets find by the number of their prefilter's bit.
    pub hints: Vec<(u16, ListenerId)>,
}

/// A ring of a listener that pins flows on change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRing {
    /// Its id.
    pub group: u16,
    /// As [`Step::ReplaceRing`] has them.
    pub slots: Arc<[u32]>,
    /// As [`Step::ReplaceRing`] has them.
    pub bases: Arc<[u32]>,
}

pub(super) fn map_error(
    action: &'static str,
    map: &'static str,
) -> impl Fn(MapError) -> DataplaneError {
    move |source| DataplaneError::Map {
        action,
        map,
        source,
    }
}

fn take(object: &mut Ebpf, name: &'static str) -> Result<Map, DataplaneError> {
    object.take_map(name).ok_or(DataplaneError::NoMap(name))
}

fn take_shared<R>(object: &mut Ebpf, name: &'static str) -> Result<Shared<R>, DataplaneError>
where
    Shared<R>: NewShared,
{
    let Map::Array(data) = take(object, name)? else {
        return Err(DataplaneError::NoMap(name));
    };
    share(&data, name)
}

/// All records of an array.
pub(super) fn share<R>(data: &MapData, name: &'static str) -> Result<Shared<R>, DataplaneError>
where
    Shared<R>: NewShared,
{
    let count = data
        .info()
        .map_err(map_error("look at", name))?
        .max_entries();
    Shared::<R>::over(data, count as usize)
        .map_err(|source| map_error("map the memory of", name)(MapError::IoError(source)))
}

/// Lets `share` be written once for all records.
pub(super) trait NewShared: Sized {
    fn over(map: &MapData, count: usize) -> std::io::Result<Self>;
}

macro_rules! new_shared {
    ($($record:ty),+) => {$(
        impl NewShared for Shared<$record> {
            fn over(map: &MapData, count: usize) -> std::io::Result<Self> {
                Self::new(map.fd().as_fd(), count)
            }
        }
    )+};
}

new_shared!(
    Admission,
    Bucket,
    Header,
    Hints,
    Listener,
    NextHopSlot,
    Pool,
    Prefilter,
    Target,
    Translations,
    TunnelSlot
);

fn slot<'r, R>(map: &'static str, records: &'r [R], index: usize) -> Result<&'r R, DataplaneError> {
    let capacity = records.len();
    records.get(index).ok_or(DataplaneError::Full {
        map,
        capacity,
        index,
    })
}

impl KernelMaps {
    /// Takes the maps out of a loaded object; the events' ring buffer apart, because it is waited
    /// for.
    pub fn take(object: &mut Ebpf) -> Result<(Self, RingBuf<MapData>), DataplaneError> {
        let events =
            RingBuf::try_from(take(object, "EVENTS")?).map_err(map_error("use", "EVENTS"))?;
        let maps = Self {
            header: take_shared(object, "HEADER")?,
            prefilter: take_shared(object, "PREFILTER")?,
            listeners: take_shared(object, "LISTENERS")?,
            targets: take_shared(object, "TARGETS")?,
            tunnels: take_shared(object, "TUNNELS")?,
            next_hops: take_shared(object, "NEXT_HOPS")?,
            flows: take_shared(object, "FLOWS")?,
            translations: take_shared(object, "TRANSLATIONS")?,
            pool: take_shared(object, "SNAT_POOL")?,
            listener_index: HashMap::try_from(take(object, "LISTENER_INDEX")?)
                .map_err(map_error("use", "LISTENER_INDEX"))?,
            next_hop_index: HashMap::try_from(take(object, "NEXT_HOP_INDEX")?)
                .map_err(map_error("use", "NEXT_HOP_INDEX"))?,
            vlan_links: HashMap::try_from(take(object, "VLAN_LINKS")?)
                .map_err(map_error("use", "VLAN_LINKS"))?,
            server_ids: HashMap::try_from(take(object, "SERVER_IDS")?)
                .map_err(map_error("use", "SERVER_IDS"))?,
            admissions: take_shared(object, "ADMISSION")?,
            rules: ArrayOfMaps::try_from(take(object, "RULES")?)
                .map_err(map_error("use", "RULES"))?,
            made_rules: Vec::new(),
            sources: HashMap::try_from(take(object, "ADMISSION_SOURCES")?)
                .map_err(map_error("use", "ADMISSION_SOURCES"))?,
            rings: ArrayOfMaps::try_from(take(object, "RINGS")?)
                .map_err(map_error("use", "RINGS"))?,
            ring_bases: ArrayOfMaps::try_from(take(object, "RING_BASES")?)
                .map_err(map_error("use", "RING_BASES"))?,
            hints: take_shared(object, "LISTENER_HINTS")?,
            listener_counters: PerCpuArray::try_from(take(object, "LISTENER_COUNTERS")?)
                .map_err(map_error("use", "LISTENER_COUNTERS"))?,
            target_counters: PerCpuArray::try_from(take(object, "TARGET_COUNTERS")?)
                .map_err(map_error("use", "TARGET_COUNTERS"))?,
            stop_counters: PerCpuArray::try_from(take(object, "STOP_COUNTERS")?)
                .map_err(map_error("use", "STOP_COUNTERS"))?,
        };
        Ok((maps, events))
    }

    /// The maps' own description.
    pub fn header(&self) -> Option<&Header> {
        self.header.first()
    }

    /// How many flows the table has room for.
    pub fn flow_capacity(&self) -> u64 {
        (self.flows.len() * nlb_common::flow::WAYS) as u64
    }

    /// The flow table, as it is looked through now.
    pub fn flow_table(&self, now: Tick) -> Table<'_> {
        Table {
            flows: &self.flows,
            translations: &self.translations,
            pool: self.pool.first(),
            listeners: &self.listeners,
            targets: &self.targets,
            now,
        }
    }

    /// How many records there are.
    pub fn limits(&self) -> Limits {
        Limits {
            listeners: self.listeners.len(),
            targets: self.targets.len(),
            groups: self.rings.len() as usize,
        }
    }

    /// Reads everything that a daemon needs to go on where another one stopped.
    pub fn read(&self) -> Result<Found, DataplaneError> {
        let listeners: Vec<_> = (0u16..)
            .zip(self.listeners.iter())
            .filter_map(|(id, record)| Some((ListenerId(id), record.key()?, record.policy())))
            .collect();
        let settling = self.settling(&listeners)?;
        let admissions = (0u16..)
            .zip(self.admissions.iter())
            .map(|(id, record)| (ListenerId(id), record.policy()))
            .filter(|(_, policy)| *policy != AdmissionPolicy::default())
            .collect();
        let targets = (0u32..)
            .zip(self.targets.iter())
            .filter_map(|(id, record)| Some((TargetId(id), record.identity(), record.control()?)))
            .collect::<Vec<_>>();
        let listener_index = self
            .listener_index
            .iter()
            .map(|entry| {
                let (Plain(key), id) = entry.map_err(map_error("read", "LISTENER_INDEX"))?;
                Ok((key, ListenerId(u16::try_from(id).unwrap_or_default())))
            })
            .collect::<Result<_, DataplaneError>>()?;
        let next_hops = self
            .next_hop_index
            .iter()
            .map(|entry| {
                let (Plain(key), id) = entry.map_err(map_error("read", "NEXT_HOP_INDEX"))?;
                let id = NextHopId(u16::try_from(id).unwrap_or_default());
                let next_hop = self
                    .next_hops
                    .get(usize::from(id.0))
                    .and_then(NextHopSlot::read)
                    .map(|(next_hop, _)| next_hop);
                Ok((key, id, next_hop))
            })
            .collect::<Result<_, DataplaneError>>()?;
        let vlan_links = self
            .vlan_links
            .iter()
            .map(|entry| {
                let (interface, word) = entry.map_err(map_error("read", "VLAN_LINKS"))?;
                Ok((interface, VlanLink::of_word(word)))
            })
            .collect::<Result<_, DataplaneError>>()?;
        let cid_layouts = (0u16..)
            .zip(self.listeners.iter())
            .filter_map(|(id, record)| Some((ListenerId(id), record.cid_layout()?)))
            .collect();
        let server_ids = self
            .server_ids
            .iter()
            .map(|entry| {
                let (Plain(key), id) = entry.map_err(map_error("read", "SERVER_IDS"))?;
                Ok((key, TargetId(id)))
            })
            .collect::<Result<_, DataplaneError>>()?;
        Ok(Found {
            in_rings: self.in_rings(&targets)?,
            sources: self.pool.iter().flat_map(Pool::all).collect(),
            turns: self
                .pool
                .iter()
                .flat_map(|pool| [true, false].map(|is_v4| (pool, is_v4)))
                .flat_map(|(pool, is_v4)| (0..TURNS).filter_map(move |n| pool.turn(is_v4, n)))
                .collect(),
            generation: self.header().map_or(0, |header| header.generation.load()),
            listeners,
            admissions,
            listener_index,
            targets,
            tunnels: (0u16..)
                .zip(self.tunnels.iter())
                .filter_map(|(group, slot)| Some((group, slot.read()?)))
                .collect(),
            prefilter: self
                .prefilter
                .iter()
                .flat_map(|prefilter| &prefilter.words)
                .map(nlb_common::word::Word::load)
                .collect(),
            next_hops,
            vlan_links,
            cid_layouts,
            server_ids,
            settling,
            hints: (0..=u16::MAX)
                .flat_map(|number| self.hints.iter().map(move |hints| (number, hints)))
                .map(|(number, hints)| (number, hints.get(number)))
                .filter(|(_, id)| id.0 != 0)
                .collect(),
        })
    }

    /// The rings of listeners that pin flows on change.
    fn settling(
        &self,
        listeners: &[(ListenerId, ListenerKey, ListenerPolicy)],
    ) -> Result<Vec<FoundRing>, DataplaneError> {
        let groups: BTreeSet<u16> = listeners
            .iter()
            .filter(|(_, _, policy)| policy.flags.pins_on_change())
            .map(|(_, _, policy)| policy.group)
            .collect();
        let mut found = Vec::new();
        for group in groups {
            if let (Some(slots), Some(bases)) = (
                ring(&self.rings, "RINGS", group)?,
                ring(&self.ring_bases, "RING_BASES", group)?,
            ) {
                found.push(FoundRing {
                    group,
                    slots,
                    bases,
                });
            }
        }
        Ok(found)
    }

    /// The targets that the rings of these targets' groups name.
    fn in_rings(
        &self,
        targets: &[(TargetId, TargetIdentity, TargetControl)],
    ) -> Result<BTreeSet<TargetId>, DataplaneError> {
        let groups: BTreeSet<u16> = targets
            .iter()
            .map(|(_, identity, _)| identity.group)
            .collect();
        let mut in_rings = BTreeSet::new();
        for group in groups {
            if let Some(slots) = ring(&self.rings, "RINGS", group)? {
                in_rings.extend(slots.iter().filter(|id| **id != 0).copied().map(TargetId));
            }
        }
        Ok(in_rings)
    }

    /// What was counted of a listener.
    pub fn listener_traffic(&self, id: ListenerId) -> Result<Traffic, DataplaneError> {
        traffic(&self.listener_counters, id.0.into(), "LISTENER_COUNTERS")
    }

    /// What was counted of a target.
    pub fn target_traffic(&self, id: TargetId) -> Result<Traffic, DataplaneError> {
        traffic(&self.target_counters, id.0, "TARGET_COUNTERS")
    }

    /// How often packets were stopped for a reason.
    pub fn stop_count(&self, stop: Stop) -> Result<u64, DataplaneError> {
        let values = self
            .stop_counters
            .get(&(stop as u32), 0)
            .map_err(map_error("read", "STOP_COUNTERS"))?;
        Ok(values.iter().sum())
    }

    /// Goes over the whole flow table: counts flows, and empties entries whose time has run out.
    pub fn sweep(&self, now: Tick, settling: &BTreeMap<u16, Settling>, key: &Key) -> Sweep {
        let none = Translations::default();
        let translations = self.translations.iter().chain(std::iter::repeat(&none));
        sweep::sweep(
            self.flows
                .iter()
                .zip(translations)
                .flat_map(|(bucket, beside)| bucket.entries.iter().zip(&beside.entries)),
            &sweep::Records {
                listeners: &self.listeners,
                admissions: &self.admissions,
                targets: &self.targets,
                pool: self.pool.first(),
                settling: Some((settling, key)),
            },
            now,
        )
    }

    /// How many flows the map says each source has, if any listener limits them.
    pub fn flows_of_sources(&self) -> Result<FlowsBySource, DataplaneError> {
        let mut found = FlowsBySource::new();
        if !sweep::limits_sources(&self.admissions) {
            return Ok(found);
        }
        // A key that vanishes meanwhile sends the walk back to its beginning.
        for key in self.sources.keys().take(2 * MAX_SOURCES as usize) {
            let Plain(source) = key.map_err(map_error("read", "ADMISSION_SOURCES"))?;
            if let Some([_, active]) = self.source(&source)? {
                found.insert(source, active);
            }
        }
        Ok(found)
    }

    fn source(&self, source: &Source) -> Result<Option<[u64; 2]>, DataplaneError> {
        match self.sources.get(&Plain(*source), 0) {
            Ok(record) => Ok(Some(record)),
            Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(None),
            Err(error) => Err(map_error("read", "ADMISSION_SOURCES")(error)),
        }
    }

    /// Replaces what was counted of sources by what a sweep found; `before` is what the map said
    /// when the sweep began.
    ///
    /// A record is read and written, not swapped: a flow that begins between the two is counted by
    /// the next sweep only.
    pub fn settle_sources(
        &mut self,
        before: &FlowsBySource,
        sweep: &Sweep,
    ) -> Result<(), DataplaneError> {
        let flows_of = |source: &Source| sweep.by_source.get(source).copied().unwrap_or(0);
        for (source, before) in before {
            let Some([window, active]) = self.source(source)? else {
                continue;
            };
            let settled = settled(flows_of(source), *before, active);
            if settled != active {
                self.set_source(source, [window, settled])?;
            }
        }
        // Those that the map forgot, or did not know when their limit was made; the others may go on.
        for (source, flows) in &sweep.by_source {
            if !before.contains_key(source) && self.is_over(source, *flows) {
                let window = self.source(source)?.map_or(0, |[window, _]| window);
                self.set_source(source, [window, *flows])?;
            }
        }
        Ok(())
    }

    fn is_over(&self, source: &Source, flows: u64) -> bool {
        usize::try_from(source.listener)
            .ok()
            .and_then(|listener| self.admissions.get(listener))
            .is_some_and(|record| flows >= u64::from(record.policy().source_active_flows))
    }

    fn set_source(&mut self, source: &Source, record: [u64; 2]) -> Result<(), DataplaneError> {
        self.sources
            .insert(Plain(*source), record, 0)
            .map_err(map_error("write", "ADMISSION_SOURCES"))
    }

    /// Gives a listener the rules in this map, or in a new one.
    fn replace_rules(&mut self, id: ListenerId, rules: &SourceRules) -> Result<(), DataplaneError> {
        let made = self
            .made_rules
            .iter()
            .position(|(made, _)| made.is_same(rules));
        let made = if let Some(made) = made {
            made
        } else {
            let map = rule_map(rules)?;
            if self.made_rules.len() == OPEN_RULES {
                self.made_rules.remove(0);
            }
            self.made_rules.push((rules.clone(), map));
            self.made_rules.len() - 1
        };
        if let Some((_, map)) = self.made_rules.get(made) {
            self.rules
                .set(id.0.into(), map, 0)
                .map_err(map_error("replace rules of", "RULES"))?;
        }
        Ok(())
    }

    /// Frees a listener's rules: there is no way to take a map out, but to put another one there.
    fn remove_rules(&mut self, id: ListenerId) -> Result<(), DataplaneError> {
        let empty = RuleMap::create(1, NO_PREALLOC)
            .map_err(map_error("make an empty set of rules for", "RULES"))?;
        self.made_rules.clear();
        self.rules
            .set(id.0.into(), &empty, 0)
            .map_err(map_error("remove rules of", "RULES"))
    }
}

impl KernelMaps {
    fn replace_ring(
        &mut self,
        group: u16,
        slots: &RingSlots,
        bases: Option<&RingSlots>,
    ) -> Result<(), DataplaneError> {
        // First: packets that see the new slots must see their bases.
        if let Some(bases) = bases {
            put_ring(&mut self.ring_bases, "RING_BASES", group, &bases.0)?;
        }
        put_ring(&mut self.rings, "RINGS", group, &slots.0)
    }
}

/// Puts a ring in the place of another. No packet sees it while it is filled.
fn put_ring(
    rings: &mut RingMaps,
    map: &'static str,
    group: u16,
    slots: &[u32],
) -> Result<(), DataplaneError> {
    let mut ring = Box::new(Plain(Ring::new_zeroed()));
    for (slot, id) in ring.0.slots.iter_mut().zip(slots) {
        *slot = *id;
    }
    let mut inner = Array::<MapData, Plain<Ring>>::create(1, MMAPABLE)
        .map_err(map_error("make a ring for", map))?;
    inner
        .set(0, ring.as_ref(), 0)
        .map_err(map_error("fill a ring for", map))?;
    rings
        .set(group.into(), &inner, 0)
        .map_err(map_error("replace a ring of", map))
}

/// The slots of a ring that may not be there.
fn ring(
    rings: &RingMaps,
    map: &'static str,
    group: u16,
) -> Result<Option<Arc<[u32]>>, DataplaneError> {
    // One that was never put in has no inner map.
    let Ok(inner) = rings.get(&u32::from(group), 0) else {
        return Ok(None);
    };
    let ring = inner.get(&0, 0).map_err(map_error("read", map))?;
    Ok(Some(ring.0.slots.as_slice().into()))
}

/// A set of rules as a map. No packet sees it while it is filled.
fn rule_map(rules: &SourceRules) -> Result<RuleMap, DataplaneError> {
    let count = u32::try_from(rules.verdicts().len()).unwrap_or(u32::MAX);
    let mut map = RuleMap::create(count, NO_PREALLOC)
        .map_err(map_error("make a set of rules for", "RULES"))?;
    for verdict in rules.verdicts() {
        let key = Prefix::new(
            SourceKey::BITS_BEFORE + u32::from(verdict.bits),
            Plain(SourceKey::of(verdict.prefix)),
        );
        map.insert(&key, if verdict.allows { ALLOW } else { DENY }, 0)
            .map_err(map_error("write a set of rules for", "RULES"))?;
    }
    Ok(map)
}

fn traffic(
    counters: &PerCpuArray<MapData, Plain<Traffic>>,
    index: u32,
    map: &'static str,
) -> Result<Traffic, DataplaneError> {
    let values = counters.get(&index, 0).map_err(map_error("read", map))?;
    let mut sum = Traffic::default();
    for Plain(value) in values.iter() {
        sum += *value;
    }
    Ok(sum)
}

impl Dataplane for KernelMaps {
    fn take(&mut self, step: &Step) -> Result<(), DataplaneError> {
        match step {
            Step::WriteNextHop { id, next_hop } => {
                slot("NEXT_HOPS", &self.next_hops, id.0.into())?.write(next_hop);
            }
            Step::InvalidateNextHop { id } => {
                slot("NEXT_HOPS", &self.next_hops, id.0.into())?.invalidate();
            }
            Step::RenewNextHop { id } => {
                slot("NEXT_HOPS", &self.next_hops, id.0.into())?.renew();
            }
            Step::IndexNextHop { neighbour, id } => self
                .next_hop_index
                .insert(Plain(*neighbour), u32::from(id.0), 0)
                .map_err(map_error("write", "NEXT_HOP_INDEX"))?,
            Step::UnindexNextHop { neighbour } => {
                absent_is_well(self.next_hop_index.remove(&Plain(*neighbour)))
                    .map_err(map_error("write", "NEXT_HOP_INDEX"))?;
            }
            Step::WriteVlanLink { interface, link } => self
                .vlan_links
                .insert(*interface, link.to_word(), 0)
                .map_err(map_error("write", "VLAN_LINKS"))?,
            Step::RemoveVlanLink { interface } => {
                absent_is_well(self.vlan_links.remove(interface))
                    .map_err(map_error("write", "VLAN_LINKS"))?;
            }
            Step::WriteTarget {
                id,
                identity,
                control,
            } => {
                slot("TARGETS", &self.targets, id.0 as usize)?.write(identity, *control);
            }
            Step::ControlTarget { id, control } => {
                slot("TARGETS", &self.targets, id.0 as usize)?.set_control(*control);
            }
            Step::ClearTarget { id } => slot("TARGETS", &self.targets, id.0 as usize)?.clear(),
            Step::WriteTunnel { group, tunnel } => {
                slot("TUNNELS", &self.tunnels, (*group).into())?.write(tunnel);
            }
            Step::ReplaceRing {
                group,
                slots,
                bases,
            } => self.replace_ring(*group, slots, bases.as_ref())?,
            Step::Hint { number, id } => slot("LISTENER_HINTS", &self.hints, 0)?.set(*number, *id),
            Step::WriteListener { id, key, policy } => {
                slot("LISTENERS", &self.listeners, id.0.into())?.write(key, *policy);
            }
            Step::ChangeListener { id, policy } => {
                slot("LISTENERS", &self.listeners, id.0.into())?.set_policy(*policy);
            }
            Step::ClearListener { id } => {
                slot("LISTENERS", &self.listeners, id.0.into())?.clear();
            }
            Step::ReplaceRules { id, rules } => self.replace_rules(*id, rules)?,
            Step::RemoveRules { id } => self.remove_rules(*id)?,
            Step::SetAdmission { id, policy } => {
                slot("ADMISSION", &self.admissions, id.0.into())?.set_policy(policy);
            }
            Step::IndexListener { key, id } => self
                .listener_index
                .insert(Plain(*key), u32::from(id.0), 0)
                .map_err(map_error("write", "LISTENER_INDEX"))?,
            Step::UnindexListener { key } => {
                absent_is_well(self.listener_index.remove(&Plain(*key)))
                    .map_err(map_error("write", "LISTENER_INDEX"))?;
            }
            Step::WriteSource { id, address } => {
                slot("SNAT_POOL", &self.pool, 0)?.write(*id, *address);
            }
            Step::TakeTurns { is_v4, ids } => {
                slot("SNAT_POOL", &self.pool, 0)?.set_turns(*is_v4, ids);
            }
            Step::ClearSource { id } => {
                slot("SNAT_POOL", &self.pool, 0)?.write(*id, Address::UNSPECIFIED);
            }
            Step::LayOutCids { id, layout } => {
                slot("LISTENERS", &self.listeners, id.0.into())?.set_cid_layout(*layout);
            }
            Step::IndexServer { key, target } => self
                .server_ids
                .insert(Plain(*key), target.0, 0)
                .map_err(map_error("write", "SERVER_IDS"))?,
            Step::UnindexServer { key } => {
                absent_is_well(self.server_ids.remove(&Plain(*key)))
                    .map_err(map_error("write", "SERVER_IDS"))?;
            }
            Step::Prefilter { index, bits } => {
                if let Some(word) = self.prefilter.first().and_then(|map| map.words.get(*index)) {
                    word.store(*bits);
                }
            }
            Step::Publish { generation } => {
                if let Some(header) = self.header.first() {
                    header.generation.store(*generation);
                }
            }
        }
        Ok(())
    }
}

/// Removing what is not there leaves what was asked for.
fn absent_is_well(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        other => other,
    }
}
