//! What the packet program logs: faults of the daemon that a packet met. Rare, and lost rather
//! than waited for.
#![expect(
    unsafe_code,
    reason = "tokio asks for a promise about the file descriptor"
)]

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::{Interest, unix::AsyncFd};

/// Hands the packet program's log on to the daemon's own, for as long as the runtime lives; needs a
/// tokio runtime around it.
pub(super) fn forward(object: &mut Ebpf) {
    let logger = match EbpfLogger::init(object) {
        Ok(logger) => logger,
        Err(error) => {
            tracing::warn!("the packet program's log cannot be read: {error}");
            return;
        }
    };
    // SAFETY: the logger owns its ring buffer's descriptor, gives the same one each time, and
    // neither closes nor replaces it before it is dropped.
    let registered = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) };
    let mut logger = match registered {
        Ok(logger) => logger,
        Err(error) => {
            tracing::warn!("the packet program's log cannot be waited for: {error}");
            return;
        }
    };
    tokio::spawn(async move {
        while let Ok(mut guard) = logger.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    });
}
