//! One packet's bytes. The only bounds check of the packet path lives behind [`Frame::get`].

use nlb_common::{early::FRAME_BYTES, stop::Stop};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Where something stands in a frame, in bytes from its start.
///
/// A `u8`, because the verifier then knows its range wherever it was kept in the meantime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset(pub u8);

impl Offset {
    /// This many bytes on, or nothing where that leaves the part of a frame that we look at.
    #[inline(always)]
    pub const fn plus(self, bytes: u16) -> Option<Self> {
        let sum = self.0 as u16 + bytes;
        if sum > Self::LAST.0 as u16 {
            return None;
        }
        // VERIFIER: the mask is what bounds the offset; `as u8` alone may be optimised away.
        Some(Self((sum & 0xff) as u8))
    }

    /// This many bytes on, within what an ICMP error quotes: at most 248.
    #[inline(always)]
    pub const fn plus_in_quote(self, bytes: u16) -> Option<Self> {
        let sum = self.0 as u16 + bytes;
        if sum > 248 {
            return None;
        }
        Some(Self((sum & 0xff) as u8))
    }

    /// Headers that begin later than this are not looked at: room for two VLAN tags, the longest
    /// IPv4 options, or a chain of IPv6 extension headers.
    pub const LAST: Self = Self(160);
}

/// Bytes that any header type may be read from and written to.
pub trait Header: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned {}
impl<H: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned> Header for H {}

/// One packet's bytes, in the kernel or in memory.
pub trait Frame {
    /// The header at `at`, if the frame reaches to its end.
    fn get<H: Header>(&self, at: Offset) -> Option<&H>;

    /// The same, to be written.
    fn get_mut<H: Header>(&mut self, at: Offset) -> Option<&mut H>;

    /// Moves the frame's start: `bytes` more in front of it, or, below zero, that many fewer. What
    /// stands in new bytes is not said, and every offset counts from the new start.
    ///
    /// [`Stop::NoRoom`] if the driver leaves no room there; the frame is then unchanged.
    fn move_start(&mut self, bytes: i16) -> Result<(), Stop>;

    /// Moves the frame's end: `bytes` more behind it, whose contents are not said, or, below zero,
    /// that many fewer.
    ///
    /// [`Stop::NoRoom`] if the driver leaves no room there; the frame is then unchanged.
    fn move_end(&mut self, bytes: i16) -> Result<(), Stop>;

    /// Finds the frame's ends anew.
    ///
    /// VERIFIER: it remembers how far into the packet has been looked, and follows the rest of the
    /// program once for each answer.
    fn forget_ends(&mut self);

    /// How many bytes the frame has, from the first of them on, that [`Self::get`] can reach.
    ///
    /// Fewer than all of them where the driver gives large frames in several buffers: then these are
    /// the first one's.
    fn first_buffer_bytes(&self) -> usize;

    /// How many bytes the frame has, in all of its buffers.
    fn length_bytes(&self) -> usize;

    /// Copies all of the frame, in all of its buffers; how many bytes that are. `None` if there is no
    /// room for it, or it is no frame.
    fn copy_to(&self, to: &mut [u8; FRAME_BYTES]) -> Option<u32>;

    /// Whether the frame reaches so far from its start.
    #[inline(always)]
    fn reaches(&self, bytes: usize) -> bool {
        // What the first buffer holds needs no question to the kernel.
        bytes <= self.first_buffer_bytes() || bytes <= self.length_bytes()
    }

    /// The index of the interface that it came in through.
    fn interface(&self) -> u32;
}
