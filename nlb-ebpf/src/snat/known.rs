//! The stages of a remembered flow's packets to its target: of those whose source is translated, and
//! of first fragments, which get a number of ours even where it is not ([`super::disguise`]).

use nlb_common::{
    answer::Notice,
    flow::{Choice, FlowState},
    fragment::Way,
    source::Translation,
    stop::Stop,
    target::Mode,
    word::Word,
};

use super::{disguise, onward};
use crate::{
    Exit, Stage, Verdict,
    classify::forgotten,
    emit::{emit, fits, has_a_hop_left},
    flows,
    frame::Frame,
    parse::{Packet, parse},
    rewrite::Endpoint,
    segment_size,
    select::Chosen,
    tables::{PassageKind, Tables},
    to_target::{Arrival, Decision, advance, count, find, note, opens, refused, way},
};

/// Sends a packet on to the target of its flow, from the flow's source.
///
/// That the flow lives and that the packet is one of it, also if it asks for a new connection, has
/// been decided before. So nothing here leads back: a flow that is gone in the meantime, which only
/// another processor can have brought about, is the end of its packet ([`Stop::FlowReplaced`]).
#[inline(always)]
pub fn known<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Exit> {
    go_on::<false, F, T>(frame, tables)
}

/// Goes on to [`Stage::SnatFirst`] with a first fragment; `begins` says whether its flow has just been
/// pinned.
#[inline(always)]
pub(crate) fn go_first<T: Tables>(tables: &T, begins: bool) -> Exit {
    tables.hand_over(begins.into());
    Exit::Go(Stage::SnatFirst)
}

/// Sends a first fragment on whose flow the stage before has pinned or found.
#[inline(always)]
pub fn first<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Exit> {
    go_on::<true, F, T>(frame, tables)
}

#[inline(always)]
fn go_on<const FIRST: bool, F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
) -> Result<Verdict, Exit> {
    let packet = forgotten(parse(frame)?, tables);
    frame.forget_ends();
    let arrival = Arrival::of(&packet, tables);
    let (decision, source) = decided::<FIRST, T>(&packet, tables, &arrival)?;
    let next_hop = way(frame, &packet, source.address, tables, &decision.target)?;
    has_a_hop_left(&packet)
        .map_err(|stop| refused(tables, stop, &decision, Notice::TIME_EXCEEDED, 0))?;
    fits(&packet, 0, &next_hop)
        .map_err(|stop| refused(tables, stop, &decision, Notice::TOO_BIG, next_hop.mtu_bytes))?;
    if FIRST && tables.handed_over() != 0 {
        count(&packet, tables, &decision, PassageKind::New);
    } else {
        note(&packet, tables, &arrival, &decision);
    }
    onward(frame, &packet, &decision, source)?;
    let ids = (decision.listener, decision.target.id);
    let ends = (source.address, decision.target.record.address());
    disguise(frame, &packet, tables, ids, Way::ToTarget, ends)?;
    if opens(&packet) {
        segment_size::clamp(frame, packet.transport, decision.listener, tables);
    }
    Ok(emit(frame, packet.network, &next_hop)?)
}

/// The flow, and its source. Where `PLAIN` is true that may be the packet's own.
#[inline(always)]
pub(super) fn decided<'t, const PLAIN: bool, T: Tables>(
    packet: &Packet,
    tables: &'t T,
    arrival: &Arrival,
) -> Result<(Decision<'t>, Endpoint), Stop> {
    let gone = Stop::FlowReplaced;
    let found = find(packet, tables, arrival, |_| {});
    let entry = found.entry.ok_or(gone)?;
    let progress = entry.progress();
    let number = found.number(tables);
    let way = tables.forget(number.way(), arrival.place.hash());
    // Without a pool there is none.
    let translation = tables
        .translations(number.bucket())
        .and_then(|bucket| flows::nth(tables, &bucket.entries, way))
        .map_or(0, Word::load);
    let translation = Translation::of_word(translation);
    // The word beside the entry was the flow's if the entry still is.
    if entry.choice_for(&arrival.client) != Some(found.word) {
        return Err(gone);
    }
    let choice = Choice::of_word(found.word);
    let target = Chosen::of(tables, choice.target)?;
    let source = if progress.state.has(FlowState::SOURCE_TRANSLATED) {
        Endpoint {
            address: tables.pool().ok_or(gone)?.address(translation.source),
            port: translation.port,
        }
    } else if PLAIN && target.control.mode == Mode::NAT {
        Endpoint {
            address: packet.source,
            port: packet.source_port,
        }
    } else {
        return Err(gone);
    };
    let decision = Decision {
        listener: choice.listener,
        target,
        entry: found,
        progress,
        state: advance(progress.state, packet, target.control.mode),
        has_news: true,
        begins: false,
        is_pinned: true,
    };
    Ok((decision, source))
}
