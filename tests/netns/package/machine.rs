//! A Debian machine on the lab's gateway: a root of its own, systemd as its first process, and the
//! gateway's network.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nlb_tests::lab::{Lab, wait::wait_until};

use super::super::SOON;

/// How the machine's first process comes about.
const BOOT: &str = include_str!("boot.sh");

/// A booted machine. Dropping it ends all its processes; the root goes with the lab.
pub(super) struct Machine {
    root: PathBuf,
    cgroup: PathBuf,
    /// `unshare`, whose end is the first process's.
    keeper: Child,
    /// The first process, as seen from outside.
    init: u32,
}

impl Machine {
    /// Unpacks the archive of a root and boots it; nothing where no control groups of version 2 are
    /// mounted.
    pub(super) fn boot(lab: &Lab, archive: &Path) -> Result<Option<Self>> {
        let Some(groups) = control_groups()? else {
            return Ok(None);
        };
        let root = lab.directory().join("root");
        fs::create_dir(&root)?;
        let unpacked = Command::new("tar")
            .args(["--extract", "--numeric-owner", "--file"])
            .arg(archive)
            .arg("--directory")
            .arg(&root)
            .status()?;
        ensure!(unpacked.success(), "{} is no root", archive.display());
        let cgroup = groups.join(lab.name());
        fs::create_dir(&cgroup)?;
        let told = lab.directory().join("init.pid");
        let keeper = lab
            .gateway()
            .command("sh")
            .arg("-c")
            .arg("echo $$ > \"$1/cgroup.procs\" && shift && exec \"$@\"")
            .arg("sh")
            .arg(&cgroup)
            .args(["unshare", "--fork", "--kill-child", "--pid", "--mount"])
            .args(["--uts", "--ipc", "--cgroup", "sh", "-c", BOOT, "boot"])
            .arg(&root)
            .arg(&told)
            .stdout(Stdio::null())
            .spawn()
            .context("starting the machine")?;
        let mut machine = Self {
            root,
            cgroup,
            keeper,
            init: 0,
        };
        wait_until("the machine has a first process", SOON, || {
            let number = fs::read_to_string(&told).ok();
            machine.init = number.and_then(|it| it.trim().parse().ok()).unwrap_or(0);
            machine.init != 0
        })?;
        wait_until("systemd has booted", SOON, || {
            // `degraded`: some unit of Debian's does not run in namespaces.
            machine
                .output(&["systemctl", "is-system-running"])
                .is_ok_and(|output| matches!(&output.stdout[..], b"running\n" | b"degraded\n"))
        })?;
        Ok(Some(machine))
    }

    /// A file of the machine, as seen from outside.
    pub(super) fn file(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Runs words on the machine, however they end.
    pub(super) fn output(&self, words: &[&str]) -> Result<Output> {
        Command::new("nsenter")
            .args([
                "--all",
                "--target",
                &self.init.to_string(),
                "--",
                "env",
                "-i",
            ])
            .args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"])
            .args(["DEBIAN_FRONTEND=noninteractive"])
            .args(words)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("running {words:?}"))
    }

    /// Runs words that must succeed; what they print, errors too.
    pub(super) fn run(&self, words: &[&str]) -> Result<String> {
        let output = self.output(words)?;
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{words:?}: {}\n{said}",
            output.status
        );
        Ok(said.into_owned())
    }

    /// The same with a line of shell.
    pub(super) fn sh(&self, line: &str) -> Result<String> {
        self.run(&["sh", "-euc", line])
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.keeper.kill().ok();
        self.keeper.wait().ok();
        let gone = wait_until("the machine's processes have ended", SOON, || {
            remove_groups(&self.cgroup).is_ok()
        });
        if let Err(error) = gone {
            eprintln!("{} could not be removed: {error:#}", self.cgroup.display());
        }
    }
}

/// Where control groups of version 2 are.
fn control_groups() -> Result<Option<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading the mounts")?;
    Ok(mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let place = words.nth(1)?;
        (words.next() == Some("cgroup2")).then(|| place.into())
    }))
}

/// Removes a control group and those in it, which systemd made.
fn remove_groups(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_groups(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}
