//! Why a packet was stopped: which of the load balancer's counters it has moved.
//!
//! It counts for each processor, and no packet interrupts another there: what was counted between the
//! programs before and after is this packet's.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use nlb_common::stop::Stop;

use crate::instructions::keep;

/// The load balancer's own, which the loader puts here.
#[btf_map]
static STOP_COUNTERS: PerCpuArray<u64, { Stop::COUNT }> = PerCpuArray::new();

/// The reasons that were counted since, a bit for each; `counted` says how often they are counted by now.
///
/// VERIFIER: no branch depends on a counter; of 44 that do it follows every combination.
#[inline(always)]
pub(crate) fn counted_since(counted: &mut [u64; Stop::COUNT]) -> u64 {
    let mut stops = 0;
    for (index, before) in (0..).zip(counted) {
        let Some(now) = STOP_COUNTERS.get(index).copied() else {
            return stops;
        };
        let more = now ^ *before;
        // The sign of one of the two is 1, unless both are zero.
        stops |= (more | keep(more.wrapping_neg())) >> 63 << index;
        *before = now;
    }
    stops
}
