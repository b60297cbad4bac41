//! ICMP: echo requests to a VIP are answered, and errors reach whoever sent what they are about.
//!
//! ```text
//!  client ◄── router ─ "too big: VIP → client" ──► us ─ "too big: target → client" ──► target
//!  client ◄─ "too big: client → VIP" ─ us ◄─ "too big: client → target" ── router ──► target
//! ```
//!
//! An error counts for nothing in the flow that it is about: anybody can send one. What cannot be
//! read, or is about nothing that we know, is the host's; without these errors a path with a smaller
//! MTU swallows every large packet (RFC 2923 §2.1).

use nlb_common::{
    address::Address,
    flow::{Choice, Client},
    fragment::Way,
    listener::{ListenerId, ListenerKey},
    maps::Side,
    next_hop::NextHop,
    stop::Stop,
    target::{Mode, TargetId},
    wire::{
        ethernet::Ethernet,
        icmp::{Icmp, v4, v6},
        ipv4::Ipv4,
        ipv6::Ipv6,
        protocol,
    },
};
use zerocopy::big_endian::U16;

use crate::{
    Exit, Stage, Verdict,
    classify::{admits, forgotten, may_be_for_a_vip},
    emit::{UNTAGGED, emit, fits, has_a_hop_left, route},
    flows::{self, Found, Place},
    fragment,
    frame::{Frame, Offset},
    parse::{Kind, Packet, parse},
    quote::Quote,
    rewrite::End,
    select::{Chosen, select},
    snat::{self, icmp::Addressee},
    tables::{Passage, PassageKind, Tables},
    to_client::{is_served_by, is_source_translated, remembered_way},
    to_target::{self, listener_of},
    tunnel::{overhead_bytes, wrap},
};

/// What an ICMP message is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Asks for an answer.
    Echo,
    /// Is about a packet, which it quotes.
    Error,
    /// Anything else: neighbour discovery above all, which is the host's.
    Other,
}

/// TTL or hop limit of what we say ourselves (RFC 1700, "Assigned Numbers").
const OWN_TTL: u8 = 64;

/// What kind of message a packet of [`crate::parse::Kind::Icmp`] is.
#[inline(always)]
pub fn message<F: Frame>(frame: &F, packet: &Packet) -> Message {
    let Some(header) = frame.get::<Icmp>(packet.transport) else {
        return Message::Other;
    };
    if !packet.reaches(packet.transport, size_of::<Icmp>()) {
        return Message::Other;
    }
    match (packet.is_v4, packet.protocol, header.kind) {
        (true, protocol::ICMP, v4::ECHO) | (false, protocol::ICMPV6, v6::ECHO) => Message::Echo,
        (true, protocol::ICMP, v4::UNREACHABLE | v4::TIME_EXCEEDED | v4::PARAMETER_PROBLEM)
        | (
            false,
            protocol::ICMPV6,
            v6::UNREACHABLE | v6::TOO_BIG | v6::TIME_EXCEEDED | v6::PARAMETER_PROBLEM,
        ) => Message::Error,
        _ => Message::Other,
    }
}

/// The stage of ICMP messages to a VIP, and of ICMP errors to anybody.
#[inline(always)]
pub fn icmp<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Exit> {
    let packet = forgotten(parse(frame)?, tables);
    let message = message(frame, &packet);
    let is_fragment = packet.kind == Kind::FirstFragment;
    if may_be_for_a_vip(&packet, tables)
        && let Some(listener) = tables.listener_id(&ListenerKey::vip(packet.destination))
    {
        return match message {
            Message::Echo => Err(Exit::Stop(echo(frame, &packet, tables, listener))),
            _ if is_fragment => Err(Exit::Stop(Stop::Fragment)),
            Message::Error => error_to_target(frame, &packet, tables),
            Message::Other => Err(Exit::Stop(Stop::Icmp)),
        };
    }
    if message == Message::Error && !is_fragment {
        error_to_client(frame, &packet, tables)
    } else {
        Err(Exit::Stop(Stop::NotOurs))
    }
}

/// Answers an echo request in place: both ends change sides.
///
/// Options and extension headers may ask for more than that (a route to be reversed, RFC 1122
/// §3.2.2.6), so those are the host's; as is what came from, or to, more than one. Not so the first
/// fragment of such a request, whose later ones would not follow it there.
///
/// The checksum covers the whole request and stands in its first fragment. What changes, changes
/// there, and the later ones come back as they are ([`fragment::fragment`]).
#[inline(always)]
fn echo<F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    tables: &T,
    listener: ListenerId,
) -> Stop {
    if !answers_echo(tables, listener) {
        return Stop::Icmp;
    }
    let is_fragment = packet.kind == Kind::FirstFragment;
    let header_bytes = match (packet.is_v4, is_fragment) {
        (true, _) => 20,
        (false, false) => 40,
        (false, true) => 48,
    };
    let refused = if is_fragment {
        Stop::Fragment
    } else {
        Stop::Icmp
    };
    if packet.network.plus(header_bytes) != Some(packet.transport)
        || !is_one_host(packet.source, packet.is_v4)
        || is_for_a_group(frame)
    {
        return refused;
    }
    if is_fragment {
        fragment::remember(packet, tables, listener, TargetId(0), Way::Echo);
    }
    answer(frame, packet).unwrap_or(refused)
}

/// Whether echo requests to a listener's VIP are answered here, and not left to the host.
#[inline(always)]
pub(crate) fn answers_echo<T: Tables>(tables: &T, listener: ListenerId) -> bool {
    match tables.listener(listener) {
        Some(listener) => listener.policy().flags.answers_echo(),
        None => false,
    }
}

/// Whether an address can be that of one host elsewhere.
#[inline(always)]
pub(crate) const fn is_one_host(address: Address, is_v4: bool) -> bool {
    if is_v4 {
        let [first, ..] = address.v4_bytes();
        first != 0 && first != 127 && first < 224
    } else {
        let [first, ..] = address.v6_bytes();
        address.words[0] != 0 && first != 0xff
    }
}

/// The group bit of a MAC address's first byte (IEEE 802).
const GROUP: u8 = 1;

/// Whether the frame was sent to more than one.
#[inline(always)]
fn is_for_a_group<F: Frame>(frame: &F) -> bool {
    match frame.get::<Ethernet>(Offset(0)) {
        Some(ethernet) => ethernet.destination.0[0] & GROUP != 0,
        None => true,
    }
}

#[inline(always)]
fn answer<F: Frame>(frame: &mut F, packet: &Packet) -> Option<Stop> {
    return_to_sender(frame, packet)?;
    let reply = if packet.is_v4 {
        v4::ECHO_REPLY
    } else {
        v6::ECHO_REPLY
    };
    let icmp = frame.get_mut::<Icmp>(packet.transport)?;
    let word = |kind| U16::from_bytes([kind, icmp.code]);
    icmp.checksum = crate::checksum::Change::default()
        .word(word(icmp.kind), word(reply))
        .apply(icmp.checksum);
    icmp.kind = reply;
    Some(Stop::IcmpEcho)
}

/// Changes the sides of a packet's ends, as the frame's and in the IP header, with hops of our own.
#[inline(always)]
pub(crate) fn return_to_sender<F: Frame>(frame: &mut F, packet: &Packet) -> Option<()> {
    let ethernet = frame.get_mut::<Ethernet>(Offset(0))?;
    (ethernet.destination, ethernet.source) = (ethernet.source, ethernet.destination);
    if packet.is_v4 {
        let header = frame.get_mut::<Ipv4>(packet.network)?;
        let hop = |ttl| U16::from_bytes([ttl, packet.protocol]);
        header.checksum = crate::checksum::Change::default()
            .word(hop(header.ttl), hop(OWN_TTL))
            .apply(header.checksum);
        header.ttl = OWN_TTL;
        header.source = packet.destination.v4_bytes();
        header.destination = packet.source.v4_bytes();
    } else {
        let header = frame.get_mut::<Ipv6>(packet.network)?;
        header.hop_limit = OWN_TTL;
        header.source = packet.destination.v6_bytes();
        header.destination = packet.source.v6_bytes();
    }
    Some(())
}

/// An error that is addressed to a VIP, about what a target sent from there: to that target.
///
/// Where nothing is translated the target follows from the addresses alone, so any node can send
/// the error on, not only the one that saw the flow begin.
#[inline(always)]
fn error_to_target<F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    tables: &T,
) -> Result<Verdict, Exit> {
    let mut quote = Quote::UNREAD;
    quote.read(frame, packet).ok_or(Stop::IcmpUnreadable)?;
    if quote.source != packet.destination {
        return Err(Exit::Stop(Stop::IcmpUnreadable));
    }
    // The flow's packets as they come from the client: the quoted one, the other way round.
    let forth = Packet {
        source: quote.destination,
        destination: quote.source,
        source_port: quote.destination_port,
        destination_port: quote.source_port,
        protocol: quote.protocol,
        ..*packet
    };
    let client = Client {
        address: forth.source,
        port: forth.source_port,
        protocol: forth.protocol,
    };
    let place = Place::of(tables, &client);
    let found = flows::find(tables, place, &client, |choice, _| {
        match tables.listener(choice.listener) {
            Some(listener) => {
                listener.is(forth.destination, forth.protocol, forth.destination_port)
            }
            None => false,
        }
    });
    if tables.translates_sources() && found.entry.is_some_and(is_source_translated) {
        return Err(snat::icmp::go(tables, Addressee::Vip));
    }
    let (listener, target, kind) = destined(frame, &forth, tables, &found)?;
    let next_hop = to_target::way(frame, packet, packet.source, tables, &target)?;
    let is_tunnel = target.control.mode.is_tunnel();
    fits(packet, overhead_bytes(&target), &next_hop)?;
    if target.control.mode == Mode::NAT {
        has_a_hop_left(packet)?;
        let (address, port) = (target.record.address(), target.record.port());
        quote.translate(frame, packet, End::Source, address, port)?;
    }
    let mut network = packet.network;
    if is_tunnel {
        wrap(frame, packet, tables, &target, place.entropy())?;
        network = UNTAGGED;
    }
    tables.count(&Passage {
        listener,
        target: target.id,
        length_bytes: packet.length_bytes,
        kind,
    });
    Ok(emit(frame, network, &next_hop)?)
}

/// The listener and the target of a flow's packets from the client, `forth` one of them: what is
/// remembered of the flow, or what the ring says, which nothing that is translated goes by.
#[inline(always)]
pub(crate) fn destined<'t, F: Frame, T: Tables>(
    frame: &F,
    forth: &Packet,
    tables: &'t T,
    found: &Found<'_>,
) -> Result<(ListenerId, Chosen<'t>, PassageKind), Stop> {
    if found.entry.is_some() {
        let choice = Choice::of_word(found.word);
        let target = Chosen::of(tables, choice.target)?;
        return Ok((choice.listener, target, PassageKind::Known));
    }
    let listener = listener_of(forth, tables).map_err(|_| Stop::IcmpUnknownFlow)?;
    let (target, _) = select(frame, tables, forth, listener, false)?;
    if target.control.mode.is_translated() {
        return Err(Stop::IcmpUnknownFlow);
    }
    Ok((listener, target, PassageKind::Unpinned))
}

/// An error from a target, or from a router on the way there, about what a client sent: to that
/// client, which knows the VIP only.
#[inline(always)]
fn error_to_client<F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    tables: &T,
) -> Result<Verdict, Exit> {
    let mut quote = Quote::UNREAD;
    let is_read = quote.read(frame, packet).is_some();
    if quote.source != packet.destination {
        return Err(Exit::Stop(Stop::NotOurs));
    }
    if may_be_for(Side::Tunnel, &quote, tables) {
        return Err(Exit::Go(Stage::OuterError));
    }
    if !is_read || !may_be_for(Side::Target, &quote, tables) {
        return Err(Exit::Stop(Stop::NotOurs));
    }
    let client = Client {
        address: quote.source,
        port: quote.source_port,
        protocol: quote.protocol,
    };
    let found = flows::find(
        tables,
        Place::of(tables, &client),
        &client,
        |choice, entry| {
            is_served_by(
                tables,
                choice,
                quote.destination,
                quote.destination_port,
                &mut false,
            ) && !(tables.translates_sources() && is_source_translated(entry))
        },
    );
    let Some(entry) = found.entry else {
        // Perhaps the flow's packets have a source of ours.
        return Err(if tables.translates_sources() {
            snat::icmp::go(tables, Addressee::Pool)
        } else {
            Exit::Stop(Stop::NotOurs)
        });
    };
    let choice = Choice::of_word(found.word);
    let listener = tables
        .listener(choice.listener)
        .ok_or(Stop::UnwrittenListener)?;
    let key = listener.key().ok_or(Stop::UnwrittenListener)?;
    has_a_hop_left(packet)?;
    let remembered = remembered_way(tables, choice, entry.progress().epoch);
    let next_hop = way_back(frame, packet, tables, remembered)?;
    fits(packet, 0, &next_hop)?;
    quote.translate(frame, packet, End::Destination, key.address, key.port)?;
    tables.count(&Passage {
        listener: choice.listener,
        target: choice.target,
        length_bytes: packet.length_bytes,
        kind: PassageKind::Return,
    });
    Ok(emit(frame, packet.network, &next_hop)?)
}

/// Whether the prefilter admits a quoted packet's receiver as a translated target, or as a tunnel's.
#[inline(always)]
fn may_be_for<T: Tables>(side: Side, quote: &Quote, tables: &T) -> bool {
    let (address, port) = (quote.destination, quote.destination_port);
    admits(tables, side, address, quote.protocol, port)
}

/// The way to the client: the flow's, or else what the routes say; what they say is not remembered,
/// because the flow's next packet will ask, too.
#[inline(always)]
fn way_back<F: Frame, T: Tables>(
    frame: &F,
    packet: &Packet,
    tables: &T,
    remembered: Option<NextHop>,
) -> Result<NextHop, Stop> {
    match remembered {
        Some(next_hop) => Ok(next_hop),
        None => Ok(route(frame, tables, packet, packet.source, packet.destination)?.next_hop),
    }
}
