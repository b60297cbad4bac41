//! The rules of tunnels: where outer packets come from, and what a group says of its own.

use std::{net::IpAddr, str::FromStr};

use nlb_common::wire::{geneve, gue};

use super::super::{
    desired::{IpVersion, Mode, TunnelOptions, TunnelSource, TunnelSources},
    error::{Problem, Remedy},
    raw::{RawNode, RawTargetGroup},
    reader::Field,
    report::{Report, Spot},
};

/// The sources that a node has.
pub(super) fn sources(raw: &RawNode, report: &mut Report<'_>) -> TunnelSources {
    TunnelSources {
        v4: source(&raw.tunnel_source_v4, IpVersion::Ipv4, 32, report),
        v6: source(&raw.tunnel_source_v6, IpVersion::Ipv6, 128, report),
    }
}

/// Prefixes of IPv6 that are shorter leave more bits than an interface identifier has.
const SHORTEST_V6: u8 = 64;
/// Shorter prefixes of IPv4 are whole networks of others.
const SHORTEST_V4: u8 = 8;

fn source<A: FromStr + Copy + Into<IpAddr>>(
    field: &Field<String>,
    version: IpVersion,
    bits: u8,
    report: &mut Report<'_>,
) -> Option<TunnelSource<A>> {
    let at = field.value()?;
    let example = match version {
        IpVersion::Ipv4 => "10.9.0.1",
        IpVersion::Ipv6 => "fd09::1",
    };
    let (address, length) = match at.value.split_once('/') {
        Some((address, length)) => (address, length.parse().ok()),
        None => (at.value.as_str(), Some(bits)),
    };
    let usable = |address: &A| {
        let address: IpAddr = (*address).into();
        !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
    };
    let (Some(address), Some(length)) = (address.parse::<A>().ok().filter(usable), length) else {
        report.fault(
            &at.spot,
            Problem::NotTunnelSource(version),
            Remedy::WriteTunnelSource(example),
        );
        return None;
    };
    let min = match version {
        IpVersion::Ipv4 => SHORTEST_V4,
        IpVersion::Ipv6 => SHORTEST_V6,
    };
    if !(min..=bits).contains(&length) {
        let problem = Problem::TunnelPrefix { min, max: bits };
        report.fault(&at.spot, problem, Remedy::WriteTunnelSource(example));
        return None;
    }
    Some(TunnelSource {
        address,
        host_bits: bits - length,
    })
}

/// Whether the node can send outer packets of the targets' version; a source that is wrong has been
/// recorded already.
pub(super) fn check_source(
    mode_spot: &Spot,
    mode: Mode,
    version: IpVersion,
    node: &RawNode,
    report: &mut Report<'_>,
) {
    let (field, key) = match version {
        IpVersion::Ipv4 => (&node.tunnel_source_v4, "tunnel.source_ipv4"),
        IpVersion::Ipv6 => (&node.tunnel_source_v6, "tunnel.source_ipv6"),
    };
    if mode.is_tunnel() && matches!(field, Field::Absent) {
        report.fault(
            mode_spot,
            Problem::NoTunnelSource(version),
            Remedy::NodeKey(key),
        );
    }
}

/// What a group says of its tunnel.
pub(super) fn options(
    raw: &RawTargetGroup,
    mode: Option<Mode>,
    report: &mut Report<'_>,
) -> TunnelOptions {
    let default_port = match mode {
        Some(Mode::DsrGue) => gue::PORT.get(),
        Some(Mode::DsrGeneve) => geneve::PORT.get(),
        _ => 0,
    };
    if let Some(mode) = mode {
        let has_port = default_port != 0;
        refuse(&raw.tunnel_entropy, mode.is_tunnel(), mode, report);
        refuse(&raw.tunnel_port, has_port, mode, report);
        refuse(&raw.tunnel_vni, mode == Mode::DsrGeneve, mode, report);
    }
    TunnelOptions {
        has_entropy: raw.tunnel_entropy.copied().unwrap_or(true),
        port: super::target_group::port(&raw.tunnel_port).unwrap_or(default_port),
        vni: raw
            .tunnel_vni
            .copied()
            .and_then(|vni| vni.try_into().ok())
            .unwrap_or(0),
    }
}

/// A key that was written where it means nothing.
fn refuse<T>(field: &Field<T>, means_something: bool, mode: Mode, report: &mut Report<'_>) {
    if let Some(at) = field.value()
        && at.written
        && !means_something
    {
        report.fault(&at.spot, Problem::TunnelOfOther(mode), Remedy::Remove);
    }
}
