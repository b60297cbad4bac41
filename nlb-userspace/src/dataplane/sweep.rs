//! The sweep over the flow table: counting flows, and emptying entries whose time has run out.
//!
//! Limits of active flows are settled here. A packet only ever counts a flow that begins; that flows
//! have ended, nobody sees but the sweep.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use nlb_common::{
    address::Address,
    admission::{Admission, Source},
    flow::{Choice, FlowEntry, FlowState, Progress},
    hash::Key,
    listener::{Listener, ListenerPolicy, Stranded},
    ring,
    source::{MAX_SOURCES, Pool, Translation},
    target::Target,
    tick::Tick,
    word::Word,
};
use nlb_ebpf::select;
use zerocopy::big_endian::U16;

use crate::settling::{Exceptions, Settling};

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
    /// How many ports of the pool each target has flows on, by id.
    pub ports_by_target: Vec<u64>,
    /// How many flows have each address of the pool, by id.
    pub by_pool_address: Vec<u64>,
    /// How many of them each source has, at listeners that limit it.
    pub by_source: FlowsBySource,
    /// Slots of settling rings that have flows with other targets than new ones.
    pub exceptions: BTreeMap<u16, Exceptions>,
    /// Entries that were emptied because their time had run out.
    pub forgotten: u64,
    /// Flows whose ends are to be told so ([`Stranded::RESET_AT_EXPIRY`]). Their entries stay until
    /// the next sweep, so that what the ends say to that finds them.
    pub expired: Vec<ExpiredFlow>,
}

/// A TCP flow whose time has run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpiredFlow {
    /// The client's end.
    pub client: SocketAddr,
    /// The VIP and its port.
    pub vip: SocketAddr,
    /// The client's end as the target sees it.
    pub source: SocketAddr,
    /// The target's end.
    pub target: SocketAddr,
}

/// The records that flows name.
#[derive(Clone, Copy, Debug)]
pub struct Records<'r> {
    /// Listeners, by id.
    pub listeners: &'r [Listener],
    /// What listeners ask of new flows, by listener's id.
    pub admissions: &'r [Admission],
    /// Targets, by id.
    pub targets: &'r [Target],
    /// The pool of sources.
    pub pool: Option<&'r Pool>,
    /// Rings of listeners that pin flows on change, and what flows' places on them come from.
    pub settling: Option<(&'r BTreeMap<u16, Settling>, &'r Key)>,
}

/// Flows whose ends one sweep tells; the next one goes on.
const EXPIRED_AT_ONCE: usize = 10_000;

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

/// Goes over all entries, each with the word of its [`Translation`], and settles how many flows each listener has.
///
/// An entry is emptied by compare and swap, so that a flow that came back in the meantime keeps its
/// place.
pub fn sweep<'m>(
    entries: impl Iterator<Item = (&'m FlowEntry, &'m Word)>,
    records: &Records<'_>,
    now: Tick,
) -> Sweep {
    let Records {
        listeners,
        admissions,
        targets,
        ..
    } = records;
    let before: Vec<u64> = admissions
        .iter()
        .map(|record| record.active.load())
        .collect();
    let source_bits: Vec<Option<u8>> = admissions.iter().map(source_bits).collect();
    let mut sweep = Sweep {
        by_listener: vec![0; listeners.len()],
        by_target: vec![0; targets.len()],
        ports_by_target: vec![0; targets.len()],
        by_pool_address: vec![0; MAX_SOURCES],
        ..Sweep::default()
    };
    for (entry, translation) in entries {
        let word = entry.choice.load();
        if word == Choice::EMPTY || word == Choice::BUSY {
            continue;
        }
        let choice = Choice::of_word(word);
        let listener = usize::from(choice.listener.0);
        let policy = listeners
            .get(listener)
            .map(Listener::policy)
            .unwrap_or_default();
        let progress = entry.progress();
        // A tick of grace: a packet may have stamped the entry just after `now` was read.
        let silent = now.since(progress.last_seen);
        let patience = progress.state.idle_ticks(policy.idle_ticks);
        if silent > patience.saturating_add(1) {
            if policy.expired == Stranded::RESET_AT_EXPIRY && progress.state.is_protected() {
                if sweep.expired.len() < EXPIRED_AT_ONCE {
                    let expired = expire((entry, translation), choice, progress, records);
                    sweep.expired.extend(expired);
                }
                continue;
            }
            if entry.choice.swap(word, Choice::EMPTY) {
                sweep.forgotten += 1;
            }
            continue;
        }
        sweep.active += 1;
        if policy.flags.pins_on_change()
            && let Some((slot, true)) = exception(entry, choice, policy, records)
        {
            sweep
                .exceptions
                .entry(policy.group)
                .or_default()
                .insert(slot);
        }
        if let Some(count) = sweep.by_listener.get_mut(listener) {
            *count += 1;
        }
        if let Some(count) = sweep.by_target.get_mut(choice.target.0 as usize) {
            *count += 1;
        }
        if progress.state.has(FlowState::SOURCE_TRANSLATED) {
            let source = Translation::of_word(translation.load()).source;
            let ports = sweep.ports_by_target.get_mut(choice.target.0 as usize);
            let flows = sweep.by_pool_address.get_mut(usize::from(source.0));
            for count in ports.into_iter().chain(flows) {
                *count += 1;
            }
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

/// The slot of a flow, and whether the flow is with another target than the slot's new ones.
fn exception(
    entry: &FlowEntry,
    choice: Choice,
    policy: ListenerPolicy,
    records: &Records<'_>,
) -> Option<(usize, bool)> {
    let (rings, key) = records.settling?;
    let ring = rings.get(&policy.group)?;
    let vip = records
        .listeners
        .get(usize::from(choice.listener.0))?
        .key()?;
    let slot = ring::slot(select::place(
        key,
        &entry.client(),
        &vip,
        policy.flags.hash_input(),
    ));
    Some((slot, ring.target(slot) != choice.target.0))
}

/// Marks a flow as over, unless a packet of it came in the meantime; who is to be told.
///
/// Its time stays run out: whatever its ends send is answered as a segment of an expired flow.
fn expire(
    (entry, translation): (&FlowEntry, &Word),
    choice: Choice,
    progress: Progress,
    records: &Records<'_>,
) -> Option<ExpiredFlow> {
    let client = entry.client();
    let over = progress.after(
        progress.state.with(FlowState::RESET),
        progress.last_seen,
        progress.epoch,
    );
    if !entry.progress.swap(progress.to_word(), over.to_word()) {
        return None;
    }
    let vip = records
        .listeners
        .get(usize::from(choice.listener.0))?
        .key()?;
    let target = records.targets.get(choice.target.0 as usize)?;
    let end = |address: Address, port: U16| SocketAddr::new(address.into(), port.get());
    let client = end(client.address, client.port);
    let source = if progress.state.has(FlowState::SOURCE_TRANSLATED) {
        let given = Translation::of_word(translation.load());
        end(records.pool?.address(given.source), given.port)
    } else {
        client
    };
    Some(ExpiredFlow {
        client,
        source,
        vip: end(vip.address, vip.port),
        target: end(target.address(), target.port()),
    })
}
