//! The difference between two documents as a person reads it: the plan that is printed before
//! anything is done.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Document, NOT_SHOWN, Table, overlay::pairs, resource::ResourceId};

/// What a plan does to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is added.
    Add,
    /// Some of its keys change.
    Change,
    /// It is removed. Flows of a removed target end as its group's `deregistration_delay` says.
    Remove,
}

/// One line of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PlannedChange {
    /// What is done.
    pub action: Action,
    /// To what, such as `target-group/web/target/10.0.0.11:80`, or `node`.
    pub resource: String,
    /// The keys that change, or that an added resource has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyChange>,
}

/// A key that changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct KeyChange {
    /// Its dotted name.
    pub key: String,
    /// What it says; absent if it says nothing yet.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub from: Value,
    /// What it will say; absent if it is removed.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub to: Value,
}

impl fmt::Display for PlannedChange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.action {
            Action::Add => '+',
            Action::Change => '~',
            Action::Remove => '-',
        };
        write!(out, "{sign} {}", self.resource)?;
        for KeyChange { key, from, to } in &self.keys {
            match (self.action, from, to) {
                (Action::Add, _, to) => write!(out, "\n    {key} = {to}")?,
                (_, Value::Null, to) => write!(out, "\n    {key}: (unset) -> {to}")?,
                (_, from, Value::Null) => write!(out, "\n    {key}: {from} -> (unset)")?,
                (_, from, to) => write!(out, "\n    {key}: {from} -> {to}")?,
            }
        }
        Ok(())
    }
}

/// The difference in these load balancers and target groups.
pub fn of_tops(from: &Document, to: &Document, tops: &[ResourceId]) -> Vec<PlannedChange> {
    tops.iter()
        // Most of a large document is as it was, and pairing what is in it takes long.
        .filter(|top| from.get(top) != to.get(top))
        .flat_map(|top| pairs(from, to, top))
        .map(|(id, (from, to))| {
            let action = match (&from, &to) {
                (None, _) => Action::Add,
                (Some(_), Some(_)) => Action::Change,
                (Some(_), None) => Action::Remove,
            };
            let mut keys = Vec::new();
            if let Some(to) = to {
                compare("", &from.unwrap_or_default(), &to, &mut keys);
            }
            PlannedChange {
                action,
                resource: id.to_string(),
                keys,
            }
        })
        .collect()
}

/// The whole difference.
pub fn of_all(from: &Document, to: &Document) -> Vec<PlannedChange> {
    let mut plan = Vec::new();
    let is_setting =
        |key: &&String| !matches!(key.as_str(), super::LOAD_BALANCER | super::TARGET_GROUP);
    let settings: BTreeSet<&String> = (from.root.keys().chain(to.root.keys()))
        .filter(is_setting)
        .collect();
    for section in settings {
        let table = |document: &Document| {
            let table = document.root.get(section).and_then(Value::as_object);
            table.cloned().unwrap_or_default()
        };
        let mut keys = Vec::new();
        compare("", &table(from), &table(to), &mut keys);
        if !keys.is_empty() {
            plan.push(PlannedChange {
                action: Action::Change,
                resource: section.clone(),
                keys,
            });
        }
    }
    let (before, after) = (from.tables_of_tops(), to.tables_of_tops());
    let tops: BTreeSet<&ResourceId> = before.keys().chain(after.keys()).collect();
    let tops: Vec<ResourceId> = tops
        .into_iter()
        .filter(|top| before.get(top) != after.get(top))
        .cloned()
        .collect();
    plan.extend(of_tops(from, to, &tops));
    plan
}

fn compare(above: &str, from: &Table, to: &Table, found: &mut Vec<KeyChange>) {
    let names: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    for name in names {
        let key = if above.is_empty() {
            name.clone()
        } else {
            format!("{above}.{name}")
        };
        let empty = Table::new();
        match (from.get(name), to.get(name)) {
            (old, new) if old == new => {}
            (Some(Value::Object(old)), Some(Value::Object(new))) => compare(&key, old, new, found),
            (None, Some(Value::Object(new))) => compare(&key, &empty, new, found),
            (Some(Value::Object(old)), None) => compare(&key, old, &empty, found),
            (old, new) => {
                let shown = |value: Option<&Value>| match value {
                    Some(_) if key == "hash_key" => NOT_SHOWN.into(),
                    Some(value) => value.clone(),
                    None => Value::Null,
                };
                found.push(KeyChange {
                    from: shown(old),
                    to: shown(new),
                    key,
                });
            }
        }
    }
}
