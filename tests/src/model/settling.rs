//! Listeners that pin flows on change: a flow is remembered only while its slot of the ring has
//! changed.

use std::collections::BTreeSet;

use nlb_ebpf::memory::MemoryTables;

use super::segment::Segment;
use crate::world::{self, SettlingWord};

/// A slot of such a listener's ring, as a flow that nobody remembers finds it.
#[derive(Clone, Copy, Debug)]
pub(super) enum SettlingSlot {
    /// All flows of the slot are with its target, if it has one.
    Settled(Option<u32>),
    /// New flows go to the target; those that nobody remembers are with the other one, which may be
    /// the same.
    Changed { target: Option<u32>, base: u32 },
}

impl SettlingSlot {
    /// The slot that a segment's flow falls on.
    pub(super) fn of(segment: &Segment, tables: &MemoryTables) -> Self {
        let SettlingWord { target, base } = world::settling_word(
            tables,
            segment.source,
            segment.destination,
            segment.protocol,
        );
        match base {
            None => Self::Settled(target),
            Some(base) => Self::Changed { target, base },
        }
    }

    /// Where the flow goes. No datagram says that it is the first, so those of a target that takes
    /// no new flows go to the new one.
    pub(super) fn target(self, segment: &Segment, closed: &BTreeSet<u32>) -> Option<u32> {
        match self {
            Self::Settled(target) => target,
            Self::Changed { target, base } => {
                let is_new = segment.opens()
                    || segment.protocol == nlb_common::wire::protocol::UDP
                        && closed.contains(&base);
                if is_new { target } else { Some(base) }
            }
        }
    }
}
