//! Connections that are held, and connections that come all the while.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};

use crate::lab::{Lab, http::HttpConnection};

/// What a held connection allows its server: longer than a lost segment takes to be sent again.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a new connection allows: so long that a lost SYN is sent again once.
const PATIENCE_OF_NEWCOMERS: Duration = Duration::from_secs(2);
/// Clients that open connections all the while, in each mode.
const NEWCOMERS: usize = 4;
/// Between two connections of one of them.
const EVERY: Duration = Duration::from_millis(5);

/// Connections that are open, and who answered first on each.
pub(super) struct Held(Vec<(HttpConnection, String)>);

impl Held {
    pub(super) fn open(lab: &Lab, vip: SocketAddr, count: usize) -> Result<Self> {
        let open = || -> std::io::Result<(HttpConnection, String)> {
            let mut connection = HttpConnection::here(vip, PATIENCE)?;
            let target = connection.get("/health")?.target;
            Ok((connection, target))
        };
        let held = lab
            .client()
            .enter(|| (0..count).map(|_| open()).collect::<std::io::Result<_>>())?;
        Ok(Self(held.with_context(|| format!("connecting to {vip}"))?))
    }

    /// How many this server has.
    pub(super) fn of(&self, server: &str) -> usize {
        self.0.iter().filter(|(_, target)| target == server).count()
    }

    /// How many do not go on with the server that they had.
    pub(super) fn broken(&mut self) -> usize {
        let goes_on = |(connection, target): &mut (HttpConnection, String)| {
            connection
                .get("/health")
                .is_ok_and(|answer| answer.target == *target)
        };
        self.0.len()
            - self
                .0
                .iter_mut()
                .filter_map(|one| goes_on(one).then_some(()))
                .count()
    }
}

/// Clients that never rest.
pub(super) struct Newcomers {
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<(usize, usize)>>>,
}

impl Newcomers {
    pub(super) fn start(lab: &Lab, vip: SocketAddr) -> Self {
        let end = Arc::<AtomicBool>::default();
        let threads = (0..NEWCOMERS)
            .map(|_| {
                let end = Arc::clone(&end);
                lab.client().thread(move || {
                    let (mut came, mut failed) = (0, 0);
                    while !end.load(Ordering::Relaxed) {
                        let answer = HttpConnection::here(vip, PATIENCE_OF_NEWCOMERS)
                            .and_then(|mut connection| connection.get("/health"));
                        came += 1;
                        failed += usize::from(answer.is_err());
                        thread::sleep(EVERY);
                    }
                    (came, failed)
                })
            })
            .collect();
        Self { end, threads }
    }

    /// How many came, and how many of them came to nothing.
    pub(super) fn end(self) -> Result<(usize, usize)> {
        self.end.store(true, Ordering::Relaxed);
        let mut sum = (0, 0);
        for thread in self.threads {
            let told = thread.join().map_err(|_| anyhow!("a client panicked"))??;
            sum = (sum.0 + told.0, sum.1 + told.1);
        }
        Ok(sum)
    }
}
