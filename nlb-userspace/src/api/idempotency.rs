//! `Idempotency-Key`: a request that is sent again, because its answer was lost, is answered again
//! and not done again.
//!
//! Answers are remembered in memory, a bounded number of them, and not over a restart: a client that
//! must be sure beyond that sends `If-Match`, too.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use axum::{
    body::Bytes,
    http::{HeaderMap, StatusCode},
};
use tokio::sync::Mutex;

use super::caller::Caller;

/// How many answers are remembered; each takes some hundred bytes.
pub(super) const REMEMBERED: usize = 1024;
/// The longest key, in bytes.
pub(super) const LONGEST_KEY: usize = 255;

/// An answer that can be given again.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// What a request says, so that another one under its key is noticed.
pub(super) type Fingerprint = [u64; 2];

/// The place of one key: locked while its request is being done, so that a second one waits for the
/// first one's answer.
pub(super) type Place = Arc<Mutex<Option<(Fingerprint, Answer)>>>;

/// The keys that were used last.
#[derive(Debug, Default)]
pub(super) struct Keys {
    places: HashMap<(Caller, String), Place>,
    order: VecDeque<(Caller, String)>,
}

impl Keys {
    /// The place of a key. Keys of different users are different keys.
    pub(super) fn place(&mut self, caller: Caller, key: &str) -> Place {
        // The same user may ask from another process.
        let who = Caller {
            pid: None,
            ..caller
        };
        let name = (who, key.to_owned());
        if let Some(place) = self.places.get(&name) {
            return Arc::clone(place);
        }
        if self.order.len() == REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.places.remove(&oldest);
        }
        self.order.push_back(name.clone());
        let place = Place::default();
        self.places.insert(name, Arc::clone(&place));
        place
    }
}

/// The fingerprint of a request.
pub(super) fn fingerprint(head: &str, body: &[u8]) -> Fingerprint {
    let hash = |seed| {
        let head = xxhash_rust::xxh64::xxh64(head.as_bytes(), seed);
        xxhash_rust::xxh64::xxh64(body, head)
    };
    [hash(0), hash(1)]
}
