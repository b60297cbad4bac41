//! Target groups as the daemon knows them: what is configured, and what is known of each target.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use nlb_common::{
    address::Address, listener::ListenerKey, next_hop::NextHopId, target::Mode as WireMode,
    wire::protocol,
};
use tokio::sync::mpsc;
use zerocopy::big_endian::U16;

use crate::{
    clock,
    config::{
        Desired, HealthCheck, HealthCheckPort, HealthCheckProtocol, Listener, Mode, TargetGroup,
    },
    health::{
        Check, CheckProtocol, ProbeOutcome,
        schedule::{self, Probes},
        state::{TargetHealth, Thresholds, Transition},
    },
    next_hop::Unresolved,
    plan::{Wish, WishedGroup, WishedListener, WishedTarget, fingerprint},
    target_state::{Selection, routable},
};

/// Names a target for its probes: the group's name and the target's address.
pub(super) type TargetKey = (String, SocketAddr);

/// Where probes send what they found.
pub(super) type Outcomes = mpsc::Sender<(TargetKey, ProbeOutcome)>;

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
    /// Its health.
    pub(super) health: TargetHealth,
    /// The way there.
    pub(super) way: Way,
    probes: Option<Probes>,
}

/// A target group and its targets.
pub(super) struct Group {
    /// What is configured; its `targets` are those that are registered.
    pub(super) configured: TargetGroup,
    /// Registered and draining targets.
    pub(super) targets: BTreeMap<SocketAddr, TargetEntry>,
}

/// All target groups, in the order of the configuration.
#[derive(Default)]
pub(super) struct Groups {
    /// The groups.
    pub(super) list: Vec<Group>,
}

fn thresholds(check: &HealthCheck) -> Option<Thresholds> {
    check.enabled.then(|| Thresholds {
        healthy: check.healthy_threshold,
        unhealthy: check.unhealthy_threshold,
        ..Thresholds::default()
    })
}

impl Groups {
    /// Takes a new configuration over. Targets that stay keep what is known of them; targets that
    /// left drain; a target that `adopted` names is what it was before the daemon started.
    pub(super) fn configure(
        &mut self,
        desired: &Desired,
        now: Duration,
        adopted: &BTreeMap<TargetKey, bool>,
        outcomes: &Outcomes,
    ) {
        let in_use: BTreeSet<usize> = desired
            .load_balancers
            .iter()
            .flat_map(|balancer| &balancer.listeners)
            .map(|listener| listener.target_group)
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
            });
            group.configure(configured, in_use.contains(&index), now, adopted, outcomes);
            self.list.push(group);
        }
    }

    /// Takes in what a probe found.
    pub(super) fn observe(
        &mut self,
        key: &TargetKey,
        now: Duration,
        outcome: ProbeOutcome,
    ) -> Option<Transition> {
        let (name, address) = key;
        let group = self
            .list
            .iter_mut()
            .find(|group| group.configured.name == *name)?;
        group.targets.get_mut(address)?.health.observe(now, outcome)
    }

    /// Lets time go by: delays run out, and targets that are gone are forgotten.
    pub(super) fn tick(&mut self, now: Duration) -> Vec<(TargetKey, Transition)> {
        let mut transitions = Vec::new();
        for group in &mut self.list {
            for (address, target) in &mut group.targets {
                if let Some(transition) = target.health.tick(now) {
                    transitions.push(((group.configured.name.clone(), *address), transition));
                }
            }
            group.targets.retain(|_, target| !target.health.is_gone());
        }
        transitions
    }

    /// What should be in the maps.
    pub(super) fn wish(&self, desired: &Desired, next_hop: impl Fn(&Way) -> NextHopId) -> Wish {
        Wish {
            listeners: desired
                .load_balancers
                .iter()
                .flat_map(|balancer| &balancer.listeners)
                .flat_map(wished_listeners)
                .collect(),
            groups: self
                .list
                .iter()
                .map(|group| group.wish(&next_hop))
                .collect(),
            sources: desired.node.snat_addresses.clone(),
        }
    }
}

impl Group {
    fn configure(
        &mut self,
        configured: &TargetGroup,
        in_use: bool,
        now: Duration,
        adopted: &BTreeMap<TargetKey, bool>,
        outcomes: &Outcomes,
    ) {
        let check = &configured.health_check;
        let check_changed = self.configured.health_check != *check;
        let mut registered = BTreeSet::new();
        for target in &configured.targets {
            let address = SocketAddr::new(target.address, target.port);
            registered.insert(address);
            let key = (configured.name.clone(), address);
            let entry = self.targets.entry(address).or_insert_with(|| TargetEntry {
                weight: target.weight,
                health: match adopted.get(&key) {
                    Some(was_healthy) => TargetHealth::adopted(*was_healthy, thresholds(check)),
                    None => TargetHealth::registered(thresholds(check), in_use),
                },
                way: Way::Unknown,
                probes: None,
            });
            entry.weight = target.weight;
            entry.health.reregister(now);
            entry.health.set_thresholds(now, thresholds(check));
            entry.health.set_in_use(now, in_use);
            if check_changed || !entry.health.wants_probes() {
                entry.probes = None;
            }
            if entry.probes.is_none() && entry.health.wants_probes() {
                let port = match check.port {
                    HealthCheckPort::TrafficPort => target.port,
                    HealthCheckPort::Port(port) => port,
                };
                entry.probes = Some(schedule::spawn(
                    key,
                    to_check(check),
                    SocketAddr::new(target.address, port),
                    check.interval,
                    outcomes.clone(),
                ));
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
        self.configured = configured.clone();
    }

    /// Which targets take new flows.
    pub(super) fn selection(&self) -> Selection {
        let states: Vec<_> = self
            .targets
            .values()
            .map(|target| target.health.state())
            .collect();
        routable(&states)
    }

    fn wish(&self, next_hop: &impl Fn(&Way) -> NextHopId) -> WishedGroup {
        let selection = self.selection();
        WishedGroup {
            fingerprint: fingerprint(&self.configured.name),
            mode: match self.configured.mode {
                Mode::Nat => WireMode::NAT,
                Mode::DsrL2 => WireMode::DSR_L2,
                Mode::FullNat => WireMode::FULL_NAT,
            },
            targets: self
                .targets
                .iter()
                .enumerate()
                .map(|(position, (address, target))| WishedTarget {
                    address: address.ip(),
                    port: address.port(),
                    weight: if selection.members.contains(&position) {
                        target.weight
                    } else {
                        0
                    },
                    next_hop: next_hop(&target.way),
                })
                .collect(),
        }
    }
}

fn to_check(check: &HealthCheck) -> Check {
    Check {
        protocol: match &check.protocol {
            HealthCheckProtocol::Tcp => CheckProtocol::Tcp,
            HealthCheckProtocol::Http { path, matcher } => CheckProtocol::Http {
                path: path.clone(),
                codes: matcher.ranges().to_vec(),
            },
        },
        timeout: check.timeout,
    }
}

/// One for each address and protocol.
pub(super) fn wished_listeners(listener: &Listener) -> Vec<WishedListener> {
    let tcp = listener
        .protocol
        .has_tcp()
        .then_some((protocol::TCP, listener.tcp_idle_timeout));
    let udp = listener
        .protocol
        .has_udp()
        .then_some((protocol::UDP, listener.udp_idle_timeout));
    let mut wished = Vec::new();
    for address in &listener.addresses {
        for (protocol, idle) in [tcp, udp].into_iter().flatten() {
            let seconds = u32::try_from(idle.as_secs()).unwrap_or(u32::MAX);
            wished.push(WishedListener {
                key: ListenerKey::new(Address::from(*address), protocol, U16::new(listener.port)),
                group: listener.target_group,
                idle_ticks: clock::of_this_kernel().count_of_seconds(seconds),
            });
        }
    }
    wished
}
