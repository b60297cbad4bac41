//! `nlb apply` and `nlb diff`: a whole configuration at once.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use clap::Args;
use hyper::Method;

use super::{
    Failure,
    endpoint::Reach,
    print::{self, Format},
    resources::Once,
};
use crate::{
    api::shapes::Generation,
    client::{self, Call, ClientError, Endpoint},
    daemon::Written,
};

/// `nlb apply`.
#[derive(Debug, Args)]
pub struct Apply {
    /// The configuration file; `-` is standard input
    file: PathBuf,
    /// Print the plan and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    once: Once,
    #[command(flatten)]
    reach: Reach,
    /// How to print the answer
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// `nlb diff`.
#[derive(Debug, Args)]
pub struct Diff {
    /// The configuration file; `-` is standard input
    file: PathBuf,
    #[command(flatten)]
    reach: Reach,
    /// How to print the answer
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

impl Apply {
    pub(super) async fn run(self) -> Result<String, Failure> {
        let declared = Declared::read(&self.file)?;
        let endpoint = self.reach.endpoint()?;
        let (plan, etag) = declared.plan(&endpoint, self.once.tag()).await?;
        if self.dry_run {
            return shown(self.output, &plan);
        }
        if self.output == Format::Text {
            super::say(&plan_text(&plan));
        }
        // What was shown is what is done, or nothing.
        let call = self.once.keyed(declared.call(false));
        let call = call.with_header("if-match", etag);
        let written: Written = declared.send(&endpoint, call).await?;
        match print::structured(self.output, &written)? {
            Some(text) => Ok(text),
            None if written.live => Ok(format!("generation {} is live\n", written.generation)),
            None => Ok(print::written(&written)),
        }
    }
}

impl Diff {
    pub(super) async fn run(self) -> Result<String, Failure> {
        let declared = Declared::read(&self.file)?;
        let (plan, _) = declared.plan(&self.reach.endpoint()?, None).await?;
        shown(self.output, &plan)
    }
}

fn shown(format: Format, plan: &Written) -> Result<String, Failure> {
    Ok(match print::structured(format, plan)? {
        Some(text) => text,
        None => print::written(plan),
    })
}

/// The plan without its last line, which says that nothing was done.
fn plan_text(plan: &Written) -> String {
    let mut text = String::new();
    for change in &plan.changes {
        text += &change.to_string();
        text.push('\n');
    }
    text += &print::discarded(plan);
    if text.is_empty() {
        text += "nothing differs\n";
    }
    text
}

/// A configuration that somebody declares.
struct Declared {
    name: String,
    text: String,
}

impl Declared {
    fn read(file: &Path) -> Result<Self, Failure> {
        let mut text = String::new();
        if file == Path::new("-") {
            std::io::stdin().read_to_string(&mut text)?;
            let name = "standard input".to_owned();
            return Ok(Self { name, text });
        }
        let name = file.display().to_string();
        let text = std::fs::read_to_string(file)
            .map_err(|error| format!("cannot read `{name}`: {error}"))?;
        Ok(Self { name, text })
    }

    fn call(&self, dry_run: bool) -> Call {
        let query = if dry_run { "?dry_run=true" } else { "" };
        Call::new(Method::PUT, format!("/v1/config{query}"))
            .with_body("application/toml", self.text.clone())
    }

    /// What would change, and the tag of what it would change: the one that it must have, if any.
    async fn plan(
        &self,
        endpoint: &Endpoint,
        tag: Option<String>,
    ) -> Result<(Written, String), Failure> {
        let tag = if let Some(tag) = tag {
            tag
        } else {
            let call = Call::new(Method::GET, "/v1/generation");
            let now: Generation = client::send(endpoint, call).await?;
            now.etag
        };
        let call = self.call(true).with_header("if-match", tag.clone());
        Ok((self.send(endpoint, call).await?, tag))
    }

    /// Faults are told with the name of the file.
    async fn send(&self, endpoint: &Endpoint, call: Call) -> Result<Written, Failure> {
        client::send(endpoint, call)
            .await
            .map_err(|error| match error {
                ClientError::Refused(problem) => client::said(&problem, Some(&self.name)).into(),
                other => other.into(),
            })
    }
}
