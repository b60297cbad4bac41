//! The one promise to aya that a type may cross the kernel's boundary as bytes.
#![expect(
    unsafe_code,
    reason = "`aya::Pod` is an unsafe trait; the proof is zerocopy's"
)]

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A map's key or value whose layout zerocopy has proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Plain<T>(pub T);

// SAFETY: `IntoBytes` proves that `T` has no padding and `FromBytes` that every bit pattern is a
// `T`; `repr(transparent)` makes `Plain<T>` the same.
unsafe impl<T: FromBytes + IntoBytes + Immutable + Copy + 'static> aya::Pod for Plain<T> {}
