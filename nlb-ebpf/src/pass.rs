//! A kernel program that passes every frame.
//!
//! The far end of a veth pair takes frames from `XDP_TX` and `XDP_REDIRECT` for sure only if it has
//! an XDP program of its own; this is the smallest. Real NICs need no such thing.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "the licence must stand in a section of its own")]

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};

/// One packet.
#[xdp(frags)]
fn pass(_: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
