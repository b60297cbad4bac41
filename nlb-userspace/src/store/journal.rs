//! A file of records, each with its length and a checksum, to which one is added at a time.
//!
//! ```text
//!  ┌───────────────┬──────────────┬─────────┐
//!  │ length u32 LE │ CRC-32 u32 LE│ payload │ …
//!  └───────────────┴──────────────┴─────────┘
//! ```
//!
//! The checksum is of the length and the payload. What is cut off or altered anywhere is seen, and
//! everything before it is read; records are whole or not there.

use std::{fs::File, io, os::unix::fs::FileExt as _};

/// Bytes in front of a payload.
const HEADER: usize = 8;

/// What a journal is written on. A file; in tests, one that fails.
pub trait Medium {
    /// Writes all of it at that place.
    fn write_at_all(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    /// Makes it that long.
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Returns when everything has reached the disk.
    fn sync_all(&self) -> io::Result<()>;
}

impl Medium for File {
    fn write_at_all(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        Self::set_len(self, length)
    }

    fn sync_all(&self) -> io::Result<()> {
        Self::sync_all(self)
    }
}

/// A journal that is open for writing.
#[derive(Debug)]
pub struct Journal<M> {
    medium: M,
    /// Up to here, records are whole and acknowledged.
    length: u64,
    /// Whether there may be bytes of a failed write behind it.
    has_tail: bool,
}

impl<M: Medium> Journal<M> {
    /// Continues a journal behind its last whole record; what is there is cut off.
    pub fn new(medium: M, length: u64) -> io::Result<Self> {
        let mut journal = Self {
            medium,
            length,
            has_tail: true,
        };
        journal.cut_tail()?;
        Ok(journal)
    }

    /// How long it is, in bytes.
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Adds a record; when this returns, it has reached the disk. After an error it is as if nothing
    /// had been written, and the next record may find room.
    pub fn append(&mut self, payload: &[u8]) -> io::Result<()> {
        self.cut_tail()?;
        self.has_tail = true;
        let bytes = framed(payload);
        let written = self
            .medium
            .write_at_all(&bytes, self.length)
            .and_then(|()| self.medium.sync_all());
        if let Err(error) = written {
            // If this fails, too, the next record tries it again before anything else.
            let _retried = self.cut_tail();
            return Err(error);
        }
        self.length += bytes.len() as u64;
        self.has_tail = false;
        Ok(())
    }

    /// Removes all records.
    pub fn clear(&mut self) -> io::Result<()> {
        self.length = 0;
        self.has_tail = true;
        self.cut_tail()
    }

    /// A refused write must not be found after a crash.
    fn cut_tail(&mut self) -> io::Result<()> {
        if self.has_tail {
            self.medium.set_len(self.length)?;
            self.medium.sync_all()?;
            self.has_tail = false;
        }
        Ok(())
    }
}

/// A payload as it stands in the file.
pub(super) fn framed(payload: &[u8]) -> Vec<u8> {
    // No write comes near 4 GiB: requests are bounded far below.
    let length = u32::try_from(payload.len())
        .unwrap_or(u32::MAX)
        .to_le_bytes();
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend(length);
    bytes.extend(checksum(length, payload).to_le_bytes());
    bytes.extend(payload);
    bytes
}

/// The payloads of the whole records that a journal begins with, and where they end.
pub(super) fn records(bytes: &[u8]) -> (Vec<&[u8]>, u64) {
    let mut found = Vec::new();
    let mut rest = bytes;
    while let Some((payload, behind)) = first_record(rest) {
        found.push(payload);
        rest = behind;
    }
    (found, (bytes.len() - rest.len()) as u64)
}

fn first_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let size = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (payload, behind) = rest.split_at_checked(size)?;
    // A file that a crash left full of zeros holds no record.
    let is_whole = size > 0 && checksum(*length, payload) == u32::from_le_bytes(*sum);
    is_whole.then_some((payload, behind))
}

fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(payload);
    hasher.finalize()
}
