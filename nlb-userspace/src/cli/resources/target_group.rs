//! `nlb target-group`: target groups.

use clap::Subcommand;

use super::{
    GROUPS,
    asking::{Changing, Reading},
};
use crate::cli::{Failure, cells::GROUP};

/// `nlb target-group`.
#[derive(Debug, Subcommand)]
pub enum TargetGroup {
    /// List target groups
    List(Reading),
    /// Show a target group with its targets
    Show {
        /// Its name
        name: String,
        /// How it is read
        #[command(flatten)]
        reading: Reading,
    },
    /// Add a target group: `nlb target-group add web protocol=TCP port=80`
    Add {
        /// Its name
        name: String,
        /// Keys as in the configuration file
        #[arg(value_name = "KEY=VALUE", required = true)]
        assignments: Vec<String>,
        /// How it is changed
        #[command(flatten)]
        changing: Changing,
    },
    /// Change some keys of a target group; `KEY=` removes a key
    Set {
        /// Its name
        name: String,
        /// Keys as in the configuration file
        #[arg(value_name = "KEY=VALUE", required = true)]
        assignments: Vec<String>,
        /// How it is changed
        #[command(flatten)]
        changing: Changing,
    },
    /// Remove a target group that no listener uses
    Rm {
        /// Its name
        name: String,
        /// How it is changed
        #[command(flatten)]
        changing: Changing,
    },
}

impl TargetGroup {
    pub(in crate::cli) async fn run(self) -> Result<String, Failure> {
        match self {
            Self::List(reading) => reading.list(GROUPS, GROUP).await,
            Self::Show { name, reading } => reading.show(&[GROUPS, &name]).await,
            Self::Add {
                name,
                assignments,
                changing,
            } => changing.add_named(GROUPS, GROUP, name, &assignments).await,
            Self::Set {
                name,
                assignments,
                changing,
            } => changing.set(&[GROUPS, &name], GROUP, &assignments).await,
            Self::Rm { name, changing } => changing.rm(&[GROUPS, &name]).await,
        }
    }
}
