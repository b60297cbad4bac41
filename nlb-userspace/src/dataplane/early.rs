//! The fragments that the packet program asks us to keep, and the records that they wait for.

use std::{io, time::Duration};

use aya::maps::{HashMap, MapData, MapError, RingBuf};
use futures_util::FutureExt as _;
use nlb_common::{
    early::EarlyFragment,
    fragment::{FragmentKey, FragmentRecord},
    plain::Plain,
};
use tokio::{
    io::unix::AsyncFd,
    time::{Instant, sleep_until},
};
use zerocopy::FromBytes as _;

use super::{DataplaneError, events::waited_for};
use crate::{
    clock,
    early::{Counts, Waiting},
};

/// How often it is looked for records, and for more fragments, while any wait.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How many fragments are read at a time. With [`LOOK_EVERY`] it bounds what a flood of fragments
/// costs us: the ring buffer is full, and what does not fit is dropped by the packet program.
const BATCH: usize = 64;

/// The maps that this is about.
pub struct EarlyMaps {
    /// What is to be kept.
    pub ring: RingBuf<MapData>,
    /// What first fragments left.
    pub records: HashMap<MapData, Plain<FragmentKey>, Plain<FragmentRecord>>,
}

impl EarlyMaps {
    /// Takes the maps out of a loaded object.
    pub fn take(object: &mut aya::Ebpf) -> Result<Self, DataplaneError> {
        let mut take = |map: &'static str| object.take_map(map).ok_or(DataplaneError::NoMap(map));
        let used = |map: &'static str| {
            move |source: MapError| DataplaneError::Map {
                action: "use",
                map,
                source,
            }
        };
        Ok(Self {
            ring: RingBuf::try_from(take("EARLY")?).map_err(used("EARLY"))?,
            records: HashMap::try_from(take("FRAGMENTS")?).map_err(used("FRAGMENTS"))?,
        })
    }
}

/// The packet program's early fragments.
pub struct EarlyFragments {
    ring: AsyncFd<RingBuf<MapData>>,
    records: HashMap<MapData, Plain<FragmentKey>, Plain<FragmentRecord>>,
    waiting: Waiting,
    next_look: Instant,
}

impl EarlyFragments {
    /// Waits on these maps from now on; needs a tokio runtime around it.
    pub fn new(maps: EarlyMaps) -> io::Result<Self> {
        Ok(Self {
            ring: waited_for(maps.ring)?,
            records: maps.records,
            waiting: Waiting::default(),
            next_look: Instant::now(),
        })
    }

    /// What became of all that came.
    pub const fn counts(&self) -> Counts {
        self.waiting.counts()
    }

    /// Waits until fragments came, or left; gives those that are to be sent in again, if any. Dropping
    /// the future loses nothing.
    pub async fn due(&mut self) -> io::Result<Vec<EarlyFragment>> {
        loop {
            if self.waiting.is_empty() {
                self.ring.readable_mut().await?.retain_ready();
            }
            sleep_until(self.next_look).await;
            let before = self.counts();
            let now = Instant::now();
            self.next_look = now + LOOK_EVERY;
            self.read(now);
            let (records, tick) = (&self.records, clock::now());
            let due = self.waiting.leave(now.into_std(), |key| {
                let found = records.get(&Plain(*key), 0);
                found.is_ok_and(|Plain(record)| record.is_for(key, tick))
            });
            if self.counts() != before {
                return Ok(due);
            }
        }
    }

    /// Reads what there is, up to a batch.
    fn read(&mut self, now: Instant) {
        let Some(Ok(mut guard)) = self.ring.readable_mut().now_or_never() else {
            return;
        };
        for _ in 0..BATCH {
            let Some(item) = guard.get_inner_mut().next() else {
                guard.clear_ready();
                return;
            };
            if let Ok((fragment, _)) = EarlyFragment::read_from_prefix(&item) {
                self.waiting.keep(&fragment, now.into_std());
            }
        }
    }
}
