//! The world that packet tests play in: two sides of a gateway, VIPs of every kind, and their
//! targets.
//!
//! ```text
//!  client 198.51.100.7 ─┐ eth0            eth1 ┌─ targets 10.0.0.11 … (nat), .21 … (dsr-l2)
//!                       │                       ├─ .21 … again (dsr-ipip, dsr-gue, dsr-geneve)
//!  router 198.51.100.254┤ .1   gateway    10.0.0.1 router 10.0.0.254 ─ 10.9.0.5
//!    └─ 203.0.113.9     ┘                       └─ the same in fd00::/64
//! ```
//!
//! [`tables`] describes it to the memory body; [`crate::kernel`] builds the interfaces,
//! neighbours and routes of the same lists in a network namespace.

use std::net::IpAddr;

use nlb_common::{
    address::Address,
    admission::{ALLOW, AdmissionPolicy, DENY, Source, Window},
    flow::Client,
    hash::{Key, Secret as _},
    listener::{HashInput, ListenerFlags, ListenerId, ListenerKey, ListenerPolicy},
    next_hop::{MacPair, NextHop, NextHopId, VlanId},
    quic::{CidLayout, ServerIdKey},
    ring::{SLOTS, slot},
    stop::Stop,
    target::{Mode, TargetControl, TargetId, TargetIdentity},
    tick::Tick,
    tunnel::Tunnel,
    wire::{
        ethernet::MacAddress,
        protocol::{TCP, UDP},
    },
};
use nlb_ebpf::{
    flows::Place,
    memory::MemoryTables,
    snat::allocate::{port, spread, turn},
    tables::Route,
};
use nlb_userspace::dataplane::sweep;
use zerocopy::big_endian::U16;

use crate::packet::{Sentence, eth};

/// The interface towards the clients.
pub const ETH0: u32 = 10;
/// The interface towards the targets.
pub const ETH1: u32 = 12;
/// A VLAN interface on [`ETH0`].
pub const ETH0_VLAN: u32 = 20;
/// A VLAN interface on [`ETH1`].
pub const ETH1_VLAN: u32 = 21;
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
/// Our MAC address on [`ETH0`].
pub const MAC0: [u8; 6] = [2, 0, 0, 0, 0, 0x10];
/// Our MAC address on [`ETH1`].
pub const MAC1: [u8; 6] = [2, 0, 0, 0, 0, 0x12];
/// Buckets of the flow table.
pub const BUCKETS: usize = 16;
/// MTU of both links, in bytes.
pub const MTU_BYTES: u16 = 1500;

/// A client on the link.
pub const CLIENT: &str = "198.51.100.7";
/// A client on the link that the daemon has no next hop for.
pub const QUIET_CLIENT: &str = "198.51.100.8";
/// A client behind a router.
pub const FAR_CLIENT: &str = "203.0.113.9";
/// A client on the link whose MAC address nobody knows.
pub const UNKNOWN_CLIENT: &str = "198.51.100.77";
/// A client on the link.
pub const CLIENT_V6: &str = "2001:db8:c::7";
/// A client behind a router.
pub const FAR_CLIENT_V6: &str = "2001:db8:f::9";
/// A client in the VLAN 200.
pub const VLAN_CLIENT: &str = "198.18.0.7";
/// The VIP of the translated listeners.
pub const VIP: &str = "192.0.2.10";
/// The VIP of the translated listeners.
pub const VIP_V6: &str = "2001:db8::10";
/// The VIP of the dsr-l2 listeners.
pub const DSR_VIP: &str = "192.0.2.20";
/// The VIP of the dsr-l2 listeners.
pub const DSR_VIP_V6: &str = "2001:db8::20";

/// The VIP of the tunnels' listeners, whose ports say which; see [`TUNNELS`].
pub const TUNNEL_VIP: &str = "192.0.2.30";
/// The same for IPv6 packets, with targets of either version.
pub const TUNNEL_VIP_V6: &str = "2001:db8::30";
/// The VIP of the listeners whose targets see an address of the pool.
pub const FULL_VIP: &str = "192.0.2.60";
/// The VIP of the listeners whose targets see an address of the pool.
pub const FULL_VIP_V6: &str = "2001:db8::60";
/// The pool.
pub const POOL: &[&str] = &["192.0.2.50", "192.0.2.51", "2001:db8::50"];

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

/// A target: `(id, address, port, next hop known to the daemon)`.
type TargetRow = (u32, &'static str, u16, bool);

/// A target group and its ring: the targets take turns.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// The id.
    pub id: u16,
    /// How packets reach the targets.
    pub mode: Mode,
    /// What its listeners speak.
    pub protocol: u8,
    /// The targets.
    pub targets: &'static [TargetRow],
}

const fn group(id: u16, mode: Mode, protocol: u8, targets: &'static [TargetRow]) -> Group {
    Group {
        id,
        mode,
        protocol,
        targets,
    }
}

const NAT: Mode = Mode::NAT;
const DSR: Mode = Mode::DSR_L2;
const IPIP: Mode = Mode::DSR_IPIP;
const GUE: Mode = Mode::DSR_GUE;
const GENEVE: Mode = Mode::DSR_GENEVE;
const V4A: &str = "10.0.0.21";
const V4B: &str = "10.0.0.22";
const V6A: &str = "fd00::21";
const V6B: &str = "fd00::22";
const FULL: Mode = Mode::FULL_NAT;

/// All target groups. 7 has a ring without targets, 8 has no ring, 15's ring names a target
/// without a record.
pub const GROUPS: &[Group] = &[
    group(
        1,
        NAT,
        TCP,
        &[
            (11, "10.0.0.11", 8080, true),
            (12, "10.0.0.12", 8080, true),
            (13, "10.0.0.13", 8080, true),
        ],
    ),
    group(
        2,
        NAT,
        UDP,
        &[(14, "10.0.0.11", 5353, true), (15, "10.0.0.12", 5353, true)],
    ),
    group(
        3,
        NAT,
        TCP,
        &[
            (16, "fd00::11", 8080, true),
            (17, "fd00::12", 8080, true),
            (18, "fd00::13", 8080, true),
        ],
    ),
    group(
        4,
        NAT,
        UDP,
        &[(19, "fd00::11", 5353, true), (20, "fd00::12", 5353, true)],
    ),
    group(
        5,
        DSR,
        TCP,
        &[(21, "10.0.0.21", 80, true), (22, "10.0.0.22", 80, true)],
    ),
    group(
        6,
        DSR,
        TCP,
        &[(23, "fd00::21", 80, true), (24, "fd00::22", 80, true)],
    ),
    group(7, NAT, TCP, &[]),
    group(9, NAT, TCP, &[(31, "10.0.0.99", 8080, false)]),
    group(10, NAT, TCP, &[(32, "10.77.0.1", 8080, false)]),
    group(11, DSR, TCP, &[(33, "10.9.0.5", 86, false)]),
    group(12, NAT, TCP, &[(34, "10.9.0.5", 8080, false)]),
    group(13, NAT, TCP, &[(35, "198.51.100.50", 8080, true)]),
    group(14, NAT, TCP, &[(36, "10.0.0.41", 8080, true)]),
    group(16, NAT, TCP, &[(39, "fd00::99", 8080, false)]),
    group(17, DSR, TCP, &[(38, "10.0.0.21", 92, false)]),
    group(40, NAT, TCP, &[(50, "10.1.0.11", 8080, true)]),
    group(41, NAT, TCP, &[(51, "10.1.0.12", 8080, false)]),
    group(42, NAT, UDP, &[(52, "fd01::11", 5353, true)]),
    group(43, DSR, TCP, &[(53, "10.1.0.21", 9003, true)]),
    group(
        54,
        NAT,
        UDP,
        &[
            (1, "10.0.0.11", 4443, true),
            (2, "10.0.0.12", 4443, true),
            (3, "10.0.0.13", 4443, true),
        ],
    ),
    group(
        55,
        NAT,
        UDP,
        &[(4, "fd00::11", 4443, true), (5, "fd00::12", 4443, true)],
    ),
    group(
        56,
        DSR,
        UDP,
        &[(6, "10.0.0.21", 4433, true), (7, "10.0.0.22", 4433, true)],
    ),
    group(
        57,
        DSR,
        UDP,
        &[(8, "fd00::21", 4433, true), (9, "fd00::22", 4433, true)],
    ),
    group(
        58,
        NAT,
        UDP,
        &[(10, "10.0.0.11", 4444, true), (59, "10.0.0.12", 4444, true)],
    ),
    group(18, NAT, TCP, &[(37, "fd09::5", 8080, false)]),
    group(
        19,
        NAT,
        TCP,
        &[
            (41, "10.0.0.11", 8090, true),
            (42, "10.0.0.12", 8090, true),
            (43, "10.0.0.13", 8090, true),
        ],
    ),
    group(
        20,
        NAT,
        TCP,
        &[(44, "fd00::11", 8090, true), (45, "fd00::12", 8090, true)],
    ),
    group(64, IPIP, TCP, &[(64, V4A, 1, true), (65, V4B, 1, true)]),
    group(65, IPIP, TCP, &[(66, V6A, 2, true), (67, V6B, 2, true)]),
    group(66, GUE, TCP, &[(68, V4A, 3, true), (69, V4B, 3, true)]),
    group(67, GUE, TCP, &[(70, V6A, 4, true), (71, V6B, 4, true)]),
    group(68, GENEVE, TCP, &[(72, V4A, 5, true), (73, V4B, 5, true)]),
    group(69, GENEVE, TCP, &[(74, V6A, 6, true), (75, V6B, 6, true)]),
    group(70, IPIP, TCP, &[(76, V4A, 7, true)]),
    group(71, IPIP, TCP, &[(77, V6A, 8, true)]),
    group(72, GUE, TCP, &[(78, V4A, 9, true)]),
    group(73, GUE, TCP, &[(79, V6A, 10, true)]),
    group(74, IPIP, TCP, &[(80, "10.9.0.5", 11, false)]),
    group(75, IPIP, TCP, &[(81, "10.0.0.99", 12, false)]),
    group(76, GUE, TCP, &[(82, "10.0.0.41", 13, true)]),
    group(77, IPIP, TCP, &[(83, V4A, 14, true)]),
    group(78, GENEVE, TCP, &[(84, "fd09::5", 15, false)]),
    group(79, IPIP, TCP, &[(85, "10.77.0.1", 16, false)]),
    group(
        30,
        FULL,
        TCP,
        &[(46, "10.0.0.11", 8080, true), (47, "10.0.0.12", 8080, true)],
    ),
    group(31, FULL, UDP, &[(48, "10.0.0.11", 5353, true)]),
    group(32, FULL, TCP, &[(49, "fd00::11", 8080, true)]),
    group(33, FULL, UDP, &[(56, "fd09::5", 5353, false)]),
];

/// The tunnels of those groups that have one: `(group, source for IPv4, bits of it for the flow's
/// hash, source for IPv6, bits, entropy)`. Group 77 should have one.
pub const TUNNELS: &[(u16, &str, u32, &str, u32, bool)] = &[
    (64, "10.0.0.1", 0, "fd00::1", 0, true),
    (65, "10.0.0.1", 0, "fd00::1", 0, true),
    (66, "10.0.0.1", 0, "fd00::1", 0, true),
    (67, "10.0.0.1", 0, "fd00::1", 0, true),
    (68, "10.0.0.1", 0, "fd00::1", 0, true),
    (69, "10.0.0.1", 0, "fd00::1", 0, true),
    (70, "10.200.0.0", 12, "fd00::1", 0, true),
    (71, "10.0.0.1", 0, "fd00:200::", 64, true),
    (72, "10.0.0.1", 0, "fd00::1", 0, false),
    (73, "10.0.0.1", 0, "fd00::1", 0, false),
    (74, "10.0.0.1", 0, "fd00::1", 0, true),
    (75, "10.0.0.1", 0, "fd00::1", 0, true),
    (76, "10.0.0.1", 0, "fd00::1", 0, true),
    (78, "10.0.0.1", 0, "fd00::1", 0, true),
    (79, "10.0.0.1", 0, "fd00::1", 0, true),
];

/// Geneve's virtual network identifier in this world.
pub const NETWORK: [u8; 3] = [0x0a, 0x0b, 0x0c];

/// The group whose ring names [`UNWRITTEN_TARGET`].
pub const UNWRITTEN_GROUP: u16 = 15;
/// A target id without a record.
pub const UNWRITTEN_TARGET: u32 = 60;
/// A listener id that the index names and that has no record.
pub const UNWRITTEN_LISTENER: ListenerId = ListenerId(40);

/// All listeners: `(id, VIP, protocol, port, target group)`.
pub const LISTENERS: &[(u16, &str, u8, u16, u16)] = &[
    (1, VIP, TCP, 80, 1),
    (2, VIP, UDP, 53, 2),
    (3, VIP_V6, TCP, 80, 3),
    (4, VIP_V6, UDP, 53, 4),
    (5, DSR_VIP, TCP, 80, 5),
    (6, DSR_VIP, UDP, 53, 5),
    (7, DSR_VIP_V6, TCP, 80, 6),
    (8, DSR_VIP_V6, UDP, 53, 6),
    (9, VIP, TCP, 81, 7),
    (10, VIP, TCP, 82, 8),
    (11, VIP, TCP, 84, 9),
    (12, VIP, TCP, 85, 10),
    (13, DSR_VIP, TCP, 86, 11),
    (14, VIP, TCP, 87, 12),
    (15, VIP, TCP, 88, 13),
    (16, VIP, TCP, 89, 14),
    (17, VIP, TCP, 90, UNWRITTEN_GROUP),
    (19, VIP_V6, TCP, 84, 16),
    (20, DSR_VIP, TCP, 92, 17),
    (21, VIP_V6, TCP, 87, 18),
    (50, VIP, TCP, 9000, 40),
    (51, VIP, TCP, 9001, 41),
    (52, VIP_V6, UDP, 9002, 42),
    (53, DSR_VIP, TCP, 9003, 43),
    (54, VIP, UDP, 4433, 54),
    (55, VIP_V6, UDP, 4433, 55),
    (56, DSR_VIP, UDP, 4433, 56),
    (57, DSR_VIP_V6, UDP, 4433, 57),
    (58, VIP, UDP, 4434, 58),
    (22, VIP, TCP, 93, 19),
    (23, VIP, TCP, 94, 19),
    (24, VIP, UDP, 93, 19),
    (25, VIP, TCP, 95, 19),
    (26, VIP_V6, TCP, 93, 20),
    (27, VIP_V6, TCP, 95, 20),
    (64, TUNNEL_VIP, TCP, 1, 64),
    (65, TUNNEL_VIP, UDP, 1, 64),
    (66, TUNNEL_VIP_V6, TCP, 1, 64),
    (67, TUNNEL_VIP_V6, UDP, 1, 64),
    (68, TUNNEL_VIP, TCP, 2, 65),
    (69, TUNNEL_VIP, UDP, 2, 65),
    (70, TUNNEL_VIP_V6, TCP, 2, 65),
    (71, TUNNEL_VIP_V6, UDP, 2, 65),
    (72, TUNNEL_VIP, TCP, 3, 66),
    (73, TUNNEL_VIP, UDP, 3, 66),
    (74, TUNNEL_VIP_V6, TCP, 3, 66),
    (75, TUNNEL_VIP_V6, UDP, 3, 66),
    (76, TUNNEL_VIP, TCP, 4, 67),
    (77, TUNNEL_VIP, UDP, 4, 67),
    (78, TUNNEL_VIP_V6, TCP, 4, 67),
    (79, TUNNEL_VIP_V6, UDP, 4, 67),
    (80, TUNNEL_VIP, TCP, 5, 68),
    (81, TUNNEL_VIP, UDP, 5, 68),
    (82, TUNNEL_VIP_V6, TCP, 5, 68),
    (83, TUNNEL_VIP_V6, UDP, 5, 68),
    (84, TUNNEL_VIP, TCP, 6, 69),
    (85, TUNNEL_VIP, UDP, 6, 69),
    (86, TUNNEL_VIP_V6, TCP, 6, 69),
    (87, TUNNEL_VIP_V6, UDP, 6, 69),
    (88, TUNNEL_VIP, TCP, 7, 70),
    (89, TUNNEL_VIP, TCP, 8, 71),
    (90, TUNNEL_VIP, TCP, 9, 72),
    (91, TUNNEL_VIP, TCP, 10, 73),
    (92, TUNNEL_VIP, TCP, 11, 74),
    (93, TUNNEL_VIP, TCP, 12, 75),
    (94, TUNNEL_VIP, TCP, 13, 76),
    (95, TUNNEL_VIP, TCP, 14, 77),
    (96, TUNNEL_VIP, TCP, 15, 78),
    (97, TUNNEL_VIP, TCP, 16, 79),
    (106, VIP, TCP, 9100, 1),
    (107, VIP_V6, TCP, 9100, 3),
    (59, VIP, UDP, 9100, 2),
    (60, DSR_VIP, TCP, 9101, 5),
    (61, VIP, TCP, 9102, 1),
    (62, VIP_V6, TCP, 9103, 3),
    (63, DSR_VIP, TCP, 9104, 5),
    (98, DSR_VIP_V6, TCP, 9104, 6),
    (99, TUNNEL_VIP, TCP, 9104, 66),
    (100, TUNNEL_VIP_V6, TCP, 9104, 66),
    (101, TUNNEL_VIP, TCP, 9105, 66),
    (102, DSR_VIP_V6, TCP, 9105, 6),
    (103, VIP, TCP, 9105, 1),
    (104, DSR_VIP, TCP, 9105, 5),
    (105, TUNNEL_VIP_V6, TCP, 9105, 66),
    (28, FULL_VIP, TCP, 80, 30),
    (29, FULL_VIP, UDP, 53, 31),
    (30, FULL_VIP_V6, TCP, 80, 32),
    (31, FULL_VIP_V6, UDP, 53, 33),
    // As listener 1, so that a client's port may have two flows to one target.
    (32, VIP, TCP, 97, 1),
];

/// Listeners that do not hash the five-tuple.
pub const HASH_INPUTS: &[(u16, HashInput)] = &[
    (22, HashInput::Source),
    (23, HashInput::Source),
    (24, HashInput::Source),
    (25, HashInput::FiveTupleAndSequence),
    (26, HashInput::Source),
    (27, HashInput::FiveTupleAndSequence),
];

/// QUIC listeners, and how they read connection IDs.
pub const QUIC: &[(u16, CidLayout)] = &[
    (54, CidLayout::NLB),
    (55, CidLayout::NLB),
    (56, CidLayout::NLB),
    (57, CidLayout::NLB),
    (
        58,
        CidLayout {
            id_bytes: 12,
            server_id_offset_bytes: 2,
            server_id_bytes: 5,
        },
    ),
];

/// QUIC servers: `(target group, number, target)`. One of each group has the number that a payload
/// of [`FILLER`] bytes names.
pub const SERVERS: &[(u16, u64, u32)] = &[
    (54, 0xa1, 1),
    (54, 0xffff_ffff_ffff_ff03, 2),
    (54, 0x5a5a_5a5a_5a5a_5a5a, 3),
    (55, 0xa1, 4),
    (55, 0x5a5a_5a5a_5a5a_5a5a, 5),
    (56, 0xa1, 6),
    (56, 0x5a5a_5a5a_5a5a_5a5a, 7),
    (57, 0xa1, 8),
    (57, 0x5a5a_5a5a_5a5a_5a5a, 9),
    (58, 0x12_3456_78ff, 10),
    (58, 0x5a_5a5a_5a5a, 59),
];

/// The byte that the oracle's payloads are made of; as a QUIC packet's first, of a short header.
pub const FILLER: u8 = 0x5a;

/// A source rule: `(prefix, bits of it that count, allows)`.
pub type RuleRow = (&'static str, u8, bool);

/// Listeners with source rules.
pub const RULES: &[(u16, &[RuleRow])] = &[
    (
        106,
        &[
            ("::", 0, false),
            ("198.51.100.0", 96 + 24, true),
            (QUIET_CLIENT, 128, false),
        ],
    ),
    (107, &[("::", 0, true), ("2001:db8:f::", 48, false)]),
    (
        59,
        &[
            ("::", 0, true),
            ("198.51.0.0", 96 + 16, false),
            (QUIET_CLIENT, 128, true),
        ],
    ),
    (63, &[("::", 0, true), (FAR_CLIENT, 128, false)]),
    (98, &[("::", 0, false), ("2001:db8:c::", 48, true)]),
    (99, &[("::", 0, false), ("198.51.100.0", 96 + 24, true)]),
    (100, &[("::", 0, true), ("2001:db8:f::", 48, false)]),
];

/// Listeners with limits.
pub const LIMITS: &[(u16, AdmissionPolicy)] = &[
    (
        60,
        AdmissionPolicy {
            has_rules: false,
            forwards_unpinned: true,
            source_bits: 128,
            flows_per_tick: 3,
            source_flows_per_tick: 0,
            active_flows: 0,
            source_active_flows: 0,
        },
    ),
    (
        61,
        AdmissionPolicy {
            has_rules: false,
            forwards_unpinned: false,
            source_bits: 96 + 24,
            flows_per_tick: 4,
            source_flows_per_tick: 2,
            active_flows: 0,
            source_active_flows: 0,
        },
    ),
    (
        62,
        AdmissionPolicy {
            has_rules: false,
            forwards_unpinned: false,
            source_bits: 64,
            flows_per_tick: 0,
            source_flows_per_tick: 3,
            active_flows: 5,
            source_active_flows: 0,
        },
    ),
    (
        101,
        AdmissionPolicy {
            has_rules: false,
            forwards_unpinned: true,
            source_bits: 128,
            flows_per_tick: 3,
            source_flows_per_tick: 0,
            active_flows: 0,
            source_active_flows: 0,
        },
    ),
    (
        102,
        AdmissionPolicy {
            has_rules: false,
            forwards_unpinned: true,
            source_bits: 128,
            flows_per_tick: 0,
            source_flows_per_tick: 0,
            active_flows: 3,
            source_active_flows: 0,
        },
    ),
    (
        103,
        AdmissionPolicy {
            has_rules: false,
            forwards_unpinned: false,
            source_bits: 96 + 24,
            flows_per_tick: 0,
            source_flows_per_tick: 0,
            active_flows: 5,
            source_active_flows: 2,
        },
    ),
    (
        104,
        AdmissionPolicy {
            has_rules: false,
            forwards_unpinned: true,
            source_bits: 128,
            flows_per_tick: 0,
            source_flows_per_tick: 3,
            active_flows: 0,
            source_active_flows: 2,
        },
    ),
    (
        105,
        AdmissionPolicy {
            has_rules: false,
            forwards_unpinned: false,
            source_bits: 64,
            flows_per_tick: 0,
            source_flows_per_tick: 0,
            active_flows: 0,
            source_active_flows: 2,
        },
    ),
];

/// The rules of [`RULES`] as the tables hold them.
pub fn rules(rows: &[RuleRow]) -> Vec<(Address, u8, u32)> {
    let rule = |(prefix, bits, allows): &RuleRow| {
        (address(prefix), *bits, if *allows { ALLOW } else { DENY })
    };
    rows.iter().map(rule).collect()
}

/// Stops the clock of all limits for some seconds, and says how many flows have begun: at each
/// listener, and of each of these clients there.
///
/// No test depends on when a tick ends: a window that seems to be another processor's, a little ahead
/// of us, is the present one.
pub fn set_windows(tables: &MemoryTables, clients: &[&str], mut flows: impl FnMut() -> u32) {
    let tick = Tick(tables.now.get().wrapping_add(AHEAD_TICKS));
    for (id, policy) in LIMITS {
        let listener = ListenerId(*id);
        let record = &tables.admissions[usize::from(*id)];
        let mut word = || {
            let flows = flows();
            Window { tick, flows }.to_word()
        };
        record.window.store(word());
        for client in clients {
            let source = Source::of(listener, address(client), policy.source_bits);
            let mut sources = tables.admission_sources.borrow_mut();
            sources.entry(source).or_default().window.store(word());
        }
    }
}

/// What the daemon does every few seconds: looks which flows are left, and settles what is counted
/// against limits.
pub fn sweep(tables: &MemoryTables) {
    let found = sweep::sweep(
        tables
            .buckets
            .iter()
            .zip(&tables.translations)
            .flat_map(|(bucket, beside)| bucket.entries.iter().zip(&beside.entries)),
        &sweep::Records {
            listeners: &tables.listeners,
            admissions: &tables.admissions,
            targets: &tables.targets,
            pool: Some(&tables.pool),
        },
        Tick(tables.now.get()),
    );
    for (source, record) in tables.admission_sources.borrow().iter() {
        let flows = found.by_source.get(source).copied();
        record.active.store(flows.unwrap_or(0));
    }
}

/// Whether a listener has source rules or limits.
pub fn asks_who_comes(listener: u16) -> bool {
    RULES.iter().any(|(id, _)| *id == listener) || LIMITS.iter().any(|(id, _)| *id == listener)
}

/// Gives listeners the rules of [`RULES`] and the limits of [`LIMITS`].
fn ask_who_comes(tables: &mut MemoryTables) {
    for (id, rows) in RULES {
        tables.rules.insert(ListenerId(*id), rules(rows));
        let policy = AdmissionPolicy {
            has_rules: true,
            ..AdmissionPolicy::default()
        };
        tables.set_admission(ListenerId(*id), &policy);
    }
    for (id, policy) in LIMITS {
        tables.set_admission(ListenerId(*id), policy);
    }
}

/// How far ahead [`set_windows`] is.
const AHEAD_TICKS: u16 = 7;

/// The sequence number of a [`Sentence`] that names none.
pub const SEQUENCE: u32 = 0x0102_0304;

/// The port of [`VIP`] whose listener has no record.
pub const UNWRITTEN_LISTENER_PORT: u16 = 91;

/// Silence that an established TCP flow survives.
pub const TCP_IDLE_TICKS: u16 = Tick::at_least_seconds(350);
/// Silence that an established UDP flow survives.
pub const UDP_IDLE_TICKS: u16 = Tick::at_least_seconds(120);

/// An address, from its text.
pub fn address(text: &str) -> Address {
    Address::from(text.parse::<IpAddr>().expect("an IP address"))
}

/// A ring on which these targets take turns.
pub fn ring(targets: &[u32]) -> Vec<u32> {
    let turn = if targets.is_empty() { &[0] } else { targets };
    let mut slots = turn.repeat(SLOTS.div_ceil(turn.len()));
    slots.truncate(SLOTS);
    slots
}

/// The neighbour with this address.
pub fn neighbour_of(text: &str) -> &'static Neighbour {
    NEIGHBOURS
        .iter()
        .find(|neighbour| neighbour.address == text)
        .expect("a neighbour of the world")
}

/// The world as the memory body sees it.
pub fn tables() -> MemoryTables {
    tables_with(BUCKETS)
}

/// The same with a flow table of another size.
pub fn tables_with(buckets: usize) -> MemoryTables {
    let secret = [0xa5; 32];
    let mut tables = MemoryTables::new(Key::derive(&secret, 1), Key::derive(&secret, 2), buckets);
    for neighbour in NEIGHBOURS {
        let route = Route {
            next_hop: neighbour.next_hop(),
            neighbour: address(neighbour.address),
            interface: neighbour.interface,
        };
        let answer = if neighbour.known == Known::Nobody {
            Err(Stop::NeighbourUnknown)
        } else {
            Ok(route)
        };
        tables.routes.insert(route.neighbour, answer);
        if let Known::Both(id) = neighbour.known {
            tables.add_next_hop(
                NextHopId(id),
                route.interface,
                route.neighbour,
                &route.next_hop,
            );
        }
    }
    for (far, router) in FAR {
        let answer = tables.routes[&address(router)];
        tables.routes.insert(address(far), answer);
    }
    tables.next_hops[usize::from(SMALL_HOP.0.0)].write(&NextHop {
        mtu_bytes: SMALL_HOP.1,
        ..neighbour_of("10.0.0.41").next_hop()
    });
    for group in GROUPS {
        for &(id, at, port, is_known) in group.targets {
            let known = NEIGHBOURS.iter().find(|neighbour| neighbour.address == at);
            let next_hop = match known.map(|neighbour| neighbour.known) {
                Some(Known::Both(id)) if is_known => NextHopId(id),
                _ => NextHopId::NONE,
            };
            let identity = TargetIdentity {
                address: address(at),
                port: U16::new(port),
                group: group.id,
                group_fingerprint: 0xfeed_0000 | u32::from(group.id),
            };
            let mode = group.mode;
            let control = TargetControl {
                mode,
                takes_new_flows: true,
                resets_flows: false,
                next_hop,
            };
            tables.add_target(TargetId(id), &identity, control, group.protocol);
        }
        let ids: Vec<u32> = group.targets.iter().map(|target| target.0).collect();
        tables.set_ring(group.id, &ring(&ids));
    }
    tables.set_ring(UNWRITTEN_GROUP, &ring(&[UNWRITTEN_TARGET]));
    for &(group, ..) in TUNNELS {
        tables.tunnels[usize::from(group)].write(&tunnel(group));
    }
    for &(id, vip, protocol, port, group) in LISTENERS {
        let key = ListenerKey::new(address(vip), protocol, U16::new(port));
        let idle_ticks = if protocol == TCP {
            TCP_IDLE_TICKS
        } else {
            UDP_IDLE_TICKS
        };
        let input = HASH_INPUTS.iter().find(|(other, _)| *other == id);
        let input = input.map_or(HashInput::FiveTuple, |(_, input)| *input);
        let quic = QUIC.iter().find(|(other, _)| *other == id);
        let policy = ListenerPolicy {
            group,
            idle_ticks,
            flags: ListenerFlags::default()
                .with_hash_input(input)
                .with_quic(quic.is_some()),
            ..ListenerPolicy::default()
        };
        if let Some((_, layout)) = quic {
            tables.listeners[usize::from(id)].set_cid_layout(*layout);
        }
        tables.add_listener(ListenerId(id), key, policy);
    }
    for &(group, number, target) in SERVERS {
        let key = ServerIdKey::new(group, number);
        tables.server_ids.insert(key, TargetId(target));
    }
    ask_who_comes(&mut tables);
    let orphan = ListenerKey::new(address(VIP), TCP, U16::new(UNWRITTEN_LISTENER_PORT));
    tables.listener_index.insert(orphan, UNWRITTEN_LISTENER);
    tables.admit(
        nlb_common::maps::Side::Listener,
        orphan.address,
        orphan.protocol,
        orphan.port,
    );
    let pool: Vec<Address> = POOL.iter().map(|text| address(text)).collect();
    tables.set_pool(&pool);
    tables.now.set(1000);
    tables
}

/// The tunnel of a group that has one.
pub fn tunnel(group: u16) -> Tunnel {
    let &(_, v4, bits_v4, v6, bits_v6, has_entropy) = TUNNELS
        .iter()
        .find(|tunnel| tunnel.0 == group)
        .expect("a group with a tunnel");
    let mode = GROUPS.iter().find(|other| other.id == group);
    let is_gue = mode.is_some_and(|group| group.mode == Mode::DSR_GUE);
    let ones = |bits: u32| u64::MAX.checked_shr(64 - bits).unwrap_or(0).to_be_bytes();
    let [.., a, b, c, d] = ones(bits_v4);
    Tunnel {
        source_v4: address(v4),
        source_v6: address(v6),
        spread_v4: [a, b, c, d],
        spread_v6: ones(bits_v6),
        port: U16::new(if is_gue { 6080 } else { 6081 }),
        network: NETWORK,
        has_entropy,
    }
}

/// The pool's (address, port) that a client's flow tries at first, or after so many attempts.
pub fn source_of(
    tables: &MemoryTables,
    client: (&str, u16),
    protocol: u8,
    attempt: u64,
) -> (&'static str, u16) {
    let client = Client {
        address: address(client.0),
        port: U16::new(client.1),
        protocol,
    };
    let spread = spread(Place::of(tables, &client), attempt);
    let id = turn(&tables.pool, client.address.is_v4(), spread).expect("a pool");
    (POOL[usize::from(id.0) - 1], port(spread).get())
}

/// The id of the target that a flow takes when it begins, as the documentation has it: the keyed
/// hash of what the listener looks at, scaled to the ring. A TCP flow begins with a SYN whose
/// sequence number is [`SEQUENCE`].
pub fn chosen(
    tables: &MemoryTables,
    client: (&str, u16),
    vip: (&str, u16),
    protocol: u8,
) -> Option<u32> {
    chosen_by(tables, client, vip, protocol, SEQUENCE)
}

/// The same for another sequence number; 0 for a flow that does not begin with a SYN.
pub fn chosen_by(
    tables: &MemoryTables,
    client: (&str, u16),
    vip: (&str, u16),
    protocol: u8,
    sequence: u32,
) -> Option<u32> {
    let key = ListenerKey::new(address(vip.0), protocol, U16::new(vip.1));
    let listener = tables.listener_index.get(&key)?;
    let policy = tables.listeners[usize::from(listener.0)].policy();
    let (source, port) = (address(client.0), U16::new(client.1));
    let hash = match policy.flags.hash_input() {
        HashInput::FiveTuple => {
            (tables.select_key).select(source, port, key.address, key.port, protocol)
        }
        HashInput::FiveTupleAndSequence => {
            let sequence = if protocol == TCP { sequence } else { 0 };
            (tables.select_key).select_with_sequence(
                source,
                port,
                key.address,
                key.port,
                protocol,
                sequence,
            )
        }
        HashInput::Source => {
            let (zero, nowhere) = (U16::ZERO, Address::UNSPECIFIED);
            tables.select_key.select(source, zero, nowhere, zero, 0)
        }
    };
    let id = tables.rings.get(&policy.group)?[slot(hash)];
    (id != 0).then_some(id)
}

/// The `nth` client port, from 40,000 on, whose new flows go to this target.
pub fn port_to(
    tables: &MemoryTables,
    client: &str,
    vip: (&str, u16),
    protocol: u8,
    target: u32,
    nth: usize,
) -> u16 {
    (40_000..=u16::MAX)
        .filter(|port| chosen(tables, (client, *port), vip, protocol) == Some(target))
        .nth(nth)
        .expect("every target has its share of the ring")
}

/// A frame that came from the clients' side.
pub fn from_client() -> Sentence {
    eth().to(MAC0).from(neighbour_of(CLIENT).mac())
}

/// A frame that came from the targets' side, sent by this neighbour.
pub fn from_target(sender: &str) -> Sentence {
    eth().to(MAC1).from(neighbour_of(sender).mac())
}

/// A frame on its way to this neighbour.
pub fn on_to(receiver: &str) -> Sentence {
    let neighbour = neighbour_of(receiver);
    let hop = neighbour.next_hop();
    let sentence = eth().to(hop.macs.destination().0).from(hop.macs.source().0);
    if hop.vlan == VlanId::NONE {
        sentence
    } else {
        sentence.vlan(hop.vlan.0)
    }
}
