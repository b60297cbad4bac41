//! 3. Which target? The ring says, once per flow.

use nlb_common::{
    address::Address,
    hash::Secret as _,
    listener::{HashInput, ListenerId},
    ring,
    stop::Stop,
    target::{Target, TargetControl, TargetId},
    wire::{
        protocol,
        tcp::{ACK, SYN, Tcp},
    },
};
use zerocopy::big_endian::U16;

use crate::{frame::Frame, parse::Packet, tables::Tables};

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
pub fn select<'t, F: Frame, T: Tables>(
    frame: &F,
    tables: &'t T,
    packet: &Packet,
    listener: ListenerId,
) -> Result<Chosen<'t>, Stop> {
    let record = tables.listener(listener).ok_or(Stop::UnwrittenListener)?;
    // The record of another endpoint, or of none, says nothing about this flow's group.
    if !record.is(packet.destination, packet.protocol, packet.destination_port) {
        return Err(Stop::UnwrittenListener);
    }
    let policy = record.policy();
    let hash = hash(frame, tables, packet, policy.flags.hash_input());
    let id = tables
        .ring_slot(policy.group, ring::slot(hash))
        .ok_or(Stop::NoTarget)?;
    Chosen::of(tables, id)
}

/// The hash of what the listener looks at. All else is zero, so that listeners that look at the
/// source alone agree if they choose from the same ring.
#[inline(always)]
fn hash<F: Frame, T: Tables>(frame: &F, tables: &T, packet: &Packet, input: HashInput) -> u64 {
    let key = tables.select_key();
    let mut source_port = packet.source_port;
    let mut destination = packet.destination;
    let mut destination_port = packet.destination_port;
    let mut protocol = packet.protocol;
    let mut sequence = 0;
    match input {
        HashInput::FiveTuple => {}
        HashInput::FiveTupleAndSequence => sequence = opening_sequence(frame, packet),
        HashInput::Source => {
            source_port = U16::ZERO;
            destination = Address::UNSPECIFIED;
            destination_port = U16::ZERO;
            protocol = 0;
        }
    }
    key.select_with_sequence(
        packet.source,
        source_port,
        destination,
        destination_port,
        protocol,
        sequence,
    )
}

/// The sequence number of a packet that opens a connection. Any other's says nothing: zero.
#[inline(always)]
fn opening_sequence<F: Frame>(frame: &F, packet: &Packet) -> u32 {
    if packet.protocol != protocol::TCP || packet.tcp_flags & (SYN | ACK) != SYN {
        return 0;
    }
    frame
        .get::<Tcp>(packet.transport)
        .map_or(0, |tcp| tcp.sequence.get())
}
