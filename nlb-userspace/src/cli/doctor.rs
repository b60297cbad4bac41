//! `nlb doctor`: what on this host keeps nlb from working, or from working well.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::{Failure, endpoint::DEFAULT_SOCKET, say};
use crate::doctor;

/// `nlb doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// The configuration file; without it, the running daemon's, or /etc/nlb/nlb.toml
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON: findings, and what was looked at
    #[arg(long)]
    json: bool,
    /// The control socket of this host's daemon, the configuration's node.socket
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

impl Doctor {
    pub(super) async fn run(self) -> ExitCode {
        match self.examine().await {
            Ok((text, is_well)) => {
                say(&text);
                if is_well {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::FAILURE
                }
            }
            Err(error) => {
                eprintln!("nlb: {error}");
                // Not to be taken for a finding.
                ExitCode::from(2)
            }
        }
    }

    async fn examine(self) -> Result<(String, bool), Failure> {
        let report = doctor::examine(self.config.as_deref(), &self.socket).await?;
        let text = if self.json {
            format!("{}\n", serde_json::to_string_pretty(&report)?)
        } else {
            report.to_text()
        };
        Ok((text, !report.has_problems()))
    }
}
