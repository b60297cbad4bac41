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
        ipv6::{self, Extension, FragmentHeader, Ipv6},
        protocol,
        tcp::Tcp,
        udp::Udp,
    },
};
use zerocopy::big_endian::U16;

use crate::{
    frame::{Frame, Offset},
    rewrite::Endpoint,
};

/// What was found behind the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole TCP or UDP header.
    Transport,
    /// The first fragment of a larger packet, with a whole TCP or UDP header, or of ICMP.
    FirstFragment,
    /// A later fragment of a larger packet, which may be one of TCP, UDP or ICMP.
    LaterFragment,
    /// A fragment that splits the TCP or UDP header, or may be meant to overwrite its end.
    TinyFragment,
    /// A fragment of another protocol's packet.
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
    /// What the rest is worth: ports are zero unless this is [`Kind::Transport`] or
    /// [`Kind::FirstFragment`], and not ICMP.
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
    /// Where the IP header stands.
    pub network: Offset,
    /// Where the TCP or UDP header stands.
    pub transport: Offset,
    /// Bytes of the IP packet, header included.
    pub length_bytes: u16,
    /// What the fragments of one packet have in common; zero if it is none.
    pub identification: u32,
    /// Where the fragment header of an IPv6 fragment stands.
    pub fragment_header: Offset,
}

impl Packet {
    /// Nothing known yet.
    const UNREAD: Self = Self {
        kind: Kind::Malformed,
        source: Address::UNSPECIFIED,
        destination: Address::UNSPECIFIED,
        source_port: U16::ZERO,
        destination_port: U16::ZERO,
        protocol: 0,
        tcp_flags: 0,
        traffic_class: 0,
        ttl: 0,
        is_v4: false,
        network: Offset(0),
        transport: Offset(0),
        length_bytes: 0,
        identification: 0,
        fragment_header: Offset(0),
    };

    /// The end that it comes from.
    #[inline(always)]
    pub(crate) const fn sender(&self) -> Endpoint {
        Endpoint {
            address: self.source,
            port: self.source_port,
        }
    }

    /// The end that it goes to.
    #[inline(always)]
    pub(crate) const fn receiver(&self) -> Endpoint {
        Endpoint {
            address: self.destination,
            port: self.destination_port,
        }
    }

    /// Whether so many bytes at this offset of the frame lie in the IP packet, and not behind it.
    #[inline(always)]
    pub(crate) fn reaches(&self, at: Offset, bytes: usize) -> bool {
        usize::from(at.0) + bytes <= usize::from(self.network.0) + usize::from(self.length_bytes)
    }
}

/// Extension headers that are stepped over before the packet is given up as malformed.
pub(crate) const EXTENSIONS: usize = 6;
/// The same for those behind a fragment header, where destination options may stand.
const FRAGMENTED_EXTENSIONS: usize = 1;

/// Reads a frame; [`Stop::NotOurs`] where it is not IP or its addresses cannot be read.
///
/// VERIFIER: the facts are filled in place, field by field. A `Packet` handed through `Result`s is
/// copied in pieces that straddle words ("misaligned stack access off -199 size 4"; Linux 6.18,
/// rustc 1.96).
#[inline(always)]
pub fn parse<F: Frame>(frame: &F) -> Result<Packet, Stop> {
    let mut packet = Packet::UNREAD;
    read(frame, &mut packet)?;
    Ok(packet)
}

/// Reads an IPv4 frame of the commonest shape: no VLAN tag (which the caller has seen), no options,
/// not a fragment, TCP or UDP, and whole. Nothing if it has any other.
#[inline(always)]
pub fn plain_v4<F: Frame>(frame: &F) -> Option<Packet> {
    let header = frame.get::<Ipv4>(Offset(14))?;
    if header.version_and_length != 0x45 || header.is_fragment() {
        return None;
    }
    let mut packet = Packet {
        source: Address::from_v4_bytes(header.source),
        destination: Address::from_v4_bytes(header.destination),
        protocol: header.protocol,
        traffic_class: header.traffic_class,
        ttl: header.ttl,
        is_v4: true,
        network: Offset(14),
        transport: Offset(34),
        length_bytes: header.total_length.get(),
        ..Packet::UNREAD
    };
    if packet.length_bytes < 20 || !holds_at_once(frame, packet.network, packet.length_bytes) {
        return None;
    }
    let left = packet.length_bytes - 20;
    finish(frame, &mut packet, left, false);
    (packet.kind == Kind::Transport).then_some(packet)
}

/// Reads an IPv6 frame of the commonest shape; see [`plain_v4`].
#[inline(always)]
pub fn plain_v6<F: Frame>(frame: &F) -> Option<Packet> {
    let header = frame.get::<Ipv6>(Offset(14))?;
    if !header.is_version_6() {
        return None;
    }
    let left = header.payload_length.get();
    let mut packet = Packet {
        source: Address::from_v6_bytes(header.source),
        destination: Address::from_v6_bytes(header.destination),
        protocol: header.next_header,
        traffic_class: header.traffic_class(),
        ttl: header.hop_limit,
        network: Offset(14),
        transport: Offset(54),
        length_bytes: left.saturating_add(40),
        ..Packet::UNREAD
    };
    if !holds_at_once(frame, packet.network, packet.length_bytes) {
        return None;
    }
    finish(frame, &mut packet, left, false);
    (packet.kind == Kind::Transport).then_some(packet)
}

#[inline(always)]
fn read<F: Frame>(frame: &F, packet: &mut Packet) -> Result<(), Stop> {
    let ethernet = frame.get::<Ethernet>(Offset(0)).ok_or(Stop::NotOurs)?;
    let mut ether_type = ethernet.ether_type;
    let mut network = Offset(14);
    for _ in 0..2 {
        if ether_type == ethernet::VLAN || ether_type == ethernet::SERVICE_VLAN {
            let tag = frame.get::<VlanTag>(network).ok_or(Stop::NotOurs)?;
            ether_type = tag.ether_type;
            network = network.plus(4).ok_or(Stop::NotOurs)?;
        }
    }
    packet.network = network;
    if ether_type == ethernet::IPV4 {
        ipv4(frame, packet)
    } else if ether_type == ethernet::IPV6 {
        ipv6(frame, packet)
    } else {
        Err(Stop::NotOurs)
    }
}

#[inline(always)]
fn ipv4<F: Frame>(frame: &F, packet: &mut Packet) -> Result<(), Stop> {
    let header = frame.get::<Ipv4>(packet.network).ok_or(Stop::NotOurs)?;
    if !header.is_version_4() {
        return Err(Stop::NotOurs);
    }
    let header_length = u16::from(header.header_length_bytes());
    packet.is_v4 = true;
    packet.source = Address::from_v4_bytes(header.source);
    packet.destination = Address::from_v4_bytes(header.destination);
    packet.protocol = header.protocol;
    packet.traffic_class = header.traffic_class;
    packet.ttl = header.ttl;
    packet.length_bytes = header.total_length.get();
    if header_length < 20
        || packet.length_bytes < header_length
        || !holds(frame, packet.network, packet.length_bytes)
    {
        return Ok(());
    }
    let left = packet.length_bytes - header_length;
    let mut is_first = false;
    if header.is_fragment() {
        packet.identification = u32::from(header.identification.get());
        let offset_bytes = header.fragment_offset_bytes();
        packet.kind = fragment(packet.protocol, offset_bytes, header.more_fragments(), left);
        is_first = packet.kind == Kind::FirstFragment;
        if !is_first {
            return Ok(());
        }
        packet.kind = Kind::TinyFragment;
    }
    if let Some(transport) = packet.network.plus(header_length) {
        packet.transport = transport;
        finish(frame, packet, left, is_first);
    }
    Ok(())
}

#[inline(always)]
fn ipv6<F: Frame>(frame: &F, packet: &mut Packet) -> Result<(), Stop> {
    let header = frame.get::<Ipv6>(packet.network).ok_or(Stop::NotOurs)?;
    if !header.is_version_6() {
        return Err(Stop::NotOurs);
    }
    let payload_length = header.payload_length.get();
    packet.source = Address::from_v6_bytes(header.source);
    packet.destination = Address::from_v6_bytes(header.destination);
    packet.traffic_class = header.traffic_class();
    packet.ttl = header.hop_limit;
    packet.length_bytes = payload_length.saturating_add(40);
    packet.protocol = header.next_header;
    if !holds(frame, packet.network, packet.length_bytes) {
        return Ok(());
    }
    let at = packet.network.plus(40).ok_or(Stop::NotOurs)?;
    let Some((mut at, mut left)) = step_over::<EXTENSIONS, F>(frame, packet, at, payload_length)
    else {
        return Ok(());
    };
    let mut is_first = false;
    if packet.protocol == ipv6::FRAGMENT {
        let Some(header) = frame.get::<FragmentHeader>(at) else {
            return Ok(());
        };
        let Some(next) = at.plus(8) else {
            return Ok(());
        };
        if left < 8 {
            return Ok(());
        }
        packet.protocol = header.next_header;
        let (offset_bytes, more) = (header.offset_bytes(), header.more_fragments());
        // A fragment that is the whole packet is handled as one (RFC 6946).
        if more || offset_bytes != 0 {
            packet.identification = header.identification.get();
            packet.fragment_header = at;
            packet.kind = fragment(packet.protocol, offset_bytes, more, left - 8);
            is_first = packet.kind == Kind::FirstFragment;
            if !is_first {
                return Ok(());
            }
            packet.kind = Kind::TinyFragment;
        }
        let Some(found) = step_over::<FRAGMENTED_EXTENSIONS, F>(frame, packet, next, left - 8)
        else {
            return Ok(());
        };
        (at, left) = found;
    }
    if packet.protocol != ipv6::FRAGMENT && !is_stepped_over(packet.protocol) {
        packet.transport = at;
        finish(frame, packet, left, is_first);
    }
    Ok(())
}

/// Steps over up to `COUNT` extension headers; says where it arrived, and how many bytes are left.
#[inline(always)]
fn step_over<const COUNT: usize, F: Frame>(
    frame: &F,
    packet: &mut Packet,
    at: Offset,
    left: u16,
) -> Option<(Offset, u16)> {
    let (mut at, mut left) = (at, left);
    for _ in 0..COUNT {
        if !is_stepped_over(packet.protocol) {
            break;
        }
        let extension = frame.get::<Extension>(at)?;
        let length = (u16::from(extension.length) + 1) * 8;
        let next_header = extension.next_header;
        let next = at.plus(length)?;
        if length > left {
            return None;
        }
        packet.protocol = next_header;
        left -= length;
        at = next;
    }
    Some((at, left))
}

/// What kind of fragment this is: `left` bytes at `offset_bytes` of a larger packet's payload.
#[inline(always)]
const fn fragment(protocol: u8, offset_bytes: u16, more: bool, left: u16) -> Kind {
    if left == 0 || more && !left.is_multiple_of(8) || offset_bytes.checked_add(left).is_none() {
        Kind::Malformed
    } else if offset_bytes == 0 {
        Kind::FirstFragment
    } else if protocol == protocol::TCP && offset_bytes < 20 {
        // It would overwrite flags of the first (RFC 1858 §4, RFC 3128).
        Kind::TinyFragment
    } else if may_be_followed(protocol) {
        Kind::LaterFragment
    } else {
        Kind::Fragment
    }
}

/// Whether the fragments of such a packet may be ones that follow their first.
#[inline(always)]
const fn may_be_followed(protocol: u8) -> bool {
    matches!(
        protocol,
        protocol::TCP | protocol::UDP | protocol::ICMP | protocol::ICMPV6
    ) || is_stepped_over(protocol)
}

#[inline(always)]
pub(crate) const fn is_stepped_over(next_header: u8) -> bool {
    matches!(
        next_header,
        ipv6::HOP_BY_HOP | ipv6::ROUTING | ipv6::DESTINATION_OPTIONS
    )
}

/// Reads the transport header; `left` is how many bytes the IP packet has for it. A first fragment
/// has the header and not what belongs to it.
#[inline(always)]
fn finish<F: Frame>(frame: &F, packet: &mut Packet, left: u16, is_first: bool) {
    let (short, whole, icmp, other) = if is_first {
        let first = Kind::FirstFragment;
        (Kind::TinyFragment, first, first, Kind::Fragment)
    } else {
        (Kind::Malformed, Kind::Transport, Kind::Icmp, Kind::Other)
    };
    packet.kind = short;
    match packet.protocol {
        protocol::TCP => {
            let Some(tcp) = frame.get::<Tcp>(packet.transport) else {
                return;
            };
            let header_length = u16::from(tcp.data_offset >> 4) * 4;
            if header_length < 20 || header_length > left {
                return;
            }
            packet.source_port = tcp.source_port;
            packet.destination_port = tcp.destination_port;
            packet.tcp_flags = tcp.flags;
            packet.kind = whole;
        }
        protocol::UDP => {
            let Some(udp) = frame.get::<Udp>(packet.transport) else {
                return;
            };
            let length = udp.length.get();
            if left < 8 || length < 8 || length > left && !is_first {
                return;
            }
            packet.source_port = udp.source_port;
            packet.destination_port = udp.destination_port;
            packet.kind = whole;
        }
        protocol::ICMP | protocol::ICMPV6 => packet.kind = icmp,
        _ => packet.kind = other,
    }
}

/// Whether the frame holds an IP packet of this length; what follows it is padding or a trailer.
#[inline(always)]
pub(crate) fn holds<F: Frame>(frame: &F, network: Offset, length_bytes: u16) -> bool {
    frame.reaches(usize::from(network.0) + usize::from(length_bytes))
}

/// Whether the frame's first buffer does, which is all that the front stage looks at.
#[inline(always)]
fn holds_at_once<F: Frame>(frame: &F, network: Offset, length_bytes: u16) -> bool {
    usize::from(network.0) + usize::from(length_bytes) <= frame.first_buffer_bytes()
}
