//! The header of ICMP errors, which ICMP and `ICMPv6` share (RFC 792, RFC 4443 §2.1).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, big_endian::U32};

/// The first eight bytes of an error; the packet that it is about follows.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IcmpError {
    /// What it says.
    pub kind: u8,
    /// What it says, more closely.
    pub code: u8,
    /// Of the message; for `ICMPv6` of a pseudo-header too.
    pub checksum: zerocopy::big_endian::U16,
    /// The MTU of "fragmentation needed" (RFC 1191 §4: its low 16 bits) and of "packet too big"
    /// (RFC 4443 §3.2: all of it), or zero.
    pub mtu_bytes: U32,
}

/// ICMP: destination unreachable.
pub const UNREACHABLE: u8 = 3;
/// ICMP, the code of [`UNREACHABLE`]: fragmentation needed and DF set.
pub const FRAGMENTATION_NEEDED: u8 = 4;
/// ICMP: time exceeded; with code 0, in transit.
pub const TIME_EXCEEDED: u8 = 11;
/// `ICMPv6`: packet too big.
pub const V6_TOO_BIG: u8 = 2;
/// `ICMPv6`: time exceeded; with code 0, in transit.
pub const V6_TIME_EXCEEDED: u8 = 3;
