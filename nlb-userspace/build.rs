//! Compiles the kernel programs, so that the daemon can embed them: `nlb-xdp`, `nlb-xdp-decap`,
//! `nlb-xdp-pass`, `nlb-xdp-ask` and `nlb-xdp-capture` in `OUT_DIR`.

use std::{env, path::Path, process::ExitCode};

fn main() -> ExitCode {
    // Cargo sets it for every build script; a run by hand leaves the objects where it stands.
    let out_dir = env::var_os("OUT_DIR").unwrap_or_else(|| ".".into());
    match xtask::ebpf::build(Path::new(&out_dir)) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
