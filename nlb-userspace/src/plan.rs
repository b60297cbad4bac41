//! 4. Wish minus actual = ordered steps.
//!
//! Pure: the same input gives the same steps in the same order, and after every prefix of them
//! traffic flows. Whatever a record names is there before it, whatever named a record is gone
//! before it: targets, rings, listeners, prefilter, index; and the other way round.
//!
//! Records outlive their place in the configuration: a flow that was pinned to a target, or that
//! came to a listener, goes on until it ends. [`retire`] takes the records away when a sweep over
//! the flow table has found no flow that needs them.

mod admission;
mod quic;
mod rings;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use nlb_common::{
    address::Address,
    admission::AdmissionPolicy,
    listener::{HashInput, ListenerFlags, ListenerId, ListenerKey, ListenerPolicy, Stranded},
    maps::{PREFILTER_WORDS, Prefilter, SERVER_IDS_PER_TARGET, Side},
    next_hop::NextHopId,
    source::{MAX_SOURCES, SourceId},
    target::{Mode, TargetControl, TargetId, TargetIdentity},
    tunnel::Tunnel,
    wire::protocol,
};
use zerocopy::big_endian::U16;

use self::rings::ResolvedGroup;
pub use self::rings::{ForwardShare, PlannedRing, RingSource};
pub use self::{admission::WishedAdmission, quic::WishedQuic};
use crate::{
    dataplane::{Step, kernel::Found, sweep::Sweep},
    ring::RingEntry,
    source_rules::SourceRules,
};

/// What should be, resolved down to what the maps hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// One for each address, protocol and port.
    pub listeners: Vec<WishedListener>,
    /// The target groups.
    pub groups: Vec<WishedGroup>,
    /// Addresses of ours that sources are translated to.
    pub sources: Vec<IpAddr>,
    /// What listeners forward to that have several groups.
    pub forwards: Vec<WishedForward>,
}

/// Several target groups by weight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WishedForward {
    /// Indexes into [`Wish::groups`], and each one's share of new flows; 0 for none.
    pub shares: Vec<(usize, u16)>,
}

/// Where a listener's new flows choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WishedRing {
    /// A target group: an index into [`Wish::groups`].
    Group(usize),
    /// Several: an index into [`Wish::forwards`].
    Forward(usize),
}

/// A listener that should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WishedListener {
    /// What packets are addressed to.
    pub key: ListenerKey,
    /// Where its new flows choose from.
    pub ring: WishedRing,
    /// How long an established flow may be silent.
    pub idle_ticks: u16,
    /// What becomes of TCP segments of no known flow.
    pub stray: Stranded,
    /// What becomes of TCP segments of a flow whose idle time has run out.
    pub expired: Stranded,
    /// The largest TCP segment size that a SYN may name; 0 for any.
    pub mss_clamp_bytes: u16,
    /// What a new flow's choice depends on.
    pub hash_input: HashInput,
    /// Who may begin flows, and how many.
    pub admission: WishedAdmission,
    /// Whether echo requests to the VIP are answered; the same for all listeners of a VIP.
    pub answers_echo: bool,
}

/// A target group that should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WishedGroup {
    /// Of its name; see [`fingerprint`].
    pub fingerprint: u32,
    /// How packets get to its targets.
    pub mode: Mode,
    /// Whether the flows of a target that was removed end when its delay is over.
    pub terminates_removed: bool,
    /// What the outer headers say, where the mode has them.
    pub tunnel: Option<Tunnel>,
    /// Its targets, also those that take no new flows.
    pub targets: Vec<WishedTarget>,
    /// If they are QUIC servers that put their number into connection IDs.
    pub quic: Option<WishedQuic>,
}

/// A target that should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WishedTarget {
    /// Where it is.
    pub address: IpAddr,
    /// Where it listens.
    pub port: u16,
    /// Its share of new flows; 0 for none.
    pub weight: u16,
    /// Whether the flows it has end with their next packet; only if it takes no new ones.
    pub resets_flows: bool,
    /// The way there.
    pub next_hop: NextHopId,
}

/// What is in the maps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Actual {
    /// The generation that is live.
    pub generation: u64,
    listeners: BTreeMap<ListenerId, (ListenerKey, ListenerPolicy)>,
    index: HashMap<ListenerKey, ListenerId>,
    targets: BTreeMap<TargetId, (TargetIdentity, TargetControl)>,
    listener_ids: HashMap<ListenerKey, ListenerId>,
    target_ids: HashMap<(TargetIdentity, Mode), TargetId>,
    groups: BTreeMap<u32, u16>,
    tunnels: BTreeMap<u16, Tunnel>,
    admissions: BTreeMap<ListenerId, AdmissionPolicy>,
    /// Listeners that have rules, and which; unknown after adoption, so that they are written anew.
    rules: BTreeMap<ListenerId, Option<SourceRules>>,
    /// What each ring was built from; unknown after adoption, so that rings are built anew.
    rings: BTreeMap<u16, RingSource>,
    prefilter: Vec<u64>,
    sources: BTreeMap<SourceId, Address>,
    /// Those that new flows get.
    turns: BTreeSet<SourceId>,
    quic: quic::Known,
}

/// Sizes that a plan must keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Records of listeners, the unused one with id 0 among them.
    pub listeners: usize,
    /// Records of targets, the unused one with id 0 among them.
    pub targets: usize,
    /// Rings, the unused one with id 0 among them.
    pub groups: usize,
}

impl Limits {
    /// Numbers of QUIC servers, each once for each ring that leads to it.
    const fn server_ids(self) -> usize {
        self.targets * SERVER_IDS_PER_TARGET as usize
    }
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No listener record is free.
    #[error(
        "no room for another listener: node.capacity.listeners is {0}, counting listeners that \
         were removed but still have flows"
    )]
    Listeners(usize),
    /// No target record is free.
    #[error(
        "no room for another target: node.capacity.targets is {0}, counting targets that were \
         removed but still have flows"
    )]
    Targets(usize),
    /// No ring's id is free.
    #[error(
        "no room for another target group: node.capacity.target_groups is {0}, counting listeners \
         that forward to several, and groups that were removed but whose targets still have flows"
    )]
    Groups(usize),
    /// No number of the pool is free.
    #[error(
        "no room for another address in node.snat_addresses: there is room for {0}, counting \
         addresses that were removed but still have flows"
    )]
    Sources(usize),
    /// No entry for a QUIC server's number is free.
    #[error(
        "no room for another QUIC server ID: there are {0}, four for each of \
         node.capacity.targets, and each listener's choice of target groups needs its own"
    )]
    ServerIds(usize),
}

/// A number that stands for a target group's name in the maps, so that a daemon that finds them
/// knows its groups again.
#[expect(
    clippy::cast_possible_truncation,
    reason = "half of the hash is enough to tell names"
)]
pub fn fingerprint(name: &str) -> u32 {
    xxhash_rust::xxh64::xxh64(name.as_bytes(), 0) as u32
}

impl Actual {
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
    }
}

/// A step, and what a ring is built from if it replaces one.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// The step.
    pub step: Step,
    /// For [`Step::ReplaceRing`].
    pub ring: Option<PlannedRing>,
}

impl From<Step> for Planned {
    fn from(step: Step) -> Self {
        Self { step, ring: None }
    }
}

fn identity(group: &WishedGroup, id: u16, address: IpAddr, port: u16) -> TargetIdentity {
    TargetIdentity {
        address: Address::from(address),
        port: U16::new(port),
        group: id,
        group_fingerprint: group.fingerprint,
    }
}

/// The steps from what is to what should be. Empty if nothing differs; otherwise the last one
/// publishes the next generation.
pub fn plan(actual: &Actual, wish: &Wish, limits: Limits) -> Result<Vec<Planned>, PlanError> {
    let mut steps: Vec<Planned> = Vec::new();
    let mut after = actual.clone();
    let mut groups = Vec::with_capacity(wish.groups.len());
    let mut target_ids = Vec::with_capacity(wish.groups.len());
    let mut controls = Vec::new();
    for group in &wish.groups {
        let group_id = group_id(&mut after, group.fingerprint, limits)?;
        // What is left of a group that had a tunnel stays: flows may still use it.
        if let Some(tunnel) = group.tunnel
            && after.tunnels.get(&group_id) != Some(&tunnel)
        {
            let step = Step::WriteTunnel {
                group: group_id,
                tunnel,
            };
            push(&mut steps, &mut after, step);
        }
        let mut entries = Vec::new();
        let mut own_ids = Vec::new();
        for target in &group.targets {
            let identity = identity(group, group_id, target.address, target.port);
            let control = TargetControl {
                mode: group.mode,
                takes_new_flows: target.weight > 0,
                resets_flows: target.weight == 0 && target.resets_flows,
                next_hop: target.next_hop,
            };
            let id = if let Some(id) = after.target_id(group, target.address, target.port) {
                controls.push((id, control));
                id
            } else {
                let id = free_target(&after, limits)?;
                push(
                    &mut steps,
                    &mut after,
                    Step::WriteTarget {
                        id,
                        identity,
                        control,
                    },
                );
                id
            };
            own_ids.push(id);
            if target.weight > 0 {
                entries.push(RingEntry {
                    target_id: id.0,
                    identity: SocketAddr::new(target.address, target.port).into(),
                    weight: target.weight,
                });
            }
        }
        groups.push(ResolvedGroup {
            id: group_id,
            fingerprint: group.fingerprint,
            entries,
        });
        target_ids.push(own_ids);
    }
    let wished_targets: HashSet<_> = target_ids.iter().flatten().copied().collect();
    controls.extend(unwished(&after, wish, &wished_targets));
    for (id, control) in &controls {
        control_target(&mut steps, &mut after, *id, *control, Ends::Later);
    }
    let ids = RingIds {
        groups: groups.iter().map(|group| group.id).collect(),
        forwards: rings::forward_ids(&after, wish, limits)?,
    };
    steps.extend(rings::changed(actual, wish, groups, &ids.forwards));
    plan_sources(wish, &mut after, &mut steps)?;
    for (id, control) in controls {
        control_target(&mut steps, &mut after, id, control, Ends::Now);
    }
    let servers = quic::index(wish, &ids, &target_ids, limits, &mut after, &mut steps)?;
    plan_listeners(wish, &ids, limits, &mut after, &mut steps)?;
    quic::unindex(&servers, &mut after, &mut steps);
    if !steps.is_empty() {
        steps.push(
            Step::Publish {
                generation: actual.generation + 1,
            }
            .into(),
        );
    }
    Ok(steps)
}

/// Whether the flows of a target may be ended by a step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// Not yet: a ring may still send it new flows, which must not end at once.
    Later,
    /// No ring names the target any more.
    Now,
}

/// Changes how packets get to a target, if that differs.
fn control_target(
    steps: &mut Vec<Planned>,
    after: &mut Actual,
    id: TargetId,
    control: TargetControl,
    ends: Ends,
) {
    let Some((_, old)) = after.targets.get(&id).copied() else {
        return;
    };
    let control = TargetControl {
        resets_flows: control.resets_flows && (old.resets_flows || ends == Ends::Now),
        ..control
    };
    if control != old {
        push(steps, after, Step::ControlTarget { id, control });
    }
}

/// Targets that only old flows use: a client that opens its flow anew shall leave them, and where
/// the group says so every client shall.
fn unwished(
    after: &Actual,
    wish: &Wish,
    wished: &HashSet<TargetId>,
) -> Vec<(TargetId, TargetControl)> {
    let terminates: HashMap<u32, bool> = wish
        .groups
        .iter()
        .map(|group| (group.fingerprint, group.terminates_removed))
        .collect();
    // A target that its group reaches in another mode now was not removed.
    let standing: HashSet<TargetIdentity> = wished
        .iter()
        .filter_map(|id| after.targets.get(id))
        .map(|(identity, _)| *identity)
        .collect();
    let gone = |(id, (identity, old)): (&TargetId, &(TargetIdentity, TargetControl))| {
        let control = TargetControl {
            takes_new_flows: false,
            // A group that is gone itself says nothing any more.
            resets_flows: !standing.contains(identity)
                && terminates
                    .get(&identity.group_fingerprint)
                    .copied()
                    .unwrap_or(old.resets_flows),
            ..*old
        };
        (!wished.contains(id)).then_some((*id, control))
    };
    after.targets.iter().filter_map(gone).collect()
}

/// Gives numbers to new addresses of the pool; their turns come when the prefilter admits answers.
fn plan_sources(
    wish: &Wish,
    after: &mut Actual,
    steps: &mut Vec<Planned>,
) -> Result<(), PlanError> {
    for address in wish.sources.iter().copied().map(Address::from) {
        if after.sources.values().all(|known| *known != address) {
            let id = (1..MAX_SOURCES)
                .filter_map(|id| u8::try_from(id).ok().map(SourceId))
                .find(|id| !after.sources.contains_key(id))
                .ok_or(PlanError::Sources(MAX_SOURCES - 1))?;
            push(steps, after, Step::WriteSource { id, address });
        }
    }
    Ok(())
}

fn plan_turns(wish: &Wish, after: &mut Actual, steps: &mut Vec<Planned>) {
    for is_v4 in [true, false] {
        let of_version = |id: &SourceId| {
            let address = after.sources.get(id);
            address.is_some_and(|address| address.is_v4() == is_v4)
        };
        let old: Vec<SourceId> = after.turns.iter().copied().filter(of_version).collect();
        let ids: Vec<SourceId> = after
            .sources
            .iter()
            .filter(|(id, address)| {
                of_version(id) && wish.sources.contains(&IpAddr::from(**address))
            })
            .map(|(id, _)| *id)
            .collect();
        if ids != old {
            push(steps, after, Step::TakeTurns { is_v4, ids });
        }
    }
}

/// The ids of rings, in the order of the wish.
struct RingIds {
    groups: Vec<u16>,
    forwards: Vec<u16>,
}

impl RingIds {
    fn get(&self, ring: WishedRing) -> Option<u16> {
        match ring {
            WishedRing::Group(index) => self.groups.get(index).copied(),
            WishedRing::Forward(index) => self.forwards.get(index).copied(),
        }
    }
}

fn plan_listeners(
    wish: &Wish,
    ids: &RingIds,
    limits: Limits,
    after: &mut Actual,
    steps: &mut Vec<Planned>,
) -> Result<(), PlanError> {
    let mut index = Vec::new();
    for listener in &wish.listeners {
        let Some(group) = ids.get(listener.ring) else {
            continue;
        };
        let layout = quic::layout(wish, listener);
        let policy = ListenerPolicy {
            group,
            idle_ticks: listener.idle_ticks,
            flags: ListenerFlags::default()
                .with_hash_input(listener.hash_input)
                .with_quic(layout.is_some())
                .with_admission(listener.admission.is_asked())
                .with_echo(listener.answers_echo),
            stray: listener.stray,
            expired: listener.expired,
            mss_clamp_bytes: listener.mss_clamp_bytes,
        };
        let key = listener.key;
        let known = after.listener_id(&key);
        let id = match known {
            Some(id) => id,
            None => free_listener(after, limits)?,
        };
        admission::prepare(id, &listener.admission, after, steps);
        if let Some(layout) = layout
            && after.quic.layouts.get(&id) != Some(&layout)
        {
            push(steps, after, Step::LayOutCids { id, layout });
        }
        if known.is_some() {
            if after
                .listeners
                .get(&id)
                .is_some_and(|(_, old)| *old != policy)
            {
                push(steps, after, Step::ChangeListener { id, policy });
            }
        } else {
            push(steps, after, Step::WriteListener { id, key, policy });
        }
        admission::tidy(id, &listener.admission, after, steps);
        index.push((key, id));
        let vip = ListenerKey::vip(key.address);
        if !index.iter().any(|(other, _)| *other == vip) {
            index.push((vip, id));
        }
    }
    // Bits of what is still there stay; `retire` clears them with the records.
    for (word, bits) in changed_words(&after.prefilter, &bitmap(after)) {
        push(steps, after, Step::Prefilter { index: word, bits });
    }
    plan_turns(wish, after, steps);
    for (key, id) in &index {
        if after.index.get(key) != Some(id) {
            push(steps, after, Step::IndexListener { key: *key, id: *id });
        }
    }
    let wished: HashSet<_> = index.iter().map(|(key, _)| *key).collect();
    let mut gone: Vec<_> = after
        .index
        .iter()
        .filter(|(key, _)| !wished.contains(key))
        .map(|(key, id)| (*id, *key))
        .collect();
    // VIPs last: until their listeners are gone, what is wrong with their packets is counted.
    gone.sort_by_key(|(id, key)| (key.protocol == 0, *id));
    for (_, key) in gone {
        push(steps, after, Step::UnindexListener { key });
    }
    Ok(())
}

fn push(steps: &mut Vec<Planned>, after: &mut Actual, step: Step) {
    after.note(&step);
    steps.push(step.into());
}

fn group_id(after: &mut Actual, fingerprint: u32, limits: Limits) -> Result<u16, PlanError> {
    if let Some(id) = after.groups.get(&fingerprint) {
        return Ok(*id);
    }
    let used: BTreeSet<u16> = after
        .groups
        .values()
        .copied()
        .chain(after.listeners.values().map(|(_, policy)| policy.group))
        .collect();
    let id = free_ring(&used, limits)?;
    after.groups.insert(fingerprint, id);
    Ok(id)
}

fn free_ring(used: &BTreeSet<u16>, limits: Limits) -> Result<u16, PlanError> {
    (1..limits.groups)
        .filter_map(|id| u16::try_from(id).ok())
        .find(|id| !used.contains(id))
        .ok_or(PlanError::Groups(limits.groups - 1))
}

fn free_listener(after: &Actual, limits: Limits) -> Result<ListenerId, PlanError> {
    (1..limits.listeners)
        .filter_map(|id| u16::try_from(id).ok().map(ListenerId))
        .find(|id| !after.listeners.contains_key(id))
        .ok_or(PlanError::Listeners(limits.listeners - 1))
}

fn free_target(after: &Actual, limits: Limits) -> Result<TargetId, PlanError> {
    let after_last = after
        .targets
        .last_key_value()
        .map_or(1, |(id, _)| id.0 as usize + 1);
    (after_last..limits.targets)
        .chain(1..after_last.min(limits.targets))
        .filter_map(|id| u32::try_from(id).ok().map(TargetId))
        .find(|id| !after.targets.contains_key(id))
        .ok_or(PlanError::Targets(limits.targets - 1))
}

/// The prefilter's bits for every record that there is.
///
/// Translated targets get the bits of both protocols: a target that was removed no longer has a
/// group that could tell which it speaks.
fn bitmap(actual: &Actual) -> Vec<u64> {
    let mut words = vec![0; PREFILTER_WORDS];
    let mut set = |(word, mask): (usize, u64)| {
        if let Some(word) = words.get_mut(word) {
            *word |= mask;
        }
    };
    for (key, _) in actual.listeners.values() {
        set(Prefilter::bit(
            Side::Listener,
            key.address,
            key.protocol,
            key.port,
        ));
        set(Prefilter::bit(Side::Listener, key.address, 0, U16::ZERO));
    }
    for (identity, control) in actual.targets.values() {
        if control.mode.is_translated() {
            for protocol in [protocol::TCP, protocol::UDP] {
                set(Prefilter::bit(
                    Side::Target,
                    identity.address,
                    protocol,
                    identity.port,
                ));
            }
            set(Prefilter::bit(Side::Target, identity.address, 0, U16::ZERO));
        }
    }
    words
}

fn changed_words(old: &[u64], new: &[u64]) -> Vec<(usize, u64)> {
    new.iter()
        .enumerate()
        .filter(|(index, bits)| old.get(*index).copied().unwrap_or_default() != **bits)
        .map(|(index, bits)| (index, *bits))
        .collect()
}

/// The steps that take away records which neither the configuration nor, as two sweeps have seen,
/// any flow needs. Two, because a flow may have begun while the first was under way.
pub fn retire(actual: &Actual, wish: &Wish, sweeps: [&Sweep; 2]) -> Vec<Step> {
    let has_flows = |counts: fn(&Sweep) -> &Vec<u64>, index: usize| {
        sweeps
            .iter()
            .any(|sweep| counts(sweep).get(index).is_none_or(|count| *count > 0))
    };
    let wished: HashSet<ListenerKey> = wish.listeners.iter().map(|listener| listener.key).collect();
    let mut after = actual.clone();
    let mut steps = Vec::new();
    for (id, (key, _)) in &actual.listeners {
        if !wished.contains(key) && !has_flows(|sweep| &sweep.by_listener, id.0.into()) {
            steps.push(Step::ClearListener { id: *id });
        }
    }
    let wished: HashSet<TargetId> = wish
        .groups
        .iter()
        .flat_map(|group| {
            group
                .targets
                .iter()
                .filter_map(|target| actual.target_id(group, target.address, target.port))
        })
        .collect();
    for id in actual.targets.keys() {
        if !wished.contains(id) && !has_flows(|sweep| &sweep.by_target, id.0 as usize) {
            steps.push(Step::ClearTarget { id: *id });
        }
    }
    for (id, address) in &actual.sources {
        if !wish.sources.contains(&IpAddr::from(*address))
            && !actual.turns.contains(id)
            && !has_flows(|sweep| &sweep.by_pool_address, id.0.into())
        {
            steps.push(Step::ClearSource { id: *id });
        }
    }
    let (mut targets, mut listeners) = (BTreeSet::new(), BTreeSet::new());
    for step in &steps {
        match step {
            Step::ClearTarget { id } => {
                targets.insert(*id);
            }
            Step::ClearListener { id } => {
                listeners.insert(*id);
            }
            _ => {}
        }
    }
    // What names a record goes before it.
    steps.splice(..0, quic::retire(actual, &targets, &listeners));
    steps.extend(admission::retire(actual, wish));
    for step in &steps {
        after.note(step);
    }
    if !steps.is_empty() {
        for (index, bits) in changed_words(&after.prefilter, &bitmap(&after)) {
            steps.push(Step::Prefilter { index, bits });
        }
    }
    steps
}
