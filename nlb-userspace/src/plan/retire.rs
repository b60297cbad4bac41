//! Taking away what nothing needs any more.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
};

use nlb_common::{listener::ListenerKey, target::TargetId};

use super::{Actual, Wish, admission, bitmap, changed_words, quic};
use crate::{
    dataplane::{Step, sweep::Sweep},
    settling::Settling,
};

/// Whether there is nothing but what is wished: then no sweep can find anything to take away.
pub fn is_tidy(actual: &Actual, wish: &Wish) -> bool {
    let targets: usize = wish.groups.iter().map(|group| group.targets.len()).sum();
    let rules = wish.listeners.iter();
    let rules = rules.filter(|listener| listener.admission.rules.is_some());
    // What is wished is there, so whatever else there is makes more of it.
    actual.targets.len() == targets
        && actual.listeners.len() == wish.listeners.len()
        && actual.sources.len() == wish.sources.len()
        && actual.rules.len() == rules.count()
        && actual.groups.len() == wish.groups.len()
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
    let rings = actual.settling.values();
    let bases: BTreeSet<u32> = rings.flat_map(Settling::open_bases).collect();
    for id in actual.targets.keys() {
        if !wished.contains(id)
            && !bases.contains(&id.0)
            && !has_flows(|sweep| &sweep.by_target, id.0 as usize)
        {
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
