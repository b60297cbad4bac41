//! The stage where a flow begins whose client has brought its cookie back.

use nlb_common::{
    flow::{Choice, FlowState},
    listener::ListenerId,
    next_hop::NextHopId,
    sequence::{Numbering, Opening},
    source::EntryNumber,
    stop::Stop,
    target::TargetId,
    wire::tcp::Tcp,
};

use super::{check::refused, syn};
use crate::{
    Exit, Stage, Verdict, admission,
    classify::forgotten,
    emit::emit,
    flows,
    frame::Frame,
    parse::{Packet, parse},
    rewrite::Endpoint,
    select::Chosen,
    tables::{Passage, PassageKind, Tables},
    to_target::{Arrival, find, way},
};

/// What the stage before found out, as the word that it hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Returned {
    pub(super) listener: ListenerId,
    pub(super) target: TargetId,
    /// At most 2¹⁵ − 1.
    pub(super) segment_bytes: u16,
    /// The packet's number is one less than it would be.
    pub(super) is_probe: bool,
}

impl Returned {
    #[inline(always)]
    const fn to_word(self) -> u64 {
        self.target.0 as u64
            | (self.listener.0 as u64) << 32
            | ((self.segment_bytes & 0x7fff) as u64) << 48
            | (self.is_probe as u64) << 63
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "takes the word apart")]
    const fn of_word(word: u64) -> Self {
        Self {
            target: TargetId(word as u32),
            listener: ListenerId((word >> 32) as u16),
            segment_bytes: (word >> 48) as u16 & 0x7fff,
            is_probe: word >> 63 != 0,
        }
    }

    /// Goes on to [`Stage::CookieBegin`].
    #[inline(always)]
    pub(super) fn go<T: Tables>(self, tables: &T) -> Exit {
        tables.hand_over(self.to_word());
        Exit::Go(Stage::CookieBegin)
    }
}

/// Remembers the flow, and makes its packet the SYN to its target.
///
/// Whatever stops it is told the client, which takes the connection for open; but for what may be
/// over when the client sends again.
#[inline(always)]
pub fn begin<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Exit> {
    let packet = forgotten(parse(frame)?, tables);
    frame.forget_ends();
    let returned = Returned::of_word(tables.handed_over());
    let listener = returned.listener;
    let arrival = Arrival::of(&packet, tables);
    let target = Chosen::of(tables, returned.target)?;
    let next_hop = way(frame, &packet, packet.source, tables, &target)?;
    let tcp = frame.get::<Tcp>(packet.transport).ok_or(Stop::Malformed)?;
    let window = tcp.window;
    let ahead = u32::from(!returned.is_probe);
    let opening = Opening {
        sequence: tcp.sequence.get().wrapping_sub(ahead),
        segment_bytes: returned.segment_bytes,
    };
    let cookie = tcp.acknowledgement.get().wrapping_sub(1);
    let is_remembered = admission::within_limits(&packet, tables, listener, arrival.now)
        .map_err(|stop| refused(tables, listener, stop))?;
    if !is_remembered || !pinned(&packet, tables, &arrival, returned, cookie, opening) {
        return Err(refused(tables, listener, Stop::FlowTableFull));
    }
    tables.count(&Passage {
        listener,
        target: returned.target,
        length_bytes: packet.length_bytes,
        kind: PassageKind::New,
    });
    let to = Endpoint {
        address: target.record.address(),
        port: target.record.port(),
    };
    let segment = syn(&packet, to, opening.sequence, window, opening.segment_bytes);
    segment.write(frame, &packet)?;
    // VERIFIER: or LLVM drops the bounds checks of what stands before the segment.
    frame.forget_ends();
    Ok(emit(frame, packet.network, &next_hop)?)
}

/// Remembers the flow, with what stands beside its entry; says whether there was room.
#[inline(always)]
fn pinned<T: Tables>(
    packet: &Packet,
    tables: &T,
    arrival: &Arrival,
    returned: Returned,
    cookie: u32,
    opening: Opening,
) -> bool {
    let found = find(packet, tables, arrival, |_| {});
    let room = if found.entry.is_some() {
        found
    } else {
        flows::room(tables, arrival.place, arrival.now)
    };
    if room.entry.is_none() {
        return false;
    }
    // VERIFIER: asked for anew, so that it knows one entry and not one from each way here.
    let unknown = arrival.place.hash();
    let number = EntryNumber::of_word(tables.forget(room.number(tables).0.into(), unknown));
    let old = tables.forget(room.word, unknown);
    let way = tables.forget(number.way(), unknown);
    let (Some(bucket), Some(beside)) = (
        tables.bucket(number.bucket()),
        tables.sequences(number.bucket()),
    ) else {
        return false;
    };
    let (Some(entry), Some(sequence)) = (
        flows::nth(tables, &bucket.entries, way),
        flows::nth(tables, &beside.entries, way),
    ) else {
        return false;
    };
    if !tables.swap(&entry.choice, old, Choice::BUSY) {
        return false;
    }
    sequence.opening.store(opening.to_word());
    sequence
        .numbering
        .store(Numbering::Unanswered(cookie).to_word());
    let choice = Choice {
        target: returned.target,
        listener: returned.listener,
        next_hop: NextHopId::NONE,
    };
    let state = FlowState::NEW.with(FlowState::SEQUENCE_TRANSLATED);
    entry.fill(&arrival.client, choice, state, arrival.now);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_returned_arrives() {
        for is_probe in [false, true] {
            let returned = Returned {
                listener: ListenerId(u16::MAX),
                target: TargetId(u32::MAX),
                segment_bytes: 8940,
                is_probe,
            };
            assert_eq!(Returned::of_word(returned.to_word()), returned);
        }
    }
}
