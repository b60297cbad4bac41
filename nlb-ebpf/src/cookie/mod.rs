//! SYN cookies: a connection begins when its client has shown that it gets our answers.
//!
//! ```text
//!  client                       us                                    target
//!    │ SYN, x ──────────────────►│ answer: nothing is remembered          │
//!    │◄─── SYN-ACK, cookie; win 0│                                        │
//!    │ ACK, x+1; cookie+1 ──────►│ check ► begin: pin ──────── SYN, x ───►│
//!    │                           │                                        │
//!    │◄── old byte; window ──────│ back ◄──────────────── SYN-ACK, y; x+1 │
//!    │ ACK, x+1; cookie+1 ──────►│ known ───────────── ACK, x+1; y+1 ────►│
//! ```
//!
//! A frame that comes in can become one frame that goes out, so the target's SYN-ACK can be answered,
//! or told to the client, but not both. It is told to the client: as a byte that the client has had
//! (its number is the SYN-ACK's own), with the target's window. A TCP acknowledges such a byte at
//! once (RFC 9293 §3.10.7.4), as it does a keep-alive's (RFC 1122 §4.2.3.6), and that
//! acknowledgement, which is the client's own, is what the target waits for. Until then the client's
//! window is closed, so that no data come which nobody could take. All that gets lost on the way is
//! sent again by one of the ends: there is no timer here.
//!
//! From there on only numbers change ([`nlb_common::sequence`]): those that the target counts with
//! are shifted, in its segments and in the client's acknowledgements. There is no other place
//! where they stand: a cookie has no room for window scaling, selective acknowledgements and
//! timestamps, so neither end was offered any.
//!
//! A listener may answer so only while more SYNs come than it is used to ([`pressure`]). What it is at the
//! moment decides what a SYN meets, and nothing else: cookies are taken back, and flows go on, at any time.
//!
//! Each stage does one thing: [`answer`], [`check`] and [`begin`] for what opens a connection,
//! [`known`], [`back`] and [`icmp`] for the packets of one.

pub mod answer;
pub mod back;
pub mod begin;
pub mod check;
pub mod icmp;
pub mod known;
pub(crate) mod pressure;

use nlb_common::{sequence::Sequence, wire::tcp::SYN};
use zerocopy::big_endian::{U16, U32};

use crate::{
    flows::{Found, nth},
    parse::Packet,
    rewrite::Endpoint,
    segment::{Segment, Tail},
    tables::Tables,
};

/// What stands beside an entry.
#[inline(always)]
fn beside<'t, T: Tables>(tables: &'t T, found: &Found<'t>) -> Option<&'t Sequence> {
    let number = found.number(tables);
    let way = tables.forget(number.way(), number.bucket().into());
    nth(tables, &tables.sequences(number.bucket())?.entries, way)
}

/// The SYN that a target gets in the name of the client that sent this packet.
#[inline(always)]
fn syn(
    packet: &Packet,
    target: Endpoint,
    sequence: u32,
    window: U16,
    segment_bytes: u16,
) -> Segment {
    Segment {
        source: packet.sender(),
        destination: target,
        sequence: U32::new(sequence),
        acknowledgement: U32::ZERO,
        flags: SYN,
        window,
        tail: Tail::SegmentSize(segment_bytes),
    }
}
