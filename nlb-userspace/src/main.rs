//! The `nlb` binary: flags, logging, exit code; nothing else.

use std::{io::IsTerminal as _, process::ExitCode, time::Duration};

use clap::Parser as _;
use nlb_userspace::{
    cli::{self, Cli},
    log::{self, Journald, Lines},
    metrics::log::Counting,
};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// How long the last messages may take to be read.
const LAST_WORDS: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("NLB_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,aya=warn,aya_obj=warn"));
    // https://no-color.org: set and not empty means none.
    let colours = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let journal = Journald::instead_of_stderr();
    let lines = journal.is_none().then(|| {
        tracing_subscriber::fmt::layer()
            .with_writer(|| Lines)
            .with_ansi(colours)
            .with_target(false)
    });
    tracing_subscriber::registry()
        .with(filter)
        .with(journal)
        .with(lines)
        .with(Counting)
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let code = match runtime {
        Ok(runtime) => runtime.block_on(cli::run(cli)),
        Err(error) => {
            eprintln!("nlb: cannot start the runtime: {error}");
            ExitCode::FAILURE
        }
    };
    log::finish(LAST_WORDS);
    code
}
