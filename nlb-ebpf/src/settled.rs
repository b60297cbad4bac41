//! By the ring alone: packets of listeners that pin flows on change only, as long as nothing has
//! changed.
//!
//! A flow needs an entry only if its slot of the ring has another target than when it began. So the
//! daemon keeps, per slot, what flows without an entry are with (the base), and marks the slots
//! whose flows must be looked for ([`Slot::CHANGED`](nlb_common::ring::Slot::CHANGED)). A packet of
//! a slot without the mark goes to the slot's target: no lookup, no entry, and nothing that a flood
//! could fill. A packet of a slot with the mark takes the way of all packets, which ends in
//! [`crate::select`].

use nlb_common::{
    listener::{ListenerId, ListenerPolicy},
    maps::{Prefilter, Side},
    ring,
};
use zerocopy::big_endian::U16;

use crate::{
    Exit, Stage, Verdict,
    emit::{UNTAGGED, emit, fits},
    frame::Frame,
    parse::Packet,
    select::{Chosen, hash},
    tables::{Passage, PassageKind, Tables},
    to_target::{known_way, opens},
    tunnel::{overhead_bytes, wrap},
};

/// Where a packet goes by the ring alone.
#[derive(Clone, Copy, Debug)]
pub struct Settled<'t> {
    listener: ListenerId,
    policy: ListenerPolicy,
    target: Chosen<'t>,
    hash: u64,
}

/// Where the ring alone says that a packet goes, if it may.
#[inline(always)]
pub fn find<'t, F: Frame, T: Tables>(
    frame: &F,
    packet: &Packet,
    tables: &'t T,
) -> Option<Settled<'t>> {
    let number = Prefilter::number(
        Side::Listener,
        packet.destination,
        packet.protocol,
        packet.destination_port,
    );
    let listener = tables.hint(number);
    // Nearly all listeners of nearly all nodes: the one load is all that they pay.
    if listener == ListenerId(0) {
        return None;
    }
    let record = tables.listener(listener)?;
    if !record.is(packet.destination, packet.protocol, packet.destination_port) {
        return None;
    }
    let policy = record.policy();
    if !policy.flags.pins_on_change() {
        return None;
    }
    let hash = hash(frame, tables, packet, policy.flags.hash_input());
    let slot = tables.ring_slot(policy.group, ring::slot(hash))?;
    if !slot.is_settled() {
        return None;
    }
    let target = Chosen::of(tables, slot.target()?).ok()?;
    if target.control.mode.is_translated() {
        return None;
    }
    Some(Settled {
        listener,
        policy,
        target,
        hash,
    })
}

/// Sends a packet there; what needs more goes on to [`Stage::Begin`].
#[inline(always)]
pub fn forward<F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    tables: &T,
    way: &Settled<'_>,
) -> Result<Verdict, Exit> {
    let begin = Exit::Go(Stage::Begin);
    if way.policy.mss_clamp_bytes != 0 && opens(packet) {
        return Err(begin);
    }
    let next_hop = known_way(tables, &way.target).ok_or(begin)?;
    fits(packet, overhead_bytes(&way.target), &next_hop).map_err(|_| begin)?;
    let mut network = packet.network;
    if way.target.control.mode.is_tunnel() {
        wrap(
            frame,
            packet,
            tables,
            &way.target,
            entropy(packet, way.hash),
        )?;
        network = UNTAGGED;
    }
    tables.count(&Passage {
        listener: way.listener,
        target: way.target.id,
        length_bytes: packet.length_bytes,
        kind: kind(packet),
    });
    Ok(emit(frame, network, &next_hop)?)
}

/// What a packet of a flow that needs no entry is counted as: of TCP one sees what begins a flow.
#[inline(always)]
pub(crate) fn kind(packet: &Packet) -> PassageKind {
    if opens(packet) {
        PassageKind::New
    } else {
        PassageKind::Known
    }
}

/// Bits that the packets of a flow have in common; the hash may be that of the client's address
/// alone.
#[inline(always)]
fn entropy(packet: &Packet, hash: u64) -> u64 {
    let port = |port: U16| u64::from(u16::from_ne_bytes(port.to_bytes()));
    (hash ^ port(packet.source_port)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
