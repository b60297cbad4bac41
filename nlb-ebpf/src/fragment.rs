//! Fragments without ports: they go where their datagram's first fragment went, and nowhere else.
//!
//! The first fragment takes the way of all packets and leaves a record ([`remember`]). A later one
//! finds it by what the fragments of a datagram have in common. What comes before its first
//! fragment cannot be kept here: a client's is stopped and counted, a target's may be its own
//! traffic and passes.

use nlb_common::{
    address::Address,
    flow::Client,
    fragment::{FragmentKey, FragmentRecord, Way},
    listener::{Listener, ListenerId, ListenerKey},
    stop::Stop,
    target::{Mode, TargetId},
};
use zerocopy::big_endian::U16;

use crate::{
    Exit, Verdict,
    classify::forgotten,
    emit::{UNTAGGED, emit, fits, has_a_hop_left, route},
    flows::Place,
    frame::Frame,
    parse::{Kind, Packet, parse},
    rewrite::{End, translate_addresses},
    select::Chosen,
    tables::{Passage, PassageKind, Tables},
    to_target::way,
    tunnel::{overhead_bytes, wrap},
};

/// The stage of later fragments.
#[inline(always)]
pub fn fragment<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Exit> {
    let packet = parse(frame)?;
    if packet.kind != Kind::LaterFragment {
        return Err(Exit::Stop(Stop::NotOurs));
    }
    frame.forget_ends();
    let packet = forgotten(packet, tables);
    let key = key(&packet, tables);
    let Some(record) = tables
        .fragment(&key)
        .filter(|record| record.is_for(&key, tables.now()))
    else {
        return Err(Exit::Stop(without_first(&packet, tables)));
    };
    match record.way() {
        Way::ToTarget => to_target(frame, &packet, tables, &record),
        Way::ToClient => to_client(frame, &packet, tables, &record),
    }
}

/// Leaves a record for the later fragments of the datagram that this packet is the first one of.
///
/// A record that is there already gives way: identifications are used again.
#[inline(always)]
pub fn remember<T: Tables>(
    packet: &Packet,
    tables: &T,
    listener: ListenerId,
    target: TargetId,
    way: Way,
) {
    let key = key(packet, tables);
    let record = FragmentRecord::new(&key, listener, target, way, tables.now());
    tables.remember_fragment(&key, &record);
}

/// What a fragment's datagram is known by.
///
/// VERIFIER: the key lies on the stack, and LLVM would put the addresses there in the pieces that it
/// knows them to be made of ("misaligned stack access off -127 size 4"; Linux 6.18, rustc 1.96).
#[inline(always)]
fn key<T: Tables>(packet: &Packet, tables: &T) -> FragmentKey {
    let unknown = packet.source.words[1] >> 32;
    let word = |word| tables.forget(word, unknown);
    let address = |address: Address| Address {
        words: [word(address.words[0]), word(address.words[1])],
    };
    let protocol = if packet.is_v4 { packet.protocol } else { 0 };
    FragmentKey {
        source: address(packet.source),
        destination: address(packet.destination),
        identification: packet.identification,
        protocol: u32::from(protocol),
    }
}

/// What to do with a fragment whose first one is not remembered.
#[inline(always)]
fn without_first<T: Tables>(packet: &Packet, tables: &T) -> Stop {
    let vip = ListenerKey::vip(packet.destination);
    if tables.listener_id(&vip).is_some() {
        Stop::NoFirstFragment
    } else {
        Stop::NotOurs
    }
}

/// On to the target that the first fragment went to.
#[inline(always)]
fn to_target<F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    tables: &T,
    record: &FragmentRecord,
) -> Result<Verdict, Exit> {
    let target = Chosen::of(tables, record.target())?;
    let next_hop = way(frame, packet, packet.source, tables, &target)?;
    fits(packet, overhead_bytes(&target), &next_hop)?;
    if target.control.mode == Mode::NAT {
        has_a_hop_left(packet)?;
        let address = target.record.address();
        translate_addresses(frame, packet, End::Destination, address)?;
    }
    count(packet, tables, record, PassageKind::Known);
    let mut network = packet.network;
    if target.control.mode.is_tunnel() {
        // Without ports: the fragments of a datagram share an outer source, if not its flow's.
        let client = Client {
            address: packet.source,
            port: U16::ZERO,
            protocol: packet.protocol,
        };
        wrap(
            frame,
            packet,
            tables,
            &target,
            Place::of(tables, &client).entropy(),
        )?;
        network = UNTAGGED;
    }
    Ok(emit(frame, network, &next_hop)?)
}

/// Back to the client, from the VIP that the first fragment was given.
#[inline(always)]
fn to_client<F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    tables: &T,
    record: &FragmentRecord,
) -> Result<Verdict, Exit> {
    let listener = tables
        .listener(record.listener())
        .and_then(Listener::key)
        .ok_or(Stop::UnwrittenListener)?;
    has_a_hop_left(packet)?;
    let route = route(frame, tables, packet, packet.source, packet.destination)?;
    fits(packet, 0, &route.next_hop)?;
    translate_addresses(frame, packet, End::Source, listener.address)?;
    count(packet, tables, record, PassageKind::Return);
    Ok(emit(frame, packet.network, &route.next_hop)?)
}

#[inline(always)]
fn count<T: Tables>(packet: &Packet, tables: &T, record: &FragmentRecord, kind: PassageKind) {
    tables.count(&Passage {
        listener: record.listener(),
        target: record.target(),
        length_bytes: packet.length_bytes,
        kind,
    });
}
