//! The stage that answers a SYN with a cookie.

use nlb_common::{
    flow::Choice,
    listener::ListenerId,
    stop::Stop,
    target::TargetId,
    wire::tcp::{ACK, FIN, RST, SYN, Tcp},
};
use zerocopy::big_endian::{U16, U32};

use crate::{
    Exit, Stage, Verdict,
    answer::{may_be_answered, swap_macs},
    classify::forgotten,
    flows::Found,
    frame::{Frame, Offset},
    parse::{Kind, Packet, parse},
    segment::{Segment, Tail},
    segment_size,
    select::Chosen,
    tables::{Handshake, Tables},
    to_target::{Arrival, find, known_way},
};

/// The largest packet that we let a client send before a path to it is known, in bytes: what fits
/// Ethernet everywhere, also where the link to the target takes more.
const ORDINARY_MTU_BYTES: u16 = 1500;

/// Goes on to [`Stage::Cookie`]; `target` is where the flow would go now.
#[inline(always)]
pub(crate) fn go<T: Tables>(tables: &T, listener: ListenerId, target: TargetId) -> Exit {
    tables.hand_over(u64::from(target.0) | u64::from(listener.0) << 32);
    Exit::Go(Stage::Cookie)
}

/// Sends the client a SYN-ACK whose sequence number is a cookie, and whose window is closed.
///
/// An entry that the client's port has is emptied: it holds a flow that has ended, or cannot go on,
/// and that the coming acknowledgement must not be taken for one of.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "takes the word apart")]
pub fn answer<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Exit> {
    let packet = forgotten(parse(frame)?, tables);
    frame.forget_ends();
    let word = tables.handed_over();
    let (target, listener) = (TargetId(word as u32), ListenerId((word >> 32) as u16));
    if packet.kind != Kind::Transport
        || packet.tcp_flags & (FIN | RST) != 0
        || !may_be_answered(frame, &packet)
    {
        return Err(Exit::Stop(Stop::Malformed));
    }
    let sequence = frame
        .get::<Tcp>(packet.transport)
        .ok_or(Stop::Malformed)?
        .sequence;
    let handshake = Handshake {
        client: packet.sender(),
        vip: packet.receiver(),
        sequence: sequence.get(),
    };
    let takes_bytes = segment_size::of(frame, packet.transport, tables).unwrap_or(0);
    let cookie = tables
        .make_cookie(&handshake, takes_bytes)
        .ok_or(Stop::SynCookieUnavailable)?;
    let may_send_bytes = may_send_bytes(&packet, tables, listener, target)?;
    let Found { entry, word, .. } = find(&packet, tables, &Arrival::of(&packet, tables), |_| {});
    if let Some(entry) = entry {
        tables.swap(&entry.choice, word, Choice::EMPTY);
    }
    swap_macs(frame, Offset(0))?;
    let segment = Segment {
        source: handshake.vip,
        destination: handshake.client,
        sequence: U32::new(cookie.number),
        acknowledgement: U32::new(handshake.sequence.wrapping_add(1)),
        flags: SYN | ACK,
        window: U16::ZERO,
        tail: Tail::SegmentSize(may_send_bytes),
    };
    segment.write(frame, &packet)?;
    Err(Exit::Stop(Stop::SynCookie))
}

/// The largest segment that the client may send.
#[inline(always)]
fn may_send_bytes<T: Tables>(
    packet: &Packet,
    tables: &T,
    listener: ListenerId,
    target: TargetId,
) -> Result<u16, Stop> {
    let target = Chosen::of(tables, target)?;
    let mtu_bytes = known_way(tables, &target).map_or(ORDINARY_MTU_BYTES, |hop| hop.mtu_bytes);
    let headers = if packet.is_v4 { 40 } else { 60 };
    let bytes = mtu_bytes.min(ORDINARY_MTU_BYTES).saturating_sub(headers);
    Ok(segment_size::clamped(bytes, listener, tables))
}
