//! One thing that is wrong: what, what it breaks, what mends it.

use std::fmt::Write as _;

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Some traffic does not work.
    Problem,
    /// It works, and could be better or will not always.
    Advice,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was looked at, such as `forwarding`.
    pub check: &'static str,
    /// With what: an interface, a target; empty for the host.
    pub subject: String,
    /// What was found.
    pub found: String,
    /// What it breaks.
    pub breaks: &'static str,
    /// A command that mends it; words in capitals are to be replaced. None if no command does.
    pub mend: Option<String>,
}

impl Finding {
    /// For people.
    pub fn to_text(&self) -> String {
        let severity = match self.severity {
            Severity::Problem => "problem",
            Severity::Advice => "advice ",
        };
        let mut text = format!("{severity}  {}", self.check);
        if !self.subject.is_empty() {
            let _infallible = write!(text, " {}", self.subject);
        }
        let _infallible = writeln!(text, ": {}\n         breaks: {}", self.found, self.breaks);
        if let Some(mend) = &self.mend {
            let _infallible = writeln!(text, "         mend:   {mend}");
        }
        text
    }
}
