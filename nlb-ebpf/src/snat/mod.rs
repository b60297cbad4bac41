//! Flows whose source is translated, too: the target sees an (address, port) of ours.
//!
//! All flows of mode `full-nat` are such, and of mode `nat` those that the target could not tell
//! apart otherwise ([`need`]). Each of three stages does one thing with them, so that the other
//! stages, which nearly all packets go through, know no more of them than a bit of their state.
//!
//! Who owns which source is told in [`nlb_common::source`]; [`allocate`] gives them out and
//! [`owner`] finds them again.

pub mod allocate;
pub mod owner;

use nlb_common::{
    flow::{Choice, Client, FlowState},
    next_hop::NextHopId,
    source::{EntryNumber, Translation},
    stop::Stop,
    target::Mode,
    tick::Tick,
};

use self::{allocate::allocate, owner::owner};
use crate::{
    Exit, Stage, Verdict,
    classify::forgotten,
    emit::{emit, fits, has_a_hop_left},
    flows::{self, Place, Worth},
    frame::Frame,
    parse::{Packet, parse},
    rewrite::{Endpoint, translate_ends},
    tables::{Passage, PassageKind, Tables},
    to_client::{self, is_source_translated},
    to_target::{Decision, decide, resets, way},
};

/// Whether the source of a flow that begins must be translated, and then why, as what stops it if
/// there is no pool.
///
/// In mode `nat` it must for a target that is its own client, which would answer itself, and for a
/// client's port that has a flow to the same target through another listener: the target would take
/// both for one connection.
#[inline(always)]
pub(crate) fn need<T: Tables>(
    packet: &Packet,
    tables: &T,
    place: Place,
    client: &Client,
    now: Tick,
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
    if collides(tables, place, client, now, decision) {
        return Some(Stop::CollisionWithoutPool);
    }
    None
}

/// Whether the client's port has a flow to the same target through another listener. One whose time
/// has run out is forgotten.
#[inline(always)]
fn collides<T: Tables>(
    tables: &T,
    place: Place,
    client: &Client,
    now: Tick,
    decision: &Decision<'_>,
) -> bool {
    let ours = decision.target.record;
    let found = flows::find(tables, place, client, |choice, entry| {
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
    let (worth, word) = flows::worth(tables, entry, now);
    !(worth == Worth::Expired
        && word == found.word
        && tables.swap(&entry.choice, word, Choice::EMPTY))
}

#[inline(always)]
const fn client_of(packet: &Packet) -> Client {
    Client {
        address: packet.source,
        port: packet.source_port,
        protocol: packet.protocol,
    }
}

/// The stage of a remembered flow's packets to its target.
#[inline(always)]
pub fn known<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Exit> {
    let packet = forgotten(parse(frame)?, tables);
    let client = client_of(&packet);
    let place = Place::of(tables, &client);
    let now = tables.now();
    let decision = decide::<false, F, T>(frame, &packet, tables, place, &client, now)?;
    // Given to another flow in the meantime: told from the start.
    let again = Exit::Go(Stage::Begin);
    if !decision.state.has(FlowState::SOURCE_TRANSLATED) {
        return Err(again);
    }
    let found = decision.entry;
    let entry = found.entry.ok_or(again)?;
    let translation = tables
        .translations(found.number.bucket())
        .and_then(|bucket| {
            let way = tables.forget(found.number.way(), place.hash());
            flows::nth(tables, &bucket.entries, way)
        })
        .ok_or(again)?;
    let translation = Translation::of_word(translation.load());
    // The word beside the entry was the flow's if the entry still is.
    if entry.choice_for(&client) != Some(found.word) {
        return Err(again);
    }
    let source = Endpoint {
        address: tables.pool().ok_or(again)?.address(translation.source),
        port: translation.port,
    };
    let next_hop = way::<true, F, T>(frame, &packet, tables, &decision.target)?;
    fits(&packet, 0, &next_hop)?;
    has_a_hop_left(&packet)?;
    let old = decision.progress;
    let new = old.after(decision.state, now, old.epoch);
    flows::note(tables, entry, old, new);
    onward(frame, &packet, &decision, source)?;
    tables.count(&Passage {
        listener: decision.listener,
        target: decision.target.id,
        length_bytes: packet.length_bytes,
        kind: PassageKind::Known,
    });
    Ok(emit(frame, packet.network, &next_hop)?)
}

/// The stage of a flow's first packet.
///
/// The entry is ours alone, busy, while a source is looked for; if there is none it is what it was.
#[inline(always)]
pub fn begin<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Exit> {
    let packet = forgotten(parse(frame)?, tables);
    let client = client_of(&packet);
    let place = Place::of(tables, &client);
    let now = tables.now();
    let decision = decide::<true, F, T>(frame, &packet, tables, place, &client, now)?;
    if !decision.begins {
        return Err(Exit::Go(Stage::Begin));
    }
    let Some(unmet) = need(&packet, tables, place, &client, now, &decision) else {
        return Err(Exit::Go(Stage::Begin));
    };
    // A stray RST begins nothing, and a target that sees no flow's source knows nothing to reset.
    if resets(&packet) {
        return Err(Exit::Stop(Stop::ResetWithoutFlow));
    }
    let pool = tables.pool().ok_or(unmet)?;
    if pool.turn(packet.is_v4, 0).is_none() {
        return Err(Exit::Stop(unmet));
    }
    let next_hop = way::<true, F, T>(frame, &packet, tables, &decision.target)?;
    fits(&packet, 0, &next_hop)?;
    has_a_hop_left(&packet)?;
    let room = if decision.entry.entry.is_some() {
        decision.entry
    } else {
        flows::room(tables, place, now)
    };
    if room.entry.is_none() {
        return Err(Exit::Stop(Stop::FlowTableFull));
    }
    // VERIFIER: asked for anew, so that it knows one entry and not one from each way here.
    let number = EntryNumber::of_word(tables.forget(u64::from(room.number.0), place.hash()));
    let old = tables.forget(room.word, place.hash());
    let way = tables.forget(number.way(), place.hash());
    let (Some(bucket), Some(beside)) = (
        tables.bucket(number.bucket()),
        tables.translations(number.bucket()),
    ) else {
        return Err(Exit::Stop(Stop::FlowTableFull));
    };
    let (Some(entry), Some(translation)) = (
        flows::nth(tables, &bucket.entries, way),
        flows::nth(tables, &beside.entries, way),
    ) else {
        return Err(Exit::Stop(Stop::FlowTableFull));
    };
    if !tables.swap(&entry.choice, old, Choice::BUSY) {
        return Err(Exit::Stop(Stop::FlowTableFull));
    }
    let word = allocate(tables, pool, &packet, &decision.target, number, place, now);
    if word == 0 {
        entry.choice.store(old);
        return Err(Exit::Stop(Stop::PortAllocationError));
    }
    translation.store(word);
    let choice = Choice {
        target: decision.target.id,
        listener: decision.listener,
        next_hop: NextHopId::NONE,
    };
    let state = FlowState::NEW.with(FlowState::SOURCE_TRANSLATED);
    entry.fill(&client, choice, state, now);
    let given = Translation::of_word(word);
    let source = Endpoint {
        address: pool.address(given.source),
        port: given.port,
    };
    onward(frame, &packet, &decision, source)?;
    tables.count(&Passage {
        listener: decision.listener,
        target: decision.target.id,
        length_bytes: packet.length_bytes,
        kind: PassageKind::New,
    });
    Ok(emit(frame, packet.network, &next_hop)?)
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

/// The stage of what is addressed to the pool: answers, and whatever else the host gets there.
#[inline(always)]
pub fn answer<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Exit> {
    let packet = forgotten(parse(frame)?, tables);
    let target = Endpoint {
        address: packet.source,
        port: packet.source_port,
    };
    let source = Endpoint {
        address: packet.destination,
        port: packet.destination_port,
    };
    let owner = owner(tables, target, source, packet.protocol);
    let entry = owner.found.entry.ok_or(Stop::NotOurs)?;
    let word = owner.found.word;
    let choice = Choice::of_word(word);
    let listener = tables
        .listener(choice.listener)
        .ok_or(Stop::UnwrittenListener)?;
    let key = listener.key().ok_or(Stop::UnwrittenListener)?;
    has_a_hop_left(&packet)?;
    let progress = owner.progress;
    let client = owner.client;
    let (next_hop, epoch) = to_client::way::<true, F, T>(
        frame,
        &packet,
        tables,
        entry,
        word,
        &progress,
        client.address,
    )?;
    fits(&packet, 0, &next_hop)?;
    let state = to_client::advance(progress.state, &packet);
    let new = progress.after(state, tables.now(), epoch);
    flows::note(tables, entry, progress, new);
    let vip = Endpoint {
        address: key.address,
        port: key.port,
    };
    let client = Endpoint {
        address: client.address,
        port: client.port,
    };
    translate_ends(frame, &packet, Some(vip), Some(client))?;
    tables.count(&Passage {
        listener: choice.listener,
        target: choice.target,
        length_bytes: packet.length_bytes,
        kind: PassageKind::Return,
    });
    Ok(emit(frame, packet.network, &next_hop)?)
}
