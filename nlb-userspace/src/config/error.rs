//! What can be wrong with a configuration, and how it is said.
//!
//! A fault has two halves: the [`Problem`] says what is wrong, the [`Remedy`] what would be right.
//! They are separate because one remedy answers several problems, and because a program that reads
//! `nlb check --json` wants them apart.

use std::{cmp::Ordering, fmt};

use serde::{Serialize, Serializer, ser::SerializeStruct as _};

pub use super::{
    problem::{AddressClass, GroupTrait, Problem, Shape},
    remedy::Remedy,
};

/// A place in a file; both count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// One thing wrong in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file, as it was named to us.
    pub file: String,
    /// Where in it; absent when the file could not be read.
    pub position: Option<Position>,
    /// The key, with names instead of indices: `target_group "web".health_check.port`. Empty when
    /// the fault belongs to no key.
    pub field: String,
    /// The value as written, shortened; absent for missing keys and for secrets.
    pub value: Option<String>,
    /// What is wrong.
    pub problem: Problem,
    /// What would be right.
    pub remedy: Remedy,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        place(out, &self.file, self.position, &self.field)?;
        if let Some(value) = &self.value {
            write!(out, "value `{value}` ")?;
        }
        write!(out, "{}; {}", self.problem, self.remedy)
    }
}

impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_struct("Fault", 8)?;
        map.serialize_field("file", &self.file)?;
        map.serialize_field("line", &self.position.map(|position| position.line))?;
        map.serialize_field("column", &self.position.map(|position| position.column))?;
        map.serialize_field("field", &self.field)?;
        map.serialize_field("value", &self.value)?;
        map.serialize_field("problem", &self.problem.to_string())?;
        map.serialize_field("remedy", &self.remedy.to_string())?;
        map.serialize_field("message", &self.to_string())?;
        map.end()
    }
}

/// Everything wrong in one configuration, in the order of the file; never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{}\n{}", lines(.faults), total(.faults))]
pub struct Faults {
    faults: Vec<Fault>,
}

impl Faults {
    pub(super) fn new(mut faults: Vec<Fault>) -> Self {
        faults.sort_by(|a, b| match a.position.cmp(&b.position) {
            Ordering::Equal => a.field.cmp(&b.field),
            other => other,
        });
        faults.dedup();
        Self { faults }
    }

    /// How many there are.
    #[expect(
        clippy::len_without_is_empty,
        reason = "there is always at least one fault"
    )]
    pub fn len(&self) -> usize {
        self.faults.len()
    }

    /// Each fault, in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.faults.iter()
    }
}

impl<'a> IntoIterator for &'a Faults {
    type Item = &'a Fault;
    type IntoIter = std::slice::Iter<'a, Fault>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

fn lines(faults: &[Fault]) -> String {
    faults
        .iter()
        .map(Fault::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

fn total(faults: &[Fault]) -> String {
    let file = faults.first().map_or("", |fault| fault.file.as_str());
    match faults.len() {
        1 => format!("1 fault in {file}"),
        count => format!("{count} faults in {file}"),
    }
}

/// Something legal that is seldom meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The file, as it was named to us.
    pub file: String,
    /// Where in it.
    pub position: Position,
    /// The key or table, as in [`Fault::field`].
    pub field: String,
    /// What is suspicious.
    pub suspicion: Suspicion,
}

impl fmt::Display for Warning {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        place(out, &self.file, Some(self.position), &self.field)?;
        write!(out, "warning: {}", self.suspicion)
    }
}

impl Serialize for Warning {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_struct("Warning", 5)?;
        map.serialize_field("file", &self.file)?;
        map.serialize_field("line", &self.position.line)?;
        map.serialize_field("column", &self.position.column)?;
        map.serialize_field("field", &self.field)?;
        map.serialize_field("message", &self.to_string())?;
        map.end()
    }
}

fn place(
    out: &mut fmt::Formatter<'_>,
    file: &str,
    position: Option<Position>,
    field: &str,
) -> fmt::Result {
    write!(out, "{file}:")?;
    if let Some(Position { line, column }) = position {
        write!(out, "{line}:{column}:")?;
    }
    if field.is_empty() {
        write!(out, " ")
    } else {
        write!(out, " {field}: ")
    }
}

/// Why a legal configuration is suspicious.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Suspicion {
    /// `node.interfaces` is an empty list.
    #[error("is empty; no packet will reach nlb until an interface is named")]
    NoInterface,
    /// No `[[load_balancer]]`.
    #[error("has no load balancer; nothing will be forwarded")]
    NoLoadBalancer,
    /// A load balancer without listeners.
    #[error("has no listener; its addresses will not be served")]
    NoListener,
    /// A group that no listener uses.
    #[error("is used by no listener; its targets stay `unused` (Target.NotInUse)")]
    UnusedGroup,
    /// A group without targets that a listener uses.
    #[error("has no target; flows of its listeners will find nowhere to go")]
    NoTarget,
    /// Every weight of a group is 0.
    #[error("gives every target the weight 0; no target will take a new flow")]
    AllWeightsZero,
    /// A UDP group checked on its own port.
    #[error(
        "checks its UDP port by TCP; name a port that answers with `health_check.port`, or set \
         `health_check.enabled = false`"
    )]
    UdpCheckedByTcp,
}
