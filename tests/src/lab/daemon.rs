//! The daemon under test, as an operator runs it: the real program, its command line, its socket.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Lab, wait::wait_until};

/// How long start and end may take.
const WITHIN: Duration = Duration::from_secs(20);

/// The `nlb` to test: what the variable `NLB_BINARY` names, or the one that cargo built beside the
/// running program.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("NLB_BINARY") {
        return Ok(path.into());
    }
    let program = env::current_exe().context("looking for the running program")?;
    program
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join("nlb"))
        .find(|candidate| candidate.is_file())
        .with_context(|| {
            let program = program.display();
            format!("no nlb beside {program}: run `cargo build -p nlb-userspace` first")
        })
}

/// A running daemon. Dropping it ends the process in the ordinary way.
#[derive(Debug)]
pub struct Daemon {
    binary: PathBuf,
    socket: PathBuf,
    bpffs: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Daemon {
    pub(super) fn start(
        lab: &Lab,
        binary: &Path,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let mut daemon = Self::spawn(lab, binary, prepare)?;
        let mut ended = None;
        let ready = wait_until("nlb is ready", WITHIN, || {
            ended = daemon
                .child
                .as_mut()
                .and_then(|child| child.try_wait().ok())
                .flatten();
            ended.is_some() || daemon.status().is_ok()
        });
        if let Some(status) = ended {
            bail!("nlb ended at once ({status}); it said:\n{}", daemon.log()?);
        }
        ready.with_context(|| format!("nlb said:\n{}", daemon.log().unwrap_or_default()))?;
        Ok(daemon)
    }

    /// Starts it and waits for nothing.
    pub(super) fn spawn(
        lab: &Lab,
        binary: &Path,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let log = lab.directory().join("nlb.log");
        let messages = fs::File::options().create(true).append(true).open(&log)?;
        let mut command = lab.gateway().command(binary);
        command
            .args(["run", "--config"])
            .arg(lab.directory().join("nlb.toml"))
            .stdout(Stdio::null())
            .stderr(messages);
        prepare(&mut command);
        let child = command
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        Ok(Self {
            binary: binary.to_owned(),
            socket: lab.socket(),
            bpffs: lab.bpffs(),
            log,
            child: Some(child),
        })
    }

    /// Whether the process has not ended.
    pub fn is_running(&mut self) -> bool {
        let child = self.child.as_mut();
        child.is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Waits until it ends by itself, which it must within some seconds; whether it said that all is
    /// well.
    pub fn ends(&mut self) -> Result<bool> {
        let child = self.child.as_mut().context("nlb does not run")?;
        let mut status = None;
        wait_until("nlb ends", WITHIN, || {
            status = child.try_wait().ok().flatten();
            status.is_some()
        })?;
        self.child = None;
        Ok(status.is_some_and(|status| status.success()))
    }

    /// The process.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// What the daemon has logged, of earlier starts in this lab, too.
    pub fn log(&self) -> Result<String> {
        fs::read_to_string(&self.log).with_context(|| format!("reading {}", self.log.display()))
    }

    /// What `nlb status --json` prints.
    pub fn status(&self) -> Result<Value> {
        let output = self.command("status", &["--json"])?;
        ensure!(
            output.status.success(),
            "nlb status: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).context("nlb status --json printed no JSON")
    }

    /// `nlb reload`, however it ends.
    pub fn reload(&self) -> Result<Output> {
        self.command("reload", &[])
    }

    /// `nlb` with these words and this daemon's socket, however it ends.
    pub fn nlb(&self, words: &[&str]) -> Result<Output> {
        Command::new(&self.binary)
            .args(words)
            .arg("--socket")
            .arg(&self.socket)
            .output()
            .with_context(|| format!("running {} {words:?}", self.binary.display()))
    }

    fn command(&self, name: &str, arguments: &[&str]) -> Result<Output> {
        Command::new(&self.binary)
            .arg(name)
            .arg("--socket")
            .arg(&self.socket)
            .args(arguments)
            .output()
            .with_context(|| format!("running {} {name}", self.binary.display()))
    }

    /// SIGKILL: no goodbye.
    pub fn kill_9(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("nlb has no pid")?, Signal::TERM).ok();
        // Not `wait_until`: the daemon is to end in good order after a Ctrl-C, too.
        let start = Instant::now();
        while matches!(child.try_wait(), Ok(None)) {
            if start.elapsed() > WITHIN {
                child.kill()?;
                child.wait()?;
                bail!("nlb did not end within {WITHIN:?} of SIGTERM and was killed");
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// `nlb detach` on the gateway: ends the data plane.
    pub fn detach(&self, lab: &Lab) -> Result<()> {
        let output = lab
            .gateway()
            .command(&self.binary)
            .args(["detach", "--bpffs"])
            .arg(&self.bpffs)
            .output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "nlb detach: {stderr}");
        Ok(())
    }

    /// Lets it run on without this process.
    pub fn keep(mut self) {
        self.child = None;
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = self.terminate() {
            eprintln!("{error:#}");
        }
    }
}
