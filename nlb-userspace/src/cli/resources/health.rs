//! `nlb health`: how targets are.

use clap::Args;
use hyper::Method;

use super::asking::{Reading, health_of};
use crate::{
    api::shapes,
    cli::{Failure, cells::dash, print},
    client::{self, Call},
    table::Table,
};

/// `nlb health`.
#[derive(Debug, Args)]
pub struct Health {
    /// One target group; all if it is left out
    target_group: Option<String>,
    /// How it is read
    #[command(flatten)]
    reading: Reading,
}

impl Health {
    pub(in crate::cli) async fn run(self) -> Result<String, Failure> {
        let endpoint = &self.reading.endpoint()?;
        let groups = if let Some(name) = &self.target_group {
            vec![health_of(endpoint, name).await?]
        } else {
            let call = Call::new(Method::GET, "/v1/health");
            let all: shapes::Health = client::send(endpoint, call).await?;
            all.target_groups
        };
        if let Some(text) = print::structured(self.reading.format(), &groups)? {
            return Ok(text);
        }
        let mut table = Table::default();
        table.row(["TARGET GROUP", "TARGET", "STATE", "REASON", "LAST FAILURE"]);
        for group in &groups {
            for target in &group.targets {
                table.row([
                    &group.target_group,
                    &target.target,
                    &target.state,
                    &dash(target.reason.as_deref()),
                    &dash(target.last_failure.as_deref()),
                ]);
            }
        }
        let mut text = String::new();
        table.write(0, usize::MAX, &mut text);
        Ok(text)
    }
}
