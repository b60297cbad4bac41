//! The numbers that datagrams are given, each once: the counters, and the instruction that Rust has no
//! word for on the BPF target.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use nlb_common::{fragment::Identifications, word::Word};

use super::maps::MMAPABLE;

#[btf_map]
static IDENTIFICATIONS: Array<Identifications, 1, MMAPABLE> = Array::new();

/// [`nlb_ebpf::tables::Tables::next_identification`].
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a count that begins anew")]
pub(crate) fn next(hash: u32) -> u32 {
    let Some(counter) = IDENTIFICATIONS.get(0).and_then(|all| all.counter(hash)) else {
        return 0;
    };
    fetch_and_add(counter, 1) as u32
}

/// Adds to a word; what it held before.
#[inline(always)]
fn fetch_and_add(word: &Word, more: u64) -> u64 {
    let place = word.as_ptr();
    let mut value = more;
    // SAFETY: `place` points into a map value that stays for the program's life; the instruction
    // (BPF_ADD with BPF_FETCH, kernel 5.12) is atomic.
    unsafe {
        core::arch::asm!(
            "{value} = atomic_fetch_add((u64 *)({place} + 0), {value})",
            place = in(reg) place,
            value = inout(reg) value,
        );
    }
    value
}
