//! Programs as the machine reads them: the loader's object, with maps by number and functions linked.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context as _, Result};
use aya_obj::{EbpfSectionKind, Map, Object};
use nlb_common::settings::Settings;
use zerocopy::IntoBytes as _;

/// One instruction (RFC 9669 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) opcode: u8,
    pub(super) destination: usize,
    pub(super) source: usize,
    pub(super) offset: i16,
    pub(super) immediate: i32,
}

/// What the programs call a map, before anybody fills it.
#[derive(Clone, Debug)]
pub(super) struct MapShape {
    pub(super) name: String,
    /// `enum bpf_map_type`.
    pub(super) kind: u32,
    pub(super) key_bytes: usize,
    pub(super) value_bytes: usize,
    pub(super) entries: u32,
    /// What a section of constants holds; empty for other maps.
    pub(super) constants: Vec<u8>,
}

/// An object's programs and maps. Instructions that load a map's address name its index here.
#[derive(Debug)]
pub(super) struct Code {
    pub(super) programs: BTreeMap<String, Vec<Instruction>>,
    pub(super) maps: Vec<MapShape>,
}

impl Code {
    /// Reads an object as the daemon's loader does.
    pub(super) fn read(elf: &[u8], settings: &Settings) -> Result<Self> {
        let mut object = Object::parse(elf).context("the object")?;
        object.patch_map_data([("SETTINGS", (settings.as_bytes(), true))].into())?;
        // Taken out, because the object cannot be changed while its maps are looked at.
        let maps: BTreeMap<String, Map> = object.maps.drain().collect();
        let text: HashSet<usize> = object
            .functions
            .keys()
            .map(|(section, _)| *section)
            .collect();
        let numbered = (0..).zip(&maps);
        object.relocate_maps(
            numbered.map(|(number, (name, map))| (name.as_str(), number, map)),
            &text,
        )?;
        object.relocate_calls(&text)?;
        let mut programs = BTreeMap::new();
        for (name, program) in &object.programs {
            let function = &object.functions[&program.function_key()];
            let instructions = function.instructions.iter().map(|instruction| Instruction {
                opcode: instruction.code,
                destination: instruction.dst_reg().into(),
                source: instruction.src_reg().into(),
                offset: instruction.off,
                immediate: instruction.imm,
            });
            programs.insert(name.clone(), instructions.collect());
        }
        let maps = maps.iter().map(|(name, map)| shape(name, map)).collect();
        Ok(Self { programs, maps })
    }
}

/// `BPF_MAP_TYPE_ARRAY`: what a section of constants becomes.
const ARRAY: u32 = 2;

fn shape(name: &str, map: &Map) -> MapShape {
    let is_section = !matches!(
        map.section_kind(),
        EbpfSectionKind::BtfMaps | EbpfSectionKind::Maps
    );
    MapShape {
        name: name.into(),
        kind: if is_section { ARRAY } else { map.map_type() },
        key_bytes: map.key_size() as usize,
        value_bytes: if is_section {
            map.data().len()
        } else {
            map.value_size() as usize
        },
        entries: if is_section { 1 } else { map.max_entries() },
        constants: if is_section {
            map.data().to_vec()
        } else {
            Vec::new()
        },
    }
}
