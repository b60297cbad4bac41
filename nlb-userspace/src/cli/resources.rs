//! `nlb lb`, `listener`, `rule`, `target-group`, `target` and `health`: the API's resources, typed.

use std::{fmt::Write as _, path::Path};

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Map, Value};

use super::{
    Failure, Socket, assignments,
    cells::{BALANCER, GROUP, LISTENER, RULE, TARGET, aligned, dash, heads, row},
    print::{self, Format},
};
use crate::{
    api::shapes::{self, Asked, Item, Listing, Wait},
    client::{self, Call},
    daemon::Written,
    status::GroupHealth,
    table::Table,
};

/// How something is read.
#[derive(Debug, Args)]
pub struct Reading {
    #[command(flatten)]
    socket: Socket,
    /// How to print it
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    output: Format,
    /// The same as `--output json`
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

/// How something is changed.
#[derive(Debug, Args)]
pub struct Changing {
    /// How it is read
    #[command(flatten)]
    reading: Reading,
    /// Print the plan and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Return only when the change is live, or when the registered target is healthy, too
    #[arg(long, value_name = "FOR", num_args = 0..=1, require_equals = true, default_missing_value = "live")]
    wait: Option<Wait>,
    /// How long to wait for that
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    timeout: Option<f64>,
}

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

/// `nlb health`.
#[derive(Debug, Args)]
pub struct Health {
    /// One target group; all if it is left out
    target_group: Option<String>,
    /// How it is read
    #[command(flatten)]
    reading: Reading,
}

impl Lb {
    pub(super) async fn run(self) -> Result<String, Failure> {
        let all = "/v1/load-balancers";
        match self {
            Self::List(reading) => reading.list(all, BALANCER).await,
            Self::Show { name, reading } => reading.show(&[all, &name]).await,
            Self::Add {
                name,
                assignments,
                changing,
            } => changing.add_named(all, BALANCER, name, &assignments).await,
            Self::Set {
                name,
                assignments,
                changing,
            } => changing.set(&[all, &name], BALANCER, &assignments).await,
            Self::Rm { name, changing } => changing.rm(&[all, &name]).await,
        }
    }
}

impl Listener {
    pub(super) async fn run(self) -> Result<String, Failure> {
        let all = "/v1/load-balancers";
        match self {
            Self::List {
                load_balancer,
                reading,
            } => {
                let path = path(&[all, &load_balancer, "listeners"]);
                reading.list(&path, LISTENER).await
            }
            Self::Show {
                load_balancer,
                listener,
                reading,
            } => {
                let names = [all, &load_balancer, "listeners", &listener];
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
                    .add(&[all, &load_balancer, "listeners"], table)
                    .await
            }
            Self::Set {
                load_balancer,
                listener,
                assignments,
                changing,
            } => {
                let names = [all, &load_balancer, "listeners", &listener];
                changing.set(&names, LISTENER, &assignments).await
            }
            Self::Rm {
                load_balancer,
                listener,
                changing,
            } => {
                let names = [all, &load_balancer, "listeners", &listener];
                changing.rm(&names).await
            }
        }
    }
}

impl Rule {
    pub(super) async fn run(self) -> Result<String, Failure> {
        let all = "/v1/load-balancers";
        match self {
            Self::List {
                load_balancer,
                reading,
            } => {
                let path = path(&[all, &load_balancer, "rules"]);
                reading.list(&path, RULE).await
            }
            Self::Show {
                load_balancer,
                rule,
                reading,
            } => reading.show(&[all, &load_balancer, "rules", &rule]).await,
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
                changing.add(&[all, &load_balancer, "rules"], table).await
            }
            Self::Set {
                load_balancer,
                rule,
                assignments,
                changing,
            } => {
                let names = [all, &load_balancer, "rules", &rule];
                changing.amend(&names, RULE, &assignments).await
            }
            Self::Rm {
                load_balancer,
                rule,
                changing,
            } => changing.rm(&[all, &load_balancer, "rules", &rule]).await,
        }
    }
}

impl TargetGroup {
    pub(super) async fn run(self) -> Result<String, Failure> {
        let all = "/v1/target-groups";
        match self {
            Self::List(reading) => reading.list(all, GROUP).await,
            Self::Show { name, reading } => reading.show(&[all, &name]).await,
            Self::Add {
                name,
                assignments,
                changing,
            } => changing.add_named(all, GROUP, name, &assignments).await,
            Self::Set {
                name,
                assignments,
                changing,
            } => changing.set(&[all, &name], GROUP, &assignments).await,
            Self::Rm { name, changing } => changing.rm(&[all, &name]).await,
        }
    }
}

impl Target {
    pub(super) async fn run(self) -> Result<String, Failure> {
        let all = "/v1/target-groups";
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
                    .show(&[all, &target_group, "targets", &target])
                    .await
            }
            Self::Add {
                target_group,
                target,
                assignments,
                changing,
            } => {
                let table = assignments::table(TARGET, &assignments)?;
                let names = [all, &target_group, "targets", &target];
                let call = changing.call(Method::PUT, &names);
                let call = call.with_json(&Value::Object(table));
                // Registering what is registered would overwrite its weight.
                changing.send(call.with_header("if-none-match", "*")).await
            }
            Self::Set {
                target_group,
                target,
                assignments,
                changing,
            } => {
                let names = [all, &target_group, "targets", &target];
                changing.set(&names, TARGET, &assignments).await
            }
            Self::Drain {
                target_group,
                target,
                changing,
            } => {
                let names = [all, &target_group, "targets", &target, "drain"];
                changing.send(changing.call(Method::POST, &names)).await
            }
            Self::Rm {
                target_group,
                target,
                changing,
            } => changing.rm(&[all, &target_group, "targets", &target]).await,
        }
    }
}

impl Health {
    pub(super) async fn run(self) -> Result<String, Failure> {
        let socket = &self.reading.socket.socket;
        let groups = if let Some(name) = &self.target_group {
            vec![health_of(socket, name).await?]
        } else {
            let call = Call::new(Method::GET, "/v1/health");
            let all: shapes::Health = client::send(socket, call).await?;
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

impl Reading {
    const fn format(&self) -> Format {
        if self.json { Format::Json } else { self.output }
    }

    async fn list(&self, path: &str, table: &str) -> Result<String, Failure> {
        let call = Call::new(Method::GET, path);
        let listing: Listing = client::send(&self.socket.socket, call).await?;
        if let Some(text) = print::structured(self.format(), &listing)? {
            return Ok(text);
        }
        let rows = listing.items.iter().map(|item| row(table, item));
        Ok(aligned(heads(table), rows))
    }

    async fn list_targets(&self, group: &str) -> Result<String, Failure> {
        let socket = &self.socket.socket;
        let path = path(&["/v1/target-groups", group, "targets"]);
        let listing: Listing = client::send(socket, Call::new(Method::GET, path)).await?;
        if let Some(text) = print::structured(self.format(), &listing)? {
            return Ok(text);
        }
        let health = health_of(socket, group).await?;
        let mut rows = Vec::new();
        for target in &health.targets {
            // One that is not in the document any more is being deregistered.
            let item = listing.items.iter().find(|item| item.id == target.target);
            rows.push(vec![
                target.target.clone(),
                target.weight.to_string(),
                target.state.clone(),
                dash(target.reason.as_deref()),
                item.map_or_else(|| "-".to_owned(), |item| item.origin.clone()),
            ]);
        }
        Ok(aligned(heads(TARGET), rows.into_iter()))
    }

    async fn show(&self, names: &[&str]) -> Result<String, Failure> {
        let call = Call::new(Method::GET, path(names));
        let item: Item = client::send(&self.socket.socket, call).await?;
        let text = print::structured(self.format(), &item)?;
        Ok(text.unwrap_or_else(|| print::yaml(&item.document)))
    }
}

impl Changing {
    fn call(&self, method: Method, names: &[&str]) -> Call {
        let asked = Asked {
            dry_run: self.dry_run,
            wait: self.wait,
            timeout_seconds: self.timeout,
        };
        let mut query = Vec::new();
        if let Ok(Value::Object(asked)) = serde_json::to_value(asked) {
            for (key, value) in asked {
                let value = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                query.push(format!("{key}={value}"));
            }
        }
        let mut path = path(names);
        if !query.is_empty() {
            path = format!("{path}?{}", query.join("&"));
        }
        Call::new(method, path)
    }

    async fn add(&self, names: &[&str], table: Map<String, Value>) -> Result<String, Failure> {
        let call = self.call(Method::POST, names);
        self.send(call.with_json(&Value::Object(table))).await
    }

    async fn add_named(
        &self,
        all: &str,
        kind: &str,
        name: String,
        assignments: &[String],
    ) -> Result<String, Failure> {
        let mut table = assignments::table(kind, assignments)?;
        table.insert("name".to_owned(), name.into());
        self.add(&[all], table).await
    }

    async fn set(
        &self,
        names: &[&str],
        kind: &str,
        assignments: &[String],
    ) -> Result<String, Failure> {
        let patch = Value::Object(assignments::table(kind, assignments)?);
        let call = self.call(Method::PATCH, names);
        self.send(call.with_json(&patch)).await
    }

    /// Changes what has no name that stays: it is read, changed and written if nobody was faster.
    async fn amend(
        &self,
        names: &[&str],
        kind: &str,
        assignments: &[String],
    ) -> Result<String, Failure> {
        let patch = assignments::table(kind, assignments)?;
        let read = Call::new(Method::GET, path(names));
        let item: Item = client::send(&self.reading.socket.socket, read).await?;
        let mut table = item.document;
        if let Value::Object(table) = &mut table {
            for (key, value) in patch {
                if value.is_null() {
                    table.remove(&key);
                } else {
                    table.insert(key, value);
                }
            }
        }
        let call = self.call(Method::PUT, names).with_json(&table);
        self.send(call.with_header("if-match", item.etag)).await
    }

    async fn rm(&self, names: &[&str]) -> Result<String, Failure> {
        self.send(self.call(Method::DELETE, names)).await
    }

    async fn send(&self, call: Call) -> Result<String, Failure> {
        let written: Written = client::send(&self.reading.socket.socket, call).await?;
        Ok(match print::structured(self.reading.format(), &written)? {
            Some(text) => text,
            None => print::written(&written),
        })
    }
}

async fn health_of(socket: &Path, group: &str) -> Result<GroupHealth, Failure> {
    let path = path(&["/v1/target-groups", group, "health"]);
    Ok(client::send(socket, Call::new(Method::GET, path)).await?)
}

/// The path of these names, the first of which is a path already.
fn path(names: &[&str]) -> String {
    let escaped = names.iter().enumerate().map(|(index, name)| match index {
        0 => (*name).to_owned(),
        _ => escaped(name),
    });
    escaped.collect::<Vec<_>>().join("/")
}

/// A name with everything escaped that means something in a path (RFC 3986).
fn escaped(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _infallible = write!(text, "%{byte:02X}");
        }
    }
    text
}
