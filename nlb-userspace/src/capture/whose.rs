//! Whose a packet is: its listener and its target, by the maps as they are just after it.
//!
//! The flow says it, where it is remembered. Where it is not (`pinning = "on_change"`), a target is known by its
//! own address only, which a packet in mode `dsr` does not carry.

use std::{collections::HashMap, net::SocketAddr};

use nlb_common::{
    flow::{Bucket, Choice, Client},
    settings::Settings,
};
use nlb_ebpf::{flows::Place, memory::MemoryFrame, parse::parse};

use super::{Packet, Piece};
use crate::{flows::Table, names::Names};

/// Listeners and targets by where they are.
#[derive(Clone, Debug, Default)]
pub struct Places {
    listeners: HashMap<(SocketAddr, u8), u16>,
    targets: HashMap<SocketAddr, u32>,
}

impl Places {
    /// Where they are now.
    pub fn of(table: &Table<'_>) -> Self {
        let listeners = (0..).take(table.listeners.len());
        let targets = (0..).take(table.targets.len());
        Self {
            listeners: listeners
                .filter_map(|id| Some((table.vip(id)?, id)))
                .collect(),
            targets: targets
                .filter_map(|id| Some((table.target(id)?, id)))
                .collect(),
        }
    }
}

/// Whose a packet is, as far as that can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whose {
    /// The listener's name, or its endpoint.
    pub listener: Option<String>,
    /// The target's name, or its address.
    pub target: Option<String>,
    /// Whether it comes from the target.
    pub is_answer: bool,
}

/// What is looked up.
#[derive(Clone, Copy)]
pub struct Records<'m> {
    /// Flows, listeners and targets.
    pub table: Table<'m>,
    /// Listeners and targets by where they are.
    pub places: &'m Places,
    /// Where flows lie in the table.
    pub settings: &'m Settings,
    /// What things are called.
    pub names: &'m Names,
}

/// A packet's two ends.
#[derive(Clone, Copy)]
struct Ends {
    source: SocketAddr,
    destination: SocketAddr,
    protocol: u8,
}

impl Records<'_> {
    /// Whose a packet is.
    pub fn whose(&self, packet: &Packet<'_>) -> Whose {
        let Some(came) = ends(packet.came) else {
            return Whose::default();
        };
        let left = packet
            .left
            .filter(|_| packet.stops.is_empty())
            .and_then(ends);
        if let Some(listener) = self.listener(came.destination, came.protocol) {
            let target = self
                .flow(came.source, came.protocol, listener)
                .or_else(|| self.target_at(left?.destination));
            return self.named(listener, target, false);
        }
        // An answer has the listener's address only when it leaves.
        let Some(left) = left else {
            return Whose::default();
        };
        match self.listener(left.source, left.protocol) {
            Some(listener) => {
                let target = self
                    .flow(left.destination, left.protocol, listener)
                    .or_else(|| self.target_at(came.source));
                self.named(listener, target, true)
            }
            None => Whose::default(),
        }
    }

    fn named(&self, listener: u16, target: Option<u32>, is_answer: bool) -> Whose {
        let endpoint = self.table.vip(listener);
        Whose {
            listener: endpoint.map(|(at, protocol)| {
                let name = self.names.listener(at, protocol);
                name.map_or_else(|| at.to_string(), str::to_owned)
            }),
            target: target.and_then(|id| {
                let name = self.names.target(id).map(ToString::to_string);
                name.or_else(|| self.table.target(id).map(|at| at.to_string()))
            }),
            is_answer,
        }
    }

    /// The listener at an endpoint.
    fn listener(&self, at: SocketAddr, protocol: u8) -> Option<u16> {
        self.places.listeners.get(&(at, protocol)).copied()
    }

    /// The target of a client's flow.
    fn flow(&self, client: SocketAddr, protocol: u8, listener: u16) -> Option<u32> {
        let client = Client {
            address: client.ip().into(),
            port: client.port().into(),
            protocol,
        };
        let place = Place::by(&self.settings.table_key, &client);
        let buckets = place
            .buckets(self.settings)
            .into_iter()
            .filter_map(|index| self.table.flows.get(usize::try_from(index).ok()?));
        buckets
            .flat_map(|bucket: &Bucket| &bucket.entries)
            .filter_map(|entry| entry.choice_for(&client))
            .map(Choice::of_word)
            .find(|choice| choice.listener.0 == listener)
            .map(|choice| choice.target.0)
    }

    /// The target that listens there.
    fn target_at(&self, at: SocketAddr) -> Option<u32> {
        self.places.targets.get(&at).copied()
    }
}

/// What the headers say; what was cut off behind them was as good as any.
fn ends(piece: Piece<'_>) -> Option<Ends> {
    let mut bytes = piece.bytes.to_vec();
    bytes.resize(usize::try_from(piece.frame_bytes).ok()?, 0);
    let packet = parse(&MemoryFrame::new(bytes, 0)).ok()?;
    Some(Ends {
        source: SocketAddr::new(packet.source.into(), packet.source_port.get()),
        destination: SocketAddr::new(packet.destination.into(), packet.destination_port.get()),
        protocol: packet.protocol,
    })
}
