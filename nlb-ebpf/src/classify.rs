//! 2. Is it ours, and which way does it go?
//!
//! Two bits of the prefilter answer for nearly all traffic that is not: one for the packet's
//! destination (a listener?), one for its source (a translated target?).

use nlb_common::{
    listener::ListenerKey,
    maps::{Prefilter, Side},
    stop::Stop,
};
use zerocopy::big_endian::U16;

use crate::{
    Verdict,
    frame::Frame,
    parse::{Kind, Packet, parse},
    tables::Tables,
    to_client::to_client,
    to_target::to_target,
};

/// Everything that can happen to a frame.
#[inline(always)]
pub fn classify<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Stop> {
    let packet = parse(frame)?;
    if packet.kind != Kind::Transport {
        return Err(without_ports(&packet, tables));
    }
    let (word, mask) = Prefilter::bit(
        Side::Listener,
        packet.destination,
        packet.protocol,
        packet.destination_port,
    );
    if tables.prefilter(word, mask) {
        match to_target(frame, &packet, tables) {
            Err(Stop::NotOurs) => {}
            told => return told,
        }
    }
    let (word, mask) = Prefilter::bit(
        Side::Target,
        packet.source,
        packet.protocol,
        packet.source_port,
    );
    if tables.prefilter(word, mask) {
        return to_client(frame, &packet, tables);
    }
    Err(Stop::NotOurs)
}

/// What to do with a packet that has no ports: only its destination can say whether it is ours.
#[inline(always)]
fn without_ports<T: Tables>(packet: &Packet, tables: &T) -> Stop {
    let (word, mask) = Prefilter::bit(Side::Listener, packet.destination, 0, U16::ZERO);
    if !tables.prefilter(word, mask)
        || tables
            .listener_id(&ListenerKey::vip(packet.destination))
            .is_none()
    {
        return Stop::NotOurs;
    }
    if packet.is_tagged && packet.kind != Kind::Other {
        return Stop::VlanTagged;
    }
    match packet.kind {
        Kind::Fragment => Stop::Fragment,
        Kind::Icmp => Stop::Icmp,
        Kind::Malformed => Stop::Malformed,
        Kind::Transport | Kind::Other => Stop::NotOurs,
    }
}
