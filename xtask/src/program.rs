//! `cargo xtask demo` and `cargo xtask bench`: set up, build a program of nlb-tests, and become it.
//!
//! The programs themselves need aya and the tests' lab of network namespaces; this crate stays
//! small.

use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result, bail};
use xtask::workspace_root;

use crate::{
    packages::{self, Need},
    run::{Privilege, cargo, run},
    setup,
};

/// A binary of nlb-tests that needs root.
pub(crate) struct Program {
    /// The binary's name, and the command's.
    name: &'static str,
    /// What it may be asked for by name.
    words: &'static [&'static str],
    /// Options without a value; `--json FILE` every program takes.
    flags: &'static [&'static str],
    /// Packages that nothing else uses.
    packages: &'static [Need],
    /// What it does that takes root.
    does: &'static str,
}

/// The demonstration.
pub(crate) const DEMO: Program = Program {
    name: "demo",
    words: &[],
    packages: &[],
    flags: &["--keep", "--stop"],
    does: "makes network namespaces and loads a program into the kernel",
};

/// The benchmark.
pub(crate) const BENCH: Program = Program {
    name: "bench",
    words: &["cost", "designs", "forwarding", "change", "scale"],
    packages: &packages::RIVALS_OF_BENCH,
    flags: &["--quick"],
    does: "loads programs into the kernel and makes network namespaces",
};

impl Program {
    /// Sets up, builds, and takes this process's place.
    pub(crate) fn become_it(&self, arguments: &[String]) -> Result<()> {
        self.check(arguments)?;
        let name = self.name;
        let privilege = Privilege::look();
        if privilege == Privilege::None {
            bail!(
                "`{name}` {}, which takes root, and sudo cannot be used here: run \
                 `cargo xtask {name}` as root",
                self.does
            );
        }
        setup::setup_with(self.packages)?;
        let manifest = workspace_root().join("Cargo.toml");
        println!("{name}: building (release)");
        // The demonstration starts the daemon that it finds beside itself.
        run(cargo()
            .args(["build", "--release", "--bins"])
            .args(["--package", "nlb-userspace", "--package", "nlb-tests"])
            .arg("--manifest-path")
            .arg(&manifest))?;
        // `cargo run` knows the target folder and keeps our working directory, to which FILE of
        // `--json FILE` is relative. Taking this process's place, it gets the terminal's Ctrl-C.
        let error = cargo()
            .args(["run", "--quiet", "--release", "--package", "nlb-tests"])
            .args(["--bin", name])
            .args(privilege.cargo_runner())
            .arg("--manifest-path")
            .arg(&manifest)
            .arg("--")
            .args(arguments)
            .exec();
        Err(error).with_context(|| format!("starting `{name}`"))
    }

    /// Refuses a mistyped option before minutes are spent on building.
    fn check(&self, arguments: &[String]) -> Result<()> {
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            if argument == "--json" {
                arguments.next().context("`--json` needs a file's name")?;
            } else if !self.flags.contains(&argument.as_str())
                && !self.words.contains(&argument.as_str())
            {
                bail!("`cargo xtask {}` does not take `{argument}`", self.name);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_known_before_anything_is_built() {
        let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
        DEMO.check(&[]).unwrap();
        DEMO.check(&words("--stop")).unwrap();
        DEMO.check(&words("--json out.json --keep")).unwrap();
        DEMO.check(&words("--json")).unwrap_err();
        DEMO.check(&words("--quick")).unwrap_err();
        BENCH.check(&words("--quick --json out.json")).unwrap();
        BENCH.check(&words("cost scale --quick")).unwrap();
        BENCH.check(&words("--keep")).unwrap_err();
        BENCH.check(&words("costs")).unwrap_err();
    }
}
