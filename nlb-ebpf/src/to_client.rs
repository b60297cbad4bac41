//! From a translated target back to the client.

use nlb_common::{
    flow::{Choice, Client, FlowState},
    next_hop::{NeighbourKey, NextHop, NextHopId},
    stop::Stop,
    target::Mode,
    wire::tcp::{FIN, RST},
};

use crate::{
    Verdict,
    emit::{emit, fits, has_a_hop_left, route},
    flows::{self, Found, Place},
    frame::Frame,
    parse::Packet,
    rewrite::{End, translate},
    tables::{Passage, PassageKind, Tables},
};

/// Sends a target's answer back to its client, from the VIP; [`Stop::NotOurs`] if it answers no
/// flow of ours.
///
/// A flow whose idle time has run out but whose entry nobody has needed is still answered: letting
/// the answer through untranslated would help nobody.
#[inline(always)]
pub fn to_client<F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    tables: &T,
) -> Result<Verdict, Stop> {
    if packet.is_tagged {
        return Err(Stop::NotOurs);
    }
    let client = Client {
        address: packet.destination,
        port: packet.destination_port,
        protocol: packet.protocol,
    };
    let place = Place::of(tables, &client);
    let found = flows::find(tables, place, &client, |choice| {
        match tables.target(choice.target) {
            Some(target) => {
                target
                    .control()
                    .is_some_and(|control| control.mode == Mode::NAT)
                    && target.port() == packet.source_port
                    && target.address() == packet.source
            }
            None => false,
        }
    })
    .ok_or(Stop::NotOurs)?;
    let choice = Choice::of_word(found.word);
    let listener = tables
        .listener(choice.listener)
        .ok_or(Stop::UnwrittenListener)?;
    let key = listener.key().ok_or(Stop::UnwrittenListener)?;
    has_a_hop_left(packet)?;
    let next_hop = way(frame, packet, tables, &found, choice)?;
    fits(packet, &next_hop)?;
    found.entry.touch(tables.now());
    found.entry.set_state(advance(found.entry.state(), packet));
    translate(frame, packet, End::Source, key.address, key.port)?;
    tables.count(&Passage {
        listener: choice.listener,
        target: choice.target,
        length_bytes: packet.length_bytes,
        kind: PassageKind::Return,
    });
    emit(frame, &next_hop)
}

/// How far a flow has come with one more packet of the target.
#[inline(always)]
const fn advance(state: FlowState, packet: &Packet) -> FlowState {
    let mut state = state.with(FlowState::ANSWERED);
    if packet.tcp_flags & FIN != 0 {
        state = state.with(FlowState::TARGET_CLOSED);
    }
    if packet.tcp_flags & RST != 0 {
        state = state.with(FlowState::RESET);
    }
    state
}

/// The way back to the client: what the flow remembers, if nothing has changed since, or else what
/// the kernel's routes say, which the flow then remembers.
#[inline(always)]
fn way<F: Frame, T: Tables>(
    frame: &F,
    packet: &Packet,
    tables: &T,
    found: &Found<'_>,
    choice: Choice,
) -> Result<NextHop, Stop> {
    if let Some(slot) = tables.next_hop(choice.next_hop)
        && let Some((next_hop, epoch)) = slot.read()
        && epoch == found.entry.epoch()
    {
        return Ok(next_hop);
    }
    let route = route(frame, tables, packet, packet.source, packet.destination)?;
    let neighbour = NeighbourKey::new(route.next_hop.interface, route.neighbour);
    if let Some(id) = tables.next_hop_id(&neighbour)
        && id != NextHopId::NONE
        && let Some(slot) = tables.next_hop(id)
        && let Some((known, epoch)) = slot.read()
        && known == route.next_hop
    {
        found.entry.set_epoch(epoch);
        tables.swap(
            &found.entry.choice,
            found.word,
            Choice {
                next_hop: id,
                ..choice
            }
            .to_word(),
        );
    }
    Ok(route.next_hop)
}
