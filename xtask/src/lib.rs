//! What build scripts share with `cargo xtask`: finding a compiler for BPF ([`toolchain`]) and
//! building the kernel programs with it ([`ebpf`]), away from the outer build ([`environment`]).
//!
//! `nlb-userspace/build.rs` depends on this library, so it stays on std and anyhow.
#![forbid(unsafe_code)]

pub mod ebpf;
pub mod environment;
pub mod toolchain;

use std::path::{Path, PathBuf};

/// The folder that holds the workspace's `Cargo.toml`.
///
/// Every member is a direct child of it, and cargo tells build scripts and `cargo run` where their
/// member stands. The path known at compile time serves a binary that is started by hand.
pub fn workspace_root() -> PathBuf {
    let member = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    member
        .parent()
        .map_or_else(|| member.clone(), Path::to_path_buf)
}
