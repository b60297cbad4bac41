//! `cargo xtask bench`: builds the benchmark and becomes it.
//!
//! The benchmark itself is the binary `bench` of nlb-tests: it loads the kernel programs, which
//! takes aya, and this crate stays small.

use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result, bail};
use xtask::workspace_root;

use crate::run::{Privilege, cargo, run};

pub(crate) fn bench(arguments: &[String]) -> Result<()> {
    check(arguments)?;
    let privilege = Privilege::look();
    if privilege == Privilege::None {
        bail!(
            "the benchmark loads programs into the kernel, which takes root, and sudo cannot be \
             used here: run `cargo xtask bench` as root"
        );
    }
    let manifest = workspace_root().join("Cargo.toml");
    println!("bench: building the packet program and the benchmark (release)");
    run(cargo()
        .args(["build", "--release", "--package", "nlb-tests"])
        .args(["--bin", "bench", "--manifest-path"])
        .arg(&manifest))?;
    // As in `demo`: `cargo run` knows the target folder and keeps our working directory.
    let error = cargo()
        .args(["run", "--quiet", "--release", "--package", "nlb-tests"])
        .args(["--bin", "bench"])
        .args(privilege.cargo_runner())
        .arg("--manifest-path")
        .arg(&manifest)
        .arg("--")
        .args(arguments)
        .exec();
    Err(error).context("starting the benchmark")
}

/// Refuses a mistyped option before minutes are spent on building.
fn check(arguments: &[String]) -> Result<()> {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => {}
            "--json" => {
                arguments.next().context("`--json` needs a file's name")?;
            }
            other => bail!("`cargo xtask bench` does not take `{other}`"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_benchmark_are_known_before_it_is_built() {
        let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
        check(&[]).unwrap();
        check(&words("--quick --json out.json")).unwrap();
        check(&words("--json")).unwrap_err();
        check(&words("--quik")).unwrap_err();
    }
}
