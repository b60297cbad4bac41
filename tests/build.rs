//! Compiles the benchmark's kernel programs, so that `bench` can embed them: `nlb-xdp-bench` in
//! `OUT_DIR`.

use std::{env, path::Path, process::ExitCode};

fn main() -> ExitCode {
    // Cargo sets it for every build script; a run by hand leaves the object where it stands.
    let out_dir = env::var_os("OUT_DIR").unwrap_or_else(|| ".".into());
    match xtask::ebpf::build_bench(Path::new(&out_dir)) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
