//! Whether SYNs come to a listener faster than it is used to: what decides where SYN cookies are for
//! attacks only.
//!
//! One word, counted by whoever has a SYN in hand, so that the very tick that brings too many answers
//! the rest of them with cookies, whatever the daemon does.

use crate::tick::Tick;

/// How long a listener goes on with cookies after a tick that brought too many SYNs, in ticks: so that
/// the first SYNs of each tick of an attack are answered so, too, and those that clients send again.
pub const CALM_TICKS: u16 = 16;

/// SYNs that are counted at most: far more than a tick brings.
const COUNTED: u32 = (1 << 31) - 1;
/// The bit that says that there was a tick of too many.
const WAS_HIGH: u64 = 1 << 31;

/// How many SYNs came: the tick (bits 48–63) and those of it (0–30); and the last tick that brought too
/// many (32–47), if one did (31).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pressure {
    tick: Tick,
    syns: u32,
    high: Option<Tick>,
}

impl Pressure {
    /// As a word.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        let high = match self.high {
            Some(tick) => WAS_HIGH | (tick.0 as u64) << 32,
            None => 0,
        };
        (self.tick.0 as u64) << 48 | high | self.syns as u64
    }

    /// Of a word; zero is one of nothing.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "takes the word apart")]
    pub const fn of_word(word: u64) -> Self {
        Self {
            tick: Tick((word >> 48) as u16),
            syns: word as u32 & COUNTED,
            high: if word & WAS_HIGH == 0 {
                None
            } else {
                Some(Tick((word >> 32) as u16))
            },
        }
    }

    /// After one more SYN, where so many in a tick are usual. The same once the tick has had more, so
    /// that an attack writes nothing.
    #[inline(always)]
    #[must_use]
    pub const fn after_a_syn(self, now: Tick, usual_per_tick: u32) -> Self {
        let is_this_tick = now.since(self.tick) == 0;
        let tick = if is_this_tick { self.tick } else { now };
        let syns = if is_this_tick { self.syns } else { 0 };
        if syns >= usual_per_tick || syns == COUNTED {
            return Self {
                tick,
                syns,
                high: Some(tick),
            };
        }
        Self {
            tick,
            syns: syns + 1,
            // One of long ago would be a new one when ticks have gone round.
            high: if self.is_high(now) { self.high } else { None },
        }
    }

    /// Whether this tick has brought too many SYNs, or one did not long ago.
    #[inline(always)]
    pub const fn is_high(self, now: Tick) -> bool {
        match self.high {
            Some(tick) => now.since(tick) <= CALM_TICKS,
            None => false,
        }
    }

    /// The SYNs of this tick.
    #[cfg(not(target_arch = "bpf"))]
    pub const fn syns(self, now: Tick) -> u32 {
        if now.since(self.tick) == 0 {
            self.syns
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Pressure = Pressure::of_word(0);
    /// Ticks go round soon after.
    const NEAR_THE_END: u16 = u16::MAX - 35;

    fn after(mut pressure: Pressure, now: Tick, syns: u32) -> Pressure {
        for _ in 0..syns {
            pressure = pressure.after_a_syn(now, 100);
            assert_eq!(Pressure::of_word(pressure.to_word()), pressure);
        }
        pressure
    }

    #[test]
    fn as_many_as_usual_are_no_attack_and_one_more_is() {
        for start in [0, 1, 1000, NEAR_THE_END] {
            let mut pressure = NOTHING;
            for tick in 0..50 {
                let now = Tick(u16::wrapping_add(start, tick));
                pressure = after(pressure, now, 100);
                assert!(!pressure.is_high(now));
                assert_eq!(pressure.syns(now), 100);
            }
        }
        let now = Tick(7);
        assert!(after(NOTHING, now, 101).is_high(now));
    }

    #[test]
    fn an_attack_writes_no_more_than_what_is_usual() {
        let now = Tick(7);
        let high = after(NOTHING, now, 101);
        assert_eq!(after(high, now, 1_000_000), high);
    }

    #[test]
    fn an_attack_is_over_some_time_after_its_last_excess_and_stays_over() {
        let high = after(NOTHING, Tick(NEAR_THE_END), 200);
        let last = Tick(NEAR_THE_END + CALM_TICKS);
        assert!(after(high, last, 1).is_high(last), "its last tick");
        let over = Tick(NEAR_THE_END + CALM_TICKS + 1);
        assert!(!high.is_high(over));
        let calm = after(high, over, 1);
        for tick in 0..=u16::MAX {
            assert!(!calm.is_high(Tick(tick)), "{tick}");
        }
    }

    #[test]
    fn another_cores_clock_begins_no_tick_anew() {
        let high = after(NOTHING, Tick(8), 101);
        assert_eq!(after(high, Tick(7), 1), high);
        assert!(high.is_high(Tick(7)));
    }
}
