//! 2. Is it ours, and which way does it go?
//!
//! The prefilter answers for nearly all traffic that is not, by the packet's destination (a
//! listener?) and its source (a translated target?).

use nlb_common::{
    address::Address,
    listener::ListenerKey,
    maps::{AddressBits, Prefilter, Side},
    stop::Stop,
    wire::protocol,
};
use zerocopy::big_endian::U16;

use crate::{
    Exit, Stage, Verdict,
    frame::{Frame, Offset},
    icmp::{Message, message},
    parse::{Kind, Packet, parse},
    tables::Tables,
    to_client::to_client,
    to_target::to_target,
};

/// The stage that looks at any packet.
#[inline(always)]
pub fn classify<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Exit> {
    let packet = parse(frame)?;
    match packet.kind {
        Kind::Transport => {}
        Kind::FirstFragment => return Err(first_fragment(&packet, tables)),
        Kind::LaterFragment => return Err(later_fragment(&packet, tables)),
        Kind::Icmp => return Err(icmp_of_ours(frame, &packet, tables)),
        _ => return Err(Exit::Stop(without_ports(&packet, tables))),
    }
    if may_be_for_a_listener(&packet, tables) {
        to_target(frame, &forgotten(packet, tables), tables)
    } else if may_be_an_answer(&packet, tables) {
        to_client::<false, F, T>(frame, &forgotten(packet, tables), tables)
    } else {
        Err(Exit::Stop(Stop::NotOurs))
    }
}

/// The stage of packets that may be a target's answer and need more than forwarding: the first of
/// a flow, or the first after a change of the way back.
#[inline(always)]
pub fn back<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Exit> {
    let packet = parse(frame)?;
    frame.forget_ends();
    to_client::<true, F, T>(frame, &forgotten(packet, tables), tables)
}

/// Whether nothing of a packet's addresses may be ours, whatever else it says.
#[inline(always)]
pub fn is_nobodys(prefilter: &Prefilter, source: Address, destination: Address) -> bool {
    prefilter.word(AddressBits::of(Side::Listener, destination)) == 0
        && prefilter.word(AddressBits::of(Side::Target, source)) == 0
}

/// Whether the prefilter admits a packet's destination as a listener.
#[inline(always)]
pub fn may_be_for_a_listener<T: Tables>(packet: &Packet, tables: &T) -> bool {
    let (address, port) = (packet.destination, packet.destination_port);
    admits(tables, Side::Listener, address, packet.protocol, port)
}

/// Whether the prefilter admits a packet's source as a translated target.
#[inline(always)]
pub fn may_be_an_answer<T: Tables>(packet: &Packet, tables: &T) -> bool {
    let (address, port) = (packet.source, packet.source_port);
    admits(tables, Side::Target, address, packet.protocol, port)
}

/// Whether the prefilter admits an endpoint.
#[inline(always)]
pub fn admits<T: Tables>(
    tables: &T,
    side: Side,
    address: Address,
    protocol: u8,
    port: U16,
) -> bool {
    tables
        .prefilter()
        .is_some_and(|prefilter| prefilter.admits(side, address, protocol, port))
}

/// The same packet, of which the verifier no longer knows how it was parsed; of its kind is kept
/// whether it is a first fragment.
///
/// VERIFIER: or it follows the rest of the program once for each way there.
#[inline(always)]
pub fn forgotten<T: Tables>(packet: Packet, tables: &T) -> Packet {
    // Bytes of an address, whichever version it has.
    let unknown = packet.source.words[1] >> 32;
    let forget = |value: u8| {
        let [low, ..] = tables.forget(u64::from(value), unknown).to_le_bytes();
        low
    };
    Packet {
        protocol: forget(packet.protocol),
        network: Offset(forget(packet.network.0)),
        transport: Offset(forget(packet.transport.0)),
        fragment_header: Offset(forget(packet.fragment_header.0)),
        is_v4: forget(u8::from(packet.is_v4)) != 0,
        kind: if forget(u8::from(packet.kind == Kind::FirstFragment)) == 0 {
            Kind::Transport
        } else {
            Kind::FirstFragment
        },
        ..packet
    }
}

/// Where the story of an ICMP message goes on: only one to a VIP, or an error, which may be about a
/// target, can concern us.
#[inline(always)]
fn icmp_of_ours<F: Frame, T: Tables>(frame: &F, packet: &Packet, tables: &T) -> Exit {
    if may_be_for_a_vip(packet, tables) || message(frame, packet) == Message::Error {
        Exit::Go(Stage::Icmp)
    } else {
        Exit::Stop(Stop::NotOurs)
    }
}

/// A first fragment has ports and goes the way of all packets, but leaves a record for the later
/// ones; which [`crate::depart`] and [`back`] do. One of ICMP has none, and may be an echo request's.
#[inline(always)]
fn first_fragment<T: Tables>(packet: &Packet, tables: &T) -> Exit {
    if is_icmp(packet) {
        if may_be_for_a_vip(packet, tables) {
            Exit::Go(Stage::Icmp)
        } else {
            Exit::Stop(Stop::NotOurs)
        }
    } else if may_be_for_a_listener(packet, tables) {
        Exit::Go(Stage::Begin)
    } else if may_be_an_answer(packet, tables) {
        Exit::Go(Stage::Back)
    } else {
        Exit::Stop(Stop::NotOurs)
    }
}

/// Whether a packet is one of ICMP, of either version.
#[inline(always)]
pub fn is_icmp(packet: &Packet) -> bool {
    matches!(packet.protocol, protocol::ICMP | protocol::ICMPV6)
}

/// Whether the prefilter admits a packet's destination as a VIP, whatever the port.
#[inline(always)]
pub fn may_be_for_a_vip<T: Tables>(packet: &Packet, tables: &T) -> bool {
    admits(tables, Side::Listener, packet.destination, 0, U16::ZERO)
}

/// A later fragment is looked for if its destination may be a VIP or its source a translated target:
/// addresses are all that it has.
#[inline(always)]
fn later_fragment<T: Tables>(packet: &Packet, tables: &T) -> Exit {
    let address = Packet {
        protocol: 0,
        ..*packet
    };
    if may_be_for_a_listener(&address, tables) || may_be_an_answer(&address, tables) {
        Exit::Go(Stage::Fragment)
    } else {
        Exit::Stop(Stop::NotOurs)
    }
}

/// What to do with a packet that has no ports: only its destination can say whether it is ours.
#[inline(always)]
fn without_ports<T: Tables>(packet: &Packet, tables: &T) -> Stop {
    if !may_be_for_a_vip(packet, tables)
        || tables
            .listener_id(&ListenerKey::vip(packet.destination))
            .is_none()
    {
        return Stop::NotOurs;
    }
    match packet.kind {
        Kind::Fragment => Stop::Fragment,
        Kind::TinyFragment => Stop::TinyFragment,
        Kind::Malformed => Stop::Malformed,
        Kind::Transport | Kind::FirstFragment | Kind::LaterFragment | Kind::Icmp | Kind::Other => {
            Stop::NotOurs
        }
    }
}
