//! Lines on standard error, without waiting for whoever reads them.

use std::io;

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::write,
};

/// A pipe that says that it can be written to takes so much at once: `PIPE_BUF` of `linux/limits.h`.
const AT_ONCE: usize = 4096;

/// Writes as much as can be written without waiting. The file is not made non-blocking: it is others',
/// too.
pub(super) fn write_now(record: &[u8]) -> io::Result<usize> {
    let stderr = io::stderr();
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    if poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&now))? == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    Ok(write(&stderr, record.get(..AT_ONCE).unwrap_or(record))?)
}
