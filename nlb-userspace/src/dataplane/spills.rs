//! Marks of near buckets, taken away when no flow needs them any more.
//!
//! A mark says that flows of a near bucket may lie in far ones ([`nlb_ebpf::flows`]): the packet path sets
//! it before the flow, and never takes it away. Without this a table that was crowded once would be
//! searched as a crowded one for good.

use nlb_common::{
    flow::{Choice, Client, FlowEntry, spilled},
    tick::Tick,
    word::Word,
};

/// How old a mark must be to be looked at, in ticks of about a second. A packet that has set one fills
/// its entry within microseconds.
const PATIENCE_TICKS: u16 = 60;

/// Takes away old marks of near buckets that have no flow among `far` entries; says how many.
///
/// A mark that is needed is set anew, so that it is looked at again after the same time. Both by
/// compare and swap: a packet may set it at any moment.
pub fn tidy<'m>(
    marks: &[Word],
    far: impl Iterator<Item = &'m FlowEntry>,
    near_of: impl Fn(&Client) -> u32,
    now: Tick,
) -> usize {
    let mut needed = vec![false; marks.len()];
    let old: Vec<(usize, u64)> = (0..)
        .zip(marks)
        .map(|(near, mark)| (near, mark.load()))
        .filter(|(_, mark)| *mark != 0 && age_ticks(*mark, now) >= PATIENCE_TICKS)
        .collect();
    if old.is_empty() {
        return 0;
    }
    for entry in far {
        // Who is just filling one has set its mark a moment ago.
        if !matches!(entry.choice.load(), Choice::EMPTY | Choice::BUSY)
            && let Some(needed) = needed.get_mut(near_of(&entry.client()) as usize)
        {
            *needed = true;
        }
    }
    let tidied = old.into_iter().filter(|(near, mark)| {
        let new = if needed[*near] { spilled(now) } else { 0 };
        marks[*near].swap(*mark, new) && new == 0
    });
    tidied.count()
}

/// How long ago a mark was set.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the tick is its lower half"
)]
fn age_ticks(mark: u64, now: Tick) -> u16 {
    now.since(Tick(mark as u16))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use nlb_common::{
        address::Address, flow::FlowState, listener::ListenerId, next_hop::NextHopId,
        target::TargetId,
    };
    use zerocopy::big_endian::U16;

    use super::*;

    const THEN: Tick = Tick(u16::MAX - 10);
    const LATER: Tick = Tick(THEN.0.wrapping_add(PATIENCE_TICKS));

    /// A flow whose near bucket is its client's port.
    fn flow(near: u16) -> FlowEntry {
        let entry = FlowEntry::default();
        let client = Client {
            address: Address::from(IpAddr::from([198, 51, 100, 7])),
            port: U16::new(near),
            protocol: 6,
        };
        let choice = Choice {
            target: TargetId(1),
            listener: ListenerId(1),
            next_hop: NextHopId::NONE,
        };
        entry.fill(&client, choice, FlowState::NEW, THEN);
        entry
    }

    fn tidied(marks: &[Word], far: &[FlowEntry], now: Tick) -> usize {
        tidy(marks, far.iter(), |client| client.port.get().into(), now)
    }

    fn marks() -> [Word; 4] {
        let marks = <[Word; 4]>::default();
        for mark in &marks[1..] {
            mark.store(spilled(THEN));
        }
        marks
    }

    #[test]
    fn only_marks_that_no_flow_needs_are_taken_away() {
        let (marks, far) = (marks(), [flow(2), FlowEntry::default()]);
        assert_eq!(tidied(&marks, &far, LATER), 2);
        let left = marks.each_ref().map(Word::load);
        assert_eq!(left, [0, 0, spilled(LATER), 0]);
        assert_eq!(tidied(&marks, &[], LATER), 0, "it was set anew");
    }

    #[test]
    fn a_mark_that_a_packet_may_just_have_set_stays() {
        let marks = marks();
        let soon = Tick(THEN.0.wrapping_add(PATIENCE_TICKS - 1));
        assert_eq!(tidied(&marks, &[], soon), 0);
        assert!(marks[1..].iter().all(|mark| mark.load() == spilled(THEN)));
    }

    #[test]
    fn a_mark_that_is_set_meanwhile_stays() {
        let marks = marks();
        let far = [flow(0)];
        let near_of = |_: &Client| {
            marks[1].store(spilled(LATER));
            0
        };
        assert_eq!(tidy(&marks, far.iter(), near_of, LATER), 2);
        assert_eq!(marks[1].load(), spilled(LATER));
    }
}
