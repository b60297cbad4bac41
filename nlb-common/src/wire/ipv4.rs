//! The IPv4 header (RFC 791 §3.1).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, big_endian::U16};

/// The fixed part of the header; options follow it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ipv4 {
    /// Version (4 bits) and header length in words of 4 bytes (4 bits).
    pub version_and_length: u8,
    /// DSCP (RFC 2474) and ECN (RFC 3168).
    pub traffic_class: u8,
    /// Bytes of header and payload.
    pub total_length: U16,
    /// Identifies the fragments of one packet.
    pub identification: U16,
    /// Flags (3 bits) and offset in units of 8 bytes (13 bits).
    pub fragment: U16,
    /// Hops left.
    pub ttl: u8,
    /// What follows.
    pub protocol: u8,
    /// Of the header alone.
    pub checksum: U16,
    /// Where it comes from.
    pub source: [u8; 4],
    /// Where it goes.
    pub destination: [u8; 4],
}

/// The flag DF, alone in the word of flags and offset.
pub const DO_NOT_FRAGMENT: U16 = U16::from_bytes([0x40, 0]);

impl Ipv4 {
    /// Bytes of the header with its options, as the header says; may be below 20 if it lies.
    #[inline(always)]
    pub const fn header_length_bytes(&self) -> u8 {
        (self.version_and_length & 15) * 4
    }

    /// Whether the version is 4.
    #[inline(always)]
    pub const fn is_version_4(&self) -> bool {
        self.version_and_length >> 4 == 4
    }

    /// Whether routers must not fragment it: the flag DF.
    #[inline(always)]
    pub const fn must_not_be_fragmented(&self) -> bool {
        self.fragment.get() & DO_NOT_FRAGMENT.get() != 0
    }

    /// Whether this is a fragment: more follow, or it is not the first.
    #[inline(always)]
    pub const fn is_fragment(&self) -> bool {
        self.fragment.get() & 0x3fff != 0
    }

    /// Whether this is a fragment other than the first, so that the transport header is elsewhere.
    #[inline(always)]
    pub const fn is_later_fragment(&self) -> bool {
        self.fragment.get() & 0x1fff != 0
    }

    /// Where in the packet a fragment's payload stands, in bytes.
    #[inline(always)]
    pub const fn fragment_offset_bytes(&self) -> u16 {
        self.fragment.get() << 3
    }

    /// Whether more fragments of the packet follow this one.
    #[inline(always)]
    pub const fn more_fragments(&self) -> bool {
        self.fragment.get() & 0x2000 != 0
    }
}
