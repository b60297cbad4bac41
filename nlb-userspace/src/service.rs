//! The service manager's end: telling systemd that the daemon is ready, reads its file again, ends,
//! and is alive; and taking the control socket that systemd holds.
//!
//! All of it is by environment variables (`sd_notify(3)`, `sd_listen_fds(3)`); without them nothing
//! happens. The sign of life comes from the daemon's own loop, in [`ServiceManager::alive`], and
//! not from a task beside it: a daemon whose loop is stuck must look stuck.

use std::{
    io,
    os::unix::net::UnixListener,
    time::{Duration, Instant},
};

use listenfd::ListenFd;
use sd_notify::NotifyState;

/// Who started us and wants to know how we are; perhaps nobody.
#[derive(Debug)]
pub struct ServiceManager {
    /// How often it wants a sign of life, and when it had the last.
    watchdog: Option<(Duration, Instant)>,
    /// Whether it could not be told, which is worth one line of the log.
    is_lost: bool,
}

impl ServiceManager {
    /// The one that the environment names.
    pub fn of_the_environment() -> Self {
        // Twice as often as it must be, as sd_watchdog_enabled(3) advises.
        let watchdog = sd_notify::watchdog_enabled().map(|within| (within / 2, Instant::now()));
        Self {
            watchdog,
            is_lost: false,
        }
    }

    /// The configuration is live and the control socket answers.
    pub fn ready(&mut self, generation: u64) {
        let status = format!("generation {generation} is live");
        self.tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
    }

    /// The file is being read again; [`Self::ready`] or [`Self::refused`] must follow.
    pub fn reloading(&mut self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!("cannot read the clock: {error}"),
        }
    }

    /// The file was not taken; the daemon goes on with what it had.
    pub fn refused(&mut self, generation: u64) {
        let status = format!("the last reload was refused; generation {generation} is live");
        self.tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
    }

    /// The daemon was told to end.
    pub fn stopping(&mut self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// The loop has come round. Costs nothing unless a sign of life is due.
    pub fn alive(&mut self) {
        if let Some((every, last)) = &mut self.watchdog
            && last.elapsed() >= *every
        {
            *last = Instant::now();
            self.tell(&[NotifyState::Watchdog]);
        }
    }

    fn tell(&mut self, states: &[NotifyState<'_>]) {
        match sd_notify::notify(states) {
            Ok(()) => self.is_lost = false,
            Err(error) => {
                if !std::mem::replace(&mut self.is_lost, true) {
                    tracing::warn!("the service manager cannot be told how the daemon is: {error}");
                }
            }
        }
    }
}

/// The control socket, if the service manager made it and hands it over (`LISTEN_FDS`).
///
/// Takes the environment variables away, so it is called once, before anything else runs.
pub fn handed_over() -> io::Result<Option<UnixListener>> {
    let mut sockets = ListenFd::from_env();
    match sockets.len() {
        0 => Ok(None),
        1 => sockets.take_unix_listener(0),
        several => Err(io::Error::other(format!(
            "the service manager hands over {several} sockets, and one is needed; give nlb.socket \
             one ListenStream="
        ))),
    }
}
