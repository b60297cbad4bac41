//! Instructions that Rust has no words for on the BPF target.

use nlb_common::word::Word;

/// Stores `new` in `word` if it holds `seen`; says whether it did.
#[inline(always)]
pub(crate) fn compare_and_swap(word: &Word, seen: u64, new: u64) -> bool {
    let place = word.as_ptr();
    let mut found = seen;
    // SAFETY: `place` points into a map value that stays for the program's life; the
    // instruction (BPF_CMPXCHG, kernel 5.12) is the atomic operation that `core` lacks here.
    unsafe {
        core::arch::asm!(
            "r0 = cmpxchg_64({place} + 0, r0, {new})",
            place = in(reg) place,
            new = in(reg) new,
            inlateout("r0") found,
        );
    }
    found == seen
}

/// The same value, of which the verifier knows nothing any more; `unknown` is any number that it
/// knows nothing of.
#[inline(always)]
pub(crate) fn forget(value: u64, unknown: u64) -> u64 {
    let mut value = value;
    // SAFETY: two exclusive ors with one number change nothing, and touch no memory.
    unsafe {
        core::arch::asm!(
            "{value} ^= {unknown}",
            "{value} ^= {unknown}",
            value = inout(reg) value,
            unknown = in(reg) unknown,
            options(pure, nomem, nostack),
        );
    }
    value
}

/// The same value, of which the compiler knows nothing any more, and which it cannot compute with
/// before this place is reached.
///
/// One instruction, because a line without any is refused ("Invalid line_info").
#[inline(always)]
pub(crate) fn keep(value: u64) -> u64 {
    let mut value = value;
    // SAFETY: a register becomes itself.
    unsafe {
        core::arch::asm!("{value} = {value}", value = inout(reg) value, options(nomem, nostack));
    }
    value
}
