//! The kernel's maps: taking the steps of a plan, reading what is there, counting.

mod admission;
mod found;
mod rings;

use std::{collections::BTreeMap, os::fd::AsFd as _, path::Path};

use aya::{
    Ebpf,
    maps::{ArrayOfMaps, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
};
use nlb_common::{
    address::Address,
    admission::{Admission, Source},
    counter::Traffic,
    flow::{Bucket, Client},
    hash::Key,
    listener::{Listener, ListenerId, ListenerKey},
    maps::{Header, Hints, Prefilter},
    next_hop::{NeighbourKey, NextHopSlot},
    plain::Plain,
    quic::ServerIdKey,
    ring::SharedRing,
    source::{Pool, Translations},
    stop::Stop,
    target::{Target, TargetId},
    tick::Tick,
    tunnel::TunnelSlot,
    word::Word,
};
use nlb_ebpf::flows::Place;

pub use self::found::{Found, FoundRing};
use self::{admission::RuleMap, rings::Rings};
use super::{
    Dataplane, DataplaneError, Step,
    shared::Shared,
    spills,
    sweep::{self, Sweep},
};
use crate::{flows::Table, plan::Limits, settling::Settling, source_rules::SourceRules};

/// What the names of rings' pins begin with; the ring's id follows.
const RING_PREFIX: &str = "ring-";
/// The same of `RING_BASES`.
const BASES_PREFIX: &str = "ring-bases-";

/// Every map that the daemon uses.
pub struct KernelMaps {
    header: Shared<Header>,
    prefilter: Shared<Prefilter>,
    listeners: Shared<Listener>,
    targets: Shared<Target>,
    tunnels: Shared<TunnelSlot>,
    next_hops: Shared<NextHopSlot>,
    flows: Shared<Bucket>,
    spills: Shared<Word>,
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
    rings: Rings,
    ring_bases: Rings,
    hints: Shared<Hints>,
    listener_counters: PerCpuArray<MapData, Plain<Traffic>>,
    target_counters: PerCpuArray<MapData, Plain<Traffic>>,
    stop_counters: PerCpuArray<MapData, u64>,
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
    SharedRing,
    Target,
    Translations,
    TunnelSlot,
    Word
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
    /// for. Rings are pinned in this folder, and found there.
    pub fn take(
        object: &mut Ebpf,
        pins: Option<&Path>,
    ) -> Result<(Self, RingBuf<MapData>), DataplaneError> {
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
            spills: take_shared(object, "SPILLS")?,
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
            rings: Rings::take(object, "RINGS", pins, RING_PREFIX)?,
            ring_bases: Rings::take(object, "RING_BASES", pins, BASES_PREFIX)?,
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
            groups: self.rings.capacity(),
        }
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

    /// Takes away marks of near buckets that no flow needs any more, by the key that places flows; says
    /// how many.
    pub fn tidy_spills(&self, now: Tick, key: &Key) -> usize {
        let far = self.flows.iter().skip(self.spills.len());
        let entries = far.flat_map(|bucket| &bucket.entries);
        let near_mask = u32::try_from(self.spills.len()).map_or(0, |near| near.saturating_sub(1));
        let near_of = |client: &Client| Place::by(key, client).near_hash() & near_mask;
        spills::tidy(&self.spills, entries, near_of, now)
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
}

impl KernelMaps {
    /// Takes steps that replace rings, all at once; other steps are none of its business. After an error
    /// some of them may have been taken.
    pub fn replace_rings<'s>(
        &mut self,
        steps: impl Iterator<Item = &'s Step>,
    ) -> Result<(), DataplaneError> {
        let (mut all_slots, mut all_bases) = (Vec::new(), Vec::new());
        for step in steps {
            if let Step::ReplaceRing {
                group,
                slots,
                bases,
            } = step
            {
                all_slots.push((*group, &*slots.0));
                all_bases.extend(bases.as_ref().map(|bases| (*group, &*bases.0)));
            }
        }
        // First: packets that see the new slots must see their bases.
        self.ring_bases.write(&all_bases)?;
        self.rings.write(&all_slots)
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
            Step::ReplaceRing { .. } => self.replace_rings(std::iter::once(step))?,
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
