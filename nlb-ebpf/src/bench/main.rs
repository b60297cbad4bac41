//! The benchmark's kernel programs: what measures, and what is measured beside the load balancer.
//!
//! * [`reset`]: the trampoline that gives every repeat of `BPF_PROG_TEST_RUN` a fresh packet.
//! * [`lookups`]: flow tables of several designs, on equal terms.
//! * Here: the floors.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(unsafe_code, reason = "the boundary to the kernel")]

#[path = "../kernel/frame.rs"]
mod frame;
#[path = "../kernel/instructions.rs"]
mod instructions;
mod lookups;
mod reset;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use nlb_common::wire::ethernet::Ethernet;
use nlb_ebpf::frame::{Frame as _, Offset};

use crate::frame::XdpFrame;

/// The baseline: what the trampoline itself costs.
#[xdp(frags)]
fn transmit(_: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

/// The least that a program does that sends a packet back.
#[xdp(frags)]
fn swap_macs(context: XdpContext) -> u32 {
    let mut frame = XdpFrame::new(&context);
    let Some(ethernet) = frame.get_mut::<Ethernet>(Offset(0)) else {
        return xdp_action::XDP_ABORTED;
    };
    core::mem::swap(&mut ethernet.destination, &mut ethernet.source);
    xdp_action::XDP_TX
}

/// The headers of a packet in a tunnel, all of them constants: Ethernet, and IPv4 around IPv4.
const OUTER: [u8; 34] = [
    2, 0, 0, 0, 1, 11, 2, 0, 0, 0, 0, 1, 8, 0, // Ethernet
    0x45, 0, 0, 124, 0, 0, 0x40, 0, 64, 4, 0, 0, // IPv4, protocol 4, no checksum
    192, 168, 0, 1, 192, 168, 0, 11, // addresses
];
/// Bytes of the outer IPv4 header.
const OUTER_BYTES: i16 = 20;

/// The least that a program does that sends a packet on in a tunnel.
#[xdp(frags)]
fn encapsulate(context: XdpContext) -> u32 {
    let mut frame = XdpFrame::new(&context);
    if frame.move_start(OUTER_BYTES).is_err() {
        return xdp_action::XDP_ABORTED;
    }
    let Some(outer) = frame.get_mut::<[u8; OUTER.len()]>(Offset(0)) else {
        return xdp_action::XDP_ABORTED;
    };
    *outer = OUTER;
    xdp_action::XDP_TX
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
