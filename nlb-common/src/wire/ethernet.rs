//! Ethernet II, and the `EtherType`s that we act on.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, big_endian::U16, native_endian,
};

/// A MAC address.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct MacAddress(pub [u8; 6]);

impl core::fmt::Display for MacAddress {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// The header of an Ethernet II frame.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ethernet {
    /// Where the frame goes on this link.
    pub destination: MacAddress,
    /// Who sent it on this link.
    pub source: MacAddress,
    /// What follows.
    pub ether_type: U16,
}

/// The MAC addresses of an Ethernet header, as the words that the packet path moves; see
/// [`crate::next_hop::MacPair`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Macs {
    /// The first eight bytes.
    pub head: native_endian::U64,
    /// The next four.
    pub tail: native_endian::U32,
}

/// IPv4 (RFC 894).
pub const IPV4: U16 = U16::from_bytes([0x08, 0x00]);
/// IPv6 (RFC 2464).
pub const IPV6: U16 = U16::from_bytes([0x86, 0xdd]);
/// A customer tag (IEEE 802.1Q).
pub const VLAN: U16 = U16::from_bytes([0x81, 0x00]);
/// A service tag (IEEE 802.1ad).
pub const SERVICE_VLAN: U16 = U16::from_bytes([0x88, 0xa8]);

/// What follows an [`Ethernet`] header whose type is a VLAN tag.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct VlanTag {
    /// Priority, drop eligibility and VLAN identifier.
    pub control: U16,
    /// What follows.
    pub ether_type: U16,
}
