//! 4. Wish minus actual = ordered steps.
//!
//! Pure: the same input gives the same steps in the same order, and after every prefix of them
//! traffic flows. Whatever a record names is there before it, whatever named a record is gone
//! before it: targets, rings, listeners, prefilter, index; and the other way round.
//!
//! Records outlive their place in the configuration: a flow that was pinned to a target, or that
//! came to a listener, goes on until it ends. [`retire`] takes the records away when a sweep over
//! the flow table has found no flow that needs them.

mod actual;
mod admission;
mod groups;
mod quic;
mod retire;
mod rings;
mod sources;
mod wish;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use nlb_common::{
    address::Address,
    listener::{ListenerFlags, ListenerId, ListenerKey, ListenerPolicy},
    maps::{PREFILTER_WORDS, Prefilter, SERVER_IDS_PER_TARGET, Side},
    target::{TargetControl, TargetId, TargetIdentity},
    wire::protocol,
};
use zerocopy::big_endian::U16;

use self::rings::ResolvedGroup;
pub use self::rings::{ForwardShare, PlannedRing, RingSource};
pub use self::{
    actual::Actual,
    admission::WishedAdmission,
    groups::plan_groups,
    quic::WishedQuic,
    retire::{is_tidy, retire},
    wish::{Wish, WishedForward, WishedGroup, WishedListener, WishedRing, WishedTarget},
};
use crate::{dataplane::Step, ring::RingEntry};

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
    steps(actual, wish, limits, Rings::Built)
}

/// Whether there is a plan: the same without building rings, which takes most of the time and never
/// fails.
pub fn fits(actual: &Actual, wish: &Wish, limits: Limits) -> Result<(), PlanError> {
    steps(actual, wish, limits, Rings::LeftOut).map(drop)
}

/// Whether steps that replace rings are among those of a plan.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rings {
    /// They are.
    Built,
    /// They are not.
    LeftOut,
}

fn steps(
    actual: &Actual,
    wish: &Wish,
    limits: Limits,
    rings: Rings,
) -> Result<Vec<Planned>, PlanError> {
    let mut steps: Vec<Planned> = Vec::new();
    let mut after = actual.clone();
    let mut groups = Vec::with_capacity(wish.groups.len());
    let mut target_ids = Vec::with_capacity(wish.groups.len());
    let mut controls = Vec::new();
    let mut used = used_rings(&after);
    for group in &wish.groups {
        let group_id = group_id(&mut after, &mut used, group.fingerprint, limits)?;
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
            let control = wished_control(group, target);
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
            entries.extend(ring_entry(id, target));
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
    if rings == Rings::Built {
        steps.extend(rings::changed(actual, wish, groups, &ids.forwards));
    }
    sources::plan(wish, &mut after, &mut steps)?;
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

/// What a target's record says of packets.
const fn wished_control(group: &WishedGroup, target: &WishedTarget) -> TargetControl {
    TargetControl {
        mode: group.mode,
        takes_new_flows: target.weight > 0,
        resets_flows: target.weight == 0 && target.resets_flows,
        next_hop: target.next_hop,
    }
}

/// A target's part of its group's ring, if it takes new flows.
fn ring_entry(id: TargetId, target: &WishedTarget) -> Option<RingEntry> {
    (target.weight > 0).then(|| RingEntry {
        target_id: id.0,
        identity: SocketAddr::new(target.address, target.port).into(),
        weight: target.weight,
    })
}

/// Whether the flows of a target may be ended by a step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// Not yet: a ring may still send it new flows, which must not end at once.
    Later,
    /// No ring names the target any more.
    Now,
}

impl Ends {
    /// What may be said of a target by now.
    const fn allow(self, wished: TargetControl, old: TargetControl) -> TargetControl {
        TargetControl {
            resets_flows: wished.resets_flows && (old.resets_flows || matches!(self, Self::Now)),
            ..wished
        }
    }
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
    let control = ends.allow(control, old);
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
    let left: Vec<_> = (after.targets.iter())
        .filter(|(id, _)| !wished.contains(id))
        .collect();
    // Of a hundred thousand targets there is mostly none.
    if left.is_empty() {
        return Vec::new();
    }
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
        (*id, control)
    };
    left.into_iter().map(gone).collect()
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
                .with_echo(listener.answers_echo)
                .with_pinning_on_change(rings::settles(wish, listener))
                .with_syn_cookies(listener.syn_cookies),
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
    rings::hints(wish, after, steps);
    sources::plan_turns(wish, after, steps);
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

/// The ids of rings that something names.
fn used_rings(actual: &Actual) -> BTreeSet<u16> {
    let of_listeners = actual.listeners.values().map(|(_, policy)| policy.group);
    actual
        .groups
        .values()
        .copied()
        .chain(of_listeners)
        .collect()
}

fn group_id(
    after: &mut Actual,
    used: &mut BTreeSet<u16>,
    fingerprint: u32,
    limits: Limits,
) -> Result<u16, PlanError> {
    if let Some(id) = after.groups.get(&fingerprint) {
        return Ok(*id);
    }
    let id = free_ring(used, limits)?;
    used.insert(id);
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
        if control.mode.is_tunnel()
            && let Some(tunnel) = actual.tunnels.get(&identity.group)
        {
            for (protocol, port) in control.mode.arrivals(tunnel.port) {
                set(Prefilter::bit(
                    Side::Tunnel,
                    identity.address,
                    protocol,
                    port,
                ));
            }
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
