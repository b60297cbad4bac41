//! The flow table: find, pin, and never at a live flow's cost.
//!
//! A client's endpoint leads to two buckets, and both are searched. A new flow takes the best place
//! of both: an empty one, or else one whose flow's time has run out, or whose flow is over, or has
//! not proved itself; of equally good ones, one in the bucket that has more of them. An established
//! flow whose time has not run out is never displaced.

use nlb_common::{
    flow::{Bucket, Choice, Client, FlowEntry, FlowState, Progress, WAYS},
    hash::Secret as _,
    source::EntryNumber,
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

    /// Bits that every packet of a flow has in common and that say nothing of its buckets to whoever
    /// sees a few of them: the upper ones of a product, each of which depends on all below.
    #[inline(always)]
    pub const fn entropy(self) -> u64 {
        self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    /// The hash of the one bucket.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "one half of the hash is one bucket"
    )]
    const fn first(self) -> u32 {
        self.0 as u32
    }

    /// The hash of the other bucket.
    #[inline(always)]
    const fn second(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The hash itself.
    #[inline(always)]
    pub const fn hash(self) -> u64 {
        self.0
    }
}

/// An entry, if there is one, and the word under which it was found.
///
/// VERIFIER: the word stands beside the option, and always holds something. Inside of it, LLVM
/// carries it along undefined where there is nothing (`R5 !read_ok`; Linux 6.18, rustc 1.96).
#[derive(Clone, Copy, Debug)]
pub struct Found<'t> {
    /// The entry.
    pub entry: Option<&'t FlowEntry>,
    /// What its `choice` was.
    pub word: u64,
    /// What led to its bucket, and its place there; [`Self::number`] makes a number of them where one
    /// is asked for, which plain flows do not.
    hash: u32,
    way: u64,
}

impl<'t> Found<'t> {
    /// No entry.
    pub const NOTHING: Self = Self {
        entry: None,
        word: Choice::EMPTY,
        hash: 0,
        way: 0,
    };

    /// The entry with a number, which holds this word.
    #[inline(always)]
    pub const fn numbered(entry: &'t FlowEntry, word: u64, number: EntryNumber) -> Self {
        Self {
            entry: Some(entry),
            word,
            hash: number.bucket(),
            way: number.way(),
        }
    }

    /// Which entry it is.
    #[inline(always)]
    pub fn number<T: Tables>(&self, tables: &T) -> EntryNumber {
        EntryNumber::new(tables.bucket_number(self.hash), self.way)
    }
}

/// One of a power of two of records, if the index is of one.
#[inline(always)]
pub fn nth<'r, T: Tables, R, const N: usize>(
    tables: &T,
    records: &'r [R; N],
    index: u64,
) -> Option<&'r R> {
    const { assert!(N.is_power_of_two(), "the mask changes no index") };
    if index >= N as u64 {
        return None;
    }
    let index = usize::try_from(tables.keep(index)).ok()?;
    records.get(index & (N - 1))
}

/// The client's flow that `is` accepts.
#[inline(always)]
pub fn find<'t, T: Tables>(
    tables: &'t T,
    place: Place,
    client: &Client,
    mut is: impl FnMut(Choice, &FlowEntry) -> bool,
) -> Found<'t> {
    let hit = find_in(tables, place, place.first(), client, &mut is);
    if hit.entry.is_some() {
        return hit;
    }
    find_in(tables, place, place.second(), client, &mut is)
}

/// A function, because a closure that is called twice is not inlined, and a call between BPF
/// functions passes everything through the stack.
///
/// VERIFIER: it is told the entry by an index that it knows nothing of; told by four different
/// pointers, it follows the rest of the program for each.
#[inline(always)]
fn find_in<'t, T: Tables>(
    tables: &'t T,
    place: Place,
    hash: u32,
    client: &Client,
    is: &mut impl FnMut(Choice, &FlowEntry) -> bool,
) -> Found<'t> {
    let Some(bucket) = tables.bucket(hash) else {
        return Found::NOTHING;
    };
    let mut found = WAYS;
    let mut word = Choice::EMPTY;
    for (index, entry) in bucket.entries.iter().enumerate() {
        if let Some(seen) = entry.choice_for(client)
            && is(Choice::of_word(seen), entry)
        {
            found = index;
            word = seen;
            break;
        }
    }
    let index = tables.forget(found as u64, place.0);
    Found {
        entry: nth(tables, &bucket.entries, index),
        word,
        hash,
        way: index,
    }
}

/// How good a place an entry is for a new flow; the order in which places are taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Worth {
    /// Nobody's.
    Empty,
    /// Its flow's time has run out.
    Expired,
    /// Its flow is over, but a late packet of it may come.
    Over,
    /// Its flow has not proved itself.
    Unproven,
    /// An established flow, or one that is just being written.
    Taken,
}

/// What an entry is worth, and the word that says so.
#[inline(always)]
pub fn worth<T: Tables>(tables: &T, entry: &FlowEntry, now: Tick) -> (Worth, u64) {
    let word = entry.choice.load();
    if word == Choice::EMPTY {
        return (Worth::Empty, word);
    }
    if word == Choice::BUSY {
        return (Worth::Taken, word);
    }
    let limit = match tables.listener(Choice::of_word(word).listener) {
        Some(listener) => listener.policy().idle_ticks,
        None => 0,
    };
    let Progress {
        state, last_seen, ..
    } = entry.progress();
    let worth = if now.since(last_seen) > state.idle_ticks(limit) {
        Worth::Expired
    } else if state.is_over() {
        Worth::Over
    } else if state.is_protected() {
        Worth::Taken
    } else {
        Worth::Unproven
    };
    (worth, word)
}

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
    let room = room(tables, place, now);
    match room.entry {
        Some(entry) => refill(tables, entry, room.word, client, choice, state, now),
        None => false,
    }
}

/// The best place for a new flow, if there is one.
///
/// VERIFIER: what the entries are worth is gathered in one number, and the place is found from its
/// bits. Carrying the best entry so far through the loop made it follow every combination.
#[inline(always)]
pub fn room<T: Tables>(tables: &T, place: Place, now: Tick) -> Found<'_> {
    let (Some(first), Some(second)) = (tables.bucket(place.first()), tables.bucket(place.second()))
    else {
        return Found::NOTHING;
    };
    let worths = worths(tables, place, first, now) | worths(tables, place, second, now) << WAYS;
    let best = if worths & 0xff != 0 {
        Worth::Empty
    } else if worths & 0xff00 != 0 {
        Worth::Expired
    } else if worths & 0xff_0000 != 0 {
        Worth::Over
    } else if worths & 0xff00_0000 != 0 {
        Worth::Unproven
    } else {
        return Found::NOTHING;
    };
    // Of two choices the one with more room, which is what keeps buckets from running over early.
    let candidates = worths >> (best as u32 * 8) & 0xff;
    let (in_first, in_second) = (candidates & ALL, candidates >> WAYS);
    let (bucket, hash, candidates) = if count(in_first) >= count(in_second) {
        (first, place.first(), in_first)
    } else {
        (second, place.second(), in_second)
    };
    let mut index = 0;
    while index < WAYS - 1 && candidates & 1 << index == 0 {
        index += 1;
    }
    let index = tables.forget(index as u64, place.0);
    let Some(entry) = nth(tables, &bucket.entries, index) else {
        return Found::NOTHING;
    };
    // Looked at again, because the word that is swapped must be the one that was judged.
    let (worth_now, word) = worth(tables, entry, now);
    Found {
        entry: (worth_now == best).then_some(entry),
        word,
        hash,
        way: index,
    }
}

/// A bit for each entry of a bucket.
const ALL: u64 = (1 << WAYS) - 1;

/// How many of a bucket's bits are set.
#[inline(always)]
const fn count(bits: u64) -> u64 {
    (bits & 1) + (bits >> 1 & 1) + (bits >> 2 & 1) + (bits >> 3 & 1)
}

const _: () = assert!(WAYS == 4, "`count` looks at four bits");

/// What a bucket's entries are worth: a byte for each [`Worth`], a bit in it for each entry.
#[inline(always)]
fn worths<T: Tables>(tables: &T, place: Place, bucket: &Bucket, now: Tick) -> u64 {
    let mut worths = 0;
    let mut bit = 1;
    for entry in &bucket.entries {
        let (worth, _) = worth(tables, entry, now);
        worths = tables.forget(worths | bit << (worth as u32 * 8), place.0);
        bit <<= 1;
    }
    worths
}

/// Gives an entry, whose `choice` was `word`, to a flow; says whether nobody else was faster.
#[inline(always)]
pub fn refill<T: Tables>(
    tables: &T,
    entry: &FlowEntry,
    word: u64,
    client: &Client,
    choice: Choice,
    state: FlowState,
    now: Tick,
) -> bool {
    if !tables.swap(&entry.choice, word, Choice::BUSY) {
        return false;
    }
    entry.fill(client, choice, state, now);
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
