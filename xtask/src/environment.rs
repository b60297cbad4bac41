//! The environment of a cargo or rustc that is started from within another.

use std::{env, path::Path, process::Command};

/// A command that does not see what an outer cargo, rustup or clippy set for its own build.
///
/// A build script inherits `RUSTC`, `RUSTUP_TOOLCHAIN`, `RUSTC_WORKSPACE_WRAPPER` (clippy-driver),
/// `CARGO_ENCODED_RUSTFLAGS` and more, all of them meant for the host. What a user sets for cargo
/// as a whole (`CARGO_HOME`, network, registries, jobserver) stays.
pub fn outside_cargo(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_of_outer_build) {
            command.env_remove(name);
        }
    }
    command
}

fn is_of_outer_build(name: &str) -> bool {
    const EXACT: [&str; 14] = [
        "CARGO",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_INCREMENTAL",
        "CARGO_PRIMARY_PACKAGE",
        "CARGO_TARGET_DIR",
        "CARGO_TARGET_TMPDIR",
        "CLIPPY_ARGS",
        "OUT_DIR",
        "RUSTC",
        "RUSTC_BOOTSTRAP",
        "RUSTDOC",
        "RUSTDOCFLAGS",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
    ];
    const PREFIXES: [&str; 13] = [
        "CARGO_BIN_",
        "CARGO_BUILD_",
        "CARGO_CFG_",
        "CARGO_CRATE_",
        "CARGO_FEATURE_",
        "CARGO_MANIFEST_",
        "CARGO_PKG_",
        "CARGO_PROFILE_",
        "CARGO_TARGET_",
        "DEP_",
        "RUSTC_LINKER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
    ];
    EXACT.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_an_outer_build_are_dropped_and_those_of_the_user_kept() {
        for dropped in [
            "RUSTC",
            "RUSTUP_TOOLCHAIN",
            "RUSTC_WORKSPACE_WRAPPER",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_CFG_TARGET_ARCH",
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
        ] {
            assert!(is_of_outer_build(dropped), "{dropped} would leak");
        }
        for kept in [
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "CARGO_MAKEFLAGS",
            "PATH",
            "RUSTUP_HOME",
        ] {
            assert!(!is_of_outer_build(kept), "{kept} would be lost");
        }
    }
}
