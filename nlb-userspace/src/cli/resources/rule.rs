//! `nlb rule`: the source rules of load balancers.

use clap::Subcommand;
use serde_json::Value;

use super::{
    BALANCERS,
    asking::{Changing, Reading, path},
};
use crate::cli::{Failure, assignments, cells::RULE};

/// `nlb rule`.
#[derive(Debug, Subcommand)]
pub enum Rule {
    /// List the source rules of a load balancer
    List {
        /// The load balancer
        load_balancer: String,
        /// How it is read
        #[command(flatten)]
        reading: Reading,
    },
    /// Show a rule
    Show {
        /// The load balancer
        load_balancer: String,
        /// Its id, as `nlb rule list` prints it
        rule: String,
        /// How it is read
        #[command(flatten)]
        reading: Reading,
    },
    /// Add a rule: `nlb rule add edge allow 10.0.0.0/8,192.0.2.0/24 from_port=443`
    Add {
        /// The load balancer
        load_balancer: String,
        /// `allow` or `deny`
        action: String,
        /// Prefixes, with commas between them
        sources: String,
        /// Keys as in the configuration file
        #[arg(value_name = "KEY=VALUE")]
        assignments: Vec<String>,
        /// How it is changed
        #[command(flatten)]
        changing: Changing,
    },
    /// Change some keys of a rule, which gives it another id; `KEY=` removes a key
    Set {
        /// The load balancer
        load_balancer: String,
        /// Its id, as `nlb rule list` prints it
        rule: String,
        /// Keys as in the configuration file
        #[arg(value_name = "KEY=VALUE", required = true)]
        assignments: Vec<String>,
        /// How it is changed
        #[command(flatten)]
        changing: Changing,
    },
    /// Remove a rule
    Rm {
        /// The load balancer
        load_balancer: String,
        /// Its id, as `nlb rule list` prints it
        rule: String,
        /// How it is changed
        #[command(flatten)]
        changing: Changing,
    },
}

impl Rule {
    pub(in crate::cli) async fn run(self) -> Result<String, Failure> {
        match self {
            Self::List {
                load_balancer,
                reading,
            } => {
                let path = path(&[BALANCERS, &load_balancer, "rules"]);
                reading.list(&path, RULE).await
            }
            Self::Show {
                load_balancer,
                rule,
                reading,
            } => {
                reading
                    .show(&[BALANCERS, &load_balancer, "rules", &rule])
                    .await
            }
            Self::Add {
                load_balancer,
                action,
                sources,
                assignments,
                changing,
            } => {
                let mut table = assignments::table(RULE, &assignments)?;
                table.insert("action".to_owned(), action.into());
                let sources: Value = sources.split(',').map(str::trim).collect();
                table.insert("sources".to_owned(), sources);
                changing
                    .add(&[BALANCERS, &load_balancer, "rules"], table)
                    .await
            }
            Self::Set {
                load_balancer,
                rule,
                assignments,
                changing,
            } => {
                let names = [BALANCERS, &load_balancer, "rules", &rule];
                changing.amend(&names, RULE, &assignments).await
            }
            Self::Rm {
                load_balancer,
                rule,
                changing,
            } => {
                changing
                    .rm(&[BALANCERS, &load_balancer, "rules", &rule])
                    .await
            }
        }
    }
}
