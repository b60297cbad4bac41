//! Generic UDP Encapsulation (draft-ietf-intarea-gue): a UDP payload that is a packet of another
//! IP protocol.
//!
//! The first two bits are the variant. Variant 0 has this header; variant 1 has none, and what
//! follows is an IP packet at once, whose version nibble (`01..`) is where the variant is read.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, big_endian::U16};

/// The fixed part of variant 0; extension fields follow it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Gue {
    /// Variant (2 bits), control flag, length of the extension fields in words of 4 bytes (5 bits).
    pub variant_and_length: u8,
    /// The IP protocol of what is inside; the type of a control message.
    pub protocol: u8,
    /// Which extension fields follow; zero where there are none.
    pub flags: U16,
}

const _: () = assert!(size_of::<Gue>() == 4);

impl Gue {
    /// A header without extension fields, in front of a packet of this IP protocol.
    #[inline(always)]
    pub const fn of(protocol: u8) -> Self {
        Self {
            variant_and_length: 0,
            protocol,
            flags: U16::ZERO,
        }
    }

    /// The variant: 0 for this header, 1 for none.
    #[inline(always)]
    pub const fn variant(&self) -> u8 {
        self.variant_and_length >> 6
    }

    /// Whether this is a message between the tunnel's ends, and no packet.
    #[inline(always)]
    pub const fn is_control(&self) -> bool {
        self.variant_and_length & 0x20 != 0
    }

    /// Bytes of the extension fields.
    #[inline(always)]
    pub const fn extension_bytes(&self) -> u8 {
        (self.variant_and_length & 0x1f) * 4
    }
}

/// The port that IANA assigned.
pub const PORT: U16 = U16::from_bytes([0x17, 0xc0]);
