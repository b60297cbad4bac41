//! A question to the kernel's routes as the bytes of a frame: what `nlb explain` hands to a program that
//! asks as the packet path does, because only a BPF program may ask so.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

/// The question and, behind it, the answer.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct RouteFrame {
    /// Where the packet goes; an [`Address`](crate::address::Address).
    pub destination: [u8; 16],
    /// Where it comes from.
    pub source: [u8; 16],
    /// The interface that it came in through.
    pub interface: U32,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// The IP protocol.
    pub protocol: u8,
    /// The answer: [`Self::UNANSWERED`], [`Self::FOUND`], or a [`Stop`](crate::stop::Stop)'s number.
    pub outcome: u8,
    /// Zero.
    pub zero: u8,
    /// The neighbour's address.
    pub neighbour: [u8; 16],
    /// The interface that the neighbour is on.
    pub leaves_by: U32,
    /// The first eight bytes of a frame to it.
    pub macs_head: U64,
    /// The next four.
    pub macs_tail: U32,
    /// The largest IP packet that the way takes, in bytes.
    pub mtu_bytes: U16,
}

impl RouteFrame {
    /// The program has not run.
    pub const UNANSWERED: u8 = 255;
    /// There is a way, and the fields behind this one say which.
    pub const FOUND: u8 = 254;
}
