//! Target groups as the daemon knows them: what is configured, and what is known of each target.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use super::wish;
use crate::{
    config::{
        Desired, HealthCheck, HealthCheckPort, HealthCheckProtocol, HealthCheckTls, Mode,
        TargetGroup,
    },
    health::{
        Check, CheckProtocol, ProbeOutcome,
        probe::{
            self,
            answers::Answers,
            data_path::{DataPath, Through},
        },
        schedule::{self, Probes},
        state::{TargetHealth, Thresholds, Transition},
    },
    metrics::probes::ProbeStatistics,
    next_hop::Unresolved,
    slow_start,
    target_state::{Selection, TargetState, routable},
};

/// Names a target for its probes: the group's name and the target's address.
pub(super) type TargetKey = (String, SocketAddr);

/// What the maps of an earlier daemon say of a target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adopted {
    /// It took new flows.
    pub(super) took_new_flows: bool,
    /// Its flows ended with their next packet.
    pub(super) ended_flows: bool,
}

/// Who probes targets.
pub(super) type Prober = schedule::Prober<TargetKey>;
/// What it found.
pub(super) type Observation = schedule::Observation<TargetKey>;

/// The way to a target, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Nobody has asked yet.
    Unknown,
    /// Through this neighbour; its MAC address may yet be unknown.
    Through {
        /// The interface's index.
        interface: u32,
        /// The neighbour: the target itself, or a gateway.
        neighbour: IpAddr,
    },
    /// There is none.
    None(Unresolved),
    /// The question failed.
    Failed(String),
}

/// A target and what is known of it.
pub(super) struct TargetEntry {
    /// Its share of new flows.
    pub(super) weight: u16,
    /// The number in its QUIC connection IDs.
    pub(super) quic_server_id: Option<u64>,
    /// Its health.
    pub(super) health: TargetHealth,
    /// How long the last health check took that passed.
    pub(super) latency: Option<Duration>,
    /// The way there.
    pub(super) way: Way,
    /// Whether it came with its group: the first targets of a group do not start slowly.
    is_first: bool,
    /// Since when it has been in slow start.
    ramp: Option<Duration>,
    probes: Option<Probes>,
    /// The port that they ask.
    checked_port: u16,
}

/// A target group and its targets.
pub(super) struct Group {
    /// What is configured; its `targets` are those that are registered.
    pub(super) configured: TargetGroup,
    /// Registered and draining targets.
    pub(super) targets: BTreeMap<SocketAddr, TargetEntry>,
    /// How packets get to its targets, if checks go the same way.
    data_path: Option<DataPath>,
    /// Whether time alone may change anything: delays run, or targets start slowly.
    is_restless: bool,
    /// What health checks found, since the group is there.
    probes: ProbeStatistics,
}

/// What time has brought.
#[derive(Debug, Default)]
pub(super) struct Ticked {
    /// Targets that have another state.
    pub(super) transitions: Vec<(TargetKey, Transition)>,
    /// Places of groups of which something may differ from before.
    pub(super) stale: BTreeSet<usize>,
}

/// All target groups, in the order of the configuration.
#[derive(Default)]
pub(super) struct Groups {
    /// The groups.
    pub(super) list: Vec<Group>,
    /// Where in the list a group is: thousands of checks a second ask.
    places: HashMap<String, usize>,
}

fn thresholds(group: &TargetGroup) -> Option<Thresholds> {
    let check = &group.health_check;
    check.enabled.then_some(Thresholds {
        healthy: check.healthy_threshold,
        unhealthy: check.unhealthy_threshold,
        unhealthy_draining_interval: group.unhealthy_draining_interval,
    })
}

impl Groups {
    /// Takes a new configuration over. Targets that stay keep what is known of them; targets that
    /// left drain; a target that `adopted` names is what it was before the daemon started. Without
    /// a prober nobody is asked: so far it is only a thought.
    pub(super) fn configure(
        &mut self,
        desired: &Desired,
        now: Duration,
        adopted: &BTreeMap<TargetKey, Adopted>,
        prober: Option<&Prober>,
    ) {
        let in_use: BTreeSet<usize> = desired
            .load_balancers
            .iter()
            .flat_map(|balancer| &balancer.listeners)
            .flat_map(|listener| &listener.forward)
            .map(|share| share.target_group)
            .collect();
        let mut old: BTreeMap<String, Group> = self
            .list
            .drain(..)
            .map(|group| (group.configured.name.clone(), group))
            .collect();
        for (index, configured) in desired.target_groups.iter().enumerate() {
            let mut group = old.remove(&configured.name).unwrap_or_else(|| Group {
                configured: configured.clone(),
                targets: BTreeMap::new(),
                data_path: None,
                is_restless: true,
                probes: ProbeStatistics::default(),
            });
            let data_path = wish::data_path(desired, index);
            let in_use = in_use.contains(&index);
            group.configure(configured, data_path, in_use, now, adopted, prober);
            self.list.push(group);
        }
        let names = self.list.iter().map(|group| group.configured.name.clone());
        self.places = names.zip(0..).collect();
    }

    /// Takes in what a probe found: the place of its group, if the target has another state now.
    pub(super) fn observe(
        &mut self,
        key: &TargetKey,
        now: Duration,
        outcome: ProbeOutcome,
    ) -> Option<(usize, Transition)> {
        let (name, address) = key;
        let place = *self.places.get(name)?;
        let group = self.list.get_mut(place)?;
        let target = group.targets.get_mut(address)?;
        group.probes.count(&outcome);
        if let ProbeOutcome::Passed { latency } = outcome {
            target.latency = Some(latency);
        }
        let transition = target.health.observe(now, outcome)?;
        group.follow_health(address, now);
        Some((place, transition))
    }

    /// What health checks found, by group.
    pub(super) fn probes(&self) -> Vec<(String, ProbeStatistics)> {
        let groups = self.list.iter();
        groups
            .map(|group| (group.configured.name.clone(), group.probes))
            .collect()
    }

    /// Has targets checked before their time.
    pub(super) fn suspect<'k>(&self, keys: impl Iterator<Item = &'k TargetKey>) {
        for (name, address) in keys {
            if let Some(group) = self
                .places
                .get(name)
                .and_then(|place| self.list.get(*place))
                && let Some(probes) = group
                    .targets
                    .get(address)
                    .filter(|target| target.health.state() == TargetState::Healthy)
                    .and_then(|target| target.probes.as_ref())
            {
                tracing::debug!(group = %name, target = %address, "suspect, checked at once");
                probes.suspect(group.configured.health_check.unhealthy_threshold);
            }
        }
    }

    /// The targets whose way leads through a neighbour.
    pub(super) fn behind(&self, interface: u32, neighbour: IpAddr) -> Vec<TargetKey> {
        let through = Way::Through {
            interface,
            neighbour,
        };
        self.list
            .iter()
            .flat_map(|group| {
                let targets = group.targets.iter();
                targets.map(move |(address, target)| (group, address, target))
            })
            .filter(|(_, _, target)| target.way == through)
            .map(|(group, address, _)| (group.configured.name.clone(), *address))
            .collect()
    }

    /// Lets time go by: delays run out, slow starts go on, and targets that are gone are forgotten.
    pub(super) fn tick(&mut self, now: Duration) -> Ticked {
        let mut ticked = Ticked::default();
        for (place, group) in self.list.iter_mut().enumerate() {
            if group.is_restless {
                group.tick(place, now, &mut ticked);
            }
        }
        ticked
    }
}

impl Group {
    fn configure(
        &mut self,
        configured: &TargetGroup,
        data_path: Option<DataPath>,
        in_use: bool,
        now: Duration,
        adopted: &BTreeMap<TargetKey, Adopted>,
        prober: Option<&Prober>,
    ) {
        let check = &configured.health_check;
        // All of them are asked the same, and certificates are read once.
        let shared = OnceLock::new();
        let check_changed = self.configured.health_check != *check || self.data_path != data_path;
        self.data_path = data_path;
        let data_path = self.data_path.as_ref();
        let is_new = self.targets.is_empty();
        let mut registered = BTreeSet::new();
        for target in &configured.targets {
            let address = SocketAddr::new(target.address, target.port);
            registered.insert(address);
            let key = (configured.name.clone(), address);
            let entry = self.targets.entry(address).or_insert_with(|| TargetEntry {
                weight: target.weight,
                quic_server_id: target.quic_server_id,
                health: adopted_health(adopted.get(&key), target.weight, configured, in_use),
                latency: None,
                way: Way::Unknown,
                is_first: is_new && !adopted.contains_key(&key),
                ramp: None,
                probes: None,
                checked_port: target.port,
            });
            entry.weight = target.weight;
            entry.quic_server_id = target.quic_server_id;
            entry.health.reregister(now);
            entry.health.set_thresholds(now, thresholds(configured));
            entry.health.set_in_use(now, in_use);
            let port = match (target.health_check_port, check.port) {
                (Some(port), _) | (None, HealthCheckPort::Port(port)) => port,
                (None, HealthCheckPort::TrafficPort) => target.port,
            };
            if check_changed || port != entry.checked_port || !entry.health.wants_probes() {
                entry.probes = None;
            }
            entry.checked_port = port;
            if entry.probes.is_none()
                && entry.health.wants_probes()
                && let Some(prober) = prober
            {
                let shared: &Arc<Check> =
                    shared.get_or_init(|| Arc::new(to_check(check, data_path)));
                entry.probes = Some(prober.spawn(
                    key,
                    Arc::clone(shared),
                    SocketAddr::new(target.address, port),
                    check.interval,
                ));
            }
        }
        // A target that left before the daemon did would lose its flows at once, not with its
        // delay, of which nobody knows how much is left: it drains anew.
        for ((name, address), was) in adopted {
            if *name == configured.name
                && configured.terminates_deregistered
                && !was.ended_flows
                && !registered.contains(address)
            {
                self.targets.entry(*address).or_insert_with(|| TargetEntry {
                    weight: 0,
                    // What leads its connections to it stays in the maps while it has flows.
                    quic_server_id: None,
                    health: TargetHealth::adopted(was.took_new_flows, thresholds(configured)),
                    latency: None,
                    way: Way::Unknown,
                    is_first: false,
                    ramp: None,
                    probes: None,
                    checked_port: address.port(),
                });
            }
        }
        for (address, entry) in &mut self.targets {
            if !registered.contains(address) {
                entry
                    .health
                    .deregister(now, configured.deregistration_delay);
                entry.probes = None;
            }
        }
        if (self.configured.mode == Mode::DsrL2) != (configured.mode == Mode::DsrL2) {
            // A way through a router is none for frames.
            for entry in self.targets.values_mut() {
                entry.way = Way::Unknown;
            }
        }
        self.is_restless = true;
        self.configured = configured.clone();
        // A target that left health behind may have left it here.
        for entry in self.targets.values_mut() {
            if entry.health.state() != TargetState::Healthy {
                entry.ramp = None;
            }
        }
    }

    fn tick(&mut self, place: usize, now: Duration, ticked: &mut Ticked) {
        let name = &self.configured.name;
        let slow_start = self.configured.slow_start;
        self.is_restless = false;
        for (address, target) in &mut self.targets {
            if let Some(transition) = target.health.tick(now) {
                ticked
                    .transitions
                    .push(((name.clone(), *address), transition));
                ticked.stale.insert(place);
            }
            if let Some(since) = target.ramp {
                ticked.stale.insert(place);
                target.ramp =
                    (slow_start::step(since, now, slow_start) < slow_start::STEPS).then_some(since);
            }
            self.is_restless |= target.health.due().is_some() || target.ramp.is_some();
        }
        self.targets.retain(|_, target| !target.health.is_gone());
    }

    /// Slow start begins and ends with a target's health.
    fn follow_health(&mut self, address: &SocketAddr, now: Duration) {
        self.is_restless = true;
        let is_carried = self.targets.iter().any(|(other, target)| {
            other != address
                && target.weight > 0
                && target.health.state().takes_new_flows()
                && self.step(target, now) == slow_start::STEPS
        });
        let Some(target) = self.targets.get_mut(address) else {
            return;
        };
        if target.health.state() != TargetState::Healthy {
            target.ramp = None;
            return;
        }
        let is_first = std::mem::take(&mut target.is_first);
        target.ramp = (is_carried && !is_first).then_some(now);
    }

    /// How far a target's slow start has come.
    fn step(&self, target: &TargetEntry, now: Duration) -> u16 {
        target.ramp.map_or(slow_start::STEPS, |since| {
            slow_start::step(since, now, self.configured.slow_start)
        })
    }

    /// Which targets take new flows.
    pub(super) fn selection(&self) -> Selection {
        let targets: Vec<_> = self
            .targets
            .values()
            .map(|target| (target.health.state(), target.weight))
            .collect();
        let configured = &self.configured;
        routable(
            &targets,
            configured.unhealthy_state_routing,
            configured.dns_failover,
        )
    }

    /// Whether a target in this state ends its flows, if it takes no new ones: in fail-open it
    /// does, and keeps them.
    pub(super) fn ends_flows(&self, state: TargetState) -> bool {
        let configured = &self.configured;
        state == TargetState::Unhealthy
            && (configured.terminates_unhealthy
                || !configured.unhealthy_draining_interval.is_zero())
    }

    /// Every target's share of new flows against the others', as a ring takes it.
    pub(super) fn weights(&self, selection: &Selection, now: Duration) -> Vec<u16> {
        let targets: Vec<(u16, u16)> = self
            .targets
            .values()
            .enumerate()
            .map(|(position, target)| {
                if !selection.members.contains(&position) {
                    (0, slow_start::STEPS)
                } else if selection.fail_open {
                    // Nobody knows who can carry more.
                    (target.weight, slow_start::STEPS)
                } else {
                    (target.weight, self.step(target, now))
                }
            })
            .collect();
        slow_start::weights(&targets)
    }

    /// The same in the units of the configuration.
    pub(super) fn effective_weights(&self, selection: &Selection, now: Duration) -> Vec<f64> {
        let weights = self.weights(selection, now);
        // A target that is not held back says what a ring's unit is.
        let is_scaled =
            (self.targets.values().zip(&weights)).any(|(target, weight)| *weight > target.weight);
        let unit = if is_scaled { slow_start::STEPS } else { 1 };
        weights
            .into_iter()
            .map(|weight| f64::from(weight) / f64::from(unit))
            .collect()
    }
}

/// The health that a registered target begins with.
///
/// One that neither took new flows nor ended those it had was not unhealthy, where unhealthy ones
/// end them; it must not end them now.
fn adopted_health(
    was: Option<&Adopted>,
    weight: u16,
    group: &TargetGroup,
    in_use: bool,
) -> TargetHealth {
    let thresholds = thresholds(group);
    match was {
        Some(was) if was.took_new_flows || weight == 0 && !was.ended_flows => {
            TargetHealth::adopted(true, thresholds)
        }
        Some(was) if was.ended_flows || !group.terminates_unhealthy => {
            TargetHealth::adopted(false, thresholds)
        }
        _ => TargetHealth::registered(thresholds, in_use),
    }
}

fn to_check(check: &HealthCheck, data_path: Option<&DataPath>) -> Check {
    Check {
        protocol: match &check.protocol {
            HealthCheckProtocol::Tcp => CheckProtocol::Tcp,
            HealthCheckProtocol::Http { path, matcher, tls } => CheckProtocol::Http {
                path: path.clone(),
                codes: matcher.ranges().to_vec(),
                tls: tls.as_ref().map(|tls| to_client(tls, None)),
            },
            HealthCheckProtocol::Udp {
                send,
                expect,
                silence_passes,
            } => CheckProtocol::Udp {
                send: send.clone(),
                expect: expect.clone(),
                silence_passes: *silence_passes,
            },
            HealthCheckProtocol::Grpc { service, tls } => CheckProtocol::Grpc {
                service: service.clone(),
                tls: tls.as_ref().map(|tls| to_client(tls, Some("h2"))),
            },
            HealthCheckProtocol::Icmp => CheckProtocol::Icmp,
            HealthCheckProtocol::Command(line) => CheckProtocol::Command { line: line.clone() },
        },
        through: data_path.map(|path| Through {
            path: path.clone(),
            answers: Answers::shared(),
        }),
        timeout: check.timeout,
    }
}

fn to_client(tls: &HealthCheckTls, protocol: Option<&str>) -> probe::tls::Client {
    probe::tls::Client::new(tls.server_name.as_deref(), tls.ca_file.as_deref(), protocol)
}

#[cfg(test)]
#[path = "groups_tests.rs"]
mod tests;
