//! Who is checked before the time: where traffic looks wrong, and where the network changed.

use std::net::SocketAddr;

use nlb_common::target::TargetId;

use super::{
    Daemon,
    groups::{Group, TargetEntry, TargetKey},
};
use crate::{
    config::Protocol,
    health::passive::{Passive, Signs},
    next_hop::{Change, Neighbour},
    plan::{self, WishedGroup},
    target_state::TargetState,
};

/// What traffic says of targets.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    passive: Passive<TargetKey>,
    /// Whether those that are watched are those that should be.
    is_current: bool,
}

impl Suspicion {
    /// Targets are others now, or have other ids.
    pub(super) fn forget(&mut self) {
        self.is_current = false;
    }
}

impl Daemon {
    /// A target's state has changed: what was suspected of it before is no measure any more, and
    /// only healthy ones are watched.
    pub(super) fn follow_suspicion(&mut self, place: usize, key: &TargetKey) {
        let watched = self.groups.list.get(place).and_then(|group| {
            let (wished, signs) = self.watched_group(place, group)?;
            let target = group.targets.get(&key.1)?;
            Some((self.watched_target(wished, &key.1, target)?, signs))
        });
        self.suspicion.passive.changed(key, watched);
    }

    /// Looks at some targets' counters, and has those that look dead checked.
    pub(super) fn look_at_traffic(&mut self) {
        if !self.suspicion.is_current {
            let watched = self.watched();
            self.suspicion.passive.watch(watched.into_iter());
            self.suspicion.is_current = true;
        }
        let now = self.started.elapsed();
        let mut suspects = Vec::new();
        for (key, id) in self.suspicion.passive.due(now) {
            if let Ok(traffic) = self.loaded.maps.target_traffic(id)
                && self.suspicion.passive.look(&key, now, traffic)
            {
                suspects.push(key);
            }
        }
        self.groups.suspect(suspects.iter());
    }

    /// The targets whose traffic may say something: those that take new flows, and are checked.
    fn watched(&self) -> Vec<(TargetKey, TargetId, Signs)> {
        let mut watched = Vec::new();
        for (place, group) in self.groups.list.iter().enumerate() {
            let Some((wished, signs)) = self.watched_group(place, group) else {
                continue;
            };
            let targets = group.targets.iter().filter_map(|(address, target)| {
                let id = self.watched_target(wished, address, target)?;
                Some(((group.configured.name.clone(), *address), id, signs))
            });
            watched.extend(targets);
        }
        watched
    }

    /// What shows that targets of a group are well, if anything does.
    fn watched_group(&self, place: usize, group: &Group) -> Option<(&WishedGroup, Signs)> {
        let configured = &group.configured;
        let signs = Signs {
            goes_on: configured.protocol == Protocol::Tcp,
            comes_back: !configured.mode.is_dsr(),
        };
        let wished = self.wish.groups.get(place)?;
        let is_live = wished.fingerprint == plan::fingerprint(&configured.name);
        (is_live && (signs.goes_on || signs.comes_back)).then_some((wished, signs))
    }

    fn watched_target(
        &self,
        group: &WishedGroup,
        address: &SocketAddr,
        target: &TargetEntry,
    ) -> Option<TargetId> {
        let is_healthy = target.health.state() == TargetState::Healthy;
        let id = || self.actual.target_id(group, address.ip(), address.port());
        is_healthy.then(id).flatten()
    }

    /// Has the targets checked that are behind neighbours that went.
    pub(super) fn suspect_behind(&self, changes: &[Change]) {
        for change in changes {
            if let Change::Neighbour(interface, address) = change
                && self
                    .watch
                    .neighbour(*interface, *address)
                    .as_ref()
                    .and_then(Neighbour::usable_mac)
                    .is_none()
            {
                self.groups
                    .suspect(self.groups.behind(*interface, *address).iter());
            }
        }
    }
}
