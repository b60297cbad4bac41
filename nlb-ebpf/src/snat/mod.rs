//! Flows whose source is translated, too: the target sees an (address, port) of ours.
//!
//! All flows of mode `full-nat` are such, and of mode `nat` those that the target could not tell
//! apart otherwise ([`need`]). Each stage here does one thing with them, so that the other stages,
//! which nearly all packets go through, know no more of them than a bit of their state:
//!
//! * [`begin`] gives a new flow its source,
//! * [`known`] sends the packets of a remembered flow on, and the first fragment of a new one,
//! * [`back`] sends the answers to the client,
//! * [`mod@icmp`] does so with errors about either.
//!
//! Who owns which source is told in [`nlb_common::source`]; [`allocate`] gives them out and
//! [`owner`] finds them again.

pub mod allocate;
pub mod back;
pub mod begin;
pub mod icmp;
pub mod known;
pub mod owner;

use nlb_common::{
    address::Address,
    flow::Choice,
    fragment::Way,
    listener::ListenerId,
    stop::Stop,
    target::{Mode, TargetId},
};

use crate::{
    flows::{self, Worth},
    fragment::remember_disguised,
    frame::Frame,
    parse::{Kind, Packet},
    rewrite::{Endpoint, renumber, translate_ends},
    tables::Tables,
    to_client::is_source_translated,
    to_target::{Arrival, Decision, resets},
};

/// Whether the source of a flow that begins must be translated, so that its first packet goes on to
/// [`crate::Stage::SnatBegin`]; stops it if there is nothing to translate it to.
#[inline(always)]
pub(crate) fn needs_source<T: Tables>(
    packet: &Packet,
    tables: &T,
    arrival: &Arrival,
    decision: &Decision<'_>,
) -> Result<bool, Stop> {
    let Some(unmet) = need(packet, tables, arrival, decision) else {
        return Ok(false);
    };
    if !tables.translates_sources() {
        return Err(unmet);
    }
    if tables.pool().ok_or(unmet)?.turn(packet.is_v4, 0).is_none() {
        return Err(unmet);
    }
    // A stray RST begins nothing, and a target that sees no flow's source knows nothing to reset.
    if resets(packet) {
        return Err(Stop::ResetWithoutFlow);
    }
    Ok(true)
}

/// One of the pool's addresses, for asking the way before a flow has its own.
#[inline(always)]
pub(crate) fn any_source<T: Tables>(packet: &Packet, tables: &T) -> Address {
    let Some(pool) = tables.pool() else {
        return packet.source;
    };
    match pool.turn(packet.is_v4, 0) {
        Some(id) => pool.address(id),
        None => packet.source,
    }
}

/// Whether the source of a flow that begins must be translated, and then why, as what stops it if
/// there is no pool.
///
/// In mode `nat` it must for a target that is its own client, which would answer itself, and for a
/// client's port that has a flow to the same target through another listener: the target would take
/// both for one connection.
#[inline(always)]
fn need<T: Tables>(
    packet: &Packet,
    tables: &T,
    arrival: &Arrival,
    decision: &Decision<'_>,
) -> Option<Stop> {
    let Mode(mode) = decision.target.control.mode;
    if mode == Mode::FULL_NAT.0 {
        return Some(Stop::PortAllocationError);
    }
    if mode != Mode::NAT.0 {
        return None;
    }
    if decision.target.record.address() == packet.source {
        return Some(Stop::HairpinWithoutPool);
    }
    if collides(tables, arrival, decision) {
        return Some(Stop::CollisionWithoutPool);
    }
    None
}

/// Whether the client's port has a flow to the same target through another listener. One whose time
/// has run out is forgotten.
#[inline(always)]
fn collides<T: Tables>(tables: &T, arrival: &Arrival, decision: &Decision<'_>) -> bool {
    let ours = decision.target.record;
    let found = flows::find(tables, arrival.place, &arrival.client, |choice, entry| {
        choice.listener != decision.listener
            && !is_source_translated(entry)
            && match tables.target(choice.target) {
                Some(theirs) => {
                    theirs.port() == ours.port()
                        && theirs.address() == ours.address()
                        && theirs
                            .control()
                            .is_some_and(|control| control.mode == Mode::NAT)
                }
                None => false,
            }
    });
    let Some(entry) = found.entry else {
        return false;
    };
    let (worth, word) = flows::worth(tables, entry, arrival.now);
    !(worth == Worth::Expired
        && word == found.word
        && tables.swap(&entry.choice, word, Choice::EMPTY))
}

/// Rewrites both ends of a packet to a target.
#[inline(always)]
fn onward<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    decision: &Decision<'_>,
    source: Endpoint,
) -> Result<(), Stop> {
    let record = decision.target.record;
    let destination = Endpoint {
        address: record.address(),
        port: record.port(),
    };
    translate_ends(frame, packet, Some(source), Some(destination))
}

/// A first fragment whose ends become `source` and `destination` gets a number of ours besides, and
/// leaves a record for the later ones.
#[inline(always)]
pub(crate) fn disguise<F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    tables: &T,
    ids: (ListenerId, TargetId),
    way: Way,
    (source, destination): (Address, Address),
) -> Result<(), Stop> {
    if packet.kind != Kind::FirstFragment {
        return Ok(());
    }
    let number = remember_disguised(packet, tables, ids, way, (source, destination));
    renumber(frame, packet, number)
}
