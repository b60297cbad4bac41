//! `nlb target`: the targets of groups.

use std::net::SocketAddr;

use clap::Subcommand;
use hyper::Method;

use super::{
    GROUPS,
    asking::{Changing, Reading},
};
use crate::cli::{Failure, assignments, cells::TARGET};

/// `nlb target`.
#[derive(Debug, Subcommand)]
pub enum Target {
    /// List the targets of a group, and how they are
    List {
        /// The target group
        target_group: String,
        /// How it is read
        #[command(flatten)]
        reading: Reading,
    },
    /// Show a target
    Show {
        /// The target group
        target_group: String,
        /// Its address and port, or its address if it has the group's port
        target: String,
        /// How it is read
        #[command(flatten)]
        reading: Reading,
    },
    /// Register a target: `nlb target add web 10.0.0.11:8080 --wait=healthy`
    Add {
        /// The target group
        target_group: String,
        /// Its address and port, or its address if it has the group's port
        target: String,
        /// Keys as in the configuration file, such as `weight=10`
        #[arg(value_name = "KEY=VALUE")]
        assignments: Vec<String>,
        /// How it is changed
        #[command(flatten)]
        changing: Changing,
    },
    /// Change some keys of a target, such as `weight=10`; `KEY=` removes a key
    Set {
        /// The target group
        target_group: String,
        /// Its address and port, or its address if it has the group's port
        target: String,
        /// Keys as in the configuration file
        #[arg(value_name = "KEY=VALUE", required = true)]
        assignments: Vec<String>,
        /// How it is changed
        #[command(flatten)]
        changing: Changing,
    },
    /// Let a target take no new flows, and keep it registered: sets its weight to 0
    Drain {
        /// The target group
        target_group: String,
        /// Its address and port, or its address if it has the group's port
        target: String,
        /// How it is changed
        #[command(flatten)]
        changing: Changing,
    },
    /// Deregister a target: it takes no new flows from now on, and its flows end as the group's
    /// `deregistration_delay` says
    Rm {
        /// The target group
        target_group: String,
        /// Its address and port, or its address if it has the group's port
        target: String,
        /// How it is changed
        #[command(flatten)]
        changing: Changing,
    },
}

impl Target {
    pub(in crate::cli) async fn run(self) -> Result<String, Failure> {
        match self {
            Self::List {
                target_group,
                reading,
            } => reading.list_targets(&target_group).await,
            Self::Show {
                target_group,
                target,
                reading,
            } => {
                reading
                    .show(&[GROUPS, &target_group, "targets", &target])
                    .await
            }
            Self::Add {
                target_group,
                target,
                assignments,
                changing,
            } => {
                let mut table = assignments::table(TARGET, &assignments)?;
                let (address, port) = match target.parse::<SocketAddr>() {
                    Ok(at) => (at.ip().to_string(), Some(at.port())),
                    Err(_) => (target, None),
                };
                table.insert("address".to_owned(), address.into());
                if let Some(port) = port {
                    table.insert("port".to_owned(), port.into());
                }
                // Not PUT: registering what is registered would overwrite its weight.
                changing
                    .add(&[GROUPS, &target_group, "targets"], table)
                    .await
            }
            Self::Set {
                target_group,
                target,
                assignments,
                changing,
            } => {
                let names = [GROUPS, &target_group, "targets", &target];
                changing.set(&names, TARGET, &assignments).await
            }
            Self::Drain {
                target_group,
                target,
                changing,
            } => {
                let names = [GROUPS, &target_group, "targets", &target, "drain"];
                changing.send(changing.call(Method::POST, &names)).await
            }
            Self::Rm {
                target_group,
                target,
                changing,
            } => {
                changing
                    .rm(&[GROUPS, &target_group, "targets", &target])
                    .await
            }
        }
    }
}
