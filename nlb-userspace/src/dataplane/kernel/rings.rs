//! Rings in the kernel: each a map of its own in an array of maps, whose memory is mapped here.
//!
//! A ring is made once, filled, and put into the array; from then on it is changed where it is, slot by
//! slot. A packet reads one slot, so that it sees what was or what will be. Putting another map there
//! for every change would be no more to a packet, and have the kernel wait some ten milliseconds each
//! time until nobody reads the old one.
//!
//! Each ring is pinned beside the array, because the array tells no more than numbers of maps, and to
//! open a map by its number takes the rights of an administrator, which the daemon has given up.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, BorrowedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use aya::{
    Ebpf,
    maps::{ArrayOfMaps, Map, MapData},
};
use aya_obj::{Map as Definition, generated::bpf_map_type::BPF_MAP_TYPE_ARRAY};
use nlb_common::ring::{Ring, SharedRing};

use super::{map_error, share, take};
use crate::dataplane::{
    DataplaneError, batch,
    load::{entries, number},
    shared::Shared,
};

/// `BPF_F_MMAPABLE` of `linux/bpf.h`: the inner maps must have the template's flags.
const MMAPABLE: u32 = 1 << 10;

/// Rings that are put in at once: each is open until then.
const AT_ONCE: usize = 256;

/// An array of rings.
pub(super) struct Rings {
    outer: Map,
    map: &'static str,
    /// Where each ring is pinned, but for its number; without pins there is no other daemon to find them.
    pins: Option<PathBuf>,
    by_id: BTreeMap<u16, Shared<SharedRing>>,
}

/// A ring that is to be.
pub(super) type Wanted<'r> = (u16, &'r [u32]);

impl Rings {
    /// Takes the array out of a loaded object, and finds the rings that another daemon left; `prefix` is
    /// what the names of their pins begin with.
    pub(super) fn take(
        object: &mut Ebpf,
        map: &'static str,
        pins: Option<&Path>,
        prefix: &str,
    ) -> Result<Self, DataplaneError> {
        let outer = take(object, map)?;
        let mut by_id = BTreeMap::new();
        for path in pins.map(entries).transpose()?.into_iter().flatten() {
            if let Some(group) = number(&path, prefix).and_then(|number| number.try_into().ok()) {
                let ring = MapData::from_pin(&path).map_err(map_error("find a ring of", map))?;
                by_id.insert(group, share(&ring, map)?);
            }
        }
        Ok(Self {
            outer,
            map,
            pins: pins.map(|pins| pins.join(prefix)),
            by_id,
        })
    }

    /// How many there is room for.
    pub(super) fn capacity(&self) -> usize {
        match &self.outer {
            Map::ArrayOfMaps(data) => data.info().map_or(0, |info| info.max_entries() as usize),
            _ => 0,
        }
    }

    /// The slots of a ring, if it was ever put in.
    pub(super) fn slots(&self, group: u16) -> Option<Arc<[u32]>> {
        let ring = self.by_id.get(&group)?.first()?;
        Some(ring.slots().collect())
    }

    /// Makes rings say this. After an error some of them do.
    pub(super) fn write(&mut self, wanted: &[Wanted<'_>]) -> Result<(), DataplaneError> {
        let (known, new): (Vec<Wanted<'_>>, Vec<Wanted<'_>>) = wanted
            .iter()
            .partition(|(group, _)| self.by_id.contains_key(group));
        for (group, slots) in known {
            if let Some(ring) = self.by_id.get(&group).and_then(|ring| ring.first()) {
                ring.write(slots);
            }
        }
        new.chunks(AT_ONCE).try_for_each(|new| self.make(new))
    }

    /// Makes rings that are not there yet. No packet sees one before it is filled.
    fn make(&mut self, wanted: &[Wanted<'_>]) -> Result<(), DataplaneError> {
        let mut made = Vec::with_capacity(wanted.len());
        for (group, slots) in wanted {
            let definition = Definition::new_from_params(
                BPF_MAP_TYPE_ARRAY as u32,
                bytes_of::<u32>(),
                bytes_of::<Ring>(),
                1,
                MMAPABLE,
            );
            let data = MapData::create(definition, "ring", None)
                .map_err(map_error("make a ring for", self.map))?;
            let ring: Shared<SharedRing> = share(&data, self.map)?;
            if let Some(ring) = ring.first() {
                ring.write(slots);
            }
            made.push((*group, data, ring));
        }
        self.put(&made)?;
        for (group, data, ring) in made {
            self.by_id.insert(group, ring);
            if let Some(pins) = &self.pins
                && let Err(error) = pin(&data, pins, group)
            {
                tracing::warn!("the next daemon will make this ring anew: {error}");
            }
        }
        Ok(())
    }

    fn put(&mut self, made: &[(u16, MapData, Shared<SharedRing>)]) -> Result<(), DataplaneError> {
        let maps: Vec<(u32, BorrowedFd<'_>)> = made
            .iter()
            .map(|(group, data, _)| (u32::from(*group), data.fd().as_fd()))
            .collect();
        if let Map::ArrayOfMaps(outer) = &self.outer
            && maps.len() > 1
            && batch::put(outer.fd().as_fd(), &maps).is_ok()
        {
            return Ok(());
        }
        // One by one it goes with older kernels, too, and an error is told of the one that has it.
        let failed = map_error("put a ring into", self.map);
        let mut outer = ArrayOfMaps::<_, MapData>::try_from(&mut self.outer).map_err(&failed)?;
        made.iter()
            .try_for_each(|(group, data, _)| outer.set((*group).into(), data, 0).map_err(&failed))
    }
}

/// Pins a ring where the next daemon finds it.
fn pin(data: &MapData, pins: &Path, group: u16) -> Result<(), DataplaneError> {
    let mut path = pins.as_os_str().to_owned();
    path.push(group.to_string());
    let path = PathBuf::from(path);
    data.pin(&path)
        .map_err(|source| DataplaneError::Pin { path, source })
}

/// The size of a type, as the kernel counts it.
fn bytes_of<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}
