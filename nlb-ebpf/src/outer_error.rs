//! ICMP errors about outer packets: what a router between us and a tunnel's target, or the target
//! itself, has to say of a packet that we wrapped.
//!
//! ```text
//!  client ◄─ "too big: client → VIP" ─ us ◄─ "too big: us → target (client → VIP …" ─ router ┄► target
//! ```
//!
//! It is addressed to us, because we are the outer packet's sender, and means nothing to the client
//! as it is. So the client is told the same of its own packet, as far as the error quotes that: that
//! it is too big, by an MTU less what the tunnel takes, or that its receiver cannot be reached, which
//! is all that the rest comes to from outside of the tunnel (RFC 2003 §4, RFC 2473 §8, RFC 4459 §3.1).
//! The message is one of our own, from the VIP, and limited as all of these are.
//!
//! What quotes too little (RFC 792 asks for eight bytes only) is counted, and the host's; so is what
//! a client cannot do anything about.

use nlb_common::{
    address::Address,
    stop::Stop,
    target::Mode,
    wire::{
        ethernet,
        geneve::Geneve,
        gue::Gue,
        icmp::{Icmp, v4, v6},
        ipv4::Ipv4,
        ipv6::Ipv6,
        protocol,
        udp::Udp,
    },
};
use zerocopy::big_endian::U16;

use crate::{
    Exit, Verdict,
    answer::{QUOTE_BYTES, Said, end_at, spend, write_error},
    classify::forgotten,
    emit::{UNTAGGED, emit, route},
    frame::{Frame, Offset},
    icmp::{destined, is_one_host},
    parse::{Packet, parse},
    quote::Quote,
    select::Chosen,
    tables::{Passage, PassageKind, Tables},
    to_target::{Arrival, find},
    tunnel::{self, overhead_bytes},
};

/// The stage of ICMP errors about what may be an outer packet of ours.
#[inline(always)]
pub fn outer_error<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Exit> {
    let packet = forgotten(parse(frame)?, tables);
    frame.forget_ends();
    let unreadable = Stop::OuterErrorUnreadable;
    let mut outer = Outer::UNREAD;
    outer.read(frame, &packet)?;
    outer.forget(&packet, tables);
    frame.forget_ends();
    let mut quote = Quote::UNREAD;
    quote
        .read_at(frame, &packet, outer.inside, outer.inner_is_v4)
        .ok_or(unreadable)?;
    // The packet as it came from the client.
    let forth = Packet {
        source: quote.source,
        destination: quote.destination,
        source_port: quote.source_port,
        destination_port: quote.destination_port,
        protocol: quote.protocol,
        ..packet
    };
    let arrival = Arrival::of(&forth, tables);
    let found = find(&forth, tables, &arrival, |_| {});
    let (listener, target, _) =
        destined(frame, &forth, tables, &found).map_err(|_| Stop::NotOurs)?;
    if !outer.is_for(&packet, tables, &target) || !is_one_host(quote.source, outer.inner_is_v4) {
        return Err(Exit::Stop(Stop::NotOurs));
    }
    let said = outer
        .told(frame, &packet, overhead_bytes(&target))
        .ok_or(Stop::OuterErrorUntold)?;
    let quoted = outer.quoted_bytes(frame, &packet).ok_or(unreadable)?;
    // To the sender of this, which is what is left of the frame.
    let left = Packet {
        source: quote.source,
        destination: quote.destination,
        is_v4: outer.inner_is_v4,
        network: UNTAGGED,
        ..packet
    };
    let next_hop = route(frame, tables, &left, quote.destination, quote.source)?.next_hop;
    spend(tables)?;
    let (front, ether_type) = if outer.inner_is_v4 {
        (UNTAGGED.0 + 28, ethernet::IPV4)
    } else {
        (UNTAGGED.0 + 48, ethernet::IPV6)
    };
    frame.move_start(i16::from(front) - i16::from(outer.inside.0))?;
    end_at(frame, u16::from(front) + quoted)?;
    *frame.get_mut::<U16>(Offset(12)).ok_or(Stop::Malformed)? = ether_type;
    write_error(frame, &left, tables, quote.destination, &said, quoted)?;
    tables.count(&Passage {
        listener,
        target: target.id,
        length_bytes: packet.length_bytes,
        kind: PassageKind::Return,
    });
    Ok(emit(frame, UNTAGGED, &next_hop)?)
}

/// The headers around a packet, as an error quotes them.
#[derive(Clone, Copy, Debug)]
struct Outer {
    destination: Address,
    mode: Mode,
    /// The UDP port that they are for, if they have one.
    port: U16,
    /// Where the packet inside stands.
    inside: Offset,
    inner_is_v4: bool,
}

impl Outer {
    const UNREAD: Self = Self {
        destination: Address::UNSPECIFIED,
        mode: Mode::DSR_IPIP,
        port: U16::ZERO,
        inside: Offset(0),
        inner_is_v4: false,
    };

    /// Reads what [`tunnel::wrap`] may have written; [`Stop::NotOurs`] if it was somebody else, of whose
    /// packet the prefilter knew no better.
    ///
    /// VERIFIER: in place, as in [`Quote::read`].
    #[inline(always)]
    fn read<F: Frame>(&mut self, frame: &F, packet: &Packet) -> Result<(), Stop> {
        let cut = Stop::OuterErrorUnreadable;
        let at = packet.transport.plus(8).ok_or(cut)?;
        let (source, behind, number) = if packet.is_v4 {
            let header = frame.get::<Ipv4>(at).ok_or(cut)?;
            if header.version_and_length != 0x45 {
                return Err(Stop::NotOurs);
            }
            self.destination = Address::from_v4_bytes(header.destination);
            let source = Address::from_v4_bytes(header.source);
            (source, at.plus(20).ok_or(cut)?, header.protocol)
        } else {
            let header = frame.get::<Ipv6>(at).ok_or(cut)?;
            self.destination = Address::from_v6_bytes(header.destination);
            let source = Address::from_v6_bytes(header.source);
            (source, at.plus(40).ok_or(cut)?, header.next_header)
        };
        if source != packet.destination {
            return Err(Stop::NotOurs);
        }
        match number {
            protocol::UDP => self.shim(frame, packet, behind).ok_or(cut),
            protocol::IPV4 | protocol::IPV6 => {
                self.inside = behind;
                self.inner_is_v4 = number == protocol::IPV4;
                Ok(())
            }
            _ => Err(Stop::NotOurs),
        }
    }

    /// GUE's and Geneve's headers are told apart by the second byte: the one has the protocol there,
    /// the other nothing.
    #[inline(always)]
    fn shim<F: Frame>(&mut self, frame: &F, packet: &Packet, at: Offset) -> Option<()> {
        let shim = at.plus(8)?;
        if !packet.reaches(shim, size_of::<Geneve>()) {
            return None;
        }
        self.port = frame.get::<Udp>(at)?.destination_port;
        let gue = frame.get::<Gue>(shim)?.protocol;
        if gue == protocol::IPV4 || gue == protocol::IPV6 {
            self.mode = Mode::DSR_GUE;
            self.inner_is_v4 = gue == protocol::IPV4;
            self.inside = shim.plus(4)?;
        } else {
            self.mode = Mode::DSR_GENEVE;
            self.inner_is_v4 = frame.get::<Geneve>(shim)?.protocol == ethernet::IPV4;
            self.inside = shim.plus(8)?;
        }
        Some(())
    }

    /// VERIFIER: it would follow the rest once for each kind of headers.
    #[inline(always)]
    fn forget<T: Tables>(&mut self, packet: &Packet, tables: &T) {
        let unknown = packet.source.words[1] >> 32;
        let forget = |value: u8| {
            let [low, ..] = tables.forget(u64::from(value), unknown).to_le_bytes();
            low
        };
        self.mode = Mode(forget(self.mode.0));
        self.inside = Offset(forget(self.inside.0));
        self.inner_is_v4 = forget(u8::from(self.inner_is_v4)) != 0;
    }

    /// Whether these are the headers that packets to a target get, sent from where `packet` came.
    #[inline(always)]
    fn is_for<T: Tables>(&self, packet: &Packet, tables: &T, target: &Chosen<'_>) -> bool {
        let Ok(end) = tunnel::end(tables, target) else {
            return false;
        };
        let [first, last] = packet.destination.words;
        target.control.mode == self.mode
            && target.record.address() == self.destination
            && end.source.words == [first, last & !end.spread]
            && (self.mode == Mode::DSR_IPIP || end.port() == self.port)
    }

    /// What a client is told; nothing if there is nothing that it could do.
    #[inline(always)]
    fn told<F: Frame>(&self, frame: &F, packet: &Packet, overhead_bytes: u16) -> Option<Said> {
        let icmp = frame.get::<Icmp>(packet.transport)?;
        let [a, b, c, d] = icmp.rest;
        let is_too_big = match (packet.is_v4, icmp.kind, icmp.code) {
            (true, v4::UNREACHABLE, v4::FRAGMENTATION_NEEDED) | (false, v6::TOO_BIG, _) => true,
            // We named no way.
            (true, v4::UNREACHABLE, v4::SOURCE_ROUTE_FAILED) => return None,
            (true, v4::UNREACHABLE | v4::TIME_EXCEEDED, _)
            | (false, v6::UNREACHABLE | v6::TIME_EXCEEDED, _) => false,
            // Of headers that the client has not written.
            _ => return None,
        };
        if !is_too_big {
            return Some(Said::host_unreachable(self.inner_is_v4));
        }
        // IPv6 has room for an MTU that no packet needs to be told of.
        if !packet.is_v4 && (a, b) != (0, 0) {
            return None;
        }
        let left = u16::from_be_bytes([c, d]).checked_sub(overhead_bytes)?;
        if left < SMALLEST_MTU_BYTES || !self.must_not_be_fragmented(frame) {
            return None;
        }
        Some(Said::too_big(self.inner_is_v4, left))
    }

    /// Whether the packet inside may not be fragmented; otherwise its sender would not believe us
    /// (RFC 1191 §3).
    #[inline(always)]
    fn must_not_be_fragmented<F: Frame>(&self, frame: &F) -> bool {
        !self.inner_is_v4
            || frame
                .get::<Ipv4>(self.inside)
                .is_some_and(Ipv4::must_not_be_fragmented)
    }

    /// How much of the packet inside a client is shown, in whole words: what the error quotes of it,
    /// without the extensions that may follow (RFC 4884 §3), and no more than in all our errors.
    #[inline(always)]
    fn quoted_bytes<F: Frame>(&self, frame: &F, packet: &Packet) -> Option<u16> {
        let icmp = frame.get::<Icmp>(packet.transport)?;
        let [a, b, ..] = icmp.rest;
        let original = match (packet.is_v4, icmp.kind) {
            (true, _) => u16::from(b) * 4,
            (false, v6::UNREACHABLE | v6::TIME_EXCEEDED) => u16::from(a) * 8,
            (false, _) => 0,
        };
        let mut end = u16::from(packet.network.0) + packet.length_bytes;
        if original != 0 {
            end = end.min(u16::from(packet.transport.0) + 8 + original);
        }
        let length = if self.inner_is_v4 {
            frame.get::<Ipv4>(self.inside)?.total_length.get()
        } else {
            let payload = frame.get::<Ipv6>(self.inside)?.payload_length.get();
            payload.saturating_add(40)
        };
        let quoted = end.checked_sub(u16::from(self.inside.0))?.min(length);
        let quoted = quoted.min(QUOTE_BYTES) & !3;
        (quoted >= SHORTEST_QUOTE_BYTES).then_some(quoted)
    }
}

/// No link takes less (RFC 791 §3.2).
const SMALLEST_MTU_BYTES: u16 = 68;
/// An IPv4 header, and the ports and four bytes more: what every error quotes.
const SHORTEST_QUOTE_BYTES: u16 = 28;
