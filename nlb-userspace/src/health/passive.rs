//! Passive signals: what the traffic itself says about targets, before their next check is due.
//!
//! Nothing here judges. A suspicion brings a target's active check forward, and that decides: so a
//! wrong suspicion costs one check and no flow.
//!
//! A target is in doubt while flows begin to it and **nobody goes on**: of the packets that were sent
//! to it, most began a flow. That is what a client's side of the traffic looks like when the target
//! refuses SYNs (RST, ICMP unreachable), when it is silent, and also in the `dsr` modes, where answers
//! do not pass this node: a client whose SYN was answered sends at least two more packets. (What older
//! flows of a dead target send again must not hide that, so that a few others do not count.) Where
//! answers do pass, a target is in doubt, too, while flows begin and **nothing comes back** at all;
//! for UDP, where a flow may well be one packet, that is the only sign.
//!
//! A healthy target with distant clients is in doubt for one round trip, now and then. Each false
//! alarm doubles the time for which the target is left in peace, up to a minute.
//!
//! Looking at a target is a system call, so there is a budget: targets that had traffic a moment ago
//! are looked at every time, all others in turn. Pure; time comes in as an argument.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    time::Duration,
};

use nlb_common::{counter::Traffic, target::TargetId};

/// How often to look.
pub const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a doubt must last.
const DOUBT: Duration = Duration::from_millis(40);
/// How long a target is left in peace after its first false alarm, and at most.
const PEACE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(64));
/// A target that gives no cause for so many times its peace starts anew.
const FORGOTTEN_AFTER: u32 = 4;
/// Targets that had traffic within this time are looked at every time.
const BUSY: Duration = Duration::from_secs(1);
/// Of those, at most so many; and so many of all others.
const BUDGET: (usize, usize) = (96, 32);

/// What shows that a target is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signs {
    /// That clients go on with the flows that they begin: for TCP.
    pub goes_on: bool,
    /// That anything comes back: where answers pass this node.
    pub comes_back: bool,
}

/// Since when a target has been in doubt, and its traffic since then.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    since: Duration,
    begun: u64,
    others: u64,
    returned: u64,
}

impl Doubt {
    const fn is_dispelled(&self, signs: Signs) -> bool {
        (!signs.goes_on || self.others >= 2 * self.begun)
            && (!signs.comes_back || self.returned > 0)
    }

    const fn is_founded(&self, signs: Signs) -> bool {
        signs.goes_on && self.others < self.begun || signs.comes_back && self.returned == 0
    }
}

/// Everything that is known of the targets that are watched.
#[derive(Debug)]
pub struct Passive<K> {
    targets: BTreeMap<K, Watched>,
    /// Those that had traffic a moment ago, and perhaps some for which it is longer ago.
    busy: BTreeSet<K>,
    /// Behind whom the turn of the others goes on.
    turn: Option<K>,
}

impl<K> Default for Passive<K> {
    fn default() -> Self {
        Self {
            targets: BTreeMap::new(),
            busy: BTreeSet::new(),
            turn: None,
        }
    }
}

#[derive(Debug)]
struct Watched {
    id: TargetId,
    signs: Signs,
    /// None before the first look.
    last: Option<Traffic>,
    doubt: Option<Doubt>,
    busy_until: Duration,
    peace_until: Duration,
    peace: Duration,
}

impl Watched {
    const fn new(id: TargetId, signs: Signs) -> Self {
        Self {
            id,
            signs,
            last: None,
            doubt: None,
            busy_until: Duration::ZERO,
            peace_until: Duration::ZERO,
            peace: PEACE.0,
        }
    }
}

impl<K: Ord + Clone> Passive<K> {
    /// Watches these targets and no others. Those that stay keep what is known of them.
    pub fn watch(&mut self, targets: impl Iterator<Item = (K, TargetId, Signs)>) {
        let mut old = std::mem::take(&mut self.targets);
        self.targets = targets
            .map(|(key, id, signs)| {
                let known = old.remove(&key).filter(|known| known.id == id);
                let watched = known.unwrap_or(Watched::new(id, signs));
                (key, Watched { signs, ..watched })
            })
            .collect();
        self.busy.retain(|key| self.targets.contains_key(key));
    }

    /// Whom to look at now.
    pub fn due(&mut self, now: Duration) -> Vec<(K, TargetId)> {
        let targets = &self.targets;
        let busy_until = |key: &K| targets.get(key).map(|watched| watched.busy_until);
        self.busy
            .retain(|key| busy_until(key).is_some_and(|until| now < until));
        let busy = &self.busy;
        let due = busy
            .iter()
            .take(BUDGET.0)
            .filter_map(|key| targets.get_key_value(key));
        let behind = self.turn.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let up_to = self.turn.as_ref().map(Bound::Included);
        let after = targets.range((behind, Bound::Unbounded));
        let before = up_to.map(|turn| targets.range((Bound::Unbounded, turn)));
        let others = after
            .chain(before.into_iter().flatten())
            .filter(|(key, _)| !busy.contains(*key))
            .take(BUDGET.1);
        let others: Vec<_> = others.collect();
        let turn = others.last().map(|(key, _)| (*key).clone());
        let due = due
            .chain(others)
            .map(|(key, watched)| (key.clone(), watched.id))
            .collect();
        self.turn = turn;
        due
    }

    /// Takes in what a target's counters say; whether it is to be checked at once.
    pub fn look(&mut self, key: &K, now: Duration, traffic: Traffic) -> bool {
        let Some(target) = self.targets.get_mut(key) else {
            return false;
        };
        let Some(last) = target.last.replace(traffic) else {
            return false;
        };
        let packets = traffic.packets.saturating_sub(last.packets);
        let begun = traffic.new_flows.saturating_sub(last.new_flows);
        if packets > 0 {
            target.busy_until = now + BUSY;
            if !self.busy.contains(key) {
                self.busy.insert(key.clone());
            }
        }
        if begun == 0 && target.doubt.is_none() {
            return false;
        }
        let before = target.doubt.unwrap_or(Doubt {
            since: now,
            begun: 0,
            others: 0,
            returned: 0,
        });
        let doubt = Doubt {
            since: before.since,
            begun: before.begun + begun,
            others: before.others + packets.saturating_sub(begun),
            returned: before.returned + traffic.return_packets.saturating_sub(last.return_packets),
        };
        let is_over = now >= doubt.since + DOUBT;
        target.doubt = (!is_over && !doubt.is_dispelled(target.signs)).then_some(doubt);
        if !is_over || !doubt.is_founded(target.signs) || now < target.peace_until {
            return false;
        }
        if now > target.peace_until + target.peace * FORGOTTEN_AFTER {
            target.peace = PEACE.0;
        }
        target.peace_until = now + target.peace;
        target.peace = (target.peace * 2).min(PEACE.1);
        true
    }

    /// A target's state has changed: what was suspected of it before is no measure any more. From now
    /// on it is watched as this says, or not at all.
    pub fn changed(&mut self, key: &K, watched: Option<(TargetId, Signs)>) {
        let Some((id, signs)) = watched else {
            self.targets.remove(key);
            return;
        };
        let known = self.targets.get_mut(key).filter(|known| known.id == id);
        if let Some(known) = known {
            known.doubt = None;
            known.peace = PEACE.0;
        } else {
            self.targets.insert(key.clone(), Watched::new(id, signs));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TargetId = TargetId(1);

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn traffic(packets: u64, new_flows: u64, return_packets: u64) -> Traffic {
        Traffic {
            packets,
            new_flows,
            return_packets,
            ..Traffic::default()
        }
    }

    const NAT: Signs = Signs {
        goes_on: true,
        comes_back: true,
    };
    const DSR: Signs = Signs {
        goes_on: true,
        comes_back: false,
    };
    const DATAGRAMS: Signs = Signs {
        goes_on: false,
        comes_back: true,
    };

    /// The times, in milliseconds, at which a target with these counters every 20 ms is suspect.
    fn suspicions(signs: Signs, looks: &[(u64, u64, u64)]) -> Vec<u64> {
        let mut passive = Passive::default();
        passive.watch([("a", ID, signs)].into_iter());
        (0..)
            .step_by(20)
            .zip(looks)
            .filter(|(now, (packets, new_flows, returned))| {
                passive.look(&"a", at(*now), traffic(*packets, *new_flows, *returned))
            })
            .map(|(now, _)| now)
            .collect()
    }

    #[test]
    fn flows_that_begin_and_never_go_on_make_a_target_suspect_refused_or_not() {
        let silent = [(9, 3, 9), (10, 4, 9), (10, 4, 9), (11, 5, 9), (11, 5, 9)];
        let refused = [(9, 3, 9), (10, 4, 10), (12, 6, 12), (12, 6, 12)];
        for signs in [NAT, DSR] {
            assert_eq!(suspicions(signs, &silent), [60]);
            assert_eq!(suspicions(signs, &refused), [60]);
        }
    }

    #[test]
    fn what_older_flows_send_again_hides_nothing() {
        // Three flows begin, and two packets of older ones come, each time.
        let looks = [(9, 3, 9), (14, 6, 9), (19, 9, 9), (24, 12, 9)];
        assert_eq!(suspicions(DSR, &looks), [60]);
        // However many: where answers would be seen, there are none.
        let looks = [(9, 3, 9), (90, 6, 9), (180, 9, 9), (270, 12, 9)];
        assert_eq!(suspicions(NAT, &looks), [60]);
        assert_eq!(suspicions(DSR, &looks), [0; 0]);
    }

    #[test]
    fn flows_that_go_on_and_are_answered_make_none_suspect() {
        let handshakes = [
            (0, 0, 0),
            (1, 1, 1),
            (3, 1, 2),
            (4, 2, 3),
            (7, 2, 5),
            (7, 2, 5),
        ];
        let nothing = [(7, 3, 0); 10];
        for signs in [NAT, DSR] {
            assert_eq!(suspicions(signs, &handshakes), [0; 0]);
            assert_eq!(suspicions(signs, &nothing), [0; 0]);
        }
        let datagrams = [
            (0, 0, 0),
            (1, 1, 1),
            (2, 2, 2),
            (3, 3, 2),
            (4, 4, 3),
            (4, 4, 4),
        ];
        assert_eq!(suspicions(DATAGRAMS, &datagrams), [0; 0]);
        let unanswered = [(0, 0, 0), (1, 1, 0), (2, 2, 0), (3, 3, 0)];
        assert_eq!(suspicions(DATAGRAMS, &unanswered), [60]);
    }

    #[test]
    fn a_healthy_moment_ends_a_doubt_and_the_next_begins_anew() {
        let looks = [
            (0, 0, 0),
            (1, 1, 0),
            (9, 2, 5),
            (10, 3, 5),
            (10, 3, 5),
            (10, 3, 5),
        ];
        assert_eq!(suspicions(DSR, &looks), [100]);
    }

    #[test]
    fn what_was_counted_before_the_first_look_says_nothing() {
        let looks = [(5, 5, 0); 10];
        assert_eq!(suspicions(NAT, &looks), [0; 0]);
    }

    #[test]
    fn each_false_alarm_doubles_the_peace_up_to_a_minute_and_a_change_of_state_ends_that() {
        let mut passive = Passive::default();
        passive.watch([("a", ID, DSR)].into_iter());
        let mut alarms = Vec::new();
        for step in 0..15_000_u64 {
            // A flow begins each time, and none goes on.
            let now = at(step * 20);
            if passive.look(&"a", now, traffic(step, step, 0)) {
                alarms.push(now);
            }
        }
        let mut peace = PEACE.0;
        for pair in alarms.windows(2) {
            // A doubt takes 60 ms to be founded again.
            let late = pair[1].saturating_sub(pair[0] + peace);
            assert!(pair[1] >= pair[0] + peace && late <= at(60), "{alarms:?}");
            peace = (peace * 2).min(PEACE.1);
        }
        assert_eq!(alarms.len(), 12);
        passive.changed(&"a", Some((ID, NAT)));
        assert_eq!(passive.targets["a"].peace, PEACE.0);
    }

    #[test]
    fn a_target_that_gave_no_cause_for_long_is_doubted_as_quickly_as_at_first() {
        let mut passive = Passive::default();
        passive.watch([("a", ID, DSR)].into_iter());
        let mut packets = 0;
        let mut alarm = |start: u64| {
            for step in 0..4 {
                packets += 1;
                let now = at(start + step * 20);
                if passive.look(&"a", now, traffic(packets, packets, 0)) {
                    return Some(now);
                }
            }
            None
        };
        assert_eq!(alarm(0), Some(at(60)));
        assert_eq!(alarm(100), None, "in peace");
        // The first peace ends at 310 ms; the next would be 500 ms.
        assert!(alarm(310 + 2_100).is_some());
        assert!(alarm(310 + 2_100 + 400).is_some());
    }

    #[test]
    fn busy_targets_are_looked_at_every_time_and_the_others_in_turn_within_the_budget() {
        let mut passive = Passive::default();
        let all = 1_000_u32;
        passive.watch((0..all).map(|key| (key, TargetId(key), DSR)));
        let mut seen = std::collections::BTreeSet::new();
        let rounds = all.div_ceil(32);
        for _ in 0..rounds {
            let due = passive.due(at(0));
            assert_eq!(due.len(), BUDGET.1);
            seen.extend(due.into_iter().map(|(key, _)| key));
        }
        assert_eq!(seen.len(), 1_000, "everybody has had a turn");
        for key in [7, 900] {
            passive.look(&key, at(0), traffic(0, 0, 0));
            passive.look(&key, at(20), traffic(2, 1, 1));
        }
        for _ in 0..3 {
            let due: Vec<u32> = passive
                .due(at(40))
                .into_iter()
                .map(|(key, _)| key)
                .collect();
            assert_eq!(due[..2], [7, 900]);
            assert_eq!(due.len(), BUDGET.1 + 2);
        }
        assert_eq!(passive.due(at(2_000)).len(), BUDGET.1, "busy no more");
    }

    #[test]
    fn a_target_with_another_record_is_another_target() {
        let mut passive = Passive::default();
        passive.watch([("a", ID, DSR)].into_iter());
        passive.look(&"a", at(0), traffic(5, 5, 0));
        passive.watch([("a", TargetId(2), DSR)].into_iter());
        assert!(!passive.look(&"a", at(20), traffic(9, 9, 0)));
        assert!(
            !passive.look(&"a", at(100), traffic(9, 9, 0)),
            "nothing is new"
        );
    }
}
