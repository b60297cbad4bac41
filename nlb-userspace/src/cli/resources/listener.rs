//! `nlb listener`: the listeners of load balancers.

use clap::Subcommand;
use serde_json::Value;

use super::{
    BALANCERS,
    asking::{Changing, Reading, path},
};
use crate::cli::{Failure, assignments, cells::LISTENER};

/// `nlb listener`.
#[derive(Debug, Subcommand)]
pub enum Listener {
    /// List the listeners of a load balancer
    List {
        /// The load balancer
        load_balancer: String,
        /// How it is read
        #[command(flatten)]
        reading: Reading,
    },
    /// Show a listener
    Show {
        /// The load balancer
        load_balancer: String,
        /// `TCP:80`, or `TCP:80:ipv6` where two share a port
        listener: String,
        /// How it is read
        #[command(flatten)]
        reading: Reading,
    },
    /// Add a listener: `nlb listener add edge TCP:80 target_group=web`
    Add {
        /// The load balancer
        load_balancer: String,
        /// Protocol and port
        #[arg(value_name = "PROTOCOL:PORT")]
        listener: String,
        /// Keys as in the configuration file; `target_groups=web:90,canary:10` for several groups
        #[arg(value_name = "KEY=VALUE", required = true)]
        assignments: Vec<String>,
        /// How it is changed
        #[command(flatten)]
        changing: Changing,
    },
    /// Change some keys of a listener; `KEY=` removes a key
    Set {
        /// The load balancer
        load_balancer: String,
        /// `TCP:80`, or `TCP:80:ipv6` where two share a port
        listener: String,
        /// Keys as in the configuration file
        #[arg(value_name = "KEY=VALUE", required = true)]
        assignments: Vec<String>,
        /// How it is changed
        #[command(flatten)]
        changing: Changing,
    },
    /// Remove a listener; its flows go on until they end
    Rm {
        /// The load balancer
        load_balancer: String,
        /// `TCP:80`, or `TCP:80:ipv6` where two share a port
        listener: String,
        /// How it is changed
        #[command(flatten)]
        changing: Changing,
    },
}

impl Listener {
    pub(in crate::cli) async fn run(self) -> Result<String, Failure> {
        match self {
            Self::List {
                load_balancer,
                reading,
            } => {
                let path = path(&[BALANCERS, &load_balancer, "listeners"]);
                reading.list(&path, LISTENER).await
            }
            Self::Show {
                load_balancer,
                listener,
                reading,
            } => {
                let names = [BALANCERS, &load_balancer, "listeners", &listener];
                reading.show(&names).await
            }
            Self::Add {
                load_balancer,
                listener,
                assignments,
                changing,
            } => {
                let mut table = assignments::table(LISTENER, &assignments)?;
                let (protocol, port) = (listener.split_once([':', '/'])).ok_or_else(|| {
                    format!("`{listener}` is not PROTOCOL:PORT, such as `TCP:80`")
                })?;
                table.insert("protocol".to_owned(), protocol.to_ascii_uppercase().into());
                let port = port
                    .parse::<u16>()
                    .map_or_else(|_| port.into(), Value::from);
                table.insert("port".to_owned(), port);
                changing
                    .add(&[BALANCERS, &load_balancer, "listeners"], table)
                    .await
            }
            Self::Set {
                load_balancer,
                listener,
                assignments,
                changing,
            } => {
                let names = [BALANCERS, &load_balancer, "listeners", &listener];
                changing.set(&names, LISTENER, &assignments).await
            }
            Self::Rm {
                load_balancer,
                listener,
                changing,
            } => {
                let names = [BALANCERS, &load_balancer, "listeners", &listener];
                changing.rm(&names).await
            }
        }
    }
}
