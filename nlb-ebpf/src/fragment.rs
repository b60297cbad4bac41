//! Fragments without ports: they go where their datagram's first fragment went, and nowhere else.
//!
//! The first fragment takes the way of all packets and leaves a record ([`remember`]). A later one
//! finds it by what the fragments of a datagram have in common. What comes before its first
//! fragment cannot be kept here: a client's is stopped and counted, and the daemon is asked to keep it
//! and to send it in once more when the first one has come; a target's may be its own traffic, so it
//! passes, and only a copy of it is kept.
//!
//! Datagrams that are translated get numbers of ours ([`remember_disguised`]).
//!
//! Fragments of an echo request to a VIP go back where they came from, as the first one did.

use nlb_common::{
    address::Address,
    early::Claim,
    flow::Client,
    fragment::{Disguise, FragmentKey, FragmentRecord, Identifications, Way},
    hash::Secret as _,
    listener::{Listener, ListenerId, ListenerKey},
    maps::{Prefilter, Side},
    stop::Stop,
    target::TargetId,
};
use zerocopy::big_endian::U16;

use crate::{
    Exit, Verdict,
    classify::{forgotten, is_icmp},
    emit::{UNTAGGED, emit, fits, has_a_hop_left, route},
    flows::Place,
    frame::Frame,
    icmp::{answers_echo, return_to_sender},
    parse::{Kind, Packet, parse},
    rewrite::{renumber, translate_addresses},
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
        return Err(Exit::Stop(without_first(frame, &packet, tables, &key)));
    };
    match record.way() {
        Way::ToTarget => to_target(frame, &packet, tables, &record),
        Way::ToClient => to_client(frame, &packet, tables, &record),
        Way::Echo => {
            return_to_sender(frame, &packet).ok_or(Stop::Malformed)?;
            Err(Exit::Stop(Stop::IcmpEcho))
        }
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

/// The same for a datagram whose ends become `source` and `destination`; says what number its fragments
/// get.
///
/// A first fragment that comes twice is one datagram's, and gets the same number.
#[inline(always)]
pub fn remember_disguised<T: Tables>(
    packet: &Packet,
    tables: &T,
    (listener, target): (ListenerId, TargetId),
    way: Way,
    (source, destination): (Address, Address),
) -> u32 {
    let key = key(packet, tables);
    let now = tables.now();
    let address = match way {
        Way::ToTarget => source,
        Way::ToClient | Way::Echo => destination,
    };
    let known = tables.fragment(&key).filter(|known| {
        known.is_for(&key, now)
            && known.way() == way
            && known.target() == target
            && known.listener() == listener
    });
    let identification = match known.and_then(|known| known.disguise()) {
        Some(disguise) if disguise.address == address => disguise.identification,
        _ => {
            let protocol = if packet.is_v4 { packet.protocol } else { 0 };
            let (from, to) = ((source, U16::ZERO), (destination, U16::ZERO));
            let hash = tables
                .table_key()
                .source(to.0, to.1, from.0, from.1, protocol);
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the other half is the number's"
            )]
            let count = tables.next_identification(hash as u32);
            Identifications::number(count, hash, packet.is_v4)
        }
    };
    let disguise = Disguise {
        address,
        identification,
    };
    let record = FragmentRecord::new(&key, listener, target, way, now).disguised(disguise);
    tables.remember_fragment(&key, &record);
    identification
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

/// What to do with a fragment whose first one is not remembered: it may still come.
#[inline(always)]
fn without_first<F: Frame, T: Tables>(
    frame: &F,
    packet: &Packet,
    tables: &T,
    key: &FragmentKey,
) -> Stop {
    let vip = ListenerKey::vip(packet.destination);
    let Some(listener) = tables.listener_id(&vip) else {
        if !is_icmp(packet) && comes_from_a_target(packet, tables) {
            tables.keep_early(frame, key, Claim::Perhaps);
        }
        return Stop::NotOurs;
    };
    if is_icmp(packet) && !answers_echo(tables, listener) {
        // Where its first fragment went, too.
        return Stop::Icmp;
    }
    if !tables.keep_early(frame, key, Claim::Ours) {
        tables.count_stop(Stop::EarlyLimit);
    }
    Stop::NoFirstFragment
}

/// Whether the prefilter admits a fragment's source as a translated target, whatever the port.
#[inline(always)]
fn comes_from_a_target<T: Tables>(packet: &Packet, tables: &T) -> bool {
    let (word, mask) = Prefilter::bit(Side::Target, packet.source, 0, U16::ZERO);
    tables.prefilter(word, mask)
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
    let disguise = record.disguise();
    let source = match disguise {
        Some(disguise) => disguise.address,
        None => packet.source,
    };
    let next_hop = way(frame, packet, source, tables, &target)?;
    fits(packet, overhead_bytes(&target), &next_hop)?;
    let mode = target.control.mode;
    if mode.is_translated() {
        let disguise = disguise.ok_or(Stop::NoFirstFragment)?;
        has_a_hop_left(packet)?;
        let address = Some(target.record.address());
        translate_addresses(frame, packet, Some(source), address)?;
        renumber(frame, packet, disguise.identification)?;
    }
    count(packet, tables, record, PassageKind::Known);
    let mut network = packet.network;
    if mode.is_tunnel() {
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
    let disguise = record.disguise().ok_or(Stop::NotOurs)?;
    let destination = disguise.address;
    let route = route(frame, tables, packet, packet.source, destination)?;
    fits(packet, 0, &route.next_hop)?;
    translate_addresses(frame, packet, Some(listener.address), Some(destination))?;
    renumber(frame, packet, disguise.identification)?;
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
