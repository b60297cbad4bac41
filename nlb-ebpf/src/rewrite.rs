//! 4. Addresses, ports, hop count and checksums change; nothing else does.

use nlb_common::{
    address::Address,
    stop::Stop,
    wire::{
        ipv4::Ipv4,
        ipv6::{FragmentHeader, Ipv6},
        protocol,
        tcp::Tcp,
        udp::Udp,
    },
};
use zerocopy::big_endian::{U16, U32};

use crate::{checksum::Change, frame::Frame, parse::Packet};

/// Which end of a packet is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// On the way to the target.
    Destination,
    /// On the way back.
    Source,
}

/// What an end of a packet becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The address.
    pub address: Address,
    /// The port.
    pub port: U16,
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
    let new = Some(Endpoint { address, port });
    match end {
        End::Destination => translate_ends(frame, packet, None, new),
        End::Source => translate_ends(frame, packet, new, None),
    }
}

/// Translates the ends of a packet that become something else, and takes one hop off; as
/// [`translate`]. Which ends these are is constant wherever this is called.
#[inline(always)]
pub fn translate_ends<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    source: Option<Endpoint>,
    destination: Option<Endpoint>,
) -> Result<(), Stop> {
    let mut addresses = Change::default();
    if let Some(new) = source {
        addresses = addresses.address(packet.source, new.address);
    }
    if let Some(new) = destination {
        addresses = addresses.address(packet.destination, new.address);
    }
    let mut all = addresses;
    if let Some(new) = source {
        all = all.word(packet.source_port, new.port);
    }
    if let Some(new) = destination {
        all = all.word(packet.destination_port, new.port);
    }
    if packet.protocol == protocol::TCP {
        let tcp = frame
            .get_mut::<Tcp>(packet.transport)
            .ok_or(Stop::Malformed)?;
        if let Some(new) = source {
            tcp.source_port = new.port;
        }
        if let Some(new) = destination {
            tcp.destination_port = new.port;
        }
        tcp.checksum = all.apply(tcp.checksum);
    } else {
        let udp = frame
            .get_mut::<Udp>(packet.transport)
            .ok_or(Stop::Malformed)?;
        if let Some(new) = source {
            udp.source_port = new.port;
        }
        if let Some(new) = destination {
            udp.destination_port = new.port;
        }
        udp.checksum = all.apply_to_udp(udp.checksum);
    }
    let address = |end: Option<Endpoint>| end.map(|end| end.address);
    translate_addresses(frame, packet, address(source), address(destination))
}

/// Gives a fragment another identification.
#[inline(always)]
pub fn renumber<F: Frame>(frame: &mut F, packet: &Packet, identification: u32) -> Result<(), Stop> {
    if packet.is_v4 {
        let header = frame
            .get_mut::<Ipv4>(packet.network)
            .ok_or(Stop::Malformed)?;
        let [a, b, ..] = identification.to_le_bytes();
        let new = U16::new(u16::from_le_bytes([a, b]));
        header.checksum = Change::default()
            .word(header.identification, new)
            .apply(header.checksum);
        header.identification = new;
    } else {
        let header = frame
            .get_mut::<FragmentHeader>(packet.fragment_header)
            .ok_or(Stop::Malformed)?;
        header.identification = U32::new(identification);
    }
    Ok(())
}

/// The IP header's part of a translation, which is all of it for a fragment without a transport header:
/// the transport's checksum stands in the first fragment and covers the whole packet, addresses among
/// it, so it was adjusted there.
#[inline(always)]
pub fn translate_addresses<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    source: Option<Address>,
    destination: Option<Address>,
) -> Result<(), Stop> {
    if packet.is_v4 {
        let mut change = Change::default();
        if let Some(new) = source {
            change = change.address(packet.source, new);
        }
        if let Some(new) = destination {
            change = change.address(packet.destination, new);
        }
        let header = frame
            .get_mut::<Ipv4>(packet.network)
            .ok_or(Stop::Malformed)?;
        let ttl = header.ttl.wrapping_sub(1);
        let hop = |ttl| U16::from_bytes([ttl, packet.protocol]);
        header.checksum = change
            .word(hop(header.ttl), hop(ttl))
            .apply(header.checksum);
        header.ttl = ttl;
        if let Some(new) = source {
            header.source = new.v4_bytes();
        }
        if let Some(new) = destination {
            header.destination = new.v4_bytes();
        }
    } else {
        let header = frame
            .get_mut::<Ipv6>(packet.network)
            .ok_or(Stop::Malformed)?;
        header.hop_limit = header.hop_limit.wrapping_sub(1);
        if let Some(new) = source {
            header.source = new.v6_bytes();
        }
        if let Some(new) = destination {
            header.destination = new.v6_bytes();
        }
    }
    Ok(())
}
