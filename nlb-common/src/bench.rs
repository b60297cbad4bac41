//! What the benchmark's kernel programs and its userspace share; no part of the load balancer.
//!
//! `BPF_PROG_TEST_RUN` feeds a program the packet that the program itself changed, from the second
//! repeat on. So a *reset trampoline* runs in its place, which restores the packet from a
//! [`Setup`], and then jumps to the program that is measured.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Words of eight bytes that the trampoline restores: up to the end of a TCP header without
/// options, behind either IP version.
pub const WORDS: usize = 10;

/// Where the words begin in a frame, in bytes.
///
/// A processor forwards a store to a load only where the store holds all that is loaded. So the
/// words lie such that no field, and neither half of an IPv6 address, straddles two of them.
pub const BASE_V4: usize = 2;
/// The same for IPv6.
pub const BASE_V6: usize = 6;

/// In which order the trampoline numbers the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Order {
    /// Always client 0.
    Fixed = 0,
    /// Each packet the next client, up to 2³² of them.
    Sequential = 1,
    /// Pseudo-random among [`Setup::flows`].
    Random = 2,
}

/// What the trampoline makes of each packet.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Setup {
    /// Length of the frame in bytes.
    pub frame_bytes: u64,
    /// An [`Order`].
    pub order: u64,
    /// How many clients there are.
    pub flows: u64,
    /// The clock is read at this repeat, counted from 0 ...
    pub begin: u64,
    /// ... and at this one.
    pub end: u64,
    /// Where the low 24 bits of a client's number go in words 3 and 5: shifted, then masked.
    pub address_shift: u64,
    /// The mask for word 3 (IPv4: both addresses; IPv6: low half of the source).
    pub source_mask: u64,
    /// The mask for word 5 (IPv6: low half of the destination).
    pub destination_mask: u64,
    /// Where bits 24 to 31 of a client's number go in the word that holds the ports.
    pub port_shift: u64,
    /// The first bytes of the frame, before the words.
    pub head: u64,
    /// The interface that live frames leave through.
    pub interface: u64,
    /// The frame from [`BASE_V4`] or [`BASE_V6`] on.
    pub words: [u64; WORDS],
}

/// What the trampoline keeps from one packet to the next.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct State {
    /// Repeats so far.
    pub count: u64,
    /// The next number, of a client or into the pseudo-random sequence.
    pub next: u64,
    /// The clock at [`Setup::begin`], in nanoseconds.
    pub begin_ns: u64,
    /// The clock at [`Setup::end`], in nanoseconds.
    pub end_ns: u64,
}
