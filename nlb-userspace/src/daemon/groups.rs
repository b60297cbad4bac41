//! Target groups as the daemon knows them: what is configured, and what is known of each target.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use nlb_common::{
    address::Address,
    listener::{ListenerKey, Stranded},
    next_hop::NextHopId,
    target::Mode as WireMode,
    wire::protocol,
};
use tokio::sync::mpsc;
use zerocopy::big_endian::U16;

use crate::{
    clock,
    config::{
        Desired, HealthCheck, HealthCheckPort, HealthCheckProtocol, Listener, Mode, StrandedAction,
        TargetGroup,
    },
    health::{
        Check, CheckProtocol, ProbeOutcome,
        schedule::{self, Probes},
        state::{TargetHealth, Thresholds, Transition},
    },
    next_hop::Unresolved,
    plan::{Wish, WishedGroup, WishedListener, WishedTarget, fingerprint},
    target_state::{Selection, TargetState, routable},
};

/// Names a target for its probes: the group's name and the target's address.
pub(super) type TargetKey = (String, SocketAddr);

/// What the maps of an earlier daemon say of a target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adopted {
    /// It stood in its group's ring.
    pub(super) took_new_flows: bool,
    /// Its flows ended with their next packet.
    pub(super) ended_flows: bool,
}

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
    /// left drain; a target that `adopted` names is what it was before the daemon started.
    pub(super) fn configure(
        &mut self,
        desired: &Desired,
        now: Duration,
        adopted: &BTreeMap<TargetKey, Adopted>,
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
        }
    }
}

impl Group {
    fn configure(
        &mut self,
        configured: &TargetGroup,
        in_use: bool,
        now: Duration,
        adopted: &BTreeMap<TargetKey, Adopted>,
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
                health: adopted_health(adopted.get(&key), target.weight, configured, in_use),
                way: Way::Unknown,
                probes: None,
            });
            entry.weight = target.weight;
            entry.health.reregister(now);
            entry.health.set_thresholds(now, thresholds(configured));
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
                    health: TargetHealth::adopted(was.took_new_flows, thresholds(configured)),
                    way: Way::Unknown,
                    probes: None,
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

    /// Whether a target in this state ends its flows, if it takes no new ones: in fail-open it
    /// does, and keeps them.
    fn ends_flows(&self, state: TargetState) -> bool {
        let configured = &self.configured;
        state == TargetState::Unhealthy
            && (configured.terminates_unhealthy
                || !configured.unhealthy_draining_interval.is_zero())
    }

    fn wish(&self, next_hop: &impl Fn(&Way) -> NextHopId) -> WishedGroup {
        let selection = self.selection();
        WishedGroup {
            fingerprint: fingerprint(&self.configured.name),
            mode: match self.configured.mode {
                Mode::Nat => WireMode::NAT,
                Mode::DsrL2 => WireMode::DSR_L2,
            },
            terminates_removed: self.configured.terminates_deregistered,
            targets: self
                .targets
                .iter()
                .enumerate()
                // Forgotten at the next tick.
                .filter(|(_, (_, target))| !target.health.is_gone())
                .map(|(position, (address, target))| WishedTarget {
                    address: address.ip(),
                    port: address.port(),
                    weight: if selection.members.contains(&position) {
                        target.weight
                    } else {
                        0
                    },
                    resets_flows: self.ends_flows(target.health.state()),
                    next_hop: next_hop(&target.way),
                })
                .collect(),
        }
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

const fn stranded(action: StrandedAction) -> Stranded {
    match action {
        StrandedAction::Forward => Stranded::FORWARD,
        StrandedAction::Reset => Stranded::RESET,
        StrandedAction::Drop => Stranded::DROP,
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
                stray: stranded(listener.tcp_stray_action),
                expired: stranded(listener.tcp_idle_timeout_action),
                mss_clamp_bytes: listener.tcp_mss_clamp_bytes.unwrap_or(0),
            });
        }
    }
    wished
}
