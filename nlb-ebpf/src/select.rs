//! 3. Which target? The ring says, once per flow.

use nlb_common::{
    hash::Secret as _,
    listener::ListenerId,
    ring,
    stop::Stop,
    target::{Target, TargetControl, TargetId},
};

use crate::{parse::Packet, tables::Tables};

/// A target, as one packet sees it.
#[derive(Clone, Copy, Debug)]
pub struct Chosen<'t> {
    /// Its id.
    pub id: TargetId,
    /// Its record.
    pub record: &'t Target,
    /// Mode and next hop, read once.
    pub control: TargetControl,
}

impl<'t> Chosen<'t> {
    /// The target under an id that a ring or a flow names.
    #[inline(always)]
    pub fn of<T: Tables>(tables: &'t T, id: TargetId) -> Result<Self, Stop> {
        let record = tables.target(id).ok_or(Stop::UnwrittenTarget)?;
        let control = record.control().ok_or(Stop::UnwrittenTarget)?;
        Ok(Self {
            id,
            record,
            control,
        })
    }
}

/// The target for a flow that begins with this packet.
#[inline(always)]
pub fn select<'t, T: Tables>(
    tables: &'t T,
    packet: &Packet,
    listener: ListenerId,
) -> Result<Chosen<'t>, Stop> {
    let record = tables.listener(listener).ok_or(Stop::UnwrittenListener)?;
    // The record of another endpoint, or of none, says nothing about this flow's group.
    if !record.is(packet.destination, packet.protocol, packet.destination_port) {
        return Err(Stop::UnwrittenListener);
    }
    let hash = tables.select_key().select(
        packet.source,
        packet.source_port,
        packet.destination,
        packet.destination_port,
        packet.protocol,
    );
    let id = tables
        .ring_slot(record.policy().group, ring::slot(hash))
        .ok_or(Stop::NoTarget)?;
    Chosen::of(tables, id)
}
