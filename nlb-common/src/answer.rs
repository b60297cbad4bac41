//! Packets of our own: what a stage asks [`Stage::Answer`](crate::stage::Stage::Answer) to make of
//! the frame in hand, and how many of them a second may bring.

use crate::{listener::ListenerId, tick::Tick};

/// What the sender of a packet is told; a wire number, because it goes through a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Notice(pub u8);

impl Notice {
    /// A TCP segment with RST (RFC 9293 §3.10.7.1).
    pub const RESET: Self = Self(1);
    /// The hop count ran out here: ICMP type 11 code 0 (RFC 792), `ICMPv6` type 3 code 0
    /// (RFC 4443 §3.3).
    pub const TIME_EXCEEDED: Self = Self(2);
    /// The packet does not fit the next link: ICMP type 3 code 4 with the MTU (RFC 1191 §4),
    /// `ICMPv6` type 2 (RFC 4443 §3.2).
    pub const TOO_BIG: Self = Self(3);
}

/// An answer to the sender of the frame in hand: what one stage hands over to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it says.
    pub notice: Notice,
    /// For [`Notice::TOO_BIG`]: the largest IP packet that fits, in bytes.
    pub mtu_bytes: u16,
    /// Whose VIP an ICMP error comes from; it is the only address of ours that clients know.
    pub listener: ListenerId,
}

impl Answer {
    /// The answer as the word that is handed over.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        self.notice.0 as u64 | (self.mtu_bytes as u64) << 16 | (self.listener.0 as u64) << 32
    }

    /// The answer in a word; an unknown notice if there was none.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "takes the word apart")]
    pub const fn of_word(word: u64) -> Self {
        Self {
            notice: Notice(word as u8),
            mtu_bytes: (word >> 16) as u16,
            listener: ListenerId((word >> 32) as u16),
        }
    }
}

/// How many ICMP errors one CPU may still send in this tick, as a word of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct ErrorBudget(pub u64);

impl ErrorBudget {
    /// ICMP errors that one CPU sends per tick of about a second, at most (RFC 1812 §4.3.2.8 and
    /// RFC 4443 §2.4 (f) want a limit and name no number).
    pub const PER_TICK: u32 = 1000;

    /// A budget with so much left in this tick.
    pub const fn new(now: Tick, left: u32) -> Self {
        Self(now.0 as u64 | (left as u64) << 16 | Self::USED)
    }

    /// The budget after one more error, if there may be one.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "takes the word apart")]
    pub const fn spend(self, now: Tick) -> Option<Self> {
        let is_new = self.0 & Self::USED == 0 || now.since(Tick(self.0 as u16)) > 0;
        let left = if is_new {
            Self::PER_TICK
        } else {
            (self.0 >> 16) as u32
        };
        if left == 0 {
            return None;
        }
        Some(Self::new(now, left - 1))
    }

    /// Tells a budget from the zero that a map begins with.
    const USED: u64 = 1 << 63;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_survives_being_handed_over() {
        let answer = Answer {
            notice: Notice::TOO_BIG,
            mtu_bytes: 1280,
            listener: ListenerId(0xabcd),
        };
        assert_eq!(Answer::of_word(answer.to_word()), answer);
    }

    #[test]
    fn a_tick_has_room_for_so_many_errors_and_the_next_one_for_as_many_again() {
        let mut budget = ErrorBudget(0);
        for now in [Tick(0), Tick(1), Tick(7)] {
            for _ in 0..ErrorBudget::PER_TICK {
                budget = budget.spend(now).unwrap();
            }
            assert_eq!(budget.spend(now), None);
        }
    }
}
