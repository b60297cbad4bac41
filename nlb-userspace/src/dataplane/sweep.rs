//! The sweep over the flow table: counting flows, and emptying entries whose time has run out.
//!
//! Limits of active flows are settled here. A packet only ever counts a flow that begins; that flows
//! have ended, nobody sees but the sweep.

use std::collections::HashMap;

use nlb_common::{
    admission::{Admission, Source},
    flow::{Choice, FlowEntry},
    listener::Listener,
    tick::Tick,
};

/// How many flows sources have.
pub type FlowsBySource = HashMap<Source, u64>;

/// What a sweep over the flow table saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Flows whose time has not run out.
    pub active: u64,
    /// How many of them each listener has, by id.
    pub by_listener: Vec<u64>,
    /// How many of them each target has, by id.
    pub by_target: Vec<u64>,
    /// How many of them each source has, at listeners that limit it.
    pub by_source: FlowsBySource,
    /// Entries that were emptied because their time had run out.
    pub forgotten: u64,
}

/// Whether a listener limits the active flows of its sources, and what a source is to it.
fn source_bits(record: &Admission) -> Option<u8> {
    let policy = record.policy();
    (policy.source_active_flows != 0).then_some(policy.source_bits)
}

/// Whether any listener limits the active flows of its sources.
pub fn limits_sources(admissions: &[Admission]) -> bool {
    admissions
        .iter()
        .any(|record| source_bits(record).is_some())
}

/// Goes over all entries, and settles how many flows each listener has.
///
/// An entry is emptied by compare and swap, so that a flow that came back in the meantime keeps its
/// place.
pub fn sweep<'m>(
    entries: impl Iterator<Item = &'m FlowEntry>,
    listeners: &[Listener],
    admissions: &[Admission],
    targets: usize,
    now: Tick,
) -> Sweep {
    let before: Vec<u64> = admissions
        .iter()
        .map(|record| record.active.load())
        .collect();
    let source_bits: Vec<Option<u8>> = admissions.iter().map(source_bits).collect();
    let mut sweep = Sweep {
        by_listener: vec![0; listeners.len()],
        by_target: vec![0; targets],
        ..Sweep::default()
    };
    for entry in entries {
        let word = entry.choice.load();
        if word == Choice::EMPTY || word == Choice::BUSY {
            continue;
        }
        let choice = Choice::of_word(word);
        let listener = usize::from(choice.listener.0);
        let idle_ticks = listeners
            .get(listener)
            .map_or(0, |listener| listener.policy().idle_ticks);
        let progress = entry.progress();
        // A tick of grace: a packet may have stamped the entry just after `now` was read.
        let silent = now.since(progress.last_seen);
        if silent > progress.state.idle_ticks(idle_ticks).saturating_add(1) {
            if entry.choice.swap(word, Choice::EMPTY) {
                sweep.forgotten += 1;
            }
            continue;
        }
        sweep.active += 1;
        if let Some(count) = sweep.by_listener.get_mut(listener) {
            *count += 1;
        }
        if let Some(count) = sweep.by_target.get_mut(choice.target.0 as usize) {
            *count += 1;
        }
        if let Some(Some(bits)) = source_bits.get(listener) {
            let source = Source::of(choice.listener, entry.client().address, *bits);
            *sweep.by_source.entry(source).or_default() += 1;
        }
    }
    for ((record, before), found) in admissions.iter().zip(before).zip(&sweep.by_listener) {
        if record.policy().active_flows != 0 {
            record.settle(*found, before);
        }
    }
    sweep
}
