//! The IPv6 header (RFC 8200 §3) and the extension headers that we step over (§4).

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    big_endian::{U16, U32},
};

/// The fixed header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ipv6 {
    /// Version (4 bits), traffic class (8), flow label (20).
    pub version_class_label: [u8; 4],
    /// Bytes after this header.
    pub payload_length: U16,
    /// What follows.
    pub next_header: u8,
    /// Hops left.
    pub hop_limit: u8,
    /// Where it comes from.
    pub source: [u8; 16],
    /// Where it goes.
    pub destination: [u8; 16],
}

impl Ipv6 {
    /// Whether the version is 6.
    #[inline(always)]
    pub const fn is_version_6(&self) -> bool {
        self.version_class_label[0] >> 4 == 6
    }

    /// The traffic class: DSCP and ECN.
    #[inline(always)]
    pub const fn traffic_class(&self) -> u8 {
        let [a, b, ..] = self.version_class_label;
        a << 4 | b >> 4
    }
}

/// The first two bytes that hop-by-hop, routing and destination options have in common.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Extension {
    /// What follows.
    pub next_header: u8,
    /// Length in units of 8 bytes, not counting the first.
    pub length: u8,
}

/// The fragment header (RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct FragmentHeader {
    /// What follows, in the first fragment.
    pub next_header: u8,
    /// Zero.
    pub zero: u8,
    /// Offset in units of 8 bytes (13 bits), reserved (2), more fragments follow (1).
    pub offset_and_more: U16,
    /// Identifies the fragments of one packet.
    pub identification: U32,
}

impl FragmentHeader {
    /// Whether this is not the first.
    #[inline(always)]
    pub const fn is_later(&self) -> bool {
        self.offset_and_more.get() & 0xfff8 != 0
    }
}

/// Hop-by-hop options (RFC 8200 §4.3).
pub const HOP_BY_HOP: u8 = 0;
/// Routing header (RFC 8200 §4.4).
pub const ROUTING: u8 = 43;
/// Fragment header (RFC 8200 §4.5).
pub const FRAGMENT: u8 = 44;
/// Destination options (RFC 8200 §4.6).
pub const DESTINATION_OPTIONS: u8 = 60;
