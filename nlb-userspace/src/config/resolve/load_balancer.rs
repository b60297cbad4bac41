//! The rules of load balancers, their addresses and their listeners.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use nlb_common::listener::HashInput;

use super::{
    super::{
        address,
        desired::{IpVersion, Listener, LoadBalancer, Mode, Protocol, StrandedAction},
        error::{Problem, Remedy, Suspicion},
        raw::{RawListener, RawLoadBalancer},
        reader::Field,
        report::{At, Report, Spot},
    },
    Vips, admission, cookies,
    forward::{self, Named},
    name::Names,
    pinning,
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
            icmp_echo: raw.icmp_echo.copied().unwrap_or(true),
            listeners: Vec::new(),
        });
    }
    (resolved, vips)
}

/// What listeners answer to, and the line that says so.
type Taken = (Protocol, u16, Vec<IpAddr>, usize);

/// Takes a port of these addresses for a listener; a fault if another one has it.
fn claim(
    taken: &mut Vec<Taken>,
    protocol: Protocol,
    port: u16,
    addresses: &[IpAddr],
    at: &At<u64>,
    report: &mut Report<'_>,
) {
    let clash = taken.iter().find_map(|(other, other_port, others, line)| {
        let address = others.iter().find(|address| addresses.contains(address))?;
        (*other_port == port && other.overlaps(protocol)).then_some((*other, *address, *line))
    });
    if let Some((protocol, address, line)) = clash {
        let problem = Problem::ListenerTaken {
            protocol,
            address,
            line,
        };
        report.fault(&at.spot, problem, Remedy::OtherPort);
    }
    taken.push((protocol, port, addresses.to_vec(), report.line(&at.spot)));
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
    let rules = admission::rules(&raw.rules, report);
    let mut taken = Vec::new();
    let mut on_change = Vec::new();
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
            // A tunnel takes a packet of either version to a target of either.
            let is_tunnel = group.mode.is_some_and(Mode::is_tunnel);
            if let Versions::One(version) = versions
                && !is_tunnel
            {
                addresses.retain(|&address| IpVersion::of(address) == version);
                if addresses.is_empty() && all_known {
                    let problem = Problem::NoAddressOfVersion { version };
                    report.fault(&at.spot, problem, Remedy::AddAddress);
                }
            }
        }
        let limits = admission::limits(&raw.limits, &shares, groups, report);
        let hash_input = hash_input(raw, protocol, &shares, groups, report);
        let modes = modes(&shares, groups);
        cookies::check(raw, &modes, report);
        pinning::check(raw, protocol, &modes, hash_input, &limits, report);
        let (Some(protocol), Some(port)) = (protocol, port) else {
            continue;
        };
        // Without a known version it is not known where it would answer.
        if versions != Versions::Unknown
            && let Some(at) = raw.port.value()
        {
            claim(&mut taken, protocol, port, &addresses, at, report);
        }
        // Where one group of several sees no answers, the listener keeps to what is right for it.
        let sees_answers = modes.iter().all(|mode| !mode.is_dsr());
        check_expiry(raw, &modes, report);
        let tcp_idle_timeout_action = idle_timeout_action(raw, sees_answers);
        on_change.extend(pinning::on_change(raw).map(|at| (balancer.listeners.len(), at)));
        balancer.listeners.push(Listener {
            name: format!("{}/{protocol}/{port}", balancer.name),
            protocol,
            port,
            addresses,
            forward: shares.into_iter().map(Named::into_share).collect(),
            hash_input,
            pins_on_change: pinning::on_change(raw).is_some(),
            tcp_idle_timeout: seconds(raw.tcp_idle_timeout_seconds.copied()),
            udp_idle_timeout: seconds(raw.udp_idle_timeout_seconds.copied()),
            source_rules: Vec::new(),
            limits,
            tcp_idle_timeout_action,
            tcp_stray_action: stray_action(raw, tcp_idle_timeout_action),
            tcp_mss_clamp_bytes: raw
                .tcp_mss_clamp_bytes
                .copied()
                .and_then(|bytes| bytes.try_into().ok()),
            tcp_syn_cookies: cookies::when(raw),
        });
    }
    admission::compile(&rules, &mut balancer.listeners);
    pinning::check_rules(&balancer.listeners, &on_change, report);
    tell_apart(&mut balancer.listeners);
}

/// The modes of a listener's groups, as far as they are known.
fn modes(shares: &[Named<'_>], groups: &[Group]) -> Vec<Mode> {
    let mode = |share: &Named<'_>| groups.get(share.index?)?.mode;
    shares.iter().filter_map(mode).collect()
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
    if let (Some(at), Some(protocol)) = (with_sequence, protocol)
        && !protocol.has_tcp()
    {
        report.fault(&at.spot, Problem::SequenceOfUdp(protocol), Remedy::Remove);
    }
    match with_sequence {
        _ if is_sticky => HashInput::Source,
        Some(_) => HashInput::FiveTupleAndSequence,
        None => HashInput::FiveTuple,
    }
}

/// What a listener does with segments of expired flows.
fn idle_timeout_action(raw: &RawListener, sees_answers: bool) -> StrandedAction {
    let written = raw.tcp_idle_timeout_action.value();
    match written.map(|at| at.value.as_str()) {
        Some("reset") => StrandedAction::Reset,
        Some("reset_at_expiry") => StrandedAction::ResetAtExpiry,
        Some("silent") => StrandedAction::Drop,
        Some("forward") => StrandedAction::Forward,
        _ if sees_answers => StrandedAction::Reset,
        _ => StrandedAction::Forward,
    }
}

/// Whether both ends of a flow can be told that its time has run out: not where targets answer past us.
fn check_expiry(raw: &RawListener, modes: &[Mode], report: &mut Report<'_>) {
    if let Some(at) = raw.tcp_idle_timeout_action.value()
        && at.value == "reset_at_expiry"
        && let Some(mode) = modes.iter().find(|mode| mode.is_dsr())
    {
        let problem = Problem::ResetAtExpiryOf(*mode);
        report.fault(&at.spot, problem, Remedy::OtherIdleAction);
    }
}

/// What a listener does with segments of unknown flows: an expired flow that was swept is one.
fn stray_action(raw: &RawListener, expired: StrandedAction) -> StrandedAction {
    let written = raw.tcp_stray_action.value();
    match written.map(|at| at.value.as_str()) {
        Some("reset") => StrandedAction::Reset,
        Some("drop") => StrandedAction::Drop,
        Some("forward") => StrandedAction::Forward,
        _ if expired == StrandedAction::ResetAtExpiry => StrandedAction::Reset,
        _ => expired,
    }
}

fn check_timeouts(raw: &RawListener, protocol: Option<Protocol>, report: &mut Report<'_>) {
    let Some(protocol) = protocol else { return };
    let (has_tcp, has_udp) = (protocol.has_tcp(), protocol.has_udp());
    for (spot, means_something) in [
        (spot_if_written(&raw.tcp_idle_timeout_seconds), has_tcp),
        (spot_if_written(&raw.tcp_idle_timeout_action), has_tcp),
        (spot_if_written(&raw.tcp_stray_action), has_tcp),
        (spot_if_written(&raw.tcp_mss_clamp_bytes), has_tcp),
        (spot_if_written(&raw.tcp_syn_cookies), has_tcp),
        (spot_if_written(&raw.udp_idle_timeout_seconds), has_udp),
    ] {
        if let Some(spot) = spot
            && !means_something
        {
            report.fault(spot, Problem::TimeoutOfOther(protocol), Remedy::Remove);
        }
    }
}

fn spot_if_written<T>(field: &Field<T>) -> Option<&Spot> {
    field.value().filter(|at| at.written).map(|at| &at.spot)
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
        let fits = [
            Protocol::Tcp,
            Protocol::Udp,
            Protocol::TcpUdp,
            Protocol::Quic,
            Protocol::TcpQuic,
        ]
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
    if let (Some(mode), Some(listener_port)) = (group.mode, listener_port)
        && mode.is_dsr()
    {
        let listener = raw.protocol.value().map_or("", |at| at.value.as_str());
        for (port, spot) in &group.target_ports {
            if *port != listener_port {
                let listener = format!("{listener}/{listener_port}");
                let problem = Problem::DsrPort {
                    mode,
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
