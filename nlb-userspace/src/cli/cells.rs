//! Resources as tables that a person reads: which columns there are, and what stands in them.

use serde_json::{Value, json};

use crate::{api::shapes::Item, table::Table};

/// A load balancer's table in the configuration.
pub(super) const BALANCER: &str = "load_balancer";
/// A listener's.
pub(super) const LISTENER: &str = "load_balancer.listener";
/// A rule's.
pub(super) const RULE: &str = "load_balancer.rule";
/// A target group's.
pub(super) const GROUP: &str = "target_group";
/// A target's.
pub(super) const TARGET: &str = "target_group.target";

/// The heads of the columns of such resources.
pub(super) fn heads(table: &str) -> Vec<&'static str> {
    match table {
        BALANCER => vec![
            "NAME",
            "SCHEME",
            "ADDRESSES",
            "LISTENERS",
            "RULES",
            "TAGS",
            "ORIGIN",
        ],
        LISTENER => vec!["LISTENER", "TARGET GROUPS", "TAGS", "ORIGIN"],
        RULE => vec!["RULE", "ACTION", "SOURCES", "PROTOCOL", "PORTS", "ORIGIN"],
        GROUP => vec![
            "NAME", "PROTOCOL", "PORT", "MODE", "TARGETS", "TAGS", "ORIGIN",
        ],
        _ => vec!["TARGET", "WEIGHT", "STATE", "REASON", "ORIGIN"],
    }
}

/// A resource's row.
pub(super) fn row(table: &str, item: &Item) -> Vec<String> {
    let said = |key: &str| words(item.document.get(key));
    let count = |key: &str| {
        let list = item.document.get(key).and_then(Value::as_array);
        list.map_or(0, Vec::len).to_string()
    };
    let (id, origin) = (item.id.clone(), item.origin.clone());
    match table {
        BALANCER => vec![
            id,
            said("scheme"),
            said("addresses"),
            count("listener"),
            count("rule"),
            said("tags"),
            origin,
        ],
        LISTENER => {
            let groups = match item.document.get("target_groups") {
                Some(Value::Array(shares)) => shares
                    .iter()
                    .map(|share| {
                        let weight = share.get("weight").cloned().unwrap_or(json!(1));
                        format!("{}:{weight}", words(share.get("name")))
                    })
                    .collect::<Vec<_>>()
                    .join(","),
                _ => said("target_group"),
            };
            vec![id, groups, said("tags"), origin]
        }
        RULE => {
            let ports = match (item.document.get("from_port"), item.document.get("to_port")) {
                (None, _) => "-".to_owned(),
                (Some(from), None) => from.to_string(),
                (Some(from), Some(to)) => format!("{from}-{to}"),
            };
            let words = ["action", "sources", "protocol"].map(said);
            let [action, sources, protocol] = words;
            vec![id, action, sources, protocol, ports, origin]
        }
        _ => {
            let mode = item.document.get("mode").cloned().unwrap_or(json!("nat"));
            vec![
                id,
                said("protocol"),
                said("port"),
                words(Some(&mode)),
                count("target"),
                said("tags"),
                origin,
            ]
        }
    }
}

/// A value in a cell.
fn words(value: Option<&Value>) -> String {
    match value {
        None => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => {
            let items: Vec<_> = items.iter().map(|item| words(Some(item))).collect();
            items.join(",")
        }
        Some(Value::Object(table)) => {
            let pairs = table.iter();
            let pairs: Vec<_> = pairs
                .map(|(key, value)| format!("{key}={}", words(Some(value))))
                .collect();
            pairs.join(",")
        }
        Some(other) => other.to_string(),
    }
}

/// A cell that may be empty.
pub(super) fn dash(text: Option<&str>) -> String {
    text.unwrap_or("-").to_owned()
}

/// Rows below their heads.
pub(super) fn aligned(heads: Vec<&'static str>, rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::default();
    table.cells(heads.into_iter().map(str::to_owned).collect());
    for row in rows {
        table.cells(row);
    }
    let mut text = String::new();
    table.write(0, usize::MAX, &mut text);
    text
}
