//! What is in the maps: found there once, and then noted step by step.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use nlb_common::{
    address::Address,
    admission::AdmissionPolicy,
    listener::{ListenerId, ListenerKey, ListenerPolicy},
    maps::PREFILTER_WORDS,
    source::SourceId,
    target::{Mode, TargetControl, TargetId, TargetIdentity},
    tunnel::Tunnel,
};

use super::{PlannedRing, RingSource, Wish, WishedGroup, identity, quic};
use crate::{
    dataplane::{Step, kernel::Found},
    settling::Settling,
    source_rules::SourceRules,
};

/// What is in the maps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Actual {
    /// The generation that is live.
    pub generation: u64,
    pub(super) listeners: BTreeMap<ListenerId, (ListenerKey, ListenerPolicy)>,
    pub(super) index: HashMap<ListenerKey, ListenerId>,
    pub(super) targets: BTreeMap<TargetId, (TargetIdentity, TargetControl)>,
    pub(super) listener_ids: HashMap<ListenerKey, ListenerId>,
    pub(super) target_ids: HashMap<(TargetIdentity, Mode), TargetId>,
    pub(super) groups: BTreeMap<u32, u16>,
    pub(super) tunnels: BTreeMap<u16, Tunnel>,
    pub(super) admissions: BTreeMap<ListenerId, AdmissionPolicy>,
    /// Listeners that have rules, and which; unknown after adoption, so that they are written anew.
    pub(super) rules: BTreeMap<ListenerId, Option<SourceRules>>,
    /// What each ring was built from; unknown after adoption, so that rings are built anew.
    pub(super) rings: BTreeMap<u16, RingSource>,
    pub(super) prefilter: Vec<u64>,
    pub(super) sources: BTreeMap<SourceId, Address>,
    /// Those that new flows get.
    pub(super) turns: BTreeSet<SourceId>,
    pub(super) quic: quic::Known,
    /// The rings of listeners that pin flows on change.
    pub(super) settling: BTreeMap<u16, Settling>,
    /// Listeners that packets find by the number of their prefilter's bit.
    pub(super) hints: BTreeMap<u16, ListenerId>,
}

impl Actual {
    /// How many listeners, targets and rings there are.
    pub fn records(&self) -> (usize, usize, usize) {
        (self.listeners.len(), self.targets.len(), self.rings.len())
    }

    /// What another daemon left.
    pub fn adopt(found: &Found) -> Self {
        Self {
            generation: found.generation,
            listeners: found
                .listeners
                .iter()
                .map(|(id, key, policy)| (*id, (*key, *policy)))
                .collect(),
            index: found.listener_index.iter().copied().collect(),
            targets: found
                .targets
                .iter()
                .map(|(id, identity, control)| (*id, (*identity, *control)))
                .collect(),
            listener_ids: found
                .listeners
                .iter()
                .map(|(id, key, _)| (*key, *id))
                .collect(),
            target_ids: found
                .targets
                .iter()
                .map(|(id, identity, control)| ((*identity, control.mode), *id))
                .collect(),
            groups: found
                .targets
                .iter()
                .map(|(_, identity, _)| (identity.group_fingerprint, identity.group))
                .collect(),
            tunnels: found.tunnels.iter().copied().collect(),
            admissions: found.admissions.iter().copied().collect(),
            rules: found
                .admissions
                .iter()
                .filter(|(_, policy)| policy.has_rules)
                .map(|(id, _)| (*id, None))
                .collect(),
            rings: BTreeMap::new(),
            prefilter: found.prefilter.clone(),
            sources: found.sources.iter().copied().collect(),
            turns: found.turns.clone(),
            quic: quic::Known {
                layouts: found.cid_layouts.iter().copied().collect(),
                servers: found
                    .server_ids
                    .iter()
                    .map(|(key, target)| (quic::known_key(key), *target))
                    .collect(),
            },
            settling: found
                .settling
                .iter()
                .map(|ring| {
                    let (slots, bases) = (Arc::clone(&ring.slots), Arc::clone(&ring.bases));
                    (ring.group, Settling::found(slots, bases))
                })
                .collect(),
            hints: found.hints.iter().copied().collect(),
        }
    }

    /// The id of a listener.
    pub fn listener_id(&self, key: &ListenerKey) -> Option<ListenerId> {
        self.listener_ids.get(key).copied()
    }

    /// The id of a target.
    pub fn target_id(&self, group: &WishedGroup, address: IpAddr, port: u16) -> Option<TargetId> {
        let group_id = self.groups.get(&group.fingerprint)?;
        self.target_ids
            .get(&(identity(group, *group_id, address, port), group.mode))
            .copied()
    }

    /// Notes that a step was taken.
    pub fn note(&mut self, step: &Step) {
        match step {
            Step::WriteTarget {
                id,
                identity,
                control,
            } => {
                self.groups
                    .insert(identity.group_fingerprint, identity.group);
                self.target_ids.insert((*identity, control.mode), *id);
                self.targets.insert(*id, (*identity, *control));
            }
            Step::ControlTarget { id, control } => {
                if let Some((_, old)) = self.targets.get_mut(id) {
                    *old = *control;
                }
            }
            Step::ClearTarget { id } => {
                if let Some((identity, control)) = self.targets.remove(id) {
                    self.target_ids.remove(&(identity, control.mode));
                }
            }
            Step::WriteListener { id, key, policy } => {
                self.listener_ids.insert(*key, *id);
                self.listeners.insert(*id, (*key, *policy));
            }
            Step::ChangeListener { id, policy } => {
                if let Some((_, old)) = self.listeners.get_mut(id) {
                    *old = *policy;
                }
            }
            Step::ClearListener { id } => {
                if let Some((key, _)) = self.listeners.remove(id) {
                    self.listener_ids.remove(&key);
                }
            }
            Step::ReplaceRules { id, rules } => {
                self.rules.insert(*id, Some(rules.clone()));
            }
            Step::RemoveRules { id } => {
                self.rules.remove(id);
            }
            Step::SetAdmission { id, policy } => {
                self.admissions.insert(*id, *policy);
            }
            Step::IndexListener { key, id } => {
                self.index.insert(*key, *id);
            }
            Step::UnindexListener { key } => {
                self.index.remove(key);
            }
            Step::Prefilter { index, bits } => {
                self.prefilter.resize(PREFILTER_WORDS, 0);
                if let Some(word) = self.prefilter.get_mut(*index) {
                    *word = *bits;
                }
            }
            Step::WriteTunnel { group, tunnel } => {
                self.tunnels.insert(*group, *tunnel);
            }
            Step::WriteSource { id, address } => {
                self.sources.insert(*id, *address);
            }
            Step::TakeTurns { is_v4, ids } => {
                let sources = &self.sources;
                let is_other = |id: &SourceId| {
                    sources
                        .get(id)
                        .is_some_and(|address| address.is_v4() != *is_v4)
                };
                self.turns.retain(is_other);
                self.turns.extend(ids);
            }
            Step::ClearSource { id } => {
                self.sources.remove(id);
            }
            Step::LayOutCids { id, layout } => {
                self.quic.layouts.insert(*id, *layout);
            }
            Step::IndexServer { key, target } => {
                self.quic.servers.insert(quic::known_key(key), *target);
            }
            Step::UnindexServer { key } => {
                self.quic.servers.remove(&quic::known_key(key));
            }
            Step::Publish { generation } => self.generation = *generation,
            Step::Hint { number, id } => {
                self.hints.insert(*number, *id);
                self.hints.retain(|_, id| id.0 != 0);
            }
            // What is noted of a settling ring is more than a step says: `note_settling`.
            Step::ReplaceRing { .. }
            | Step::WriteNextHop { .. }
            | Step::InvalidateNextHop { .. }
            | Step::RenewNextHop { .. }
            | Step::IndexNextHop { .. }
            | Step::UnindexNextHop { .. }
            | Step::WriteVlanLink { .. }
            | Step::RemoveVlanLink { .. } => {}
        }
    }

    /// Notes what a ring was built from.
    pub fn note_ring(&mut self, ring: PlannedRing) {
        if let RingSource::Group { fingerprint, .. } = &ring.source {
            self.groups.insert(*fingerprint, ring.group);
        }
        self.rings.insert(ring.group, ring.source);
        match ring.settling {
            Some(settling) => self.settling.insert(ring.group, settling),
            None => self.settling.remove(&ring.group),
        };
    }

    /// The rings of listeners that pin flows on change.
    pub const fn settling(&self) -> &BTreeMap<u16, Settling> {
        &self.settling
    }

    /// Notes how far a ring has settled.
    pub fn note_settling(&mut self, group: u16, settling: Settling) {
        self.settling.insert(group, settling);
    }

    /// How long flows of a ring's listeners may be silent, in ticks.
    pub fn idle_ticks(&self, group: u16) -> u16 {
        let of_ring = |(_, policy): &&(_, ListenerPolicy)| policy.group == group;
        let idle = |(_, policy): &(_, ListenerPolicy)| policy.idle_ticks;
        self.listeners
            .values()
            .filter(of_ring)
            .map(idle)
            .max()
            .unwrap_or(0)
    }

    /// Gives the ids of groups back that nothing names any more: no wish, no target, no listener.
    pub fn forget_groups(&mut self, wish: &Wish) {
        let wished: HashSet<u32> = wish.groups.iter().map(|group| group.fingerprint).collect();
        let named: HashSet<u16> = self
            .targets
            .values()
            .map(|(identity, _)| identity.group)
            .chain(self.listeners.values().map(|(_, policy)| policy.group))
            .collect();
        self.groups
            .retain(|name, id| wished.contains(name) || named.contains(id));
        let kept: HashSet<u16> = self.groups.values().copied().collect();
        self.rings
            .retain(|id, _| kept.contains(id) || named.contains(id));
        self.settling
            .retain(|id, _| kept.contains(id) || named.contains(id));
    }
}
