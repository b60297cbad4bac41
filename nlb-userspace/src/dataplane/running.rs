//! The program that packets meet now, whoever loaded it: its maps by name, and the constants that it was
//! loaded with. Only ever read.
//!
//! Not all maps are pinned, so they are found through the program: the pinned link names the program, and
//! the program names its maps. Stages are programs of their own, which share maps with it that no other
//! instance has.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use aya::{
    maps::{Array, Map, MapData, MapInfo, PerCpuArray},
    programs::{ProgramInfo, links::PinnedLink, loaded_programs},
};
use nlb_common::{
    flow::{Bucket, WAYS},
    listener::Listener,
    maps::{Header, LAYOUT_VERSION},
    next_hop::NextHopSlot,
    plain::Plain,
    settings::{self, Settings},
    source::{Pool, Translations},
    stop::Stop,
    target::Target,
    tick::Tick,
};

use super::{
    DataplaneError, capture,
    kernel::{map_error, share},
    load::{LINK_PREFIX, io_error, number, require_bpffs},
    shared::Shared,
};
use crate::flows::Table;

/// How much of a name the kernel keeps (`BPF_OBJ_NAME_LEN` of `linux/bpf.h`, without the zero).
const NAME_BYTES: usize = 15;

/// What the programs of the packet path are called, all of them.
const PROGRAM_PREFIX: &str = "nlb";

/// What stages hand over to each other: no instance shares it with another one. The stage that writes faults
/// to the log reads no constants, and has only this in common with the others.
const HANDOVER: &str = "HANDOVER";

/// A program that runs, with its stages.
#[derive(Debug)]
pub struct Running {
    /// The front program's id, which no other program has before the machine starts anew.
    pub program: u32,
    /// The constants that it was loaded with.
    pub settings: Settings,
    /// The interfaces whose packets it sees, by index, as far as its links are pinned.
    pub interfaces: Vec<u32>,
    maps: BTreeMap<String, u32>,
    /// Its programs' names, and the hashes that the kernel makes of their instructions.
    tags: BTreeSet<(String, u64)>,
}

/// What the flow table is read with.
#[derive(Debug)]
pub struct FlowMaps {
    /// The table.
    pub flows: Shared<Bucket>,
    /// What the sources of its flows become.
    pub translations: Shared<Translations>,
    /// Our addresses that sources become.
    pub pool: Shared<Pool>,
    /// Listeners by id.
    pub listeners: Shared<Listener>,
    /// Targets by id.
    pub targets: Shared<Target>,
}

impl Running {
    /// The program that is attached, by the links that are pinned here: on this interface, or else on
    /// the one with the lowest index.
    pub fn attached(
        bpffs: &Path,
        pins: &Path,
        interface: Option<u32>,
    ) -> Result<Self, DataplaneError> {
        require_bpffs(bpffs)?;
        let nothing = || DataplaneError::NotRunning(pins.to_owned());
        let mut links = links(pins)?;
        links.sort_unstable();
        let link = match interface {
            None => links.first(),
            Some(wanted) => links.iter().find(|(index, _)| *index == wanted),
        };
        let (_, path) = link.ok_or_else(nothing)?;
        let unusable = |source| DataplaneError::Link {
            path: path.clone(),
            source,
        };
        let link =
            aya::programs::links::FdLink::from(PinnedLink::from_pin(path).map_err(unusable)?);
        let program = link.info().map_err(unusable)?.program_id();
        Ok(Self {
            interfaces: links.iter().map(|(index, _)| *index).collect(),
            ..Self::of_program(capture::front(program)?)?
        })
    }

    /// The program with this id.
    pub fn of_program(id: u32) -> Result<Self, DataplaneError> {
        let mut front = (BTreeMap::new(), BTreeSet::new());
        let mut others = Vec::new();
        for program in loaded_programs() {
            // One that ends while we look is none of ours.
            let Ok(program) = program else { continue };
            if program.id() == id {
                front = (maps(&program)?, tag(&program).into_iter().collect());
            } else if program
                .name_as_str()
                .is_some_and(|name| name.starts_with(PROGRAM_PREFIX))
                && let Ok(maps) = maps(&program)
            {
                others.push((maps, tag(&program)));
            }
        }
        let (front, mut tags) = front;
        if !front.contains_key(settings::SECTION) {
            return Err(DataplaneError::Unreadable);
        }
        let mut all = front;
        for (maps, tag) in others {
            let is_ours = |name| maps.contains_key(name) && maps.get(name) == all.get(name);
            if is_ours(settings::SECTION) || is_ours(HANDOVER) {
                all.extend(maps);
                tags.extend(tag);
            }
        }
        let mut running = Self {
            program: id,
            settings: Settings::default(),
            interfaces: Vec::new(),
            maps: all,
            tags,
        };
        let data = running.data(settings::SECTION)?;
        let unreadable = map_error("read", settings::SECTION);
        let constants: Array<_, Plain<Settings>> =
            Array::try_from(Map::Array(data)).map_err(&unreadable)?;
        running.settings = constants.get(&0, 0).map_err(&unreadable)?.0;
        Ok(running)
    }

    /// The generation that is live. An error if the maps are of another release.
    pub fn generation(pins: &Path) -> Result<u64, DataplaneError> {
        let path = pins.join("HEADER");
        let data = MapData::from_pin(&path).map_err(map_error("find", "HEADER"))?;
        let header: Shared<Header> = share(&data, "HEADER")?;
        let Some(header) = header.first() else {
            return Err(DataplaneError::NoMap("HEADER"));
        };
        match header.layout_version.load() {
            LAYOUT_VERSION => Ok(header.generation.load()),
            found => Err(DataplaneError::OtherLayout {
                found,
                ours: LAYOUT_VERSION,
            }),
        }
    }

    /// One of its maps; under the name that it has in the packet program.
    pub fn data(&self, name: &'static str) -> Result<MapData, DataplaneError> {
        let short = name.get(..NAME_BYTES).unwrap_or(name);
        let id = self.maps.get(short).ok_or(DataplaneError::NoMap(name))?;
        MapData::from_id(*id).map_err(map_error("open", name))
    }

    /// The same, of a type.
    pub(super) fn map<M: TryFrom<Map, Error = aya::maps::MapError>>(
        &self,
        name: &'static str,
    ) -> Result<M, DataplaneError> {
        Map::from_map_data(self.data(name)?)
            .and_then(M::try_from)
            .map_err(map_error("use", name))
    }

    /// Whether a program of this name and hash is one of its stages.
    pub(super) fn has(&self, tag: &(String, u64)) -> bool {
        self.tags.contains(tag)
    }

    /// How often packets were stopped for each reason.
    pub fn stop_counts(&self) -> Result<[u64; Stop::COUNT], DataplaneError> {
        let map: PerCpuArray<MapData, u64> = self.map("STOP_COUNTERS")?;
        let mut counts = [0; Stop::COUNT];
        for (index, count) in (0..map.len()).zip(&mut counts) {
            let values = map.get(&index, 0);
            let values = values.map_err(map_error("read", "STOP_COUNTERS"))?;
            *count = values.iter().sum();
        }
        Ok(counts)
    }

    /// Where its frames are sent, by the addresses that they begin with.
    pub fn next_hops(&self) -> Result<Shared<NextHopSlot>, DataplaneError> {
        share(&self.data("NEXT_HOPS")?, "NEXT_HOPS")
    }

    /// The flow table and what its entries name.
    pub fn flows(&self) -> Result<FlowMaps, DataplaneError> {
        Ok(FlowMaps {
            flows: share(&self.data("FLOWS")?, "FLOWS")?,
            translations: share(&self.data("TRANSLATIONS")?, "TRANSLATIONS")?,
            pool: share(&self.data("SNAT_POOL")?, "SNAT_POOL")?,
            listeners: share(&self.data("LISTENERS")?, "LISTENERS")?,
            targets: share(&self.data("TARGETS")?, "TARGETS")?,
        })
    }
}

impl FlowMaps {
    /// The table, as it is looked through now.
    pub fn table(&self, now: Tick) -> Table<'_> {
        Table {
            flows: &self.flows,
            translations: &self.translations,
            pool: self.pool.first(),
            listeners: &self.listeners,
            targets: &self.targets,
            now,
        }
    }

    /// How many flows there is room for.
    pub fn capacity(&self) -> usize {
        self.flows.len() * WAYS
    }
}

/// What tells a program from others: its name, and a hash of its instructions.
pub(super) fn tag(program: &ProgramInfo) -> Option<(String, u64)> {
    Some((program.name_as_str()?.to_owned(), program.tag()))
}

/// A program's maps by their names.
pub(super) fn maps(program: &ProgramInfo) -> Result<BTreeMap<String, u32>, DataplaneError> {
    let ids = program.map_ids().map_err(DataplaneError::Program)?;
    let ids = ids.unwrap_or_default().into_iter();
    // One without a name, or that is gone already, is none that we look for.
    Ok(ids
        .filter_map(|id| Some((MapInfo::from_id(id).ok()?.name_as_str()?.to_owned(), id)))
        .collect())
}

/// The pinned links, by the index of the interface.
fn links(pins: &Path) -> Result<Vec<(u32, PathBuf)>, DataplaneError> {
    if !pins.try_exists().map_err(io_error("look at", pins))? {
        return Ok(Vec::new());
    }
    let paths = super::load::links(pins)?;
    Ok(paths
        .into_iter()
        .filter_map(|path| Some((number(&path, LINK_PREFIX)?, path)))
        .collect())
}
