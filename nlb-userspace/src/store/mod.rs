//! What was changed over the API, kept where it survives a crash and a reboot.
//!
//! Two files in `node.state_directory`: a `snapshot` of the whole state, and a `journal` of what
//! came after it, one record for each write. A write is answered only after its record has reached
//! the disk. When the journal has grown larger than what it describes, a new snapshot takes its
//! place: written aside, synced, renamed over the old one, the directory synced. Records carry
//! numbers, so a crash between the snapshot and the emptying of the journal does no harm: records
//! that the snapshot has already are passed over.
//!
//! Beside them, [`keys`] remembers which requests were answered already.

mod directory;
mod journal;
pub mod keys;

use std::{
    fmt,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use self::directory::Directory;
pub use self::journal::{Journal, Medium};
use crate::document::overlay::{Delta, Overlay};

/// A journal smaller than this is not worth a new snapshot, in bytes.
const SMALL: u64 = 1 << 20;

/// Why something could not be kept, or what was kept not be read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file could not be used.
    #[error(
        "node.state_directory: cannot {action} `{path}`: {source}; nothing has changed, and the \
         next write tries again"
    )]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another daemon has it.
    #[error(
        "node.state_directory: another nlb keeps its state in `{0}`; give each daemon a directory \
         of its own"
    )]
    Taken(PathBuf),
    /// A file of another release, or of something else.
    #[error(
        "node.state_directory: `{path}` is not readable by this release: {reason}; move it away to \
         start from the configuration file alone"
    )]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// A document that was applied in place of the configuration file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The document, as TOML.
    pub text: String,
    /// A hash of the configuration file as it was then: when it is edited, it counts again.
    pub file_hash: u64,
}

impl fmt::Debug for Applied {
    /// The text may hold a secret.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Applied")
            .field("file_hash", &self.file_hash)
            .finish_non_exhaustive()
    }
}

/// Everything that is kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The document that was applied last, if it is not the configuration file.
    pub applied: Option<Applied>,
    /// The changes since.
    pub overlay: Overlay,
}

/// What one write changes in the state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// A new applied document, or that there is none any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<Option<Applied>>,
    /// What becomes of entries of the overlay.
    #[serde(default, skip_serializing_if = "Delta::is_empty")]
    pub delta: Delta,
}

/// A state or a record, with the number of the last write in it.
#[derive(Serialize, Deserialize)]
struct Numbered<T> {
    number: u64,
    #[serde(flatten)]
    what: T,
}

impl Record {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.applied.is_none() && self.delta.is_empty()
    }
}

impl State {
    /// Takes a write in.
    pub fn take(&mut self, record: Record) {
        if let Some(applied) = record.applied {
            self.applied = applied;
        }
        self.overlay.take(record.delta);
    }
}

/// The state directory.
#[derive(Debug)]
pub struct Store {
    directory: Directory,
    /// The number of the last write.
    number: u64,
    /// What the snapshot takes, in bytes.
    snapshot_bytes: u64,
    /// Made with the first write: a daemon that nobody changes leaves no trace.
    journal: Option<Journal<File>>,
    /// Held as long as the journal is.
    lock: Option<File>,
}

impl Store {
    /// Reads what was kept in a directory, which need not be there yet. Says how many bytes of a
    /// write that was never acknowledged were cut off.
    pub fn open(directory: &Path) -> Result<(Self, State, u64), StoreError> {
        let mut store = Self {
            directory: Directory::new(directory),
            number: 0,
            snapshot_bytes: 0,
            journal: None,
            lock: None,
        };
        let mut state = State::default();
        if !directory.exists() {
            return Ok((store, state, 0));
        }
        store.lock()?;
        if let Some(bytes) = store.directory.read("snapshot")? {
            let path = store.directory.path("snapshot");
            let (records, _) = journal::records(&bytes);
            let [payload] = records.as_slice() else {
                let reason = "its checksum is wrong".to_owned();
                return Err(StoreError::Foreign { path, reason });
            };
            let snapshot: Numbered<State> = read(&path, payload)?;
            store.snapshot_bytes = bytes.len() as u64;
            store.number = snapshot.number;
            state = snapshot.what;
        }
        let Some(bytes) = store.directory.read("journal")? else {
            return Ok((store, state, 0));
        };
        let path = store.directory.path("journal");
        let (records, whole) = journal::records(&bytes);
        for payload in records {
            let record: Numbered<Record> = read(&path, payload)?;
            if record.number > store.number {
                store.number = record.number;
                state.take(record.what);
            }
        }
        let cut = bytes.len() as u64 - whole;
        if let Some(tail) = usize::try_from(whole).ok().and_then(|at| bytes.get(at..))
            && !tail.is_empty()
        {
            // For whoever wants to know what it was; that it cannot be kept is no harm.
            let _evidence = fs::write(store.directory.path("journal.cut"), tail);
        }
        let file = store.directory.file("journal")?;
        let journal =
            Journal::new(file, whole).map_err(store.directory.error("write", "journal"))?;
        store.journal = Some(journal);
        Ok((store, state, cut))
    }

    /// Keeps a write: when this returns, it has reached the disk. `state` is the state with it.
    pub fn keep(&mut self, record: &Record, state: &State) -> Result<(), StoreError> {
        if self.journal.is_none() {
            self.make()?;
        }
        let number = self.number + 1;
        let payload = written(number, record).map_err(self.directory.error("write", "journal"))?;
        let Some(journal) = &mut self.journal else {
            return Ok(());
        };
        let result = journal.append(&payload);
        let length = journal.length();
        result.map_err(self.directory.error("write", "journal"))?;
        self.number = number;
        if length > SMALL.max(self.snapshot_bytes * 2) {
            // The write is safe already; a journal that stays long is no harm.
            if let Err(error) = self.compact(state) {
                tracing::warn!("the journal could not be made shorter: {error}");
            }
        }
        Ok(())
    }

    /// Puts a snapshot in the journal's place.
    pub fn compact(&mut self, state: &State) -> Result<(), StoreError> {
        let payload =
            written(self.number, state).map_err(self.directory.error("write", "snapshot"))?;
        let bytes = journal::framed(&payload);
        let _replaced = self.directory.replace("snapshot", &bytes)?;
        self.snapshot_bytes = bytes.len() as u64;
        if let Some(journal) = &mut self.journal {
            let result = journal.clear();
            result.map_err(self.directory.error("empty", "journal"))?;
        }
        Ok(())
    }

    /// Makes the directory and the journal.
    fn make(&mut self) -> Result<(), StoreError> {
        self.directory.make()?;
        self.lock()?;
        let file = self.directory.file("journal")?;
        self.directory.sync()?;
        self.journal =
            Some(Journal::new(file, 0).map_err(self.directory.error("write", "journal"))?);
        Ok(())
    }

    fn lock(&mut self) -> Result<(), StoreError> {
        if self.lock.is_none() {
            let directory = self.directory.open()?;
            match directory.try_lock() {
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) => {
                    return Err(StoreError::Taken(self.directory.path("")));
                }
                Err(fs::TryLockError::Error(source)) => {
                    return Err(self.directory.error("lock", "")(source));
                }
            }
            self.lock = Some(directory);
        }
        Ok(())
    }
}

fn written<T: Serialize>(number: u64, what: &T) -> io::Result<Vec<u8>> {
    serde_json::to_vec(&Numbered { number, what }).map_err(io::Error::other)
}

fn read<'p, T: Deserialize<'p>>(path: &Path, payload: &'p [u8]) -> Result<T, StoreError> {
    serde_json::from_slice(payload).map_err(|error| StoreError::Foreign {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
