//! The memory that both sides change while the other reads: words of eight bytes.
//!
//! Userspace uses Rust's atomics. Rust's BPF target has loads and stores of atomics only for
//! processors that kernels before 6.7 refuse (`-Ctarget-cpu=v4`), so there a word is read and
//! written as a volatile: one aligned instruction, which is atomic on every machine that runs it.
//! The order of accesses is the machine's own: x86-64 keeps the order of loads and that of stores,
//! which is all that the records of this crate ask for.
#![cfg_attr(
    target_arch = "bpf",
    expect(unsafe_code, reason = "volatile access to shared memory")
)]

use zerocopy::{FromBytes, IntoBytes, KnownLayout};

#[cfg(not(target_arch = "bpf"))]
type Memory = core::sync::atomic::AtomicU64;
#[cfg(target_arch = "bpf")]
type Memory = core::cell::UnsafeCell<u64>;

/// Eight bytes that change as a whole.
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(transparent)]
pub struct Word(Memory);

#[cfg(not(target_arch = "bpf"))]
mod host {
    use core::sync::atomic::Ordering::{AcqRel, Acquire, Release};

    use super::Word;

    impl Word {
        /// The value; what was stored before it is seen too.
        pub fn load(&self) -> u64 {
            self.0.load(Acquire)
        }

        /// Stores a value; whoever sees it sees what was stored before it too.
        pub fn store(&self, value: u64) {
            self.0.store(value, Release);
        }

        /// Stores `new` if the value is `seen`; says whether it was.
        pub fn swap(&self, seen: u64, new: u64) -> bool {
            self.0.compare_exchange(seen, new, AcqRel, Acquire).is_ok()
        }

        /// Sets the bits of `mask`.
        pub fn set_bits(&self, mask: u64) {
            self.0.fetch_or(mask, AcqRel);
        }

        /// Clears the bits of `mask`.
        pub fn clear_bits(&self, mask: u64) {
            self.0.fetch_and(!mask, AcqRel);
        }
    }
}

#[cfg(target_arch = "bpf")]
mod kernel {
    use super::Word;

    // SAFETY: every access is one volatile instruction on an aligned word, or the kernel's own
    // compare-and-swap.
    unsafe impl Sync for Word {}

    impl Word {
        /// The value.
        #[inline(always)]
        pub fn load(&self) -> u64 {
            // SAFETY: the pointer comes from a reference, so it is valid and aligned.
            unsafe { self.0.get().read_volatile() }
        }

        /// Stores a value.
        #[inline(always)]
        pub fn store(&self, value: u64) {
            // SAFETY: as in `load`; no Rust reference to the value itself exists.
            unsafe { self.0.get().write_volatile(value) }
        }

        /// Where the word is, for the atomic instructions that Rust's `core` lacks here.
        #[inline(always)]
        pub fn as_ptr(&self) -> *mut u64 {
            self.0.get()
        }
    }
}
