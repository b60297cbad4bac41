//! Giving a flow a source that no other flow has towards the same target.
//!
//! Whoever asks holds a busy entry of the flow table, whose number stands in the claim. A claim is
//! good while its entry is busy, or holds a flow that says that it owns what is claimed; any other
//! may be replaced. Three looks keep two flows from owning the same at once, whatever other cores
//! do in between:
//!
//! * A claim to the same with a good entry refuses.
//! * After a claim was replaced, its entry is judged once more: it may have been given, in between,
//!   to a flow that claims the same. Then the claim is given back.
//! * After all that, the bucket is read once more: of two that claim the same in two places at the
//!   same time, each wrote before it reads, so that one at least sees the other and gives up.

use nlb_common::{
    flow::Choice,
    source::{
        CLAIMS, Claim, EntryNumber, FIRST_PORT, PORTS, Pool, SourceBucket, SourceId, Translation,
    },
    tick::Tick,
};
use zerocopy::big_endian::U16;

use super::owner::{hash_of, position};
use crate::{
    flows::{self, Place, Worth, nth},
    rewrite::Endpoint,
    select::Chosen,
    tables::Tables,
    to_client::is_source_translated,
};

/// Sources that are tried in one round.
///
/// VERIFIER: it follows each attempt: 16 are too many (Linux 6.18, rustc 1.96).
pub const ATTEMPTS: u64 = 8;

/// Rounds before a flow is refused: each is a pass of the stage [`super::begin`], so that the verifier
/// follows one of them only.
///
/// With 64 sources tried, one new flow in 800 is refused when nine tenths of the whole pool's ports
/// towards its target are in use, and one in 1,600,000 with four fifths.
pub const ROUNDS: u8 = 8;

/// What a source is asked for.
pub(super) struct Asked<'t> {
    pub(super) pool: &'t Pool,
    pub(super) is_v4: bool,
    pub(super) protocol: u8,
    pub(super) round: u8,
}

/// Claims a source for the flow that will be in this entry; [`Translation::to_word`], or 0 if no
/// attempt of this round found a free one.
///
/// Where it begins to look is told by the client's endpoint alone: who comes back from the same
/// port tends to have the same source, and the target, which may remember the old connection, sees
/// what it would see without us.
#[inline(always)]
pub(super) fn allocate<T: Tables>(
    tables: &T,
    asked: &Asked<'_>,
    target: &Chosen<'_>,
    own: EntryNumber,
    place: Place,
    now: Tick,
) -> u64 {
    let target = Endpoint {
        address: target.record.address(),
        port: target.record.port(),
    };
    let mut word = 0;
    for attempt in 0..ATTEMPTS {
        let attempt = u64::from(asked.round) * ATTEMPTS + attempt;
        let spread = spread(place, attempt);
        word = claim(tables, asked, target, own, spread, now);
        if word != 0 {
            break;
        }
    }
    tables.forget(word, place.hash())
}

/// One attempt.
#[inline(always)]
fn claim<T: Tables>(
    tables: &T,
    asked: &Asked<'_>,
    target: Endpoint,
    own: EntryNumber,
    spread: u64,
    now: Tick,
) -> u64 {
    let Some(id) = turn(asked.pool, asked.is_v4, spread) else {
        return 0;
    };
    let source = Endpoint {
        address: asked.pool.address(id),
        port: port(spread),
    };
    let hash = hash_of(tables, target, source, asked.protocol);
    let (place, tag) = halves(hash);
    let Some(bucket) = tables.source_bucket(place) else {
        return 0;
    };
    let index = slot(tables, bucket, tag, spread);
    let Some(slot) = nth(tables, &bucket.claims, index) else {
        return 0;
    };
    let mine = Claim { entry: own, tag }.to_word();
    let seen = slot.load();
    if !may_be_replaced(tables, seen, own, now) {
        return 0;
    }
    if seen != mine && !tables.swap(slot, seen, mine) {
        return 0;
    }
    if !may_be_replaced(tables, seen, own, now) {
        tables.swap(slot, mine, seen);
        return 0;
    }
    let other = position(tables, bucket, hash, |word| {
        word != mine && word != Claim::NONE && Claim::of_word(word).tag == tag
    });
    if other < CLAIMS as u64 {
        tables.swap(slot, mine, Claim::NONE);
        return 0;
    }
    Translation {
        source: id,
        port: source.port,
        tag,
    }
    .to_word()
}

/// What an attempt takes its decisions from: numbers that have nothing in common with those of
/// another client or attempt.
///
/// If all clients took steps of one width, those that met once would go on meeting, and if each took
/// steps of its own, some would soon be back where they began: flows were refused with a fifth of the
/// pool free. (The constants: 2⁶⁴ divided by the golden ratio, and Vigna's for `SplitMix64`.)
#[inline(always)]
pub const fn spread(place: Place, attempt: u64) -> u64 {
    let number = place
        .hash()
        .wrapping_add(attempt.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    (number ^ number >> 32).wrapping_mul(0xBF58_476D_1CE4_E5B9)
}

/// The address that an attempt tries.
#[inline(always)]
pub fn turn(pool: &Pool, is_v4: bool, spread: u64) -> Option<SourceId> {
    pool.turn(is_v4, usize::from((spread >> 40).to_le_bytes()[0]))
}

/// The port that an attempt tries.
#[inline(always)]
pub const fn port(spread: u64) -> U16 {
    U16::new(FIRST_PORT + ((((spread >> 48) as u32) * PORTS) >> 16) as u16)
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "takes the hash apart")]
const fn halves(hash: u64) -> (u32, u32) {
    (hash as u32, (hash >> 32) as u32)
}

/// Where in the bucket to claim: over a claim to the same, or else in an empty place, or else
/// anywhere.
#[inline(always)]
fn slot<T: Tables>(tables: &T, bucket: &SourceBucket, tag: u32, spread: u64) -> u64 {
    let same = position(tables, bucket, spread, |word| {
        word != Claim::NONE && Claim::of_word(word).tag == tag
    });
    if same < CLAIMS as u64 {
        return same;
    }
    let empty = position(tables, bucket, spread, |word| word == Claim::NONE);
    if empty < CLAIMS as u64 {
        return empty;
    }
    (spread >> 37) & (CLAIMS as u64 - 1)
}

/// Whether a claim is nobody's, or our own entry's from its former life.
///
/// VERIFIER: the answer is forgotten, or it follows the rest once for every reason.
#[inline(always)]
fn may_be_replaced<T: Tables>(tables: &T, seen: u64, own: EntryNumber, now: Tick) -> bool {
    let is_nobodys =
        seen == Claim::NONE || Claim::of_word(seen).entry == own || has_lapsed(tables, seen, now);
    tables.forget(u64::from(is_nobodys), seen) != 0
}

#[inline(always)]
fn has_lapsed<T: Tables>(tables: &T, seen: u64, now: Tick) -> bool {
    let claim = Claim::of_word(seen);
    let (Some(bucket), Some(translations)) = (
        tables.bucket(claim.entry.bucket()),
        tables.translations(claim.entry.bucket()),
    ) else {
        return false;
    };
    let way = tables.forget(claim.entry.way(), seen);
    let (Some(entry), Some(translation)) = (
        nth(tables, &bucket.entries, way),
        nth(tables, &translations.entries, way),
    ) else {
        return false;
    };
    let word = entry.choice.load();
    if word == Choice::EMPTY {
        return true;
    }
    if word == Choice::BUSY {
        return false;
    }
    if is_source_translated(entry) && Translation::of_word(translation.load()).tag == claim.tag {
        // Nobody asks a flow whose time has run out, so it is forgotten.
        let (worth, judged) = flows::worth(tables, entry, now);
        worth == Worth::Expired && judged == word && tables.swap(&entry.choice, word, Choice::EMPTY)
    } else {
        // What was read belongs to the flow only if it is still there.
        entry.choice.load() == word
    }
}
