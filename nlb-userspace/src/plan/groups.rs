//! The small plan: what it takes when only some groups' targets have other shares, or are reached
//! another way, as after a health check.
//!
//! [`plan`](super::plan()) looks at everything that there is, which takes long where there are a
//! hundred thousand targets. This looks at the groups that it is told of, and comes to the same
//! steps: a test compares them.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use nlb_common::target::{TargetControl, TargetId};

use super::{
    Actual, Ends, Planned, Wish, WishedGroup, WishedRing, ring_entry,
    rings::{self, ResolvedGroup, WishedSource},
    wished_control,
};
use crate::dataplane::Step;

impl WishedGroup {
    /// Whether this is the other group but for what its targets take, and how they are reached.
    pub fn differs_in_shares_only(&self, other: &Self) -> bool {
        let ends = |group: &Self| (group.fingerprint, group.mode, group.terminates_removed);
        let same_targets = || {
            let pairs = self.targets.iter().zip(&other.targets);
            let mut pairs =
                pairs.map(|(one, other)| (one.address, one.port) == (other.address, other.port));
            pairs.all(|same| same)
        };
        ends(self) == ends(other)
            && self.tunnel == other.tunnel
            && self.quic == other.quic
            && self.targets.len() == other.targets.len()
            && same_targets()
    }
}

/// The steps from what is to what should be, where everything is as it should be but these groups
/// (indexes into [`Wish::groups`]), and those
/// [differ in shares only](WishedGroup::differs_in_shares_only). Nothing if that is not so.
pub fn plan_groups(
    actual: &Actual,
    wish: &Wish,
    changed: &BTreeSet<usize>,
) -> Option<Vec<Planned>> {
    let mut resolved = BTreeMap::new();
    let mut controls = Vec::new();
    for index in changed {
        let group = wish.groups.get(*index)?;
        let (group, targets) = resolve(actual, group)?;
        resolved.insert(*index, group);
        controls.extend(targets);
    }
    let mut sources: Vec<WishedSource> = Vec::new();
    for (index, forward) in wish.forwards.iter().enumerate() {
        let groups = || forward.shares.iter().map(|(group, _)| *group);
        if !groups().any(|group| changed.contains(&group)) {
            continue;
        }
        for group in groups() {
            if let Entry::Vacant(place) = resolved.entry(group) {
                let (neighbour, _) = resolve(actual, wish.groups.get(group)?)?;
                place.insert(neighbour);
            }
        }
        let mut listeners = wish.listeners.iter();
        let listener = listeners.find(|one| one.ring == WishedRing::Forward(index))?;
        let id = actual.named_ring(&listener.key)?;
        let source = rings::forward_source(forward, |index| resolved.get(&index));
        sources.push((id, source, forward.settles));
    }
    resolved.retain(|index, _| changed.contains(index));
    let groups = resolved.into_values().map(rings::group_source);
    let rings = rings::replaced(actual, groups.chain(sources));

    let mut steps = Vec::new();
    let mut later = Vec::new();
    for (id, wished, old) in controls {
        let control = Ends::Later.allow(wished, old);
        if control != old {
            steps.push(Step::ControlTarget { id, control }.into());
        }
        if wished != control {
            let control = wished;
            later.push(Step::ControlTarget { id, control }.into());
        }
    }
    steps.extend(rings);
    steps.extend(later);
    if !steps.is_empty() {
        let generation = actual.generation + 1;
        steps.push(Step::Publish { generation }.into());
    }
    Some(steps)
}

/// A target, what should be said of it, and what is.
type Control = (TargetId, TargetControl, TargetControl);

/// A group and its targets, if all of them are there.
fn resolve(actual: &Actual, group: &WishedGroup) -> Option<(ResolvedGroup, Vec<Control>)> {
    let mut entries = Vec::with_capacity(group.targets.len());
    let mut controls = Vec::with_capacity(group.targets.len());
    for target in &group.targets {
        let id = actual.target_id(group, target.address, target.port)?;
        let (_, old) = actual.targets.get(&id)?;
        controls.push((id, wished_control(group, target), *old));
        entries.extend(ring_entry(id, target));
    }
    let group = ResolvedGroup {
        id: *actual.groups.get(&group.fingerprint)?,
        fingerprint: group.fingerprint,
        entries,
    };
    Some((group, controls))
}
