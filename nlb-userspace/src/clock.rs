//! The kernel's ticks, as userspace can know them.

use std::{sync::OnceLock, time::Duration};

use nlb_common::tick::{Clock, Tick};
use rustix::time::{ClockId, Timespec, clock_getres, clock_gettime};

/// How this kernel's jiffies make ticks. Asked once: it is a constant of the kernel's, and every
/// listener's time-outs are counted with it each time that the wish is made.
pub fn of_this_kernel() -> Clock {
    static CLOCK: OnceLock<Clock> = OnceLock::new();
    *CLOCK.get_or_init(|| Clock::of_jiffy(nanos(clock_getres(ClockId::MonotonicCoarse))))
}

/// The present tick, within one of what the packet program reads.
pub fn now() -> Tick {
    now_of(of_this_kernel().shift)
}

/// The present tick of a program whose ticks are 2 to the power of `shift` jiffies.
pub fn now_of(shift: u32) -> Tick {
    let time = nanos(clock_gettime(ClockId::MonotonicCoarse));
    of_this_kernel().with_shift(shift).tick_at(time)
}

/// The time that `CLOCK_MONOTONIC` shows, as the kernel's programs read it.
pub fn since_boot() -> Duration {
    Duration::from_nanos(nanos(clock_gettime(ClockId::Monotonic)))
}

fn nanos(time: Timespec) -> u64 {
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}
