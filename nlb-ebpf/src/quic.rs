//! Whose connection is it? A QUIC packet carries the ID that its server chose, and the server's
//! number is in it: a stage of its own, for listeners that look at it.
//!
//! A client that gets another address or port, as it moves or as a NAT on its way forgets it, still
//! sends the same ID. So the ID goes before the flow: where it names a target, a flow that is
//! remembered with another one is remembered anew. Where it names none (the client's first packets
//! carry an ID that the client made up) the flow goes the way of any other.
//!
//! What is read here is the same for every version of QUIC (RFC 8999 §5).

use nlb_common::{
    listener::{Listener, ListenerKey},
    quic::{CidLayout, ServerIdKey},
    target::{Target, TargetId},
    wire::{protocol, udp::Udp},
};
use zerocopy::big_endian::U64;

use crate::{
    Exit, Verdict,
    begin::begin_at,
    classify::forgotten,
    frame::{Frame, Offset},
    parse::{Kind, Packet, parse},
    tables::Tables,
    to_target::UNNAMED,
};

/// The stage of packets for QUIC listeners.
#[inline(always)]
pub fn quic<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Exit> {
    let packet = forgotten(parse(frame)?, tables);
    let named = match server(frame, &packet, tables) {
        Some(key) => keeper(tables, &key),
        None => UNNAMED,
    };
    Err(begin_at::<true, false, F, T>(frame, &packet, tables, named))
}

/// The server of this number, unless its connections have been ended.
#[inline(always)]
fn keeper<T: Tables>(tables: &T, key: &ServerIdKey) -> TargetId {
    let Some(id) = tables.server(key) else {
        return UNNAMED;
    };
    match tables.target(id).and_then(Target::control) {
        Some(control) if !control.resets_flows => id,
        _ => UNNAMED,
    }
}

/// The server's number in the packet's connection ID, and where it is looked for.
#[inline(always)]
fn server<F: Frame, T: Tables>(frame: &F, packet: &Packet, tables: &T) -> Option<ServerIdKey> {
    if !matches!(packet.kind, Kind::Transport | Kind::FirstFragment)
        || packet.protocol != protocol::UDP
    {
        return None;
    }
    let listener = listener(packet, tables)?;
    let policy = listener.policy();
    if !policy.flags.is_quic() {
        return None;
    }
    let layout = listener.cid_layout()?;
    let id = server_id(frame, packet.transport, layout)?;
    Some(ServerIdKey::new(policy.group, id))
}

#[inline(always)]
fn listener<'t, T: Tables>(packet: &Packet, tables: &'t T) -> Option<&'t Listener> {
    let key = ListenerKey::new(packet.destination, packet.protocol, packet.destination_port);
    let listener = tables.listener(tables.listener_id(&key)?)?;
    // The record of another endpoint says nothing about this one's connection IDs.
    listener
        .is(packet.destination, packet.protocol, packet.destination_port)
        .then_some(listener)
}

/// The bit that tells a long header from a short one.
const LONG: u8 = 0x80;
/// Where the ID stands in a short header: behind the first byte.
const SHORT_ID_AT: u8 = 1;
/// Where it stands in a long header: behind the first byte, the version, and its own length.
const LONG_ID_AT: u8 = 6;
/// Bytes of the UDP header.
const UDP_BYTES: u8 = 8;

const _: () = assert!(size_of::<Udp>() == UDP_BYTES as usize);

/// The server's number, if the packet has an ID of that layout.
#[inline(always)]
fn server_id<F: Frame>(frame: &F, udp: Offset, layout: CidLayout) -> Option<u64> {
    let length = frame.get::<Udp>(udp)?.length.get();
    let payload = udp.plus(UDP_BYTES.into())?;
    // VERIFIER: two bytes, for one alone is compared as `start >= end`, which proves nothing to it
    // ("invalid access to packet, off=0 size=1"; Linux 6.18, rustc 1.96).
    let [first, _] = *frame.get::<[u8; 2]>(payload)?;
    let id_at = if first & LONG == 0 {
        SHORT_ID_AT
    } else {
        // The sender says how long it is; in a short header only its server knows.
        let [_, _, _, _, _, id_bytes] = *frame.get::<[u8; LONG_ID_AT as usize]>(payload)?;
        if id_bytes != layout.id_bytes {
            return None;
        }
        LONG_ID_AT
    };
    if u16::from(UDP_BYTES + id_at + layout.id_bytes) > length {
        return None;
    }
    // The eight bytes that end where the number does: however short it is, they are in the packet,
    // and more than the number is in front.
    let end = UDP_BYTES + id_at + layout.server_id_offset_bytes + layout.server_id_bytes;
    let at = udp.plus(u16::from(end - 8))?;
    let bytes = frame.get::<U64>(at)?;
    Some(bytes.get() & layout.largest_server_id())
}
