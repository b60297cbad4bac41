//! Faults of the daemon, told in its log: a stage of its own, because what formats a message needs
//! stack that the other stages have no room for beside their own.

use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::error;
use nlb_common::stop::Stop;
use nlb_ebpf::{Stage, tables::Tables as _};

use super::{
    maps::{Maps, logs_faults},
    stages::go,
};

/// What is said of a stop that is the daemon's fault.
#[inline(always)]
const fn is_fault(stop: Stop) -> bool {
    matches!(
        stop,
        Stop::UnwrittenListener
            | Stop::UnwrittenTarget
            | Stop::UnwrittenTunnel
            | Stop::MissingStage
    )
}

/// Goes on to [`Stage::Fault`] if the packet was stopped by a fault that is to be logged; returns
/// otherwise.
#[inline(always)]
pub(crate) fn tell(maps: &Maps<'_>, stop: Stop) {
    if is_fault(stop) && logs_faults() {
        maps.hand_over(stop as u64);
        go(maps.context, Stage::Fault);
    }
}

/// Logs the fault that was handed over.
#[inline(always)]
pub(crate) fn log(context: &XdpContext) {
    const LISTENER: u64 = Stop::UnwrittenListener as u64;
    const TARGET: u64 = Stop::UnwrittenTarget as u64;
    const TUNNEL: u64 = Stop::UnwrittenTunnel as u64;
    match (Maps { context }).handed_over() {
        LISTENER => error!(context, "a listener id without a record"),
        TARGET => error!(context, "a target id without a record"),
        TUNNEL => error!(context, "a target group without a tunnel"),
        _ => error!(context, "a stage of the program is missing"),
    }
}
