//! The ring buffer of fragments that the daemon is asked to keep.

use aya_ebpf::{btf_maps::RingBuf, macros::btf_map};
use nlb_common::{
    early::{EARLY_BYTES, EarlyFragment},
    fragment::FragmentKey,
};
use nlb_ebpf::frame::Frame;

#[btf_map]
static EARLY: RingBuf<EarlyFragment, { EARLY_BYTES as usize }> = RingBuf::new();

/// [`nlb_ebpf::tables::Tables::keep_early`].
#[inline(always)]
pub(crate) fn keep<F: Frame>(frame: &F, key: &FragmentKey) -> bool {
    let Some(mut entry) = EARLY.reserve(0) else {
        return false;
    };
    // SAFETY: the memory is the ring's, has some bytes at any time, and the record takes any; it is
    // ours until it is submitted or discarded.
    let record = unsafe { &mut *entry.as_mut_ptr() };
    record.key = *key;
    record.interface = frame.interface();
    let Some(length_bytes) = frame.copy_to(&mut record.bytes) else {
        entry.discard(0);
        return false;
    };
    record.length_bytes = length_bytes;
    entry.submit(0);
    true
}
