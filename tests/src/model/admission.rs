//! Who may begin a flow: rules, and limits with what they have counted.

use std::{collections::HashMap, net::IpAddr};

use nlb_common::admission::AdmissionPolicy;

use super::flow::Flow;
use crate::world::{LIMITS, RULES, RuleRow};

/// An address as a number, IPv4 as a part of IPv6 (RFC 4291 §2.5.5.2).
fn number(address: &str) -> u128 {
    match address.parse().expect("an address of the world") {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// What two addresses have in common, in bits from the left.
fn bits_in_common(one: &str, other: &str) -> u32 {
    (number(one) ^ number(other)).leading_zeros()
}

/// What is counted against limits.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    tick: u64,
    /// Flows that began in that tick.
    begun: u32,
    /// Flows that are remembered.
    active: u32,
}

impl Count {
    /// Whether limits leave room for a flow; 0 is no limit.
    const fn has_room(&self, now: u64, per_tick: u32, at_once: u32) -> bool {
        let begun = if self.tick == now { self.begun } else { 0 };
        (per_tick == 0 || begun < per_tick) && (at_once == 0 || self.active < at_once)
    }

    const fn add(&mut self, now: u64) {
        if self.tick != now {
            *self = Self {
                tick: now,
                begun: 0,
                ..*self
            };
        }
        self.begun += 1;
        self.active += 1;
    }
}

/// What becomes of a flow that would begin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Admitted {
    Remembered,
    Unpinned,
    Dropped,
}

/// Whom a limit is about: all clients of a listener, or a source.
type Counted = (u16, Option<u128>);

/// Rules and limits of all listeners.
#[derive(Debug)]
pub(super) struct Admission {
    /// By listener: prefixes that may, and that may not, begin flows.
    rules: HashMap<u16, &'static [RuleRow]>,
    counts: HashMap<Counted, Count>,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            rules: RULES.iter().copied().collect(),
            counts: HashMap::new(),
        }
    }
}

/// The source that a client is to a listener.
fn source(policy: &AdmissionPolicy, client: &str) -> u128 {
    number(client) >> (128 - u32::from(policy.source_bits))
}

impl Admission {
    /// A listener has these rules from now on, or none.
    pub(super) fn rule(&mut self, listener: u16, rules: Option<&'static [RuleRow]>) {
        match rules {
            Some(rules) => self.rules.insert(listener, rules),
            None => self.rules.remove(&listener),
        };
    }

    /// The rule with the longest prefix around the client decides.
    pub(super) fn admits(&self, listener: u16, client: &str) -> bool {
        let Some(rules) = self.rules.get(&listener) else {
            return true;
        };
        rules
            .iter()
            .filter(|(prefix, bits, _)| bits_in_common(prefix, client) >= (*bits).into())
            .max_by_key(|(_, bits, _)| bits)
            .is_some_and(|(_, _, allows)| *allows)
    }

    /// Counts a flow that would begin, unless it is one too many.
    pub(super) fn limit(&mut self, now: u64, listener: u16, client: &str) -> Admitted {
        let Some((_, policy)) = LIMITS.iter().find(|(id, _)| *id == listener) else {
            return Admitted::Remembered;
        };
        let (all, source) = ((listener, None), Some(source(policy, client)));
        let count = |key| self.counts.get(&key).copied().unwrap_or_default();
        let (of_all, of_source) = (count(all), count((listener, source)));
        let has_room = of_all.has_room(now, policy.flows_per_tick, policy.active_flows)
            && of_source.has_room(
                now,
                policy.source_flows_per_tick,
                policy.source_active_flows,
            );
        if has_room {
            for key in [all, (listener, source)] {
                self.counts.entry(key).or_default().add(now);
            }
            Admitted::Remembered
        } else if policy.forwards_unpinned {
            Admitted::Unpinned
        } else {
            Admitted::Dropped
        }
    }

    /// Counts anew which flows are left.
    pub(super) fn recount(&mut self, flows: &[Flow]) {
        for count in self.counts.values_mut() {
            count.active = 0;
        }
        for flow in flows {
            let limits = LIMITS.iter().find(|(id, _)| *id == flow.listener);
            let source = limits.map(|(_, policy)| source(policy, flow.client.0));
            for key in [(flow.listener, None), (flow.listener, source)] {
                if let Some(count) = self.counts.get_mut(&key) {
                    count.active += 1;
                }
            }
        }
    }
}
