//! From a translated target back to the client.

use nlb_common::{
    address::Address,
    answer::{Answer, Notice},
    flow::{Choice, Client, FlowEntry, FlowState, Progress},
    fragment::Way,
    listener::{Listener, ListenerId, Stranded},
    next_hop::{Epoch, NeighbourKey, NextHop},
    stop::Stop,
    target::Mode,
    tick::Tick,
    wire::{
        protocol,
        tcp::{FIN, RST, SYN},
    },
};
use zerocopy::big_endian::U16;

use crate::{
    Exit, Stage, Verdict,
    answer::tell,
    emit::{emit, fits, has_a_hop_left, route},
    flows::{self, Place},
    frame::Frame,
    parse::Packet,
    rewrite::{End, translate},
    segment_size,
    snat::disguise,
    tables::{Passage, PassageKind, Tables},
    to_target::opens_or_ends,
};

/// Sends a target's answer back to its client, from the VIP. If it answers no flow whose client it is
/// addressed to, it goes on to [`Stage::SnatBack`], or, without a pool, is [`Stop::NotOurs`].
///
/// A flow whose idle time has run out, but whose entry nobody has needed, is one that ended, as the
/// client's packets are told ([`Stranded`]); what is not TCP goes on with it.
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
    let mut is_reset = false;
    let found = flows::find(tables, place, &client, |choice, entry| {
        is_served_by(
            tables,
            choice,
            packet.source,
            packet.source_port,
            &mut is_reset,
        ) && !(tables.translates_sources() && is_source_translated(entry))
    });
    let Some(entry) = found.entry else {
        // Perhaps it answers a flow that it knows by a source of ours.
        return Err(if tables.translates_sources() {
            Exit::Go(Stage::SnatBack)
        } else {
            Exit::Stop(Stop::NotOurs)
        });
    };
    // A SYN's segment size may have to be clamped.
    if !ALL && packet.tcp_flags & SYN != 0 {
        return Err(Exit::Go(Stage::Back));
    }
    let progress = entry.progress();
    let now = tables.now();
    let has_news = ALL
        || opens_or_ends(packet)
        || !progress.state.has(FlowState::ANSWERED)
        || !progress.goes_on(now);
    if has_news && progress.state.has(FlowState::SEQUENCE_TRANSLATED) {
        return Err(Exit::Go(Stage::SequenceBack));
    }
    let choice = Choice::of_word(found.word);
    if is_reset && packet.protocol == protocol::TCP {
        return Err(ended::<ALL, T>(
            packet,
            tables,
            choice.listener,
            Stop::Terminated,
            true,
        ));
    }
    let listener = tables
        .listener(choice.listener)
        .ok_or(Stop::UnwrittenListener)?;
    let key = listener.key().ok_or(Stop::UnwrittenListener)?;
    if has_news {
        in_time::<ALL, T>(packet, tables, choice.listener, listener, progress, now)?;
    }
    has_a_hop_left(packet).map_err(|stop| {
        refused::<ALL, T>(tables, stop, choice.listener, Notice::TIME_EXCEEDED, 0)
    })?;
    let (next_hop, epoch) = way::<ALL, F, T>(
        frame,
        packet,
        tables,
        entry,
        found.word,
        &progress,
        packet.destination,
    )?;
    fits(packet, 0, &next_hop).map_err(|stop| {
        let mtu_bytes = next_hop.mtu_bytes;
        refused::<ALL, T>(tables, stop, choice.listener, Notice::TOO_BIG, mtu_bytes)
    })?;
    // Of the ways back only the remembered one is without news.
    if has_news {
        let state = advance(progress.state, packet);
        flows::note(tables, entry, progress, progress.after(state, now, epoch));
    }
    translate(frame, packet, End::Source, key.address, key.port)?;
    if ALL {
        let ids = (choice.listener, choice.target);
        let ends = (key.address, packet.destination);
        disguise(frame, packet, tables, ids, Way::ToClient, ends)?;
    }
    if ALL && packet.tcp_flags & SYN != 0 {
        segment_size::clamp(frame, packet.transport, choice.listener, tables);
    }
    tables.count(&Passage {
        listener: choice.listener,
        target: choice.target,
        length_bytes: packet.length_bytes,
        kind: PassageKind::Return,
    });
    Ok(emit(frame, packet.network, &next_hop)?)
}

/// Whether a flow is translated to the target at this address and port; says as well whether that
/// target's flows are reset.
#[inline(always)]
pub(crate) fn is_served_by<T: Tables>(
    tables: &T,
    choice: Choice,
    address: Address,
    port: U16,
    is_reset: &mut bool,
) -> bool {
    match tables.target(choice.target) {
        Some(target) => {
            let Some(control) = target.control() else {
                return false;
            };
            *is_reset = control.resets_flows;
            control.mode == Mode::NAT && target.port() == port && target.address() == address
        }
        None => false,
    }
}

/// A packet that cannot go on is stopped, and its sender is told.
#[inline(always)]
pub(crate) fn refused<const ALL: bool, T: Tables>(
    tables: &T,
    stop: Stop,
    listener: ListenerId,
    notice: Notice,
    mtu_bytes: u16,
) -> Exit {
    if !ALL {
        return Exit::Go(Stage::Back);
    }
    let answer = Answer {
        notice,
        mtu_bytes,
        listener,
    };
    tell(tables, stop, answer)
}

/// Whether the flow's time has not run out, or its listener does not mind.
#[inline(always)]
pub(crate) fn in_time<const ALL: bool, T: Tables>(
    packet: &Packet,
    tables: &T,
    id: ListenerId,
    listener: &Listener,
    progress: Progress,
    now: Tick,
) -> Result<(), Exit> {
    let policy = listener.policy();
    if packet.protocol != protocol::TCP
        || policy.expired == Stranded::FORWARD
        || now.since(progress.last_seen) <= progress.state.idle_ticks(policy.idle_ticks)
    {
        return Ok(());
    }
    let resets = policy.expired.resets();
    Err(ended::<ALL, T>(
        packet,
        tables,
        id,
        Stop::IdleExpired,
        resets,
    ))
}

/// The answer of a connection that has ended: the target may get its RST, too.
#[inline(always)]
pub(crate) fn ended<const ALL: bool, T: Tables>(
    packet: &Packet,
    tables: &T,
    listener: ListenerId,
    stop: Stop,
    resets: bool,
) -> Exit {
    // Nobody resets a reset (RFC 9293 §3.10.7.1).
    if ALL && (!resets || packet.tcp_flags & RST != 0) {
        return Exit::Stop(stop);
    }
    refused::<ALL, T>(tables, stop, listener, Notice::RESET, 0)
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

/// The way back to the client that the flow remembers, if nothing has changed since.
#[inline(always)]
pub(crate) fn remembered_way<T: Tables>(
    tables: &T,
    choice: Choice,
    remembered: Epoch,
) -> Option<NextHop> {
    let (next_hop, epoch) = tables.next_hop(choice.next_hop)?.read()?;
    (epoch == remembered).then_some(next_hop)
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
    if let Some(next_hop) = remembered_way(tables, choice, progress.epoch) {
        return Ok((next_hop, progress.epoch));
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
