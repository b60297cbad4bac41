//! The rules of who may begin flows: source rules of a load balancer, limits of a listener.

use super::{
    super::{
        desired::{FlowLimits, IpVersion, Listener, OverLimit, SourceRule},
        error::{Problem, Remedy},
        raw::{RawLimits, RawRule},
        reader::Field,
        report::{At, Report},
    },
    forward::Named,
    target_group::Group,
};
use crate::{
    decap::prefix::{NotAPrefix, Prefix},
    source_rules::Compiler,
};
use nlb_common::wire::protocol;

/// The rules of one load balancer.
pub(super) fn rules(raw: &[RawRule], report: &mut Report<'_>) -> Vec<SourceRule> {
    raw.iter().map(|raw| rule(raw, report)).collect()
}

fn rule(raw: &RawRule, report: &mut Report<'_>) -> SourceRule {
    let written = raw
        .sources
        .value()
        .map_or(&[][..], |at| at.value.as_slice());
    let port = |field: &Field<u64>| field.copied().and_then(|port| u16::try_from(port).ok());
    let (from, to) = (port(&raw.from_port), port(&raw.to_port));
    if let Field::Value(at) = &raw.to_port {
        if matches!(raw.from_port, Field::Absent) {
            report.fault(&at.spot, Problem::ToPortAlone, Remedy::AddFromPort);
        } else if let (Some(from), Some(to)) = (from, to)
            && to < from
        {
            report.fault(
                &at.spot,
                Problem::PortsBackwards { from },
                Remedy::AtLeast(from.into()),
            );
        }
    }
    SourceRule {
        allows: raw.action.value().is_some_and(|at| at.value == "allow"),
        sources: written.iter().filter_map(|at| prefix(at, report)).collect(),
        protocol: match raw.protocol.value().map(|at| at.value.as_str()) {
            Some("TCP") => Some(protocol::TCP),
            Some("UDP") => Some(protocol::UDP),
            _ => None,
        },
        ports: match (from, to) {
            (Some(from), to) => from..=to.unwrap_or(from),
            (None, _) => 1..=u16::MAX,
        },
    }
}

fn prefix(at: &At<String>, report: &mut Report<'_>) -> Option<Prefix> {
    let (problem, remedy) = match at.value.parse() {
        Ok(prefix) => return Some(prefix),
        Err(NotAPrefix::Address(_)) => (Problem::NotPrefix, Remedy::WritePrefix),
        Err(NotAPrefix::Length { most, .. }) => {
            (Problem::PrefixLength { most }, Remedy::WritePrefix)
        }
        Err(NotAPrefix::BitsBehind { meant, .. }) => {
            (Problem::PrefixBits, Remedy::Write(format!("\"{meant}\"")))
        }
    };
    report.fault(&at.spot, problem, remedy);
    None
}

/// Gives every listener of a load balancer what its rules say about it.
pub(super) fn compile(rules: &[SourceRule], listeners: &mut [Listener]) {
    let mut compiler = Compiler::new(rules);
    for listener in listeners {
        let protocols = [
            (protocol::TCP, listener.protocol.has_tcp()),
            (protocol::UDP, listener.protocol.has_udp()),
        ];
        for (protocol, _) in protocols.into_iter().filter(|(_, is_taken)| *is_taken) {
            for version in [IpVersion::Ipv4, IpVersion::Ipv6] {
                let rules = compiler.compile(protocol, listener.port, version);
                if let Some(rules) = rules {
                    listener.source_rules.push((protocol, version, rules));
                }
            }
        }
    }
}

/// The limits of a listener that forwards to these groups.
pub(super) fn limits(
    raw: &RawLimits,
    shares: &[Named<'_>],
    groups: &[Group],
    report: &mut Report<'_>,
) -> FlowLimits {
    let forwards = raw.over.value().filter(|at| at.value == "forward_unpinned");
    let translates = shares
        .iter()
        .filter_map(|share| groups.get(share.index?))
        .any(|group| group.mode.is_some_and(|mode| !mode.is_dsr()));
    if let Some(at) = forwards
        && translates
    {
        report.fault(&at.spot, Problem::UnpinnedNat, Remedy::DropOrDsr);
    }
    let number = |field: &Field<u64>| field.copied().and_then(|number| u32::try_from(number).ok());
    let length = |field: &Field<u64>, otherwise| {
        let length = field.copied().and_then(|length| u8::try_from(length).ok());
        length.unwrap_or(otherwise)
    };
    FlowLimits {
        new_flows_per_second: number(&raw.new_flows_per_second),
        active_flows: number(&raw.active_flows),
        source_new_flows_per_second: number(&raw.source_new_flows_per_second),
        source_active_flows: number(&raw.source_active_flows),
        source_prefix_ipv4: length(&raw.source_prefix_ipv4, 32),
        source_prefix_ipv6: length(&raw.source_prefix_ipv6, 64),
        over: if forwards.is_some() {
            OverLimit::ForwardUnpinned
        } else {
            OverLimit::Drop
        },
    }
}
