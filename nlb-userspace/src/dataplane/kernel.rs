//! The kernel's maps: taking the steps of a plan, reading what is there, counting.

use std::{collections::BTreeSet, os::fd::AsFd as _};

use aya::{
    Ebpf,
    maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
};
use nlb_common::{
    address::Address,
    counter::Traffic,
    flow::{Bucket, Choice, FlowState},
    listener::{Listener, ListenerId, ListenerKey, ListenerPolicy},
    maps::{Header, Prefilter},
    next_hop::{NeighbourKey, NextHop, NextHopId, NextHopSlot, VlanLink},
    plain::Plain,
    quic::{CidLayout, ServerIdKey},
    ring::Ring,
    source::{MAX_SOURCES, Pool, SourceId, TURNS, Translation, Translations},
    stop::Stop,
    target::{Target, TargetControl, TargetId, TargetIdentity},
    tick::Tick,
    tunnel::{Tunnel, TunnelSlot},
};
use zerocopy::FromZeros as _;

use super::{Dataplane, DataplaneError, Step, shared::Shared};
use crate::plan::Limits;

/// `BPF_F_MMAPABLE` of `linux/bpf.h`: the inner maps of `RINGS` must have the template's flags.
const MMAPABLE: u32 = 1 << 10;

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
    rings: ArrayOfMaps<MapData, Array<MapData, Plain<Ring>>>,
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
}

/// What a sweep over the flow table saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Flows whose time has not run out.
    pub active: u64,
    /// How many of them each listener has, by id.
    pub by_listener: Vec<u64>,
    /// How many of them each target has, by id.
    pub by_target: Vec<u64>,
    /// How many ports of the pool each target has flows on, by id.
    pub ports_by_target: Vec<u64>,
    /// How many flows have each address of the pool, by id.
    pub by_source: Vec<u64>,
    /// Entries that were emptied because their time had run out.
    pub forgotten: u64,
}

fn map_error(action: &'static str, map: &'static str) -> impl Fn(MapError) -> DataplaneError {
    move |source| DataplaneError::Map {
        action,
        map,
        source,
    }
}

fn take(object: &mut Ebpf, name: &'static str) -> Result<Map, DataplaneError> {
    object.take_map(name).ok_or(DataplaneError::NoMap(name))
}

fn share<R>(object: &mut Ebpf, name: &'static str) -> Result<Shared<R>, DataplaneError>
where
    Shared<R>: NewShared,
{
    let Map::Array(data) = take(object, name)? else {
        return Err(DataplaneError::NoMap(name));
    };
    let count = data
        .info()
        .map_err(map_error("look at", name))?
        .max_entries();
    Shared::<R>::over(&data, count as usize)
        .map_err(|source| map_error("map the memory of", name)(MapError::IoError(source)))
}

/// Lets `share` be written once for all records.
trait NewShared: Sized {
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
    Bucket,
    Header,
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
            header: share(object, "HEADER")?,
            prefilter: share(object, "PREFILTER")?,
            listeners: share(object, "LISTENERS")?,
            targets: share(object, "TARGETS")?,
            tunnels: share(object, "TUNNELS")?,
            next_hops: share(object, "NEXT_HOPS")?,
            flows: share(object, "FLOWS")?,
            translations: share(object, "TRANSLATIONS")?,
            pool: share(object, "SNAT_POOL")?,
            listener_index: HashMap::try_from(take(object, "LISTENER_INDEX")?)
                .map_err(map_error("use", "LISTENER_INDEX"))?,
            next_hop_index: HashMap::try_from(take(object, "NEXT_HOP_INDEX")?)
                .map_err(map_error("use", "NEXT_HOP_INDEX"))?,
            vlan_links: HashMap::try_from(take(object, "VLAN_LINKS")?)
                .map_err(map_error("use", "VLAN_LINKS"))?,
            server_ids: HashMap::try_from(take(object, "SERVER_IDS")?)
                .map_err(map_error("use", "SERVER_IDS"))?,
            rings: ArrayOfMaps::try_from(take(object, "RINGS")?)
                .map_err(map_error("use", "RINGS"))?,
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
        let listeners = (0u16..)
            .zip(self.listeners.iter())
            .filter_map(|(id, record)| Some((ListenerId(id), record.key()?, record.policy())))
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
        let groups: BTreeSet<u16> = targets
            .iter()
            .map(|(_, identity, _)| identity.group)
            .collect();
        let mut in_rings = BTreeSet::new();
        for group in groups {
            // A group that never got a ring has no inner map.
            if let Ok(inner) = self.rings.get(&u32::from(group), 0) {
                let ring = inner.get(&0, 0).map_err(map_error("read", "RINGS"))?;
                in_rings.extend(
                    ring.0
                        .slots
                        .iter()
                        .filter(|id| **id != 0)
                        .copied()
                        .map(TargetId),
                );
            }
        }
        Ok(Found {
            in_rings,
            sources: self.pool.iter().flat_map(Pool::all).collect(),
            turns: self
                .pool
                .iter()
                .flat_map(|pool| [true, false].map(|is_v4| (pool, is_v4)))
                .flat_map(|(pool, is_v4)| (0..TURNS).filter_map(move |n| pool.turn(is_v4, n)))
                .collect(),
            generation: self.header().map_or(0, |header| header.generation.load()),
            listeners,
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
        })
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
    ///
    /// An entry is emptied by compare and swap, so that a flow that came back in the meantime
    /// keeps its place.
    pub fn sweep(&self, now: Tick) -> Sweep {
        let mut sweep = Sweep {
            by_listener: vec![0; self.listeners.len()],
            by_target: vec![0; self.targets.len()],
            ports_by_target: vec![0; self.targets.len()],
            by_source: vec![0; MAX_SOURCES],
            ..Sweep::default()
        };
        let none = Translations::default();
        let translations = self.translations.iter().chain(std::iter::repeat(&none));
        for (entry, translation) in self
            .flows
            .iter()
            .zip(translations)
            .flat_map(|(bucket, beside)| bucket.entries.iter().zip(&beside.entries))
        {
            let word = entry.choice.load();
            if word == Choice::EMPTY || word == Choice::BUSY {
                continue;
            }
            let choice = Choice::of_word(word);
            let idle_ticks = self
                .listeners
                .get(usize::from(choice.listener.0))
                .map_or(0, |listener| listener.policy().idle_ticks);
            let progress = entry.progress();
            // A tick of grace: a packet may have stamped the entry just after `now` was read.
            let silent = now.since(progress.last_seen);
            if silent > progress.state.idle_ticks(idle_ticks).saturating_add(1) {
                if entry.choice.swap(word, Choice::EMPTY) {
                    sweep.forgotten += 1;
                }
                continue;
            }
            sweep.active += 1;
            if let Some(count) = sweep.by_listener.get_mut(usize::from(choice.listener.0)) {
                *count += 1;
            }
            if let Some(count) = sweep.by_target.get_mut(choice.target.0 as usize) {
                *count += 1;
            }
            if progress.state.has(FlowState::SOURCE_TRANSLATED) {
                let source = Translation::of_word(translation.load()).source;
                let ports = sweep.ports_by_target.get_mut(choice.target.0 as usize);
                let flows = sweep.by_source.get_mut(usize::from(source.0));
                for count in ports.into_iter().chain(flows) {
                    *count += 1;
                }
            }
        }
        sweep
    }

    fn replace_ring(&mut self, group: u16, slots: &[u32]) -> Result<(), DataplaneError> {
        let mut ring = Box::new(Plain(Ring::new_zeroed()));
        for (slot, id) in ring.0.slots.iter_mut().zip(slots) {
            *slot = *id;
        }
        let mut inner = Array::<MapData, Plain<Ring>>::create(1, MMAPABLE)
            .map_err(map_error("make a ring for", "RINGS"))?;
        inner
            .set(0, ring.as_ref(), 0)
            .map_err(map_error("fill a ring for", "RINGS"))?;
        self.rings
            .set(group.into(), &inner, 0)
            .map_err(map_error("replace a ring of", "RINGS"))
    }
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
            Step::ReplaceRing { group, slots } => self.replace_ring(*group, &slots.0)?,
            Step::WriteListener { id, key, policy } => {
                slot("LISTENERS", &self.listeners, id.0.into())?.write(key, *policy);
            }
            Step::ChangeListener { id, policy } => {
                slot("LISTENERS", &self.listeners, id.0.into())?.set_policy(*policy);
            }
            Step::ClearListener { id } => {
                slot("LISTENERS", &self.listeners, id.0.into())?.clear();
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
