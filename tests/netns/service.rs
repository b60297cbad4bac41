//! The daemon under systemd, which these tests play: what it is told, and what it hands over.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nlb_tests::lab::{Lab, daemon, wait::wait_until};
use rustix::process::{Pid, Signal, kill_process};

use super::{SOON, configuration};

/// How often the watchdog wants a sign of life.
const WATCHDOG: Duration = Duration::from_secs(2);

/// systemd's end of `NOTIFY_SOCKET`.
struct Manager {
    path: PathBuf,
    socket: UnixDatagram,
}

impl Manager {
    fn new(lab: &Lab) -> Result<Self> {
        let path = lab.directory().join("notify");
        let socket = UnixDatagram::bind(&path)?;
        Ok(Self { path, socket })
    }

    fn environment(&self, command: &mut Command) {
        command
            .env("NOTIFY_SOCKET", &self.path)
            .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
    }

    /// The next message, if one comes in that time.
    fn next(&self, within: Duration) -> Result<Option<String>> {
        let mut buffer = [0; 4096];
        self.socket.set_read_timeout(Some(within))?;
        match self.socket.recv(&mut buffer) {
            Ok(length) => Ok(Some(
                String::from_utf8_lossy(&buffer[..length]).into_owned(),
            )),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for a message that begins so; signs of life before it do not count.
    fn hears(&self, beginning: &str) -> Result<String> {
        let start = Instant::now();
        while start.elapsed() < SOON {
            match self.next(SOON)? {
                Some(message) if message.starts_with(beginning) => return Ok(message),
                Some(message) if message.starts_with("WATCHDOG=1") => {}
                other => bail!("instead of {beginning}: {other:?}"),
            }
        }
        bail!("nothing but signs of life instead of {beginning}");
    }
}

/// A lab, its configuration written, unless we are not root.
fn lab(name: &str) -> Result<Option<Lab>> {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED {name}: not root");
        return Ok(None);
    }
    let lab = Lab::new(name)?;
    lab.write_config(&configuration())?;
    Ok(Some(lab))
}

#[test]
fn systemd_hears_of_readiness_of_reloads_also_refused_ones_and_of_the_end() -> Result<()> {
    let Some(lab) = lab("notify")? else {
        return Ok(());
    };
    let manager = Manager::new(&lab)?;
    let mut daemon = lab.start_nlb_with(|command| manager.environment(command))?;
    let ready = manager.hears("READY=1\n")?;
    ensure!(ready.contains("STATUS=generation "), "{ready}");

    ensure!(daemon.reload()?.status.success(), "{}", daemon.log()?);
    let reloading = manager.hears("RELOADING=1\n")?;
    ensure!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    let ready = manager.hears("READY=1\n")?;
    ensure!(ready.contains("STATUS=generation "), "{ready}");

    lab.write_config("nonsense")?;
    let pid = daemon
        .pid()
        .and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
    kill_process(pid.context("a running daemon")?, Signal::HUP)?;
    manager.hears("RELOADING=1\n")?;
    let ready = manager.hears("READY=1\n")?;
    ensure!(ready.contains("was refused"), "{ready}");

    daemon.terminate()?;
    manager.hears("STOPPING=1\n")?;
    daemon.detach(&lab)
}

#[test]
fn the_watchdog_hears_the_loop_and_nothing_else() -> Result<()> {
    let Some(lab) = lab("watchdog")? else {
        return Ok(());
    };
    let manager = Manager::new(&lab)?;
    let mut daemon = lab.start_nlb_with(|command| manager.environment(command))?;
    manager.hears("READY=1\n")?;
    for _ in 0..3 {
        let sign = manager.next(SOON)?;
        ensure!(sign.as_deref() == Some("WATCHDOG=1\n"), "{sign:?}");
    }

    // A configuration that is a pipe which nobody writes: the loop waits for it, and so it is silent.
    let file = lab.directory().join("nlb.toml");
    let text = fs::read(&file)?;
    fs::remove_file(&file)?;
    ensure!(Command::new("mkfifo").arg(&file).status()?.success());
    let pid = daemon
        .pid()
        .and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
    kill_process(pid.context("a running daemon")?, Signal::HUP)?;
    manager.hears("RELOADING=1\n")?;
    let silence = manager.next(WATCHDOG * 2)?;
    ensure!(silence.is_none(), "a loop that is stuck said {silence:?}");

    fs::File::options()
        .write(true)
        .open(&file)?
        .write_all(&text)?;
    manager.hears("READY=1\n")?;
    let sign = manager.next(SOON)?;
    ensure!(sign.as_deref() == Some("WATCHDOG=1\n"), "{sign:?}");
    daemon.terminate()?;
    daemon.detach(&lab)
}

/// A process that ends with the test.
struct Activated(Child);

impl Drop for Activated {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn a_socket_that_systemd_holds_is_taken_and_left_behind() -> Result<()> {
    const ACTIVATE: &str = "/usr/bin/systemd-socket-activate";
    if !Path::new(ACTIVATE).exists() {
        println!("SKIPPED a_socket_that_systemd_holds: no {ACTIVATE} (Debian's package systemd)");
        return Ok(());
    }
    let Some(lab) = lab("activation")? else {
        return Ok(());
    };
    let binary = daemon::binary()?;
    let log = fs::File::create(lab.directory().join("activated.log"))?;
    let child = Command::new(ACTIVATE)
        .arg("--listen")
        .arg(lab.socket())
        .arg("nsenter")
        .arg(format!("--net=/run/netns/{}", lab.gateway().namespace()))
        .arg(&binary)
        .args(["run", "--config"])
        .arg(lab.directory().join("nlb.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()?;
    let mut activated = Activated(child);
    wait_until("the socket is there", SOON, || lab.socket().exists())?;
    // The first to ask has it started, and gets its answer.
    let status = Command::new(&binary)
        .args(["status", "--json", "--socket"])
        .arg(lab.socket())
        .output()?;
    let log = || fs::read_to_string(lab.directory().join("activated.log")).unwrap_or_default();
    ensure!(status.status.success(), "{status:?}\n{}", log());

    let pid = Pid::from_raw(activated.0.id().try_into()?).context("a pid")?;
    kill_process(pid, Signal::TERM)?;
    ensure!(activated.0.wait()?.success(), "{}", log());
    ensure!(
        lab.socket().exists(),
        "the socket is systemd's, and was removed"
    );
    ensure!(
        Command::new(&binary)
            .args(["detach", "--bpffs"])
            .arg(lab.bpffs())
            .status()?
            .success()
    );
    Ok(())
}
