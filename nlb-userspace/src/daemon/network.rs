//! Following the network: the ways to targets, and what is known of links and neighbours.

use std::{collections::BTreeSet, net::IpAddr};

use futures_util::{StreamExt as _, stream};

use super::{Daemon, groups::Way, live::Stale};
use crate::{
    config::Mode,
    dataplane::{Dataplane as _, DataplaneError, Step},
    next_hop::{Change, NextHopError, Resolution, Unresolved},
};

/// Questions for ways that the kernel is asked at a time.
const ASKED_AT_ONCE: usize = 64;

/// What came of such a question.
fn way_of(answer: Result<Resolution, NextHopError>) -> Way {
    match answer {
        Ok(Resolution::Resolved(hop)) => Way::Through {
            interface: hop.interface,
            neighbour: hop.neighbour,
        },
        Ok(Resolution::Unresolved {
            reason:
                Unresolved::NeighbourUnknown {
                    interface,
                    neighbour,
                },
        }) => Way::Through {
            interface,
            neighbour,
        },
        Ok(Resolution::Unresolved { reason }) => Way::None(reason),
        Err(error) => Way::Failed(error.to_string()),
    }
}

impl Daemon {
    pub(super) async fn on_changes(&mut self, changes: &[Change]) {
        let routes_changed = changes
            .iter()
            .any(|change| matches!(change, Change::Routes));
        let links_changed = changes
            .iter()
            .any(|change| matches!(change, Change::Link(_)));
        // First what is known already: no packet goes to a MAC address that is another's now, or to
        // nobody, for as long as it takes to ask the kernel for every target's way.
        self.follow_network_or_log(routes_changed);
        self.suspect_behind(changes);
        if links_changed {
            self.attach_again();
        }
        if routes_changed || links_changed {
            self.find_ways_if(|_| true).await;
            self.follow_network_or_log(false);
        }
        self.reconcile_or_log();
    }

    fn follow_network_or_log(&mut self, routes_changed: bool) {
        if let Err(error) = self.follow_network(routes_changed) {
            tracing::error!("cannot follow the network's change: {error}");
        }
    }

    /// Has the kernel resolve neighbours that packets were dropped for.
    pub(super) async fn on_wanted(&mut self, wanted: Vec<(u32, IpAddr)>) {
        for (interface, address) in wanted {
            if let Err(error) = self.watch.request_neighbour(interface, address).await {
                tracing::warn!(%address, "cannot have the neighbour resolved: {error}");
            }
        }
    }

    /// Asks the kernel for the way to the targets of which this is known, many at a time: one after
    /// the other, answers would take as long as it takes to get the processor that often. Whoever
    /// answers has the kernel keep the neighbours, too.
    pub(super) async fn find_ways_if(&mut self, is_wanted: impl Fn(&Way) -> bool) {
        let mut questions = Vec::new();
        for (place, group) in self.groups.list.iter().enumerate() {
            let on_link_only = group.configured.mode == Mode::DsrL2;
            let targets = group.targets.iter();
            let targets = targets.filter(|(_, target)| is_wanted(&target.way));
            questions.extend(targets.map(|(address, _)| (place, *address, on_link_only)));
        }
        let watch = &self.watch;
        let answers: Vec<_> = stream::iter(questions)
            .map(async |(place, address, on_link_only)| {
                let answer = watch.resolve(address.ip(), on_link_only).await;
                (place, address, way_of(answer))
            })
            .buffered(ASKED_AT_ONCE)
            .collect()
            .await;
        let mut hops = BTreeSet::new();
        for (place, address, way) in answers {
            if let Way::Through {
                interface,
                neighbour,
            } = way
            {
                hops.insert((interface, neighbour));
            }
            let group = self.groups.list.get_mut(place);
            let Some(target) = group.and_then(|group| group.targets.get_mut(&address)) else {
                continue;
            };
            if target.way != way {
                tracing::debug!(target = %address, ?way, "the way to a target");
                target.way = way;
                self.stale.group(place);
            }
        }
        for (interface, neighbour) in hops {
            let steps = self.book.ensure(interface, neighbour);
            if let Err(error) = self.take_all(&steps) {
                tracing::error!("cannot note a next hop: {error}");
            }
        }
    }

    pub(super) fn follow_network(&mut self, routes_changed: bool) -> Result<(), DataplaneError> {
        let steps = self.book.follow(
            &self.watch.links(),
            &self.watch.neighbours(),
            routes_changed,
        );
        self.take_all(&steps)
    }

    fn take_all(&mut self, steps: &[Step]) -> Result<(), DataplaneError> {
        // Whoever was reached by an id that another has now is reached no more.
        let is_given_away = |step: &Step| matches!(step, Step::UnindexNextHop { .. });
        if steps.iter().any(is_given_away) {
            self.stale = Stale::Everything;
        }
        steps
            .iter()
            .try_for_each(|step| self.loaded.maps.take(step))
    }
}
