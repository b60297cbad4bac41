//! Merge patches (RFC 7396), laid on and made. Documents hold no null, so null can mean "remove".

use serde_json::{Map, Value};

/// Lays a merge patch on a value. A table that ends up empty is removed: nothing in it was said.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(target) = target {
        merge_into(target, patch);
    }
}

/// The same for a table.
pub(super) fn merge_into(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
            continue;
        }
        let mut below = target.remove(key).unwrap_or(Value::Null);
        merge(&mut below, value);
        if below.as_object().is_none_or(|table| !table.is_empty()) {
            target.insert(key.clone(), below);
        }
    }
}

/// The patch that makes one table of another; none if they are equal.
pub(super) fn between(
    from: &Map<String, Value>,
    to: &Map<String, Value>,
) -> Option<Map<String, Value>> {
    let mut patch = Map::new();
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in to {
        match (from.get(key), value) {
            (Some(old), _) if old == value => {}
            (Some(Value::Object(old)), Value::Object(new)) => {
                if let Some(below) = between(old, new) {
                    patch.insert(key.clone(), Value::Object(below));
                }
            }
            _ => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    (!patch.is_empty()).then_some(patch)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn table(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(table) => table,
            other => panic!("{other} is no table"),
        }
    }

    #[test]
    fn a_patch_sets_replaces_and_removes() {
        let mut target = json!({"a": 1, "b": {"c": 2, "d": 3}, "list": [1, 2], "e": {"f": 1}});
        merge(
            &mut target,
            &json!({"a": null, "b": {"c": 9}, "list": [3], "new": {"x": true}, "e": {"f": null}}),
        );
        assert_eq!(
            target,
            json!({"b": {"c": 9, "d": 3}, "list": [3], "new": {"x": true}})
        );
    }

    /// Tables as documents hold them: no null, no empty table.
    fn tables() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (0_u8..3).prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from),
            proptest::collection::vec(0_u8..3, 0..3).prop_map(Value::from),
        ];
        let below = leaf.prop_recursive(3, 16, 4, |inner| {
            proptest::collection::btree_map("[a-d]", inner, 1..4)
                .prop_map(|map| Value::Object(map.into_iter().collect()))
        });
        proptest::collection::btree_map("[a-d]", below, 0..4)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn a_patch_between_two_tables_makes_one_of_the_other(from in tables(), to in tables()) {
            let (mut from, to) = (table(from), table(to));
            match between(&from, &to) {
                None => prop_assert_eq!(&from, &to),
                Some(patch) => {
                    prop_assert_ne!(&from, &to);
                    merge_into(&mut from, &patch);
                    prop_assert_eq!(&from, &to);
                }
            }
        }
    }
}
