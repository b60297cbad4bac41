//! What is remembered of a flow, and for how long.

use nlb_common::wire::protocol::TCP;

use super::segment::{End, Segment};

#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a thing that was seen"
)]
pub(super) struct Flow {
    pub(super) client: (&'static str, u16),
    pub(super) protocol: u8,
    pub(super) listener: u16,
    pub(super) target: u32,
    /// What the target sees, if that is not the client.
    pub(super) source: Option<End>,
    pub(super) is_answered: bool,
    pub(super) is_established: bool,
    pub(super) is_client_closed: bool,
    pub(super) is_target_closed: bool,
    pub(super) is_reset: bool,
    pub(super) last_seen: u64,
}

/// Ticks that are no shorter than so many seconds with any kernel, whose ticks are 0.8 s or longer.
const fn ticks(seconds: u64) -> u64 {
    (seconds * 1_000_000_000).div_ceil(800_000_000)
}

impl Flow {
    /// One that begins with this segment.
    pub(super) fn new(
        segment: &Segment,
        (listener, target): (u16, u32),
        source: Option<End>,
        now: u64,
    ) -> Self {
        Self {
            client: segment.source,
            protocol: segment.protocol,
            listener,
            target,
            source,
            is_answered: false,
            is_established: false,
            is_client_closed: false,
            is_target_closed: false,
            is_reset: false,
            last_seen: now,
        }
    }

    /// Whether it is the segment's, from a client to this listener.
    pub(super) fn is_of(&self, segment: &Segment, listener: u16) -> bool {
        self.client == segment.source
            && self.protocol == segment.protocol
            && self.listener == listener
    }

    /// Whether it was silent for too long.
    pub(super) fn is_expired(&self, now: u64) -> bool {
        now - self.last_seen > self.patience()
    }

    pub(super) const fn is_over(&self) -> bool {
        self.is_reset || self.is_client_closed && self.is_target_closed
    }

    /// How long the flow may be silent: a connection that is over for 10 s, a half-closed one for
    /// 120 s, one without an answer for 30 s, and none for longer than its listener says.
    pub(super) fn patience(&self) -> u64 {
        let idle = ticks(if self.protocol == TCP { 350 } else { 120 });
        let own = if self.is_over() {
            ticks(10)
        } else if self.is_client_closed || self.is_target_closed {
            ticks(120)
        } else if self.is_established {
            idle
        } else {
            ticks(30)
        };
        own.min(idle)
    }
}
