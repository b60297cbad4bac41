//! What the packet program asks of the daemon, through a ring buffer.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::address::Address;

/// A record of the ring buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Event {
    /// One of the constants below.
    pub kind: u32,
    /// The index of the interface that it is about.
    pub interface: u32,
    /// The address that it is about.
    pub address: Address,
}

impl Event {
    /// A packet had to be dropped because the kernel does not know `address`'s MAC on `interface`:
    /// resolve it.
    pub const NEIGHBOUR_WANTED: u32 = 1;
}
