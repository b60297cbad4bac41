//! Bytes of frames that were copied, and the copies as frames that headers are read from.

use aya_ebpf::{
    bindings::xdp_md,
    helpers::generated::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
};
use nlb_common::{
    capture::{FRAME_BYTES, Length},
    early,
    stop::Stop,
};
use nlb_ebpf::frame::{Frame, Header, Offset};

/// Two frames one behind the other, and what the verifier cannot rule out behind the second.
pub(crate) const ROOM_BYTES: usize = 2 * FRAME_BYTES + 512;

/// Copies the first bytes of a frame to this place; how many there are.
#[inline(always)]
pub(crate) fn keep(
    bytes: &mut [u8; ROOM_BYTES],
    place: u32,
    context: *mut xdp_md,
    most_bytes: u32,
) -> Length {
    // SAFETY: the context is this call's.
    let frame_bytes = unsafe { bpf_xdp_get_buff_len(context) } as u32;
    let length = frame_bytes.min(most_bytes);
    // VERIFIER: read as they are passed on, or others are compared than are used.
    // SAFETY: a local variable.
    let length = unsafe { (&raw const length).read_volatile() };
    // SAFETY: a local variable.
    let place = unsafe { (&raw const place).read_volatile() };
    let nothing = Length {
        kept_bytes: 0,
        frame_bytes,
    };
    if length == 0 || length > FRAME_BYTES as u32 || place > FRAME_BYTES as u32 {
        return nothing;
    }
    let to = bytes.as_mut_ptr().wrapping_add(place as usize).cast();
    // SAFETY: the context is this call's, and there is room for twice as many bytes.
    let refused = unsafe { bpf_xdp_load_bytes(context, 0, to, length) } != 0;
    if refused {
        return nothing;
    }
    Length {
        kept_bytes: length,
        frame_bytes,
    }
}

/// A frame that was copied.
pub(crate) struct Kept<'b> {
    bytes: &'b [u8; ROOM_BYTES],
    start: u32,
    length: u32,
}

impl<'b> Kept<'b> {
    /// The one that begins here.
    #[inline(always)]
    pub(crate) fn new(bytes: &'b [u8; ROOM_BYTES], start: u32, length: u32) -> Self {
        Self {
            bytes,
            start,
            length,
        }
    }
}

impl Frame for Kept<'_> {
    #[inline(always)]
    fn get<H: Header>(&self, at: Offset) -> Option<&H> {
        if usize::from(at.0) + size_of::<H>() > self.length as usize {
            return None;
        }
        // SAFETY: a local variable; volatile, so that the verifier sees the comparison of what is used.
        let start = unsafe { (&raw const self.start).read_volatile() } as usize;
        if start > FRAME_BYTES {
            return None;
        }
        let place = self.bytes.as_ptr().wrapping_add(start + usize::from(at.0));
        // SAFETY: behind the last place is room for any header; `H` is unaligned and takes any bytes.
        Some(unsafe { &*place.cast::<H>() })
    }

    #[inline(always)]
    fn get_mut<H: Header>(&mut self, _: Offset) -> Option<&mut H> {
        None
    }

    #[inline(always)]
    fn move_start(&mut self, _: i16) -> Result<(), Stop> {
        Err(Stop::NoRoom)
    }

    #[inline(always)]
    fn move_end(&mut self, _: i16) -> Result<(), Stop> {
        Err(Stop::NoRoom)
    }

    #[inline(always)]
    fn forget_ends(&mut self) {}

    /// More than there is of a frame that was cut: whether it was whole is not asked of a copy.
    #[inline(always)]
    fn first_buffer_bytes(&self) -> usize {
        usize::from(u16::MAX)
    }

    #[inline(always)]
    fn length_bytes(&self) -> usize {
        usize::from(u16::MAX)
    }

    #[inline(always)]
    fn copy_to(&self, _: &mut [u8; early::FRAME_BYTES]) -> Option<u32> {
        None
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        0
    }
}
