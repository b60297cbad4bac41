//! `cargo xtask deb`: the Debian package.
//!
//! What goes where stands in `nlb-userspace/Cargo.toml`, for cargo-deb. Here the program is built, and
//! what it generates laid out beside it: manual pages, completions, the list of its crates. cargo-deb
//! then finds all of it in what it takes for its target folder, whichever profile it was built with.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use xtask::{environment::outside_cargo, toolchain::search_path, workspace_root};

use crate::{
    packages, roots,
    run::{ask, cargo, run, which},
    setup,
};

/// The series of cargo-deb that is installed.
pub(crate) const CARGO_DEB: &str = "^3.8";

/// How the program was, or is to be, compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// What users get.
    Release,
    /// What `cargo test` has compiled already.
    Dev,
}

impl Profile {
    /// Its folder in cargo's target folder.
    const fn folder(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dev => "debug",
        }
    }
}

/// The subcommand: sets up, and builds the package.
pub(crate) fn deb(profile: Profile) -> Result<()> {
    match profile {
        Profile::Release => setup::setup_with(&[packages::SHLIBDEPS])?,
        Profile::Dev => setup::setup_with(&packages::FOR_PACKAGE)?,
    }
    setup::packager()?;
    match profile {
        Profile::Release => println!("deb: {}", build(profile)?.display()),
        Profile::Dev => {
            judged()?;
            roots::make(&folder()?)?;
        }
    }
    Ok(())
}

/// The package as it can be had without compiling anything anew, for the tests, once lintian has nothing
/// to say against it.
pub(crate) fn judged() -> Result<()> {
    let package = build(Profile::Dev)?;
    if which("lintian").is_some() {
        run(Command::new("lintian")
            .args(["--allow-root", "--fail-on", "error,warning"])
            .arg(&package))?;
    } else {
        println!("deb: lintian is not here, so nobody judges the package");
    }
    Ok(())
}

/// Where packages and roots are made.
pub(crate) fn folder() -> Result<PathBuf> {
    Ok(target_folder()?.join("package"))
}

fn build(profile: Profile) -> Result<PathBuf> {
    let mut compile = cargo();
    compile
        .current_dir(workspace_root())
        .args(["build", "--package", "nlb-userspace", "--bins"]);
    if profile == Profile::Release {
        compile.arg("--release");
    }
    run(&mut compile)?;
    let stage = folder()?;
    lay_out(&target_folder()?.join(profile.folder()).join("nlb"), &stage)?;
    pack(profile, &stage)
}

/// Cargo's target folder, in which it has put this program.
fn target_folder() -> Result<PathBuf> {
    let program = env::current_exe().context("looking for this program")?;
    let folder = program.ancestors().nth(2).context("no target folder")?;
    Ok(folder.to_owned())
}

/// Puts everything generated where cargo-deb looks for what it would have built.
fn lay_out(program: &Path, stage: &Path) -> Result<()> {
    let folder = stage.join("release");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("clearing {}", folder.display()))?;
    }
    fs::create_dir_all(folder.join("completions"))?;
    let packed = folder.join("nlb");
    fs::copy(program, &packed).with_context(|| format!("copying {}", program.display()))?;
    run(Command::new(&packed).arg("man").arg(folder.join("man")))?;
    for (shell, file) in [("bash", "nlb"), ("zsh", "_nlb"), ("fish", "nlb.fish")] {
        let script = ask(Command::new(&packed).args(["completions", shell]))
            .with_context(|| format!("`nlb completions {shell}` failed"))?;
        fs::write(folder.join("completions").join(file), script)?;
    }
    fs::write(folder.join("crates.txt"), crates()?)?;
    // Debian's is about packages, ours about nlb.
    let ours = workspace_root().join("CHANGELOG.md");
    fs::copy(ours, folder.join("changelog"))?;
    fs::write(folder.join("changelog.Debian"), changelog())?;
    run(Command::new("gzip")
        .args([
            "-9",
            "--no-name",
            "--recursive",
            "man",
            "changelog",
            "changelog.Debian",
        ])
        .current_dir(&folder))
}

/// Every crate that the program is linked with, its version and licence.
fn crates() -> Result<String> {
    let mut tree = cargo();
    tree.current_dir(workspace_root()).args([
        "tree",
        "--locked",
        "--package",
        "nlb-userspace",
        "--edges",
        "normal,no-proc-macro",
        "--prefix",
        "none",
        "--format",
        "{p} | {l}",
    ]);
    let tree = ask(&mut tree).context("`cargo tree` failed")?;
    Ok(listed(&tree))
}

/// One line for each crate that is not ours: those stand with their folder.
fn listed(tree: &str) -> String {
    let crates: BTreeSet<String> = tree
        .lines()
        .filter(|line| !line.contains("(/"))
        .filter_map(|line| line.split_once(" | "))
        .map(|(name, licence)| format!("{name}: {}\n", licence.trim_end_matches(" (*)")))
        .collect();
    crates.into_iter().collect()
}

/// Debian's changelog, dated by the commit, so that one commit makes one package.
fn changelog() -> String {
    let mut git = Command::new("git");
    git.current_dir(workspace_root());
    let date = ask(git.args(["log", "-1", "--format=%cD"]))
        .or_else(|| ask(Command::new("date").arg("--rfc-email")))
        .unwrap_or_default();
    format!(
        "nlb ({}-1) unstable; urgency=medium\n\n  * What is new in nlb stands in changelog.gz.\n\n \
         -- {}  {}\n",
        env!("CARGO_PKG_VERSION"),
        MAINTAINER,
        date.trim()
    )
}

/// As in `nlb-userspace/Cargo.toml`.
const MAINTAINER: &str = "The nlb authors <nlb@packages.invalid>";

/// Where cargo-deb is.
pub(crate) fn find_cargo_deb() -> Option<PathBuf> {
    search_path()
        .into_iter()
        .map(|folder| folder.join("cargo-deb"))
        .find(|program| program.is_file())
}

fn pack(profile: Profile, stage: &Path) -> Result<PathBuf> {
    let Some(program) = find_cargo_deb() else {
        bail!("cargo-deb is neither on PATH nor in cargo's bin folder: run `cargo xtask setup`");
    };
    let missing = packages::missing(&[packages::SHLIBDEPS]);
    if !missing.is_empty() {
        bail!("{} is missing: run `cargo xtask setup`", missing.join(" "));
    }
    let output = stage.join("nlb.deb");
    let mut command = outside_cargo(&program);
    command
        .current_dir(workspace_root())
        .env("CARGO_TARGET_DIR", stage)
        .args(["--no-build", "--locked", "--strip"])
        .args(["--package", "nlb-userspace", "--output"])
        .arg(&output);
    if profile == Profile::Dev {
        // Nobody downloads it.
        command.arg("--fast");
    }
    run(&mut command)?;
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_crate_is_listed_once_and_ours_are_not() {
        let tree = "nlb-userspace v0.1.0 (/src/nlb-userspace) | MIT\n\
                    libc v0.2.1 | MIT OR Apache-2.0\naya v0.14.0 | MIT\n\
                    libc v0.2.1 | MIT OR Apache-2.0 (*)\n";
        assert_eq!(
            listed(tree),
            "aya v0.14.0: MIT\nlibc v0.2.1: MIT OR Apache-2.0\n"
        );
    }

    #[test]
    fn the_changelog_has_the_version_and_the_maintainer_that_the_package_has() {
        let manifest = include_str!("../../nlb-userspace/Cargo.toml");
        assert!(manifest.contains(&format!("maintainer = \"{MAINTAINER}\"")));
        assert!(changelog().starts_with("nlb ("));
    }
}
