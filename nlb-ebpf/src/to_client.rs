//! From a translated target back to the client.

use nlb_common::{
    address::Address,
    flow::{Choice, Client, FlowEntry, FlowState, Progress},
    next_hop::{Epoch, NeighbourKey, NextHop},
    stop::Stop,
    target::Mode,
    wire::tcp::{FIN, RST},
};

use crate::{
    Exit, Stage, Verdict,
    classify::may_be_for_the_pool,
    emit::{emit, fits, has_a_hop_left, route},
    flows::{self, Place},
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
///
/// Where `ALL` is false the way back must be remembered; where it is not, the packet goes on to
/// [`Stage::Back`].
#[inline(always)]
pub fn to_client<const ALL: bool, F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    tables: &T,
) -> Result<Verdict, Exit> {
    let client = Client {
        address: packet.destination,
        port: packet.destination_port,
        protocol: packet.protocol,
    };
    let place = Place::of(tables, &client);
    let found = flows::find(tables, place, &client, |choice, entry| {
        match tables.target(choice.target) {
            Some(target) => {
                target
                    .control()
                    .is_some_and(|control| control.mode == Mode::NAT)
                    && target.port() == packet.source_port
                    && target.address() == packet.source
                    && !(tables.translates_sources() && is_source_translated(entry))
            }
            None => false,
        }
    });
    let Some(entry) = found.entry else {
        return Err(if may_be_for_the_pool(packet, tables) {
            Exit::Go(Stage::SnatBack)
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
    let progress = entry.progress();
    let (next_hop, epoch) = way::<ALL, F, T>(
        frame,
        packet,
        tables,
        entry,
        found.word,
        &progress,
        packet.destination,
    )?;
    fits(packet, &next_hop)?;
    let state = advance(progress.state, packet);
    flows::note(
        tables,
        entry,
        progress,
        progress.after(state, tables.now(), epoch),
    );
    translate(frame, packet, End::Source, key.address, key.port)?;
    tables.count(&Passage {
        listener: choice.listener,
        target: choice.target,
        length_bytes: packet.length_bytes,
        kind: PassageKind::Return,
    });
    Ok(emit(frame, packet.network, &next_hop)?)
}

/// Whether the flow's target answers an address of ours, and not the client's.
#[inline(always)]
pub(crate) fn is_source_translated(entry: &FlowEntry) -> bool {
    entry.progress().state.has(FlowState::SOURCE_TRANSLATED)
}

/// How far a flow has come with one more packet of the target.
#[inline(always)]
pub(crate) const fn advance(state: FlowState, packet: &Packet) -> FlowState {
    let mut state = state.with(FlowState::ANSWERED);
    if packet.tcp_flags & FIN != 0 {
        state = state.with(FlowState::TARGET_CLOSED);
    }
    if packet.tcp_flags & RST != 0 {
        state = state.with(FlowState::RESET);
    }
    state
}

/// The way back to the client and its epoch: what the flow remembers, if nothing has changed since,
/// or else what the kernel's routes say, which the flow then remembers.
#[inline(always)]
pub(crate) fn way<const ALL: bool, F: Frame, T: Tables>(
    frame: &F,
    packet: &Packet,
    tables: &T,
    entry: &FlowEntry,
    word: u64,
    progress: &Progress,
    client: Address,
) -> Result<(NextHop, Epoch), Exit> {
    let choice = Choice::of_word(word);
    if let Some(slot) = tables.next_hop(choice.next_hop)
        && let Some((next_hop, epoch)) = slot.read()
        && epoch == progress.epoch
    {
        return Ok((next_hop, epoch));
    }
    if !ALL {
        return Err(Exit::Go(Stage::Back));
    }
    let route = route(frame, tables, packet, packet.source, client)?;
    let neighbour = NeighbourKey::new(route.interface, route.neighbour);
    if let Some(id) = tables.next_hop_id(&neighbour)
        && let Some(slot) = tables.next_hop(id)
        && let Some((known, epoch)) = slot.read()
        && known == route.next_hop
    {
        let choice = Choice {
            next_hop: id,
            ..choice
        };
        if tables.swap(&entry.choice, word, choice.to_word()) {
            return Ok((route.next_hop, epoch));
        }
    }
    Ok((route.next_hop, progress.epoch))
}
