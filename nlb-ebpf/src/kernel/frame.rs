//! [`Frame`] over the bytes between `data` and `data_end`.

use aya_ebpf::{
    helpers::generated::{
        bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
    },
    programs::XdpContext,
};
use nlb_common::{early::FRAME_BYTES, stop::Stop};
use nlb_ebpf::frame::{Frame, Header, Offset};

/// One packet in the driver's memory.
///
/// VERIFIER: both ends are read once and kept as `usize`; read from the context again in a function
/// of its own, they become scalars ("R2 pointer arithmetic with <<= operator prohibited").
pub(crate) struct XdpFrame<'c> {
    data: usize,
    end: usize,
    context: &'c XdpContext,
}

impl<'c> XdpFrame<'c> {
    /// The packet that the kernel called us for.
    #[inline(always)]
    pub(crate) fn new(context: &'c XdpContext) -> Self {
        Self {
            data: context.data(),
            end: context.data_end(),
            context,
        }
    }

    /// Reads both ends again, after the kernel has moved one.
    #[inline(always)]
    fn reread(&mut self) {
        self.data = self.context.data();
        self.end = self.context.data_end();
    }

    /// The address of a header that lies in the packet as a whole.
    #[inline(always)]
    fn address<H: Header>(&self, at: Offset) -> Option<usize> {
        let start = self.data + usize::from(at.0);
        // VERIFIER: this order, end of header against end of packet, is the one it understands.
        if start + size_of::<H>() > self.end {
            return None;
        }
        Some(start)
    }
}

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn get<H: Header>(&self, at: Offset) -> Option<&H> {
        let start = self.address::<H>(at)? as *const H;
        // SAFETY: `address` compared the header's end with the packet's; `H` is unaligned and takes
        // any bytes; the packet stays while `self` is borrowed.
        Some(unsafe { &*start })
    }

    #[inline(always)]
    fn get_mut<H: Header>(&mut self, at: Offset) -> Option<&mut H> {
        let start = self.address::<H>(at)? as *mut H;
        // SAFETY: as in `get`; `&mut self` makes this the only reference into the packet.
        Some(unsafe { &mut *start })
    }

    #[inline(always)]
    fn move_start(&mut self, bytes: i16) -> Result<(), Stop> {
        // SAFETY: the context is this call's. The packet's pointers are read again, and `&mut self`
        // says that no reference into the packet is left.
        let refused = unsafe { bpf_xdp_adjust_head(self.context.ctx, -i32::from(bytes)) } != 0;
        self.reread();
        if refused { Err(Stop::NoRoom) } else { Ok(()) }
    }

    #[inline(always)]
    fn move_end(&mut self, bytes: i16) -> Result<(), Stop> {
        // SAFETY: as in `move_start`.
        let refused = unsafe { bpf_xdp_adjust_tail(self.context.ctx, i32::from(bytes)) } != 0;
        self.reread();
        if refused { Err(Stop::NoRoom) } else { Ok(()) }
    }

    #[inline(always)]
    fn forget_ends(&mut self) {
        let context = self.context.ctx;
        // SAFETY: the context is this call's; volatile, because the compiler must not take what it
        // read before.
        let (data, end) = unsafe {
            (
                (&raw const (*context).data).read_volatile(),
                (&raw const (*context).data_end).read_volatile(),
            )
        };
        self.data = data as usize;
        self.end = end as usize;
    }

    #[inline(always)]
    fn first_buffer_bytes(&self) -> usize {
        self.end - self.data
    }

    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the kernel's lengths are `u32`"
    )]
    fn length_bytes(&self) -> usize {
        // SAFETY: the context is this call's.
        let bytes = unsafe { bpf_xdp_get_buff_len(self.context.ctx) };
        bytes as u32 as usize
    }

    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the kernel's lengths are `u32`"
    )]
    fn copy_to(&self, to: &mut [u8; FRAME_BYTES]) -> Option<u32> {
        // VERIFIER: read as it is passed on, or another register is than the one that was compared ("R4
        // min value is negative"; Linux 6.18, rustc 1.96).
        let length = self.length_bytes() as u32;
        // SAFETY: a local variable.
        let length = unsafe { (&raw const length).read_volatile() };
        if length == 0 || length > FRAME_BYTES as u32 {
            return None;
        }
        let place = to.as_mut_ptr().cast();
        // SAFETY: the context is this call's, and `to` has room for so many bytes.
        let refused = unsafe { bpf_xdp_load_bytes(self.context.ctx, 0, place, length) } != 0;
        if refused { None } else { Some(length) }
    }

    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the kernel's index is a `u32`"
    )]
    fn interface(&self) -> u32 {
        self.context.ingress_ifindex() as u32
    }
}
