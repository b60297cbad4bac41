//! The rules of target groups and their targets.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use nlb_common::quic::CidLayout;

use super::{
    super::{
        address,
        desired::{
            HealthCheckPort, HealthCheckProtocol, IpVersion, Minimum, Mode, Protocol, Target,
            TargetGroup,
        },
        error::{Problem, Remedy, Suspicion},
        raw::{RawMinimum, RawNode, RawTarget, RawTargetGroup},
        reader::{Field, WholeOrOff},
        report::{At, Report, Spot},
    },
    Vips, health_check,
    name::Names,
    quic, tunnel,
};

/// The IP version of a group's targets, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Versions {
    /// An address is wrong, or they differ; either has been recorded.
    Unknown,
    /// There is no target.
    None,
    /// All have this one.
    One(IpVersion),
}

/// A target group, and what only resolving needs to know of it.
#[derive(Debug)]
pub(super) struct Group {
    /// The group; placeholders stand where a fault was recorded.
    pub(super) resolved: TargetGroup,
    /// Its table, for warnings.
    spot: Spot,
    /// Its name, unless that is missing.
    pub(super) name: Option<String>,
    /// Its protocol, unless that is wrong.
    pub(super) protocol: Option<Protocol>,
    /// Its mode, unless that is wrong.
    pub(super) mode: Option<Mode>,
    /// See [`Versions`].
    pub(super) versions: Versions,
    /// For each distinct port that targets serve on, where it is written: at the target or at the
    /// group.
    pub(super) target_ports: Vec<(u16, Spot)>,
    /// Its targets' QUIC server IDs, and where they are written.
    pub(super) server_ids: Vec<(u64, Spot)>,
    /// The first load balancer that uses it, and the line of that use.
    pub(super) user: Option<(usize, String, usize)>,
    /// Whether a port was written for the health check.
    check_port_written: bool,
}

impl Group {
    /// Records what is legal but seldom meant.
    pub(super) fn warn(&self, report: &mut Report<'_>) {
        let group = &self.resolved;
        if self.user.is_none() {
            report.warn(&self.spot, Suspicion::UnusedGroup);
        } else if group.targets.is_empty() {
            report.warn(&self.spot, Suspicion::NoTarget);
        }
        if !group.targets.is_empty() && group.targets.iter().all(|target| target.weight == 0) {
            report.warn(&self.spot, Suspicion::AllWeightsZero);
        }
        let check = &group.health_check;
        if group.protocol.has_udp()
            && !group.protocol.has_tcp()
            && check.enabled
            && check.port == HealthCheckPort::TrafficPort
            && group
                .targets
                .iter()
                .any(|target| target.health_check_port.is_none())
            && matches!(
                check.protocol,
                HealthCheckProtocol::Tcp
                    | HealthCheckProtocol::Http { .. }
                    | HealthCheckProtocol::Grpc { .. }
            )
            && !self.check_port_written
            && !group.targets.is_empty()
        {
            report.warn(&self.spot, Suspicion::UdpCheckedByTcp);
        }
    }
}

pub(super) fn resolve(
    groups: &[RawTargetGroup],
    vips: &Vips,
    node: Option<&RawNode>,
    sources: Option<&[IpAddr]>,
    report: &mut Report<'_>,
) -> Vec<Group> {
    let mut names = Names::new("target group");
    groups
        .iter()
        .map(|raw| {
            if let Some(name) = raw.name.value() {
                names.check(name, report);
            }
            resolve_one(raw, vips, node, sources, report)
        })
        .collect()
}

fn resolve_one(
    raw: &RawTargetGroup,
    vips: &Vips,
    node: Option<&RawNode>,
    sources: Option<&[IpAddr]>,
    report: &mut Report<'_>,
) -> Group {
    let protocol = protocol(&raw.protocol);
    let mode = raw.mode.value().map(|at| match at.value.as_str() {
        "dsr-l2" => Mode::DsrL2,
        "full-nat" => Mode::FullNat,
        "dsr-ipip" => Mode::DsrIpip,
        "dsr-gue" => Mode::DsrGue,
        "dsr-geneve" => Mode::DsrGeneve,
        _ => Mode::Nat,
    });
    check_client_ip(raw, mode, report);
    health_check::check_mode(&raw.health_check, mode, report);
    let quic = quic::layout(raw, protocol, report);
    let targets = Targets::resolve(raw, vips, protocol, quic, report);
    if let (Some(at), Some(mode), Versions::One(version), Some(node)) =
        (raw.mode.value(), mode, targets.versions, node)
    {
        tunnel::check_source(&at.spot, mode, version, node, report);
    }
    check_sources(raw, mode, &targets, sources, report);
    let name = raw.name.value().map(|at| at.value.clone());
    let seconds = raw.deregistration_delay_seconds.copied().unwrap_or(0);
    let terminates_unhealthy = raw.terminates_unhealthy.copied().unwrap_or(true);
    let draining = raw.unhealthy_draining_seconds.copied().unwrap_or(0);
    if terminates_unhealthy
        && draining > 0
        && let Some(at) = raw.unhealthy_draining_seconds.value()
    {
        let key = "target_health_state.unhealthy.connection_termination.enabled = false";
        report.fault(
            &at.spot,
            Problem::DrainingOfTerminated,
            Remedy::Write(key.to_owned()),
        );
    }
    let unhealthy_state_routing = minimum(&raw.unhealthy_state_routing, None, report);
    let routing = Some(&raw.unhealthy_state_routing);
    let dns_failover = minimum(&raw.dns_failover, routing, report);
    Group {
        resolved: TargetGroup {
            name: name.clone().unwrap_or_default(),
            protocol: protocol.unwrap_or(Protocol::Tcp),
            port: port(&raw.port).unwrap_or(u16::MAX),
            mode: mode.unwrap_or(Mode::Nat),
            tunnel: tunnel::options(raw, mode, report),
            ip_version: match targets.versions {
                Versions::One(version) => Some(version),
                Versions::None | Versions::Unknown => None,
            },
            deregistration_delay: Duration::from_secs(seconds),
            terminates_deregistered: raw
                .terminates_deregistered
                .copied()
                .unwrap_or(protocol.is_some_and(Protocol::has_udp)),
            terminates_unhealthy,
            unhealthy_draining_interval: Duration::from_secs(draining),
            is_sticky: is_sticky(raw, protocol, report),
            slow_start: slow_start(&raw.slow_start_seconds, report),
            dns_failover,
            unhealthy_state_routing,
            health_check: health_check::resolve(&raw.health_check, report),
            quic: quic.filter(|_| protocol.is_some_and(Protocol::has_quic)),
            targets: targets.list,
        },
        spot: raw.spot.clone(),
        name,
        protocol,
        mode,
        versions: targets.versions,
        target_ports: targets.ports,
        server_ids: targets.server_ids,
        user: None,
        check_port_written: raw.health_check.port.value().is_some_and(|at| at.written),
    }
}

/// Whether targets see the client's address is the mode's to say.
fn check_client_ip(raw: &RawTargetGroup, mode: Option<Mode>, report: &mut Report<'_>) {
    let (Some(mode), Some(at)) = (mode, raw.preserve_client_ip.value()) else {
        return;
    };
    if mode != Mode::FullNat && !at.value {
        report.fault(&at.spot, Problem::NeedsFullNat, Remedy::FullNatOrRemove);
    }
    if mode == Mode::FullNat && at.value && at.written {
        report.fault(&at.spot, Problem::FullNatHidesClients, Remedy::Remove);
    }
}

fn check_sources(
    raw: &RawTargetGroup,
    mode: Option<Mode>,
    targets: &Targets,
    sources: Option<&[IpAddr]>,
    report: &mut Report<'_>,
) {
    let Some(sources) = sources else {
        return;
    };
    if let (Some(Mode::FullNat), Versions::One(version), Some(at)) =
        (mode, targets.versions, raw.mode.value())
        && !sources
            .iter()
            .any(|source| IpVersion::of(*source) == version)
    {
        let problem = Problem::NoSourceOfVersion { version };
        report.fault(&at.spot, problem, Remedy::AddSource);
    }
    for target in &raw.targets {
        if let Some(at) = target.address.value()
            && at
                .value
                .parse()
                .is_ok_and(|address| sources.contains(&address))
        {
            report.fault(&at.spot, Problem::TargetIsSource, Remedy::WriteTarget);
        }
    }
}

fn is_sticky(raw: &RawTargetGroup, protocol: Option<Protocol>, report: &mut Report<'_>) -> bool {
    let Some(At {
        value: true, spot, ..
    }) = raw.stickiness.value()
    else {
        return false;
    };
    if protocol.is_some_and(Protocol::has_quic) {
        report.fault(spot, Problem::StickyQuic, Remedy::Remove);
    }
    true
}

fn slow_start(field: &Field<u64>, report: &mut Report<'_>) -> Duration {
    let Some(at) = field.value() else {
        return Duration::ZERO;
    };
    if (1..30).contains(&at.value) {
        report.fault(&at.spot, Problem::SlowStartShort, Remedy::WriteSlowStart);
    }
    Duration::from_secs(at.value)
}

/// A threshold; where nothing is written it is that of `floor`, below which it may not be either.
fn minimum(raw: &RawMinimum, floor: Option<&RawMinimum>, report: &mut Report<'_>) -> Minimum {
    let mut number = |own: &Field<WholeOrOff>, floor: Option<&Field<WholeOrOff>>| {
        let floor = floor.and_then(|floor| floor.copied()?.number());
        let Some(at) = own.value() else {
            return floor;
        };
        let number = at.value.number();
        if let (Some(number), Some(floor)) = (number, floor)
            && number < floor
        {
            let problem = Problem::BelowRouting(floor);
            report.fault(&at.spot, problem, Remedy::AtLeastOrOff(floor));
        }
        number
    };
    let count = number(&raw.count, floor.map(|floor| &floor.count));
    let percentage = number(&raw.percentage, floor.map(|floor| &floor.percentage));
    Minimum {
        count: count.and_then(|count| count.try_into().ok()),
        percentage: percentage.and_then(|percentage| percentage.try_into().ok()),
    }
}

/// The targets of one group as they are read.
struct Targets {
    list: Vec<Target>,
    versions: Versions,
    ports: Vec<(u16, Spot)>,
    server_ids: Vec<(u64, Spot)>,
}

impl Targets {
    fn resolve(
        group: &RawTargetGroup,
        vips: &Vips,
        protocol: Option<Protocol>,
        layout: Option<CidLayout>,
        report: &mut Report<'_>,
    ) -> Self {
        let mut first: Option<(IpVersion, usize)> = None;
        let mut known = true;
        let mut lines: HashMap<(IpAddr, u16), usize> = HashMap::new();
        let mut this = Self {
            list: Vec::new(),
            versions: Versions::None,
            ports: Vec::new(),
            server_ids: Vec::new(),
        };
        for raw in &group.targets {
            let port = this.port(raw, group);
            let quic_server_id =
                quic::server_id(raw, protocol, layout, &mut this.server_ids, report);
            let Some(at) = raw.address.value() else {
                known = false;
                continue;
            };
            let Some(address) = address::target(report, at) else {
                known = false;
                continue;
            };
            let line = report.line(&at.spot);
            if let Some((owner, line)) = vips.get(&address) {
                let problem = Problem::TargetIsVip {
                    owner: owner.clone(),
                    line: *line,
                };
                report.fault(&at.spot, problem, Remedy::WriteTarget);
            }
            let found = IpVersion::of(address);
            let (wanted, first_line) = *first.get_or_insert((found, line));
            if found != wanted {
                known = false;
                let problem = Problem::MixedVersions {
                    found,
                    wanted,
                    line: first_line,
                };
                report.fault(&at.spot, problem, Remedy::GroupPerVersion);
            }
            if let Some(port) = port {
                if let Some(&line) = lines.get(&(address, port)) {
                    report.fault(
                        &at.spot,
                        Problem::TargetTwice { port, line },
                        Remedy::OtherTarget,
                    );
                } else {
                    lines.insert((address, port), line);
                }
            }
            this.list.push(Target {
                address,
                port: port.unwrap_or(u16::MAX),
                weight: raw
                    .weight
                    .copied()
                    .and_then(|weight| weight.try_into().ok())
                    .unwrap_or(1),
                quic_server_id,
                health_check_port: raw
                    .health_check_port
                    .copied()
                    .and_then(|port| port.try_into().ok()),
            });
        }
        this.versions = match first {
            _ if !known => Versions::Unknown,
            Some((version, _)) => Versions::One(version),
            None => Versions::None,
        };
        this
    }

    /// The port of a target, its own or the group's; remembers where it is written.
    fn port(&mut self, raw: &RawTarget, group: &RawTargetGroup) -> Option<u16> {
        let field = match &raw.port {
            Field::Absent => &group.port,
            own => own,
        };
        let number = port(field)?;
        let spot = &field.value()?.spot;
        if !self.ports.iter().any(|(_, seen)| seen.span == spot.span) {
            self.ports.push((number, spot.clone()));
        }
        Some(number)
    }
}

/// A protocol, unless it is wrong.
pub(super) fn protocol(field: &Field<String>) -> Option<Protocol> {
    field.value().map(|at| match at.value.as_str() {
        "UDP" => Protocol::Udp,
        "TCP_UDP" => Protocol::TcpUdp,
        "QUIC" => Protocol::Quic,
        "TCP_QUIC" => Protocol::TcpQuic,
        _ => Protocol::Tcp,
    })
}

/// A port, unless it is wrong.
pub(super) fn port(field: &Field<u64>) -> Option<u16> {
    field.copied().and_then(|port| port.try_into().ok())
}
