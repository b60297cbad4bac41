//! The ring buffer of fragments that the daemon is asked to keep.

use aya_ebpf::{
    bindings::BPF_RB_AVAIL_DATA, btf_maps::RingBuf, helpers::bpf_ringbuf_query, macros::btf_map,
};
use nlb_common::{
    early::{COPIES_BYTES, Claim, EARLY_BYTES, EarlyFragment},
    fragment::FragmentKey,
};
use nlb_ebpf::frame::Frame;

#[btf_map]
static EARLY: RingBuf<EarlyFragment, { EARLY_BYTES as usize }> = RingBuf::new();

/// [`nlb_ebpf::tables::Tables::keep_early`].
#[inline(always)]
pub(crate) fn keep<F: Frame>(frame: &F, key: &FragmentKey, claim: Claim) -> bool {
    if claim == Claim::Perhaps && unread_bytes() > COPIES_BYTES {
        return false;
    }
    let Some(mut entry) = EARLY.reserve(0) else {
        return false;
    };
    // SAFETY: the memory is the ring's, has some bytes at any time, and the record takes any; it is
    // ours until it is submitted or discarded.
    let record = unsafe { &mut *entry.as_mut_ptr() };
    record.key = *key;
    record.interface = frame.interface();
    record.is_copy = u64::from(claim == Claim::Perhaps);
    let Some(length_bytes) = frame.copy_to(&mut record.bytes) else {
        entry.discard(0);
        return false;
    };
    record.length_bytes = length_bytes;
    entry.submit(0);
    true
}

/// How much of the ring waits to be read.
#[inline(always)]
fn unread_bytes() -> u64 {
    let ring = (&raw const EARLY).cast_mut().cast();
    // SAFETY: the map lives as long as the program, and the kernel only reads its positions.
    unsafe { bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA.into()) }
}
