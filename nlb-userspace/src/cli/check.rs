//! `nlb check`: looks a configuration file over; if asked, also what an upgrade would meet.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use clap::Args;

use super::{count, say};
use crate::{
    config::{self, Desired, Node},
    dataplane::{DataplaneError, running::Running},
};

/// What is looked over.
#[derive(Debug, Args)]
pub struct Check {
    /// The configuration file
    file: PathBuf,
    /// Also look whether this nlb can take over the data plane that runs now, as it must in an
    /// upgrade. Needs root
    #[arg(long, conflicts_with = "json")]
    running: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    /// Does it; the exit code says whether there are faults.
    pub(super) fn run(&self) -> ExitCode {
        let desired = match config::load(&self.file) {
            Ok(desired) => desired,
            Err(faults) if self.json => {
                match serde_json::to_string_pretty(&faults) {
                    Ok(text) => say(&format!("{text}\n")),
                    Err(error) => eprintln!("nlb: cannot write JSON: {error}"),
                }
                return ExitCode::FAILURE;
            }
            Err(faults) => {
                eprintln!("{faults}");
                return ExitCode::FAILURE;
            }
        };
        if self.json {
            let answer = serde_json::json!({ "faults": [], "warnings": desired.warnings });
            say(&format!("{answer:#}\n"));
            return ExitCode::SUCCESS;
        }
        say(&self.found(&desired));
        if self.running {
            match can_take_over(&desired.node) {
                Ok(text) => say(text),
                Err(error) => {
                    eprintln!("nlb: {error}");
                    return ExitCode::FAILURE;
                }
            }
        }
        ExitCode::SUCCESS
    }

    fn found(&self, desired: &Desired) -> String {
        let mut text = String::new();
        for warning in &desired.warnings {
            let _ = writeln!(text, "{warning}");
        }
        let balancers = desired.load_balancers.iter();
        let listeners = balancers.map(|balancer| balancer.listeners.len()).sum();
        let groups = desired.target_groups.iter();
        let targets = groups.map(|group| group.targets.len()).sum();
        let found = [
            count(desired.load_balancers.len(), "load balancer"),
            count(listeners, "listener"),
            count(desired.target_groups.len(), "target group"),
            count(targets, "target"),
        ];
        let file = self.file.display();
        let _ = writeln!(text, "{file}: no faults: {}", found.join(", "));
        text
    }
}

/// Whether a daemon of this release, started with this configuration, would adopt what runs.
fn can_take_over(node: &Node) -> Result<&'static str, DataplaneError> {
    let pins = node.pins();
    if !pins.join("HEADER").exists() {
        return Ok("no data plane runs\n");
    }
    Running::generation(&pins)?;
    Ok("the data plane that runs can be taken over\n")
}
