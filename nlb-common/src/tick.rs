//! Time as flows know it.

/// Time in units of about a second, modulo 2¹⁶ (15 h at least).
///
/// A tick is a power of two of the kernel's jiffies: the clock that a BPF program reads by a load
/// and a shift, where every other one takes a call. A flow's "last seen" changes about once a
/// second only, which keeps its cache line clean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick(pub u16);

impl Tick {
    /// The tick of this many jiffies.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "ticks wrap by definition")]
    pub const fn of_jiffies(jiffies: u64, shift: u32) -> Self {
        Self((jiffies >> (shift & 63)) as u16)
    }

    /// How many ticks have gone by since `earlier`; right for spans below 14 h.
    ///
    /// None if `earlier` is a little later: another core may have read the clock after us, and
    /// noted it before we looked; and userspace knows the clock within a tick only.
    #[inline(always)]
    pub const fn since(self, earlier: Self) -> u16 {
        let span = self.0.wrapping_sub(earlier.0);
        if span > u16::MAX - LITTLE_TICKS {
            0
        } else {
            span
        }
    }

    /// The number of ticks that is no shorter than this many seconds with any kernel's jiffies;
    /// at most 2¹⁶ − 1. For what need not be exact; [`Clock::count_of_seconds`] is.
    pub const fn at_least_seconds(seconds: u32) -> u16 {
        saturated((seconds as u64 * NANOS_PER_SECOND).div_ceil(SHORTEST_TICK_NANOS))
    }
}

/// How far ahead of us another reader of the clock may seem to be.
const LITTLE_TICKS: u16 = 8;
const NANOS_PER_SECOND: u64 = 1_000_000_000;
const SHORTEST_TICK_NANOS: u64 = 800_000_000;

#[expect(clippy::cast_possible_truncation, reason = "compared before")]
const fn saturated(ticks: u64) -> u16 {
    if ticks > u16::MAX as u64 {
        u16::MAX
    } else {
        ticks as u16
    }
}

/// How a kernel's jiffies make ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    nanos_per_jiffy: u64,
    /// A tick is 2 to the power of this jiffies.
    pub shift: u32,
}

impl Clock {
    /// The clock of a kernel whose `CLOCK_MONOTONIC_COARSE` has this resolution, which is one
    /// jiffy (`clock_getres(2)`).
    pub const fn of_jiffy(nanos_per_jiffy: u64) -> Self {
        let nanos_per_jiffy = if nanos_per_jiffy == 0 {
            1
        } else {
            nanos_per_jiffy
        };
        let mut shift = 0;
        while nanos_per_jiffy << shift < SHORTEST_TICK_NANOS {
            shift += 1;
        }
        Self {
            nanos_per_jiffy,
            shift,
        }
    }

    /// The same jiffies in ticks of another length: 2 to the power of `shift` of them.
    #[must_use]
    pub const fn with_shift(self, shift: u32) -> Self {
        Self { shift, ..self }
    }

    /// The tick at this time of `CLOCK_MONOTONIC_COARSE`, within one of what the kernel counts.
    ///
    /// The kernel's jiffies begin five minutes before they wrap at 32 bits (`INITIAL_JIFFIES` of
    /// `linux/jiffies.h`) and count the jiffies of monotonic time.
    pub const fn tick_at(&self, monotonic_nanos: u64) -> Tick {
        let hertz = NANOS_PER_SECOND / self.nanos_per_jiffy;
        let initial = (1 << 32) - 300 * hertz;
        Tick::of_jiffies(initial + monotonic_nanos / self.nanos_per_jiffy, self.shift)
    }

    /// The smallest number of events in a tick that is no lower a rate than this many in a second.
    #[expect(clippy::cast_possible_truncation, reason = "compared before")]
    pub const fn count_per_tick(&self, per_second: u32) -> u32 {
        let tick_nanos = self.nanos_per_jiffy << self.shift;
        let count = (per_second as u64)
            .saturating_mul(tick_nanos)
            .div_ceil(NANOS_PER_SECOND);
        if count > u32::MAX as u64 {
            u32::MAX
        } else {
            count as u32
        }
    }

    /// The smallest number of ticks that is no shorter than this many seconds; at most 2¹⁶ − 1.
    pub const fn count_of_seconds(&self, seconds: u32) -> u16 {
        saturated((seconds as u64 * NANOS_PER_SECOND).div_ceil(self.nanos_per_jiffy << self.shift))
    }

    /// The smallest number of seconds that is no shorter than this many ticks.
    pub const fn seconds_of_count(&self, ticks: u16) -> u64 {
        (ticks as u64 * (self.nanos_per_jiffy << self.shift)).div_ceil(NANOS_PER_SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HZ of 100, 250, 300 and 1000.
    const JIFFIES: [u64; 4] = [10_000_000, 4_000_000, 3_333_333, 1_000_000];

    #[test]
    fn spans_survive_the_wrap() {
        assert_eq!(Tick(3).since(Tick(65_530)), 9);
    }

    #[test]
    fn a_flow_that_another_core_saw_a_moment_later_has_not_been_silent() {
        assert_eq!(Tick(7).since(Tick(8)), 0);
        assert_eq!(Tick(u16::MAX).since(Tick(0)), 0);
    }

    #[test]
    fn a_tick_is_about_a_second_with_every_kernel() {
        for jiffy in JIFFIES {
            let clock = Clock::of_jiffy(jiffy);
            let nanos = jiffy << clock.shift;
            assert!(
                (SHORTEST_TICK_NANOS..1_600_000_000).contains(&nanos),
                "{nanos}"
            );
        }
    }

    #[test]
    fn seconds_are_never_shortened() {
        for seconds in [1u32, 60, 120, 350, 6000] {
            for jiffy in JIFFIES {
                let clock = Clock::of_jiffy(jiffy);
                let ticks = clock.count_of_seconds(seconds);
                let span = u64::from(ticks) * (jiffy << clock.shift);
                assert!(span >= u64::from(seconds) * NANOS_PER_SECOND);
                assert!(Tick::at_least_seconds(seconds) >= ticks);
            }
        }
        assert_eq!(Clock::of_jiffy(1).count_of_seconds(u32::MAX), u16::MAX);
        assert_eq!(Tick::at_least_seconds(u32::MAX), u16::MAX);
    }

    #[test]
    fn a_rate_is_never_lowered_by_counting_it_in_ticks() {
        for jiffy in JIFFIES {
            let clock = Clock::of_jiffy(jiffy);
            assert_eq!(clock.count_per_tick(0), 0);
            for per_second in [1u32, 100, 1_000_000] {
                let ticks_of_1000_seconds = 1000 * NANOS_PER_SECOND / (jiffy << clock.shift);
                let count = ticks_of_1000_seconds * u64::from(clock.count_per_tick(per_second));
                // Parts of a tick at the end are not counted.
                assert!(count + 2 * u64::from(per_second) >= 1000 * u64::from(per_second));
                assert!(count <= 1000 * u64::from(per_second) + ticks_of_1000_seconds);
            }
        }
        assert_eq!(Clock::of_jiffy(1 << 34).count_per_tick(u32::MAX), u32::MAX);
    }

    #[test]
    fn time_goes_by_in_ticks() {
        let clock = Clock::of_jiffy(4_000_000);
        let (start, later) = (clock.tick_at(0), clock.tick_at(100 * NANOS_PER_SECOND));
        assert!((97..=98).contains(&later.since(start)));
    }
}
