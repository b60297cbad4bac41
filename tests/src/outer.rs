//! Outer packets as the documentation describes them, for the packet table and the oracle: written
//! as sentences, from nothing that the packet path uses but the keyed hash.

use std::net::IpAddr;

use nlb_common::{
    hash::Secret as _,
    target::Mode,
    wire::protocol::{IPV4, IPV6},
};
use nlb_ebpf::memory::MemoryTables;
use zerocopy::big_endian::U16;

use crate::{
    packet::Sentence,
    world::{GROUPS, NETWORK, address, on_to, tunnel},
};

/// Who begins the flow: address, port, protocol.
pub type FlowClient<'c> = (&'c str, u16, u8);

/// Sixty-four bits that all packets of a flow share: the hash that places the flow in the table,
/// times the golden ratio's odd number.
fn entropy(tables: &MemoryTables, (client, port, protocol): FlowClient<'_>) -> u64 {
    let hash = tables
        .table_key
        .table(address(client), U16::new(port), protocol);
    hash.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// A client's frame on its way to a target in a tunnel.
///
/// `class` is the traffic class of the client's packet, `neighbour` the next hop.
pub fn wrapped(
    tables: &MemoryTables,
    frame: &[u8],
    (client, class): (FlowClient<'_>, u8),
    target: u32,
    neighbour: &str,
) -> Sentence {
    let group = GROUPS
        .iter()
        .find(|group| group.targets.iter().any(|other| other.0 == target))
        .expect("a target of the world");
    let (_, at, ..) = *group
        .targets
        .iter()
        .find(|other| other.0 == target)
        .expect("a target of its group");
    let (tunnel, bits) = (tunnel(group.id), entropy(tables, client));
    let inner = &frame[14..];
    let is_v4 = frame[12..14] == [0x08, 0x00];
    let length = if is_v4 {
        usize::from(u16::from_be_bytes([inner[2], inner[3]]))
    } else {
        40 + usize::from(u16::from_be_bytes([inner[4], inner[5]]))
    };
    let (inner, trailer) = inner.split_at(length);

    let destination: IpAddr = at.parse().expect("an address of the world");
    let mut source = if destination.is_ipv4() {
        tunnel.source_v4
    } else {
        tunnel.source_v6
    }
    .v6_bytes();
    let spread = if destination.is_ipv4() {
        [[0; 4], tunnel.spread_v4].concat()
    } else {
        tunnel.spread_v6.to_vec()
    };
    for ((byte, spread), bits) in source[8..].iter_mut().zip(spread).zip(bits.to_ne_bytes()) {
        *byte |= bits & spread;
    }
    let source = if destination.is_ipv4() {
        let [.., a, b, c, d] = source;
        IpAddr::from([a, b, c, d])
    } else {
        IpAddr::from(source)
    };

    let (label, port) = if tunnel.has_entropy {
        // The upper 20 bits, and the upper 14 of them.
        (
            u32::try_from(bits >> 44).expect("20 bits"),
            49_152 + u16::try_from(bits >> 50).expect("14 bits"),
        )
    } else {
        (0, 49_152)
    };
    let outer = on_to(neighbour)
        .ip(source, destination)
        .class(class)
        .ttl(64)
        .identification(0)
        .fragment_word(0x4000)
        .label(label)
        .trailer(trailer);
    let number = if is_v4 { IPV4 } else { IPV6 };
    let ether_type = if is_v4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    match group.mode {
        Mode::DSR_IPIP => outer.protocol(number).payload(inner),
        Mode::DSR_GUE => outer
            .udp(port, 6080)
            .no_checksum()
            .payload(&[&[0, number, 0, 0], inner].concat()),
        Mode::DSR_GENEVE => outer
            .udp(port, 6081)
            .no_checksum()
            .payload(&[&[0, 0], &ether_type[..], &NETWORK, &[0], inner].concat()),
        mode => panic!("{mode:?} is no tunnel"),
    }
}
