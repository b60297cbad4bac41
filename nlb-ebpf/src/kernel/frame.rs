//! [`Frame`] over the bytes between `data` and `data_end`.

use aya_ebpf::programs::XdpContext;
use nlb_ebpf::frame::{Frame, Header, Offset};

/// One packet in the driver's memory.
///
/// VERIFIER: both ends are read once and kept as `usize`; read from the context again in a function
/// of its own, they become scalars ("R2 pointer arithmetic with <<= operator prohibited").
pub struct XdpFrame<'c> {
    data: usize,
    end: usize,
    context: &'c XdpContext,
}

impl<'c> XdpFrame<'c> {
    /// The packet that the kernel called us for.
    #[inline(always)]
    pub fn new(context: &'c XdpContext) -> Self {
        Self { data: context.data(), end: context.data_end(), context }
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
    fn length_bytes(&self) -> usize {
        self.end - self.data
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the kernel's index is a `u32`")]
    fn interface(&self) -> u32 {
        self.context.ingress_ifindex() as u32
    }
}
