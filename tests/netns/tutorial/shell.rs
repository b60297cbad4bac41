//! The one shell into which a reader of the tutorial pastes, on a machine of its own as far as that
//! goes: other mounts, other networks, other processes, all of which end with it.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nlb_tests::lab::daemon;
use tempfile::TempDir;

use super::{page::Step, shown::is_shown};

/// A fresh `/run` for namespaces and sockets, a fresh place for state, a bpffs, and then the shell.
/// What fails ends it, in the middle of a pipe, too.
const BEGIN: &str = "\
    set -e
    mount --make-rprivate /
    mount -t tmpfs tmpfs /run
    mount -t tmpfs tmpfs /var/lib
    mount -t bpf bpf /sys/fs/bpf
    exec bash --noprofile --norc -eo pipefail";

/// How long a block may take.
const PATIENCE: Duration = Duration::from_mins(2);
/// How long a reader asks again until what is shown is there.
const SOON: Duration = Duration::from_mins(1);

/// A running shell. Dropping it ends whatever was started in it.
pub(super) struct Shell {
    child: Child,
    input: ChildStdin,
    /// A line after each block.
    done: Receiver<()>,
    /// The reader's home.
    home: TempDir,
}

impl Shell {
    pub(super) fn start() -> Result<Self> {
        let home = TempDir::new()?;
        let nlb = daemon::binary()?;
        let mut path = OsString::from(nlb.parent().context("a folder with nlb")?);
        path.push(":");
        path.push(env::var_os("PATH").unwrap_or_default());
        let mut child = Command::new("unshare")
            .args(["--mount", "--net", "--pid", "--mount-proc"])
            .args(["--fork", "--kill-child", "--", "sh", "-c", BEGIN])
            .env("HOME", home.path())
            .env("PATH", path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("running unshare (Debian's package util-linux)")?;
        let input = child.stdin.take().context("the shell's input")?;
        let output = child.stdout.take().context("the shell's output")?;
        let (tell, done) = channel();
        thread::spawn(move || {
            for _line in BufReader::new(output).lines().map_while(Result::ok) {
                if tell.send(()).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            child,
            input,
            done,
            home,
        })
    }

    /// Does what a reader does with a block. One that shows nothing must succeed. Where output is
    /// shown, the reader asks until that is what comes, and looks at nothing else.
    pub(super) fn paste(&mut self, step: &Step) -> Result<()> {
        fs::write(self.home.path().join("block"), &step.commands)?;
        let Some(shown) = &step.shown else {
            return self.run(". ~/block");
        };
        let start = Instant::now();
        loop {
            self.run("( set +e; . ~/block; true )")?;
            let printed = self.printed()?;
            if is_shown(shown, &printed) {
                return Ok(());
            }
            ensure!(
                start.elapsed() < SOON,
                "this is printed:\n{printed}and this is shown:\n{shown}"
            );
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// What the last block printed.
    pub(super) fn printed(&self) -> Result<String> {
        let bytes = fs::read(self.home.path().join("printed"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn run(&mut self, line: &str) -> Result<()> {
        let told = writeln!(self.input, "{line} < /dev/null > ~/printed 2>&1; echo")
            .and_then(|()| self.input.flush());
        if told.is_err() || self.done.recv_timeout(PATIENCE).is_err() {
            bail!(
                "failed, or took longer than {PATIENCE:?}, and printed:\n{}",
                self.printed().unwrap_or_default()
            );
        }
        Ok(())
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // It may have ended already; what it started ends with it.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
