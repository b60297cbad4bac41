//! `KEY=VALUE` as it is typed becomes a table of the document.
//!
//! Which type a value has, the table of keys knows. What it does not know is sent as it is: the
//! daemon says what is wrong with it, and what was meant.

use serde_json::{Map, Value, json};

use crate::config::schema::{self, Kind};

/// Something that is no assignment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AssignmentError {
    /// No `=`.
    #[error(
        "`{0}` is not KEY=VALUE, such as `{1}`; keys are those of the configuration file, dots \
         included (docs/configuration.md)"
    )]
    NoValue(String, &'static str),
    /// A value that begins like JSON and is not.
    #[error("the value of `{0}` begins like JSON and is not: {1}")]
    NotJson(String, String),
}

/// The table that these assignments say something about, such as `target_group`.
pub(super) fn table(
    of: &str,
    assignments: &[String],
) -> Result<Map<String, Value>, AssignmentError> {
    let mut table = Map::new();
    for assignment in assignments {
        let Some((key, text)) = assignment.split_once('=') else {
            let example = match of {
                "load_balancer" => "addresses=192.0.2.10",
                "load_balancer.listener" => "target_group=web",
                "load_balancer.rule" => "from_port=443",
                "target_group" => "protocol=TCP",
                _ => "weight=10",
            };
            return Err(AssignmentError::NoValue(assignment.clone(), example));
        };
        // The keys of tags are the operator's own, dots and all.
        let parts: Vec<&str> = match key.split_once('.') {
            Some(("tags", tag)) => vec!["tags", tag],
            _ => key.split('.').collect(),
        };
        insert(&mut table, &parts, value(of, key, text)?);
    }
    Ok(table)
}

fn insert(table: &mut Map<String, Value>, parts: &[&str], value: Value) {
    let Some((first, rest)) = parts.split_first() else {
        return;
    };
    if rest.is_empty() {
        table.insert((*first).to_owned(), value);
        return;
    }
    let below = table
        .entry((*first).to_owned())
        .or_insert_with(|| json!({}));
    if !below.is_object() {
        *below = json!({});
    }
    if let Value::Object(below) = below {
        insert(below, rest, value);
    }
}

fn value(of: &str, key: &str, text: &str) -> Result<Value, AssignmentError> {
    if text.is_empty() {
        // Nothing is said any more.
        return Ok(Value::Null);
    }
    let number = || serde_json::from_str::<serde_json::Number>(text).map(Value::Number);
    let as_text = || Value::from(text);
    let known = schema::find(&schema::join(of, key)).map(|key| key.kind);
    Ok(match known {
        Some(Kind::Texts) => text
            .split(',')
            .map(|item| Value::from(item.trim()))
            .collect(),
        Some(Kind::Switch) => match text {
            "true" => true.into(),
            "false" => false.into(),
            _ => as_text(),
        },
        Some(Kind::Whole { .. } | Kind::WholeOrOff { .. } | Kind::Seconds { .. } | Kind::Port) => {
            number().unwrap_or_else(|_| as_text())
        }
        Some(Kind::Tables) if !text.starts_with(['[', '{']) => text.split(',').map(share).collect(),
        Some(Kind::Tables) => json_of(key, text)?,
        Some(Kind::Text | Kind::Word { .. } | Kind::Tags) | None => as_text(),
    })
}

/// `web:90` of a listener's `target_groups`.
fn share(text: &str) -> Value {
    match text.split_once(':') {
        Some((name, weight)) => match weight.parse::<u64>() {
            Ok(weight) => json!({ "name": name, "weight": weight }),
            Err(_) => json!({ "name": name, "weight": weight }),
        },
        None => json!({ "name": text }),
    }
}

fn json_of(key: &str, text: &str) -> Result<Value, AssignmentError> {
    serde_json::from_str(text)
        .map_err(|error| AssignmentError::NotJson(key.to_owned(), error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(of: &str, assignments: &[&str]) -> Value {
        let assignments: Vec<String> = assignments.iter().map(ToString::to_string).collect();
        Value::Object(table(of, &assignments).unwrap())
    }

    #[test]
    fn values_have_the_types_of_their_keys() {
        assert_eq!(
            read(
                "target_group",
                &[
                    "port=80",
                    "mode=dsr-l2",
                    "health_check.port=traffic-port",
                    "health_check.interval_seconds=0.5",
                    "health_check.enabled=false",
                    "tags.cost.centre=12",
                    "slow_start.duration_seconds=",
                ],
            ),
            json!({
                "port": 80,
                "mode": "dsr-l2",
                "health_check": {"port": "traffic-port", "interval_seconds": 0.5, "enabled": false},
                "tags": {"cost.centre": "12"},
                "slow_start": {"duration_seconds": null},
            })
        );
        assert_eq!(
            read("load_balancer", &["addresses=192.0.2.1, 2001:db8::1"]),
            json!({"addresses": ["192.0.2.1", "2001:db8::1"]})
        );
        assert_eq!(
            read("load_balancer.listener", &["target_groups=web:90,canary"]),
            json!({"target_groups": [{"name": "web", "weight": 90}, {"name": "canary"}]})
        );
    }

    #[test]
    fn what_is_wrong_is_sent_for_the_daemon_to_say_so() {
        assert_eq!(
            read(
                "target_group",
                &["port=http", "colour=blue", "health_check.enabled=yes"]
            ),
            json!({"port": "http", "colour": "blue", "health_check": {"enabled": "yes"}})
        );
        let none = table("target_group", &["port".to_owned()]).unwrap_err();
        assert!(none.to_string().contains("`port` is not KEY=VALUE"));
    }
}
