//! 1. Bytes become facts.
//!
//! What cannot be read is not ours, unless its destination could be read: then [`Packet::kind`]
//! says what is wrong, and the next stage finds out whether the destination is a VIP.

use nlb_common::{
    address::Address,
    stop::Stop,
    wire::{
        ethernet::{self, Ethernet, VlanTag},
        ipv4::Ipv4,
        ipv6::{self, Extension, Ipv6},
        protocol,
        tcp::Tcp,
        udp::Udp,
    },
};
use zerocopy::big_endian::U16;

use crate::frame::{Frame, Offset};

/// What was found behind the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole TCP or UDP header.
    Transport,
    /// A fragment of a larger packet.
    Fragment,
    /// ICMP or `ICMPv6`.
    Icmp,
    /// Headers that are cut short or contradict each other.
    Malformed,
    /// A protocol that listeners do not speak.
    Other,
}

/// The facts of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// What the rest is worth: ports are zero unless this is [`Kind::Transport`].
    pub kind: Kind,
    /// Where it comes from.
    pub source: Address,
    /// Where it goes.
    pub destination: Address,
    /// The sender's port.
    pub source_port: U16,
    /// The receiver's port.
    pub destination_port: U16,
    /// The IP protocol.
    pub protocol: u8,
    /// The flags of a TCP header, zero for UDP.
    pub tcp_flags: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Whether it is IPv4.
    pub is_v4: bool,
    /// Whether the frame carries VLAN tags.
    pub is_tagged: bool,
    /// Where the IP header stands.
    pub network: Offset,
    /// Where the TCP or UDP header stands.
    pub transport: Offset,
    /// Bytes of the IP packet, header included.
    pub length_bytes: u16,
}

/// Extension headers that are stepped over before the packet is given up as malformed.
const EXTENSIONS: usize = 6;

/// Reads a frame; [`Stop::NotOurs`] where it is not IP or its addresses cannot be read.
#[inline(always)]
pub fn parse<F: Frame>(frame: &F) -> Result<Packet, Stop> {
    let ethernet = frame.get::<Ethernet>(Offset(0)).ok_or(Stop::NotOurs)?;
    let mut ether_type = ethernet.ether_type;
    let mut network = Offset(14);
    let mut is_tagged = false;
    for _ in 0..2 {
        if ether_type == ethernet::VLAN || ether_type == ethernet::SERVICE_VLAN {
            let tag = frame.get::<VlanTag>(network).ok_or(Stop::NotOurs)?;
            ether_type = tag.ether_type;
            network = network.plus(4).ok_or(Stop::NotOurs)?;
            is_tagged = true;
        }
    }
    let mut packet = if ether_type == ethernet::IPV4 {
        ipv4(frame, network)?
    } else if ether_type == ethernet::IPV6 {
        ipv6(frame, network)?
    } else {
        return Err(Stop::NotOurs);
    };
    packet.is_tagged = is_tagged;
    Ok(packet)
}

#[inline(always)]
fn ipv4<F: Frame>(frame: &F, network: Offset) -> Result<Packet, Stop> {
    let header = frame.get::<Ipv4>(network).ok_or(Stop::NotOurs)?;
    let header_length = u16::from(header.header_length_bytes());
    if !header.is_version_4() {
        return Err(Stop::NotOurs);
    }
    let packet = Packet {
        kind: Kind::Malformed,
        source: Address::from_v4_bytes(header.source),
        destination: Address::from_v4_bytes(header.destination),
        source_port: U16::ZERO,
        destination_port: U16::ZERO,
        protocol: header.protocol,
        tcp_flags: 0,
        traffic_class: header.traffic_class,
        ttl: header.ttl,
        is_v4: true,
        is_tagged: false,
        network,
        transport: network,
        length_bytes: header.total_length.get(),
    };
    if header_length < 20
        || packet.length_bytes < header_length
        || !holds(frame, network, packet.length_bytes)
    {
        return Ok(packet);
    }
    if header.is_fragment() {
        return Ok(Packet {
            kind: Kind::Fragment,
            ..packet
        });
    }
    let Some(transport) = network.plus(header_length) else {
        return Ok(packet);
    };
    Ok(finish(
        frame,
        packet,
        transport,
        packet.length_bytes - header_length,
    ))
}

#[inline(always)]
fn ipv6<F: Frame>(frame: &F, network: Offset) -> Result<Packet, Stop> {
    let header = frame.get::<Ipv6>(network).ok_or(Stop::NotOurs)?;
    if !header.is_version_6() {
        return Err(Stop::NotOurs);
    }
    let payload_length = header.payload_length.get();
    let mut next_header = header.next_header;
    let mut packet = Packet {
        kind: Kind::Malformed,
        source: Address::from_v6_bytes(header.source),
        destination: Address::from_v6_bytes(header.destination),
        source_port: U16::ZERO,
        destination_port: U16::ZERO,
        protocol: next_header,
        tcp_flags: 0,
        traffic_class: header.traffic_class(),
        ttl: header.hop_limit,
        is_v4: false,
        is_tagged: false,
        network,
        transport: network,
        length_bytes: payload_length.saturating_add(40),
    };
    if !holds(frame, network, packet.length_bytes) {
        return Ok(packet);
    }
    let mut at = network.plus(40).ok_or(Stop::NotOurs)?;
    let mut left = payload_length;
    for _ in 0..EXTENSIONS {
        if next_header != ipv6::HOP_BY_HOP
            && next_header != ipv6::ROUTING
            && next_header != ipv6::DESTINATION_OPTIONS
        {
            break;
        }
        let Some(extension) = frame.get::<Extension>(at) else {
            return Ok(packet);
        };
        let length = (u16::from(extension.length) + 1) * 8;
        next_header = extension.next_header;
        let Some(next) = at.plus(length) else {
            return Ok(packet);
        };
        if length > left {
            return Ok(packet);
        }
        left -= length;
        at = next;
    }
    packet.protocol = next_header;
    if next_header == ipv6::FRAGMENT {
        return Ok(Packet {
            kind: Kind::Fragment,
            ..packet
        });
    }
    if next_header == ipv6::HOP_BY_HOP
        || next_header == ipv6::ROUTING
        || next_header == ipv6::DESTINATION_OPTIONS
    {
        return Ok(packet);
    }
    Ok(finish(frame, packet, at, left))
}

/// Reads the transport header; `left` is how many bytes the IP packet has for it.
#[inline(always)]
fn finish<F: Frame>(frame: &F, packet: Packet, transport: Offset, left: u16) -> Packet {
    let found = Packet {
        kind: Kind::Transport,
        transport,
        ..packet
    };
    match packet.protocol {
        protocol::TCP => {
            let Some(tcp) = frame.get::<Tcp>(transport) else {
                return packet;
            };
            let header_length = u16::from(tcp.data_offset >> 4) * 4;
            if header_length < 20 || header_length > left {
                return packet;
            }
            Packet {
                source_port: tcp.source_port,
                destination_port: tcp.destination_port,
                tcp_flags: tcp.flags,
                ..found
            }
        }
        protocol::UDP => {
            let Some(udp) = frame.get::<Udp>(transport) else {
                return packet;
            };
            let length = udp.length.get();
            if length < 8 || length > left {
                return packet;
            }
            Packet {
                source_port: udp.source_port,
                destination_port: udp.destination_port,
                ..found
            }
        }
        protocol::ICMP | protocol::ICMPV6 => Packet {
            kind: Kind::Icmp,
            ..packet
        },
        _ => Packet {
            kind: Kind::Other,
            ..packet
        },
    }
}

/// Whether the frame holds an IP packet of this length; what follows it is padding or a trailer.
#[inline(always)]
fn holds<F: Frame>(frame: &F, network: Offset, length_bytes: u16) -> bool {
    usize::from(network.0) + usize::from(length_bytes) <= frame.length_bytes()
}
