//! Under systemd the log goes to journald with its fields, not as lines of text
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL>).

use std::{env, fmt, io, os::unix::net::UnixDatagram};

use rustix::fs::fstat;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

use super::Reader;

/// Where journald takes entries.
const SOCKET: &str = "/run/systemd/journal/socket";

/// No field is longer, in bytes: a datagram has an end.
const FIELD_BYTES: usize = 16 << 10;

/// Writes what is logged to journald. Each field becomes one of journald's: `target_group` is
/// `NLB_TARGET_GROUP`.
#[derive(Debug)]
pub struct Journald(());

impl Journald {
    /// Has the log go there; nothing if standard error is not journald's, or it cannot be reached.
    ///
    /// `JOURNAL_STREAM` names the file that journald reads, which may no longer be our standard error
    /// (systemd.exec(5)).
    pub fn instead_of_stderr() -> Option<Self> {
        let stderr = fstat(io::stderr()).ok()?;
        let named = env::var("JOURNAL_STREAM").ok()?;
        if !is_stream(&named, stderr.st_dev, stderr.st_ino) {
            return None;
        }
        let socket = UnixDatagram::unbound().ok()?;
        socket.set_nonblocking(true).ok()?;
        // Nothing is said by nothing; it only shows whether anybody listens.
        socket.send_to(&[], SOCKET).ok()?;
        super::queue().redirect(Reader::Journald(socket));
        Some(Self(()))
    }
}

/// Whether the variable names that file.
fn is_stream(named: &str, device: u64, inode: u64) -> bool {
    named == format!("{device}:{inode}")
}

/// Sends an entry. While journald is being restarted there is nobody to take it, and it waits.
pub(super) fn send(socket: &UnixDatagram, entry: &[u8]) -> io::Result<usize> {
    socket.send_to(entry, SOCKET).map_err(|error| {
        if matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
        ) {
            io::ErrorKind::WouldBlock.into()
        } else {
            error
        }
    })
}

/// An entry of our own.
pub(super) fn warning(text: &str) -> Vec<u8> {
    let mut entry = Entry::of(Level::WARN);
    entry.put("MESSAGE", text);
    entry.0
}

/// An entry as it is sent.
struct Entry(Vec<u8>);

impl Entry {
    fn of(level: Level) -> Self {
        let mut entry = Self(Vec::with_capacity(512));
        // As syslog(3) has them; `info` is more than its own name says there.
        let priority = match level {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "5",
            Level::DEBUG => "6",
            Level::TRACE => "7",
        };
        entry.put("PRIORITY", priority);
        entry.put("SYSLOG_IDENTIFIER", "nlb");
        entry
    }

    /// The form that takes any value: the name, the length, the value.
    fn put(&mut self, name: &str, value: &str) {
        let value = &value[..value.floor_char_boundary(FIELD_BYTES)];
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(b'\n');
        self.0
            .extend_from_slice(&(value.len() as u64).to_le_bytes());
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(b'\n');
    }
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        };
        match field.name() {
            "message" => self.put("MESSAGE", value),
            name => {
                let name: String = "NLB_".chars().chain(name.chars().map(plain)).collect();
                self.put(&name, value);
            }
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

impl<S: Subscriber> Layer<S> for Journald {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let about = event.metadata();
        let mut entry = Entry::of(*about.level());
        entry.put("TARGET", about.target());
        event.record(&mut entry);
        super::queue().push(&entry.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_than_the_variable_names_is_not_journalds() {
        assert!(is_stream("9:4711", 9, 4711));
        assert!(!is_stream("9:4711", 9, 4712));
        assert!(!is_stream("9:4711 ", 9, 4711));
        assert!(!is_stream("", 9, 4711));
    }

    #[test]
    fn a_value_may_hold_anything_and_has_an_end() {
        let mut entry = Entry(Vec::new());
        entry.put("MESSAGE", "two\nlines");
        assert_eq!(entry.0, b"MESSAGE\n\x09\0\0\0\0\0\0\0two\nlines\n");
        let mut long = Entry(Vec::new());
        long.put("MESSAGE", &"ä".repeat(FIELD_BYTES));
        assert_eq!(long.0.len(), "MESSAGE\n".len() + 8 + FIELD_BYTES + 1);
    }
}
