//! Target groups of every mode, and their tunnels.

use nlb_common::{
    target::Mode,
    wire::protocol::{TCP, UDP},
};

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
    group(
        90,
        DSR,
        TCP,
        &[(90, V4A, 9200, true), (91, V4B, 9200, true)],
    ),
    group(
        91,
        DSR,
        TCP,
        &[(92, V6A, 9200, true), (93, V6B, 9200, true)],
    ),
    group(
        92,
        IPIP,
        TCP,
        &[(94, V4A, 9201, true), (95, V4B, 9201, true)],
    ),
    group(
        93,
        GUE,
        UDP,
        &[(96, V6A, 9202, true), (97, V6B, 9202, true)],
    ),
    group(
        94,
        GUE,
        UDP,
        &[(98, V4A, 4433, true), (99, V4B, 4433, true)],
    ),
    group(
        95,
        IPIP,
        UDP,
        &[(100, V6A, 4433, true), (101, V6B, 4433, true)],
    ),
    group(
        34,
        FULL,
        UDP,
        &[
            (102, "10.0.0.11", 4443, true),
            (103, "10.0.0.12", 4443, true),
        ],
    ),
    group(
        35,
        FULL,
        UDP,
        &[(104, "fd00::11", 4443, true), (105, "fd00::12", 4443, true)],
    ),
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
    (92, "10.0.0.1", 0, "fd00::1", 0, true),
    (93, "10.0.0.1", 0, "fd00::1", 0, true),
    (94, "10.0.0.1", 0, "fd00::1", 0, true),
    (95, "10.0.0.1", 0, "fd00::1", 0, true),
];

/// The groups whose listeners pin flows on change. Their rings are [`settling_ring`]s.
///
/// [`settling_ring`]: super::settling_ring
pub const SETTLING: &[u16] = &[90, 91, 92, 93];

/// Geneve's virtual network identifier in this world.
pub const NETWORK: [u8; 3] = [0x0a, 0x0b, 0x0c];
