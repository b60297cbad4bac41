//! Time as flows know it.

/// Monotonic time in units of 2³⁰ ns (1.07 s), modulo 2¹⁶ (19.5 h).
///
/// A shift of the kernel's coarse clock (`bpf_ktime_get_coarse_ns`) costs next to nothing, and a
/// flow's "last seen" changes about once a second only, which keeps its cache line clean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick(pub u16);

/// Nanoseconds to ticks.
const SHIFT: u32 = 30;

impl Tick {
    /// The tick that holds this instant of `CLOCK_MONOTONIC`, in nanoseconds.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "ticks wrap by definition")]
    pub const fn of_nanos(nanos: u64) -> Self {
        Self((nanos >> SHIFT) as u16)
    }

    /// How many ticks have gone by since `earlier`; right for spans below 19.5 h.
    #[inline(always)]
    pub const fn since(self, earlier: Self) -> u16 {
        self.0.wrapping_sub(earlier.0)
    }

    /// The smallest number of ticks that is no shorter than this many seconds; at most 2¹⁶ − 1.
    #[expect(clippy::cast_possible_truncation, reason = "capped by `min`")]
    pub const fn count_of_seconds(seconds: u32) -> u16 {
        let nanos = seconds as u64 * 1_000_000_000;
        let ticks = nanos.div_ceil(1 << SHIFT);
        if ticks > u16::MAX as u64 {
            u16::MAX
        } else {
            ticks as u16
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_survive_the_wrap() {
        assert_eq!(Tick(3).since(Tick(65_530)), 9);
    }

    #[test]
    fn seconds_are_never_shortened() {
        for seconds in [1u32, 60, 120, 350, 6000] {
            let span = u64::from(Tick::count_of_seconds(seconds)) << SHIFT;
            assert!(span >= u64::from(seconds) * 1_000_000_000);
        }
        assert_eq!(Tick::count_of_seconds(u32::MAX), u16::MAX);
    }
}
