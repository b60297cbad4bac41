//! The packet that an ICMP error is about, as far as the error quotes it: reading it, and
//! translating it as the packet itself was translated, the other way round.
//!
//! Routers quote at least eight bytes behind the IP header (RFC 792), or as much as fits (RFC 1812
//! §4.3.2.3, RFC 4443 §3): ports always, a UDP checksum always, a TCP checksum perhaps.

use nlb_common::{
    address::Address,
    stop::Stop,
    wire::{
        icmp::Icmp,
        ipv4::Ipv4,
        ipv6::{self, Extension, FragmentHeader, Ipv6},
        protocol,
        udp::Udp,
    },
};
use zerocopy::big_endian::U16;

use crate::{
    checksum::Change,
    frame::{Frame, Offset},
    parse::{EXTENSIONS, Packet, is_stepped_over},
    rewrite::{End, Endpoint},
};

/// What a quote says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Where the quoted packet came from.
    pub source: Address,
    /// Where it went.
    pub destination: Address,
    /// Its sender's port.
    pub source_port: U16,
    /// Its receiver's port.
    pub destination_port: U16,
    /// TCP or UDP.
    pub protocol: u8,
    /// Where its IP header stands.
    network: Offset,
    /// Where its TCP or UDP header begins.
    transport: Offset,
    /// Whether the quote reaches to the end of a TCP checksum.
    has_tcp_checksum: bool,
}

/// Bytes of ICMP's header, and of the transport header that every quote has.
const HEAD_BYTES: u16 = 8;
/// Where a TCP header has its checksum.
const TCP_CHECKSUM: u16 = 16;

impl Quote {
    /// Nothing known yet; [`Quote::read`] fills it.
    pub const UNREAD: Self = Self {
        source: Address::UNSPECIFIED,
        destination: Address::UNSPECIFIED,
        source_port: U16::ZERO,
        destination_port: U16::ZERO,
        protocol: 0,
        network: Offset(0),
        transport: Offset(0),
        has_tcp_checksum: false,
    };

    /// Reads the quote of an ICMP error; nothing if it is cut short, contradicts itself, or is not
    /// of TCP or UDP. What could be read of its IP header is said all the same.
    ///
    /// VERIFIER: filled in place, in the caller's variable. In an `Option` it is copied in pieces
    /// that straddle words ("misaligned stack access off -83 size 2"; Linux 6.18, rustc 1.96).
    #[inline(always)]
    pub fn read<F: Frame>(&mut self, frame: &F, packet: &Packet) -> Option<()> {
        let at = packet.transport.plus(HEAD_BYTES)?;
        self.read_at(frame, packet, at, packet.is_v4)
    }

    /// The same for a packet that stands in the error `packet` at `at`, of either version.
    #[inline(always)]
    pub fn read_at<F: Frame>(
        &mut self,
        frame: &F,
        packet: &Packet,
        at: Offset,
        is_v4: bool,
    ) -> Option<()> {
        self.network = at;
        if is_v4 {
            self.ipv4(frame, packet)?;
        } else {
            self.ipv6(frame, packet)?;
        }
        self.finish(frame, packet)
    }

    #[inline(always)]
    fn ipv4<F: Frame>(&mut self, frame: &F, packet: &Packet) -> Option<()> {
        let header = frame.get::<Ipv4>(self.network)?;
        let header_length = u16::from(header.header_length_bytes());
        if !header.is_version_4() || header_length < 20 || header.is_later_fragment() {
            return None;
        }
        if !packet.reaches(self.network, 20) {
            return None;
        }
        self.source = Address::from_v4_bytes(header.source);
        self.destination = Address::from_v4_bytes(header.destination);
        self.protocol = header.protocol;
        self.transport = self.network.plus(header_length)?;
        Some(())
    }

    #[inline(always)]
    fn ipv6<F: Frame>(&mut self, frame: &F, packet: &Packet) -> Option<()> {
        let header = frame.get::<Ipv6>(self.network)?;
        if !header.is_version_6() || !packet.reaches(self.network, 40) {
            return None;
        }
        self.source = Address::from_v6_bytes(header.source);
        self.destination = Address::from_v6_bytes(header.destination);
        self.protocol = header.next_header;
        self.transport = self.network.plus(40)?;
        for _ in 0..EXTENSIONS {
            let length = if is_stepped_over(self.protocol) {
                let extension = frame.get::<Extension>(self.transport)?;
                self.protocol = extension.next_header;
                (u16::from(extension.length) + 1) * 8
            } else if self.protocol == ipv6::FRAGMENT {
                let fragment = frame.get::<FragmentHeader>(self.transport)?;
                if fragment.is_later() {
                    return None;
                }
                self.protocol = fragment.next_header;
                8
            } else {
                break;
            };
            self.transport = self.transport.plus(length)?;
        }
        Some(())
    }

    /// The first eight bytes of TCP and of UDP: both begin with the ports.
    #[inline(always)]
    fn finish<F: Frame>(&mut self, frame: &F, packet: &Packet) -> Option<()> {
        if self.protocol != protocol::TCP && self.protocol != protocol::UDP {
            return None;
        }
        // Whatever was read before lies in front of this.
        if !packet.reaches(self.transport, usize::from(HEAD_BYTES)) {
            return None;
        }
        let ports = frame.get::<Udp>(self.transport)?;
        self.source_port = ports.source_port;
        self.destination_port = ports.destination_port;
        self.has_tcp_checksum = self.protocol == protocol::TCP
            && packet.reaches(self.transport, usize::from(TCP_CHECKSUM) + 2);
        Some(())
    }

    /// Translates one end of the quote, and the error's own opposite end if it has the same address;
    /// takes one hop off the error. The caller has made sure that a hop is left.
    ///
    /// An error about a packet from an end goes to that end, so the opposite end of the error is the
    /// one that may be the same; it is not where a router in between has sent the error.
    #[inline(always)]
    pub fn translate<F: Frame>(
        &self,
        frame: &mut F,
        packet: &Packet,
        end: End,
        address: Address,
        port: U16,
    ) -> Result<(), Stop> {
        let new = Some(Endpoint { address, port });
        match end {
            End::Source => self.translate_ends(frame, packet, new, None),
            End::Destination => self.translate_ends(frame, packet, None, new),
        }
    }

    /// The same for the ends that become something else; which these are is constant wherever this
    /// is called.
    #[inline(always)]
    pub fn translate_ends<F: Frame>(
        &self,
        frame: &mut F,
        packet: &Packet,
        source: Option<Endpoint>,
        destination: Option<Endpoint>,
    ) -> Result<(), Stop> {
        let (mut addresses, mut outer) = (Change::default(), Change::default());
        let (mut outer_source, mut outer_destination) = (packet.source, packet.destination);
        if let Some(new) = source {
            addresses = addresses.address(self.source, new.address);
            if packet.destination == self.source {
                outer_destination = new.address;
            }
            outer = outer.address(packet.destination, outer_destination);
        }
        if let Some(new) = destination {
            addresses = addresses.address(self.destination, new.address);
            if packet.source == self.destination {
                outer_source = new.address;
            }
            outer = outer.address(packet.source, outer_source);
        }
        // All that changes below is covered by the error's own checksum, also the checksums.
        let mut covered = self.transport(frame, source, destination, addresses)?;
        if packet.is_v4 {
            let quoted = frame.get_mut::<Ipv4>(self.network).ok_or(Stop::Malformed)?;
            let checksum = addresses.apply(quoted.checksum);
            covered = covered.word(quoted.checksum, checksum);
            quoted.checksum = checksum;
            if let Some(new) = source {
                quoted.source = new.address.v4_bytes();
            }
            if let Some(new) = destination {
                quoted.destination = new.address.v4_bytes();
            }
            let header = frame
                .get_mut::<Ipv4>(packet.network)
                .ok_or(Stop::Malformed)?;
            let ttl = header.ttl.wrapping_sub(1);
            let hop = |ttl| U16::from_bytes([ttl, header.protocol]);
            header.checksum = outer.word(hop(header.ttl), hop(ttl)).apply(header.checksum);
            header.ttl = ttl;
            if source.is_some() {
                header.destination = outer_destination.v4_bytes();
            }
            if destination.is_some() {
                header.source = outer_source.v4_bytes();
            }
        } else {
            let quoted = frame.get_mut::<Ipv6>(self.network).ok_or(Stop::Malformed)?;
            if let Some(new) = source {
                quoted.source = new.address.v6_bytes();
                covered = covered.address(packet.destination, outer_destination);
            }
            if let Some(new) = destination {
                quoted.destination = new.address.v6_bytes();
                covered = covered.address(packet.source, outer_source);
            }
            let header = frame
                .get_mut::<Ipv6>(packet.network)
                .ok_or(Stop::Malformed)?;
            header.hop_limit = header.hop_limit.wrapping_sub(1);
            if source.is_some() {
                header.destination = outer_destination.v6_bytes();
            }
            if destination.is_some() {
                header.source = outer_source.v6_bytes();
            }
        }
        let icmp = frame
            .get_mut::<Icmp>(packet.transport)
            .ok_or(Stop::Malformed)?;
        icmp.checksum = covered.apply(icmp.checksum);
        Ok(())
    }

    /// Changes ports and checksum of the quoted transport header; what this and the change of the
    /// `addresses` themselves mean for a checksum over all of it.
    #[inline(always)]
    fn transport<F: Frame>(
        &self,
        frame: &mut F,
        source: Option<Endpoint>,
        destination: Option<Endpoint>,
        addresses: Change,
    ) -> Result<Change, Stop> {
        let head = frame
            .get_mut::<Udp>(self.transport)
            .ok_or(Stop::Malformed)?;
        let mut ends = addresses;
        if let Some(new) = source {
            ends = ends.word(self.source_port, new.port);
            head.source_port = new.port;
        }
        if let Some(new) = destination {
            ends = ends.word(self.destination_port, new.port);
            head.destination_port = new.port;
        }
        if self.protocol == protocol::UDP {
            let old = head.checksum;
            head.checksum = ends.apply_to_udp(old);
            return Ok(ends.word(old, head.checksum));
        }
        if !self.has_tcp_checksum {
            return Ok(ends);
        }
        let at = self.transport.plus(TCP_CHECKSUM).ok_or(Stop::Malformed)?;
        let checksum = frame.get_mut::<U16>(at).ok_or(Stop::Malformed)?;
        let old = *checksum;
        *checksum = ends.apply(old);
        Ok(ends.word(old, *checksum))
    }
}
