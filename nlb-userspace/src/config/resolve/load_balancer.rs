//! The rules of load balancers, their addresses and their listeners.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use nlb_common::listener::HashInput;

use super::{
    super::{
        address,
        desired::{IpVersion, Listener, LoadBalancer, Mode, Protocol},
        error::{Problem, Remedy, Suspicion},
        raw::{RawListener, RawLoadBalancer},
        report::{At, Report},
    },
    Vips,
    forward::{self, Named},
    name::Names,
    target_group::{Group, Versions, port, protocol},
};

/// Load balancers without their listeners, and who has which address.
pub(super) fn resolve(
    balancers: &[RawLoadBalancer],
    report: &mut Report<'_>,
) -> (Vec<LoadBalancer>, Vips) {
    let mut names = Names::new("load balancer");
    let mut vips = Vips::new();
    let mut resolved = Vec::new();
    for raw in balancers {
        if let Some(name) = raw.name.value() {
            names.check(name, report);
        }
        let name = raw
            .name
            .value()
            .map_or_else(String::new, |at| at.value.clone());
        let mut addresses = Vec::new();
        for at in raw
            .addresses
            .value()
            .map_or(&[][..], |at| at.value.as_slice())
        {
            let Some(address) = address::vip(report, at) else {
                continue;
            };
            if let Some((owner, line)) = vips.get(&address) {
                let problem = Problem::AddressTaken {
                    owner: owner.clone(),
                    line: *line,
                };
                report.fault(&at.spot, problem, Remedy::OnePlace);
            } else {
                vips.insert(address, (name.clone(), report.line(&at.spot)));
                addresses.push(address);
            }
        }
        if raw.listeners.is_empty() {
            report.warn(&raw.spot, Suspicion::NoListener);
        }
        resolved.push(LoadBalancer {
            name,
            addresses,
            listeners: Vec::new(),
        });
    }
    (resolved, vips)
}

/// Fills in the listeners of one load balancer and marks the groups they use.
pub(super) fn resolve_listeners(
    balancer: &mut LoadBalancer,
    raw: &RawLoadBalancer,
    groups: &mut [Group],
    groups_complete: bool,
    report: &mut Report<'_>,
) {
    // The line of the load balancer's table tells it from another without a name.
    let identity = raw.spot.span.start;
    // With a wrong address among them, "no address of that version" may be that same mistake.
    let all_known = raw
        .addresses
        .value()
        .is_some_and(|written| written.value.len() == balancer.addresses.len());
    let mut taken: Vec<(Protocol, u16, Vec<IpAddr>, usize)> = Vec::new();
    for raw in &raw.listeners {
        let protocol = protocol(&raw.protocol);
        let port = port(&raw.port);
        check_timeouts(raw, protocol, report);
        let shares = forward::resolve(raw, groups, groups_complete, report);
        let mut addresses = balancer.addresses.clone();
        // What targets are known of any group says where the listener answers.
        let mut versions = Versions::Unknown;
        for Named { index, at, .. } in &shares {
            let Some(group) = index.and_then(|index| groups.get_mut(index)) else {
                continue;
            };
            check_group(raw, at, protocol, port, group, report);
            match &group.user {
                Some((other, owner, line)) if *other != identity => {
                    let problem = Problem::GroupOfAnother {
                        owner: owner.clone(),
                        line: *line,
                    };
                    report.fault(&at.spot, problem, Remedy::GroupPerBalancer);
                }
                Some(_) => {}
                None => {
                    group.user = Some((identity, balancer.name.clone(), report.line(&at.spot)));
                }
            }
            // Groups of different versions have been recorded.
            if matches!(versions, Versions::One(_)) {
                continue;
            }
            versions = group.versions;
            if let Versions::One(version) = versions {
                addresses.retain(|&address| IpVersion::of(address) == version);
                if addresses.is_empty() && all_known {
                    let problem = Problem::NoAddressOfVersion { version };
                    report.fault(&at.spot, problem, Remedy::AddAddress);
                }
            }
        }
        let hash_input = hash_input(raw, protocol, &shares, groups, report);
        let (Some(protocol), Some(port)) = (protocol, port) else {
            continue;
        };
        // Without a known version it is not known where it would answer.
        if versions != Versions::Unknown {
            let clash = taken.iter().find_map(|(other, other_port, others, line)| {
                let address = others.iter().find(|address| addresses.contains(address))?;
                (*other_port == port && other.overlaps(protocol))
                    .then_some((*other, *address, *line))
            });
            if let Some(at) = raw.port.value() {
                if let Some((protocol, address, line)) = clash {
                    let problem = Problem::ListenerTaken {
                        protocol,
                        address,
                        line,
                    };
                    report.fault(&at.spot, problem, Remedy::OtherPort);
                }
                taken.push((protocol, port, addresses.clone(), report.line(&at.spot)));
            }
        }
        balancer.listeners.push(Listener {
            name: format!("{}/{protocol}/{port}", balancer.name),
            protocol,
            port,
            addresses,
            forward: shares.into_iter().map(Named::into_share).collect(),
            hash_input,
            tcp_idle_timeout: seconds(raw.tcp_idle_timeout_seconds.copied()),
            udp_idle_timeout: seconds(raw.udp_idle_timeout_seconds.copied()),
        });
    }
    tell_apart(&mut balancer.listeners);
}

fn hash_input(
    raw: &RawListener,
    protocol: Option<Protocol>,
    shares: &[Named<'_>],
    groups: &[Group],
    report: &mut Report<'_>,
) -> HashInput {
    let mut groups = shares
        .iter()
        .filter_map(|share| groups.get(share.index?))
        .peekable();
    let is_sticky = groups.peek().is_some() && groups.all(|group| group.resolved.is_sticky);
    let with_sequence = raw
        .hash
        .value()
        .filter(|at| at.value == "five_tuple_and_sequence");
    if let (Some(at), Some(Protocol::Udp)) = (with_sequence, protocol) {
        report.fault(&at.spot, Problem::SequenceOfUdp, Remedy::Remove);
    }
    match with_sequence {
        _ if is_sticky => HashInput::Source,
        Some(_) => HashInput::FiveTupleAndSequence,
        None => HashInput::FiveTuple,
    }
}

fn check_timeouts(raw: &RawListener, protocol: Option<Protocol>, report: &mut Report<'_>) {
    let Some(protocol) = protocol else { return };
    for (field, means_something) in [
        (&raw.tcp_idle_timeout_seconds, protocol.has_tcp()),
        (&raw.udp_idle_timeout_seconds, protocol.has_udp()),
    ] {
        if let Some(At {
            spot,
            written: true,
            ..
        }) = field.value()
            && !means_something
        {
            report.fault(spot, Problem::TimeoutOfOther(protocol), Remedy::Remove);
        }
    }
}

/// Whether a group can serve a listener.
fn check_group(
    raw: &RawListener,
    at: &At<String>,
    listener: Option<Protocol>,
    listener_port: Option<u16>,
    group: &Group,
    report: &mut Report<'_>,
) {
    if let (Some(listener), Some(protocol)) = (listener, group.protocol)
        && !listener.may_use(protocol)
    {
        let fits = [Protocol::Tcp, Protocol::Udp, Protocol::TcpUdp]
            .into_iter()
            .filter(|&group| listener.may_use(group))
            .map(Protocol::word)
            .collect();
        let problem = Problem::ProtocolMismatch {
            listener,
            group: protocol,
        };
        report.fault(&at.spot, problem, Remedy::UseGroup(fits));
    }
    if let (Some(Mode::DsrL2), Some(listener_port)) = (group.mode, listener_port) {
        let listener = raw.protocol.value().map_or("", |at| at.value.as_str());
        for (port, spot) in &group.target_ports {
            if *port != listener_port {
                let listener = format!("{listener}/{listener_port}");
                let problem = Problem::DsrPort {
                    listener,
                    listener_port,
                };
                report.fault(spot, problem, Remedy::PortOrNat(listener_port));
            }
        }
    }
}

/// Adds the IP version to names that two listeners share, which only dualstack pairs may.
fn tell_apart(listeners: &mut [Listener]) {
    let mut uses: HashMap<String, usize> = HashMap::new();
    for listener in listeners.iter() {
        *uses.entry(listener.name.clone()).or_default() += 1;
    }
    for listener in listeners {
        if uses.get(&listener.name).is_some_and(|&uses| uses > 1)
            && let Some(&address) = listener.addresses.first()
        {
            let version = match IpVersion::of(address) {
                IpVersion::Ipv4 => "ipv4",
                IpVersion::Ipv6 => "ipv6",
            };
            listener.name = format!("{}/{version}", listener.name);
        }
    }
}

fn seconds(seconds: Option<u64>) -> Duration {
    Duration::from_secs(seconds.unwrap_or(0))
}
