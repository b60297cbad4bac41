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
        // Zero means that the sender computed none, and must stay; a sum that comes out as zero
        // is sent as all ones (RFC 768).
        if udp.checksum != U16::ZERO {
            let sum = all.apply(udp.checksum);
            udp.checksum = if sum == U16::ZERO {
                U16::MAX_VALUE
            } else {
                sum
            };
        }
    }
    if packet.is_v4 {
        let header = frame
            .get_mut::<Ipv4>(packet.network)
            .ok_or(Stop::Malformed)?;
        let ttl = header.ttl.wrapping_sub(1);
        let hop = |ttl| U16::from_bytes([ttl, packet.protocol]);
        header.checksum = addresses
            .word(hop(header.ttl), hop(ttl))
            .apply(header.checksum);
        header.ttl = ttl;
        if let Some(new) = source {
            header.source = new.address.v4_bytes();
        }
        if let Some(new) = destination {
            header.destination = new.address.v4_bytes();
        }
    } else {
        let header = frame
            .get_mut::<Ipv6>(packet.network)
            .ok_or(Stop::Malformed)?;
        header.hop_limit = header.hop_limit.wrapping_sub(1);
        if let Some(new) = source {
            header.source = new.address.v6_bytes();
        }
        if let Some(new) = destination {
            header.destination = new.address.v6_bytes();
        }
    }
    Ok(())
}
