//! The configuration: what may be written in the file, and what the daemon may rely on.
//!
//! ```text
//! text ─► TOML tree ─► reader + schema ─► raw ─► resolve ─► desired
//!                          shapes, ranges,        names, addresses, references,
//!                          unknown keys           rules between keys
//! ```
//!
//! Every step records what is wrong and goes on, so a person sees all faults of a file at once; only
//! a file that is not TOML stops early. Nothing here touches the system except [`load`], which reads
//! one file.

mod address;
mod desired;
mod error;
mod hash_key;
mod http_codes;
mod near_miss;
mod problem;
mod raw;
mod reader;
mod remedy;
mod report;
mod resolve;
pub mod schema;
mod unknown;

use std::{fs, path::Path};

use toml::de::DeTable;

pub use self::{
    desired::{
        Access, AccessRole, AccessStatement, Capacity, Desired, Endpoint, FlowLimits, HashKey,
        HashKeyError, HashKeySource, HealthCheck, HealthCheckPort, HealthCheckProtocol,
        HealthCheckTls, HttpCodes, IpVersion, Listener, LoadBalancer, Minimum, Mode, Node, OnExit,
        OverLimit, Protocol, Seccomp, Share, SourceRule, StrandedAction, SynCookies, Target,
        TargetGroup, TcpApi, TunnelOptions, TunnelSource, TunnelSources, XdpMode,
    },
    error::{
        AddressClass, Fault, Faults, GroupTrait, Position, Problem, Remedy, Shape, Suspicion,
        Warning,
    },
};
use self::{
    raw::RawFile,
    reader::Reader,
    report::{Report, Spot},
};

/// Reads and checks a configuration file.
pub fn load(path: &Path) -> Result<Desired, Faults> {
    load_text(path).map(|(_, desired)| desired)
}

/// The same, with the text that was read.
pub fn load_text(path: &Path) -> Result<(String, Desired), Faults> {
    let name = path.display().to_string();
    let bytes = fs::read(path).map_err(|error| {
        Faults::new(vec![Fault {
            file: name.clone(),
            position: None,
            field: String::new(),
            value: None,
            problem: Problem::Unreadable(error.kind()),
            remedy: Remedy::ReadableFile,
        }])
    })?;
    match String::from_utf8(bytes) {
        Ok(text) => parse(&name, &text).map(|desired| (text, desired)),
        Err(error) => {
            let valid = (error.as_bytes())
                .get(..error.utf8_error().valid_up_to())
                .unwrap_or_default();
            let valid = String::from_utf8_lossy(valid);
            let mut report = Report::new(&name, &valid);
            let spot = Spot {
                span: valid.len()..valid.len(),
                field: String::new(),
                shown: false,
            };
            report.fault(&spot, Problem::NotText, Remedy::SaveAsUtf8);
            Err(Faults::new(report.faults))
        }
    }
}

/// Checks the text of a configuration; `source_name` stands for the file in messages.
pub fn parse(source_name: &str, text: &str) -> Result<Desired, Faults> {
    let mut report = Report::new(source_name, text);
    let (tree, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let span = error.span().unwrap_or_default();
        let spot = Spot {
            span,
            field: String::new(),
            shown: false,
        };
        // The parser goes on after an error, and what it then finds on the same line is mostly
        // that error again.
        let line = report.line(&spot);
        if report
            .faults
            .iter()
            .all(|fault| fault.position.is_none_or(|at| at.line != line))
        {
            let message = error.message().replace('\n', ", ");
            report.fault(&spot, Problem::Syntax(message), Remedy::MendSyntax);
        }
    }
    if report.faults.is_empty() {
        let raw = RawFile::read(
            &mut Reader {
                report: &mut report,
            },
            &tree,
        );
        let desired = resolve::resolve(&raw, &mut report);
        if report.faults.is_empty() {
            let mut warnings = report.warnings;
            warnings.sort_by_key(|warning| warning.position);
            return Ok(Desired {
                warnings,
                ..desired
            });
        }
    }
    Err(Faults::new(report.faults))
}
