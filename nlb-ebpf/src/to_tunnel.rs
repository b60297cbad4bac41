//! From the client to a target behind a tunnel, for packets that need more than that: a stage of its
//! own, because the one that decides about them has no stack left for outer headers.

use nlb_common::{listener::ListenerId, target::TargetId};

use crate::{
    Exit, Stage, Verdict,
    classify::forgotten,
    emit::{UNTAGGED, emit},
    frame::Frame,
    parse::parse,
    segment_size,
    tables::Tables,
    to_target::{Arrival, Decision, opens, remember, way},
    tunnel::wrap,
};

/// What the stage before decided, as the word that it hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Decided {
    listener: ListenerId,
    target: TargetId,
    /// Whether a flow begins.
    begins: bool,
}

impl Decided {
    #[inline(always)]
    const fn to_word(self) -> u64 {
        self.target.0 as u64 | (self.listener.0 as u64) << 32 | (self.begins as u64) << 48
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "takes the word apart")]
    const fn of_word(word: u64) -> Self {
        Self {
            target: TargetId(word as u32),
            listener: ListenerId((word >> 32) as u16),
            begins: word >> 48 != 0,
        }
    }
}

/// Goes on to [`Stage::Wrap`] with a packet that fits its target's tunnel and next hop.
#[inline(always)]
pub(crate) fn go<T: Tables>(tables: &T, decision: &Decision<'_>) -> Exit {
    let decided = Decided {
        listener: decision.listener,
        target: decision.target.id,
        begins: decision.begins,
    };
    tables.hand_over(decided.to_word());
    Exit::Go(Stage::Wrap)
}

/// The stage of packets that a target gets through a tunnel and that open or begin a flow, or are
/// fragments.
///
/// As everywhere, a packet that is stopped here has changed nothing: it is wrapped, which may fail
/// for want of room, before its flow is pinned.
#[inline(always)]
pub fn to_tunnel<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Exit> {
    let packet = forgotten(parse(frame)?, tables);
    frame.forget_ends();
    let Decided {
        listener,
        target,
        begins,
    } = Decided::of_word(tables.handed_over());
    let arrival = Arrival::of(&packet, tables);
    let decision = Decision::made(&packet, tables, &arrival, listener, target, begins)?;
    let next_hop = way::<true, F, T>(frame, &packet, tables, &decision.target)?;
    let transport = wrap(frame, &packet, tables, &decision.target, arrival.place)?;
    remember::<true, T>(&packet, tables, &arrival, &decision)?;
    if opens(&packet) {
        segment_size::clamp(frame, transport, listener, tables);
    }
    Ok(emit(frame, UNTAGGED, &next_hop)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_decided_arrives() {
        for begins in [false, true] {
            let decided = Decided {
                listener: ListenerId(u16::MAX),
                target: TargetId(u32::MAX),
                begins,
            };
            assert_eq!(Decided::of_word(decided.to_word()), decided);
        }
    }
}
