//! NLB's rule for the names of load balancers and target groups.

use std::collections::HashMap;

use super::super::{
    error::{Problem, Remedy},
    report::{At, Report},
};

/// Names of one kind and the lines they stand in.
#[derive(Debug)]
pub(super) struct Names {
    kind: &'static str,
    lines: HashMap<String, usize>,
}

impl Names {
    pub(super) fn new(kind: &'static str) -> Self {
        Self {
            kind,
            lines: HashMap::new(),
        }
    }

    /// Checks a name against the rule and the names before it.
    pub(super) fn check(&mut self, name: &At<String>, report: &mut Report<'_>) {
        let text = name.value.as_str();
        let length = text.chars().count();
        let strange = text
            .chars()
            .find(|c| !c.is_ascii_alphanumeric() && *c != '-');
        let problem = if let Some(strange) = strange {
            Problem::NameCharacter(strange)
        } else if !(1..=32).contains(&length) {
            Problem::NameLength(length)
        } else if text.starts_with('-') || text.ends_with('-') {
            Problem::NameHyphen
        } else if text.starts_with("internal-") {
            Problem::NameInternal
        } else {
            let line = report.line(&name.spot);
            if let Some(&line) = self.lines.get(text) {
                let problem = Problem::NameTaken {
                    kind: self.kind,
                    line,
                };
                report.fault(&name.spot, problem, Remedy::OwnName(self.kind));
            } else {
                self.lines.insert(text.to_owned(), line);
            }
            return;
        };
        report.fault(&name.spot, problem, Remedy::WriteName);
    }
}
