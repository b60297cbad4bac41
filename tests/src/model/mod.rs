//! The oracle: a slow and obvious load balancer, written from what the documentation promises and
//! not from the packet path.
//!
//! It knows the world's working listeners, keeps its flows in a list and builds the expected frame
//! as a sentence. It has room for any number of flows: what happens when buckets are full is the
//! packet table's to show.

mod admission;
mod flow;
mod segment;
mod settling;
mod ways;

use std::collections::{BTreeSet, HashMap};

use nlb_common::{
    listener::Stranded,
    target::Mode,
    wire::{
        protocol::TCP,
        tcp::{FIN, RST},
    },
};
use nlb_ebpf::memory::MemoryTables;

use self::{
    admission::{Admission, Admitted},
    flow::Flow,
    settling::SettlingSlot,
    ways::{on_its_way, overhead_bytes, router_of, target},
};
pub use self::{
    segment::{End, Fate, Segment},
    ways::Side,
};
use crate::world::{ETH1, LISTENERS, RuleRow, SEQUENCE, SETTLING, chosen_by, on_to, source_of};

/// The load balancer.
#[derive(Debug, Default)]
pub struct Model {
    flows: Vec<Flow>,
    admission: Admission,
    now: u64,
    /// By listener: what becomes of stray segments, and of those of expired flows.
    stranded: HashMap<u16, (Stranded, Stranded)>,
    /// Targets that take no new flows.
    closed: BTreeSet<u32>,
    /// Targets whose flows end.
    ending: BTreeSet<u32>,
}

impl Model {
    /// A listener has these rules from now on, or none.
    pub fn rule(&mut self, listener: u16, rules: Option<&'static [RuleRow]>) {
        self.admission.rule(listener, rules);
    }

    /// Somebody looks which flows are left: only now is it seen that flows have ended.
    pub fn sweep(&mut self) {
        let now = self.now;
        self.flows
            .retain(|flow| now - flow.last_seen <= flow.patience() + 1);
        self.admission.recount(&self.flows);
    }

    /// Time goes by.
    pub const fn wait(&mut self, ticks: u16) {
        self.now += ticks as u64;
    }

    /// A listener treats segments without a live flow so from now on.
    pub fn strand(&mut self, listener: u16, stray: Stranded, expired: Stranded) {
        self.stranded.insert(listener, (stray, expired));
    }

    /// A target takes new flows from now on, or takes none, or also ends those it has.
    pub fn close(&mut self, target: u32, is_closed: bool, is_ending: bool) {
        for (set, is_in) in [(&mut self.closed, is_closed), (&mut self.ending, is_ending)] {
            if is_in {
                set.insert(target);
            } else {
                set.remove(&target);
            }
        }
    }

    /// What must become of a client's packet. `tables` is asked for the ring's choice alone.
    pub fn request(&mut self, segment: &Segment, tables: &MemoryTables) -> Fate {
        let (vip, port) = segment.destination;
        let is_it = |listener: &&(u16, &str, u8, u16, u16)| {
            listener.1 == vip && listener.2 == segment.protocol && listener.3 == port
        };
        let Some(&(listener, _, _, _, group)) = LISTENERS.iter().find(is_it) else {
            return Fate::Passed;
        };
        let named = segment.server(listener, group);
        let named = named.filter(|target| !self.ending.contains(target));
        let now = self.now;
        let side = Side::of(segment.source.0);
        let slot = SETTLING
            .contains(&group)
            .then(|| SettlingSlot::of(segment, tables));
        if let Some(SettlingSlot::Settled(Some(id))) = slot {
            // By the ring alone: nobody looks for anything.
            let refused = Self::refused(segment, vip, id);
            return refused
                .unwrap_or_else(|| Fate::Sent(ETH1, on_its_way(segment, tables, id).build()));
        }
        let known = self
            .flows
            .iter()
            .position(|flow| flow.is_of(segment, listener));
        let remembered = known.filter(|index| {
            let flow = &self.flows[*index];
            !flow.is_expired(now) && named.is_none_or(|named| named == flow.target)
        });
        let is_tcp = segment.protocol == TCP;
        let alive = remembered.filter(|index| {
            let flow = &self.flows[*index];
            if segment.opens() {
                !flow.is_over() && !self.closed.contains(&flow.target)
            } else {
                is_tcp || !self.ending.contains(&flow.target)
            }
        });
        if alive.is_none() && !self.admission.admits(listener, segment.source.0) {
            return Fate::Dropped;
        }
        if is_tcp && !segment.opens() {
            let (stray, expired) = self.stranded.get(&listener).copied().unwrap_or_default();
            let policy = match (known, alive) {
                (_, Some(index)) if self.ending.contains(&self.flows[index].target) => {
                    Stranded::RESET
                }
                (_, Some(_)) => Stranded::FORWARD,
                // It may be of a connection that nobody remembers.
                _ if slot.is_some() => Stranded::FORWARD,
                (Some(_), None) => expired,
                (None, None) => stray,
            };
            match policy {
                Stranded::FORWARD => {}
                Stranded::RESET => return segment.reset(side),
                _ => return Fate::Dropped,
            }
        }
        let id = if let Some(index) = alive {
            self.flows[index].target
        } else if let Some(id) = named {
            id
        } else if let Some(slot) = slot {
            match slot.target(segment, &self.closed) {
                Some(id) => id,
                None => return Fate::Dropped,
            }
        } else if let Some(id) = chosen_by(
            tables,
            segment.source,
            segment.destination,
            segment.protocol,
            // Only a SYN's sequence number means anything.
            if segment.opens() { SEQUENCE } else { 0 },
        ) {
            id
        } else {
            return Fate::Dropped;
        };
        // A packet that is stopped leaves no trace in its flow.
        let needs_source = alive.is_none() && self.needs_source(segment, listener, id);
        if needs_source && segment.flags & RST != 0 {
            return Fate::Dropped;
        }
        if let Some(fate) = Self::refused(segment, vip, id) {
            return fate;
        }
        // A stray RST begins nothing.
        let begins = alive.is_none() && segment.flags & RST == 0;
        let is_remembered =
            match begins.then(|| self.admission.limit(now, listener, segment.source.0)) {
                Some(Admitted::Dropped) => return Fate::Dropped,
                Some(Admitted::Unpinned) | None => false,
                Some(Admitted::Remembered) => true,
            };
        let new = needs_source.then(|| self.free_source(segment, tables, listener, id));
        let source = match alive {
            Some(index) => self.note(segment, index),
            None => new,
        };
        if is_remembered {
            let mut flow = Flow::new(segment, (listener, id), new, now);
            // It may have gone on for long.
            flow.is_established = slot.is_some() && !segment.opens();
            self.flows.retain(|flow| !flow.is_of(segment, listener));
            self.flows.push(flow);
        }
        let seen = Segment {
            source: source.unwrap_or(segment.source),
            ..*segment
        };
        Fate::Sent(ETH1, on_its_way(&seen, tables, id).build())
    }

    /// Notes a packet of a flow that is sent on; what its target sees as its source, if not the client.
    fn note(&mut self, segment: &Segment, index: usize) -> Option<End> {
        let flow = &mut self.flows[index];
        let (mode, ..) = target(flow.target);
        let is_routed = matches!(mode, Mode::NAT | Mode::FULL_NAT);
        if !segment.opens() && (flow.is_answered || !is_routed) {
            flow.is_established = true;
        }
        flow.is_client_closed |= segment.flags & FIN != 0;
        flow.is_reset |= segment.flags & RST != 0;
        flow.last_seen = self.now;
        flow.source
    }

    /// What becomes of a client's packet that cannot go on to a target.
    fn refused(segment: &Segment, vip: &str, id: u32) -> Option<Fate> {
        let (mode, address, _) = target(id);
        let is_routed = matches!(mode, Mode::NAT | Mode::FULL_NAT);
        let overhead = overhead_bytes(mode, address);
        segment.refused(Side::of(segment.source.0), vip, is_routed, overhead)
    }

    /// Whether the target could not tell a new flow from another, or shall not see its client. An
    /// old flow that stands in the way but whose time has run out is forgotten.
    fn needs_source(&mut self, segment: &Segment, listener: u16, id: u32) -> bool {
        let (mode, address, port) = target(id);
        if mode != Mode::NAT {
            return mode == Mode::FULL_NAT;
        }
        let now = self.now;
        let is_in_the_way = |flow: &Flow| {
            flow.client == segment.source
                && flow.protocol == segment.protocol
                && flow.listener != listener
                && flow.source.is_none()
                && target(flow.target) == (Mode::NAT, address, port)
        };
        self.flows
            .retain(|flow| !(is_in_the_way(flow) && flow.is_expired(now)));
        address == segment.source.0 || self.flows.iter().any(is_in_the_way)
    }

    /// The first source, of those that are tried, that no live flow has towards the target; of one
    /// whose time has run out it is taken.
    fn free_source(
        &mut self,
        segment: &Segment,
        tables: &MemoryTables,
        listener: u16,
        id: u32,
    ) -> End {
        let (_, address, port) = target(id);
        let now = self.now;
        for attempt in 0.. {
            let source = source_of(tables, segment.source, segment.protocol, attempt);
            let owner = self.flows.iter().position(|flow| {
                let (_, other, other_port) = target(flow.target);
                let is_same = flow.client == segment.source && flow.listener == listener;
                !is_same
                    && flow.source == Some(source)
                    && flow.protocol == segment.protocol
                    && (other, other_port) == (address, port)
            });
            match owner {
                None => return source,
                Some(index) => {
                    if self.flows[index].is_expired(now) {
                        self.flows.remove(index);
                        return source;
                    }
                }
            }
        }
        unreachable!("few flows")
    }

    /// What targets may answer at an address of the pool: target, source and protocol of each flow.
    pub fn translated(&self) -> Vec<(End, End, u8)> {
        let known = self.flows.iter().filter_map(|flow| {
            let (_, address, port) = target(flow.target);
            flow.source
                .map(|source| ((address, port), source, flow.protocol))
        });
        known.collect()
    }

    /// What must become of a target's packet.
    pub fn answer(&mut self, segment: &Segment) -> Fate {
        let now = self.now;
        let flow = self.flows.iter_mut().find(|flow| {
            let (mode, address, port) = target(flow.target);
            // In mode `nat` the target sees the client, unless it is given a source.
            let seen = flow.source.unwrap_or(flow.client);
            seen == segment.destination
                && flow.protocol == segment.protocol
                && matches!(mode, Mode::NAT | Mode::FULL_NAT)
                && (address, port) == segment.source
        });
        let Some(flow) = flow else {
            return Fate::Passed;
        };
        if segment.protocol == TCP && self.ending.contains(&flow.target) {
            return segment.reset(Side::Targets);
        }
        if segment.protocol == TCP && flow.is_expired(now) {
            let (_, expired) = self
                .stranded
                .get(&flow.listener)
                .copied()
                .unwrap_or_default();
            match expired {
                Stranded::FORWARD => {}
                Stranded::RESET => return segment.reset(Side::Targets),
                _ => return Fate::Dropped,
            }
        }
        let id = flow.listener;
        let listener = LISTENERS.iter().find(|listener| listener.0 == id);
        let &(_, vip, _, port, _) = listener.expect("a listener of the world");
        if let Some(fate) = segment.refused(Side::Targets, vip, true, 0) {
            return fate;
        }
        flow.is_answered = true;
        flow.is_target_closed |= segment.flags & FIN != 0;
        flow.is_reset |= segment.flags & RST != 0;
        flow.last_seen = now;
        let client = flow.client;
        let out = Segment {
            source: (vip, port),
            destination: client,
            ttl: segment.ttl - 1,
            ..*segment
        };
        let out = out.frame(on_to(router_of(client.0)));
        Fate::Sent(Side::of(client.0).interface(), out.build())
    }
}
