//! The stage of acknowledgements that belong to no flow: one that brings a cookie back begins one.

use nlb_common::{
    answer::{Answer, Notice},
    flow::{FlowState, Progress},
    listener::{ListenerId, ListenerPolicy, Stranded},
    stop::Stop,
    target::Mode,
    wire::tcp::{ACK, RST, SYN, Tcp},
};

use super::begin::Returned;
use crate::{
    Exit, Stage, Verdict,
    answer::tell,
    classify::forgotten,
    flows::Found,
    frame::Frame,
    parse::{Kind, Packet, parse},
    segment_size,
    select::select,
    snat,
    tables::{Handshake, Tables},
    to_target::{Arrival, Decision},
};

/// Goes on to [`Stage::CookieReturn`] if the packet, of whose flow nothing is remembered, may bring a
/// cookie back. (Where there is an entry of an expired flow, no SYN has been answered since, or it
/// would be empty.)
#[inline(always)]
pub(crate) fn divert<T: Tables>(
    packet: &Packet,
    tables: &T,
    listener: ListenerId,
    policy: ListenerPolicy,
) -> Result<(), Exit> {
    if !tables.makes_cookies()
        || !policy.flags.has_syn_cookies()
        || packet.kind != Kind::Transport
        || packet.tcp_flags & (SYN | ACK | RST) != ACK
    {
        return Ok(());
    }
    tables.hand_over(listener.0.into());
    Err(Exit::Go(Stage::CookieReturn))
}

/// Goes on to [`Stage::CookieBegin`] with a packet that brings a cookie back; any other is what it
/// would be without cookies.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "as much of the word as was put in"
)]
pub fn check<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Exit> {
    let packet = forgotten(parse(frame)?, tables);
    frame.forget_ends();
    let listener = ListenerId(tables.handed_over() as u16);
    let Some((segment_bytes, is_probe)) = returned(frame, &packet, tables)? else {
        return Err(no_cookie(tables, listener));
    };
    let refused = |stop| refused(tables, listener, stop);
    let (target, _) = select(frame, tables, &packet, listener, true).map_err(refused)?;
    let decision = Decision {
        listener,
        target,
        entry: Found::NOTHING,
        progress: Progress::NONE,
        state: FlowState::NEW,
        has_news: true,
        begins: true,
        is_pinned: true,
    };
    let arrival = Arrival::of(&packet, tables);
    let needs_source = snat::needs_source(&packet, tables, &arrival, &decision).map_err(refused)?;
    // Its SYN would not have been answered here, so something has changed since.
    if needs_source || target.control.mode != Mode::NAT {
        return Err(refused(Stop::Stray));
    }
    let returned = Returned {
        listener,
        target: target.id,
        segment_bytes: segment_size::clamped(segment_bytes, listener, tables),
        is_probe,
    };
    Err(returned.go(tables))
}

/// The segment size of the cookie that a packet brings back, and whether it is a window probe, if it
/// brings one.
///
/// The acknowledgement may have got lost. A client with data then probes our closed window, and
/// some do so with the number before the one that is due.
#[inline(always)]
fn returned<F: Frame, T: Tables>(
    frame: &F,
    packet: &Packet,
    tables: &T,
) -> Result<Option<(u16, bool)>, Stop> {
    let tcp = frame.get::<Tcp>(packet.transport).ok_or(Stop::Malformed)?;
    let number = tcp.acknowledgement.get().wrapping_sub(1);
    let mut handshake = Handshake {
        client: packet.sender(),
        vip: packet.receiver(),
        sequence: tcp.sequence.get().wrapping_sub(1),
    };
    let mut is_probe = false;
    if !tables.is_cookie(&handshake, number) {
        handshake.sequence = tcp.sequence.get();
        is_probe = true;
        if !tables.is_cookie(&handshake, number) {
            return Ok(None);
        }
    }
    Ok(Some((segment_bytes(tables, &handshake, number), is_probe)))
}

/// The segment sizes that are told apart: what Linux has in its tables (`msstab` of
/// `net/ipv4/syncookies.c` and `net/ipv6/syncookies.c`), the usual ones first.
const SIZES_V4: [u16; 3] = [1460, 1440, 1300];
const SIZES_V6: [u16; 3] = [1440, 8940, 1420];
/// What every host takes (RFC 9293 §3.7.1).
const SMALLEST_V4: u16 = 536;
const SMALLEST_V6: u16 = 1220;

/// The segment size that a cookie stands for: the one that would have led to it.
///
/// Of a cookie that was made in the minute before this one nobody can tell; what every host takes is
/// right for it, too.
#[inline(always)]
fn segment_bytes<T: Tables>(tables: &T, handshake: &Handshake, number: u32) -> u16 {
    let is_v4 = handshake.client.address.is_v4();
    let sizes = if is_v4 { SIZES_V4 } else { SIZES_V6 };
    for size in sizes {
        if let Some(cookie) = tables.make_cookie(handshake, size)
            && cookie.number == number
        {
            return cookie.segment_bytes;
        }
    }
    if is_v4 { SMALLEST_V4 } else { SMALLEST_V6 }
}

/// Why a packet without a cookie is stopped: nothing that opens no connection begins a flow of such a
/// listener.
#[inline(always)]
fn no_cookie<T: Tables>(tables: &T, listener: ListenerId) -> Exit {
    let Some(record) = tables.listener(listener) else {
        return Exit::Stop(Stop::UnwrittenListener);
    };
    if record.policy().stray == Stranded::DROP {
        Exit::Stop(Stop::Stray)
    } else {
        refused(tables, listener, Stop::Stray)
    }
}

/// Stops a packet whose sender takes its connection for open: it is told that it is not.
#[inline(always)]
pub(super) fn refused<T: Tables>(tables: &T, listener: ListenerId, stop: Stop) -> Exit {
    let answer = Answer {
        notice: Notice::RESET,
        mtu_bytes: 0,
        listener,
    };
    tell(tables, stop, answer)
}
