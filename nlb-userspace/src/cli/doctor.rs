//! `nlb doctor`: what on this host keeps nlb from working, or from working well.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::{Failure, Socket, say};
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
    #[command(flatten)]
    socket: Socket,
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
        let report = doctor::examine(self.config.as_deref(), &self.socket.socket).await?;
        let text = if self.json {
            format!("{}\n", serde_json::to_string_pretty(&report)?)
        } else {
            report.to_text()
        };
        Ok((text, !report.has_problems()))
    }
}
