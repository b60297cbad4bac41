//! `nlb flows`: lists, counts, follows and kills remembered flows.

use std::{fmt::Write as _, time::Duration};

use clap::Args;

use super::{Failure, Pins, count, endpoint::Reach};
use crate::{
    api::shapes::Killed,
    client::{self, Call},
    clock,
    dataplane::running::Running,
    flows::{
        filter::{Filter, Selection},
        follow::Seen,
        scan::{Order, scan},
        text::Shown,
    },
    names::Names,
};

/// Which flows, and what of them.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub struct Flows {
    /// Which flows
    #[command(flatten)]
    filter: Filter,
    /// Which of them come first
    #[arg(long, value_enum, value_name = "ORDER")]
    top: Option<Order>,
    /// How many are shown at most
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    limit: usize,
    /// Count them, by state, listener and target
    #[arg(long)]
    count: bool,
    /// Go on, and say every second which began (+), changed (~) and ended (-)
    #[arg(long, conflicts_with_all = ["count", "top", "limit"])]
    follow: bool,
    /// Have the daemon forget them: the next packet of each is one of no known flow
    #[arg(long, conflicts_with_all = ["count", "top", "limit", "follow"])]
    kill: bool,
    /// The pins of the running program
    #[command(flatten)]
    pins: Pins,
    /// The daemon
    #[command(flatten)]
    reach: Reach,
    /// Print JSON; with --follow, one object a line
    #[arg(long)]
    json: bool,
}

/// How often the table is looked at when it is followed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Flows {
    /// Does it.
    pub async fn run(self) -> Result<String, Failure> {
        if self.kill {
            return self.killed().await;
        }
        let running = Running::attached(&self.pins.bpffs, &self.pins.directory(), None)?;
        Running::generation(&self.pins.directory())?;
        let maps = running.flows()?;
        let names = Names::ask(&self.reach.endpoint()?).await;
        let table = maps.table(clock::now());
        let clock = clock::of_this_kernel();
        let selection = self.filter.resolve(&table, &names, clock)?;
        if self.follow {
            return self.followed(&maps, &names, &selection).await;
        }
        let shown = Shown {
            table: &table,
            names: &names,
            clock,
        };
        let most = if self.count { 0 } else { self.limit };
        let found = scan(&table, &selection, self.top, most);
        Ok(if self.json {
            format!("{:#}\n", shown.json(&found, maps.capacity()))
        } else if self.count {
            shown.counts(&found.counts, maps.capacity())
        } else {
            shown.flows(&found)
        })
    }

    async fn killed(&self) -> Result<String, Failure> {
        self.filter.or_all()?;
        let call = Call::new(hyper::Method::POST, "/v1/flows/kill")
            .with_json(&serde_json::to_value(&self.filter)?);
        let killed: Killed = client::send(&self.reach.endpoint()?, call).await?;
        if self.json {
            return Ok(format!("{}\n", serde_json::to_string_pretty(&killed)?));
        }
        let flows = count(usize::try_from(killed.killed)?, "flow");
        Ok(format!("killed {flows}\n"))
    }

    /// Until whoever reads goes away.
    async fn followed(
        &self,
        maps: &crate::dataplane::running::FlowMaps,
        names: &Names,
        selection: &Selection,
    ) -> Result<String, Failure> {
        let mut seen = Seen::default();
        loop {
            let table = maps.table(clock::now());
            let shown = Shown {
                table: &table,
                names,
                clock: clock::of_this_kernel(),
            };
            let found = scan(&table, selection, None, usize::MAX);
            let mut text = String::new();
            for (change, flow) in seen.look(&found.flows) {
                if self.json {
                    let mut value = shown.flow(&flow);
                    value["change"] = change.sign().into();
                    let _infallible = writeln!(text, "{value}");
                } else {
                    let cells = shown.cells(&flow).join("  ");
                    let _infallible = writeln!(text, "{} {cells}", change.sign());
                }
            }
            if super::write(&text).is_err() {
                return Ok(String::new());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
