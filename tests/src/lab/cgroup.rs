//! Limits of memory, by control groups of either version.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::Lab;

/// Where the memory controller is, of version 2 and 1, and what its files are called.
const CONTROLLERS: [(&str, &str, &str); 2] = [
    ("/sys/fs/cgroup", "cgroup.controllers", "memory.max"),
    (
        "/sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.limit_in_bytes",
    ),
];

/// A control group with a limit. Dropping it removes it; nobody may be in it any more then.
#[derive(Debug)]
pub struct MemoryLimit {
    folder: PathBuf,
    limit: &'static str,
}

impl MemoryLimit {
    /// One for this lab, without a limit so far; nothing where this machine lets nobody make one.
    pub fn new(lab: &Lab) -> Option<Self> {
        CONTROLLERS.iter().find_map(|(root, mark, limit)| {
            let root = Path::new(root);
            let folder = root.join(lab.name());
            let is_there = root.join(mark).exists() && fs::create_dir(&folder).is_ok();
            let made = is_there.then(|| Self { folder, limit })?;
            made.folder.join(limit).exists().then_some(made)
        })
    }

    /// What its processes may have.
    pub fn set(&self, bytes: u64) -> Result<()> {
        let file = self.folder.join(self.limit);
        fs::write(&file, bytes.to_string()).with_context(|| format!("writing {}", file.display()))
    }

    /// Takes a process in, and what it starts from now on.
    pub fn take_in(&self, pid: u32) -> Result<()> {
        let file = self.processes();
        fs::write(&file, pid.to_string()).with_context(|| format!("writing {}", file.display()))
    }

    /// Where the numbers of its processes are written.
    pub fn processes(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.folder) {
            eprintln!("{} could not be removed: {error}", self.folder.display());
        }
    }
}
