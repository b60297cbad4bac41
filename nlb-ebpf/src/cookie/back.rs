//! The stage of packets from the target of a flow that began with a cookie.

use nlb_common::{
    answer::{Answer, Notice},
    flow::{Choice, Client, FlowState},
    fragment::Way,
    listener::ListenerId,
    sequence::{Numbering, Opening, Sequence},
    stop::Stop,
    wire::tcp::{ACK, RST, SYN, Tcp},
};
use zerocopy::big_endian::U32;

use super::beside;
use crate::{
    Exit, Verdict,
    answer::tell,
    checksum::Change,
    classify::forgotten,
    emit::{emit, fits, has_a_hop_left},
    flows::{self, Place},
    frame::Frame,
    parse::{Packet, parse},
    rewrite::{End, Endpoint, translate},
    segment::{Segment, Tail},
    snat::disguise,
    tables::{Passage, PassageKind, Tables},
    to_client::{advance, ended, in_time, is_served_by, refused, way},
};

/// Sends a target's packet back to its client, which knows other numbers. In all else it does what
/// [`crate::to_client::to_client`] does.
#[inline(always)]
pub fn back<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Exit> {
    let packet = forgotten(parse(frame)?, tables);
    frame.forget_ends();
    let client = Client {
        address: packet.destination,
        port: packet.destination_port,
        protocol: packet.protocol,
    };
    let mut is_reset = false;
    let place = Place::of(tables, &client);
    let found = flows::find(tables, place, &client, |choice, entry| {
        let (address, port) = (packet.source, packet.source_port);
        is_served_by(tables, choice, address, port, &mut is_reset)
            && entry.progress().state.has(FlowState::SEQUENCE_TRANSLATED)
    });
    let gone = Stop::FlowReplaced;
    let entry = found.entry.ok_or(gone)?;
    let choice = Choice::of_word(found.word);
    let id = choice.listener;
    if is_reset {
        let stop = Stop::Terminated;
        return Err(ended::<true, T>(&packet, tables, id, stop, true));
    }
    let listener = tables.listener(id).ok_or(Stop::UnwrittenListener)?;
    let key = listener.key().ok_or(Stop::UnwrittenListener)?;
    let (progress, now) = (entry.progress(), tables.now());
    in_time::<true, T>(&packet, tables, id, listener, progress, now)?;
    let sequence = beside(tables, &found).ok_or(gone)?;
    let seen = sequence.numbering.load();
    let told = told(frame, &packet, tables, sequence, (id, seen), progress.state)?;
    if entry.choice_for(&client) != Some(found.word) {
        return Err(Exit::Stop(gone));
    }
    has_a_hop_left(&packet)
        .map_err(|stop| refused::<true, T>(tables, stop, id, Notice::TIME_EXCEEDED, 0))?;
    let (next_hop, epoch) = way::<true, F, T>(
        frame,
        &packet,
        tables,
        entry,
        found.word,
        &progress,
        packet.destination,
    )?;
    fits(&packet, 0, &next_hop).map_err(|stop| {
        refused::<true, T>(tables, stop, id, Notice::TOO_BIG, next_hop.mtu_bytes)
    })?;
    let numbering = Numbering::Shifted(told.shift).to_word();
    if told.is_answer {
        tables.swap(&sequence.numbering, seen, numbering);
    }
    let state = advance(progress.state, &packet);
    flows::note(tables, entry, progress, progress.after(state, now, epoch));
    tables.count(&Passage {
        listener: id,
        target: choice.target,
        length_bytes: packet.length_bytes,
        kind: PassageKind::Return,
    });
    if told.is_answer {
        let vip = Endpoint {
            address: key.address,
            port: key.port,
        };
        let segment = window(frame, &packet, vip, told.shift)?;
        segment.write(frame, &packet)?;
    } else {
        shift(frame, &packet, told.shift)?;
        translate(frame, &packet, End::Source, key.address, key.port)?;
        let ids = (id, choice.target);
        let ends = (key.address, packet.destination);
        disguise(frame, &packet, tables, ids, Way::ToClient, ends)?;
    }
    Ok(emit(frame, packet.network, &next_hop)?)
}

/// What the client is told.
struct Told {
    /// What is added to the target's number.
    shift: u32,
    /// Whether it is that its target has accepted the connection.
    is_answer: bool,
}

/// What a client is told by a packet of its target, whose numbers mean nothing to it before the
/// target has accepted its connection. What does neither that nor refuse it is of another connection,
/// and is answered as a client would (RFC 9293 §3.10.7.3).
#[inline(always)]
fn told<F: Frame, T: Tables>(
    frame: &F,
    packet: &Packet,
    tables: &T,
    sequence: &Sequence,
    (listener, seen): (ListenerId, u64),
    state: FlowState,
) -> Result<Told, Exit> {
    let tcp = frame.get::<Tcp>(packet.transport).ok_or(Stop::Malformed)?;
    let accepts = packet.tcp_flags & (SYN | ACK | RST) == SYN | ACK;
    match Numbering::of_word(seen) {
        Numbering::Shifted(shift) => Ok(Told {
            shift,
            // Sent again, because the target has not heard of its client.
            is_answer: accepts && !state.has(FlowState::ESTABLISHED),
        }),
        Numbering::Unanswered(cookie) => {
            let first = Opening::of_word(sequence.opening.load()).sequence;
            let is_for_syn =
                packet.tcp_flags & ACK != 0 && tcp.acknowledgement.get() == first.wrapping_add(1);
            let shift = cookie.wrapping_sub(tcp.sequence.get());
            if is_for_syn && accepts {
                Ok(Told {
                    shift,
                    is_answer: true,
                })
            } else if is_for_syn && packet.tcp_flags & RST != 0 {
                // The client takes a reset with the number that is due (RFC 5961 §3.2).
                Ok(Told {
                    shift: shift.wrapping_add(1),
                    is_answer: false,
                })
            } else if packet.tcp_flags & RST != 0 {
                Err(Exit::Stop(Stop::Unaccepted))
            } else {
                let answer = Answer {
                    notice: Notice::RESET,
                    mtu_bytes: 0,
                    listener,
                };
                Err(tell(tables, Stop::Unaccepted, answer))
            }
        }
    }
}

/// The segment that opens the client's window, and that it acknowledges.
#[inline(always)]
fn window<F: Frame>(
    frame: &F,
    packet: &Packet,
    vip: Endpoint,
    shift: u32,
) -> Result<Segment, Stop> {
    let tcp = frame.get::<Tcp>(packet.transport).ok_or(Stop::Malformed)?;
    Ok(Segment {
        source: vip,
        destination: packet.receiver(),
        sequence: U32::new(tcp.sequence.get().wrapping_add(shift)),
        acknowledgement: tcp.acknowledgement,
        flags: ACK,
        window: tcp.window,
        tail: Tail::OldByte,
    })
}

/// A number of the target's becomes one that the client knows.
#[inline(always)]
fn shift<F: Frame>(frame: &mut F, packet: &Packet, shift: u32) -> Result<(), Stop> {
    let tcp = frame
        .get_mut::<Tcp>(packet.transport)
        .ok_or(Stop::Malformed)?;
    let old = tcp.sequence;
    tcp.sequence = U32::new(old.get().wrapping_add(shift));
    tcp.checksum = Change::default()
        .long(old, tcp.sequence)
        .apply(tcp.checksum);
    Ok(())
}
