//! The audit log: one line of JSON for every call that changed something, wanted to, or was refused.
//!
//! ```text
//!  {"sequence":1,…,"previous":"0000…","hash":"a1b2…"}
//!  {"sequence":2,…,"previous":"a1b2…","hash":"c3d4…"}
//! ```
//!
//! `hash` is SHA-256 over the bytes of the line before `,"hash"`, and those contain the hash of the
//! line before. So a line that is changed, taken out, put in or moved breaks the chain at that place,
//! which [`verify`] names. What a chain cannot show is that its end was cut off: for that, compare
//! the last hash with one that was kept elsewhere; the daemon logs it whenever it opens the file.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::certificate::Certificate;

/// What the first line has instead of a hash before it.
const BEGINNING: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// What stands between what is hashed and the hash.
const SEAL: &str = ",\"hash\":\"";

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was carried out.
    Done,
    /// The caller may not do that.
    Refused,
    /// The caller may, but it could not be carried out.
    Failed,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The caller's user.
    pub uid: Option<u32>,
    /// The caller's group.
    pub gid: Option<u32>,
    /// The caller's process, while it lives.
    pub pid: Option<i32>,
    /// The certificate that the caller showed, over the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Shown>,
    /// Where the call came in: the path of the control socket, or the address and port of whoever
    /// called over the network.
    pub from: String,
    /// What was asked for.
    pub action: String,
    /// Of which resource.
    pub resource: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it was refused or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The generation that was live when it was asked.
    pub generation_before: u64,
    /// The generation that is live after it.
    pub generation_after: u64,
}

/// A certificate that a caller showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Its subject.
    pub subject: String,
    /// Its names, as policies write them.
    pub names: Vec<String>,
    /// Which one it was.
    pub sha256: String,
}

impl From<&Certificate> for Shown {
    fn from(certificate: &Certificate) -> Self {
        Self {
            subject: certificate.subject.clone(),
            names: certificate.names.iter().map(ToString::to_string).collect(),
            sha256: certificate.sha256.clone(),
        }
    }
}

/// A line without its seal.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    sequence: u64,
    /// Seconds since 1970, as the host's clock says.
    time_unix_seconds: u64,
    #[serde(flatten)]
    entry: Entry,
    previous: String,
}

/// The end of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// How many lines there are.
    pub lines: u64,
    /// The hash of the last one.
    pub hash: String,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            lines: 0,
            hash: BEGINNING.to_owned(),
        }
    }
}

/// What is wrong with an audit log.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file could not be used.
    #[error("cannot {action} the audit log `{path}`: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A record could not be written as JSON.
    #[error("cannot write a line of the audit log: {0}")]
    Json(#[from] serde_json::Error),
    /// The chain breaks.
    #[error("`{path}`, line {line}: {problem}; the {sound} before it are as they were written")]
    Broken {
        /// The file.
        path: PathBuf,
        /// Where, from 1.
        line: u64,
        /// What does not fit.
        problem: &'static str,
        /// How many lines before it are sound.
        sound: u64,
    },
}

fn sha256_hex(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _infallible = write!(hex, "{byte:02x}");
    }
    hex
}

/// Takes a line apart into what is hashed and the hash.
fn unseal(line: &str) -> Option<(&str, &str)> {
    line.strip_suffix("\"}")?.rsplit_once(SEAL)
}

/// Whether a line follows upon a chain.
fn follow(head: &Head, line: &str) -> Result<Head, &'static str> {
    let (text, hash) = unseal(line).ok_or("is no sealed line")?;
    if sha256_hex(text) != hash {
        return Err("its text and its hash do not belong together");
    }
    let parsed: Line =
        serde_json::from_str(&format!("{text}}}")).map_err(|_| "is no line of an audit log")?;
    if parsed.previous != head.hash || parsed.sequence != head.lines + 1 {
        return Err("does not follow upon the line before it: lines are missing, new or moved");
    }
    Ok(Head {
        lines: parsed.sequence,
        hash: hash.to_owned(),
    })
}

/// Follows a log from its beginning to its end.
pub fn verify(path: &Path) -> Result<Head, AuditError> {
    let file = File::open(path).map_err(io_error("open", path))?;
    let mut head = Head::default();
    for line in BufReader::new(file).lines() {
        let line = line.map_err(io_error("read", path))?;
        head = follow(&head, &line).map_err(|problem| AuditError::Broken {
            path: path.to_owned(),
            line: head.lines + 1,
            problem,
            sound: head.lines,
        })?;
    }
    Ok(head)
}

fn io_error<'p>(action: &'static str, path: &'p Path) -> impl Fn(io::Error) -> AuditError + 'p {
    move |source| AuditError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// The log that a daemon writes.
#[derive(Debug)]
pub struct AuditLog {
    path: PathBuf,
    file: File,
    head: Head,
}

impl AuditLog {
    /// Opens or makes it, and goes on where it ends. A last line that was not finished, because the
    /// power failed, is cut off; a chain that is broken is not added to.
    pub fn open(path: &Path) -> Result<Self, AuditError> {
        let file = fs::OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(io_error("open", path))?;
        let text = fs::read(path).map_err(io_error("read", path))?;
        let whole = text
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        if whole < text.len() {
            tracing::warn!(path = %path.display(), "the audit log's last line was not finished");
            file.set_len(whole as u64).map_err(io_error("cut", path))?;
        }
        let head = verify(path)?;
        tracing::info!(
            path = %path.display(), lines = head.lines, last = head.hash, "the audit log goes on"
        );
        Ok(Self {
            path: path.to_owned(),
            file,
            head,
        })
    }

    /// Adds a line. When it returns, the line is on the disk.
    pub fn add(&mut self, entry: Entry) -> Result<(), AuditError> {
        let line = Line {
            sequence: self.head.lines + 1,
            time_unix_seconds: unix_seconds(),
            entry,
            previous: self.head.hash.clone(),
        };
        let text = serde_json::to_string(&line)?;
        let text = text.strip_suffix('}').unwrap_or(&text);
        let hash = sha256_hex(text);
        let length = self
            .file
            .metadata()
            .map_err(io_error("look at", &self.path))?
            .len();
        let written = (&self.file)
            .write_all(format!("{text}{SEAL}{hash}\"}}\n").as_bytes())
            .and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            // Half a line would be the end of the chain.
            drop(self.file.set_len(length));
            return Err(io_error("write", &self.path)(source));
        }
        self.head = Head {
            lines: line.sequence,
            hash,
        };
        Ok(())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "an auditor wants the time of day; the order is the sequence's"
)]
fn unix_seconds() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(resource: &str) -> Entry {
        Entry {
            uid: Some(1000),
            gid: Some(100),
            pid: Some(7),
            certificate: None,
            from: "/run/nlb/nlb.sock".to_owned(),
            action: "targets:drain".to_owned(),
            resource: resource.to_owned(),
            outcome: Outcome::Refused,
            reason: Some("no \"hash\":\"of\" this".to_owned()),
            generation_before: 4,
            generation_after: 4,
        }
    }

    /// A log of three lines, the second of another daemon's life.
    fn three(folder: &Path) -> PathBuf {
        let path = folder.join("audit.log");
        let mut log = AuditLog::open(&path).unwrap();
        log.add(entry("a")).unwrap();
        drop(log);
        let mut log = AuditLog::open(&path).unwrap();
        // A text that looks like the end of a line does not end it.
        log.add(entry("b,\"hash\":\"00\"}")).unwrap();
        log.add(entry("c")).unwrap();
        path
    }

    #[test]
    fn a_log_goes_on_over_restarts_and_is_sound() {
        let folder = tempfile::tempdir().unwrap();
        let path = three(folder.path());
        assert_eq!(verify(&path).unwrap().lines, 3);
        let text = fs::read_to_string(&path).unwrap();
        for (line, number) in text.lines().zip(1..) {
            let json: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(json["sequence"], number);
            assert_eq!(json["uid"], 1000);
            assert_eq!(json["outcome"], "refused");
        }
    }

    #[test]
    fn any_changed_character_breaks_the_chain_at_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = three(folder.path());
        let bytes = fs::read(&path).unwrap();
        let lines_before = |at: usize| bytes[..at].split(|byte| *byte == b'\n').count();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            // Another character of the same kind, so that the line stays one.
            changed[at] = match bytes[at] {
                b'0' => b'1',
                b'\n' => b' ',
                other if other.is_ascii_digit() => b'0',
                b'a' => b'b',
                _ => b'a',
            };
            fs::write(&path, &changed).unwrap();
            let Err(AuditError::Broken { line, .. }) = verify(&path) else {
                panic!("byte {at} may be changed");
            };
            assert_eq!(line, lines_before(at) as u64, "byte {at}");
        }
    }

    #[test]
    fn a_line_that_is_missing_doubled_or_moved_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = three(folder.path());
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        for (order, broken_at) in [
            (vec![1, 2], 1),
            (vec![0, 2], 2),
            (vec![0, 0, 1, 2], 2),
            (vec![0, 2, 1], 2),
        ] {
            let text: String = order.iter().map(|index| lines[*index]).collect();
            fs::write(&path, text).unwrap();
            let Err(AuditError::Broken { line, sound, .. }) = verify(&path) else {
                panic!("{order:?} is taken");
            };
            assert_eq!((line, sound), (broken_at, broken_at - 1), "{order:?}");
        }
    }

    #[test]
    fn an_unfinished_last_line_is_cut_off_and_a_broken_log_is_not_added_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = three(folder.path());
        let bytes = fs::read(&path).unwrap();
        let end_of_second = bytes[..bytes.len() - 1]
            .iter()
            .rposition(|byte| *byte == b'\n')
            .unwrap();
        for length in end_of_second + 1..bytes.len() {
            fs::write(&path, &bytes[..length]).unwrap();
            let mut log = AuditLog::open(&path).unwrap();
            log.add(entry("d")).unwrap();
            assert_eq!(verify(&path).unwrap().lines, 3, "cut at {length}");
        }
        let mut changed = bytes;
        changed[20] = b'x';
        fs::write(&path, &changed).unwrap();
        assert!(matches!(
            AuditLog::open(&path),
            Err(AuditError::Broken { line: 1, .. })
        ));
    }
}
