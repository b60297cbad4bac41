//! What is counted per listener and per target, each on one cache line per CPU.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Counters of a listener or of a target.
///
/// Bytes are those of IP packets, headers included, as NLB's `ProcessedBytes` counts them.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(64))]
pub struct Traffic {
    /// Packets from clients that were sent on to a target.
    pub packets: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Packets of targets that were sent back to clients; none in DSR modes, which we do not see.
    pub return_packets: u64,
    /// Bytes of those.
    pub return_bytes: u64,
    /// Flows that began (`NewFlowCount`).
    pub new_flows: u64,
    /// New flows that were forwarded by the ring without an entry, because their buckets are full
    /// of live flows.
    pub unpinned_packets: u64,
    /// No meaning, zero.
    pub zero: [u64; 2],
}

impl core::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.return_packets += other.return_packets;
        self.return_bytes += other.return_bytes;
        self.new_flows += other.new_flows;
        self.unpinned_packets += other.unpinned_packets;
    }
}
