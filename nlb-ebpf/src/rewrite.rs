//! 4. Addresses, ports, hop count and checksums change; nothing else does.

use nlb_common::{
    address::Address,
    stop::Stop,
    wire::{ipv4::Ipv4, ipv6::Ipv6, protocol, tcp::Tcp, udp::Udp},
};
use zerocopy::big_endian::U16;

use crate::{checksum::Change, frame::Frame, parse::Packet};

/// Which end of a packet is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// On the way to the target.
    Destination,
    /// On the way back.
    Source,
}

/// Translates one end of a packet and takes one hop off. The caller has made sure that a hop is
/// left.
#[inline(always)]
pub fn translate<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    end: End,
    address: Address,
    port: U16,
) -> Result<(), Stop> {
    let (old_address, old_port) = match end {
        End::Destination => (packet.destination, packet.destination_port),
        End::Source => (packet.source, packet.source_port),
    };
    let all = Change::default()
        .address(old_address, address)
        .word(old_port, port);
    if packet.protocol == protocol::TCP {
        let tcp = frame
            .get_mut::<Tcp>(packet.transport)
            .ok_or(Stop::Malformed)?;
        match end {
            End::Destination => tcp.destination_port = port,
            End::Source => tcp.source_port = port,
        }
        tcp.checksum = all.apply(tcp.checksum);
    } else {
        let udp = frame
            .get_mut::<Udp>(packet.transport)
            .ok_or(Stop::Malformed)?;
        match end {
            End::Destination => udp.destination_port = port,
            End::Source => udp.source_port = port,
        }
        udp.checksum = all.apply_to_udp(udp.checksum);
    }
    translate_addresses(frame, packet, end, address)
}

/// The same for a fragment without a transport header. The transport's checksum stands in the first
/// fragment and covers the whole packet, addresses among it: it was adjusted there.
#[inline(always)]
pub fn translate_addresses<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    end: End,
    address: Address,
) -> Result<(), Stop> {
    if packet.is_v4 {
        let old = match end {
            End::Destination => packet.destination,
            End::Source => packet.source,
        };
        let header = frame
            .get_mut::<Ipv4>(packet.network)
            .ok_or(Stop::Malformed)?;
        let ttl = header.ttl.wrapping_sub(1);
        let hop = |ttl| U16::from_bytes([ttl, packet.protocol]);
        header.checksum = Change::default()
            .address(old, address)
            .word(hop(header.ttl), hop(ttl))
            .apply(header.checksum);
        header.ttl = ttl;
        match end {
            End::Destination => header.destination = address.v4_bytes(),
            End::Source => header.source = address.v4_bytes(),
        }
    } else {
        let header = frame
            .get_mut::<Ipv6>(packet.network)
            .ok_or(Stop::Malformed)?;
        header.hop_limit = header.hop_limit.wrapping_sub(1);
        match end {
            End::Destination => header.destination = address.v6_bytes(),
            End::Source => header.source = address.v6_bytes(),
        }
    }
    Ok(())
}
