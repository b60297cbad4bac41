//! The story of a packet, in stages.
//!
//! ```text
//!  frame ─► front ── plain, and of a flow that needs nothing but forwarding ──► rewrite ─► emit
//!             │  └── plain, and not ours ──► pass, untouched
//!             │anything else
//!             ▼
//!          classify ─ options, tags, … of such a flow ──► rewrite ─► emit
//!             │   ├── icmp ──► icmp: an echo, or an error about one of our flows ──► emit
//!             │   │             └──► outer_error: about what a tunnel carries ──► emit
//!             │   ├── a fragment without ports ──► fragment ──► rewrite ─► emit
//!             │   └── not ours ──► pass, untouched
//!             │goes to a listener                    │comes from a target
//!             ▼                                      ▼
//!   begin, first: listener? ► admit ► select      back: ask for the way ► remember it
//!             │                                      │             └──► rewrite ─► emit
//!             ▼                                      │
//!           depart: limits ► pin ► rewrite ─► emit   │
//!             └─refused, and its sender is told ─► answer
//! ```
//!
//! Flows whose source is translated, too, have stages of their own ([`snat`]): for packets of known
//! flows, for the first one, and for answers, which come to an address of the pool.
//!
//! Where a listener answers SYNs with cookies, what opens a connection and what belongs to one that
//! was opened so have stages of their own, too ([`cookie`]).
//!
//! A packet for a QUIC listener leaves the way to the target for one more stage, [`quic`], before
//! anything is decided, and comes back to the same way with what its connection ID says.
//!
//! A stage ends with a verdict, with a [`Stop`], or by going on to another stage, which looks at
//! the frame anew; only ever a deeper one ([`Stage::depth`]), so every story ends. In the kernel each
//! stage is a program, and going on is a tail call: each has a
//! stack and a verification of its own, and what is rare costs the common packet nothing. Nothing
//! has changed, in the frame or in the tables, when a stage goes on (but that the flow of a first
//! fragment that needs a source is pinned, [`snat::begin`]); so [`front`] is only a
//! shortcut: without it every packet would end the same way.
//!
//! 1. [`parse`]: bytes become facts.
//! 2. [`classify`]: is it ours? [`to_target`] and [`to_client`] are the two ways on.
//!    [`fragment`] finds the way of what has no ports.
//! 3. [`mod@begin`] with [`admission`] and [`select`]: may it begin, and which target? [`depart`] with
//!    [`flows`]: remembering it.
//! 4. [`rewrite`] with [`checksum`]: what changes; [`tunnel`]: what is put around.
//! 5. [`emit`]: where it goes.
//! 6. [`answer`]: resets and ICMP errors of our own.
//!
//! And [`icmp`] and [`outer_error`], with [`quote`]: the messages about all of this.
//!
//! All of it is safe code over two small traits, [`frame::Frame`] and [`tables::Tables`], with two
//! bodies each: `kernel/` (in the binary) and [`memory`]. The same text runs under `cargo test` and
//! in the kernel, and a differential test holds the two together.
//!
//! [`decap`] is another, shorter story: what a target does with the packets of tunnelled modes.
#![no_std]
#![forbid(unsafe_code)]

pub mod admission;
pub mod answer;
pub mod begin;
pub mod checksum;
pub mod classify;
pub mod cookie;
pub mod decap;
pub mod depart;
pub mod emit;
pub mod flows;
pub mod fragment;
pub mod frame;
pub mod front;
pub mod icmp;
#[cfg(feature = "memory")]
pub mod memory;
pub mod outer_error;
pub mod parse;
pub mod quic;
pub mod quote;
pub mod rewrite;
mod segment;
pub mod segment_size;
pub mod select;
pub mod settled;
pub mod snat;
pub mod tables;
pub mod to_client;
pub mod to_target;
pub mod tunnel;

pub use nlb_common::stage::Stage;
use nlb_common::stop::{Stop, StopVerdict};

use crate::{frame::Frame, tables::Tables};

/// What becomes of a frame.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To the host's own stack.
    Pass,
    /// Dropped.
    Drop,
    /// Out through the interface that it came in by.
    Transmit,
    /// Out through the interface with this index.
    Redirect(u32),
}

/// How a stage ends if not with a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The packet leaves early.
    Stop(Stop),
    /// Another stage goes on with it.
    Go(Stage),
}

impl From<Stop> for Exit {
    #[inline(always)]
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

/// The most stages that a story has behind the front stage: by way of [`Stage::Classify`],
/// [`Stage::Begin`], [`Stage::Quic`] and [`Stage::Depart`] to all rounds of [`Stage::SnatBegin`],
/// [`Stage::SnatFirst`], and then to [`Stage::Answer`] or [`Stage::Fault`]. The kernel ends a story after 33 (`MAX_TAIL_CALL_CNT`).
pub const LONGEST_STORY: usize = 6 + snat::allocate::ROUNDS as usize;

const _: () = assert!(
    LONGEST_STORY + 1 < 33,
    "the kernel follows every story to its end, also one that `nlb capture` begins"
);

/// The whole story, for bodies without tail calls.
pub fn handle<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    follow(frame, tables, front::front, |_| {})
}

/// The story from any stage on, which `note` is told stage by stage.
///
/// It ends, because a stage may only lead deeper ([`Stage::depth`]); one that did not would be
/// stopped as the kernel stops it, and no packet may make that happen, which a property test asks of
/// every story.
pub fn follow<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    first: impl FnOnce(&mut F, &T) -> Result<Verdict, Exit>,
    mut note: impl FnMut(Stage),
) -> Verdict {
    let mut told = first(frame, tables);
    let mut depth = 0;
    for _ in 0..=LONGEST_STORY {
        let stage = match told {
            Ok(verdict) => return verdict,
            Err(Exit::Stop(stop)) => return stopped(tables, stop),
            Err(Exit::Go(stage)) => stage,
        };
        note(stage);
        if !stage.may_follow(depth) {
            break;
        }
        depth = stage.depth();
        told = match stage {
            Stage::Classify => classify::classify(frame, tables),
            Stage::Begin => begin::begin(frame, tables),
            Stage::First => begin::first(frame, tables),
            Stage::Back => classify::back(frame, tables),
            Stage::Icmp => icmp::icmp(frame, tables),
            Stage::Fragment => fragment::fragment(frame, tables),
            Stage::Answer => answer::answer(frame, tables),
            Stage::Depart => depart::depart(frame, tables),
            Stage::Quic => quic::quic(frame, tables),
            Stage::SnatKnown => snat::known::known(frame, tables),
            Stage::SnatBegin => snat::begin::begin(frame, tables),
            Stage::SnatBack => snat::back::back(frame, tables),
            Stage::SnatIcmp => snat::icmp::icmp(frame, tables),
            Stage::SnatFirst => snat::known::first(frame, tables),
            Stage::OuterError => outer_error::outer_error(frame, tables),
            Stage::Cookie => cookie::answer::answer(frame, tables),
            Stage::CookieReturn => cookie::check::check(frame, tables),
            Stage::CookieBegin => cookie::begin::begin(frame, tables),
            Stage::SequenceKnown => cookie::known::known(frame, tables),
            Stage::SequenceBack => cookie::back::back(frame, tables),
            Stage::SequenceIcmp => cookie::icmp::icmp(frame, tables),
            // Only the kernel has it, behind a stop.
            Stage::Fault => break,
        };
    }
    stopped(tables, Stop::MissingStage)
}

/// What becomes of a packet that is stopped; counts it.
#[inline(always)]
pub fn stopped<T: Tables>(tables: &T, stop: Stop) -> Verdict {
    if stop == Stop::NotOurs {
        return Verdict::Pass;
    }
    tables.count_stop(stop);
    match stop.verdict() {
        StopVerdict::Pass => Verdict::Pass,
        StopVerdict::Drop => Verdict::Drop,
        StopVerdict::Answer => Verdict::Transmit,
    }
}
