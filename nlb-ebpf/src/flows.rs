//! The flow table: find, pin, and never at a live flow's cost.
//!
//! A client's endpoint leads to two buckets. Both are searched; a new flow takes the best place in
//! the first bucket, or in the second if the first has none. A place is empty, or holds a flow
//! whose time has run out, or one that is over, or one that has not proved itself: in that order.
//! An established flow whose time has not run out is never displaced.

use nlb_common::{
    flow::{Bucket, Choice, Client, FlowEntry, FlowState, Progress},
    hash::Secret as _,
    tick::Tick,
};

use crate::tables::Tables;

/// The two buckets of a client.
#[derive(Clone, Copy, Debug)]
pub struct Place(u64);

impl Place {
    /// Where a client's flows are.
    #[inline(always)]
    pub fn of<T: Tables>(tables: &T, client: &Client) -> Self {
        Self(
            tables
                .table_key()
                .table(client.address, client.port, client.protocol),
        )
    }

    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "one half of the hash is one bucket"
    )]
    fn first<T: Tables>(self, tables: &T) -> Option<&Bucket> {
        tables.bucket(self.0 as u32)
    }

    #[inline(always)]
    fn second<T: Tables>(self, tables: &T) -> Option<&Bucket> {
        tables.bucket((self.0 >> 32) as u32)
    }
}

/// An entry and the word under which it was found.
#[derive(Clone, Copy, Debug)]
pub struct Found<'t> {
    /// The entry.
    pub entry: &'t FlowEntry,
    /// What its `choice` was.
    pub word: u64,
}

/// The client's flow that `is` accepts.
#[inline(always)]
pub fn find<'t, T: Tables>(
    tables: &'t T,
    place: Place,
    client: &Client,
    mut is: impl FnMut(Choice) -> bool,
) -> Option<Found<'t>> {
    let mut found = |bucket: &'t Bucket| {
        for entry in &bucket.entries {
            if let Some(word) = entry.choice_for(client)
                && is(Choice::of_word(word))
            {
                return Some(Found { entry, word });
            }
        }
        None
    };
    if let Some(hit) = place.first(tables).and_then(&mut found) {
        return Some(hit);
    }
    place.second(tables).and_then(&mut found)
}

/// How good a place an entry is for a new flow: the lower, the better.
///
/// `limit` is the idle time-out of established flows, in ticks, as the entry's listener has it.
#[inline(always)]
fn rank<T: Tables>(tables: &T, entry: &FlowEntry, word: u64, now: Tick) -> u8 {
    if word == Choice::EMPTY {
        return 0;
    }
    let limit = match tables.listener(Choice::of_word(word).listener) {
        Some(listener) => listener.policy().idle_ticks,
        None => 0,
    };
    let Progress {
        state, last_seen, ..
    } = entry.progress();
    if now.since(last_seen) > state.idle_ticks(limit) {
        1
    } else if state.is_over() {
        2
    } else if state.is_protected() {
        TAKEN
    } else {
        3
    }
}

/// The rank of an entry that may not be displaced.
const TAKEN: u8 = 4;

/// Remembers a flow; says whether there was room.
#[inline(always)]
pub fn pin<T: Tables>(
    tables: &T,
    place: Place,
    client: &Client,
    choice: Choice,
    state: FlowState,
    now: Tick,
) -> bool {
    let into = |bucket: &Bucket, worst: u8| {
        let mut best = None;
        let mut best_rank = worst;
        for entry in &bucket.entries {
            let word = entry.choice.load();
            if word == Choice::BUSY {
                continue;
            }
            let rank = rank(tables, entry, word, now);
            if rank < best_rank {
                best = Some((entry, word));
                best_rank = rank;
            }
        }
        // The word that was ranked, not one read again: another core may have changed its mind.
        match best {
            Some((entry, word)) => {
                refill(tables, &Found { entry, word }, client, choice, state, now)
            }
            None => false,
        }
    };
    let (Some(first), Some(second)) = (place.first(tables), place.second(tables)) else {
        return false;
    };
    // Unproven flows are displaced only when neither bucket has anything better.
    into(first, 3) || into(second, TAKEN) || into(first, TAKEN)
}

/// Gives a found entry to a flow; says whether nobody else was faster.
#[inline(always)]
pub fn refill<T: Tables>(
    tables: &T,
    found: &Found<'_>,
    client: &Client,
    choice: Choice,
    state: FlowState,
    now: Tick,
) -> bool {
    if !tables.swap(&found.entry.choice, found.word, Choice::BUSY) {
        return false;
    }
    found.entry.fill(client, choice, state, now);
    true
}

/// Notes what one more packet says about a flow. Most packets say nothing new, and write nothing.
#[inline(always)]
pub fn note<T: Tables>(tables: &T, entry: &FlowEntry, old: Progress, new: Progress) {
    if new != old {
        // Lost if another core noted something in between: the next packet says it again.
        tables.swap(&entry.progress, old.to_word(), new.to_word());
    }
}
