//! The story of a packet.
//!
//! ```text
//!  frame ─► parse ─► perhaps ours? ──no──► pass, untouched
//!                         │yes
//!            ┌────────────┴─────────────┐
//!   goes to a listener            comes from a target
//!            │                          │
//!       remembered? ──yes──┐        remembered? ──no──► pass, untouched
//!            │no           │            │yes
//!       listener? ──no──► pass          │
//!            │yes          │            │
//!         select           │            │
//!            │             │            │
//!           pin            │            │
//!            └──────► rewrite ─► emit ◄─┘
//! ```
//!
//! 1. [`parse`]: bytes become facts.
//! 2. [`classify`]: is it ours? [`to_target`] and [`to_client`] are the two ways on.
//! 3. [`select`] and [`flows`]: which target, and remembering it.
//! 4. [`rewrite`] with [`checksum`]: what changes.
//! 5. [`emit`]: where it goes.
//!
//! All of it is safe code over two small traits, [`frame::Frame`] and [`tables::Tables`], with two
//! bodies each: `kernel/` (in the binary) and [`memory`]. The same text runs under `cargo test` and
//! in the kernel, and a differential test holds the two together.
//!
//! [`decap`] is another, shorter story: what a target does with the packets of tunnelled modes.
#![no_std]
#![forbid(unsafe_code)]

pub mod checksum;
pub mod classify;
pub mod decap;
pub mod emit;
pub mod flows;
pub mod frame;
#[cfg(feature = "memory")]
pub mod memory;
pub mod parse;
pub mod rewrite;
pub mod select;
pub mod tables;
pub mod to_client;
pub mod to_target;

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

/// The story of a packet.
#[inline(always)]
pub fn handle<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    match classify::classify(frame, tables) {
        Ok(verdict) => verdict,
        Err(Stop::NotOurs) => Verdict::Pass,
        Err(stop) => {
            tables.count_stop(stop);
            match stop.verdict() {
                StopVerdict::Pass => Verdict::Pass,
                StopVerdict::Drop => Verdict::Drop,
            }
        }
    }
}
