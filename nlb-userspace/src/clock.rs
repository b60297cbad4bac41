//! The kernel's ticks, as userspace can know them.

use nlb_common::tick::{Clock, Tick};
use rustix::time::{ClockId, Timespec, clock_getres, clock_gettime};

/// How this kernel's jiffies make ticks.
pub fn of_this_kernel() -> Clock {
    Clock::of_jiffy(nanos(clock_getres(ClockId::MonotonicCoarse)))
}

/// The present tick, within one of what the packet program reads.
pub fn now() -> Tick {
    of_this_kernel().tick_at(nanos(clock_gettime(ClockId::MonotonicCoarse)))
}

fn nanos(time: Timespec) -> u64 {
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}
