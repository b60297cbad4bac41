//! The `nlb` binary: flags, logging, exit code; nothing else.

use std::{io::IsTerminal as _, process::ExitCode};

use clap::Parser as _;
use nlb_userspace::cli::{self, Cli};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("NLB_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,aya=warn,aya_obj=warn"));
    // https://no-color.org: set and not empty means none.
    let colours = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .with_target(false)
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(cli::run(cli)),
        Err(error) => {
            eprintln!("nlb: cannot start the runtime: {error}");
            ExitCode::FAILURE
        }
    }
}
