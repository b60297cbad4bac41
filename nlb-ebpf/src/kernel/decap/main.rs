//! The kernel program at the targets' end of the tunnelled modes: entry point, panic handler,
//! licence.
//!
//! The story is told in the library's `decap`.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "the boundary to the kernel")]

#[path = "../frame.rs"]
mod frame;
mod maps;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use nlb_ebpf::{Verdict, decap::decapsulate};

use crate::{frame::XdpFrame, maps::DecapMaps};

/// One packet.
#[xdp(frags)]
#[inline(always)]
fn decap(context: XdpContext) -> u32 {
    match decapsulate(&mut XdpFrame::new(&context), &DecapMaps) {
        Verdict::Drop => xdp_action::XDP_DROP,
        // Nothing is sent from here.
        Verdict::Pass | Verdict::Transmit | Verdict::Redirect(_) => xdp_action::XDP_PASS,
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
