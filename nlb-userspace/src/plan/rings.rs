//! The rings of a plan: one for each target group, and one for each listener that forwards to
//! several ("forward ring"). Both kinds share their ids.
//!
//! A group's id is in its targets' records, so a daemon that finds them knows its groups again. A
//! forward ring belongs to no target: it is known by the listeners that name it.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    sync::Arc,
    thread,
};

use nlb_common::{
    listener::{ListenerId, ListenerKey},
    maps::{Prefilter, Side},
};

use super::{Actual, Limits, PlanError, Planned, Wish, WishedForward, WishedListener, WishedRing};
use crate::{
    dataplane::{RingSlots, Step},
    forward,
    ring::{self, RingEntry},
    settling::Settling,
};

/// What a ring is built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedRing {
    /// The ring's id.
    pub group: u16,
    /// From what.
    pub source: RingSource,
    /// If it is that of a listener that pins flows on change.
    pub settling: Option<Settling>,
}

/// Where a ring's slots come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingSource {
    /// From a group's targets.
    Group {
        /// Of the target group's name.
        fingerprint: u32,
        /// The targets that take new flows.
        entries: Vec<RingEntry>,
    },
    /// From several groups.
    Forward(Vec<ForwardShare>),
}

/// A group's part of a forward ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardShare {
    /// Of the target group's name.
    pub fingerprint: u32,
    /// Its share of new flows.
    pub weight: u16,
    /// The group's targets that take new flows.
    pub entries: Vec<RingEntry>,
}

/// A wished target group, resolved.
pub(super) struct ResolvedGroup {
    pub(super) id: u16,
    pub(super) fingerprint: u32,
    pub(super) entries: Vec<RingEntry>,
}

/// The ids of forward rings, in the order of [`Wish::forwards`].
///
/// A forward ring keeps the id that its listeners name already, unless another listener names it,
/// too, be it one that is about to go: then its packets must not see the change.
pub(super) fn forward_ids(
    after: &Actual,
    wish: &Wish,
    limits: Limits,
) -> Result<Vec<u16>, PlanError> {
    let mut used: BTreeSet<u16> = after.groups.values().copied().collect();
    let named = |listener: &WishedListener| after.named_ring(&listener.key);
    let mut kept: Vec<Option<u16>> = Vec::with_capacity(wish.forwards.len());
    for index in 0..wish.forwards.len() {
        let own: Vec<&WishedListener> = (wish.listeners.iter())
            .filter(|listener| listener.ring == WishedRing::Forward(index))
            .collect();
        let is_anothers = |ring: u16| {
            after.listeners.iter().any(|(id, (key, policy))| {
                policy.group == ring
                    && after.index.get(key) == Some(id)
                    && own.iter().all(|listener| listener.key != *key)
            })
        };
        let id = own
            .iter()
            .copied()
            .filter_map(named)
            .find(|id| !used.contains(id) && !is_anothers(*id));
        used.extend(id);
        kept.push(id);
    }
    used.extend(after.listeners.values().map(|(_, policy)| policy.group));
    kept.into_iter()
        .map(|kept| {
            let id = match kept {
                Some(id) => id,
                None => super::free_ring(&used, limits)?,
            };
            used.insert(id);
            Ok(id)
        })
        .collect()
}

/// A ring that should be: its id, what it is built from, and whether it settles.
pub(super) type WishedSource = (u16, RingSource, bool);

/// The rings that differ from what is there, groups first.
pub(super) fn changed(
    actual: &Actual,
    wish: &Wish,
    groups: Vec<ResolvedGroup>,
    forward_ids: &[u16],
) -> Vec<Planned> {
    let forwards: Vec<WishedSource> = wish
        .forwards
        .iter()
        .zip(forward_ids)
        .map(|(forward, id)| {
            let source = forward_source(forward, |index| groups.get(index));
            (*id, source, forward.settles)
        })
        .collect();
    let groups = groups.into_iter().map(group_source);
    replaced(actual, groups.chain(forwards))
}

/// The ring of a group.
pub(super) fn group_source(group: ResolvedGroup) -> WishedSource {
    let source = RingSource::Group {
        fingerprint: group.fingerprint,
        entries: group.entries,
    };
    (group.id, source, false)
}

/// The ring of several groups, of which `group` says what they are.
pub(super) fn forward_source<'g>(
    forward: &WishedForward,
    group: impl Fn(usize) -> Option<&'g ResolvedGroup>,
) -> RingSource {
    let shares = forward
        .shares
        .iter()
        .filter(|(_, weight)| *weight > 0)
        .filter_map(|(index, weight)| {
            let group = group(*index)?;
            Some(ForwardShare {
                fingerprint: group.fingerprint,
                weight: *weight,
                entries: group.entries.clone(),
            })
        })
        .collect();
    RingSource::Forward(shares)
}

/// Those of these rings that differ from what is there.
pub(super) fn replaced(actual: &Actual, rings: impl Iterator<Item = WishedSource>) -> Vec<Planned> {
    let changed: Vec<WishedSource> = rings
        .filter(|(group, source, settles)| {
            actual.rings.get(group) != Some(source)
                || actual.settling.contains_key(group) != *settles
        })
        .collect();
    let mut builder = Builder::for_all(changed.iter().map(|(_, source, _)| source));
    changed
        .into_iter()
        .map(|(group, source, settles)| {
            let targets = builder.build(&source);
            let settling = settles.then(|| match actual.settling.get(&group) {
                Some(before) => before.changed(&targets),
                None => Settling::closed(&targets),
            });
            let (slots, bases) = settling
                .as_ref()
                .map_or((RingSlots(targets), None), |settling| {
                    let (slots, bases) = settling.maps();
                    (slots, Some(bases))
                });
            Planned {
                step: Step::ReplaceRing {
                    group,
                    slots,
                    bases,
                },
                ring: Some(PlannedRing {
                    group,
                    source,
                    settling,
                }),
            }
        })
        .collect()
}

/// Whether a listener pins flows on change only.
pub(super) fn settles(wish: &Wish, listener: &WishedListener) -> bool {
    match listener.ring {
        WishedRing::Forward(index) => wish
            .forwards
            .get(index)
            .is_some_and(|forward| forward.settles),
        WishedRing::Group(_) => false,
    }
}

/// Lets packets find the listeners that pin flows on change, and no others, by the numbers of their
/// prefilter's bits.
///
/// Where two have one number the first one has it, and packets of the other take the way of all
/// packets, which is slower.
pub(super) fn hints(wish: &Wish, after: &mut Actual, steps: &mut Vec<Planned>) {
    let mut wished = BTreeMap::new();
    for listener in &wish.listeners {
        let key = &listener.key;
        if settles(wish, listener)
            && let Some(id) = after.listener_ids.get(key)
        {
            let number = Prefilter::number(Side::Listener, key.address, key.protocol, key.port);
            wished.entry(number).or_insert(*id);
        }
    }
    let gone = after
        .hints
        .keys()
        .filter(|number| !wished.contains_key(number));
    let gone: Vec<_> = gone.map(|number| (*number, ListenerId(0))).collect();
    for (number, id) in wished.into_iter().chain(gone) {
        if after.hints.get(&number) != Some(&id) {
            super::push(steps, after, Step::Hint { number, id });
        }
    }
}

/// So many rings are built on several processors.
const WORTH_A_THREAD: usize = 8;

/// Builds rings, each group's once.
struct Builder {
    groups: BTreeMap<u32, Arc<[u32]>>,
    /// Listeners of one load balancer often forward alike.
    forwards: Vec<(Vec<ForwardShare>, Arc<[u32]>)>,
}

impl Builder {
    /// With the groups' rings that these need already built, on all processors: one takes a
    /// millisecond or two, and at a start there may be a thousand.
    fn for_all<'s>(sources: impl Iterator<Item = &'s RingSource>) -> Self {
        let mut wanted: BTreeMap<u32, &[RingEntry]> = BTreeMap::new();
        for source in sources {
            match source {
                RingSource::Group {
                    fingerprint,
                    entries,
                } => {
                    wanted.insert(*fingerprint, entries);
                }
                RingSource::Forward(shares) => {
                    wanted.extend(
                        shares
                            .iter()
                            .map(|share| (share.fingerprint, &*share.entries)),
                    );
                }
            }
        }
        let wanted: Vec<(u32, &[RingEntry])> = wanted.into_iter().collect();
        let build = |(fingerprint, entries): &(u32, &[RingEntry])| {
            (*fingerprint, ring::build(entries, ring::SLOTS).into())
        };
        let workers = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let share = wanted.len().div_ceil(workers).max(1);
        let groups = if wanted.len() < WORTH_A_THREAD {
            wanted.iter().map(build).collect()
        } else {
            thread::scope(|scope| {
                let parts = wanted.chunks(share);
                let threads: Vec<_> = parts
                    .map(|part| scope.spawn(|| part.iter().map(build).collect::<Vec<_>>()))
                    .collect();
                // What a thread could not build is built when it is asked for.
                let rings = threads.into_iter().filter_map(|thread| thread.join().ok());
                rings.flatten().collect()
            })
        };
        Self {
            groups,
            forwards: Vec::new(),
        }
    }

    fn build(&mut self, source: &RingSource) -> Arc<[u32]> {
        match source {
            RingSource::Group {
                fingerprint,
                entries,
            } => self.group(*fingerprint, entries),
            RingSource::Forward(shares) => self.forward(shares),
        }
    }

    fn group(&mut self, fingerprint: u32, entries: &[RingEntry]) -> Arc<[u32]> {
        let build = || ring::build(entries, ring::SLOTS).into();
        Arc::clone(self.groups.entry(fingerprint).or_insert_with(build))
    }

    fn forward(&mut self, shares: &[ForwardShare]) -> Arc<[u32]> {
        if let Some((_, slots)) = self.forwards.iter().find(|(other, _)| other == shares) {
            return Arc::clone(slots);
        }
        let rings: Vec<Arc<[u32]>> = shares
            .iter()
            .map(|share| self.group(share.fingerprint, &share.entries))
            .collect();
        let parts: Vec<forward::Share<'_>> = shares
            .iter()
            .zip(&rings)
            .map(|(share, ring)| forward::Share {
                fingerprint: share.fingerprint,
                weight: share.weight,
                ring,
            })
            .collect();
        let slots: Arc<[u32]> = forward::build(&parts, ring::SLOTS).into();
        self.forwards.push((shares.to_vec(), Arc::clone(&slots)));
        slots
    }
}

impl Actual {
    /// The ring that a listener names.
    pub(super) fn named_ring(&self, key: &ListenerKey) -> Option<u16> {
        let id = self.listener_ids.get(key)?;
        self.listeners.get(id).map(|(_, policy)| policy.group)
    }
}
