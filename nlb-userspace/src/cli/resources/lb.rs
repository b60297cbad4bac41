//! `nlb lb`: load balancers.

use clap::Subcommand;

use super::{
    BALANCERS,
    asking::{Changing, Reading},
};
use crate::cli::{Failure, cells::BALANCER};

/// `nlb lb`.
#[derive(Debug, Subcommand)]
pub enum Lb {
    /// List load balancers
    List(Reading),
    /// Show a load balancer with its listeners and rules
    Show {
        /// Its name
        name: String,
        /// How it is read
        #[command(flatten)]
        reading: Reading,
    },
    /// Add a load balancer: `nlb lb add edge addresses=192.0.2.10,2001:db8::10`
    Add {
        /// Its name
        name: String,
        /// Keys as in the configuration file
        #[arg(value_name = "KEY=VALUE")]
        assignments: Vec<String>,
        /// How it is changed
        #[command(flatten)]
        changing: Changing,
    },
    /// Change some keys of a load balancer; `KEY=` removes a key
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
    /// Remove a load balancer with its listeners and rules
    Rm {
        /// Its name
        name: String,
        /// How it is changed
        #[command(flatten)]
        changing: Changing,
    },
}

impl Lb {
    pub(in crate::cli) async fn run(self) -> Result<String, Failure> {
        match self {
            Self::List(reading) => reading.list(BALANCERS, BALANCER).await,
            Self::Show { name, reading } => reading.show(&[BALANCERS, &name]).await,
            Self::Add {
                name,
                assignments,
                changing,
            } => {
                changing
                    .add_named(BALANCERS, BALANCER, name, &assignments)
                    .await
            }
            Self::Set {
                name,
                assignments,
                changing,
            } => {
                changing
                    .set(&[BALANCERS, &name], BALANCER, &assignments)
                    .await
            }
            Self::Rm { name, changing } => changing.rm(&[BALANCERS, &name]).await,
        }
    }
}
