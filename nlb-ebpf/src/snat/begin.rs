//! The stage of a flow's first packet, where it is given a source.

use nlb_common::{
    flow::{Choice, FlowState},
    listener::ListenerId,
    next_hop::NextHopId,
    source::{EntryNumber, Translation},
    stop::Stop,
    target::TargetId,
};

use super::{
    allocate::{Asked, ROUNDS, allocate},
    any_source, known, onward,
};
use crate::{
    Exit, Stage, Verdict,
    classify::forgotten,
    depart::{Begins, Decided},
    emit::emit,
    flows,
    frame::Frame,
    parse::{Kind, Packet, parse},
    rewrite::Endpoint,
    segment_size,
    tables::{Passage, PassageKind, Tables},
    to_target::{Arrival, Decision, opens, way},
};

/// What the stage before decided, and how often a source was looked for, as the word that is handed
/// over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    listener: ListenerId,
    target: TargetId,
    round: u8,
    /// Whether the packet is a first fragment.
    is_fragment: bool,
}

impl Wanted {
    #[inline(always)]
    const fn to_word(self) -> u64 {
        self.target.0 as u64
            | (self.listener.0 as u64) << 32
            | (self.round as u64) << 48
            | (self.is_fragment as u64) << 56
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "takes the word apart")]
    const fn of_word(word: u64) -> Self {
        Self {
            target: TargetId(word as u32),
            listener: ListenerId((word >> 32) as u16),
            round: (word >> 48) as u8,
            is_fragment: word >> 56 & 1 != 0,
        }
    }

    #[inline(always)]
    fn go<T: Tables>(self, tables: &T) -> Exit {
        tables.hand_over(self.to_word());
        Exit::Go(Stage::SnatBegin)
    }
}

/// Goes on to [`Stage::SnatBegin`], for the first time.
#[inline(always)]
pub(crate) fn go<T: Tables>(tables: &T, packet: &Packet, decision: &Decision<'_>) -> Exit {
    let wanted = Wanted {
        listener: decision.listener,
        target: decision.target.id,
        round: 0,
        is_fragment: packet.kind == Kind::FirstFragment,
    };
    wanted.go(tables)
}

/// Gives a flow its source, and sends its first packet on; that it may be sent, the stage before asked.
///
/// The entry is ours alone, busy, while a source is looked for; if this round finds none it becomes
/// what it was, and the stage goes on to itself for the next round.
///
/// A first fragment has its flow pinned here, and goes on to [`Stage::SnatFirst`]: for its record there
/// is no room on this stack.
#[inline(always)]
pub fn begin<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Exit> {
    let packet = forgotten(parse(frame)?, tables);
    frame.forget_ends();
    let wanted = Wanted::of_word(tables.handed_over());
    let arrival = Arrival::of(&packet, tables);
    let (listener, target) = (wanted.listener, wanted.target);
    let decided = Decided {
        listener,
        target,
        begins: Begins::Flow,
        is_unseen: false,
        needs_source: true,
    };
    let decision = Decision::made(&packet, tables, &arrival, decided)?;
    let any = any_source(&packet, tables);
    let next_hop = way(frame, &packet, any, tables, &decision.target)?;
    let source = pinned(packet.is_v4, tables, &arrival, &decision, wanted)?;
    // VERIFIER: asked for anew, because it would have no place on the stack in the meantime.
    if Wanted::of_word(tables.handed_over()).is_fragment {
        return Err(known::go_first(tables, true));
    }
    onward(frame, &packet, &decision, source)?;
    if opens(&packet) {
        segment_size::clamp(frame, packet.transport, listener, tables);
    }
    tables.count(&Passage {
        listener,
        target,
        length_bytes: packet.length_bytes,
        kind: PassageKind::New,
    });
    Ok(emit(frame, packet.network, &next_hop)?)
}

/// Remembers the flow, with a source that is its own.
#[inline(always)]
fn pinned<T: Tables>(
    is_v4: bool,
    tables: &T,
    arrival: &Arrival,
    decision: &Decision<'_>,
    wanted: Wanted,
) -> Result<Endpoint, Exit> {
    let (place, now) = (arrival.place, arrival.now);
    let full = Exit::Stop(Stop::FlowTableFull);
    let pool = tables.pool().ok_or(Stop::PortAllocationError)?;
    let room = if decision.entry.entry.is_some() {
        decision.entry
    } else {
        flows::room(tables, place, now)
    };
    if room.entry.is_none() {
        return Err(full);
    }
    // VERIFIER: asked for anew, so that it knows one entry and not one from each way here.
    let number = EntryNumber::of_word(tables.forget(room.number(tables).0.into(), place.hash()));
    let old = tables.forget(room.word, place.hash());
    let way = tables.forget(number.way(), place.hash());
    let (Some(bucket), Some(beside)) = (
        tables.bucket(number.bucket()),
        tables.translations(number.bucket()),
    ) else {
        return Err(full);
    };
    let (Some(entry), Some(translation)) = (
        flows::nth(tables, &bucket.entries, way),
        flows::nth(tables, &beside.entries, way),
    ) else {
        return Err(full);
    };
    if !tables.swap(&entry.choice, old, Choice::BUSY) {
        return Err(full);
    }
    let (protocol, round) = (arrival.client.protocol, wanted.round);
    let asked = Asked {
        pool,
        is_v4,
        protocol,
        round,
    };
    let word = allocate(tables, &asked, &decision.target, number, place, now);
    if word == 0 {
        entry.choice.store(old);
        let round = round + 1;
        return Err(if round < ROUNDS {
            Wanted { round, ..wanted }.go(tables)
        } else {
            Exit::Stop(Stop::PortAllocationError)
        });
    }
    translation.store(word);
    let choice = Choice {
        target: decision.target.id,
        listener: decision.listener,
        next_hop: NextHopId::NONE,
    };
    let state = FlowState::NEW.with(FlowState::SOURCE_TRANSLATED);
    entry.fill(&arrival.client, choice, state, now);
    let given = Translation::of_word(word);
    Ok(Endpoint {
        address: pool.address(given.source),
        port: given.port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_arrives() {
        let wanted = Wanted {
            listener: ListenerId(u16::MAX),
            target: TargetId(u32::MAX),
            round: ROUNDS,
            is_fragment: true,
        };
        assert_eq!(Wanted::of_word(wanted.to_word()), wanted);
    }
}
