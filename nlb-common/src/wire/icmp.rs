//! The header that ICMP (RFC 792) and `ICMPv6` (RFC 4443 §2.1) have in common, and the messages that
//! we act on.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    big_endian::{U16, U32},
};

/// The first eight bytes of every message that we read. An error quotes the packet that it is about
/// right behind them.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Icmp {
    /// What kind of message it is; the two versions have numbers of their own.
    pub kind: u8,
    /// More about it.
    pub code: u8,
    /// Of the whole message and, for `ICMPv6`, the pseudo-header.
    pub checksum: U16,
    /// Means something else in each kind: an MTU, a pointer, an identifier and a number.
    pub rest: [u8; 4],
}

/// An error that we send; the packet that it is about follows.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IcmpError {
    /// What it says.
    pub kind: u8,
    /// What it says, more closely.
    pub code: u8,
    /// Of the message; for `ICMPv6` of a pseudo-header too.
    pub checksum: U16,
    /// The MTU of "fragmentation needed" (RFC 1191 §4: its low 16 bits) and of "packet too big"
    /// (RFC 4443 §3.2: all of it), or zero.
    pub mtu_bytes: U32,
}

/// ICMP's numbers (RFC 792).
pub mod v4 {
    /// Answers an echo request.
    pub const ECHO_REPLY: u8 = 0;
    /// Error: the packet cannot be delivered; code 4: it is too big and must not be fragmented
    /// (RFC 1191).
    pub const UNREACHABLE: u8 = 3;
    /// A code of [`UNREACHABLE`]: nobody delivers to the host.
    pub const HOST_UNREACHABLE: u8 = 1;
    /// A code of [`UNREACHABLE`]: the way that the packet itself names does not exist.
    pub const SOURCE_ROUTE_FAILED: u8 = 5;
    /// A code of [`UNREACHABLE`]: fragmentation needed and DF set.
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// Asks for its own payload back.
    pub const ECHO: u8 = 8;
    /// Error: the TTL ran out, or the time for reassembly.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Error: a header says what it must not.
    pub const PARAMETER_PROBLEM: u8 = 12;
}

/// `ICMPv6`'s numbers (RFC 4443).
pub mod v6 {
    /// Error: the packet cannot be delivered.
    pub const UNREACHABLE: u8 = 1;
    /// A code of [`UNREACHABLE`]: nobody delivers to the address.
    pub const ADDRESS_UNREACHABLE: u8 = 3;
    /// Error: the packet is larger than a link's MTU.
    pub const TOO_BIG: u8 = 2;
    /// Error: the hop limit ran out, or the time for reassembly.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Error: a header says what it must not.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Asks for its own payload back.
    pub const ECHO: u8 = 128;
    /// Answers an echo request.
    pub const ECHO_REPLY: u8 = 129;
}
