//! Who is where, and how packets get there.

use nlb_common::target::Mode;
use nlb_ebpf::memory::MemoryTables;

use super::segment::Segment;
use crate::{
    outer::wrapped,
    packet::{Sentence, eth},
    world::{
        CLIENT, ETH0, ETH1, FAR, GROUPS, MAC0, MAC1, from_client, from_target, neighbour_of, on_to,
    },
};

/// A side of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// That of the clients.
    Clients,
    /// That of the targets, which may be clients, too.
    Targets,
}

impl Side {
    /// The side that a host is on.
    pub fn of(address: &str) -> Self {
        let mut targets = GROUPS.iter().flat_map(|group| group.targets);
        if targets.any(|target| target.1 == address) {
            Self::Targets
        } else {
            Self::Clients
        }
    }

    /// The interface to it.
    pub const fn interface(self) -> u32 {
        match self {
            Self::Clients => ETH0,
            Self::Targets => ETH1,
        }
    }

    /// A frame that comes from there. All of a side's come from one neighbour.
    pub fn arriving(self) -> Sentence {
        match self {
            Self::Clients => from_client(),
            Self::Targets => from_target("10.0.0.11"),
        }
    }

    /// A frame back to that neighbour.
    pub(super) fn back(self) -> Sentence {
        match self {
            Self::Clients => eth().to(neighbour_of(CLIENT).mac()).from(MAC0),
            Self::Targets => eth().to(neighbour_of("10.0.0.11").mac()).from(MAC1),
        }
    }
}

/// The neighbour through which an address is reached.
pub(super) fn router_of(address: &'static str) -> &'static str {
    let far = FAR.iter().find(|(far, _)| *far == address);
    far.map_or(address, |(_, router)| *router)
}

/// How many bytes go around a packet to this target.
pub(super) fn overhead_bytes(mode: Mode, address: &str) -> usize {
    let outer = if address.contains(':') { 40 } else { 20 };
    match mode {
        Mode::DSR_IPIP => outer,
        Mode::DSR_GUE => outer + 8 + 4,
        Mode::DSR_GENEVE => outer + 8 + 8,
        _ => 0,
    }
}

/// The mode, address and port of a target.
pub(super) fn target(id: u32) -> (Mode, &'static str, u16) {
    GROUPS
        .iter()
        .flat_map(|group| group.targets.iter().map(|target| (group.mode, target)))
        .find(|(_, target)| target.0 == id)
        .map(|(mode, target)| (mode, target.1, target.2))
        .expect("a target of the world")
}

/// A client's segment on its way to a target.
pub(super) fn on_its_way(segment: &Segment, tables: &MemoryTables, id: u32) -> Sentence {
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
