//! Removing a lab by its name, whoever built it: the ordinary end, and what a crash left.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long processes that were killed may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// Removes what is there of the lab: processes that live in its namespaces, the namespaces, the
/// bpffs and the directory. `false` if nothing was there.
pub(super) fn remove(name: &str) -> Result<bool> {
    let namespaces = namespaces(name)?;
    for namespace in &namespaces {
        end_processes(namespace)?;
    }
    for namespace in &namespaces {
        ip(&["netns", "del", namespace])?;
    }
    let directory = super::directory_of(name);
    let was_there = directory.exists();
    if was_there {
        super::bpf::Bpffs::unmount(&directory.join("bpf"))?;
        fs::remove_dir_all(&directory)
            .with_context(|| format!("removing {}", directory.display()))?;
    }
    Ok(was_there || !namespaces.is_empty())
}

/// Removes the labs of test processes that are gone; once is enough for this one.
pub(super) fn remove_of_the_dead() -> Result<()> {
    static DONE: Mutex<bool> = Mutex::new(false);
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    if std::mem::replace(&mut done, true) {
        return Ok(());
    }
    for entry in fs::read_dir("/run").context("looking for earlier labs in /run")? {
        let file_name = entry?.file_name();
        let Some(name) = file_name.to_str() else {
            continue;
        };
        let owner = name
            .strip_prefix("nlb-")
            .and_then(|rest| rest.rsplit_once('-'))
            .and_then(|(_, pid)| pid.parse::<u32>().ok());
        if let Some(pid) = owner
            && !Path::new("/proc").join(pid.to_string()).exists()
        {
            remove(name)?;
        }
    }
    Ok(())
}

fn namespaces(lab: &str) -> Result<Vec<String>> {
    let prefix = format!("{lab}-");
    // A line is `NAME` or `NAME (id: N)`.
    let mut names: Vec<String> = ip(&["netns", "list"])?
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with(&prefix))
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    Ok(names)
}

fn end_processes(namespace: &str) -> Result<()> {
    let start = Instant::now();
    loop {
        let pids: Vec<Pid> = ip(&["netns", "pids", namespace])?
            .lines()
            .filter_map(|line| Pid::from_raw(line.trim().parse().ok()?))
            .collect();
        if pids.is_empty() {
            return Ok(());
        }
        if start.elapsed() > GONE_WITHIN {
            bail!("processes {pids:?} in {namespace} do not end");
        }
        for pid in pids {
            // It may have ended meanwhile; the next look tells.
            kill_process(pid, Signal::KILL).ok();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn ip(arguments: &[&str]) -> Result<String> {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .context("running ip (Debian's package iproute2)")?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("ip {}: {stderr}", arguments.join(" "));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
