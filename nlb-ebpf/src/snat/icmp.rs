//! The stage of ICMP errors about flows whose source is translated.

use nlb_common::{flow::Choice, stop::Stop};

use super::{known::decided, owner::owner};
use crate::{
    Exit, Stage, Verdict,
    classify::forgotten,
    emit::{emit, fits, has_a_hop_left, route},
    frame::Frame,
    parse::{Packet, parse},
    quote::Quote,
    rewrite::Endpoint,
    tables::{Passage, PassageKind, Tables},
    to_client::remembered_way,
    to_target::{Arrival, way},
};

/// Whom the stage before saw the error addressed to, as the word that is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Addressee {
    /// A VIP: it is about an answer, and for the target.
    Vip,
    /// Perhaps the pool: then it is about a request, and for the client.
    Pool,
}

/// Goes on to [`Stage::SnatIcmp`].
#[inline(always)]
pub fn go<T: Tables>(tables: &T, addressee: Addressee) -> Exit {
    tables.hand_over(addressee as u64);
    Exit::Go(Stage::SnatIcmp)
}

/// Translates an error and what it quotes as the flow's packets are, the other way round.
#[inline(always)]
pub fn icmp<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Exit> {
    let packet = forgotten(parse(frame)?, tables);
    frame.forget_ends();
    let mut quote = Quote::UNREAD;
    quote.read(frame, &packet).ok_or(Stop::NotOurs)?;
    if tables.handed_over() == Addressee::Vip as u64 {
        to_target(frame, &packet, &quote, tables)
    } else {
        to_client(frame, &packet, &quote, tables)
    }
}

#[inline(always)]
fn to_target<F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    quote: &Quote,
    tables: &T,
) -> Result<Verdict, Exit> {
    let forth = quote.forth(packet);
    let arrival = Arrival::of(&forth, tables);
    let (decision, source) = decided::<false, T>(&forth, tables, &arrival)?;
    let next_hop = way(frame, packet, packet.source, tables, &decision.target)?;
    fits(packet, 0, &next_hop)?;
    has_a_hop_left(packet)?;
    let record = decision.target.record;
    let target = Endpoint {
        address: record.address(),
        port: record.port(),
    };
    quote.translate_ends(frame, packet, Some(target), Some(source))?;
    tables.count(&Passage {
        listener: decision.listener,
        target: decision.target.id,
        length_bytes: packet.length_bytes,
        kind: PassageKind::Known,
    });
    Ok(emit(frame, packet.network, &next_hop)?)
}

#[inline(always)]
fn to_client<F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    quote: &Quote,
    tables: &T,
) -> Result<Verdict, Exit> {
    let target = Endpoint {
        address: quote.destination,
        port: quote.destination_port,
    };
    let source = Endpoint {
        address: quote.source,
        port: quote.source_port,
    };
    let owner = owner(tables, target, source, quote.protocol);
    let entry = owner.found.entry.ok_or(Stop::NotOurs)?;
    let choice = Choice::of_word(owner.found.word);
    let listener = tables
        .listener(choice.listener)
        .ok_or(Stop::UnwrittenListener)?;
    let key = listener.key().ok_or(Stop::UnwrittenListener)?;
    has_a_hop_left(packet)?;
    let client = Endpoint {
        address: owner.client.address,
        port: owner.client.port,
    };
    let next_hop = match remembered_way(tables, choice, entry.progress().epoch) {
        Some(next_hop) => next_hop,
        None => route(frame, tables, packet, packet.source, client.address)?.next_hop,
    };
    fits(packet, 0, &next_hop)?;
    let vip = Endpoint {
        address: key.address,
        port: key.port,
    };
    quote.translate_ends(frame, packet, Some(client), Some(vip))?;
    tables.count(&Passage {
        listener: choice.listener,
        target: choice.target,
        length_bytes: packet.length_bytes,
        kind: PassageKind::Return,
    });
    Ok(emit(frame, packet.network, &next_hop)?)
}
