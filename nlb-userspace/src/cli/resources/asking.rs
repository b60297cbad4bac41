//! How resources are asked for: read, listed, changed, and the answer printed.

use std::fmt::Write as _;

use clap::Args;
use hyper::Method;
use serde_json::{Map, Value};

use crate::{
    api::shapes::{Asked, Item, Listing, Wait},
    cli::{
        Failure, assignments,
        cells::{TARGET, aligned, dash, heads, row},
        endpoint::Reach,
        print::{self, Format},
    },
    client::{self, Call, Endpoint},
    daemon::Written,
    status::GroupHealth,
};

/// How something is read.
#[derive(Debug, Args)]
pub struct Reading {
    /// Where the daemon is
    #[command(flatten)]
    reach: Reach,
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
    /// Conditions and repetition
    #[command(flatten)]
    once: Once,
}

/// What makes a change safe beside others, and when it is sent again.
#[derive(Debug, Args)]
pub(in crate::cli) struct Once {
    /// Change it only while it has this tag, as `show --json` prints it; what is added is judged by
    /// the tag of what it comes into
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
    /// Any words of yours: what is sent again under the same key, because the answer was lost, is
    /// done once
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

impl Once {
    /// The tag that what is changed must have, if any.
    pub(in crate::cli) fn tag(&self) -> Option<String> {
        let tag = self.if_match.as_ref()?;
        // Shells take the quotes away that are part of a tag.
        let is_bare = tag != "*" && !tag.ends_with('"');
        Some(if is_bare {
            format!("\"{tag}\"")
        } else {
            tag.clone()
        })
    }

    /// A call under the key.
    pub(in crate::cli) fn keyed(&self, call: Call) -> Call {
        match &self.idempotency_key {
            Some(key) => call.with_header("idempotency-key", key),
            None => call,
        }
    }
}

impl Reading {
    pub(super) fn endpoint(&self) -> Result<Endpoint, Failure> {
        self.reach.endpoint()
    }

    pub(super) const fn format(&self) -> Format {
        if self.json { Format::Json } else { self.output }
    }

    pub(super) async fn list(&self, path: &str, table: &str) -> Result<String, Failure> {
        let call = Call::new(Method::GET, path);
        let listing: Listing = client::send(&self.endpoint()?, call).await?;
        if let Some(text) = print::structured(self.format(), &listing)? {
            return Ok(text);
        }
        let rows = listing.items.iter().map(|item| row(table, item));
        Ok(aligned(heads(table), rows))
    }

    pub(super) async fn list_targets(&self, group: &str) -> Result<String, Failure> {
        let endpoint = &self.endpoint()?;
        let path = path(&["/v1/target-groups", group, "targets"]);
        let listing: Listing = client::send(endpoint, Call::new(Method::GET, path)).await?;
        if let Some(text) = print::structured(self.format(), &listing)? {
            return Ok(text);
        }
        let health = health_of(endpoint, group).await?;
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

    pub(super) async fn show(&self, names: &[&str]) -> Result<String, Failure> {
        let call = Call::new(Method::GET, path(names));
        let item: Item = client::send(&self.endpoint()?, call).await?;
        let text = print::structured(self.format(), &item)?;
        Ok(text.unwrap_or_else(|| print::yaml(&item.document)))
    }
}

impl Changing {
    pub(super) fn call(&self, method: Method, names: &[&str]) -> Call {
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

    pub(super) async fn add(
        &self,
        names: &[&str],
        table: Map<String, Value>,
    ) -> Result<String, Failure> {
        let call = self.call(Method::POST, names);
        self.send(call.with_json(&Value::Object(table))).await
    }

    pub(super) async fn add_named(
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

    pub(super) async fn set(
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
    pub(super) async fn amend(
        &self,
        names: &[&str],
        kind: &str,
        assignments: &[String],
    ) -> Result<String, Failure> {
        let patch = assignments::table(kind, assignments)?;
        let read = Call::new(Method::GET, path(names));
        let item: Item = client::send(&self.reading.endpoint()?, read).await?;
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
        self.send_if(call, self.once.tag().or(Some(item.etag)))
            .await
    }

    pub(super) async fn rm(&self, names: &[&str]) -> Result<String, Failure> {
        self.send(self.call(Method::DELETE, names)).await
    }

    pub(super) async fn send(&self, call: Call) -> Result<String, Failure> {
        self.send_if(call, self.once.tag()).await
    }

    /// Sends a change that is made only while what it is about has this tag.
    async fn send_if(&self, call: Call, tag: Option<String>) -> Result<String, Failure> {
        let mut call = self.once.keyed(call);
        if let Some(tag) = tag {
            call = call.with_header("if-match", tag);
        }
        let written: Written = client::send(&self.reading.endpoint()?, call).await?;
        Ok(match print::structured(self.reading.format(), &written)? {
            Some(text) => text,
            None => print::written(&written),
        })
    }
}

pub(super) async fn health_of(endpoint: &Endpoint, group: &str) -> Result<GroupHealth, Failure> {
    let path = path(&["/v1/target-groups", group, "health"]);
    Ok(client::send(endpoint, Call::new(Method::GET, path)).await?)
}

/// The path of these names, the first of which is a path already.
pub(super) fn path(names: &[&str]) -> String {
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
