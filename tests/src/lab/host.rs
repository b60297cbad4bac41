//! One host of the lab: a network namespace, and ways to act in it.

use std::{
    fs::{self, File},
    io::Write as _,
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace with a short name.
#[derive(Clone, Debug)]
pub struct Host {
    name: String,
    namespace: String,
}

impl Host {
    pub(super) fn new(name: &str, namespace: &str) -> Self {
        Self {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
        }
    }

    /// What the lab calls it: `client`, `gateway`, `target1`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What `ip netns` calls it.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.namespace)
    }

    /// A command that will run on this host, in a process group of its own: a Ctrl-C is for the
    /// lab's owner, which then ends what it started.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        let mut net = std::ffi::OsString::from("--net=");
        net.push(self.path());
        command
            .arg(net)
            .arg("--")
            .arg(program)
            .stdin(Stdio::null())
            .process_group(0);
        command
    }

    /// Runs a command line (split at spaces) to its end; its standard output if it succeeded.
    pub fn run(&self, line: &str) -> Result<String> {
        let output = self.output(line)?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let name = &self.name;
            bail!("on {name}: {line}: {}\n{stdout}{stderr}", output.status);
        }
        Ok(stdout.into_owned())
    }

    /// Runs a command line (split at spaces) to its end, however that is.
    pub fn output(&self, line: &str) -> Result<Output> {
        self.split(line)?
            .output()
            .with_context(|| format!("running {line} on {} (through nsenter)", self.name))
    }

    /// Starts a command line (split at spaces). The caller waits for it or kills it; whatever still
    /// runs on the host is ended with the lab.
    pub fn spawn(&self, line: &str) -> Result<Child> {
        self.split(line)?
            .spawn()
            .with_context(|| format!("starting {line} on {} (through nsenter)", self.name))
    }

    fn split(&self, line: &str) -> Result<Command> {
        let mut words = line.split_whitespace();
        let program = words.next().context("an empty command line")?;
        let mut command = self.command(program);
        command.args(words);
        Ok(command)
    }

    /// Runs a closure in this namespace, on a thread of its own since a namespace is a thread's.
    /// Sockets stay in the namespace in which they were made, wherever they are used later.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.move_this_thread()?;
                anyhow::Ok(inside())
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Starts a thread in this namespace.
    pub fn thread<T: Send + 'static>(
        &self,
        inside: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<Result<T>> {
        let host = self.clone();
        std::thread::spawn(move || {
            host.move_this_thread()?;
            Ok(inside())
        })
    }

    fn move_this_thread(&self) -> Result<()> {
        let path = self.path();
        let doing = || format!("entering the network namespace {}", path.display());
        let file = File::open(&path).with_context(doing)?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(doing)
    }

    /// Runs lines of `ip` at once.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let mut child = Command::new("ip")
            .args(["-n", &self.namespace, "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("running ip (Debian's package iproute2)")?;
        let mut stdin = child.stdin.take().context("ip's standard input")?;
        stdin.write_all(lines.as_bytes())?;
        drop(stdin);
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("ip on {}: {stderr}\nof:\n{lines}", self.name);
        }
        Ok(())
    }

    /// Writes kernel parameters below `/proc/sys/net`, each as `path=value`.
    pub fn sysctl(&self, settings: &[&str]) -> Result<()> {
        self.enter(|| {
            for setting in settings {
                let (path, value) = setting
                    .split_once('=')
                    .with_context(|| format!("{setting} is not path=value"))?;
                fs::write(Path::new("/proc/sys/net").join(path), value)
                    .with_context(|| format!("setting {setting} on {}", self.name))?;
            }
            Ok(())
        })?
    }
}
