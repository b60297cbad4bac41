//! Answers for people and for programs: text, JSON, YAML.

use std::fmt::Write as _;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;

use super::Failure;
use crate::daemon::Written;

/// How an answer is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// As the API answers
    Json,
    /// The same as YAML
    Yaml,
}

/// Prints an answer as it came, or nothing if it is to be text.
pub(super) fn structured(
    format: Format,
    answer: &impl Serialize,
) -> Result<Option<String>, Failure> {
    let value = serde_json::to_value(answer)?;
    Ok(match format {
        Format::Text => None,
        Format::Json => Some(format!("{value:#}\n")),
        Format::Yaml => Some(yaml(&value)),
    })
}

/// What a change did, or would do.
pub(super) fn written(written: &Written) -> String {
    let mut text = String::new();
    for warning in &written.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    for change in &written.changes {
        let _ = writeln!(text, "{change}");
    }
    text += &discarded(written);
    let count = written.changes.len();
    let plural = if count == 1 { "" } else { "s" };
    let generation = written.generation;
    let _ = match (written.dry_run, count, written.live) {
        (_, 0, true) => writeln!(text, "nothing differs; generation {generation} is live"),
        (true, 0, _) => writeln!(text, "nothing differs"),
        (true, ..) => writeln!(text, "{count} change{plural}; nothing was done"),
        (false, _, true) => writeln!(text, "generation {generation} is live"),
        (false, _, false) => writeln!(
            text,
            "kept, and live with generation {generation}, which is not there yet: see `nlb status`"
        ),
    };
    text
}

/// What became of changes over the API.
pub(super) fn discarded(written: &Written) -> String {
    let mut text = String::new();
    for what in &written.discarded {
        let _ = writeln!(text, "! {what}: set over the API, is discarded");
    }
    for dropped in &written.dropped {
        let _ = writeln!(
            text,
            "! {}: {} over the API, is no more: {}",
            dropped.resource, dropped.change, dropped.reason
        );
    }
    text
}

/// YAML whose strings are JSON's, which YAML takes as they are.
pub(super) fn yaml(value: &Value) -> String {
    let mut text = String::new();
    write_yaml(value, 0, &mut text);
    text
}

fn write_yaml(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(table) if !table.is_empty() => {
            for (key, value) in table {
                let _ = write!(text, "{indent}{}:", yaml_key(key));
                write_below(value, depth, text);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut below = String::new();
                write_yaml(item, depth + 1, &mut below);
                // The first line of what is below stands behind the dash.
                let _ = write!(text, "{indent}- {}", below.trim_start());
            }
        }
        leaf => {
            let _ = writeln!(text, "{indent}{leaf}");
        }
    }
}

fn write_below(value: &Value, depth: usize, text: &mut String) {
    let is_block = match value {
        Value::Object(table) => !table.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if is_block {
        text.push('\n');
        write_yaml(value, depth + 1, text);
    } else {
        let _ = writeln!(text, " {value}");
    }
}

fn yaml_key(key: &str) -> String {
    let is_plain = key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        // Words that some readers take for booleans.
        && !matches!(key, "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null");
    if is_plain {
        key.to_owned()
    } else {
        Value::from(key).to_string()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_says_what_the_value_says() {
        let value = json!({
            "name": "edge",
            "tags": {"on": "yes", "a b": "x: y"},
            "none": [],
            "listener": [{"port": 80, "addresses": ["a", "b"]}, {"port": 81}],
        });
        assert_eq!(
            yaml(&value),
            "listener:\n  - addresses:\n      - \"a\"\n      - \"b\"\n    port: 80\n  - port: 81\n\
             name: \"edge\"\nnone: []\ntags:\n  \"a b\": \"x: y\"\n  \"on\": \"yes\"\n"
        );
    }
}
