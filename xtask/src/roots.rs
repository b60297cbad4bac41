//! Clean Debian roots, in which the tests install the package: one archive for each release that users
//! have, made by mmdebstrap from the mirror that this machine's apt uses, and kept below the target
//! folder.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail};

use crate::run::{Privilege, ask, shown};

/// The releases, 12 and 13.
const RELEASES: [&str; 2] = ["bookworm", "trixie"];

/// What a server has and the smallest root has not: an init.
const PACKAGES: &str = "dbus,systemd,systemd-sysv";

/// Makes the archives that are not there yet.
pub(crate) fn make(folder: &Path) -> Result<()> {
    let wanted: Vec<(&str, PathBuf)> = RELEASES
        .iter()
        .map(|release| (*release, folder.join(format!("{release}.tar"))))
        .filter(|(_, archive)| !archive.exists())
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let Some(mirror) = mirror() else {
        println!("deb: apt knows no mirror of Debian here, so there is no root to install in");
        return Ok(());
    };
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    thread::scope(|scope| {
        let runs: Vec<_> = wanted
            .iter()
            .map(|(release, archive)| scope.spawn(|| debootstrap(&mirror, release, archive)))
            .collect();
        runs.into_iter().try_for_each(|run| match run.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

/// Where apt has Debian from.
fn mirror() -> Option<String> {
    let mut query = Command::new("apt-get");
    query.args([
        "indextargets",
        "--format",
        "$(ORIGIN) $(COMPONENT) $(SUITE) $(REPO_URI)",
    ]);
    mirror_in(&ask(query.arg("Created-By: Packages"))?)
}

/// The archive itself, not its updates, backports and security updates.
fn mirror_in(targets: &str) -> Option<String> {
    targets.lines().find_map(|line| {
        let mut words = line.split(' ');
        let is_debian = words.next() == Some("Debian") && words.next() == Some("main");
        let is_archive = is_debian && !words.next()?.contains('-');
        words.next().filter(|_| is_archive).map(String::from)
    })
}

fn debootstrap(mirror: &str, release: &str, archive: &Path) -> Result<()> {
    let half = archive.with_extension("tar.part");
    let mut command = Privilege::look().command("mmdebstrap")?;
    command
        .args(["--quiet", "--variant=minbase", "--format=tar"])
        .arg(format!("--include={PACKAGES}"))
        .args([release, &half.to_string_lossy(), "-"]);
    println!("  $ {}", shown(&command));
    let mut child = command
        .stdin(Stdio::piped())
        .spawn()
        .context("starting mmdebstrap (Debian's package of that name)")?;
    if let Some(mut sources) = child.stdin.take() {
        writeln!(sources, "deb {mirror} {release} main")?;
    }
    if !child.wait()?.success() {
        bail!("there is no root of {release}: mmdebstrap failed");
    }
    fs::rename(&half, archive).with_context(|| format!("keeping {}", archive.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_taken_and_neither_its_updates_nor_other_repositories() {
        let targets = "Others main stable https://others.example/apt/\n\
                       Debian main stable-security https://mirror.example/security/\n\
                       Debian contrib stable https://mirror.example/contrib/\n\
                       Debian main stable https://mirror.example/debian/\n";
        let mirror = mirror_in(targets);
        assert_eq!(mirror.as_deref(), Some("https://mirror.example/debian/"));
        assert_eq!(mirror_in("Ubuntu main noble https://u.example/\n"), None);
    }
}
