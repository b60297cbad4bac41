//! 3. May this flow begin? A listener's rules say who, its limits how many.
//!
//! Both are asked for a flow's first packet only: the rules before a target is chosen, the limits
//! last, when nothing else can stop the packet, so that what is counted began.

use nlb_common::{
    admission::{Admission, AdmissionPolicy, Source, SourceRecord, Window},
    listener::ListenerId,
    stop::Stop,
    tick::Tick,
    wire::protocol,
    word::Word,
};

use crate::{parse::Packet, tables::Tables};

/// Tries to change a word that other processors change too.
const TRIES: usize = 4;

/// Whether the listener's rules admit the packet's source.
#[inline(always)]
pub fn admit<T: Tables>(packet: &Packet, tables: &T, listener: ListenerId) -> Result<(), Stop> {
    let Some(record) = record(tables, listener) else {
        return Ok(());
    };
    if !record.policy().has_rules || tables.admits(listener, packet.source) {
        return Ok(());
    }
    Err(if packet.protocol == protocol::TCP {
        Stop::BlockedTcp
    } else {
        Stop::BlockedUdp
    })
}

/// Counts a flow that is to be remembered; whether it may be.
#[inline(always)]
pub fn within_limits<T: Tables>(
    packet: &Packet,
    tables: &T,
    listener: ListenerId,
    now: Tick,
) -> Result<bool, Stop> {
    let Some(record) = record(tables, listener) else {
        return Ok(true);
    };
    let policy = record.policy();
    match count(packet, tables, listener, now, record, &policy) {
        Ok(()) => Ok(true),
        Err(_) if policy.forwards_unpinned => Ok(false),
        Err(stop) => Err(stop),
    }
}

/// The listener's record, if it is to be asked.
#[inline(always)]
fn record<T: Tables>(tables: &T, listener: ListenerId) -> Option<&Admission> {
    let policy = tables.listener(listener)?.policy();
    if policy.flags.has_admission() {
        tables.admission(listener)
    } else {
        None
    }
}

/// Counts a flow against every limit, or against none: a source that is over its own limit takes
/// nothing of its listener's.
#[inline(always)]
fn count<T: Tables>(
    packet: &Packet,
    tables: &T,
    listener: ListenerId,
    now: Tick,
    record: &Admission,
    policy: &AdmissionPolicy,
) -> Result<(), Stop> {
    if policy.active_flows != 0 && record.active.load() >= u64::from(policy.active_flows) {
        return Err(Stop::ActiveFlowLimit);
    }
    // Only a look, so that under a flood a source costs nothing once the listener is full.
    let window = Window::of_word(record.window.load()).at(now);
    if policy.flows_per_tick != 0 && !window.has_room(policy.flows_per_tick) {
        return Err(Stop::NewFlowLimit);
    }
    if policy.limits_sources() {
        let source = Source::of(listener, packet.source, policy.source_bits);
        if let Some(record) = tables.source(&source) {
            count_of_source(tables, &record, now, policy)?;
        }
    }
    if policy.flows_per_tick != 0 && !begin(tables, &record.window, now, policy.flows_per_tick) {
        return Err(Stop::NewFlowLimit);
    }
    if policy.active_flows != 0 {
        one_more(tables, &record.active);
    }
    Ok(())
}

/// Counts a flow against the limits of its source, or against none.
#[inline(always)]
fn count_of_source<T: Tables>(
    tables: &T,
    record: &SourceRecord,
    now: Tick,
    policy: &AdmissionPolicy,
) -> Result<(), Stop> {
    let ceiling = u64::from(policy.source_active_flows);
    if ceiling != 0 && record.active.load() >= ceiling {
        return Err(Stop::SourceActiveLimit);
    }
    let rate = policy.source_flows_per_tick;
    if rate != 0 && !begin(tables, &record.window, now, rate) {
        return Err(Stop::SourceFlowLimit);
    }
    if ceiling != 0 {
        one_more(tables, &record.active);
    }
    Ok(())
}

/// Counts a remembered flow; as with a window, the sweep counts what is let go here.
#[inline(always)]
fn one_more<T: Tables>(tables: &T, active: &Word) {
    for _ in 0..TRIES {
        let seen = active.load();
        if tables.swap(active, seen, seen + 1) {
            break;
        }
    }
}

/// Counts a flow in a window; not one that it has no room for.
///
/// A word that others change each time is let go: the next flow will be counted.
#[inline(always)]
fn begin<T: Tables>(tables: &T, word: &Word, now: Tick, flows_per_tick: u32) -> bool {
    for _ in 0..TRIES {
        let seen = word.load();
        let window = Window::of_word(seen).at(now);
        if !window.has_room(flows_per_tick) {
            return false;
        }
        if tables.swap(word, seen, window.with_one_more().to_word()) {
            break;
        }
    }
    true
}
