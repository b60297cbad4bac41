//! The oracle: a slow and obvious load balancer, written from what the documentation promises and
//! not from the packet path.
//!
//! It knows the world's working listeners, keeps its flows in a list and builds the expected frame
//! as a sentence. It has room for any number of flows: what happens when buckets are full is the
//! packet table's to show.

use std::collections::HashMap;

use nlb_common::{
    target::Mode,
    wire::{
        protocol::TCP,
        tcp::{ACK, FIN, RST, SYN},
    },
};
use nlb_ebpf::memory::MemoryTables;

use crate::{
    packet::Sentence,
    world::{ETH0, ETH1, FAR, GROUPS, LISTENERS, MTU_BYTES, SEQUENCE, chosen_by, on_to},
};

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
}

impl Segment {
    /// The segment as a frame, its Ethernet header given.
    pub fn frame(&self, ethernet: Sentence) -> Sentence {
        let parse = |text: &str| text.parse().expect("an address of the world");
        let packet = ethernet
            .ip(parse(self.source.0), parse(self.destination.0))
            .ttl(self.ttl);
        let (from, to) = (self.source.1, self.destination.1);
        let segment = if self.protocol == TCP {
            packet.tcp(from, to).flags(self.flags)
        } else {
            packet.udp(from, to)
        };
        segment.payload(&vec![0x5a; self.payload_bytes])
    }

    fn opens(&self) -> bool {
        self.protocol == TCP && self.flags & SYN != 0 && self.flags & ACK == 0
    }

    /// Bytes of the IP packet.
    fn length_bytes(&self) -> usize {
        let network = if self.source.0.contains(':') { 40 } else { 20 };
        let transport = if self.protocol == TCP { 20 } else { 8 };
        network + transport + self.payload_bytes
    }
}

/// What must become of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Left to the host, untouched.
    Passed,
    /// Dropped, untouched.
    Dropped,
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

/// The load balancer.
#[derive(Debug, Default)]
pub struct Model {
    flows: Vec<Flow>,
    now: u64,
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

impl Model {
    /// Time goes by.
    pub const fn wait(&mut self, ticks: u16) {
        self.now += ticks as u64;
    }

    /// What must become of a client's packet. `tables` is asked for the ring's choice alone.
    pub fn request(&mut self, segment: &Segment, tables: &MemoryTables) -> Fate {
        let (vip, port) = segment.destination;
        let is_it = |listener: &&(u16, &str, u8, u16, u16)| {
            listener.1 == vip && listener.2 == segment.protocol && listener.3 == port
        };
        let Some(&(listener, ..)) = LISTENERS.iter().find(is_it) else {
            return Fate::Passed;
        };
        let now = self.now;
        let known = self.flows.iter().position(|flow| {
            flow.client == segment.source
                && flow.protocol == segment.protocol
                && flow.listener == listener
        });
        let alive = known.filter(|index| {
            let flow = &self.flows[*index];
            now - flow.last_seen <= flow.patience() && !(segment.opens() && flow.is_over())
        });
        let id = if let Some(index) = alive {
            self.flows[index].target
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
        let (mode, address, target_port) = target(id);
        // A packet that is stopped leaves no trace in its flow.
        if segment.length_bytes() > usize::from(MTU_BYTES) || mode == Mode::NAT && segment.ttl <= 1
        {
            return Fate::Dropped;
        }
        if let Some(index) = alive {
            let flow = &mut self.flows[index];
            if !segment.opens() && (flow.is_answered || mode != Mode::NAT) {
                flow.is_established = true;
            }
            flow.is_client_closed |= segment.flags & FIN != 0;
            flow.is_reset |= segment.flags & RST != 0;
            flow.last_seen = now;
        } else if segment.flags & RST == 0 {
            // A stray RST begins nothing.
            self.flows
                .extend(known.is_none().then(|| self.flow(segment, listener, id)));
            if let Some(index) = known {
                self.flows[index] = self.flow(segment, listener, id);
            }
        }
        let out = if mode == Mode::NAT {
            Segment {
                destination: (address, target_port),
                ttl: segment.ttl - 1,
                ..*segment
            }
        } else {
            *segment
        };
        Fate::Sent(ETH1, out.frame(on_to(address)).build())
    }

    fn flow(&self, segment: &Segment, listener: u16, target: u32) -> Flow {
        Flow {
            client: segment.source,
            protocol: segment.protocol,
            listener,
            target,
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
            flow.client == segment.destination
                && flow.protocol == segment.protocol
                && mode == Mode::NAT
                && (address, port) == segment.source
        });
        let Some(flow) = flow else {
            return Fate::Passed;
        };
        if segment.ttl <= 1 || segment.length_bytes() > usize::from(MTU_BYTES) {
            return Fate::Dropped;
        }
        flow.is_answered = true;
        flow.is_target_closed |= segment.flags & FIN != 0;
        flow.is_reset |= segment.flags & RST != 0;
        flow.last_seen = now;
        let id = flow.listener;
        let listener = LISTENERS.iter().find(|listener| listener.0 == id);
        let &(_, vip, _, port, _) = listener.expect("a listener of the world");
        let routers: HashMap<_, _> = FAR.iter().copied().collect();
        let client = segment.destination.0;
        let receiver = routers.get(client).copied().unwrap_or(client);
        let out = Segment {
            source: (vip, port),
            ttl: segment.ttl - 1,
            ..*segment
        };
        Fate::Sent(ETH0, out.frame(on_to(receiver)).build())
    }
}
