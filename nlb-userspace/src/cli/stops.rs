//! `nlb stops`: looks at the counters twice, and again and again if that is asked.

use std::time::{Duration, Instant};

use clap::Args;

use super::{Failure, Pins};
use crate::{
    dataplane::running::Running,
    stops::{Counts, Samples},
};

/// How the counters are looked at.
#[derive(Debug, Args)]
pub struct Stops {
    /// Go on, and say it anew after each interval
    #[arg(long)]
    watch: bool,
    /// How long the two looks are apart that a rate is made of
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// Show reasons, too, for which no packet was ever stopped
    #[arg(long)]
    all: bool,
    /// The pins of the running program
    #[command(flatten)]
    pins: Pins,
    /// Print JSON; with --watch, one object a line
    #[arg(long)]
    json: bool,
}

impl Stops {
    /// Does it.
    pub async fn run(self) -> Result<String, Failure> {
        let mut before = self.look()?;
        loop {
            let begin = Instant::now();
            tokio::time::sleep(Duration::from_secs(self.interval)).await;
            // The program may have been replaced in the meantime.
            let after = self.look()?;
            let samples = Samples {
                before: &before,
                after: &after,
                apart: begin.elapsed(),
                shows_all: self.all,
            };
            let text = match (self.json, self.watch) {
                (true, true) => format!("{}\n", samples.to_json()),
                (true, false) => format!("{:#}\n", samples.to_json()),
                (false, _) => samples.to_text(),
            };
            if !self.watch {
                return Ok(text);
            }
            let separator = if self.json { "" } else { "\n" };
            if super::write(&format!("{text}{separator}")).is_err() {
                return Ok(String::new());
            }
            before = after;
        }
    }

    fn look(&self) -> Result<Counts, Failure> {
        let running = Running::attached(&self.pins.bpffs, &self.pins.directory(), None)?;
        Running::generation(&self.pins.directory())?;
        Ok(Counts(running.stop_counts()?))
    }
}
