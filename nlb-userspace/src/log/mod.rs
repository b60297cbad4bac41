//! The log, for which nobody waits: whoever reads it may be slow or stuck, and the daemon goes on.
//!
//! ```text
//!  tracing ─┬─► journald::Layer ─┬─► Queue ─► journald's socket, or standard error
//!           └─► Lines ───────────┘
//! ```
//!
//! A message is written at once if its reader takes it at once. If not it waits in the queue, which
//! the next message and the daemon's timer try to empty. What finds no room there is lost, and that
//! is said when there is room again. No thread: one would have the rights that the daemon gives up.

mod journald;
mod queue;
mod stderr;

use std::{
    io,
    os::unix::net::UnixDatagram,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

pub use self::journald::Journald;
use self::queue::{Queue, Sink};

/// How often it is tried to get rid of what waits when the process ends.
const TRY_EVERY: Duration = Duration::from_millis(10);

static QUEUE: Mutex<Queue<Reader>> = Mutex::new(Queue::new(Reader::Stderr));

/// Who reads the log.
#[derive(Debug)]
enum Reader {
    /// Whoever has the other end of standard error: lines.
    Stderr,
    /// journald: entries with fields, each a datagram.
    Journald(UnixDatagram),
}

impl Sink for Reader {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stderr => stderr::write_now(record),
            Self::Journald(socket) => journald::send(socket, record),
        }
    }

    fn losses(&self, count: u64) -> Vec<u8> {
        let text = format!("{count} messages were lost: nobody read the log");
        match self {
            Self::Stderr => format!(" WARN {text}\n").into_bytes(),
            Self::Journald(_) => journald::warning(&text),
        }
    }
}

fn queue() -> MutexGuard<'static, Queue<Reader>> {
    // A queue is whole between two of its calls.
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes what waits, as far as it is taken now.
pub fn pump() {
    queue().pump();
}

/// How many messages were lost since the process started.
pub fn lost() -> u64 {
    queue().lost()
}

/// Writes what waits, for at most this long: the process is about to end.
pub fn finish(within: Duration) {
    let until = Instant::now() + within;
    while !queue().is_empty() && Instant::now() < until {
        thread::sleep(TRY_EVERY);
        pump();
    }
}

/// Standard error, to which lines are written whole.
#[derive(Debug, Clone, Copy)]
pub struct Lines;

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        queue().push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        pump();
        Ok(())
    }
}
