//! Constants that the loader patches into the program before the verifier sees it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::hash::Key;

/// The section of the kernel object that holds the constants, and nothing else; the kernel has it as a
/// map of this name.
pub const SECTION: &str = ".rodata.nlb";

/// The constants of one loaded program. Fields are read one by one: reading the whole at once
/// doubles the verifier's work.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Settings {
    /// Chooses targets: shared by all nodes of a deployment.
    pub select_key: Key,
    /// Places flows in this node's table: drawn afresh when the table is made.
    pub table_key: Key,
    /// Number of buckets − 1; the number is a power of two.
    pub bucket_mask: u32,
    /// Number of near buckets − 1; the number is a power of two ([`crate::flow::near_buckets`]).
    pub near_mask: u32,
    /// Not 0: faults of the daemon that a packet meets (an id without a record) are logged, as far
    /// as the log takes them. Where it is 0 the verifier removes the code.
    pub log_faults: u32,
    /// A tick is 2 to the power of this jiffies; see [`crate::tick::Clock`].
    pub tick_shift: u32,
    /// Not 0: there is room to translate sources ([`crate::source`]). Where it is 0 the verifier
    /// removes the code.
    pub translates_sources: u32,
    /// Not 0: there may be listeners that pin flows on change. Where it is 0 the verifier removes
    /// the code.
    pub pins_on_change: u32,
    /// Not 0: there may be listeners that answer with SYN cookies, and room for what that takes
    /// ([`crate::sequence`]). Where it is 0 the verifier removes the code.
    pub makes_cookies: u32,
    /// Room up to a whole word.
    pub reserved: u32,
}
