//! `Idempotency-Key`: a request that is sent again, because its answer was lost, is answered again
//! and not done again, also when the daemon was started anew in between.
//!
//! What lasts is in [`crate::store::keys`]. Here a second request under a key waits for the first
//! one's answer.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
};
use tokio::sync::Mutex;

use crate::store::{
    StoreError,
    keys::{self, KeptAnswer, KeyLog, KeyOutcome, KeyRecord},
};

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

/// What is known of a key's request.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) fingerprint: Fingerprint,
    /// Nothing if the daemon ended before it was answered.
    pub(super) answer: Option<Answer>,
}

/// The place of one key: locked while its request is being done, so that a second one waits for the
/// first one's answer.
pub(super) type Place = Arc<Mutex<Option<Known>>>;

/// The keys that were used last.
#[derive(Debug)]
pub(super) struct Keys {
    places: HashMap<(String, String), Place>,
    order: VecDeque<(String, String)>,
    log: KeyLog,
}

impl Keys {
    /// Those of a daemon's life before.
    pub(super) fn new(log: KeyLog) -> Self {
        let mut places = HashMap::new();
        let mut order = VecDeque::new();
        for record in log.kept() {
            let answer = match &record.outcome {
                KeyOutcome::Answered(kept) => Answer::of(kept),
                KeyOutcome::Begun | KeyOutcome::Open => None,
            };
            let known = Known {
                fingerprint: record.fingerprint,
                answer,
            };
            let name = (record.owner.clone(), record.key.clone());
            places.insert(name.clone(), Arc::new(Mutex::new(Some(known))));
            order.push_back(name);
        }
        Self { places, order, log }
    }

    /// The place of a key. Keys of different owners are different keys.
    pub(super) fn place(&mut self, owner: &str, key: &str) -> Place {
        let name = (owner.to_owned(), key.to_owned());
        if let Some(place) = self.places.get(&name) {
            return Arc::clone(place);
        }
        if self.order.len() == keys::REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.places.remove(&oldest);
        }
        self.order.push_back(name.clone());
        let place = Place::default();
        self.places.insert(name, Arc::clone(&place));
        place
    }

    /// Keeps what became of a key's request. When this returns, it has reached the disk.
    pub(super) fn keep(
        &mut self,
        owner: &str,
        key: &str,
        fingerprint: Fingerprint,
        outcome: KeyOutcome,
    ) -> Result<(), StoreError> {
        self.log.keep(KeyRecord {
            owner: owner.to_owned(),
            key: key.to_owned(),
            fingerprint,
            since_unix_seconds: keys::unix_seconds(),
            outcome,
        })
    }
}

impl Answer {
    fn of(kept: &KeptAnswer) -> Option<Self> {
        let mut headers = HeaderMap::new();
        for (name, value) in &kept.headers {
            headers.insert(
                HeaderName::try_from(name).ok()?,
                HeaderValue::try_from(value).ok()?,
            );
        }
        Some(Self {
            status: StatusCode::from_u16(kept.status).ok()?,
            headers,
            body: kept.body.clone().into(),
        })
    }

    /// As it is kept.
    pub(super) fn kept(&self) -> KeyOutcome {
        let headers = self.headers.iter().filter_map(|(name, value)| {
            let value = value.to_str().ok()?;
            Some((name.to_string(), value.to_owned()))
        });
        KeyOutcome::Answered(KeptAnswer {
            status: self.status.as_u16(),
            headers: headers.collect(),
            body: String::from_utf8_lossy(&self.body).into_owned(),
        })
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
