//! What leads QUIC packets to the server that their connection ID names.
//!
//! A number is looked for under the ring of the packet's listener, and means a target of one of the
//! groups behind it. It is there before the listener looks at connection IDs, and as long as its
//! target has flows.

use std::collections::{BTreeMap, BTreeSet};

use nlb_common::{
    listener::ListenerId,
    quic::{CidLayout, ServerIdKey},
    target::TargetId,
    wire::protocol,
};

use super::{Actual, Limits, PlanError, Planned, RingIds, Wish, WishedListener, WishedRing, push};
use crate::dataplane::Step;

/// The QUIC servers of a target group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WishedQuic {
    /// How their connection IDs are read.
    pub layout: CidLayout,
    /// The number of each of the group's targets, in their order; of some that drain, none.
    pub server_ids: Vec<Option<u64>>,
}

/// What is in the maps of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Known {
    pub(super) layouts: BTreeMap<ListenerId, CidLayout>,
    /// Targets by ring and number.
    pub(super) servers: BTreeMap<(u16, u64), TargetId>,
}

/// A key of the map as plans sort it.
pub(super) const fn known_key(key: &ServerIdKey) -> (u16, u64) {
    (key.ring.get(), key.server_id.get())
}

const fn map_key((ring, server_id): (u16, u64)) -> ServerIdKey {
    ServerIdKey::new(ring, server_id)
}

/// The groups behind a ring: indexes.
fn groups_of(wish: &Wish, ring: WishedRing) -> Vec<usize> {
    match ring {
        WishedRing::Group(index) => vec![index],
        WishedRing::Forward(index) => wish
            .forwards
            .get(index)
            .map_or(&[][..], |forward| forward.shares.as_slice())
            .iter()
            .map(|(index, _)| *index)
            .collect(),
    }
}

/// How a listener reads connection IDs, if it does. Those of its groups are alike.
pub(super) fn layout(wish: &Wish, listener: &WishedListener) -> Option<CidLayout> {
    if listener.key.protocol != protocol::UDP {
        return None;
    }
    groups_of(wish, listener.ring)
        .into_iter()
        .find_map(|index| Some(wish.groups.get(index)?.quic.as_ref()?.layout))
}

/// The steps that let packets find servers; `targets` are the ids of each group's targets, in
/// their order.
pub(super) fn index(
    wish: &Wish,
    ids: &RingIds,
    targets: &[Vec<TargetId>],
    limits: Limits,
    after: &mut Actual,
    steps: &mut Vec<Planned>,
) -> Result<BTreeMap<(u16, u64), TargetId>, PlanError> {
    let mut wished = BTreeMap::new();
    for listener in &wish.listeners {
        let (Some(_), Some(ring)) = (layout(wish, listener), ids.get(listener.ring)) else {
            continue;
        };
        for index in groups_of(wish, listener.ring) {
            let Some(quic) = wish.groups.get(index).and_then(|group| group.quic.as_ref()) else {
                continue;
            };
            for (server_id, target) in quic
                .server_ids
                .iter()
                .zip(targets.get(index).into_iter().flatten())
            {
                if let Some(server_id) = server_id {
                    wished.insert((ring, *server_id), *target);
                }
            }
        }
    }
    let added = wished
        .keys()
        .filter(|key| !after.quic.servers.contains_key(key));
    if after.quic.servers.len() + added.count() > limits.server_ids() {
        return Err(PlanError::ServerIds(limits.server_ids()));
    }
    for (key, target) in &wished {
        if after.quic.servers.get(key) != Some(target) {
            let (key, target) = (map_key(*key), *target);
            push(steps, after, Step::IndexServer { key, target });
        }
    }
    Ok(wished)
}

/// The steps that take numbers away which are wished no more. Those of targets that have none
/// any more, as they drain or are gone, stay: their flows go on, and so do their connections.
pub(super) fn unindex(
    wished: &BTreeMap<(u16, u64), TargetId>,
    after: &mut Actual,
    steps: &mut Vec<Planned>,
) {
    let rings = rings(after);
    let numbered: BTreeSet<_> = wished.values().collect();
    let gone: Vec<_> = after
        .quic
        .servers
        .iter()
        .filter(|(key, target)| {
            !wished.contains_key(key)
                && (numbered.contains(target)
                    || !after.targets.contains_key(target)
                    || !rings.contains(&key.0))
        })
        .map(|(key, _)| map_key(*key))
        .collect();
    for key in gone {
        push(steps, after, Step::UnindexServer { key });
    }
}

/// The steps that take away what named these targets, or was looked for by these listeners only.
pub(super) fn retire(
    actual: &Actual,
    targets: &BTreeSet<TargetId>,
    listeners: &BTreeSet<ListenerId>,
) -> Vec<Step> {
    let left = actual
        .listeners
        .iter()
        .filter(|(id, (_, policy))| policy.flags.is_quic() && !listeners.contains(id))
        .map(|(_, (_, policy))| policy.group)
        .collect::<BTreeSet<_>>();
    actual
        .quic
        .servers
        .iter()
        .filter(|(key, target)| targets.contains(target) || !left.contains(&key.0))
        .map(|(key, _)| Step::UnindexServer { key: map_key(*key) })
        .collect()
}

/// The rings of QUIC listeners.
fn rings(after: &Actual) -> BTreeSet<u16> {
    after
        .listeners
        .values()
        .filter(|(_, policy)| policy.flags.is_quic())
        .map(|(_, policy)| policy.group)
        .collect()
}
