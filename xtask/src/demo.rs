//! `cargo xtask demo`: builds the daemon and the demonstration, and becomes the latter.
//!
//! The demonstration itself is the binary `demo` of nlb-tests: it needs the lab of network
//! namespaces that the tests have, and this crate stays small.

use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result, bail};
use xtask::workspace_root;

use crate::{
    run::{Privilege, cargo, run},
    setup,
};

pub(crate) fn demo(arguments: &[String]) -> Result<()> {
    check(arguments)?;
    let privilege = Privilege::look();
    if privilege == Privilege::None {
        bail!(
            "the demonstration makes network namespaces and loads a program into the kernel, \
             which takes root, and sudo cannot be used here: run `cargo xtask demo` as root"
        );
    }
    setup::setup()?;
    let manifest = workspace_root().join("Cargo.toml");
    println!("demo: building nlb (release)");
    run(cargo()
        .args([
            "build",
            "--release",
            "--package",
            "nlb-userspace",
            "--package",
            "nlb-tests",
        ])
        .args(["--bins", "--manifest-path"])
        .arg(&manifest))?;
    // `cargo run` knows the target folder and keeps our working directory, to which FILE of
    // `--json FILE` is relative. Taking this process's place, it gets the terminal's Ctrl-C.
    let error = cargo()
        .args([
            "run",
            "--quiet",
            "--release",
            "--package",
            "nlb-tests",
            "--bin",
            "demo",
        ])
        .args(privilege.cargo_runner())
        .arg("--manifest-path")
        .arg(&manifest)
        .arg("--")
        .args(arguments)
        .exec();
    Err(error).context("starting the demonstration")
}

/// Refuses a mistyped option before minutes are spent on building.
fn check(arguments: &[String]) -> Result<()> {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--keep" | "--stop" => {}
            "--json" => {
                arguments.next().context("`--json` needs a file's name")?;
            }
            other => bail!("`cargo xtask demo` does not take `{other}`"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_demonstration_are_known_before_it_is_built() {
        let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
        check(&[]).unwrap();
        check(&words("--stop")).unwrap();
        check(&words("--json out.json --keep")).unwrap();
        check(&words("--json")).unwrap_err();
        check(&words("--jsn out.json")).unwrap_err();
    }
}
