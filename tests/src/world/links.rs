//! Who is on the links: VLAN interfaces, neighbours, and what is behind routers.

use nlb_common::{
    next_hop::{MacPair, NextHop, NextHopId, VlanId},
    wire::ethernet::MacAddress,
};

use super::{
    CLIENT, CLIENT_V6, ETH0, ETH0_VLAN, ETH1, ETH1_VLAN, FAR_CLIENT, FAR_CLIENT_V6, MAC0, MAC1,
    MTU_BYTES, QUIET_CLIENT, UNKNOWN_CLIENT, VLAN_CLIENT,
};

/// A VLAN interface: `(name, index, index of the carrier, VLAN, addresses)`.
type VlanRow = (&'static str, u32, u32, u16, [&'static str; 2]);

/// All VLAN interfaces.
pub const VLANS: &[VlanRow] = &[
    (
        "eth0.200",
        ETH0_VLAN,
        ETH0,
        200,
        ["198.18.0.1/24", "2001:db8:e::1/64"],
    ),
    (
        "eth1.100",
        ETH1_VLAN,
        ETH1,
        100,
        ["10.1.0.1/24", "fd01::1/64"],
    ),
];
/// What becomes of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// To the kernel and to the daemon under this id.
    Both(u16),
    /// To the kernel only.
    Kernel,
    /// To nobody.
    Nobody,
}

/// An address on a link.
#[derive(Clone, Copy, Debug)]
pub struct Neighbour {
    /// Its address.
    pub address: &'static str,
    /// The last byte of its MAC address.
    pub mac: u8,
    /// Our interface to it.
    pub interface: u32,
    /// Who knows it.
    pub known: Known,
}

impl Neighbour {
    /// Its MAC address.
    pub const fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 1, self.mac]
    }

    /// The way to it.
    pub const fn next_hop(&self) -> NextHop {
        let (source, interface, vlan) = match self.interface {
            ETH0 => (MAC0, ETH0, 0),
            ETH0_VLAN => (MAC0, ETH0, 200),
            ETH1_VLAN => (MAC1, ETH1, 100),
            _ => (MAC1, ETH1, 0),
        };
        NextHop {
            macs: MacPair::new(MacAddress(self.mac()), MacAddress(source)),
            interface,
            mtu_bytes: MTU_BYTES,
            vlan: VlanId(vlan),
        }
    }
}

const fn neighbour(address: &'static str, mac: u8, interface: u32, known: Known) -> Neighbour {
    Neighbour {
        address,
        mac,
        interface,
        known,
    }
}

/// Everybody on the links.
pub const NEIGHBOURS: &[Neighbour] = &[
    neighbour(CLIENT, 7, ETH0, Known::Both(1)),
    neighbour(QUIET_CLIENT, 8, ETH0, Known::Kernel),
    neighbour(UNKNOWN_CLIENT, 77, ETH0, Known::Nobody),
    neighbour("198.51.100.254", 0xfe, ETH0, Known::Both(2)),
    neighbour("198.51.100.50", 50, ETH0, Known::Both(3)),
    neighbour(CLIENT_V6, 7, ETH0, Known::Both(4)),
    neighbour("2001:db8:c::fe", 0xfe, ETH0, Known::Both(5)),
    neighbour("10.0.0.11", 11, ETH1, Known::Both(11)),
    neighbour("10.0.0.12", 12, ETH1, Known::Both(12)),
    neighbour("10.0.0.13", 13, ETH1, Known::Both(13)),
    neighbour("fd00::11", 11, ETH1, Known::Both(14)),
    neighbour("fd00::12", 12, ETH1, Known::Both(15)),
    neighbour("fd00::13", 13, ETH1, Known::Both(16)),
    neighbour("10.0.0.21", 21, ETH1, Known::Both(21)),
    neighbour("10.0.0.22", 22, ETH1, Known::Both(22)),
    neighbour("fd00::21", 21, ETH1, Known::Both(23)),
    neighbour("fd00::22", 22, ETH1, Known::Both(24)),
    neighbour("10.0.0.41", 41, ETH1, Known::Both(25)),
    neighbour("10.0.0.99", 99, ETH1, Known::Nobody),
    neighbour("fd00::99", 99, ETH1, Known::Nobody),
    neighbour(VLAN_CLIENT, 0x70, ETH0_VLAN, Known::Both(50)),
    neighbour("10.1.0.11", 0x71, ETH1_VLAN, Known::Both(51)),
    neighbour("10.1.0.12", 0x72, ETH1_VLAN, Known::Kernel),
    neighbour("fd01::11", 0x71, ETH1_VLAN, Known::Both(52)),
    neighbour("10.1.0.21", 0x73, ETH1_VLAN, Known::Both(53)),
    neighbour("10.0.0.254", 0xfe, ETH1, Known::Both(26)),
    neighbour("fd00::fe", 0xfe, ETH1, Known::Both(27)),
];

/// Addresses behind a router: `(destination, router)`.
pub const FAR: &[(&str, &str)] = &[
    (FAR_CLIENT, "198.51.100.254"),
    (FAR_CLIENT_V6, "2001:db8:c::fe"),
    ("10.9.0.5", "10.0.0.254"),
    ("fd09::5", "fd00::fe"),
];

/// The id of the next hop to 10.0.0.41, whose link takes packets of this size only.
pub const SMALL_HOP: (NextHopId, u16) = (NextHopId(25), 600);
