//! What is said between the two sides of the gateway, and what becomes of it.

use nlb_common::wire::{
    protocol::TCP,
    tcp::{ACK, FIN, RST, SYN},
};

use super::ways::Side;
use crate::{
    packet::{Sentence, eth},
    world::{FILLER, MTU_BYTES, QUIC, SEQUENCE, SERVERS},
};

/// An address and a port.
pub type End = (&'static str, u16);

/// What must become of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Left to the host, untouched.
    Passed,
    /// Dropped, untouched.
    Dropped,
    /// Sent out through this interface, with these bytes.
    Sent(u32, Vec<u8>),
}

/// What both ends of a packet and its transport header say.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Where it comes from.
    pub source: (&'static str, u16),
    /// Where it goes.
    pub destination: (&'static str, u16),
    /// TCP or UDP.
    pub protocol: u8,
    /// TCP flags; zero for UDP.
    pub flags: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Bytes behind the transport header.
    pub payload_bytes: usize,
    /// Whether an IPv4 packet may not be fragmented.
    pub is_strict: bool,
}

impl Segment {
    /// The segment as a frame, its Ethernet header given.
    pub fn frame(&self, ethernet: Sentence) -> Sentence {
        let parse = |text: &str| text.parse().expect("an address of the world");
        let packet = ethernet
            .ip(parse(self.source.0), parse(self.destination.0))
            .ttl(self.ttl)
            .fragment_word(if self.is_strict { 0x4000 } else { 0 });
        let (from, to) = (self.source.1, self.destination.1);
        let segment = if self.protocol == TCP {
            packet.tcp(from, to).flags(self.flags)
        } else {
            packet.udp(from, to)
        };
        segment.payload(&vec![FILLER; self.payload_bytes])
    }

    pub(super) fn opens(&self) -> bool {
        self.protocol == TCP && self.flags & SYN != 0 && self.flags & ACK == 0
    }

    /// The target that its QUIC connection ID names, if the listener looks at it. The payload is a
    /// short header's: one byte, and the ID.
    pub(super) fn server(&self, listener: u16, group: u16) -> Option<u32> {
        let (_, layout) = QUIC.iter().find(|(other, _)| *other == listener)?;
        if self.payload_bytes < 1 + usize::from(layout.id_bytes) {
            return None;
        }
        let number =
            (0..layout.server_id_bytes).fold(0, |number, _| number << 8 | u64::from(FILLER));
        let server = SERVERS
            .iter()
            .find(|server| (server.0, server.1) == (group, number));
        server.map(|server| server.2)
    }

    fn is_v6(&self) -> bool {
        self.source.0.contains(':')
    }

    /// From the receiver back to the sender.
    fn turned(&self, ethernet: Sentence) -> Sentence {
        let parse = |text: &str| text.parse().expect("an address of the world");
        ethernet.ip(parse(self.destination.0), parse(self.source.0))
    }

    /// What becomes of a segment from this side that is reset: RFC 9293 §3.10.7.1.
    pub(super) fn reset(&self, side: Side) -> Fate {
        if self.flags & RST != 0 {
            return Fate::Dropped;
        }
        let length = u32::try_from(self.payload_bytes).expect("a packet's length")
            + u32::from(self.flags & SYN != 0)
            + u32::from(self.flags & FIN != 0);
        let (flags, acknowledgement) = if self.flags & ACK != 0 {
            (RST, 0)
        } else {
            (RST | ACK, SEQUENCE + length)
        };
        let segment = self
            .turned(side.back())
            .tcp(self.destination.1, self.source.1);
        let segment = segment.flags(flags).sequence(0, acknowledgement);
        Fate::Sent(side.interface(), segment.made_by_nlb().build())
    }

    /// What becomes of a packet from this side that expires here, or does not fit; none if it does neither.
    pub(super) fn refused(
        &self,
        side: Side,
        vip: &str,
        is_routed: bool,
        overhead_bytes: usize,
    ) -> Option<Fate> {
        let is_expired = is_routed && self.ttl <= 1;
        let room_bytes = usize::from(MTU_BYTES) - overhead_bytes;
        let is_big = self.length_bytes() > room_bytes;
        let mtu = u32::try_from(room_bytes).expect("an MTU");
        let (kind, code, number) = match (is_expired, is_big, self.is_v6()) {
            (false, false, _) => return None,
            (true, _, false) => (11, 0, 0),
            (true, _, true) => (3, 0, 0),
            (false, true, false) if !self.is_strict => return Some(Fate::Dropped),
            (false, true, false) => (3, 4, mtu),
            (false, true, true) => (2, 0, mtu),
        };
        let quote: Vec<u8> = self.frame(eth()).build()[14..]
            .iter()
            .copied()
            .take(128)
            .collect();
        let quote = &quote[..quote.len() / 4 * 4];
        let parse = |text: &str| text.parse().expect("an address of the world");
        let class = if self.is_v6() { 0 } else { 0xc0 };
        let error = side
            .back()
            .ip(parse(vip), parse(self.source.0))
            .class(class);
        let error = error.icmp_error(kind, code, number).payload(quote);
        Some(Fate::Sent(side.interface(), error.made_by_nlb().build()))
    }

    /// Bytes of the IP packet.
    fn length_bytes(&self) -> usize {
        let network = if self.source.0.contains(':') { 40 } else { 20 };
        let transport = if self.protocol == TCP { 20 } else { 8 };
        network + transport + self.payload_bytes
    }
}
