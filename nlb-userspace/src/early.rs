//! Fragments that came before their datagram's first one: how long they wait, and what becomes of
//! them.
//!
//! Packets cannot wait in the kernel. So the packet program hands such a fragment over and drops it;
//! it waits here until its datagram's first one has left a record, and is then sent in again as if it
//! had just arrived ([`Loaded::send_in`](crate::dataplane::load::Loaded::send_in)). What waits, how long,
//! and how much goes in again are bounded, and nothing goes in twice; see docs/adr/0010-early-fragments.md.
//!
//! A target's fragment may be of its own business, and has gone on: what waits is a copy, for a shorter
//! time and in fewer places, and counts only if its first one comes.

use std::{
    collections::VecDeque,
    hash::{BuildHasher as _, RandomState},
    time::{Duration, Instant},
};

use nlb_common::{early::EarlyFragment, fragment::FragmentKey};
use serde::{Deserialize, Serialize};

/// How long a fragment waits for its first one: much longer than packets of one sender overtake each
/// other, and much shorter than a receiver waits for all of them.
const PATIENCE: Duration = Duration::from_secs(1);

/// The same for a copy, so that those that wait for nothing make room soon.
const COPIES_PATIENCE: Duration = Duration::from_millis(100);

/// How many wait at a time.
const PLACES: usize = 256;
/// How many of them may be copies.
const COPIES_PLACES: usize = 64;

/// How many go in again within [`PATIENCE`].
const SENT: usize = 4096;

/// What became of the fragments that came before their first one, since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Handed over by the packet program.
    pub kept: u64,
    /// Sent in again, because the first one had come.
    pub sent_on: u64,
    /// Dropped: the first one did not come in time, or too many waited.
    pub given_up: u64,
}

/// Those that wait.
#[derive(Debug, Default)]
pub struct Waiting {
    /// In the order in which they came.
    fragments: VecDeque<(Instant, Box<EarlyFragment>)>,
    /// Digests of those that were sent in.
    sent: VecDeque<(Instant, u64)>,
    hasher: RandomState,
    counts: Counts,
}

impl Waiting {
    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.fragments.is_empty()
    }

    /// What became of all that came.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Lets a fragment wait, unless it waited before: then its record is one that packets do not find.
    pub fn keep(&mut self, fragment: &EarlyFragment, now: Instant) {
        let is_copy = fragment.is_copy != 0;
        self.counts.kept += u64::from(!is_copy);
        let digest = self.digest(fragment);
        let is_back = self.sent.iter().any(|(_, sent)| *sent == digest);
        if is_back || !self.has_room(is_copy) {
            self.counts.given_up += u64::from(!is_copy);
        } else {
            self.fragments.push_back((now, Box::new(*fragment)));
        }
    }

    /// Takes those out whose first one `has_come`, and drops those that waited long enough.
    pub fn leave(
        &mut self,
        now: Instant,
        mut has_come: impl FnMut(&FragmentKey) -> bool,
    ) -> Vec<EarlyFragment> {
        let is_past = |since, patience| now.saturating_duration_since(since) >= patience;
        while (self.sent.front()).is_some_and(|(at, _)| is_past(*at, PATIENCE)) {
            self.sent.pop_front();
        }
        let mut leaving = Vec::new();
        for (since, fragment) in std::mem::take(&mut self.fragments) {
            let is_copy = fragment.is_copy != 0;
            let patience = if is_copy { COPIES_PATIENCE } else { PATIENCE };
            if self.sent.len() < SENT && has_come(&fragment.key) {
                self.counts.kept += u64::from(is_copy);
                self.counts.sent_on += 1;
                self.sent.push_back((now, self.digest(&fragment)));
                leaving.push(*fragment);
            } else if is_past(since, patience) {
                self.counts.given_up += u64::from(!is_copy);
            } else {
                self.fragments.push_back((since, fragment));
            }
        }
        leaving
    }

    fn has_room(&self, is_copy: bool) -> bool {
        let waiting = &self.fragments;
        let copies = || waiting.iter().filter(|(_, it)| it.is_copy != 0).count();
        waiting.len() < PLACES && !(is_copy && copies() >= COPIES_PLACES)
    }

    fn digest(&self, fragment: &EarlyFragment) -> u64 {
        self.hasher
            .hash_one((fragment.key, fragment.interface, fragment.frame()))
    }
}

#[cfg(test)]
mod tests {
    use nlb_common::{address::Address, early::FRAME_BYTES};

    use super::*;

    fn fragment(identification: u32, content: u8) -> EarlyFragment {
        EarlyFragment {
            key: FragmentKey {
                source: Address::UNSPECIFIED,
                destination: Address::UNSPECIFIED,
                identification,
                protocol: 17,
            },
            interface: 2,
            length_bytes: 60,
            is_copy: 0,
            bytes: [content; FRAME_BYTES],
        }
    }

    fn contents(fragments: &[EarlyFragment]) -> Vec<u8> {
        fragments.iter().map(|it| it.bytes[0]).collect()
    }

    #[test]
    fn fragments_leave_in_their_order_when_their_first_one_has_come() {
        let (mut waiting, start) = (Waiting::default(), Instant::now());
        for (identification, content) in [(1, 10), (2, 20), (1, 11)] {
            waiting.keep(&fragment(identification, content), start);
        }
        assert!(waiting.leave(start, |_| false).is_empty());
        let leaving = waiting.leave(start, |key| key.identification == 1);
        assert_eq!(contents(&leaving), [10, 11]);
        assert_eq!(contents(&waiting.leave(start, |_| true)), [20]);
        assert!(waiting.is_empty());
        let counts = waiting.counts();
        assert_eq!((counts.kept, counts.sent_on, counts.given_up), (3, 3, 0));
    }

    fn copy(identification: u32) -> EarlyFragment {
        EarlyFragment {
            is_copy: 1,
            ..fragment(identification, 0)
        }
    }

    #[test]
    fn a_copy_counts_only_if_its_first_one_comes_and_waits_less() {
        let (mut waiting, start) = (Waiting::default(), Instant::now());
        for identification in [1, 2] {
            waiting.keep(&copy(identification), start);
        }
        assert_eq!(waiting.counts(), Counts::default());
        assert_eq!(
            waiting.leave(start, |key| key.identification == 1),
            [copy(1)]
        );
        assert!(waiting.leave(start + COPIES_PATIENCE, |_| false).is_empty());
        assert!(waiting.is_empty());
        let counts = waiting.counts();
        assert_eq!((counts.kept, counts.sent_on, counts.given_up), (1, 1, 0));
    }

    #[test]
    fn copies_leave_room_for_what_waits_for_us_alone() {
        let (mut waiting, start) = (Waiting::default(), Instant::now());
        for identification in (0..).take(2 * PLACES) {
            waiting.keep(&copy(identification), start);
        }
        for identification in (0..).take(PLACES - COPIES_PLACES) {
            waiting.keep(&fragment(identification, 1), start);
        }
        assert_eq!(waiting.counts().given_up, 0);
        assert_eq!(waiting.leave(start, |_| true).len(), PLACES);
    }

    #[test]
    fn who_waits_too_long_is_dropped() {
        let (mut waiting, start) = (Waiting::default(), Instant::now());
        waiting.keep(&fragment(1, 10), start);
        let nearly = start + PATIENCE.saturating_sub(Duration::from_millis(1));
        assert!(waiting.leave(nearly, |_| false).is_empty());
        assert!(!waiting.is_empty());
        assert!(waiting.leave(start + PATIENCE, |_| false).is_empty());
        assert!(waiting.is_empty());
        assert_eq!(waiting.counts().given_up, 1);
    }

    #[test]
    fn a_fragment_that_comes_back_is_not_sent_in_again() {
        let (mut waiting, start) = (Waiting::default(), Instant::now());
        let one = fragment(1, 10);
        waiting.keep(&one, start);
        assert_eq!(waiting.leave(start, |_| true), [one]);
        waiting.keep(&one, start);
        assert!(waiting.leave(start, |_| true).is_empty());
        assert_eq!(waiting.counts().given_up, 1);
        // Another one of the datagram may.
        waiting.keep(&fragment(1, 11), start);
        assert_eq!(waiting.leave(start, |_| true).len(), 1);
        // And the same one, when a datagram may have its number anew.
        let later = start + PATIENCE;
        assert!(waiting.leave(later, |_| true).is_empty());
        waiting.keep(&one, later);
        assert_eq!(waiting.leave(later, |_| true).len(), 1);
    }

    #[test]
    fn neither_more_wait_nor_more_go_in_than_there_is_room_for() {
        let (mut waiting, start) = (Waiting::default(), Instant::now());
        let mut sent = 0;
        let (mut identification, rounds) = (0, SENT / PLACES + 2);
        for _ in 0..rounds {
            for _ in 0..2 * PLACES {
                waiting.keep(&fragment(identification, 0), start);
                identification += 1;
            }
            let leaving = waiting.leave(start, |_| true).len();
            assert!(leaving <= PLACES);
            sent += leaving;
        }
        assert_eq!(sent, SENT);
        waiting.leave(start + PATIENCE, |_| false);
        let counts = waiting.counts();
        assert_eq!(counts.kept, counts.sent_on + counts.given_up);
    }
}
