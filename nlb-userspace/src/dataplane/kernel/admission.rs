//! Who may begin flows: listeners' rules, and what sources are counted to have.

use aya::maps::{LpmTrie, MapData, MapError, lpm_trie::Key as Prefix};
use nlb_common::{
    admission::{ALLOW, DENY, MAX_SOURCES, Source, settled},
    decap::SourceKey,
    listener::ListenerId,
    plain::Plain,
};

use super::{KernelMaps, map_error};
use crate::{
    dataplane::{
        DataplaneError,
        sweep::{self, FlowsBySource, Sweep},
    },
    source_rules::SourceRules,
};

/// `BPF_F_NO_PREALLOC` of `linux/bpf.h`, which tries must have.
const NO_PREALLOC: u32 = 1;

/// Listeners' rules in the kernel.
pub(super) type RuleMap = LpmTrie<MapData, Plain<SourceKey>, u32>;

/// Sets of rules that are kept open, for listeners that share them.
const OPEN_RULES: usize = 16;

impl KernelMaps {
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
    pub(super) fn replace_rules(
        &mut self,
        id: ListenerId,
        rules: &SourceRules,
    ) -> Result<(), DataplaneError> {
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
    pub(super) fn remove_rules(&mut self, id: ListenerId) -> Result<(), DataplaneError> {
        let empty = RuleMap::create(1, NO_PREALLOC)
            .map_err(map_error("make an empty set of rules for", "RULES"))?;
        self.made_rules.clear();
        self.rules
            .set(id.0.into(), &empty, 0)
            .map_err(map_error("remove rules of", "RULES"))
    }
}

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
