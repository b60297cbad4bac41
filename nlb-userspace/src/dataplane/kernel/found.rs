//! What a daemon finds in maps that another one left.

use std::{collections::BTreeSet, sync::Arc};

use nlb_common::{
    address::Address,
    admission::AdmissionPolicy,
    listener::{ListenerId, ListenerKey, ListenerPolicy},
    next_hop::{NeighbourKey, NextHop, NextHopId, NextHopSlot, VlanLink},
    plain::Plain,
    quic::{CidLayout, ServerIdKey},
    source::{Pool, SourceId, TURNS},
    target::{TargetControl, TargetId, TargetIdentity},
    tunnel::Tunnel,
    word::Word,
};

use super::{KernelMaps, map_error};
use crate::dataplane::DataplaneError;

/// What a daemon finds in maps that another one left.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The generation that was live.
    pub generation: u64,
    /// Listeners' records.
    pub listeners: Vec<(ListenerId, ListenerKey, ListenerPolicy)>,
    /// Listeners' rules and limits.
    pub admissions: Vec<(ListenerId, AdmissionPolicy)>,
    /// What new flows find.
    pub listener_index: Vec<(ListenerKey, ListenerId)>,
    /// Targets' records.
    pub targets: Vec<(TargetId, TargetIdentity, TargetControl)>,
    /// Tunnels by target group.
    pub tunnels: Vec<(u16, Tunnel)>,
    /// The prefilter's bitmap.
    pub prefilter: Vec<u64>,
    /// The pool's addresses.
    pub sources: Vec<(SourceId, Address)>,
    /// Those that new flows get.
    pub turns: BTreeSet<SourceId>,
    /// Next hops by neighbour; `None` where the record is invalid.
    pub next_hops: Vec<(NeighbourKey, NextHopId, Option<NextHop>)>,
    /// What is behind VLAN interfaces, by their indexes.
    pub vlan_links: Vec<(u32, VlanLink)>,
    /// How listeners read QUIC connection IDs.
    pub cid_layouts: Vec<(ListenerId, CidLayout)>,
    /// QUIC servers by their numbers.
    pub server_ids: Vec<(ServerIdKey, TargetId)>,
    /// Rings of listeners that pin flows on change: slots and bases.
    pub settling: Vec<FoundRing>,
    /// Listeners that packets find by the number of their prefilter's bit.
    pub hints: Vec<(u16, ListenerId)>,
}

/// A ring of a listener that pins flows on change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRing {
    /// Its id.
    pub group: u16,
    /// As [`Step::ReplaceRing`] has them.
    pub slots: Arc<[u32]>,
    /// As [`Step::ReplaceRing`] has them.
    pub bases: Arc<[u32]>,
}

impl KernelMaps {
    /// Reads everything that a daemon needs to go on where another one stopped.
    pub fn read(&self) -> Result<Found, DataplaneError> {
        let listeners: Vec<_> = (0u16..)
            .zip(self.listeners.iter())
            .filter_map(|(id, record)| Some((ListenerId(id), record.key()?, record.policy())))
            .collect();
        let settling = self.settling(&listeners);
        let admissions = (0u16..)
            .zip(self.admissions.iter())
            .map(|(id, record)| (ListenerId(id), record.policy()))
            .filter(|(_, policy)| *policy != AdmissionPolicy::default())
            .collect();
        let targets = (0u32..)
            .zip(self.targets.iter())
            .filter_map(|(id, record)| Some((TargetId(id), record.identity(), record.control()?)))
            .collect::<Vec<_>>();
        let listener_index = self
            .listener_index
            .iter()
            .map(|entry| {
                let (Plain(key), id) = entry.map_err(map_error("read", "LISTENER_INDEX"))?;
                Ok((key, ListenerId(u16::try_from(id).unwrap_or_default())))
            })
            .collect::<Result<_, DataplaneError>>()?;
        let next_hops = self
            .next_hop_index
            .iter()
            .map(|entry| {
                let (Plain(key), id) = entry.map_err(map_error("read", "NEXT_HOP_INDEX"))?;
                let id = NextHopId(u16::try_from(id).unwrap_or_default());
                let next_hop = self
                    .next_hops
                    .get(usize::from(id.0))
                    .and_then(NextHopSlot::read)
                    .map(|(next_hop, _)| next_hop);
                Ok((key, id, next_hop))
            })
            .collect::<Result<_, DataplaneError>>()?;
        let vlan_links = self
            .vlan_links
            .iter()
            .map(|entry| {
                let (interface, word) = entry.map_err(map_error("read", "VLAN_LINKS"))?;
                Ok((interface, VlanLink::of_word(word)))
            })
            .collect::<Result<_, DataplaneError>>()?;
        let cid_layouts = (0u16..)
            .zip(self.listeners.iter())
            .filter_map(|(id, record)| Some((ListenerId(id), record.cid_layout()?)))
            .collect();
        let server_ids = self
            .server_ids
            .iter()
            .map(|entry| {
                let (Plain(key), id) = entry.map_err(map_error("read", "SERVER_IDS"))?;
                Ok((key, TargetId(id)))
            })
            .collect::<Result<_, DataplaneError>>()?;
        Ok(Found {
            sources: self.pool.iter().flat_map(Pool::all).collect(),
            turns: self
                .pool
                .iter()
                .flat_map(|pool| [true, false].map(|is_v4| (pool, is_v4)))
                .flat_map(|(pool, is_v4)| (0..TURNS).filter_map(move |n| pool.turn(is_v4, n)))
                .collect(),
            generation: self.header().map_or(0, |header| header.generation.load()),
            listeners,
            admissions,
            listener_index,
            targets,
            tunnels: (0u16..)
                .zip(self.tunnels.iter())
                .filter_map(|(group, slot)| Some((group, slot.read()?)))
                .collect(),
            prefilter: self
                .prefilter
                .iter()
                .flat_map(|prefilter| &prefilter.words)
                .map(Word::load)
                .collect(),
            next_hops,
            vlan_links,
            cid_layouts,
            server_ids,
            settling,
            hints: (0..=u16::MAX)
                .flat_map(|number| self.hints.iter().map(move |hints| (number, hints)))
                .map(|(number, hints)| (number, hints.get(number)))
                .filter(|(_, id)| id.0 != 0)
                .collect(),
        })
    }

    /// The rings of listeners that pin flows on change.
    fn settling(&self, listeners: &[(ListenerId, ListenerKey, ListenerPolicy)]) -> Vec<FoundRing> {
        let groups: BTreeSet<u16> = listeners
            .iter()
            .filter(|(_, _, policy)| policy.flags.pins_on_change())
            .map(|(_, _, policy)| policy.group)
            .collect();
        let mut found = Vec::new();
        for group in groups {
            if let (Some(slots), Some(bases)) =
                (self.rings.slots(group), self.ring_bases.slots(group))
            {
                found.push(FoundRing {
                    group,
                    slots,
                    bases,
                });
            }
        }
        found
    }
}
