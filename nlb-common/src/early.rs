//! Fragments that come before their datagram's first one: packets cannot wait in the kernel, so the
//! daemon keeps them for a moment and sends them in once more.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::fragment::FragmentKey;

/// The largest frame that is kept, in bytes: Ethernet's MTU with two tags, and room to spare.
pub const FRAME_BYTES: usize = 2048;

/// Bytes of the ring buffer: some 250 frames. More is a flood, for which nobody waits.
pub const EARLY_BYTES: u32 = 1 << 19;

/// A record of the ring buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EarlyFragment {
    /// What its datagram is known by.
    pub key: FragmentKey,
    /// The index of the interface that it came in through.
    pub interface: u32,
    /// How many of the bytes are the frame's.
    pub length_bytes: u32,
    /// The frame, as it came in; what is behind it means nothing.
    pub bytes: [u8; FRAME_BYTES],
}

impl EarlyFragment {
    /// The frame.
    pub fn frame(&self) -> &[u8] {
        let length = usize::try_from(self.length_bytes).unwrap_or(0);
        self.bytes.get(..length).unwrap_or(&[])
    }
}
