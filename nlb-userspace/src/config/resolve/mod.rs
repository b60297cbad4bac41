//! From what is written to what is wanted: names become references, strings become addresses, and
//! the rules that need more than one key are checked.
//!
//! A value that was already found wrong takes part as "not known", so that one mistake is one
//! fault, and a placeholder stands for it in the result. [`super::parse`] hands the result out only
//! when nothing was found wrong, so no placeholder is ever seen.

mod access;
mod admission;
mod cookies;
mod forward;
mod health_check;
mod load_balancer;
mod name;
mod node;
mod pinning;
mod quic;
mod target_group;
mod tunnel;

use std::{collections::HashMap, net::IpAddr};

use super::{
    desired::{Capacity, Desired, LoadBalancer},
    error::{Problem, Remedy, Suspicion},
    raw::{RawFile, RawNode},
    reader::Field,
    report::{Report, Spot},
};

/// Which load balancer has an address, and the line where it says so.
type Vips = HashMap<IpAddr, (String, usize)>;

/// Resolves a file; wherever the report holds faults afterwards, the result is not to be used.
pub(super) fn resolve(raw: &RawFile, report: &mut Report<'_>) -> Desired {
    let (mut load_balancers, vips) = load_balancer::resolve(&raw.load_balancers, report);
    let node = node::resolve(raw.node.as_ref(), &vips, report);
    // A wrong address may be the one that is missed.
    let sources_known = raw
        .node
        .as_ref()
        .is_some_and(|raw| match &raw.snat_addresses {
            Field::Absent => true,
            Field::Wrong => false,
            Field::Value(at) => at.value.len() == node.snat_addresses.len(),
        });
    let sources = sources_known.then_some(node.snat_addresses.as_slice());
    let mut groups = target_group::resolve(
        &raw.target_groups,
        &vips,
        raw.node.as_ref(),
        sources,
        report,
    );
    let complete = raw.groups_complete;
    for (balancer, raw) in load_balancers.iter_mut().zip(&raw.load_balancers) {
        load_balancer::resolve_listeners(balancer, raw, &mut groups, complete, report);
    }
    for group in &groups {
        group.warn(report);
    }
    if load_balancers.is_empty() {
        let spot = Spot {
            span: 0..0,
            field: String::new(),
            shown: false,
        };
        report.warn(&spot, Suspicion::NoLoadBalancer);
    }
    if let Some(raw_node) = &raw.node {
        check_capacity(raw, raw_node, &node.capacity, &load_balancers, report);
    }
    Desired {
        node,
        load_balancers,
        access: access::resolve(&raw.roles, &raw.statements, report),
        target_groups: groups.into_iter().map(|group| group.resolved).collect(),
        warnings: Vec::new(),
    }
}

fn check_capacity(
    raw: &RawFile,
    node: &RawNode,
    capacity: &Capacity,
    load_balancers: &[LoadBalancer],
    report: &mut Report<'_>,
) {
    let entries = load_balancers
        .iter()
        .flat_map(|balancer| &balancer.listeners)
        .map(|listener| {
            let protocols =
                usize::from(listener.protocol.has_tcp()) + usize::from(listener.protocol.has_udp());
            listener.addresses.len() * protocols
        })
        .sum();
    // A listener that forwards to several groups has a ring of its own.
    let forwards = load_balancers
        .iter()
        .flat_map(|balancer| &balancer.listeners)
        .filter(|listener| listener.forward.len() > 1)
        .count();
    let targets = raw
        .target_groups
        .iter()
        .map(|group| group.targets.len())
        .sum();
    for (field, limit, needed, what) in [
        (&node.targets, capacity.targets, targets, "targets"),
        (
            &node.listeners,
            capacity.listeners,
            entries,
            "listener entries",
        ),
        (
            &node.target_groups,
            capacity.target_groups,
            raw.target_groups.len() + forwards,
            if forwards == 0 {
                "target groups"
            } else {
                "target groups and listeners with several"
            },
        ),
    ] {
        if let Field::Value(at) = field
            && u64::from(limit.get()) < u64::try_from(needed).unwrap_or(u64::MAX)
        {
            let problem = Problem::CapacityExceeded { needed, what };
            report.fault(&at.spot, problem, Remedy::AtLeast(needed));
        }
    }
}
