//! The load balancer's kernel programs, one for each stage of a packet's story: entry points, panic
//! handler, licence.
//!
//! The story is told in the library; `kernel/` is where it touches the kernel.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(unsafe_code, reason = "the boundary to the kernel")]

mod kernel;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use nlb_common::stop::Stop;
use nlb_ebpf::{
    Exit, Verdict,
    answer::answer,
    begin::{begin, first},
    classify::{back, classify},
    cookie::{
        answer::answer as cookie, back::back as sequence_back, begin::begin as cookie_begin,
        check::check as cookie_return, icmp::icmp as sequence_icmp, known::known as sequence_known,
    },
    depart::depart,
    fragment::fragment,
    front::front,
    icmp::icmp,
    outer_error::outer_error,
    quic::quic,
    snat::{
        back::back as snat_back, begin::begin as snat_begin, icmp::icmp as snat_icmp,
        known::first as snat_first, known::known as snat_known,
    },
    stopped,
};

use crate::kernel::{faults, frame::XdpFrame, maps::Maps, redirect, stages::go};

/// One stage of a packet's story.
///
/// A macro, and the programs are inlined into the entry points that theirs makes: a call between BPF
/// functions costs several nanoseconds where returns are protected (`retbleed`, `srso`).
macro_rules! run {
    ($stage:ident, $context:ident) => {{
        let maps = Maps { context: &$context };
        let verdict = match $stage(&mut XdpFrame::new(&$context), &maps) {
            Ok(verdict) => verdict,
            Err(Exit::Stop(stop)) => {
                let verdict = stopped(&maps, stop);
                faults::tell(&maps, stop);
                verdict
            }
            Err(Exit::Go(stage)) => {
                // Returns only if the stage is missing.
                go(&$context, stage);
                let verdict = stopped(&maps, Stop::MissingStage);
                faults::tell(&maps, Stop::MissingStage);
                verdict
            }
        };
        match verdict {
            Verdict::Pass => xdp_action::XDP_PASS,
            Verdict::Drop => xdp_action::XDP_DROP,
            Verdict::Transmit => xdp_action::XDP_TX,
            Verdict::Redirect(interface) => redirect(interface),
        }
    }};
}

/// The program that is attached.
#[xdp(frags)]
#[inline(always)]
fn nlb(context: XdpContext) -> u32 {
    run!(front, context)
}

/// [`nlb_ebpf::Stage::Classify`].
#[xdp(frags)]
#[inline(always)]
fn nlb_classify(context: XdpContext) -> u32 {
    run!(classify, context)
}

/// [`nlb_ebpf::Stage::Begin`].
#[xdp(frags)]
#[inline(always)]
fn nlb_begin(context: XdpContext) -> u32 {
    run!(begin, context)
}

/// [`nlb_ebpf::Stage::First`].
#[xdp(frags)]
#[inline(always)]
fn nlb_first(context: XdpContext) -> u32 {
    run!(first, context)
}

/// [`nlb_ebpf::Stage::Back`].
#[xdp(frags)]
#[inline(always)]
fn nlb_back(context: XdpContext) -> u32 {
    run!(back, context)
}

/// [`nlb_ebpf::Stage::Icmp`].
#[xdp(frags)]
#[inline(always)]
fn nlb_icmp(context: XdpContext) -> u32 {
    run!(icmp, context)
}

/// [`nlb_ebpf::Stage::Fragment`].
#[xdp(frags)]
#[inline(always)]
fn nlb_fragment(context: XdpContext) -> u32 {
    run!(fragment, context)
}

/// [`nlb_ebpf::Stage::Answer`].
#[xdp(frags)]
#[inline(always)]
fn nlb_answer(context: XdpContext) -> u32 {
    run!(answer, context)
}

/// [`nlb_ebpf::Stage::Depart`].
#[xdp(frags)]
#[inline(always)]
fn nlb_depart(context: XdpContext) -> u32 {
    run!(depart, context)
}

/// [`nlb_ebpf::Stage::SnatKnown`].
#[xdp(frags)]
#[inline(always)]
fn nlb_snat_known(context: XdpContext) -> u32 {
    run!(snat_known, context)
}

/// [`nlb_ebpf::Stage::SnatBegin`].
#[xdp(frags)]
#[inline(always)]
fn nlb_snat_begin(context: XdpContext) -> u32 {
    run!(snat_begin, context)
}

/// [`nlb_ebpf::Stage::SnatBack`].
#[xdp(frags)]
#[inline(always)]
fn nlb_snat_back(context: XdpContext) -> u32 {
    run!(snat_back, context)
}

/// [`nlb_ebpf::Stage::SnatIcmp`].
#[xdp(frags)]
#[inline(always)]
fn nlb_snat_icmp(context: XdpContext) -> u32 {
    run!(snat_icmp, context)
}

/// [`nlb_ebpf::Stage::SnatFirst`].
#[xdp(frags)]
#[inline(always)]
fn nlb_snat_first(context: XdpContext) -> u32 {
    run!(snat_first, context)
}

/// [`nlb_ebpf::Stage::OuterError`].
#[xdp(frags)]
#[inline(always)]
fn nlb_outer_error(context: XdpContext) -> u32 {
    run!(outer_error, context)
}

/// [`nlb_ebpf::Stage::Cookie`].
#[xdp(frags)]
#[inline(always)]
fn nlb_cookie(context: XdpContext) -> u32 {
    run!(cookie, context)
}

/// [`nlb_ebpf::Stage::CookieReturn`].
#[xdp(frags)]
#[inline(always)]
fn nlb_cookie_return(context: XdpContext) -> u32 {
    run!(cookie_return, context)
}

/// [`nlb_ebpf::Stage::CookieBegin`].
#[xdp(frags)]
#[inline(always)]
fn nlb_cookie_begin(context: XdpContext) -> u32 {
    run!(cookie_begin, context)
}

/// [`nlb_ebpf::Stage::SequenceKnown`].
#[xdp(frags)]
#[inline(always)]
fn nlb_sequence_known(context: XdpContext) -> u32 {
    run!(sequence_known, context)
}

/// [`nlb_ebpf::Stage::SequenceBack`].
#[xdp(frags)]
#[inline(always)]
fn nlb_sequence_back(context: XdpContext) -> u32 {
    run!(sequence_back, context)
}

/// [`nlb_ebpf::Stage::SequenceIcmp`].
#[xdp(frags)]
#[inline(always)]
fn nlb_sequence_icmp(context: XdpContext) -> u32 {
    run!(sequence_icmp, context)
}

/// [`nlb_ebpf::Stage::Quic`].
#[xdp(frags)]
#[inline(always)]
fn nlb_quic(context: XdpContext) -> u32 {
    run!(quic, context)
}

/// [`nlb_ebpf::Stage::Fault`].
#[xdp(frags)]
#[inline(always)]
fn nlb_fault(context: XdpContext) -> u32 {
    faults::log(&context);
    xdp_action::XDP_DROP
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here can panic: the verifier refuses a program that could reach this loop.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
