//! The program at the targets' end of the tunnelled modes, and its maps.
//!
//! Nothing is pinned: the links end with the process, however it ends, and with them the
//! decapsulation.

use std::{collections::BTreeSet, net::IpAddr};

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, lpm_trie::Key},
};
use nlb_common::{
    address::Address,
    decap::{DecapSettings, DecapStop, Decapsulated, Encapsulation, SourceKey},
    plain::Plain,
};
use zerocopy::IntoBytes as _;

use super::{
    DECAP_OBJECT, DataplaneError,
    load::{Attached, attach_anew},
    stages,
};
use crate::{config::XdpMode, decap::prefix::Prefix};

/// The program's name in the object.
const PROGRAM: &str = "decap";

/// The loaded program. Dropping it takes it off all interfaces.
pub struct DecapProgram {
    object: Ebpf,
    own: HashMap<MapData, Plain<Address>, u32>,
    counters: PerCpuArray<MapData, Plain<Decapsulated>>,
    stops: PerCpuArray<MapData, u64>,
}

/// What was counted since the program was loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DecapCounts {
    /// What was taken out of each encapsulation.
    pub decapsulated: [Decapsulated; Encapsulation::ALL.len()],
    /// What was stopped, by [`DecapStop`].
    pub stops: [u64; DecapStop::COUNT],
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

/// A map must have room for one entry.
fn entries(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX).max(1)
}

impl DecapProgram {
    /// Loads the program; it knows none of the host's own addresses yet.
    pub fn load(
        settings: DecapSettings,
        vips: &BTreeSet<IpAddr>,
        sources: &BTreeSet<Prefix>,
    ) -> Result<Self, DataplaneError> {
        let mut object = EbpfLoader::new()
            .map_max_entries("DECAP_VIPS", entries(vips.len()))
            .map_max_entries("DECAP_SOURCES", entries(sources.len()))
            .override_global("DECAP_SETTINGS", settings.as_bytes(), true)
            .load(DECAP_OBJECT)?;
        stages::program(&mut object, PROGRAM)?
            .load()
            .map_err(DataplaneError::Program)?;
        let mut vip_map = HashMap::try_from(take(&mut object, "DECAP_VIPS")?)
            .map_err(map_error("use", "DECAP_VIPS"))?;
        for vip in vips {
            vip_map
                .insert(Plain(Address::from(*vip)), 1u32, 0)
                .map_err(map_error("write", "DECAP_VIPS"))?;
        }
        let mut source_map = LpmTrie::try_from(take(&mut object, "DECAP_SOURCES")?)
            .map_err(map_error("use", "DECAP_SOURCES"))?;
        for prefix in sources {
            source_map
                .insert(
                    &Key::new(
                        SourceKey::BITS_BEFORE + prefix.mapped_length(),
                        Plain(SourceKey::of(prefix.mapped())),
                    ),
                    1u32,
                    0,
                )
                .map_err(map_error("write", "DECAP_SOURCES"))?;
        }
        Ok(Self {
            own: HashMap::try_from(take(&mut object, "DECAP_OWN")?)
                .map_err(map_error("use", "DECAP_OWN"))?,
            counters: PerCpuArray::try_from(take(&mut object, "DECAP_COUNTERS")?)
                .map_err(map_error("use", "DECAP_COUNTERS"))?,
            stops: PerCpuArray::try_from(take(&mut object, "DECAP_STOPS")?)
                .map_err(map_error("use", "DECAP_STOPS"))?,
            object,
        })
    }

    /// Makes these the host's own addresses: new ones come before old ones go.
    pub fn set_own(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), DataplaneError> {
        let wished: Vec<Address> = addresses.iter().copied().map(Address::from).collect();
        let present: Vec<Plain<Address>> = self
            .own
            .keys()
            .collect::<Result<_, _>>()
            .map_err(map_error("read", "DECAP_OWN"))?;
        for address in &wished {
            self.own
                .insert(Plain(*address), 1, 0)
                .map_err(map_error("write", "DECAP_OWN"))?;
        }
        for Plain(address) in present {
            if !wished.contains(&address) {
                self.own
                    .remove(&Plain(address))
                    .map_err(map_error("write", "DECAP_OWN"))?;
            }
        }
        Ok(())
    }

    /// Puts the program on an interface.
    pub fn attach(
        &mut self,
        interface: &str,
        index: u32,
        mode: XdpMode,
    ) -> Result<Attached, DataplaneError> {
        // The object keeps the link.
        let (_, attached) = attach_anew(
            stages::program(&mut self.object, PROGRAM)?,
            interface,
            index,
            mode,
        )?;
        Ok(attached)
    }

    /// What was counted.
    pub fn counts(&self) -> Result<DecapCounts, DataplaneError> {
        let mut counts = DecapCounts::default();
        for (index, sum) in (0..).zip(&mut counts.decapsulated) {
            let parts = self
                .counters
                .get(&index, 0)
                .map_err(map_error("read", "DECAP_COUNTERS"))?;
            for part in parts.iter() {
                *sum += part.0;
            }
        }
        for (index, sum) in (0..).zip(&mut counts.stops) {
            let parts = self
                .stops
                .get(&index, 0)
                .map_err(map_error("read", "DECAP_STOPS"))?;
            *sum = parts.iter().sum();
        }
        Ok(counts)
    }
}
