//! Passive signals: what the traffic itself says about targets, before their next check is due.
//!
//! Nothing here judges. A suspicion brings a target's active check forward, and that decides: so a
//! wrong suspicion costs one check and no flow.
//!
//! A target is in doubt when flows begin to it and **nobody goes on**: every packet that was sent to
//! it began a flow. That is what a client's side of the traffic looks like when the target refuses
//! SYNs (RST, ICMP unreachable), when it is silent, and also in the `dsr` modes, where answers do not
//! pass this node: a client whose SYN was answered sends more. Where a flow may well be one packet
//! (UDP), a target is in doubt when nothing comes back at all, which is seen in translating modes
//! only.
//!
//! A healthy target with distant clients is in doubt for one round trip, now and then. Each false
//! alarm doubles the time for which the target is left in peace, up to a minute.
//!
//! Looking at a target is a system call, so there is a budget: targets that had traffic a moment ago
//! are looked at every time, all others in turn. Pure; time comes in as an argument.

use std::{collections::BTreeMap, time::Duration};

use nlb_common::{counter::Traffic, target::TargetId};

/// How often to look.
pub const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a doubt must last.
const DOUBT: Duration = Duration::from_millis(40);
/// How long a target is left in peace after its first false alarm, and at most.
const PEACE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(64));
/// Targets that had traffic within this time are looked at every time.
const BUSY: Duration = Duration::from_secs(1);
/// Of those, at most so many; and so many of all others.
const BUDGET: (usize, usize) = (96, 32);

/// By what a target is doubted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Flows begin and nobody goes on: for TCP.
    NobodyGoesOn,
    /// Flows begin and nothing comes back: where answers pass this node.
    NothingComesBack,
}

/// Everything that is known of the targets that are watched.
#[derive(Debug)]
pub struct Passive<K> {
    targets: BTreeMap<K, Watched>,
    /// Behind whom the turn of the others goes on.
    turn: Option<K>,
}

impl<K> Default for Passive<K> {
    fn default() -> Self {
        Self {
            targets: BTreeMap::new(),
            turn: None,
        }
    }
}

#[derive(Debug)]
struct Watched {
    id: TargetId,
    sign: Sign,
    /// None before the first look.
    last: Option<Traffic>,
    /// Since when it has been in doubt.
    doubt: Option<Duration>,
    busy_until: Duration,
    peace_until: Duration,
    peace: Duration,
}

impl<K: Ord + Clone> Passive<K> {
    /// Watches these targets and no others. Those that stay keep what is known of them.
    pub fn watch(&mut self, targets: impl Iterator<Item = (K, TargetId, Sign)>) {
        let mut old = std::mem::take(&mut self.targets);
        self.targets = targets
            .map(|(key, id, sign)| {
                let known = old.remove(&key).filter(|known| known.id == id);
                let watched = known.unwrap_or(Watched {
                    id,
                    sign,
                    last: None,
                    doubt: None,
                    busy_until: Duration::ZERO,
                    peace_until: Duration::ZERO,
                    peace: PEACE.0,
                });
                (key, Watched { sign, ..watched })
            })
            .collect();
    }

    /// Whom to look at now.
    pub fn due(&mut self, now: Duration) -> Vec<(K, TargetId)> {
        let is_busy = |watched: &Watched| now < watched.busy_until;
        let mut due: Vec<_> = self
            .targets
            .iter()
            .filter(|(_, watched)| is_busy(watched))
            .take(BUDGET.0)
            .map(|(key, watched)| (key.clone(), watched.id))
            .collect();
        let behind = |key: &&K| self.turn.as_ref().is_none_or(|turn| *key > turn);
        let after = self.targets.iter().filter(|(key, _)| behind(key));
        let before = self.targets.iter().filter(|(key, _)| !behind(key));
        let others: Vec<_> = after
            .chain(before)
            .filter(|(_, watched)| !is_busy(watched))
            .take(BUDGET.1)
            .map(|(key, watched)| (key.clone(), watched.id))
            .collect();
        self.turn = others.last().map(|(key, _)| key.clone());
        due.extend(others);
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
        let returned = traffic.return_packets > last.return_packets;
        if packets > 0 {
            target.busy_until = now + BUSY;
        }
        let is_well = match target.sign {
            Sign::NobodyGoesOn => packets > begun,
            Sign::NothingComesBack => returned,
        };
        if is_well {
            target.doubt = None;
        } else if begun > 0 {
            target.doubt.get_or_insert(now);
        }
        let is_suspect = target.doubt.is_some_and(|since| now >= since + DOUBT);
        if !is_suspect || now < target.peace_until {
            return false;
        }
        target.doubt = None;
        target.peace_until = now + target.peace;
        target.peace = (target.peace * 2).min(PEACE.1);
        true
    }

    /// A target's state has changed: what was suspected of it before is no measure any more.
    pub fn changed(&mut self, key: &K) {
        if let Some(target) = self.targets.get_mut(key) {
            target.doubt = None;
            target.peace = PEACE.0;
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

    /// The times, in milliseconds, at which a target with these counters every 20 ms is suspect.
    fn suspicions(sign: Sign, looks: &[(u64, u64, u64)]) -> Vec<u64> {
        let mut passive = Passive::default();
        passive.watch([("a", ID, sign)].into_iter());
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
        assert_eq!(suspicions(Sign::NobodyGoesOn, &silent), [60]);
        let refused = [(9, 3, 9), (10, 4, 10), (12, 6, 12), (12, 6, 12)];
        assert_eq!(suspicions(Sign::NobodyGoesOn, &refused), [60]);
    }

    #[test]
    fn flows_that_go_on_do_not() {
        let handshakes = [
            (0, 0, 0),
            (1, 1, 1),
            (2, 1, 1),
            (3, 2, 2),
            (5, 2, 4),
            (5, 2, 4),
        ];
        assert_eq!(suspicions(Sign::NobodyGoesOn, &handshakes), [0; 0]);
        let nothing = [(7, 3, 0); 10];
        assert_eq!(suspicions(Sign::NobodyGoesOn, &nothing), [0; 0]);
        let datagrams = [
            (0, 0, 0),
            (1, 1, 1),
            (2, 2, 2),
            (3, 3, 3),
            (4, 4, 3),
            (4, 4, 4),
        ];
        assert_eq!(suspicions(Sign::NothingComesBack, &datagrams), [0; 0]);
    }

    #[test]
    fn what_was_counted_before_the_first_look_says_nothing() {
        let looks = [(5, 5, 0); 10];
        assert_eq!(suspicions(Sign::NobodyGoesOn, &looks), [0; 0]);
    }

    #[test]
    fn each_false_alarm_doubles_the_peace_up_to_a_minute_and_a_change_of_state_ends_that() {
        let mut passive = Passive::default();
        passive.watch([("a", ID, Sign::NobodyGoesOn)].into_iter());
        let mut alarms = Vec::new();
        for step in 0..15_000_u64 {
            // A flow begins each time, and none goes on.
            let now = at(step * 20);
            if passive.look(&"a", now, traffic(step, step, 0)) {
                alarms.push(now.as_secs());
            }
        }
        assert_eq!(alarms, [0, 1, 3, 7, 15, 31, 63, 127, 191, 255]);
        passive.changed(&"a");
        assert_eq!(passive.targets["a"].peace, PEACE.0);
    }

    #[test]
    fn busy_targets_are_looked_at_every_time_and_the_others_in_turn_within_the_budget() {
        let mut passive = Passive::default();
        let all = 1_000_u32;
        passive.watch((0..all).map(|key| (key, TargetId(key), Sign::NobodyGoesOn)));
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
        passive.watch([("a", ID, Sign::NobodyGoesOn)].into_iter());
        passive.look(&"a", at(0), traffic(5, 5, 0));
        passive.watch([("a", TargetId(2), Sign::NobodyGoesOn)].into_iter());
        assert!(!passive.look(&"a", at(20), traffic(9, 9, 0)));
        assert!(
            !passive.look(&"a", at(100), traffic(9, 9, 0)),
            "nothing is new"
        );
    }
}
