//! From the client to its target, for packets that begin or open a flow, or need something else that
//! most do not: what was decided in [`crate::begin`] is done.
//!
//! A stage of its own, because deciding and doing have no room on one stack of 512 bytes.

use nlb_common::{
    answer::Notice,
    flow::{Choice, FlowEntry, FlowState, Progress},
    fragment::Way,
    listener::ListenerId,
    next_hop::NextHopId,
    stop::Stop,
    target::{Mode, TargetId},
};

use crate::{
    Exit, Stage, Verdict, admission,
    classify::forgotten,
    emit::{UNTAGGED, emit, fits, has_a_hop_left, room_bytes},
    flows::{self, Found},
    fragment,
    frame::Frame,
    parse::{Kind, Packet, parse},
    rewrite::{End, translate},
    segment_size,
    select::Chosen,
    settled, snat,
    tables::{PassageKind, Tables},
    to_target::{Arrival, Decision, advance, count, find, note, opens, refused, resets, way},
    tunnel::{overhead_bytes, wrap},
};

/// What [`crate::begin`] decided, as the word that it hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decided {
    pub(crate) listener: ListenerId,
    pub(crate) target: TargetId,
    /// What begins with the packet.
    pub(crate) begins: Begins,
    /// Whether its flow was searched for in vain.
    pub(crate) is_unseen: bool,
    /// Whether that needs a source of ours.
    pub(crate) needs_source: bool,
}

/// What begins with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begins {
    /// Nothing: it is of a remembered flow.
    Nothing,
    /// A flow, which is to be remembered, as far as its listener goes.
    Flow,
    /// The memory of a flow that began before.
    Memory,
    /// Nothing that is to be remembered.
    Unpinned,
}

impl Begins {
    /// What a decision says.
    #[inline(always)]
    pub(crate) const fn of(decision: &Decision<'_>) -> Self {
        if !decision.begins {
            Self::Nothing
        } else if !decision.is_pinned {
            Self::Unpinned
        } else if decision.state.has(FlowState::RESUMED) {
            Self::Memory
        } else {
            Self::Flow
        }
    }

    #[inline(always)]
    const fn of_bits(bits: u64) -> Self {
        match bits & 3 {
            0 => Self::Nothing,
            1 => Self::Flow,
            2 => Self::Memory,
            _ => Self::Unpinned,
        }
    }
}

impl Decided {
    #[inline(always)]
    const fn to_word(self) -> u64 {
        self.target.0 as u64
            | (self.listener.0 as u64) << 32
            | (self.begins as u64) << 48
            | (self.needs_source as u64) << 50
            | (self.is_unseen as u64) << 51
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "takes the word apart")]
    const fn of_word(word: u64) -> Self {
        Self {
            target: TargetId(word as u32),
            listener: ListenerId((word >> 32) as u16),
            begins: Begins::of_bits(word >> 48),
            is_unseen: word >> 51 & 1 != 0,
            needs_source: word >> 50 & 1 != 0,
        }
    }

    /// Goes on to [`Stage::Depart`].
    #[inline(always)]
    pub(crate) fn go<T: Tables>(self, tables: &T) -> Exit {
        tables.hand_over(self.to_word());
        Exit::Go(Stage::Depart)
    }
}

impl<'t> Decision<'t> {
    /// A decision that another stage made about this packet.
    #[inline(always)]
    pub(crate) fn made<T: Tables>(
        packet: &Packet,
        tables: &'t T,
        arrival: &Arrival,
        decided: Decided,
    ) -> Result<Self, Stop> {
        let Decided {
            listener,
            target,
            begins,
            is_unseen,
            ..
        } = decided;
        let target = Chosen::of(tables, target)?;
        // What another processor may have pinned since then is found by its next packet.
        let entry = if is_unseen {
            Found::NOTHING
        } else {
            find(packet, tables, arrival, |_| {})
        };
        let progress = entry.entry.map_or(Progress::NONE, FlowEntry::progress);
        let state = match begins {
            Begins::Nothing => advance(progress.state, packet, target.control.mode),
            Begins::Memory => FlowState::RESUMED,
            Begins::Flow | Begins::Unpinned => FlowState::NEW,
        };
        Ok(Self {
            listener,
            target,
            entry,
            progress,
            state,
            has_news: true,
            begins: begins != Begins::Nothing,
            is_pinned: begins != Begins::Unpinned,
        })
    }
}

/// Sends a packet to the target that was decided upon, and remembers its flow.
///
/// As everywhere, a packet that is stopped here has changed nothing: it is wrapped, which may fail
/// for want of room, before its flow is pinned.
#[inline(always)]
pub fn depart<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Exit> {
    let packet = forgotten(parse(frame)?, tables);
    frame.forget_ends();
    let decided = Decided::of_word(tables.handed_over());
    let arrival = Arrival::of(&packet, tables);
    let decision = Decision::made(&packet, tables, &arrival, decided)?;
    let source = if decided.needs_source {
        snat::any_source(&packet, tables)
    } else {
        packet.source
    };
    let next_hop = way(frame, &packet, source, tables, &decision.target)?;
    let mode = decision.target.control.mode;
    let overhead = overhead_bytes(&decision.target);
    if mode.is_translated() {
        has_a_hop_left(&packet)
            .map_err(|stop| refused(tables, stop, &decision, Notice::TIME_EXCEEDED, 0))?;
    }
    fits(&packet, overhead, &next_hop).map_err(|stop| {
        let mtu_bytes = room_bytes(overhead, &next_hop);
        refused(tables, stop, &decision, Notice::TOO_BIG, mtu_bytes)
    })?;
    // Last of all that can stop the packet but for want of room, so that what is counted begins.
    let is_remembered = !decision.begins
        || !resets(&packet)
            && decision.is_pinned
            && admission::within_limits(&packet, tables, decision.listener, arrival.now)?;
    if decided.needs_source {
        // What cannot be remembered has no source.
        return Err(if is_remembered {
            snat::begin::go(tables, &packet, &decision)
        } else {
            Exit::Stop(Stop::FlowTableFull)
        });
    }
    let (mut network, mut transport) = (packet.network, packet.transport);
    if mode.is_tunnel() {
        transport = wrap(
            frame,
            &packet,
            tables,
            &decision.target,
            arrival.place.entropy(),
        )?;
        network = UNTAGGED;
    }
    if mode == Mode::NAT && packet.kind == Kind::FirstFragment {
        // A number is given to what is remembered.
        if decision.begins && resets(&packet) {
            return Err(Exit::Stop(Stop::ResetWithoutFlow));
        }
        if decision.begins {
            pin(&packet, tables, &arrival, &decision, is_remembered)?;
        }
        return Err(snat::known::go_first(tables, decision.begins));
    }
    remember(&packet, tables, &arrival, &decision, is_remembered)?;
    if mode == Mode::NAT {
        let record = decision.target.record;
        let (address, port) = (record.address(), record.port());
        translate(frame, &packet, End::Destination, address, port)?;
    }
    if opens(&packet) {
        segment_size::clamp(frame, transport, decision.listener, tables);
    }
    Ok(emit(frame, network, &next_hop)?)
}

/// Remembers what is to be remembered of a packet that nothing stops any more, and counts it.
#[inline(always)]
fn remember<T: Tables>(
    packet: &Packet,
    tables: &T,
    arrival: &Arrival,
    decision: &Decision<'_>,
    is_remembered: bool,
) -> Result<(), Stop> {
    if decision.begins {
        let kind = if decision.is_pinned {
            pin(packet, tables, arrival, decision, is_remembered)?
        } else {
            settled::kind(packet)
        };
        count(packet, tables, decision, kind);
    } else {
        note(packet, tables, arrival, decision);
    }
    if packet.kind == Kind::FirstFragment {
        let (listener, target) = (decision.listener, decision.target.id);
        fragment::remember(packet, tables, listener, target, Way::ToTarget);
    }
    Ok(())
}

/// Pins a flow that begins, in its old entry if it had one.
#[inline(always)]
fn pin<T: Tables>(
    packet: &Packet,
    tables: &T,
    arrival: &Arrival,
    decision: &Decision<'_>,
    is_remembered: bool,
) -> Result<PassageKind, Stop> {
    // A stray RST begins nothing: it goes where its flow would go, and is forgotten.
    if resets(packet) {
        return Ok(PassageKind::Unpinned);
    }
    let choice = Choice {
        target: decision.target.id,
        listener: decision.listener,
        next_hop: NextHopId::NONE,
    };
    let (client, state, now) = (&arrival.client, decision.state, arrival.now);
    let is_pinned = is_remembered
        && match decision.entry.entry {
            Some(entry) => {
                let word = decision.entry.word;
                flows::refill(tables, entry, word, client, choice, state, now)
            }
            None => flows::pin(tables, arrival.place, client, choice, state, now),
        };
    if is_pinned {
        Ok(PassageKind::New)
    } else if decision.target.control.mode.is_translated() {
        Err(Stop::FlowTableFull)
    } else {
        Ok(PassageKind::Unpinned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_decided_arrives() {
        let kinds = [
            Begins::Nothing,
            Begins::Flow,
            Begins::Memory,
            Begins::Unpinned,
        ];
        for (begins, needs_source) in kinds.into_iter().zip([false, true, false, true]) {
            let decided = Decided {
                listener: ListenerId(u16::MAX),
                target: TargetId(u32::MAX),
                begins,
                is_unseen: !needs_source,
                needs_source,
            };
            assert_eq!(Decided::of_word(decided.to_word()), decided);
        }
    }
}
