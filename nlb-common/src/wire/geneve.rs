//! Generic Network Virtualization Encapsulation (RFC 8926): a UDP payload that is a frame or, as
//! nlb uses it, an IP packet.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, big_endian::U16};

/// The fixed part of the header (RFC 8926 §3.4); options follow it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Geneve {
    /// Version (2 bits) and length of the options in words of 4 bytes (6 bits).
    pub version_and_length: u8,
    /// Control flag, critical flag; the rest is reserved.
    pub flags: u8,
    /// What is inside, as an `EtherType`.
    pub protocol: U16,
    /// Which virtual network it belongs to.
    pub network: [u8; 3],
    /// Zero.
    pub zero: u8,
}

const _: () = assert!(size_of::<Geneve>() == 8);

impl Geneve {
    /// A header without options, in front of a packet of this `EtherType`.
    #[inline(always)]
    pub const fn of(ether_type: U16, network: [u8; 3]) -> Self {
        Self {
            version_and_length: 0,
            flags: 0,
            protocol: ether_type,
            network,
            zero: 0,
        }
    }

    /// The version, of which there is 0 only.
    #[inline(always)]
    pub const fn version(&self) -> u8 {
        self.version_and_length >> 6
    }

    /// Bytes of the options.
    #[inline(always)]
    pub const fn option_bytes(&self) -> u8 {
        (self.version_and_length & 0x3f) * 4
    }

    /// Whether this is a message between the tunnel's ends, and no packet.
    #[inline(always)]
    pub const fn is_control(&self) -> bool {
        self.flags & 0x80 != 0
    }

    /// Whether there are options that whoever does not know them must not step over.
    #[inline(always)]
    pub const fn has_critical_options(&self) -> bool {
        self.flags & 0x40 != 0
    }
}

/// The port that IANA assigned.
pub const PORT: U16 = U16::from_bytes([0x17, 0xc1]);
