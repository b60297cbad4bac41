//! The stage of packets to the target of a flow that began with a cookie.

use nlb_common::{
    answer::Notice,
    flow::{Choice, FlowEntry, FlowState},
    fragment::Way,
    sequence::{Numbering, Opening},
    stop::Stop,
    wire::tcp::{ACK, RST, Tcp},
};
use zerocopy::big_endian::U32;

use super::{answer, beside, syn};
use crate::{
    Exit, Verdict,
    checksum::Change,
    classify::forgotten,
    emit::{emit, fits, has_a_hop_left},
    flows,
    frame::Frame,
    parse::{Packet, parse},
    rewrite::{End, Endpoint, translate},
    segment::{Segment, Tail},
    select::Chosen,
    snat::disguise,
    tables::{PassageKind, Tables},
    to_target::{Arrival, Decision, advance, count, find, note, opens, refused, resets, way},
};

/// Sends a packet on to the target of its flow, which knows other numbers than the client.
///
/// A target that has not answered yet gets its SYN again, whatever the client sends: data, which a
/// closed window forbids, are lost with it and come again. That the flow lives has been decided
/// before, as for [`crate::snat::known`].
#[inline(always)]
pub fn known<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Exit> {
    let packet = forgotten(parse(frame)?, tables);
    frame.forget_ends();
    let arrival = Arrival::of(&packet, tables);
    let (decision, numbering, opening) = decided(&packet, tables, &arrival)?;
    if opens(&packet) && matches!(numbering, Numbering::Unanswered(_)) {
        return Err(answer::go(tables, decision.listener, decision.target.id));
    }
    let next_hop = way(frame, &packet, packet.source, tables, &decision.target)?;
    has_a_hop_left(&packet)
        .map_err(|stop| refused(tables, stop, &decision, Notice::TIME_EXCEEDED, 0))?;
    fits(&packet, 0, &next_hop)
        .map_err(|stop| refused(tables, stop, &decision, Notice::TOO_BIG, next_hop.mtu_bytes))?;
    let record = decision.target.record;
    let target = Endpoint {
        address: record.address(),
        port: record.port(),
    };
    let segment = instead(frame, &packet, target, numbering, opening)?;
    if let Some(segment) = segment {
        wait(&packet, tables, &arrival, &decision);
        segment.write(frame, &packet)?;
    } else {
        note(&packet, tables, &arrival, &decision);
        if let Numbering::Shifted(shift) = numbering {
            unshift(frame, &packet, shift)?;
        }
        translate(
            frame,
            &packet,
            End::Destination,
            target.address,
            target.port,
        )?;
        let ids = (decision.listener, decision.target.id);
        let ends = (packet.source, target.address);
        disguise(frame, &packet, tables, ids, Way::ToTarget, ends)?;
    }
    Ok(emit(frame, packet.network, &next_hop)?)
}

/// The segment that the target gets instead of the client's, if it gets another.
#[inline(always)]
fn instead<F: Frame>(
    frame: &F,
    packet: &Packet,
    target: Endpoint,
    numbering: Numbering,
    opening: Opening,
) -> Result<Option<Segment>, Stop> {
    let tcp = frame.get::<Tcp>(packet.transport).ok_or(Stop::Malformed)?;
    let sequence = if opens(packet) {
        // With options that we did not offer in its name, a target might open a connection with
        // options that its numbers cannot be translated in.
        tcp.sequence.get()
    } else if let Numbering::Shifted(_) = numbering {
        return Ok(None);
    } else if resets(packet) {
        return Ok(Some(Segment {
            source: packet.sender(),
            destination: target,
            sequence: tcp.sequence,
            acknowledgement: U32::ZERO,
            flags: RST,
            window: tcp.window,
            tail: Tail::Nothing,
        }));
    } else {
        opening.sequence
    };
    let size = opening.segment_bytes;
    Ok(Some(syn(packet, target, sequence, tcp.window, size)))
}

/// Notes a packet that told the target nothing of its own, unless it ended the flow, and counts it.
#[inline(always)]
fn wait<T: Tables>(packet: &Packet, tables: &T, arrival: &Arrival, decision: &Decision<'_>) {
    if let Some(entry) = decision.entry.entry {
        let old = decision.progress;
        let state = if resets(packet) {
            old.state.with(FlowState::RESET)
        } else {
            old.state
        };
        flows::note(tables, entry, old, old.after(state, arrival.now, old.epoch));
    }
    count(packet, tables, decision, PassageKind::Known);
}

/// What a client acknowledges becomes what its target has sent.
#[inline(always)]
fn unshift<F: Frame>(frame: &mut F, packet: &Packet, shift: u32) -> Result<(), Stop> {
    if packet.tcp_flags & ACK == 0 {
        return Ok(());
    }
    let tcp = frame
        .get_mut::<Tcp>(packet.transport)
        .ok_or(Stop::Malformed)?;
    let old = tcp.acknowledgement;
    tcp.acknowledgement = U32::new(old.get().wrapping_sub(shift));
    tcp.checksum = Change::default()
        .long(old, tcp.acknowledgement)
        .apply(tcp.checksum);
    Ok(())
}

/// The flow, and its numbers.
#[inline(always)]
pub(super) fn decided<'t, T: Tables>(
    packet: &Packet,
    tables: &'t T,
    arrival: &Arrival,
) -> Result<(Decision<'t>, Numbering, Opening), Stop> {
    let gone = Stop::FlowReplaced;
    let found = find(packet, tables, arrival, |_| {});
    let entry: &FlowEntry = found.entry.ok_or(gone)?;
    let progress = entry.progress();
    let beside = beside(tables, &found).ok_or(gone)?;
    let numbering = Numbering::of_word(beside.numbering.load());
    let opening = Opening::of_word(beside.opening.load());
    // The words beside the entry were the flow's if the entry still is.
    if !progress.state.has(FlowState::SEQUENCE_TRANSLATED)
        || entry.choice_for(&arrival.client) != Some(found.word)
    {
        return Err(gone);
    }
    let choice = Choice::of_word(found.word);
    let target = Chosen::of(tables, choice.target)?;
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
    Ok((decision, numbering, opening))
}
