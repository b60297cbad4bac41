//! A connection that lives for as long as a test likes, with an answer always on its way.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, ensure};
use nlb_tests::lab::{Lab, http::HttpConnection, nginx::LARGE_BYTES, wait::wait_until};

use super::super::{PATIENCE, SOON};

/// What both ends of the download see.
#[derive(Debug, Default)]
struct Shared {
    /// Grows with everything that comes.
    pieces: AtomicUsize,
    /// No more after the answer that is on its way.
    is_enough: AtomicBool,
}

/// The same slow file again and again over one connection.
#[derive(Debug)]
pub(super) struct Download {
    vip: SocketAddr,
    shared: Arc<Shared>,
    thread: JoinHandle<Result<()>>,
}

impl Download {
    pub(super) fn start(lab: &Lab, vip: SocketAddr) -> Result<Self> {
        let mut connection = HttpConnection::from(lab.client(), vip, PATIENCE)?;
        let target = connection.get("/")?.target;
        let shared = Arc::<Shared>::default();
        let seen = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            while !seen.is_enough.load(Ordering::Relaxed) {
                let answer = connection.get_with("/slow", |_| {
                    seen.pieces.fetch_add(1, Ordering::Relaxed);
                })?;
                ensure!(
                    answer.target == target && answer.body_bytes == LARGE_BYTES as u64,
                    "begun with {target}: {answer:?}"
                );
            }
            Ok(())
        });
        Ok(Self {
            vip,
            shared,
            thread,
        })
    }

    /// Waits until some more has come.
    pub(super) fn goes_on(&self) -> Result<()> {
        let pieces = || self.shared.pieces.load(Ordering::Relaxed);
        let (before, vip) = (pieces(), self.vip);
        wait_until(&format!("the download from {vip} goes on"), SOON, || {
            pieces() > before || self.thread.is_finished()
        })?;
        ensure!(!self.thread.is_finished(), "{vip}: the connection ended");
        Ok(())
    }

    /// The last answer comes whole, over the connection that there was from the start.
    pub(super) fn ends_well(self) -> Result<()> {
        self.shared.is_enough.store(true, Ordering::Relaxed);
        let ended = self.thread.join().expect("the download's thread");
        ended.with_context(|| format!("the download from {}", self.vip))
    }
}
