//! Whose is a source of ours, towards a target?

use nlb_common::{
    address::Address,
    flow::{Choice, Client, FlowState, Progress},
    hash::Secret as _,
    source::{CLAIMS, Claim, SourceBucket, Translation},
};
use zerocopy::big_endian::U16;

use crate::{
    flows::{Found, nth},
    rewrite::Endpoint,
    tables::Tables,
};

/// The flow that owns a source of ours.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'t> {
    /// Its entry, if there is one; the rest means nothing otherwise.
    pub found: Found<'t>,
    /// Its client.
    pub client: Client,
    /// How far it has come.
    pub progress: Progress,
    /// Whether its target's connections end.
    pub is_reset: bool,
}

impl Owner<'_> {
    const NOBODY: Self = Self {
        found: Found::NOTHING,
        client: Client {
            address: Address::UNSPECIFIED,
            port: U16::ZERO,
            protocol: 0,
        },
        progress: Progress::NONE,
        is_reset: false,
    };
}

/// The flow to `target` whose source has become `source`.
#[inline(always)]
pub fn owner<T: Tables>(tables: &T, target: Endpoint, source: Endpoint, protocol: u8) -> Owner<'_> {
    let hash = hash_of(tables, target, source, protocol);
    #[expect(clippy::cast_possible_truncation, reason = "takes the hash apart")]
    let (place, tag) = (hash as u32, (hash >> 32) as u32);
    let Some(bucket) = tables.source_bucket(place) else {
        return Owner::NOBODY;
    };
    let index = position(tables, bucket, hash, |word| {
        word != Claim::NONE && Claim::of_word(word).tag == tag
    });
    let Some(claim) = nth(tables, &bucket.claims, index) else {
        return Owner::NOBODY;
    };
    let number = Claim::of_word(claim.load()).entry;
    let (Some(bucket), Some(translations), Some(pool)) = (
        tables.bucket(number.bucket()),
        tables.translations(number.bucket()),
        tables.pool(),
    ) else {
        return Owner::NOBODY;
    };
    let way = tables.forget(number.way(), hash);
    let (Some(entry), Some(translation)) = (
        nth(tables, &bucket.entries, way),
        nth(tables, &translations.entries, way),
    ) else {
        return Owner::NOBODY;
    };
    let word = entry.choice.load();
    if word == Choice::EMPTY || word == Choice::BUSY {
        return Owner::NOBODY;
    }
    let Some(record) = tables.target(Choice::of_word(word).target) else {
        return Owner::NOBODY;
    };
    let Some(control) = record.control() else {
        return Owner::NOBODY;
    };
    let progress = entry.progress();
    let owned = Translation::of_word(translation.load());
    let client = entry.client();
    if !progress.state.has(FlowState::SOURCE_TRANSLATED)
        || progress.protocol() != protocol
        || owned.tag != tag
        || owned.port != source.port
        || pool.address(owned.source) != source.address
        || record.port() != target.port
        || record.address() != target.address
        // What was read is one flow's if the entry is still the same.
        || entry.choice.load() != word
        || !entry.progress().is_of_same_endpoint(progress)
    {
        return Owner::NOBODY;
    }
    Owner {
        found: Found::numbered(entry, word, number),
        client,
        progress,
        is_reset: control.resets_flows,
    }
}

/// Where claims to a source towards a target are, and what they are told by.
#[inline(always)]
pub(super) fn hash_of<T: Tables>(
    tables: &T,
    target: Endpoint,
    source: Endpoint,
    protocol: u8,
) -> u64 {
    tables.table_key().source(
        target.address,
        target.port,
        source.address,
        source.port,
        protocol,
    )
}

/// The place of the first claim in a bucket that `is` accepts; [`CLAIMS`] if there is none.
///
/// VERIFIER: an index that it knows nothing of, as in [`crate::flows::find`].
#[inline(always)]
pub(super) fn position<T: Tables>(
    tables: &T,
    bucket: &SourceBucket,
    unknown: u64,
    is: impl Fn(u64) -> bool,
) -> u64 {
    let mut found = CLAIMS;
    for (index, claim) in bucket.claims.iter().enumerate() {
        if is(claim.load()) {
            found = index;
            break;
        }
    }
    tables.forget(found as u64, unknown)
}
