//! Sequence numbers of flows that began with a SYN cookie: the client counts from the cookie, its
//! target from a number of its own, and the difference between the two stands here.
//!
//! Two words beside each entry of the flow table, which is full. They belong to the entry's flow if
//! that says so ([`FlowState::SEQUENCE_TRANSLATED`](crate::flow::FlowState::SEQUENCE_TRANSLATED)),
//! and are written while the entry is busy.

use crate::{flow::WAYS, word::Word};

/// How the numbers of a flow's target become those that its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbering {
    /// The target has not answered: this is the cookie, which the client takes for its first number.
    Unanswered(u32),
    /// So much is added to the target's numbers, modulo 2³².
    Shifted(u32),
}

impl Numbering {
    /// Tells [`Self::Shifted`] from [`Self::Unanswered`].
    const IS_SHIFTED: u64 = 1 << 32;

    /// As a word.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        match self {
            Self::Unanswered(cookie) => cookie as u64,
            Self::Shifted(shift) => shift as u64 | Self::IS_SHIFTED,
        }
    }

    /// Of a word.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "takes the word apart")]
    pub const fn of_word(word: u64) -> Self {
        if word & Self::IS_SHIFTED == 0 {
            Self::Unanswered(word as u32)
        } else {
            Self::Shifted(word as u32)
        }
    }
}

/// What the SYN to the target says, for when it has to be said again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The client's first number, which needs no translation.
    pub sequence: u32,
    /// The largest segment that the client takes, in bytes, as far as the cookie could tell.
    pub segment_bytes: u16,
}

impl Opening {
    /// As a word.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        self.sequence as u64 | (self.segment_bytes as u64) << 32
    }

    /// Of a word.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "takes the word apart")]
    pub const fn of_word(word: u64) -> Self {
        Self {
            sequence: word as u32,
            segment_bytes: (word >> 32) as u16,
        }
    }
}

/// What stands beside one entry.
#[derive(Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)]
#[repr(C, align(16))]
pub struct Sequence {
    /// [`Numbering`]; changes once, by compare and swap.
    pub numbering: Word,
    /// [`Opening`].
    pub opening: Word,
}

/// A [`Sequence`] for each entry of a bucket of the flow table: a cache line.
#[derive(Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)]
#[repr(C, align(64))]
pub struct Sequences {
    /// In the entries' order.
    pub entries: [Sequence; WAYS],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_hold_what_was_put_into_them() {
        for number in [0, 1, u32::MAX] {
            for numbering in [Numbering::Unanswered(number), Numbering::Shifted(number)] {
                assert_eq!(Numbering::of_word(numbering.to_word()), numbering);
            }
            let opening = Opening {
                sequence: number,
                segment_bytes: u16::MAX,
            };
            assert_eq!(Opening::of_word(opening.to_word()), opening);
        }
    }
}
