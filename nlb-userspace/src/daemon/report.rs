//! What the daemon answers when it is asked how things are.

use std::{net::SocketAddr, time::SystemTime};

use nlb_common::{
    counter::Traffic,
    listener::{HashInput, ListenerKey},
    stop::{Stop, StopVerdict},
};

use super::{Daemon, groups, groups::Group, groups::Way, wish};
use crate::{
    config,
    dataplane::{load::Attached, sweep::Sweep},
    metrics::{MapFill, Own, Snapshot, log},
    next_hop,
    status::{
        Counters, Flows, ForwardShare, Interface, Listener, LoadBalancer, NextHop, Status,
        StopCount, Target, TargetGroup,
    },
};

impl Daemon {
    /// How things are now.
    pub(super) async fn report(&self) -> Status {
        self.report_with(&self.sweep_flows()).await
    }

    /// The same with the flows that a sweep has seen.
    async fn report_with(&self, sweep: &Sweep) -> Status {
        let active = sweep.active;
        let mut warnings: Vec<String> = self
            .desired
            .warnings
            .iter()
            .map(ToString::to_string)
            .collect();
        let interfaces = self.interfaces(&mut warnings).await;
        self.warn_of_what_is_gone(&mut warnings);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            generation: self.actual.generation,
            started_at_unix_seconds: self
                .started_at
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |elapsed| elapsed.as_secs()),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            config: self.config_path.display().to_string(),
            adopted: self.loaded.is_adopted,
            interfaces,
            flows: Flows {
                active,
                capacity: self.loaded.maps.flow_capacity(),
            },
            load_balancers: self
                .desired
                .load_balancers
                .iter()
                .map(|b| self.balancer(b, sweep))
                .collect(),
            target_groups: self
                .groups
                .list
                .iter()
                .map(|group| self.group(group, sweep))
                .collect(),
            early_fragments: self.early,
            stops: Stop::ALL
                .iter()
                .filter(|stop| **stop != Stop::NotOurs)
                .map(|stop| StopCount {
                    name: stop.name().to_owned(),
                    count: self.loaded.maps.stop_count(*stop).unwrap_or_default(),
                    verdict: match stop.verdict() {
                        StopVerdict::Pass => "pass",
                        StopVerdict::Drop => "drop",
                        StopVerdict::Answer => "answer",
                    }
                    .to_owned(),
                    meaning: stop.meaning().to_owned(),
                })
                .collect(),
            warnings,
        }
    }

    /// What monitoring sees. It costs no look at the flow table: the last sweep's is seconds old.
    pub(super) async fn measure(&self) -> Snapshot {
        let [_, latest] = &self.sweeps;
        let limits = self.limits();
        let fill = |map, used: usize, room: usize| MapFill {
            map,
            used: used as u64,
            // Number 0 is nobody's.
            capacity: room.saturating_sub(1) as u64,
        };
        let (listeners, targets, groups) = self.actual.records();
        Snapshot {
            status: self.report_with(latest).await,
            own: Own {
                is_live: self.is_live,
                maps: vec![
                    fill("listeners", listeners, limits.listeners),
                    fill("targets", targets, limits.targets),
                    fill("target_groups", groups, limits.groups),
                ],
                changes: self.changes,
                logged: log::counts(),
            },
            probes: self.groups.probes(),
        }
    }

    /// What was taken away from under the daemon.
    fn warn_of_what_is_gone(&self, warnings: &mut Vec<String>) {
        let node = &self.desired.node;
        if !self.loaded.has_pins() {
            warnings.push(format!(
                "the pins in {} are gone (was the bpffs unmounted?): traffic goes on as long as this \
                 daemon runs, and no longer; mount it again and restart nlb when flows may end",
                node.pins().display()
            ));
        }
        for name in &node.interfaces {
            if self.watch.link_named(name).is_some() {
                continue;
            }
            let attached = self.attached.iter().find(|to| to.name == *name);
            let link = attached.and_then(|to| self.watch.link(to.index));
            warnings.push(match link {
                Some(link) => format!(
                    "the interface {name} is called {} now; node.interfaces must say so before the \
                     next reload or restart",
                    link.name
                ),
                None => {
                    format!("there is no interface {name}; it gets its program when it is there")
                }
            });
        }
    }

    async fn interfaces(&self, warnings: &mut Vec<String>) -> Vec<Interface> {
        let mut interfaces = Vec::new();
        for super::AttachedTo { name, index, how } in &self.attached {
            let forwarding_v4 = next_hop::forwarding(name, false);
            let forwarding_v6 = next_hop::forwarding(name, true);
            if forwarding_v4 == Some(false) {
                warnings.push(format!(
                    "IPv4 forwarding is off on {name}: answers of nat targets cannot be routed; \
                     sysctl -w net.ipv4.conf.{name}.forwarding=1"
                ));
            }
            let xdp_mode = match how {
                Attached::Driver | Attached::Generic => how.name(),
                Attached::Replaced => self.watch.xdp_mode(*index).await.unwrap_or("unknown"),
            }
            .to_owned();
            interfaces.push(Interface {
                name: name.clone(),
                index: *index,
                xdp_mode,
                forwarding_v4,
                forwarding_v6,
            });
        }
        interfaces
    }

    fn balancer(&self, balancer: &config::LoadBalancer, sweep: &Sweep) -> LoadBalancer {
        LoadBalancer {
            name: balancer.name.clone(),
            addresses: balancer.addresses.clone(),
            listeners: balancer
                .listeners
                .iter()
                .map(|listener| Listener {
                    name: listener.name.clone(),
                    protocol: listener.protocol.to_string(),
                    port: listener.port,
                    addresses: listener.addresses.clone(),
                    target_groups: listener
                        .forward
                        .iter()
                        .map(|share| ForwardShare {
                            name: share.name.clone(),
                            weight: share.weight,
                        })
                        .collect(),
                    hash: match listener.hash_input {
                        HashInput::FiveTuple => "five_tuple",
                        HashInput::FiveTupleAndSequence => "five_tuple_and_sequence",
                        HashInput::Source => "source_ip",
                    }
                    .to_owned(),
                    active_flows: self.active_flows(listener, sweep),
                    counters: self.listener_counters(listener),
                })
                .collect(),
        }
    }

    /// The flows of all the listener's addresses and protocols.
    fn active_flows(&self, listener: &config::Listener, sweep: &Sweep) -> u64 {
        wish::keys(listener)
            .iter()
            .filter_map(|(key, _)| self.actual.listener_id(key))
            .filter_map(|id| sweep.by_listener.get(usize::from(id.0)))
            .sum()
    }

    /// The sum over the listener's addresses and protocols.
    fn listener_counters(&self, listener: &config::Listener) -> Counters {
        let mut sum = Traffic::default();
        for (key, _) in wish::keys(listener) {
            sum += self.traffic_of(&key);
        }
        sum.into()
    }

    fn traffic_of(&self, key: &ListenerKey) -> Traffic {
        self.actual
            .listener_id(key)
            .and_then(|id| self.loaded.maps.listener_traffic(id).ok())
            .unwrap_or_default()
    }

    fn group(&self, group: &Group, sweep: &Sweep) -> TargetGroup {
        let wished =
            self.wish.groups.iter().find(|wished| {
                wished.fingerprint == crate::plan::fingerprint(&group.configured.name)
            });
        let selection = group.selection();
        TargetGroup {
            name: group.configured.name.clone(),
            protocol: group.configured.protocol.to_string(),
            mode: group.configured.mode.to_string(),
            fail_open: selection.fail_open && !group.targets.is_empty(),
            available: selection.is_available,
            targets: group
                .targets
                .iter()
                .zip(group.effective_weights(&selection, self.started.elapsed()))
                .map(|((address, entry), weight)| {
                    let id = wished.and_then(|wished| {
                        self.actual.target_id(wished, address.ip(), address.port())
                    });
                    let traffic = id
                        .and_then(|id| self.loaded.maps.target_traffic(id).ok())
                        .unwrap_or_default();
                    let ports = id.and_then(|id| sweep.ports_by_target.get(id.0 as usize));
                    let flows = id.and_then(|id| sweep.by_target.get(id.0 as usize));
                    let quic_server_id =
                        group
                            .configured
                            .quic
                            .zip(entry.quic_server_id)
                            .map(|(layout, number)| {
                                let digits = usize::from(layout.server_id_bytes) * 2;
                                format!("0x{number:0digits$x}")
                            });
                    Target {
                        snat_ports_in_use: ports.copied().unwrap_or_default(),
                        active_flows: flows.copied().unwrap_or_default(),
                        effective_weight: weight,
                        quic_server_id,
                        ..self.target(address, entry, id.map(|id| id.0), traffic)
                    }
                })
                .collect(),
        }
    }

    fn target(
        &self,
        address: &SocketAddr,
        entry: &groups::TargetEntry,
        id: Option<u32>,
        traffic: Traffic,
    ) -> Target {
        let health = &entry.health;
        Target {
            id,
            address: address.ip(),
            port: address.port(),
            weight: entry.weight,
            effective_weight: f64::from(entry.weight),
            quic_server_id: None,
            state: health.state().name().to_owned(),
            reason: health.reason().map(|reason| reason.code().to_owned()),
            description: health
                .reason()
                .map(|reason| reason.description().to_owned()),
            last_failure: health.last_failure().map(ToString::to_string),
            probe_latency_seconds: entry.latency.map(|latency| latency.as_secs_f64()),
            next_hop: self.way(&entry.way),
            snat_ports_in_use: 0,
            active_flows: 0,
            counters: traffic.into(),
        }
    }

    fn way(&self, way: &Way) -> NextHop {
        let unresolved = |reason: String, interface| NextHop {
            state: "unresolved".to_owned(),
            reason: Some(reason),
            interface,
            mac: None,
        };
        match way {
            Way::Unknown => unresolved("not asked yet".to_owned(), None),
            Way::None(reason) => unresolved(reason.to_string(), None),
            Way::Failed(error) => unresolved(error.clone(), None),
            Way::Through {
                interface,
                neighbour,
            } => {
                let name = self.watch.link(*interface).map(|link| link.name);
                match self.book.get(*interface, *neighbour) {
                    Some((_, Some(next_hop))) => NextHop {
                        state: "resolved".to_owned(),
                        reason: None,
                        interface: name,
                        mac: Some(next_hop.macs.destination().to_string()),
                    },
                    _ => unresolved(format!("the MAC address of {neighbour} is not known"), name),
                }
            }
        }
    }
}
