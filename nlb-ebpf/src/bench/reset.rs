//! The reset trampoline: a fresh packet for every repeat, then a jump to the measured program.

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, ProgramArray},
    helpers::generated::{
        bpf_ktime_get_ns, bpf_redirect, bpf_xdp_adjust_head, bpf_xdp_adjust_tail,
    },
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use nlb_common::bench::{BASE_V4, BASE_V6, Order, Setup, State};

#[btf_map]
static SETUP: Array<Setup, 1> = Array::new();
#[btf_map]
static STATE: Array<State, 1> = Array::new();
/// The measured program.
#[btf_map]
static SUBJECT: ProgramArray<1> = ProgramArray::new();

/// Sends live frames out: no subject of a measurement, but what feeds one.
#[xdp(frags)]
fn send(_: XdpContext) -> u32 {
    let Some(setup) = SETUP.get(0) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: a helper without pointers.
    unsafe { bpf_redirect(setup.interface as u32, 0) as u32 }
}

/// For frames that carry IPv4, or neither.
#[xdp(frags)]
fn reset_v4(context: XdpContext) -> u32 {
    reset::<10>(&context, BASE_V4, 4)
}

/// For frames that carry IPv6.
#[xdp(frags)]
fn reset_v6(context: XdpContext) -> u32 {
    reset::<9>(&context, BASE_V6, 6)
}

/// Restores `WORDS` words from `base` on; the ports are in the word with index `ports`.
#[inline(always)]
fn reset<const WORDS: usize>(context: &XdpContext, base: usize, ports: usize) -> u32 {
    let (Some(setup), Some(state)) = (SETUP.get(0), STATE.get_ptr_mut(0)) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: one CPU runs the benchmark, and userspace reads when it has ended.
    let state = unsafe { &mut *state };
    let number = number(setup, state);
    let mut length = context.data_end() - context.data();
    // VERIFIER: keeps LLVM from turning `end - start - n` into `end - (start + n)` ("math between
    // pkt pointer and register with unbounded min value"; Linux 6.18, rustc 1.96).
    // SAFETY: arithmetic; frames are shorter than 64 KiB.
    unsafe { core::arch::asm!("{0} &= 65535", inout(reg) length) };
    // What the last run put before the frame is taken off again, or what it cut off behind is put
    // there; called even for 0 bytes, so that every packet costs the same here. The result tells
    // nothing that the check below does not.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "frames are short"
    )]
    let surplus = length as i32 - setup.frame_bytes as i32;
    // SAFETY: the context is this call's; the packet's pointers are read again afterwards.
    unsafe {
        if surplus < 0 {
            bpf_xdp_adjust_tail(context.ctx, -surplus);
        } else {
            bpf_xdp_adjust_head(context.ctx, surplus);
        }
    }
    let (start, end) = (context.data(), context.data_end());
    if start + base + 8 * WORDS > end {
        return xdp_action::XDP_ABORTED;
    }
    let address = (number & 0x00ff_ffff) << (setup.address_shift & 63);
    let port = (number >> 24 & 0xff) << (setup.port_shift & 63);
    for index in 0..WORDS {
        let mut word = setup.words[index];
        if index == 3 {
            word ^= address & setup.source_mask;
        }
        if index == 5 {
            word ^= address & setup.destination_mask;
        }
        if index == ports {
            word ^= port;
        }
        // SAFETY: the packet's end was compared above.
        unsafe { ((start + base + 8 * index) as *mut u64).write_unaligned(word) };
    }
    head(start, base, setup.head);
    // SAFETY: returns only if there is no subject.
    unsafe { SUBJECT.tail_call(context, 0) };
    xdp_action::XDP_ABORTED
}

/// Restores the bytes before the words.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "takes the word apart")]
fn head(start: usize, base: usize, head: u64) {
    if base == BASE_V4 {
        // SAFETY: the caller compared the packet's end with something further on.
        unsafe { (start as *mut u16).write_unaligned(head as u16) };
    } else {
        // SAFETY: as above.
        unsafe { (start as *mut u32).write_unaligned(head as u32) };
        // SAFETY: as above.
        unsafe { ((start + 4) as *mut u16).write_unaligned((head >> 32) as u16) };
    }
}

/// The client of this packet; reads the clock where it is time.
#[inline(always)]
fn number(setup: &Setup, state: &mut State) -> u64 {
    let count = state.count;
    state.count = count + 1;
    if count == setup.begin {
        // SAFETY: a helper without arguments.
        state.begin_ns = unsafe { bpf_ktime_get_ns() };
    }
    if count == setup.end {
        // SAFETY: a helper without arguments.
        state.end_ns = unsafe { bpf_ktime_get_ns() };
    }
    let next = state.next;
    state.next = next + 1;
    if setup.order == Order::Fixed as u64 {
        0
    } else if setup.order == Order::Sequential as u64 {
        next & 0xffff_ffff
    } else {
        // Steele, Lea, Flood: "Fast splittable pseudorandom number generators" (2014), shortened.
        let mixed = next.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ mixed >> 32).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        ((mixed ^ mixed >> 29) >> 32) * setup.flows >> 32
    }
}
