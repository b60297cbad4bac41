//! Who is checked before the time: where traffic looks wrong, and where the network changed.

use nlb_common::target::TargetId;

use super::{Daemon, groups::TargetKey};
use crate::{
    config::Protocol,
    health::passive::{Passive, Signs},
    next_hop::{Change, Neighbour},
    plan,
    target_state::TargetState,
};

/// What traffic says, and for which configuration it is watched.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    passive: Passive<TargetKey>,
    /// Nothing if the list of those that are watched has to be made anew.
    generation: Option<u64>,
}

impl Suspicion {
    /// A target's state has changed. That need not change the generation: a group that failed open
    /// while its targets were new has the same ring when all of them are healthy.
    pub(super) fn changed(&mut self, key: &TargetKey) {
        self.passive.changed(key);
        self.generation = None;
    }
}

impl Daemon {
    /// Looks at some targets' counters, and has those that look dead checked.
    pub(super) fn look_at_traffic(&mut self) {
        // Ids and modes change with the generation only.
        let generation = self.actual.generation;
        if self.suspicion.generation != Some(generation) {
            let watched = self.watched();
            self.suspicion.passive.watch(watched.into_iter());
            self.suspicion.generation = Some(generation);
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
        for group in &self.groups.list {
            let configured = &group.configured;
            let signs = Signs {
                goes_on: configured.protocol == Protocol::Tcp,
                comes_back: !configured.mode.is_dsr(),
            };
            if !signs.goes_on && !signs.comes_back {
                continue;
            }
            let fingerprint = plan::fingerprint(&configured.name);
            let wished = self.wish.groups.iter();
            let Some(wished) = wished
                .into_iter()
                .find(|one| one.fingerprint == fingerprint)
            else {
                continue;
            };
            for (address, target) in &group.targets {
                if target.health.state() == TargetState::Healthy
                    && let Some(id) = self.actual.target_id(wished, address.ip(), address.port())
                {
                    watched.push(((configured.name.clone(), *address), id, signs));
                }
            }
        }
        watched
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
