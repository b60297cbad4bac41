//! Who is who in the lab, as the examples of the documentation have it, too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Number of targets.
pub const TARGETS: usize = 3;

/// The client, on its own network.
pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
/// The client, on its own network.
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x10);
/// The gateway, seen by the client.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
/// The gateway, seen by the client.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1);

/// VIPs of the load balancer that translates.
pub const NAT_VIP_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// VIPs of the load balancer that translates.
pub const NAT_VIP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
/// VIPs of the load balancer whose targets answer directly.
pub const DSR_VIP_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 20);
/// VIPs of the load balancer whose targets answer directly.
pub const DSR_VIP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x20);

/// Port of the web listeners.
pub const HTTP_PORT: u16 = 80;
/// Port of the datagram listeners.
pub const UDP_PORT: u16 = 53;
/// Where targets behind `nat` serve the web.
pub const NAT_HTTP_PORT: u16 = 8080;
/// Where targets behind `nat` serve datagrams.
pub const NAT_UDP_PORT: u16 = 5353;

/// A target's IPv4 address.
pub fn target_v4(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 2, 0, host_part(index))
}

/// A target's IPv6 address.
pub fn target_v6(index: usize) -> Ipv6Addr {
    // Written alike in both: `.11` and `::11`.
    let digits = u16::from(host_part(index));
    Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, digits / 10 * 16 + digits % 10)
}

fn host_part(index: usize) -> u8 {
    10 + u8::try_from(index + 1).expect("the lab has three targets")
}

/// The client's address of the IP version of `peer`.
pub const fn client_for(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => IpAddr::V4(CLIENT_V4),
        IpAddr::V6(_) => IpAddr::V6(CLIENT_V6),
    }
}

/// Where a target serves datagrams: on its own addresses for `nat`, on the VIPs for `dsr-l2`.
pub fn udp_servers(index: usize) -> Vec<SocketAddr> {
    vec![
        (target_v4(index), NAT_UDP_PORT).into(),
        (target_v6(index), NAT_UDP_PORT).into(),
        (DSR_VIP_V4, UDP_PORT).into(),
        (DSR_VIP_V6, UDP_PORT).into(),
    ]
}
