//! From the client to the target.

use nlb_common::{
    flow::{Choice, Client, FlowState},
    listener::{ListenerId, ListenerKey},
    next_hop::{NextHop, NextHopId},
    stop::Stop,
    target::Mode,
    tick::Tick,
    wire::{
        protocol,
        tcp::{ACK, FIN, RST, SYN},
    },
};

use crate::{
    Verdict,
    emit::{emit, fits, has_a_hop_left, route},
    flows::{self, Found, Place},
    frame::Frame,
    parse::Packet,
    rewrite::{End, translate},
    select::{Chosen, select},
    tables::{Passage, PassageKind, Tables},
};

/// What a packet towards a target turned out to be.
struct Decision<'t> {
    listener: ListenerId,
    target: Chosen<'t>,
    kind: PassageKind,
}

/// Sends a packet that may be addressed to a listener on to its target; [`Stop::NotOurs`] if there
/// is no such listener.
#[inline(always)]
pub fn to_target<F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    tables: &T,
) -> Result<Verdict, Stop> {
    let decision = decide(frame, packet, tables)?;
    let next_hop = way(frame, packet, tables, &decision.target)?;
    fits(packet, &next_hop)?;
    if decision.target.control.mode == Mode::NAT {
        has_a_hop_left(packet)?;
        let record = decision.target.record;
        translate(
            frame,
            packet,
            End::Destination,
            record.address(),
            record.port(),
        )?;
    }
    tables.count(&Passage {
        listener: decision.listener,
        target: decision.target.id,
        length_bytes: packet.length_bytes,
        kind: decision.kind,
    });
    emit(frame, &next_hop)
}

/// Which flow is it, and where does it go?
#[inline(always)]
fn decide<'t, F: Frame, T: Tables>(
    frame: &F,
    packet: &Packet,
    tables: &'t T,
) -> Result<Decision<'t>, Stop> {
    let client = Client {
        address: packet.source,
        port: packet.source_port,
        protocol: packet.protocol,
    };
    let place = Place::of(tables, &client);
    let now = tables.now();
    let mut idle_ticks = 0;
    let found = flows::find(tables, place, &client, |choice| {
        match tables.listener(choice.listener) {
            Some(listener) => {
                idle_ticks = listener.policy().idle_ticks;
                listener.is(packet.destination, packet.protocol, packet.destination_port)
            }
            None => false,
        }
    });
    if let Some(entry) = found.entry {
        let progress = entry.progress();
        let state = progress.state;
        if now.since(progress.last_seen) <= state.idle_ticks(idle_ticks) {
            let choice = Choice::of_word(found.word);
            let target = Chosen::of(tables, choice.target)?;
            // A client that opens its flow anew gets another target if its old one takes no new
            // flows: in DSR modes nobody sees a dead target's refusal.
            if !opens(packet) || !state.is_over() && target.control.takes_new_flows {
                let state = advance(state, packet, target.control.mode);
                let noted = progress.after(state, now, progress.epoch);
                flows::note(tables, entry, progress, noted);
                return Ok(Decision {
                    listener: choice.listener,
                    target,
                    kind: PassageKind::Known,
                });
            }
        }
    }
    begin(frame, packet, tables, place, &client, found, now)
}

/// A flow begins, or one that had ended begins anew in its old entry.
#[inline(always)]
fn begin<'t, F: Frame, T: Tables>(
    frame: &F,
    packet: &Packet,
    tables: &'t T,
    place: Place,
    client: &Client,
    ended: Found<'t>,
    now: Tick,
) -> Result<Decision<'t>, Stop> {
    let listener = listener_of(packet, tables)?;
    let target = select(frame, tables, packet, listener)?;
    let choice = Choice {
        target: target.id,
        listener,
        next_hop: NextHopId::NONE,
    };
    // A stray RST begins nothing: it goes where its flow would go, and is forgotten.
    let is_stray = packet.tcp_flags & RST != 0;
    let is_pinned = !is_stray
        && match ended.entry {
            Some(entry) => {
                let state = FlowState::NEW;
                flows::refill(tables, entry, ended.word, client, choice, state, now)
            }
            None => flows::pin(tables, place, client, choice, FlowState::NEW, now),
        };
    if !is_pinned && !is_stray && target.control.mode == Mode::NAT {
        return Err(Stop::FlowTableFull);
    }
    let kind = if is_pinned {
        PassageKind::New
    } else {
        PassageKind::Unpinned
    };
    Ok(Decision {
        listener,
        target,
        kind,
    })
}

/// The listener that a packet is addressed to.
#[inline(always)]
fn listener_of<T: Tables>(packet: &Packet, tables: &T) -> Result<ListenerId, Stop> {
    let key = ListenerKey::new(packet.destination, packet.protocol, packet.destination_port);
    tables.listener_id(&key).ok_or(Stop::NotOurs)
}

/// Whether the packet asks for a new connection.
#[inline(always)]
const fn opens(packet: &Packet) -> bool {
    packet.protocol == protocol::TCP && packet.tcp_flags & (SYN | ACK) == SYN
}

/// How far a flow has come with one more packet of the client.
#[inline(always)]
fn advance(state: FlowState, packet: &Packet, mode: Mode) -> FlowState {
    let mut state = state;
    // In DSR modes no answer is seen; that the client goes on shows that there was one.
    if !opens(packet) && (state.has(FlowState::ANSWERED) || mode != Mode::NAT) {
        state = state.with(FlowState::ESTABLISHED);
    }
    if packet.tcp_flags & FIN != 0 {
        state = state.with(FlowState::CLIENT_CLOSED);
    }
    if packet.tcp_flags & RST != 0 {
        state = state.with(FlowState::RESET);
    }
    state
}

/// The way to a target.
#[inline(always)]
fn way<F: Frame, T: Tables>(
    frame: &F,
    packet: &Packet,
    tables: &T,
    target: &Chosen<'_>,
) -> Result<NextHop, Stop> {
    if let Some(slot) = tables.next_hop(target.control.next_hop)
        && let Some((next_hop, _)) = slot.read()
    {
        return Ok(next_hop);
    }
    let address = target.record.address();
    let found = route(frame, tables, packet, packet.source, address)?;
    if target.control.mode == Mode::DSR_L2 && found.neighbour != address {
        return Err(Stop::NotOnLink);
    }
    Ok(found.next_hop)
}
