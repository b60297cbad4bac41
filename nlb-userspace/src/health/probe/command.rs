//! An external command: a program of the operator's is run for each probe, and its exit code is
//! the answer.
//!
//! It is told by its environment whom to ask, and gets nothing else of the daemon's: no input, no
//! other variables but `PATH`. It runs as the daemon's user in a process group of its own, which is
//! killed when the time is over; what it started and left behind goes with it.

use std::{
    io,
    net::SocketAddr,
    os::unix::process::ExitStatusExt as _,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::AsyncReadExt as _,
    net::unix::pipe,
    process::{Child, Command},
    sync::Semaphore,
    time::Instant,
};

use crate::health::ProbeFailure;

/// How much of the program's output is kept. The rest is read and thrown away.
const KEPT_BYTES: usize = 4096;
/// Programs that run at a time.
static TURNS: Semaphore = Semaphore::const_new(64);
/// How much of its first line is told.
const LINE_CHARS: usize = 200;

/// Runs the program. Dropping the future kills it.
pub(super) async fn succeeds(
    line: &[String],
    target: SocketAddr,
) -> Result<Duration, ProbeFailure> {
    let not_run = |error: io::Error| ProbeFailure::CommandNotRun(error.kind());
    let [program, arguments @ ..] = line else {
        return Err(not_run(io::ErrorKind::InvalidInput.into()));
    };
    let _turn = TURNS.acquire().await;
    let start = Instant::now();
    let (reader, writer) = io::pipe().map_err(not_run)?;
    let mut output = pipe::Receiver::from_owned_fd(reader.into()).map_err(not_run)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("NLB_TARGET_ADDRESS", target.ip().to_string())
        .env("NLB_TARGET_PORT", target.port().to_string())
        .stdin(Stdio::null())
        .stdout(writer.try_clone().map_err(not_run)?)
        .stderr(writer)
        .process_group(0)
        // It is reaped in any case.
        .kill_on_drop(true);
    let mut group = Group(command.spawn().map_err(not_run)?);
    // It holds the pipe's other end.
    drop(command);
    let mut said = Output::default();
    let status = {
        let end = group.0.wait();
        tokio::pin!(end);
        loop {
            tokio::select! {
                biased;
                status = &mut end => break status,
                () = said.read(&mut output), if !said.is_complete => {}
            }
        }
    };
    let status = status.map_err(not_run)?;
    if status.success() {
        return Ok(start.elapsed());
    }
    // What was written last may have been in the pipe when the program ended.
    said.take_in_what_is_there(&output);
    Err(ProbeFailure::CommandFailed(how(status, &said)))
}

/// A running program and what it started.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // No id any more: it has ended and was reaped, so that its number may be another's.
        let id = self.0.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = id.and_then(Pid::from_raw)
            && let Err(error) = kill_process_group(group, Signal::KILL)
        {
            tracing::warn!(%error, "cannot kill a health check's command");
        }
    }
}

/// What a program has written, up to a limit.
#[derive(Default)]
struct Output {
    kept: Vec<u8>,
    is_complete: bool,
}

impl Output {
    async fn read(&mut self, pipe: &mut pipe::Receiver) {
        let mut some = [0; KEPT_BYTES];
        match pipe.read(&mut some).await {
            Ok(length @ 1..) => self.keep(&some[..length]),
            Ok(0) | Err(_) => self.is_complete = true,
        }
    }

    fn take_in_what_is_there(&mut self, pipe: &pipe::Receiver) {
        let mut some = [0; KEPT_BYTES];
        if let Ok(length) = pipe.try_read(&mut some) {
            self.keep(&some[..length]);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = KEPT_BYTES.saturating_sub(self.kept.len());
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// The first line with something in it, fit for a log.
    fn first_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.kept);
        let line = text.lines().map(str::trim).find(|line| !line.is_empty());
        let printable = line.unwrap_or_default().chars();
        printable
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(LINE_CHARS)
            .collect()
    }
}

fn how(status: ExitStatus, said: &Output) -> String {
    let end = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    };
    match said.first_line() {
        line if line.is_empty() => end,
        line => format!("{end}: {line}"),
    }
}
