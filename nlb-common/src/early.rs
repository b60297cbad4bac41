//! Fragments that come before their datagram's first one: packets cannot wait in the kernel, so the
//! daemon keeps them for a moment and sends them in once more.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::fragment::FragmentKey;

/// The largest frame that is kept, in bytes: Ethernet's MTU with two tags, and room to spare.
pub const FRAME_BYTES: usize = 2048;

/// Bytes of the ring buffer: some 250 frames. More is a flood, for which nobody waits.
pub const EARLY_BYTES: u32 = 1 << 19;

/// Copies go into the ring buffer only while so many bytes of it, or fewer, wait to be read: some
/// 8 frames, so that what may be of nobody's interest is not in the way of what is.
pub const COPIES_BYTES: u64 = 8 * size_of::<EarlyFragment>() as u64;

/// Whose a fragment without a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// One that is addressed to a VIP: ours. It is dropped, and comes back.
    Ours,
    /// One of a target whose answers are translated. It may answer a client of ours, or be of the
    /// target's own business; so it goes on its way, and only a copy of it comes back.
    Perhaps,
}

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
    /// 1 for [`Claim::Perhaps`], 0 for [`Claim::Ours`].
    pub is_copy: u64,
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
