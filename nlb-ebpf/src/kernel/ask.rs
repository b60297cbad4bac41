//! A kernel program that asks the kernel's routes as the load balancer does, for `nlb explain`: the
//! question stands in the frame that it is run on, and so does the answer, afterwards.
//!
//! It is run by `BPF_PROG_TEST_RUN` only, and attached nowhere.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "the boundary to the kernel")]

#[path = "frame.rs"]
mod frame;
#[path = "route.rs"]
mod route;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use nlb_common::{address::Address, route::RouteFrame};
use nlb_ebpf::{
    frame::{Frame as _, Offset},
    tables::RouteQuery,
};

use crate::frame::XdpFrame;

/// Answers one question.
#[xdp(frags)]
fn ask(context: XdpContext) -> u32 {
    let mut frame = XdpFrame::new(&context);
    let Some(question) = frame.get::<RouteFrame>(Offset(0)) else {
        return xdp_action::XDP_ABORTED;
    };
    let query = RouteQuery {
        destination: Address::from_v6_bytes(question.destination),
        source: Address::from_v6_bytes(question.source),
        interface: question.interface.get(),
        traffic_class: question.traffic_class,
        protocol: question.protocol,
    };
    // VLANs are looked up by who asks, and nobody is to resolve a neighbour for a question's sake.
    let found = route::look_up(&context, &query, |_| None, |_| {});
    let Some(answer) = frame.get_mut::<RouteFrame>(Offset(0)) else {
        return xdp_action::XDP_ABORTED;
    };
    match found {
        Ok(route) => {
            answer.outcome = RouteFrame::FOUND;
            answer.neighbour = route.neighbour.v6_bytes();
            answer.leaves_by.set(route.interface);
            answer.macs_head.set(route.next_hop.macs.head);
            answer.macs_tail.set(route.next_hop.macs.tail);
            answer.mtu_bytes.set(route.next_hop.mtu_bytes);
        }
        Err(stop) => answer.outcome = stop as u8,
    }
    xdp_action::XDP_PASS
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
