//! From groups and the configuration to the wish: what should be in the maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use nlb_common::{
    address::Address,
    admission::AdmissionPolicy,
    listener::{ListenerKey, Stranded},
    next_hop::NextHopId,
    tunnel::Tunnel,
    wire::protocol,
};
use zerocopy::big_endian::U16;

use super::groups::{Group, Groups, Way};
use crate::{
    clock,
    config::{
        Desired, HealthCheckProtocol, IpVersion, Listener, LoadBalancer, OverLimit, Protocol,
        StrandedAction, SynCookies, TargetGroup, TunnelOptions, TunnelSources,
    },
    health::probe::data_path::DataPath,
    plan::{
        Wish, WishedAdmission, WishedForward, WishedGroup, WishedListener, WishedQuic, WishedRing,
        WishedTarget, fingerprint,
    },
    source_rules::mapped_length,
};

impl Groups {
    /// What should be in the maps.
    pub(super) fn wish(
        &self,
        desired: &Desired,
        now: Duration,
        next_hop: impl Fn(&Way) -> NextHopId,
    ) -> Wish {
        let mut forwards = Vec::new();
        let listeners = desired
            .load_balancers
            .iter()
            .flat_map(|balancer| {
                let listeners = balancer.listeners.iter();
                listeners.map(move |listener| (balancer, listener))
            })
            .flat_map(|(balancer, listener)| {
                let ring = match listener.forward.as_slice() {
                    [one] if !listener.pins_on_change => WishedRing::Group(one.target_group),
                    several => {
                        let shares = several.iter();
                        forwards.push(WishedForward {
                            shares: shares
                                .map(|share| (share.target_group, share.weight))
                                .collect(),
                            settles: listener.pins_on_change,
                        });
                        WishedRing::Forward(forwards.len() - 1)
                    }
                };
                wished_listeners(balancer, listener, ring)
            })
            .collect();
        Wish {
            listeners,
            groups: self
                .list
                .iter()
                .map(|group| group.wish(now, &desired.node.tunnel_sources, &next_hop))
                .collect(),
            forwards,
            sources: desired.node.snat_addresses.clone(),
        }
    }
}

impl Group {
    /// What of it should be in the maps.
    pub(super) fn wish(
        &self,
        now: Duration,
        sources: &TunnelSources,
        next_hop: &impl Fn(&Way) -> NextHopId,
    ) -> WishedGroup {
        let weights = self.weights(&self.selection(), now);
        WishedGroup {
            fingerprint: fingerprint(&self.configured.name),
            mode: self.configured.mode.on_the_wire(),
            tunnel: tunnel_of(&self.configured, sources),
            terminates_removed: self.configured.terminates_deregistered,
            targets: self
                .targets
                .iter()
                .zip(weights)
                // Forgotten at the next tick.
                .filter(|((_, target), _)| !target.health.is_gone())
                .map(|((address, target), weight)| WishedTarget {
                    address: address.ip(),
                    port: address.port(),
                    weight,
                    resets_flows: self.ends_flows(target.health.state()),
                    next_hop: next_hop(&target.way),
                })
                .collect(),
            quic: self.quic(),
        }
    }

    /// The numbers of QUIC servers. One that drains and whose number another has by now has none.
    fn quic(&self) -> Option<WishedQuic> {
        let layout = self.configured.quic?;
        let registered: BTreeMap<SocketAddr, Option<u64>> = self
            .configured
            .targets
            .iter()
            .map(|target| {
                let address = SocketAddr::new(target.address, target.port);
                (address, target.quic_server_id)
            })
            .collect();
        let taken: BTreeSet<u64> = registered.values().flatten().copied().collect();
        let server_ids = self
            .targets
            .iter()
            .map(|(address, target)| {
                let id = target.quic_server_id?;
                (registered.contains_key(address) || !taken.contains(&id)).then_some(id)
            })
            .collect();
        Some(WishedQuic { layout, server_ids })
    }
}

/// How packets get to a group's targets, for checks that go the same way; nothing if none does.
pub(super) fn data_path(desired: &Desired, index: usize) -> Option<DataPath> {
    let group = desired.target_groups.get(index)?;
    let check = &group.health_check;
    if !check.through_data_path {
        return None;
    }
    let asks = match check.protocol {
        HealthCheckProtocol::Udp { .. } => Protocol::has_udp,
        _ => Protocol::has_tcp,
    };
    let balancers = desired.load_balancers.iter();
    let vips: BTreeSet<SocketAddr> = balancers
        .flat_map(|balancer| &balancer.listeners)
        .filter(|listener| asks(listener.protocol))
        .filter(|listener| {
            listener
                .forward
                .iter()
                .any(|share| share.target_group == index)
        })
        .flat_map(|listener| {
            let addresses = listener.addresses.iter();
            addresses.map(|address| SocketAddr::new(*address, listener.port))
        })
        .collect();
    Some(DataPath {
        vips: vips.into_iter().collect(),
        mode: group.mode.on_the_wire(),
        tunnel: tunnel_of(group, &desired.node.tunnel_sources),
    })
}

fn tunnel_of(group: &TargetGroup, sources: &TunnelSources) -> Option<Tunnel> {
    (group.mode.is_tunnel()).then(|| tunnel(group.tunnel, sources))
}

/// What the outer headers of a group's packets say on this node.
fn tunnel(options: TunnelOptions, sources: &TunnelSources) -> Tunnel {
    // Without entropy there is one source, the address as written.
    let host_bits = |written: u8| if options.has_entropy { written } else { 0 };
    let (source_v4, spread_v4) = sources.v4.map_or((Address::UNSPECIFIED, 0), |source| {
        let spread = u32::MAX
            .checked_shr(32 - u32::from(host_bits(source.host_bits)))
            .unwrap_or(0);
        let address = source.address.to_bits() & !spread;
        (Address::from_v4_bytes(address.to_be_bytes()), spread)
    });
    let (source_v6, spread_v6) = sources.v6.map_or((Address::UNSPECIFIED, 0), |source| {
        let spread = u64::MAX
            .checked_shr(64 - u32::from(host_bits(source.host_bits)))
            .unwrap_or(0);
        let address = source.address.to_bits() & !u128::from(spread);
        (Address::from_v6_bytes(address.to_be_bytes()), spread)
    });
    let [_, network @ ..] = options.vni.to_be_bytes();
    Tunnel {
        source_v4,
        source_v6,
        spread_v4: spread_v4.to_be_bytes(),
        spread_v6: spread_v6.to_be_bytes(),
        port: U16::new(options.port),
        network,
        has_entropy: options.has_entropy,
    }
}

/// What packets are addressed to: a key for each address and protocol, and how long such a flow may
/// be silent.
pub(super) fn keys(listener: &Listener) -> Vec<(ListenerKey, Duration)> {
    let tcp = listener
        .protocol
        .has_tcp()
        .then_some((protocol::TCP, listener.tcp_idle_timeout));
    let udp = listener
        .protocol
        .has_udp()
        .then_some((protocol::UDP, listener.udp_idle_timeout));
    let mut keys = Vec::new();
    for address in &listener.addresses {
        for (protocol, idle) in [tcp, udp].into_iter().flatten() {
            let address = Address::from(*address);
            keys.push((
                ListenerKey::new(address, protocol, U16::new(listener.port)),
                idle,
            ));
        }
    }
    keys
}

const fn stranded(action: StrandedAction) -> Stranded {
    match action {
        StrandedAction::Forward => Stranded::FORWARD,
        StrandedAction::Reset => Stranded::RESET,
        StrandedAction::ResetAtExpiry => Stranded::RESET_AT_EXPIRY,
        StrandedAction::Drop => Stranded::DROP,
    }
}

fn wished_listeners(
    balancer: &LoadBalancer,
    listener: &Listener,
    ring: WishedRing,
) -> Vec<WishedListener> {
    keys(listener)
        .into_iter()
        .map(|(key, idle)| {
            let seconds = u32::try_from(idle.as_secs()).unwrap_or(u32::MAX);
            WishedListener {
                key,
                ring,
                idle_ticks: clock::of_this_kernel().count_of_seconds(seconds),
                stray: stranded(listener.tcp_stray_action),
                expired: stranded(listener.tcp_idle_timeout_action),
                mss_clamp_bytes: listener.tcp_mss_clamp_bytes.unwrap_or(0),
                syn_cookies: listener.tcp_syn_cookies != SynCookies::Off
                    && key.protocol == protocol::TCP,
                hash_input: listener.hash_input,
                admission: wished_admission(listener, &key),
                answers_echo: balancer.icmp_echo,
            }
        })
        .collect()
}

/// Who may begin flows at one address and protocol of a listener, and how many.
fn wished_admission(listener: &Listener, key: &ListenerKey) -> WishedAdmission {
    let address = key.address.into();
    let version = IpVersion::of(address);
    let rules = listener
        .source_rules
        .iter()
        .find(|(protocol, of, _)| *protocol == key.protocol && *of == version)
        .map(|(_, _, rules)| rules.clone());
    let limits = &listener.limits;
    let clock = clock::of_this_kernel();
    let per_tick = |per_second: Option<u32>| clock.count_per_tick(per_second.unwrap_or(0));
    let (ipv4, ipv6) = (limits.source_prefix_ipv4, limits.source_prefix_ipv6);
    let policy = AdmissionPolicy {
        has_rules: false,
        forwards_unpinned: limits.over == OverLimit::ForwardUnpinned,
        source_bits: mapped_length(address, ipv4, ipv6),
        flows_per_tick: per_tick(limits.new_flows_per_second),
        source_flows_per_tick: per_tick(limits.source_new_flows_per_second),
        active_flows: limits.active_flows.unwrap_or(0),
        source_active_flows: limits.source_active_flows.unwrap_or(0),
        usual_syns_per_tick: match listener.tcp_syn_cookies {
            SynCookies::UnderAttack { above_per_second } if key.protocol == protocol::TCP => {
                per_tick(Some(above_per_second))
            }
            _ => 0,
        },
    };
    WishedAdmission {
        rules,
        limits: policy,
    }
}
