//! `nlb doctor`: what on this host keeps nlb from working, or from working well.
//!
//! ```text
//!  host, interfaces, targets ─► facts ─► judge (pure) ─► findings ─► text, JSON, exit code
//! ```
//!
//! It works with and without a daemon, and changes nothing. The one thing that it sends is a datagram
//! to targets whose MAC address is not known, so that the kernel asks for it.

pub mod facts;
pub mod finding;
mod host;
mod interfaces;
pub mod judge;
mod offloads;
mod targets;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use hyper::Method;
use serde::Serialize;

use self::{
    facts::Facts,
    finding::{Finding, Severity},
};
use crate::{
    client::{self, Endpoint},
    config::{self, Desired, Faults},
    next_hop::{NextHopError, Watch},
    status::Status,
};

/// Where a configuration stands unless somebody says otherwise.
const USUAL_CONFIG: &str = "/etc/nlb/nlb.toml";

/// Why nothing could be found out.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    /// The configuration has faults.
    #[error(transparent)]
    Config(#[from] Faults),
    /// There is none.
    #[error(
        "which interfaces and targets? No daemon answers on `{0}`, and there is no \
         /etc/nlb/nlb.toml; name the configuration with --config"
    )]
    NoConfig(PathBuf),
    /// The network could not be looked at.
    #[error(transparent)]
    NextHop(#[from] NextHopError),
}

/// What was found, with what was looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What is wrong, the worst first.
    pub findings: Vec<Finding>,
    /// What was looked at.
    pub facts: Facts,
}

impl Report {
    /// Whether anything keeps nlb from working.
    pub fn has_problems(&self) -> bool {
        (self.findings.iter()).any(|finding| finding.severity == Severity::Problem)
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            text += &finding.to_text();
        }
        let problems = (self.findings.iter())
            .filter(|finding| finding.severity == Severity::Problem)
            .count();
        let advice = self.findings.len() - problems;
        let (interfaces, targets) = (self.facts.interfaces.len(), self.facts.targets.len());
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        let _infallible = writeln!(
            text,
            "looked at this host, {interfaces} interface{} and {targets} target{}: {problems} \
             problem{}, {advice} piece{} of advice",
            plural(interfaces),
            plural(targets),
            plural(problems),
            plural(advice),
        );
        text
    }
}

/// Looks at the host, at what the configuration names, and at the daemon if one runs.
pub async fn examine(config: Option<&Path>, socket: &Path) -> Result<Report, DoctorError> {
    let endpoint = Endpoint::Socket(socket.to_owned());
    let status: Option<Status> = client::call(&endpoint, Method::GET, "/v1/status")
        .await
        .ok();
    let desired = configuration(config, status.as_ref(), socket)?;
    let (watch, _changes) = Watch::start().await?;
    let facts = Facts {
        daemon_answers: status.is_some(),
        host: host::look(&desired.node.bpffs),
        interfaces: interfaces::look(&desired, &watch).await,
        targets: targets::look(&desired, &watch).await,
    };
    Ok(Report {
        findings: judge::judge(&facts),
        facts,
    })
}

fn configuration(
    named: Option<&Path>,
    status: Option<&Status>,
    socket: &Path,
) -> Result<Desired, DoctorError> {
    let usual = Path::new(USUAL_CONFIG);
    let file = match (named, status) {
        (Some(named), _) => named,
        (None, Some(status)) => Path::new(&status.config),
        (None, None) if usual.exists() => usual,
        (None, None) => return Err(DoctorError::NoConfig(socket.to_owned())),
    };
    Ok(config::load(file)?)
}
