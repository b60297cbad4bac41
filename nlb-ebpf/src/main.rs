//! The load balancer's kernel program: entry point, panic handler, licence.
//!
//! The story is told in the library; `kernel/` is where it touches the kernel.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(unsafe_code, reason = "the boundary to the kernel")]

mod kernel;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use nlb_ebpf::{Verdict, handle};

use crate::kernel::{frame::XdpFrame, maps::Maps, redirect};

/// One packet.
///
/// Inlined into the entry point that the macro makes: a call between BPF functions costs several
/// nanoseconds where returns are protected (`retbleed`, `srso`).
#[xdp]
#[inline(always)]
fn nlb(context: XdpContext) -> u32 {
    match handle(&mut XdpFrame::new(&context), &Maps { context: &context }) {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Drop => xdp_action::XDP_DROP,
        Verdict::Transmit => xdp_action::XDP_TX,
        Verdict::Redirect(interface) => redirect(interface),
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here can panic: the verifier refuses a program that could reach this loop.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
