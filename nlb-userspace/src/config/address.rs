//! Reading addresses, with a message for each way of getting them wrong.

use std::net::{IpAddr, SocketAddr};

use super::{
    error::{AddressClass, Problem, Remedy},
    report::{At, Report},
};

/// The address of a VIP: one that clients can reach.
pub(super) fn vip(report: &mut Report<'_>, written: &At<String>) -> Option<IpAddr> {
    let address = read(report, written)?;
    // 169.254.0.0/16 and fe80::/10 mean another host on every link.
    let class =
        class(address).or_else(|| is_link_local(address).then_some(AddressClass::LinkLocal));
    refuse(report, written, address, class, Remedy::WriteVip)
}

/// The address of a target.
pub(super) fn target(report: &mut Report<'_>, written: &At<String>) -> Option<IpAddr> {
    let address = read(report, written)?;
    // An IPv6 link-local address says nothing without its interface; an IPv4 one can be routed to.
    let scoped = address.is_ipv6() && is_link_local(address);
    let class = class(address).or_else(|| scoped.then_some(AddressClass::LinkLocal));
    refuse(report, written, address, class, Remedy::WriteTarget)
}

/// An address of the pool: as a VIP, it must mean this host wherever a target is.
pub(super) fn source(report: &mut Report<'_>, written: &At<String>) -> Option<IpAddr> {
    let address = read(report, written)?;
    let class =
        class(address).or_else(|| is_link_local(address).then_some(AddressClass::LinkLocal));
    refuse(report, written, address, class, Remedy::WriteSource)
}

fn refuse(
    report: &mut Report<'_>,
    written: &At<String>,
    address: IpAddr,
    class: Option<AddressClass>,
    otherwise: Remedy,
) -> Option<IpAddr> {
    let Some(class) = class else {
        return Some(address);
    };
    let remedy = if class == AddressClass::V4Mapped {
        Remedy::WriteAs(address.to_canonical())
    } else {
        otherwise
    };
    report.fault(&written.spot, Problem::AddressClass(class), remedy);
    None
}

fn read(report: &mut Report<'_>, written: &At<String>) -> Option<IpAddr> {
    let text = written.value.as_str();
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (problem, remedy) = if let Some(address) = before(text, '%') {
        (Problem::AddressWithZone, Remedy::OnlyAddress(address))
    } else if let Some(address) = before(text, '/') {
        (Problem::AddressWithPrefix, Remedy::OnlyAddress(address))
    } else if let Ok(socket) = text.parse::<SocketAddr>() {
        (
            Problem::AddressWithPort,
            Remedy::PortApart(socket.ip().to_string()),
        )
    } else if is_host_name(text) {
        (Problem::HostName, Remedy::WriteAddress)
    } else {
        (Problem::NotAddress, Remedy::WriteAddress)
    };
    report.fault(&written.spot, problem, remedy);
    None
}

/// The address before a separator, if one stands there.
fn before(text: &str, separator: char) -> Option<String> {
    let (address, _) = text.split_once(separator)?;
    address
        .parse::<IpAddr>()
        .ok()
        .map(|address| address.to_string())
}

fn is_host_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.contains(|c: char| c.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.')
}

fn class(address: IpAddr) -> Option<AddressClass> {
    match address {
        IpAddr::V4(v4) => {
            if v4.octets()[0] == 0 {
                Some(AddressClass::Unspecified)
            } else if v4.is_loopback() {
                Some(AddressClass::Loopback)
            } else if v4.is_multicast() {
                Some(AddressClass::Multicast)
            } else {
                v4.is_broadcast().then_some(AddressClass::Broadcast)
            }
        }
        IpAddr::V6(v6) => {
            if v6.is_unspecified() {
                Some(AddressClass::Unspecified)
            } else if v6.is_loopback() {
                Some(AddressClass::Loopback)
            } else if v6.is_multicast() {
                Some(AddressClass::Multicast)
            } else {
                v6.to_ipv4_mapped().map(|_| AddressClass::V4Mapped)
            }
        }
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}
