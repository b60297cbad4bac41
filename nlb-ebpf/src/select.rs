//! 3. Which target? The ring says, once per flow.

use nlb_common::{
    address::Address,
    flow::Client,
    hash::Secret,
    listener::{HashInput, ListenerId, ListenerKey},
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

/// The target for a packet of a flow that is not remembered, and whether the flow is to be.
///
/// Where the listener pins flows on change only ([`crate::settled`]), a packet that does not open a
/// connection may be of a flow that began before its slot changed: it goes where it went then. Of
/// UDP nobody can tell which flow is new; so it leaves a target that takes no new flows.
#[inline(always)]
pub fn select<'t, F: Frame, T: Tables>(
    frame: &F,
    tables: &'t T,
    packet: &Packet,
    listener: ListenerId,
    opens: bool,
) -> Result<(Chosen<'t>, bool), Stop> {
    let record = tables.listener(listener).ok_or(Stop::UnwrittenListener)?;
    // The record of another endpoint, or of none, says nothing about this flow's group.
    if !record.is(packet.destination, packet.protocol, packet.destination_port) {
        return Err(Stop::UnwrittenListener);
    }
    let policy = record.policy();
    let at = ring::slot(hash(frame, tables, packet, policy.flags.hash_input()));
    let slot = tables.ring_slot(policy.group, at).ok_or(Stop::NoTarget)?;
    let is_pinned =
        !(tables.pins_on_change() && policy.flags.pins_on_change() && slot.is_settled());
    if is_pinned
        && !opens
        && !slot.is_settled()
        && let Some(base) = tables.base_slot(policy.group, at)
    {
        let base = Chosen::of(tables, base)?;
        if packet.protocol == protocol::TCP || base.control.takes_new_flows {
            return Ok((base, true));
        }
    }
    let target = slot.target().ok_or(Stop::NoTarget)?;
    Ok((Chosen::of(tables, target)?, is_pinned))
}

/// The hash of a flow whose first packet's sequence number does not count, for whoever looks for the
/// slots of flows.
pub fn place(key: &impl Secret, client: &Client, listener: &ListenerKey, input: HashInput) -> u64 {
    if input == HashInput::Source {
        let none = Address::UNSPECIFIED;
        return key.select_with_sequence(client.address, U16::ZERO, none, U16::ZERO, 0, 0);
    }
    key.select_with_sequence(
        client.address,
        client.port,
        listener.address,
        listener.port,
        listener.protocol,
        0,
    )
}

/// The hash of what the listener looks at. All else is zero, so that listeners that look at the
/// source alone agree if they choose from the same ring.
#[inline(always)]
pub(crate) fn hash<F: Frame, T: Tables>(
    frame: &F,
    tables: &T,
    packet: &Packet,
    input: HashInput,
) -> u64 {
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
