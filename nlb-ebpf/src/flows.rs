//! The flow table: find, pin, and never at a live flow's cost.
//!
//! A client's endpoint leads to three buckets: a near one, in the first sixteenth of the table, and
//! two far ones, in the rest. A flow begins in its near bucket as long as that has room, so that the flows of
//! a table that is not crowded lie together in few pages, which caches and TLB hold. What finds no room
//! there spills: it takes the best place of both far buckets, and a mark beside the near one says so.
//! Without the mark nobody looks any further.
//!
//! The best place is an empty one, or else one whose flow's time has run out, or whose flow is over, or
//! has not proved itself; of equally good ones a near one, and else one in the far bucket that has
//! more of them. An established flow whose time has not run out is never displaced.

use nlb_common::{
    flow::{Bucket, Choice, Client, FlowEntry, FlowState, Progress, WAYS, far_bucket, spilled},
    hash::Secret,
    settings::Settings,
    source::EntryNumber,
    tick::Tick,
};

use crate::tables::Tables;

/// The buckets of a client.
#[derive(Clone, Copy, Debug)]
pub struct Place(u64);

impl Place {
    /// Where a client's flows are.
    #[inline(always)]
    pub fn of<T: Tables>(tables: &T, client: &Client) -> Self {
        Self::by(&tables.table_key(), client)
    }

    /// The same by the key itself.
    #[inline(always)]
    pub fn by(key: &impl Secret, client: &Client) -> Self {
        Self(key.table(client.address, client.port, client.protocol))
    }

    /// Bits that every packet of a flow has in common and that say nothing of its buckets to whoever
    /// sees a few of them: the upper ones of a product, each of which depends on all below.
    #[inline(always)]
    pub const fn entropy(self) -> u64 {
        self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    /// The near bucket. Far ones use the upper bits of both halves first, this one the lower bits of one.
    #[inline(always)]
    pub fn near<T: Tables>(self, tables: &T) -> u32 {
        tables.near(self.near_hash())
    }

    /// The hash that leads to the near bucket, by its lower bits.
    #[inline(always)]
    pub const fn near_hash(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The one far bucket.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "one half of the hash is one bucket"
    )]
    pub fn first<T: Tables>(self, tables: &T) -> u32 {
        tables.far(self.0 as u32)
    }

    /// The other far bucket.
    #[inline(always)]
    pub fn second<T: Tables>(self, tables: &T) -> u32 {
        tables.far((self.0 >> 32) as u32)
    }

    /// The three buckets, for whoever looks at the table from outside.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "one half of the hash is one bucket"
    )]
    pub fn buckets(self, settings: &Settings) -> [u32; 3] {
        let (near, all) = (settings.near_mask, settings.bucket_mask);
        let far = |hash| far_bucket(hash, near, all);
        [
            self.near_hash() & near,
            far(self.0 as u32),
            far((self.0 >> 32) as u32),
        ]
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
    /// Its bucket, and its place there; [`Self::number`] makes a number of them where one is asked for,
    /// which plain flows do not.
    bucket: u32,
    way: u64,
}

impl<'t> Found<'t> {
    /// No entry.
    pub const NOTHING: Self = Self {
        entry: None,
        word: Choice::EMPTY,
        bucket: 0,
        way: 0,
    };

    /// The entry with a number, which holds this word.
    #[inline(always)]
    pub const fn numbered(entry: &'t FlowEntry, word: u64, number: EntryNumber) -> Self {
        Self {
            entry: Some(entry),
            word,
            bucket: number.bucket(),
            way: number.way(),
        }
    }

    /// Which entry it is.
    #[inline(always)]
    pub fn number<T: Tables>(&self, tables: &T) -> EntryNumber {
        EntryNumber::new(tables.bucket_number(self.bucket), self.way)
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
    let near = place.near(tables);
    let hit = find_in(tables, place, near, client, &mut is);
    if hit.entry.is_some() || !has_spilled(tables, near) {
        return hit;
    }
    let hit = find_in(tables, place, place.first(tables), client, &mut is);
    if hit.entry.is_some() {
        return hit;
    }
    find_in(tables, place, place.second(tables), client, &mut is)
}

/// Whether flows of a near bucket may lie in their far ones.
#[inline(always)]
fn has_spilled<T: Tables>(tables: &T, near: u32) -> bool {
    tables.spill(near).is_some_and(|mark| mark.load() != 0)
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
    number: u32,
    client: &Client,
    is: &mut impl FnMut(Choice, &FlowEntry) -> bool,
) -> Found<'t> {
    let Some(bucket) = tables.bucket(number) else {
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
        bucket: number,
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

impl Worth {
    /// Bits of a lane: one for each entry of three buckets.
    const LANE_BITS: u32 = 12;

    /// Where the bits of entries of this worth begin.
    #[inline(always)]
    const fn shift(self) -> u32 {
        self as u32 * Self::LANE_BITS
    }

    /// The bits of entries of this worth.
    #[inline(always)]
    const fn lane(self) -> u64 {
        ((1 << Self::LANE_BITS) - 1) << self.shift()
    }
}

const _: () = assert!(
    Worth::LANE_BITS as usize == 3 * WAYS && Worth::Taken.shift() + Worth::LANE_BITS <= u64::BITS,
    "a number holds them all"
);

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

/// The best place for a new flow, if there is one. If that is a far one, the near bucket has been
/// marked.
///
/// VERIFIER: what the entries are worth is gathered in one number, and the place is found from its
/// bits. Carrying the best entry so far through the loop made it follow every combination.
#[inline(always)]
pub fn room<T: Tables>(tables: &T, place: Place, now: Tick) -> Found<'_> {
    let near = place.near(tables);
    let Some(bucket) = tables.bucket(near) else {
        return Found::NOTHING;
    };
    // Nothing else is asked where there is one that nobody has had.
    let mut worths = empties(tables, place, bucket);
    if worths == 0 {
        worths = self::worths(tables, place, bucket, now);
    }
    // What nobody needs any more does as well, if it is near.
    if worths & (Worth::Empty.lane() | Worth::Expired.lane()) == 0 {
        let (Some(first), Some(second)) = (
            tables.bucket(place.first(tables)),
            tables.bucket(place.second(tables)),
        ) else {
            return Found::NOTHING;
        };
        worths |= self::worths(tables, place, first, now) << WAYS
            | self::worths(tables, place, second, now) << (2 * WAYS);
        worths = tables.forget(worths, place.0);
    }
    let best = if worths & Worth::Empty.lane() != 0 {
        Worth::Empty
    } else if worths & Worth::Expired.lane() != 0 {
        Worth::Expired
    } else if worths & Worth::Over.lane() != 0 {
        Worth::Over
    } else if worths & Worth::Unproven.lane() != 0 {
        Worth::Unproven
    } else {
        return Found::NOTHING;
    };
    let candidates = worths >> best.shift();
    let (in_near, in_first) = (candidates & ALL, candidates >> WAYS & ALL);
    let in_second = candidates >> (2 * WAYS) & ALL;
    // Of two choices the one with more room, which is what keeps buckets from running over early.
    let (number, candidates) = if in_near != 0 {
        (near, in_near)
    } else if count(in_first) >= count(in_second) {
        (place.first(tables), in_first)
    } else {
        (place.second(tables), in_second)
    };
    if in_near == 0
        && let Some(mark) = tables.spill(near)
    {
        mark.store(spilled(now));
    }
    let mut index = 0;
    while index < WAYS - 1 && candidates & 1 << index == 0 {
        index += 1;
    }
    let index = tables.forget(index as u64, place.0);
    let Some(entry) = tables
        .bucket(number)
        .and_then(|bucket| nth(tables, &bucket.entries, index))
    else {
        return Found::NOTHING;
    };
    // Looked at again, because the word that is swapped must be the one that was judged.
    let (worth_now, word) = worth(tables, entry, now);
    Found {
        entry: (worth_now == best).then_some(entry),
        word,
        bucket: number,
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

/// The bits of a bucket's empty entries.
#[inline(always)]
fn empties<T: Tables>(tables: &T, place: Place, bucket: &Bucket) -> u64 {
    let mut empties = 0;
    for (way, entry) in bucket.entries.iter().enumerate() {
        if entry.choice.load() == Choice::EMPTY {
            empties |= 1 << way;
        }
    }
    tables.forget(empties << Worth::Empty.shift(), place.0)
}

/// What a bucket's entries are worth: a lane for each [`Worth`], a bit in it for each entry.
#[inline(always)]
fn worths<T: Tables>(tables: &T, place: Place, bucket: &Bucket, now: Tick) -> u64 {
    let mut worths = 0;
    let mut bit = 1;
    for entry in &bucket.entries {
        let (worth, _) = worth(tables, entry, now);
        worths = tables.forget(worths | bit << worth.shift(), place.0);
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

#[cfg(test)]
mod tests {
    extern crate std;

    use core::net::IpAddr;
    use std::vec;

    use nlb_common::{address::Address, hash::Key};
    use zerocopy::big_endian::U16;

    use super::*;

    const BUCKETS: u32 = 1 << 12;
    const CLIENTS: u32 = 1 << 18;

    fn settings(secret: u8) -> Settings {
        Settings {
            table_key: Key::derive(&[secret; 32], 1),
            bucket_mask: BUCKETS - 1,
            near_mask: BUCKETS / 16 - 1,
            ..Settings::default()
        }
    }

    /// Clients that differ as little as clients do: one address and its ports, and its neighbours'.
    fn client(number: u32, is_v6: bool) -> Client {
        let [a, b, c, d] = number.to_be_bytes();
        let address = if is_v6 {
            IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from_be_bytes([a, b])])
        } else {
            IpAddr::from([198, 51, a, b])
        };
        Client {
            address: Address::from(address),
            port: U16::new(u16::from_be_bytes([c, d])),
            protocol: 6,
        }
    }

    /// The fullest bucket, as multiples of the mean, for each of a client's three.
    fn fullest(secret: u8, is_v6: bool) -> [f64; 3] {
        let settings = settings(secret);
        let mut clients = vec![[0_u32; 3]; BUCKETS as usize];
        for number in 0..CLIENTS {
            let place = Place::by(&settings.table_key, &client(number, is_v6));
            for (kind, bucket) in place.buckets(&settings).into_iter().enumerate() {
                clients[bucket as usize][kind] += 1;
            }
        }
        let near = f64::from(BUCKETS / 16);
        let far = f64::from(BUCKETS) - near;
        let most = |kind: usize| clients.iter().map(|counts| counts[kind]).max();
        [(0, near), (1, far), (2, far)].map(|(kind, buckets)| {
            f64::from(most(kind).unwrap_or(0)) * buckets / f64::from(CLIENTS)
        })
    }

    #[test]
    fn clients_that_are_alike_are_spread_evenly_over_near_and_far_buckets() {
        for secret in 0..8 {
            for is_v6 in [false, true] {
                let [near, first, second] = fullest(secret, is_v6);
                // Means of 1024 and 68: random ones exceed these by chance in one run of a million.
                assert!(near < 1.25, "{secret} {is_v6}: near {near}");
                assert!(first < 2.0, "{secret} {is_v6}: first {first}");
                assert!(second < 2.0, "{secret} {is_v6}: second {second}");
            }
        }
    }

    #[test]
    fn far_buckets_are_no_near_ones_and_all_are_of_the_table() {
        let settings = settings(1);
        for number in 0..CLIENTS {
            let place = Place::by(&settings.table_key, &client(number, false));
            let [near, first, second] = place.buckets(&settings);
            assert!(near <= settings.near_mask);
            for far in [first, second] {
                assert!(far > settings.near_mask && far <= settings.bucket_mask);
            }
        }
    }
}
