//! 4. In tunnel modes nothing of the packet changes: it travels inside of another one.
//!
//! The outer headers are those of RFC 2003, RFC 2473 and RFC 4213 (`dsr-ipip`), of GUE
//! (draft-ietf-intarea-gue) or of Geneve (RFC 8926), and the target's address, not the packet's,
//! says which IP version they have. No hop is taken off the packet, as in `dsr-l2`: to its sender
//! the VIP is one host, wherever that host's applications are.

use nlb_common::{
    address::Address,
    stop::Stop,
    target::Mode,
    tunnel::TunnelEnd,
    wire::{ethernet, geneve::Geneve, gue::Gue, ipv4::Ipv4, ipv6::Ipv6, protocol, udp::Udp},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, big_endian::U16};

use crate::{
    checksum::Change,
    emit::UNTAGGED,
    frame::{Frame, Offset},
    parse::Packet,
    select::Chosen,
    tables::Tables,
};

/// TTL or hop limit of outer packets: enough for any data centre, and the default of RFC 1700.
const HOPS: u8 = 64;
/// The first port of the range that RFC 6335 leaves to everybody: GUE and Geneve send from it.
const FIRST_PORT: u16 = 0xc000;
/// Don't fragment, offset 0 (RFC 791 §3.1). With it, the identification may be zero (RFC 6864).
const DO_NOT_FRAGMENT: U16 = U16::new(0x4000);

/// An outer IPv4 header, and what stands before it but for the MAC addresses.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct OuterV4 {
    ether_type: U16,
    network: Ipv4,
}

/// The same with IPv6.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct OuterV6 {
    ether_type: U16,
    network: Ipv6,
}

/// What stands between an outer UDP header and the packet: of GUE…
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct UdpGue {
    udp: Udp,
    gue: Gue,
}

/// … and of Geneve.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct UdpGeneve {
    udp: Udp,
    geneve: Geneve,
}

const _: () = assert!(size_of::<UdpGue>() == 12 && size_of::<UdpGeneve>() == 16);

/// The upper twenty bits, for a flow label, and the upper fourteen, for a port.
#[inline(always)]
const fn upper(entropy: u64) -> (u32, u16) {
    ((entropy >> 44) as u32, (entropy >> 50) as u16)
}

/// Bytes that a packet to this target gets put in front of it.
#[inline(always)]
pub fn overhead_bytes(target: &Chosen<'_>) -> u16 {
    let mode = target.control.mode;
    if mode.is_tunnel() {
        mode.overhead_bytes(target.record.address().is_v4())
    } else {
        0
    }
}

/// Our end of a target's tunnel.
#[inline(always)]
pub fn end<T: Tables>(tables: &T, target: &Chosen<'_>) -> Result<TunnelEnd, Stop> {
    let slot = tables
        .tunnel(target.record.group())
        .ok_or(Stop::UnwrittenTunnel)?;
    slot.end(target.record.address().is_v4())
        .ok_or(Stop::UnwrittenTunnel)
}

/// The IP protocol of the outer header.
#[inline(always)]
pub const fn outer_protocol(mode: Mode, packet: &Packet) -> u8 {
    if matches!(mode, Mode::DSR_IPIP) {
        inner_protocol(packet)
    } else {
        protocol::UDP
    }
}

/// What GUE and IP call the packet.
#[inline(always)]
const fn inner_protocol(packet: &Packet) -> u8 {
    if packet.is_v4 {
        protocol::IPV4
    } else {
        protocol::IPV6
    }
}

/// Puts the outer headers before a packet, in the place of VLAN tags if it has any; what is left to
/// say is the MAC addresses. Tells where the packet's transport header stands now.
///
/// The room is asked for first: nothing that follows can fail. The offsets in `packet` mean nothing
/// any more then.
#[inline(always)]
pub fn wrap<F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    tables: &T,
    target: &Chosen<'_>,
    entropy: u64,
) -> Result<Offset, Stop> {
    let mode = target.control.mode;
    let address = target.record.address();
    let is_v4 = address.is_v4();
    let overhead_bytes = mode.overhead_bytes(is_v4);
    let end = end(tables, target)?;
    let [overhead, _] = overhead_bytes.to_le_bytes();
    let tags = packet.network.0.wrapping_sub(UNTAGGED.0);
    frame.move_start(i16::from(overhead) - i16::from(tags))?;
    let transport = Offset(packet.transport.0.wrapping_add(overhead).wrapping_sub(tags));
    let network = if is_v4 {
        outer_v4(frame, packet, mode, &end, address, entropy)?;
        34
    } else {
        outer_v6(frame, packet, mode, &end, address, entropy)?;
        54
    };
    if mode != Mode::DSR_IPIP {
        shim(frame, packet, mode, &end, Offset(network), entropy)?;
    }
    Ok(transport)
}

#[inline(always)]
fn outer_v4<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    mode: Mode,
    end: &TunnelEnd,
    destination: Address,
    entropy: u64,
) -> Result<(), Stop> {
    let source = spread(end, entropy).v4_bytes();
    let destination = destination.v4_bytes();
    let protocol = outer_protocol(mode, packet);
    // It fits a next hop, so the sum fits sixteen bits.
    let total_length = U16::new(packet.length_bytes + mode.overhead_bytes(true));
    let checksum = Change::default()
        .added(U16::from_bytes([0x45, packet.traffic_class]))
        .added(total_length)
        .added(DO_NOT_FRAGMENT)
        .added(U16::from_bytes([HOPS, protocol]))
        .added_four(source)
        .added_four(destination)
        .apply(U16::MAX_VALUE);
    let outer = frame
        .get_mut::<OuterV4>(Offset(12))
        .ok_or(Stop::Malformed)?;
    *outer = OuterV4 {
        ether_type: ethernet::IPV4,
        network: Ipv4 {
            version_and_length: 0x45,
            traffic_class: packet.traffic_class,
            total_length,
            identification: U16::ZERO,
            fragment: DO_NOT_FRAGMENT,
            ttl: HOPS,
            protocol,
            checksum,
            source,
            destination,
        },
    };
    Ok(())
}

#[inline(always)]
fn outer_v6<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    mode: Mode,
    end: &TunnelEnd,
    destination: Address,
    entropy: u64,
) -> Result<(), Stop> {
    let label = if end.has_entropy() {
        upper(entropy).0
    } else {
        0
    };
    let class = u32::from(packet.traffic_class);
    // The payload is all but this header.
    let payload_bytes = packet.length_bytes + mode.overhead_bytes(false) - 40;
    let outer = frame
        .get_mut::<OuterV6>(Offset(12))
        .ok_or(Stop::Malformed)?;
    *outer = OuterV6 {
        ether_type: ethernet::IPV6,
        network: Ipv6 {
            version_class_label: (6 << 28 | class << 20 | label).to_be_bytes(),
            payload_length: U16::new(payload_bytes),
            next_header: outer_protocol(mode, packet),
            hop_limit: HOPS,
            source: spread(end, entropy).v6_bytes(),
            destination: destination.v6_bytes(),
        },
    };
    Ok(())
}

/// Where an outer packet comes from.
#[inline(always)]
fn spread(end: &TunnelEnd, entropy: u64) -> Address {
    let [first, last] = end.source.words;
    Address {
        words: [first, last | entropy & end.spread],
    }
}

/// UDP, and what says that a packet follows. The checksum is zero in both IP versions: what it
/// would protect has a checksum of its own, and so RFC 6935 and RFC 6936 allow it for tunnels.
#[inline(always)]
fn shim<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    mode: Mode,
    end: &TunnelEnd,
    at: Offset,
    entropy: u64,
) -> Result<(), Stop> {
    let source_port = if end.has_entropy() {
        FIRST_PORT | upper(entropy).1
    } else {
        FIRST_PORT
    };
    let udp = |shim_bytes: u16| Udp {
        source_port: U16::new(source_port),
        destination_port: end.port(),
        length: U16::new(packet.length_bytes + shim_bytes),
        checksum: U16::ZERO,
    };
    if mode == Mode::DSR_GUE {
        let shim = frame.get_mut::<UdpGue>(at).ok_or(Stop::Malformed)?;
        *shim = UdpGue {
            udp: udp(12),
            gue: Gue::of(inner_protocol(packet)),
        };
    } else {
        let shim = frame.get_mut::<UdpGeneve>(at).ok_or(Stop::Malformed)?;
        let ether_type = if packet.is_v4 {
            ethernet::IPV4
        } else {
            ethernet::IPV6
        };
        *shim = UdpGeneve {
            udp: udp(16),
            geneve: Geneve::of(ether_type, end.network()),
        };
    }
    Ok(())
}
