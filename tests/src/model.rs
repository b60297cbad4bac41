//! The oracle: a slow and obvious load balancer, written from what the documentation promises and
//! not from the packet path.
//!
//! It knows the world's working listeners, keeps its flows in a list and builds the expected frame
//! as a sentence. It has room for any number of flows: what happens when buckets are full is the
//! packet table's to show.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use nlb_common::{
    admission::AdmissionPolicy,
    listener::Stranded,
    target::Mode,
    wire::{
        protocol::TCP,
        tcp::{ACK, FIN, RST, SYN},
    },
};
use nlb_ebpf::memory::MemoryTables;

use crate::{
    outer::wrapped,
    packet::{Sentence, eth},
    world::{
        CLIENT, ETH0, ETH1, FAR, FILLER, GROUPS, LIMITS, LISTENERS, MAC0, MAC1, MTU_BYTES, QUIC,
        RULES, RuleRow, SEQUENCE, SERVERS, chosen_by, from_client, from_target, neighbour_of,
        on_to, source_of,
    },
};

/// An address and a port.
pub type End = (&'static str, u16);

/// What both ends of a packet and its transport header say.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Where it comes from.
    pub source: (&'static str, u16),
    /// Where it goes.
    pub destination: (&'static str, u16),
    /// TCP or UDP.
    pub protocol: u8,
    /// TCP flags; zero for UDP.
    pub flags: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Bytes behind the transport header.
    pub payload_bytes: usize,
    /// Whether an IPv4 packet may not be fragmented.
    pub is_strict: bool,
}

impl Segment {
    /// The segment as a frame, its Ethernet header given.
    pub fn frame(&self, ethernet: Sentence) -> Sentence {
        let parse = |text: &str| text.parse().expect("an address of the world");
        let packet = ethernet
            .ip(parse(self.source.0), parse(self.destination.0))
            .ttl(self.ttl)
            .fragment_word(if self.is_strict { 0x4000 } else { 0 });
        let (from, to) = (self.source.1, self.destination.1);
        let segment = if self.protocol == TCP {
            packet.tcp(from, to).flags(self.flags)
        } else {
            packet.udp(from, to)
        };
        segment.payload(&vec![FILLER; self.payload_bytes])
    }

    fn opens(&self) -> bool {
        self.protocol == TCP && self.flags & SYN != 0 && self.flags & ACK == 0
    }

    /// The target that its QUIC connection ID names, if the listener looks at it. The payload is a
    /// short header's: one byte, and the ID.
    fn server(&self, listener: u16, group: u16) -> Option<u32> {
        let (_, layout) = QUIC.iter().find(|(other, _)| *other == listener)?;
        if self.payload_bytes < 1 + usize::from(layout.id_bytes) {
            return None;
        }
        let number =
            (0..layout.server_id_bytes).fold(0, |number, _| number << 8 | u64::from(FILLER));
        let server = SERVERS
            .iter()
            .find(|server| (server.0, server.1) == (group, number));
        server.map(|server| server.2)
    }

    fn is_v6(&self) -> bool {
        self.source.0.contains(':')
    }

    /// From the receiver back to the sender.
    fn turned(&self, ethernet: Sentence) -> Sentence {
        let parse = |text: &str| text.parse().expect("an address of the world");
        ethernet.ip(parse(self.destination.0), parse(self.source.0))
    }

    /// What becomes of a segment that is reset: RFC 9293 §3.10.7.1.
    fn reset(&self, ethernet: Sentence) -> Fate {
        if self.flags & RST != 0 {
            return Fate::Dropped;
        }
        let length = u32::try_from(self.payload_bytes).expect("a packet's length")
            + u32::from(self.flags & SYN != 0)
            + u32::from(self.flags & FIN != 0);
        let (flags, acknowledgement) = if self.flags & ACK != 0 {
            (RST, 0)
        } else {
            (RST | ACK, SEQUENCE + length)
        };
        let segment = self.turned(ethernet).tcp(self.destination.1, self.source.1);
        let segment = segment.flags(flags).sequence(0, acknowledgement);
        Fate::Answered(segment.made_by_nlb().build())
    }

    /// What becomes of a packet that expires here, or does not fit; none if it does neither.
    fn refused(
        &self,
        from: Sentence,
        to: Sentence,
        vip: &str,
        is_routed: bool,
        overhead_bytes: usize,
    ) -> Option<Fate> {
        let is_expired = is_routed && self.ttl <= 1;
        let room_bytes = usize::from(MTU_BYTES) - overhead_bytes;
        let is_big = self.length_bytes() > room_bytes;
        let mtu = u32::try_from(room_bytes).expect("an MTU");
        let (kind, code, number) = match (is_expired, is_big, self.is_v6()) {
            (false, false, _) => return None,
            (true, _, false) => (11, 0, 0),
            (true, _, true) => (3, 0, 0),
            (false, true, false) if !self.is_strict => return Some(Fate::Dropped),
            (false, true, false) => (3, 4, mtu),
            (false, true, true) => (2, 0, mtu),
        };
        let quote: Vec<u8> = self.frame(from).build()[14..]
            .iter()
            .copied()
            .take(128)
            .collect();
        let quote = &quote[..quote.len() / 4 * 4];
        let parse = |text: &str| text.parse().expect("an address of the world");
        let class = if self.is_v6() { 0 } else { 0xc0 };
        let error = to.ip(parse(vip), parse(self.source.0)).class(class);
        let error = error.icmp_error(kind, code, number).payload(quote);
        Some(Fate::Answered(error.made_by_nlb().build()))
    }

    /// Bytes of the IP packet.
    fn length_bytes(&self) -> usize {
        let network = if self.source.0.contains(':') { 40 } else { 20 };
        let transport = if self.protocol == TCP { 20 } else { 8 };
        network + transport + self.payload_bytes
    }
}

/// A frame back to the neighbour that clients' frames come from.
fn to_client() -> Sentence {
    eth().to(neighbour_of(CLIENT).mac()).from(MAC0)
}

/// A frame back to the neighbour that targets' frames come from.
fn to_target() -> Sentence {
    eth().to(neighbour_of("10.0.0.11").mac()).from(MAC1)
}

/// What must become of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Left to the host, untouched.
    Passed,
    /// Dropped, untouched.
    Dropped,
    /// Turned into an answer with these bytes, which leaves through the same interface.
    Answered(Vec<u8>),
    /// Sent out through this interface, with these bytes.
    Sent(u32, Vec<u8>),
}

#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a thing that was seen"
)]
struct Flow {
    client: (&'static str, u16),
    protocol: u8,
    listener: u16,
    target: u32,
    /// What the target sees, if that is not the client.
    source: Option<End>,
    is_answered: bool,
    is_established: bool,
    is_client_closed: bool,
    is_target_closed: bool,
    is_reset: bool,
    last_seen: u64,
}

/// Ticks that are no shorter than so many seconds with any kernel, whose ticks are 0.8 s or longer.
const fn ticks(seconds: u64) -> u64 {
    (seconds * 1_000_000_000).div_ceil(800_000_000)
}

impl Flow {
    const fn is_over(&self) -> bool {
        self.is_reset || self.is_client_closed && self.is_target_closed
    }

    /// How long the flow may be silent: a connection that is over for 10 s, a half-closed one for
    /// 120 s, one without an answer for 30 s, and none for longer than its listener says.
    fn patience(&self) -> u64 {
        let idle = ticks(if self.protocol == TCP { 350 } else { 120 });
        let own = if self.is_over() {
            ticks(10)
        } else if self.is_client_closed || self.is_target_closed {
            ticks(120)
        } else if self.is_established {
            idle
        } else {
            ticks(30)
        };
        own.min(idle)
    }
}

/// The neighbour through which an address is reached.
fn router_of(address: &'static str) -> &'static str {
    let far = FAR.iter().find(|(far, _)| *far == address);
    far.map_or(address, |(_, router)| *router)
}

/// How many bytes go around a packet to this target.
fn overhead_bytes(mode: Mode, address: &str) -> usize {
    let outer = if address.contains(':') { 40 } else { 20 };
    match mode {
        Mode::DSR_IPIP => outer,
        Mode::DSR_GUE => outer + 8 + 4,
        Mode::DSR_GENEVE => outer + 8 + 8,
        _ => 0,
    }
}

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
enum Admitted {
    Remembered,
    Unpinned,
    Dropped,
}

/// Whom a limit is about: all clients of a listener, or a source.
type Counted = (u16, Option<u128>);

/// The load balancer.
#[derive(Debug)]
pub struct Model {
    flows: Vec<Flow>,
    /// By listener: prefixes that may, and that may not, begin flows.
    rules: HashMap<u16, &'static [RuleRow]>,
    counts: HashMap<Counted, Count>,
    now: u64,
    /// By listener: what becomes of stray segments, and of those of expired flows.
    stranded: HashMap<u16, (Stranded, Stranded)>,
    /// Targets that take no new flows.
    closed: BTreeSet<u32>,
    /// Targets whose flows end.
    ending: BTreeSet<u32>,
}

/// The mode, address and port of a target.
fn target(id: u32) -> (Mode, &'static str, u16) {
    GROUPS
        .iter()
        .flat_map(|group| group.targets.iter().map(|target| (group.mode, target)))
        .find(|(_, target)| target.0 == id)
        .map(|(mode, target)| (mode, target.1, target.2))
        .expect("a target of the world")
}

/// A client's segment on its way to a target.
fn on_its_way(segment: &Segment, tables: &MemoryTables, id: u32) -> Sentence {
    let (mode, address, target_port) = target(id);
    let is_routed = matches!(mode, Mode::NAT | Mode::FULL_NAT);
    let out = if is_routed {
        Segment {
            destination: (address, target_port),
            ttl: segment.ttl - 1,
            ..*segment
        }
    } else {
        *segment
    };
    if is_routed || mode == Mode::DSR_L2 {
        out.frame(on_to(router_of(address)))
    } else {
        let client = (segment.source.0, segment.source.1, segment.protocol);
        let frame = out.frame(on_to(address)).build();
        wrapped(tables, &frame, (client, 0), id, address)
    }
}

impl Default for Model {
    fn default() -> Self {
        Self {
            flows: Vec::new(),
            rules: RULES.iter().copied().collect(),
            counts: HashMap::new(),
            now: 0,
            stranded: HashMap::new(),
            closed: BTreeSet::new(),
            ending: BTreeSet::new(),
        }
    }
}

impl Model {
    /// A listener has these rules from now on, or none.
    pub fn rule(&mut self, listener: u16, rules: Option<&'static [RuleRow]>) {
        match rules {
            Some(rules) => self.rules.insert(listener, rules),
            None => self.rules.remove(&listener),
        };
    }

    /// The rule with the longest prefix around the client decides.
    fn admits(&self, listener: u16, client: &str) -> bool {
        let Some(rules) = self.rules.get(&listener) else {
            return true;
        };
        rules
            .iter()
            .filter(|(prefix, bits, _)| bits_in_common(prefix, client) >= (*bits).into())
            .max_by_key(|(_, bits, _)| bits)
            .is_some_and(|(_, _, allows)| *allows)
    }

    /// The source that a client is to a listener.
    fn source(policy: &AdmissionPolicy, client: &str) -> u128 {
        number(client) >> (128 - u32::from(policy.source_bits))
    }

    /// Counts a flow that would begin, unless it is one too many.
    fn limit(&mut self, listener: u16, client: &str) -> Admitted {
        let Some((_, policy)) = LIMITS.iter().find(|(id, _)| *id == listener) else {
            return Admitted::Remembered;
        };
        let now = self.now;
        let (all, source) = ((listener, None), Some(Self::source(policy, client)));
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

    /// Somebody looks which flows are left: only now is it seen that flows have ended.
    pub fn sweep(&mut self) {
        let now = self.now;
        self.flows
            .retain(|flow| now - flow.last_seen <= flow.patience() + 1);
        for count in self.counts.values_mut() {
            count.active = 0;
        }
        for flow in &self.flows {
            let limits = LIMITS.iter().find(|(id, _)| *id == flow.listener);
            let source = limits.map(|(_, policy)| Self::source(policy, flow.client.0));
            for key in [(flow.listener, None), (flow.listener, source)] {
                if let Some(count) = self.counts.get_mut(&key) {
                    count.active += 1;
                }
            }
        }
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
        let known = self.flows.iter().position(|flow| {
            flow.client == segment.source
                && flow.protocol == segment.protocol
                && flow.listener == listener
        });
        let remembered = known.filter(|index| {
            let flow = &self.flows[*index];
            now - flow.last_seen <= flow.patience()
                && named.is_none_or(|named| named == flow.target)
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
        if alive.is_none() && !self.admits(listener, segment.source.0) {
            return Fate::Dropped;
        }
        if is_tcp && !segment.opens() {
            let (stray, expired) = self.stranded.get(&listener).copied().unwrap_or_default();
            let policy = match (known, alive) {
                (_, Some(index)) if self.ending.contains(&self.flows[index].target) => {
                    Stranded::RESET
                }
                (_, Some(_)) => Stranded::FORWARD,
                (Some(_), None) => expired,
                (None, None) => stray,
            };
            match policy {
                Stranded::FORWARD => {}
                Stranded::RESET => return segment.reset(to_client()),
                _ => return Fate::Dropped,
            }
        }
        let id = if let Some(index) = alive {
            self.flows[index].target
        } else if let Some(id) = named {
            id
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
        let (mode, address, _) = target(id);
        // A packet that is stopped leaves no trace in its flow.
        let is_routed = matches!(mode, Mode::NAT | Mode::FULL_NAT);
        let needs_source = alive.is_none() && self.needs_source(segment, listener, id);
        if needs_source && segment.flags & RST != 0 {
            return Fate::Dropped;
        }
        let overhead = overhead_bytes(mode, address);
        if let Some(fate) = segment.refused(from_client(), to_client(), vip, is_routed, overhead) {
            return fate;
        }
        // A stray RST begins nothing.
        let begins = alive.is_none() && segment.flags & RST == 0;
        let is_remembered = match begins.then(|| self.limit(listener, segment.source.0)) {
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
            self.remember(segment, listener, id, new);
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

    /// Remembers a flow that begins, instead of the one that was there.
    fn remember(&mut self, segment: &Segment, listener: u16, id: u32, source: Option<End>) {
        let is_it = |flow: &Flow| {
            flow.client == segment.source
                && flow.protocol == segment.protocol
                && flow.listener == listener
        };
        self.flows.retain(|flow| !is_it(flow));
        self.flows.push(self.flow(segment, listener, id, source));
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
            .retain(|flow| !(is_in_the_way(flow) && now - flow.last_seen > flow.patience()));
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
                    let flow = &self.flows[index];
                    if now - flow.last_seen > flow.patience() {
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

    fn flow(&self, segment: &Segment, listener: u16, target: u32, source: Option<End>) -> Flow {
        Flow {
            client: segment.source,
            protocol: segment.protocol,
            listener,
            target,
            source,
            is_answered: false,
            is_established: false,
            is_client_closed: false,
            is_target_closed: false,
            is_reset: false,
            last_seen: self.now,
        }
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
            return segment.reset(to_target());
        }
        if segment.protocol == TCP && now - flow.last_seen > flow.patience() {
            let (_, expired) = self
                .stranded
                .get(&flow.listener)
                .copied()
                .unwrap_or_default();
            match expired {
                Stranded::FORWARD => {}
                Stranded::RESET => return segment.reset(to_target()),
                _ => return Fate::Dropped,
            }
        }
        let id = flow.listener;
        let listener = LISTENERS.iter().find(|listener| listener.0 == id);
        let &(_, vip, _, port, _) = listener.expect("a listener of the world");
        let from = from_target("10.0.0.11");
        if let Some(fate) = segment.refused(from, to_target(), vip, true, 0) {
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
        Fate::Sent(ETH0, out.frame(on_to(router_of(client.0))).build())
    }
}
