//! Idempotency keys, kept where they survive a crash and a restart: `keys` in
//! `node.state_directory`.
//!
//! A key is written down before its request is carried out, and its answer after that. So a request
//! that is sent again after a crash is answered as it was, or told that nobody knows how it ended; it
//! is never done twice. How many keys are kept, and for how long, is bounded, and the file with it.

use std::{collections::VecDeque, fs::File, path::Path, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::{
    StoreError,
    directory::Directory,
    journal::{self, Journal},
};

/// How many keys are kept.
pub const REMEMBERED: usize = 1024;
/// For how long, in seconds.
const REMEMBERED_SECONDS: u64 = 24 * 3600;
/// A file smaller than this is not worth writing anew, in bytes.
const SMALL: u64 = 1 << 20;
/// A larger answer is not kept, in bytes: its request counts as one that nobody knows the end of.
const LARGEST_ANSWER: usize = 64 << 10;

/// A key, and what is known of its request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// Whose key it is.
    pub owner: String,
    /// The key.
    pub key: String,
    /// What the request says.
    pub fingerprint: [u64; 2],
    /// When it was asked, in seconds since 1970 by the host's clock.
    pub since_unix_seconds: u64,
    /// What became of it.
    pub outcome: KeyOutcome,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyOutcome {
    /// It was begun.
    Begun,
    /// It was answered with this.
    Answered(KeptAnswer),
    /// It failed for a reason that may be gone: it may be tried again.
    Open,
}

/// An answer of HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAnswer {
    /// The status.
    pub status: u16,
    /// The headers that are text.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

/// The file.
#[derive(Debug)]
pub struct KeyLog {
    directory: Directory,
    journal: Option<Journal<File>>,
    /// The last record of each key, the oldest key first.
    kept: VecDeque<KeyRecord>,
    /// What those take in the file, about.
    kept_bytes: u64,
}

impl KeyLog {
    /// Reads what was kept in a directory, which need not be there yet. Records that cannot be read,
    /// for they are of another release, are passed over.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let mut log = Self {
            directory: Directory::new(directory),
            journal: None,
            kept: VecDeque::new(),
            kept_bytes: 0,
        };
        let Some(bytes) = log.directory.read("keys")? else {
            return Ok(log);
        };
        let (records, whole) = journal::records(&bytes);
        for payload in records {
            if let Ok(record) = serde_json::from_slice(payload) {
                log.note(record);
            }
        }
        let file = log.directory.file("keys")?;
        log.journal =
            Some(Journal::new(file, whole).map_err(log.directory.error("write", "keys"))?);
        log.forget_old();
        Ok(log)
    }

    /// What is kept, the oldest key first.
    pub fn kept(&self) -> impl Iterator<Item = &KeyRecord> {
        self.kept.iter()
    }

    /// Keeps a record in place of the one before it of this key. When this returns, it has reached the
    /// disk.
    pub fn keep(&mut self, mut record: KeyRecord) -> Result<(), StoreError> {
        if matches!(&record.outcome, KeyOutcome::Answered(answer) if answer.body.len() > LARGEST_ANSWER)
        {
            record.outcome = KeyOutcome::Begun;
        }
        let payload = serde_json::to_vec(&record)
            .map_err(|error| self.directory.error("write", "keys")(error.into()))?;
        let mut journal = match self.journal.take() {
            Some(journal) => journal,
            None => self.make()?,
        };
        let result = journal.append(&payload);
        let length = journal.length();
        self.journal = Some(journal);
        result.map_err(self.directory.error("write", "keys"))?;
        self.note(record);
        self.forget_old();
        if length > SMALL.max(self.kept_bytes * 2) {
            // The record is safe already; a file that stays long is no harm.
            if let Err(error) = self.compact() {
                tracing::warn!("the file of idempotency keys could not be made shorter: {error}");
            }
        }
        Ok(())
    }

    fn note(&mut self, record: KeyRecord) {
        let same = |known: &KeyRecord| known.owner == record.owner && known.key == record.key;
        if let Some(at) = self.kept.iter().position(same) {
            self.kept.remove(at);
        }
        if record.outcome != KeyOutcome::Open {
            self.kept.push_back(record);
        }
    }

    fn forget_old(&mut self) {
        let now = unix_seconds();
        // A clock that was set back makes keys of the future, which are as good as any.
        self.kept
            .retain(|record| record.since_unix_seconds.saturating_add(REMEMBERED_SECONDS) > now);
        while self.kept.len() > REMEMBERED {
            self.kept.pop_front();
        }
    }

    /// Writes the file anew with what is kept.
    fn compact(&mut self) -> Result<(), StoreError> {
        let mut bytes = Vec::new();
        for record in &self.kept {
            let payload = serde_json::to_vec(record)
                .map_err(|error| self.directory.error("write", "keys")(error.into()))?;
            bytes.extend(journal::framed(&payload));
        }
        let file = self.directory.replace("keys", &bytes)?;
        self.kept_bytes = bytes.len() as u64;
        let journal = Journal::new(file, self.kept_bytes);
        self.journal = Some(journal.map_err(self.directory.error("write", "keys"))?);
        Ok(())
    }

    /// Makes the directory and the file.
    fn make(&self) -> Result<Journal<File>, StoreError> {
        self.directory.make()?;
        let file = self.directory.file("keys")?;
        self.directory.sync()?;
        Journal::new(file, 0).map_err(self.directory.error("write", "keys"))
    }
}

/// Now, as records have it.
#[expect(
    clippy::disallowed_methods,
    reason = "how old a key is counts over restarts, for which no other clock goes on"
)]
pub fn unix_seconds() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn record(key: &str, outcome: KeyOutcome) -> KeyRecord {
        KeyRecord {
            owner: "user 0".to_owned(),
            key: key.to_owned(),
            fingerprint: [1, 2],
            since_unix_seconds: unix_seconds(),
            outcome,
        }
    }

    fn answered(body: &str) -> KeyOutcome {
        KeyOutcome::Answered(KeptAnswer {
            status: 201,
            headers: vec![("etag".to_owned(), "\"1\"".to_owned())],
            body: body.to_owned(),
        })
    }

    fn kept(log: &KeyLog) -> Vec<(String, KeyOutcome)> {
        let kept = log.kept().cloned();
        kept.map(|record| (record.key, record.outcome)).collect()
    }

    #[test]
    fn what_became_of_a_key_is_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("state");
        let mut log = KeyLog::open(&directory).unwrap();
        for (key, outcome) in [
            ("one", KeyOutcome::Begun),
            ("two", KeyOutcome::Begun),
            ("one", answered("{}")),
            ("three", KeyOutcome::Begun),
            ("three", KeyOutcome::Open),
            ("four", answered(&"x".repeat(LARGEST_ANSWER + 1))),
        ] {
            log.keep(record(key, outcome)).unwrap();
        }
        let expected = [
            ("two".to_owned(), KeyOutcome::Begun),
            ("one".to_owned(), answered("{}")),
            ("four".to_owned(), KeyOutcome::Begun),
        ];
        assert_eq!(kept(&log), expected);
        assert_eq!(kept(&KeyLog::open(&directory).unwrap()), expected);
    }

    #[test]
    fn a_file_cut_at_any_byte_has_every_record_that_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = KeyLog::open(folder.path()).unwrap();
        let path = folder.path().join("keys");
        let mut ends = vec![0];
        for key in ["one", "two", "three"] {
            log.keep(record(key, answered("{}"))).unwrap();
            ends.push(fs::metadata(&path).unwrap().len());
        }
        let bytes = fs::read(&path).unwrap();
        for length in 0..=bytes.len() {
            fs::write(&path, &bytes[..length]).unwrap();
            let whole = ends.iter().filter(|end| **end <= length as u64).count() - 1;
            let mut log = KeyLog::open(folder.path()).unwrap();
            assert_eq!(log.kept().count(), whole, "cut at {length}");
            log.keep(record("four", KeyOutcome::Begun)).unwrap();
            let again = KeyLog::open(folder.path()).unwrap();
            assert_eq!(again.kept().count(), whole + 1, "cut at {length}");
        }
    }

    #[test]
    fn only_so_many_keys_are_kept_only_so_long_in_a_file_only_so_large() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = KeyLog::open(folder.path()).unwrap();
        let old = KeyRecord {
            since_unix_seconds: unix_seconds() - REMEMBERED_SECONDS,
            ..record("old", answered("{}"))
        };
        log.keep(old).unwrap();
        assert_eq!(log.kept().count(), 0);
        let body = "x".repeat(LARGEST_ANSWER);
        for number in 0..40 {
            log.keep(record("same", answered(&format!("{number}{}", &body[2..]))))
                .unwrap();
        }
        let length = fs::metadata(folder.path().join("keys")).unwrap().len();
        assert!(length < 2 * SMALL, "{length}");
        // The bound on their number holds in memory; syncing a thousand times takes too long.
        for number in 0..=REMEMBERED {
            log.note(record(&number.to_string(), KeyOutcome::Begun));
        }
        log.forget_old();
        assert_eq!(log.kept().count(), REMEMBERED);
        assert_eq!(log.kept().next().unwrap().key, "1");
        log.compact().unwrap();
        assert_eq!(kept(&KeyLog::open(folder.path()).unwrap()), kept(&log));
    }
}
