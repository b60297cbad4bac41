//! That `docs/openapi.json` is the description that the daemon serves, and that it is one.

use std::collections::BTreeSet;

use nlb_userspace::api::{openapi, routes::ROUTES};
use serde_json::Value;

use crate::document;

#[test]
fn the_description_in_the_documentation_is_the_one_that_is_served() {
    let text = openapi::description().to_pretty_json().unwrap();
    document::must_be("openapi.json", &(text + "\n"));
}

/// Calls `see` with every table of a JSON value.
fn tables(value: &Value, see: &mut impl FnMut(&serde_json::Map<String, Value>)) {
    match value {
        Value::Object(table) => {
            see(table);
            table.values().for_each(|below| tables(below, see));
        }
        Value::Array(items) => items.iter().for_each(|item| tables(item, see)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_used() {
    let description = serde_json::to_value(openapi::description()).unwrap();
    let mut used = BTreeSet::new();
    tables(&description, &mut |table| {
        if let Some(Value::String(reference)) = table.get("$ref") {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(description.pointer(pointer).is_some(), "{reference}");
            used.insert(pointer.rsplit('/').next().unwrap().to_owned());
        }
    });
    let schemas = description["components"]["schemas"].as_object().unwrap();
    let defined: BTreeSet<_> = schemas.keys().cloned().collect();
    assert_eq!(defined, used);
}

#[test]
fn every_operation_has_a_name_of_its_own_and_all_that_is_in_its_path() {
    let description = serde_json::to_value(openapi::description()).unwrap();
    let mut names = BTreeSet::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for operation in item.as_object().unwrap().values() {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name.to_owned()), "{name} twice");
            let parameters = operation["parameters"].as_array();
            let in_path: BTreeSet<_> = parameters
                .into_iter()
                .flatten()
                .filter(|parameter| parameter["in"] == "path")
                .map(|parameter| parameter["name"].as_str().unwrap())
                .collect();
            let wanted: BTreeSet<_> = path
                .split('{')
                .skip(1)
                .filter_map(|rest| rest.split('}').next())
                .collect();
            assert_eq!(in_path, wanted, "{path}");
        }
    }
    assert_eq!(names.len(), ROUTES.len());
}

#[test]
fn a_target_groups_schema_is_the_table_of_keys() {
    let description = serde_json::to_value(openapi::description()).unwrap();
    let schema = |name: &str| &description["components"]["schemas"][name];
    let group = schema("TargetGroup");
    let check = &group["properties"]["health_check"]["properties"];
    assert_eq!(check["healthy_threshold_count"]["minimum"], 2);
    assert_eq!(check["healthy_threshold_count"]["maximum"], 10);
    assert_eq!(
        group["required"],
        serde_json::json!(["name", "protocol", "port"])
    );
    let targets = &group["properties"]["target"]["items"]["$ref"];
    assert_eq!(targets, "#/components/schemas/Target");
    assert_eq!(schema("Target")["properties"]["weight"]["default"], 1);
}
