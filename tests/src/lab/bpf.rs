//! The lab's bpffs, and the program that every far end of a veth pair needs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    Ebpf,
    programs::{
        Xdp, XdpMode,
        links::{FdLink, PinnedLink},
    },
};
use nlb_userspace::dataplane::PASS_OBJECT;

use super::host::Host;

/// A bpffs outside `/sys`, which other namespaces' fresh `/sys` does not hide.
#[derive(Debug)]
pub(super) struct Bpffs;

impl Bpffs {
    pub(super) fn mount(directory: &Path) -> Result<()> {
        fs::create_dir_all(directory)?;
        let output = Command::new("mount")
            .args(["-t", "bpf", "bpf"])
            .arg(directory)
            .output()
            .context("running mount")?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "mounting a bpffs at {}: {stderr}",
            directory.display()
        );
        Ok(())
    }

    /// Unmounts it, as often as it is mounted; all pins in it go.
    pub(super) fn unmount(directory: &Path) -> Result<()> {
        while is_mounted(directory)? {
            let output = Command::new("umount")
                .arg(directory)
                .output()
                .context("running umount")?;
            if !output.status.success() {
                let stderr = String::from_utf8_lossy(&output.stderr);
                bail!("unmounting {}: {stderr}", directory.display());
            }
        }
        Ok(())
    }
}

fn is_mounted(directory: &Path) -> Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading the mounts")?;
    let wanted = directory.to_str().context("the lab's path is UTF-8")?;
    Ok(mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(wanted)))
}

/// Attaches a native program that passes everything: without one, a veth end loses the frames that
/// XDP on its peer sends, and no counter tells. Pinned, so that it stays when this process ends.
pub(super) fn attach_pass(host: &Host, interface: &str, bpffs: &Path) -> Result<()> {
    let pin: PathBuf = bpffs.join(format!("pass-{}-{interface}", host.name()));
    host.enter(|| {
        let mut object = Ebpf::load(PASS_OBJECT)?;
        let program: &mut Xdp = object
            .program_mut("pass")
            .context("the object has no program `pass`")?
            .try_into()?;
        program.load()?;
        let link = program.attach(interface, XdpMode::Driver)?;
        let link: FdLink = program.take_link(link)?.try_into()?;
        let pinned: PinnedLink = link.pin(&pin)?;
        // The pin holds it; the descriptor may go.
        drop(pinned);
        anyhow::Ok(())
    })?
    .with_context(|| {
        format!(
            "attaching the pass program to {interface} of {}",
            host.name()
        )
    })
}
