//! Listeners, and how those choose that are not plain.

use nlb_common::{
    listener::HashInput,
    quic::CidLayout,
    wire::protocol::{TCP, UDP},
};

use super::{
    DSR_VIP, DSR_VIP_V6, FULL_VIP, FULL_VIP_V6, TUNNEL_VIP, TUNNEL_VIP_V6, UNWRITTEN_GROUP, VIP,
    VIP_V6,
};

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
