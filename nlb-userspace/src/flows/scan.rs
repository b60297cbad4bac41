//! Looking through the table: all processors at once, and keeping no more than is shown.

use std::{cmp::Ordering, collections::BTreeMap, num::NonZeroUsize, panic::resume_unwind, thread};

use nlb_common::{flow::Choice, source::Translations};

use super::{Flow, Table, filter::Selection};
use crate::explain::fact::state;

/// Which flows come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Order {
    /// Those of which no packet was seen for the longest time
    Silent,
    /// Those of which a packet was seen last
    Recent,
}

impl Order {
    fn compare(self, one: &Flow, other: &Flow) -> Ordering {
        match self {
            Self::Silent => other.silent_ticks.cmp(&one.silent_ticks),
            Self::Recent => one.silent_ticks.cmp(&other.silent_ticks),
        }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Flows, as many as were asked for.
    pub flows: Vec<Flow>,
    /// How many there are.
    pub counts: Counts,
}

/// How many flows there are, of all that are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of them.
    pub flows: u64,
    /// By state.
    pub by_state: BTreeMap<&'static str, u64>,
    /// By listener's id.
    pub by_listener: BTreeMap<u16, u64>,
    /// By target's id.
    pub by_target: BTreeMap<u32, u64>,
}

/// Flows that have not been counted one by one: so many that counting in a tree would take longer than
/// reading the table.
struct Tally {
    states: [u64; 256],
    listeners: Vec<u64>,
    targets: Vec<u64>,
}

impl Tally {
    fn of(table: &Table<'_>) -> Self {
        Self {
            states: [0; 256],
            listeners: vec![0; table.listeners.len()],
            targets: vec![0; table.targets.len()],
        }
    }

    fn count(&mut self, flow: &Flow) {
        let all = [
            self.states.get_mut(usize::from(flow.state.0)),
            self.listeners.get_mut(usize::from(flow.listener)),
            self.targets.get_mut(flow.target as usize),
        ];
        for count in all.into_iter().flatten() {
            *count += 1;
        }
    }

    fn add_to(&self, counts: &mut Counts) {
        for (bits, count) in (0..=u8::MAX)
            .zip(self.states)
            .filter(|(_, count)| *count > 0)
        {
            let state = state(nlb_common::flow::FlowState(bits));
            *counts.by_state.entry(state).or_default() += count;
            counts.flows += count;
        }
        for (id, count) in (0..=u16::MAX)
            .zip(&self.listeners)
            .filter(|(_, count)| **count > 0)
        {
            *counts.by_listener.entry(id).or_default() += count;
        }
        for (id, count) in (0..).zip(&self.targets).filter(|(_, count)| **count > 0) {
            *counts.by_target.entry(id).or_default() += count;
        }
    }
}

/// Finds the flows that are meant and whose time has not run out: all are counted, and of these the first
/// `most` in this order are kept, or any where there is none.
pub fn scan(table: &Table<'_>, selection: &Selection, order: Option<Order>, most: usize) -> Found {
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let share = table.flows.len().div_ceil(threads).max(1);
    let parts: Vec<Found> = thread::scope(|scope| {
        let starts = (0..table.flows.len()).step_by(share);
        let workers: Vec<_> = starts
            .map(|start| {
                scope.spawn(move || {
                    let mut kept = Kept::new(order, most);
                    let mut tally = Tally::of(table);
                    table.each(start, share, |flow, _, _| {
                        if !flow.is_expired() && selection.has(flow) {
                            tally.count(flow);
                            kept.offer(flow);
                        }
                    });
                    let mut found = Found {
                        flows: kept.flows,
                        ..Found::default()
                    };
                    tally.add_to(&mut found.counts);
                    found
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    });
    let mut kept = Kept::new(order, most);
    let mut counts = Counts::default();
    for part in parts {
        part.flows.iter().for_each(|flow| kept.offer(flow));
        counts.add(&part.counts);
    }
    Found {
        flows: kept.finish(),
        counts,
    }
}

/// Forgets the flows that are meant, those among them whose time has run out: the next packet of each is
/// one of no known flow. How many.
///
/// An entry is emptied by compare and swap, as the sweep does it: a flow that took its place in the
/// meantime stays.
pub fn kill(table: &Table<'_>, selection: &Selection) -> u64 {
    let mut killed = 0;
    table.each(0, table.flows.len(), |flow, entry, word| {
        if selection.has(flow) && entry.choice.swap(word, Choice::EMPTY) {
            killed += 1;
        }
    });
    killed
}

impl Table<'_> {
    /// Shows every flow of so many buckets, with its entry and the word that it was read under.
    fn each(
        &self,
        start: usize,
        count: usize,
        mut show: impl FnMut(&Flow, &nlb_common::flow::FlowEntry, u64),
    ) {
        let none = Translations::default();
        let beside = self.translations.iter().chain(std::iter::repeat(&none));
        let buckets = self.flows.iter().zip(beside).skip(start).take(count);
        for (bucket, beside) in buckets {
            for (entry, translation) in bucket.entries.iter().zip(&beside.entries) {
                if let Some((flow, word)) = self.flow(entry, Some(translation)) {
                    show(&flow, entry, word);
                }
            }
        }
    }
}

/// The first few of many flows.
struct Kept {
    order: Option<Order>,
    most: usize,
    flows: Vec<Flow>,
}

impl Kept {
    const fn new(order: Option<Order>, most: usize) -> Self {
        Self {
            order,
            most,
            flows: Vec::new(),
        }
    }

    fn offer(&mut self, flow: &Flow) {
        match self.order {
            None if self.flows.len() >= self.most => {}
            None => self.flows.push(*flow),
            Some(_) => {
                self.flows.push(*flow);
                // Twice as many, so that each is looked at a few times only.
                if self.flows.len() >= self.most.saturating_mul(2).max(1024) {
                    self.shorten();
                }
            }
        }
    }

    /// Leaves the first ones, in any order.
    fn shorten(&mut self) {
        if let Some(order) = self.order
            && self.flows.len() > self.most
        {
            self.flows
                .select_nth_unstable_by(self.most, |one, other| order.compare(one, other));
            self.flows.truncate(self.most);
        }
    }

    /// The first ones, in order.
    fn finish(mut self) -> Vec<Flow> {
        self.shorten();
        if let Some(order) = self.order {
            self.flows.sort_by(|one, other| order.compare(one, other));
        }
        self.flows
    }
}

impl Counts {
    fn add(&mut self, other: &Self) {
        fn all<K: Ord + Copy>(to: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
            for (key, count) in from {
                *to.entry(*key).or_default() += count;
            }
        }
        self.flows += other.flows;
        all(&mut self.by_state, &other.by_state);
        all(&mut self.by_listener, &other.by_listener);
        all(&mut self.by_target, &other.by_target);
    }
}
