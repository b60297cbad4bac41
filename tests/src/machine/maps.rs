//! The machine's maps, filled with what the memory body's tables hold.

use std::collections::HashMap;

use anyhow::{Context as _, Result, bail, ensure};
use nlb_common::{
    decap::SourceKey,
    maps::{HINT_WORDS, Hints},
    word::Word,
};
use nlb_ebpf::memory::MemoryTables;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{code::MapShape, memory::Memory};

/// Set in a register that holds a map, with the map's index: no address, so that a program that
/// takes it for one is stopped.
const HANDLE: u64 = 1 << 63;

/// `enum bpf_map_type`.
mod kind {
    pub(super) const HASH: u32 = 1;
    pub(super) const ARRAY: u32 = 2;
    pub(super) const PROGRAMS: u32 = 3;
    pub(super) const PER_CPU_ARRAY: u32 = 6;
    pub(super) const LRU_HASH: u32 = 9;
    pub(super) const ARRAY_OF_MAPS: u32 = 12;
    pub(super) const RING_BUFFER: u32 = 27;
}

/// How a map finds a value.
#[derive(Debug)]
enum Finder {
    /// By its number; one CPU's values, where each has its own.
    Array,
    /// By its key, whose value has this number.
    Hash(HashMap<Vec<u8>, usize>),
    /// By the longest prefix: bits, bytes, and the value's number.
    Prefixes(Vec<(usize, Vec<u8>, usize)>),
    /// Another map, by number.
    Maps(HashMap<u32, usize>),
    /// Not at all: programs, and what is only written.
    None,
}

#[derive(Debug)]
struct Map {
    name: String,
    finder: Finder,
    key_bytes: usize,
    value_bytes: usize,
    /// Where the values are, one after another.
    values: u64,
}

/// All maps, by the numbers that the code gives them.
#[derive(Debug)]
pub(super) struct Maps {
    maps: Vec<Map>,
}

/// What a register holds that holds a map.
pub(super) fn handle(map: usize) -> u64 {
    HANDLE | map as u64
}

impl Maps {
    /// Maps of these shapes, holding what the tables hold.
    pub(super) fn fill(
        shapes: &[MapShape],
        tables: &mut MemoryTables,
        memory: &mut Memory,
    ) -> Result<Self> {
        let mut maps = Self { maps: Vec::new() };
        for shape in shapes {
            let finder = match shape.kind {
                kind::ARRAY | kind::PER_CPU_ARRAY => Finder::Array,
                kind::HASH | kind::LRU_HASH => Finder::Hash(HashMap::new()),
                kind::ARRAY_OF_MAPS => Finder::Maps(HashMap::new()),
                kind::PROGRAMS | kind::RING_BUFFER => Finder::None,
                other => bail!("{} is a map of the unknown kind {other}", shape.name),
            };
            // Arrays whose size the loader sets get theirs when they are filled.
            let bytes = if shape.constants.is_empty() && matches!(finder, Finder::Array) {
                vec![0; shape.value_bytes * shape.entries as usize]
            } else {
                shape.constants.clone()
            };
            maps.maps.push(Map {
                name: shape.name.clone(),
                finder,
                key_bytes: shape.key_bytes,
                value_bytes: shape.value_bytes,
                values: memory.add(bytes),
            });
        }
        maps.fill_arrays(tables, memory)?;
        maps.fill_hashes(tables, memory)?;
        maps.fill_inner(tables, memory)?;
        Ok(maps)
    }

    fn fill_arrays(&mut self, tables: &mut MemoryTables, memory: &mut Memory) -> Result<()> {
        let prefilter = tables.prefilter.words.each_ref().map(Word::load);
        self.array(memory, "PREFILTER", prefilter.as_bytes())?;
        self.array(memory, "LISTENERS", tables.listeners.as_mut_bytes())?;
        self.array(memory, "ADMISSION", tables.admissions.as_mut_bytes())?;
        self.array(memory, "TARGETS", tables.targets.as_mut_bytes())?;
        self.array(memory, "TUNNELS", tables.tunnels.as_mut_bytes())?;
        self.array(memory, "NEXT_HOPS", tables.next_hops.as_mut_bytes())?;
        self.array(memory, "SNAT_POOL", tables.pool.as_mut_bytes())?;
        self.array(memory, "FLOWS", tables.buckets.as_mut_bytes())?;
        self.array(memory, "SPILLS", tables.spills.as_mut_bytes())?;
        self.array(memory, "TRANSLATIONS", tables.translations.as_mut_bytes())?;
        self.array(memory, "SOURCES", tables.sources.as_mut_bytes())?;
        self.array(memory, "SEQUENCES", tables.sequences.as_mut_bytes())?;
        let numbers = tables.identifications.as_mut_bytes();
        self.array(memory, "IDENTIFICATIONS", numbers)?;
        let budget = tables.error_budget.get();
        self.array(memory, "ERROR_BUDGET", budget.as_bytes())?;
        let mut hints = vec![0u64; HINT_WORDS];
        for (number, id) in &tables.hints {
            let (word, shift) = Hints::place(*number);
            hints[word] |= u64::from(id.0) << shift;
        }
        self.array(memory, "LISTENER_HINTS", hints.as_bytes())
    }

    fn fill_hashes(&mut self, tables: &mut MemoryTables, memory: &mut Memory) -> Result<()> {
        for (key, id) in &tables.listener_index {
            self.entry(memory, "LISTENER_INDEX", key, &u32::from(id.0))?;
        }
        for (key, id) in &tables.next_hop_index {
            self.entry(memory, "NEXT_HOP_INDEX", key, &u32::from(id.0))?;
        }
        for (key, id) in &tables.server_ids {
            self.entry(memory, "SERVER_IDS", key, &id.0)?;
        }
        for (key, record) in tables.fragments.borrow().iter() {
            self.entry(memory, "FRAGMENTS", key, record)?;
        }
        for (source, record) in tables.admission_sources.borrow().iter() {
            let words = [record.window.load(), record.active.load()];
            self.entry(memory, "ADMISSION_SOURCES", source, &words)?;
        }
        Ok(())
    }

    fn fill_inner(&mut self, tables: &mut MemoryTables, memory: &mut Memory) -> Result<()> {
        for (outer, rings) in [("RINGS", &tables.rings), ("RING_BASES", &tables.ring_bases)] {
            for (group, slots) in rings {
                let ring = slots.as_bytes().to_vec();
                self.inner(
                    outer,
                    u32::from(*group),
                    Finder::Array,
                    ring.len(),
                    memory.add(ring),
                )?;
            }
        }
        for (listener, rules) in &tables.rules {
            let prefixes = rules.iter().enumerate().map(|(number, (prefix, bits, _))| {
                let key = SourceKey::of(*prefix);
                let bits = SourceKey::BITS_BEFORE as usize + usize::from(*bits);
                (bits, key.as_bytes().to_vec(), number)
            });
            let finder = Finder::Prefixes(prefixes.collect());
            let verdicts: Vec<u32> = rules.iter().map(|(_, _, verdict)| *verdict).collect();
            let values = memory.add(verdicts.as_bytes().to_vec());
            self.inner("RULES", u32::from(listener.0), finder, 4, values)?;
        }
        Ok(())
    }

    fn named(&mut self, name: &str) -> Result<&mut Map> {
        self.maps
            .iter_mut()
            .find(|map| map.name == name)
            .with_context(|| format!("the program has no map {name}"))
    }

    /// Fills an array, whose records are the memory body's own.
    fn array(&mut self, memory: &mut Memory, name: &str, bytes: &[u8]) -> Result<()> {
        let map = self.named(name)?;
        ensure!(
            bytes.len().is_multiple_of(map.value_bytes),
            "{name} holds records of {} bytes, not {}",
            map.value_bytes,
            bytes.len()
        );
        *memory.whole(map.values)? = bytes.to_vec();
        Ok(())
    }

    fn entry(
        &mut self,
        memory: &mut Memory,
        name: &str,
        key: &(impl IntoBytes + Immutable),
        value: &(impl IntoBytes + Immutable),
    ) -> Result<()> {
        self.named(name)?
            .put(memory, key.as_bytes(), value.as_bytes())
    }

    /// Adds an inner map.
    fn inner(
        &mut self,
        outer: &str,
        key: u32,
        finder: Finder,
        value_bytes: usize,
        values: u64,
    ) -> Result<()> {
        let number = self.maps.len();
        let Finder::Maps(inner) = &mut self.named(outer)?.finder else {
            bail!("{outer} holds no maps");
        };
        inner.insert(key, number);
        let key_bytes = match &finder {
            // Behind the four bytes that say how many of the bits count.
            Finder::Prefixes(_) => 4 + size_of::<SourceKey>(),
            _ => 4,
        };
        self.maps.push(Map {
            name: format!("{outer} {key}"),
            finder,
            key_bytes,
            value_bytes,
            values,
        });
        Ok(())
    }

    /// A map, by what a register holds.
    fn of(&self, register: u64) -> Result<&Map> {
        let index = register.checked_sub(HANDLE);
        index
            .and_then(|index| self.maps.get(usize::try_from(index).ok()?))
            .with_context(|| format!("{register:#x} is no map"))
    }

    /// Where a map's values are.
    pub(super) fn values(&self, map: usize) -> Result<u64> {
        Ok(self.of(handle(map))?.values)
    }

    /// A value's address or an inner map; 0 where there is none (`bpf_map_lookup_elem`).
    pub(super) fn look_up(&self, memory: &mut Memory, map: u64, key: u64) -> Result<u64> {
        let map = self.of(map)?;
        let key = memory.bytes(key, map.key_bytes)?.to_vec();
        let number = || u32::read_from_bytes(&key).expect("keys of arrays have four bytes");
        let value = match &map.finder {
            Finder::Array => Some(number() as usize),
            Finder::Hash(numbers) => numbers.get(&key).copied(),
            Finder::Prefixes(prefixes) => longest(prefixes, &key),
            Finder::Maps(inner) => {
                return Ok(inner.get(&number()).map_or(0, |index| handle(*index)));
            }
            Finder::None => bail!("{} is not looked up", map.name),
        };
        let Some(start) = value.map(|value| value * map.value_bytes) else {
            return Ok(0);
        };
        let is_inside = start + map.value_bytes <= memory.whole(map.values)?.len();
        Ok(if is_inside {
            map.values + start as u64
        } else {
            0
        })
    }

    /// Replaces or adds a value (`bpf_map_update_elem`).
    pub(super) fn update(
        &mut self,
        memory: &mut Memory,
        map: u64,
        key: u64,
        value: u64,
    ) -> Result<()> {
        let found = self.of(map)?;
        let key = memory.bytes(key, found.key_bytes)?.to_vec();
        let value = memory.bytes(value, found.value_bytes)?.to_vec();
        let index = usize::try_from(map - HANDLE)?;
        self.maps[index].put(memory, &key, &value)
    }
}

impl Map {
    fn put(&mut self, memory: &mut Memory, key: &[u8], value: &[u8]) -> Result<()> {
        ensure!(
            (key.len(), value.len()) == (self.key_bytes, self.value_bytes),
            "{} takes {} → {} bytes, not {} → {}",
            self.name,
            self.key_bytes,
            self.value_bytes,
            key.len(),
            value.len()
        );
        let Finder::Hash(numbers) = &mut self.finder else {
            bail!("{} is not changed by key", self.name);
        };
        let values = memory.whole(self.values)?;
        if let Some(number) = numbers.get(key) {
            values[number * value.len()..][..value.len()].copy_from_slice(value);
        } else {
            numbers.insert(key.to_vec(), values.len() / value.len());
            values.extend(value);
        }
        Ok(())
    }
}

/// The number of the longest prefix that a key has, whose first four bytes say how many of its bits
/// count.
fn longest(prefixes: &[(usize, Vec<u8>, usize)], key: &[u8]) -> Option<usize> {
    let key = &key[4..];
    let bit = |bytes: &[u8], at: usize| bytes[at / 8] >> (7 - at % 8) & 1;
    prefixes
        .iter()
        .filter(|(bits, prefix, _)| (0..*bits).all(|at| bit(prefix, at) == bit(key, at)))
        .max_by_key(|(bits, ..)| *bits)
        .map(|(_, _, number)| *number)
}
