//! What instructions compute and when they jump (RFC 9669 §4): numbers in, numbers out.

use anyhow::{Result, bail};

/// How much of a register counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// The low half; the other one becomes 0.
    Half,
    /// All of it.
    Full,
}

impl Width {
    pub(super) const fn of(is_full: bool) -> Self {
        if is_full { Self::Full } else { Self::Half }
    }

    const fn cut(self, value: u64) -> u64 {
        match self {
            Self::Half => value & u32::MAX as u64,
            Self::Full => value,
        }
    }

    /// The value with its sign, at full width.
    #[expect(clippy::cast_possible_truncation, reason = "the low half")]
    const fn signed(self, value: u64) -> i64 {
        match self {
            Self::Half => (value as u32).cast_signed() as i64,
            Self::Full => value.cast_signed(),
        }
    }

    /// A shift's distance.
    const fn distance(self, value: u64) -> u32 {
        match self {
            Self::Half => (value & 31) as u32,
            Self::Full => (value & 63) as u32,
        }
    }
}

/// The arithmetic operation with this number.
pub(super) fn alu(operation: u8, value: u64, operand: u64, width: Width) -> Result<u64> {
    let (a, b) = (width.cut(value), width.cut(operand));
    let distance = width.distance(operand);
    Ok(width.cut(match operation {
        0x0 => a.wrapping_add(b),
        0x1 => a.wrapping_sub(b),
        0x2 => a.wrapping_mul(b),
        0x3 => a.checked_div(b).unwrap_or(0),
        0x4 => a | b,
        0x5 => a & b,
        0x6 => a << distance,
        0x7 => a >> distance,
        0x8 => a.wrapping_neg(),
        0x9 => a.checked_rem(b).unwrap_or(a),
        0xa => a ^ b,
        0xb => b,
        0xc => (width.signed(a) >> distance).cast_unsigned(),
        other => bail!("arithmetic of the unknown kind {other:#x}"),
    }))
}

/// Whether the conditional jump with this number is taken.
pub(super) fn jumps(condition: u8, value: u64, operand: u64, width: Width) -> Result<bool> {
    let (a, b) = (width.cut(value), width.cut(operand));
    let (signed_a, signed_b) = (width.signed(a), width.signed(b));
    Ok(match condition {
        0x1 => a == b,
        0x2 => a > b,
        0x3 => a >= b,
        0x4 => a & b != 0,
        0x5 => a != b,
        0x6 => signed_a > signed_b,
        0x7 => signed_a >= signed_b,
        0xa => a < b,
        0xb => a <= b,
        0xc => signed_a < signed_b,
        0xd => signed_a <= signed_b,
        other => bail!("a jump of the unknown kind {other:#x}"),
    })
}

/// The low bits of a value in big-endian or in little-endian order, as which they are kept.
#[expect(clippy::cast_possible_truncation, reason = "the low bits")]
pub(super) fn swap_bytes(value: u64, bits: i32, is_big: bool) -> Result<u64> {
    Ok(match (bits, is_big) {
        (16, true) => (value as u16).swap_bytes().into(),
        (32, true) => (value as u32).swap_bytes().into(),
        (64, true) => value.swap_bytes(),
        (16, false) => value & 0xffff,
        (32, false) => value & 0xffff_ffff,
        (64, false) => value,
        _ => bail!("an order of {bits} bits"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_register_clears_the_other_half() {
        let result = alu(0x0, u64::MAX, 1, Width::Half).unwrap();
        assert_eq!(result, 0);
        assert_eq!(alu(0xb, 0, u64::MAX, Width::Half).unwrap(), 0xffff_ffff);
    }

    #[test]
    fn signs_count_where_the_instruction_says_so() {
        let minus_one = u64::MAX;
        assert!(jumps(0x2, minus_one, 1, Width::Full).unwrap());
        assert!(!jumps(0x6, minus_one, 1, Width::Full).unwrap());
        assert!(jumps(0xc, 0xffff_ffff, 0, Width::Half).unwrap());
        let half = alu(0xc, 0x8000_0000, 4, Width::Half).unwrap();
        assert_eq!(half, 0xf800_0000);
    }

    #[test]
    fn division_by_nothing_is_nothing_and_the_remainder_is_all() {
        assert_eq!(alu(0x3, 7, 0, Width::Full).unwrap(), 0);
        assert_eq!(alu(0x9, 7, 0, Width::Full).unwrap(), 7);
    }

    #[test]
    fn network_order_is_big_endian() {
        assert_eq!(swap_bytes(0x1_1234, 16, true).unwrap(), 0x3412);
    }
}
