//! Documents are read, edited, compared and laid over one another.

use proptest::prelude::*;
use serde_json::json;

use super::{
    changes,
    edit::{Edit, EditError, Kind, Named},
    overlay::{Change, Overlay},
    *,
};

const FILE: &str = r#"
[node]
interfaces = ["eth0"]
hash_key = "00"

[[load_balancer]]
name = "edge"
addresses = ["192.0.2.10", "2001:db8::10"]

  [[load_balancer.listener]]
  protocol = "TCP"
  port = 80
  target_group = "web"

  [[load_balancer.listener]]
  protocol = "TCP"
  port = 80
  target_group = "web-v6"

  [[load_balancer.rule]]
  action = "allow"
  sources = ["10.0.0.0/8"]

[[target_group]]
name = "web"
protocol = "TCP"
port = 8080
deregistration_delay.timeout_seconds = 60

  [[target_group.target]]
  address = "10.0.0.11"

  [[target_group.target]]
  address = "10.0.0.12"
  port = 9090
  weight = 3

[[target_group]]
name = "web-v6"
protocol = "TCP"
port = 8080

  [[target_group.target]]
  address = "2001:db8:1::11"
"#;

fn document() -> Document {
    Document::from_toml(FILE).unwrap()
}

fn id(text: &str) -> ResourceId {
    text.parse().unwrap()
}

#[expect(clippy::unnecessary_wraps, reason = "it stands for a judgement")]
fn any(_: &Document) -> Result<(), String> {
    Ok(())
}

/// The overlay after some edits of a document.
fn overlay_of(base: &Document, edits: &[Edit]) -> (Document, Overlay) {
    let (mut document, mut overlay) = (base.clone(), Overlay::default());
    for edit in edits {
        let (edited, changed) = document.edited(edit).unwrap();
        let top = changed.unwrap().top();
        overlay.take(overlay.follow(base, &edited, &[top]));
        document = edited;
    }
    (document, overlay)
}

fn patch(named: Named, patch: Value) -> Edit {
    Edit::Patch { named, patch }
}

fn target(address: &str) -> Named {
    Named::child(Kind::Target, "web", address)
}

#[test]
fn every_resource_has_a_name_under_which_it_is_found() {
    let document = document();
    let mut found: Vec<String> = Vec::new();
    for top in document.tops() {
        found.push(top.to_string());
        found.extend(document.children(&top).iter().map(ToString::to_string));
    }
    let rule = found.remove(3);
    assert!(rule.starts_with("load-balancer/edge/rule/"), "{rule}");
    assert_eq!(
        found,
        [
            "load-balancer/edge",
            "load-balancer/edge/listener/TCP:80:ipv4",
            "load-balancer/edge/listener/TCP:80:ipv6",
            "target-group/web",
            "target-group/web/target/10.0.0.11:8080",
            "target-group/web/target/10.0.0.12:9090",
            "target-group/web-v6",
            "target-group/web-v6/target/[2001:db8:1::11]:8080",
        ]
    );
    for name in found.iter().chain([&rule]) {
        assert!(document.get(&id(name)).is_some(), "{name}");
    }
    assert!(
        document
            .get(&id("load-balancer/edge/listener/TCP:80"))
            .is_none()
    );
    let ambiguous = Named::child(Kind::Listener, "edge", "TCP:80").existing(&document);
    assert_eq!(
        ambiguous.unwrap_err().to_string(),
        "there are two listeners TCP:80; name one of `TCP:80:ipv4` and `TCP:80:ipv6`"
    );
}

#[test]
fn a_document_is_what_it_was_after_a_way_through_text() {
    let document = document();
    let text = document.to_toml().unwrap();
    assert_eq!(Document::from_toml(&text).unwrap(), document);
}

#[test]
fn secrets_are_not_shown_and_come_back_with_the_document_that_was_shown() {
    let document = document();
    let mut shown = document.shown();
    assert!(!shown.to_toml().unwrap().contains("\"00\""));
    assert!(!format!("{document:?}").contains("\"00\""));
    shown.restore_secrets(&document);
    assert_eq!(shown, document);
}

#[test]
fn an_edit_changes_its_resource_and_nothing_else() {
    let base = document();
    let edits = [
        patch(target("10.0.0.11"), json!({"weight": 5})),
        patch(
            Named::top(Kind::TargetGroup, "web"),
            json!({"deregistration_delay": {"timeout_seconds": null}, "tags": {"team": "web"}}),
        ),
        Edit::Add {
            kind: Kind::Target,
            into: Some("web".to_owned()),
            table: json!({"address": "10.0.0.13"}),
        },
        Edit::Remove {
            named: target("10.0.0.12:9090"),
        },
    ];
    let (document, _) = overlay_of(&base, &edits);
    let plan = changes::of_all(&base, &document);
    let lines: Vec<_> = plan.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "~ target-group/web\n    deregistration_delay.timeout_seconds: 60 -> (unset)\n    \
             tags.team: (unset) -> \"web\"",
            "~ target-group/web/target/10.0.0.11:8080\n    weight: (unset) -> 5",
            "- target-group/web/target/10.0.0.12:9090",
            "+ target-group/web/target/10.0.0.13:8080\n    address = \"10.0.0.13\"",
        ]
    );
}

#[test]
fn what_cannot_be_edited_is_said_with_what_to_do() {
    let document = document();
    let errors = [
        (
            patch(target("10.0.0.99"), json!({})),
            "there is no target `10.0.0.99` in target group `web`; `nlb target list` shows what \
             there is",
        ),
        (
            Edit::Remove {
                named: Named::child(Kind::Target, "wep", "10.0.0.11"),
            },
            "there is no target group `wep`; `nlb target-group list` shows what there is",
        ),
        (
            Edit::Add {
                kind: Kind::Target,
                into: Some("web".to_owned()),
                table: json!({"address": "10.0.0.11", "port": 8080}),
            },
            "target-group/web/target/10.0.0.11:8080 exists already; change it with `set`, or \
             choose another name",
        ),
        (
            patch(target("10.0.0.11"), json!({"port": 81})),
            "`port` says 81 in the body, and the path names 8080; a resource keeps its name, so \
             add another one and remove this one",
        ),
        (
            Edit::Put {
                named: target("10.0.0.11"),
                table: json!({"weight": null}),
            },
            "`weight` is null; leave the key out instead",
        ),
        (
            Edit::Put {
                named: target("10.0.0.11"),
                table: json!(["weight"]),
            },
            "the body must be a JSON object",
        ),
    ];
    for (edit, message) in errors {
        let error: EditError = document.edited(&edit).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn an_overlay_leads_from_the_base_to_the_document() {
    let base = document();
    let edits = [
        Edit::Put {
            named: Named::top(Kind::TargetGroup, "new"),
            table: json!({"protocol": "TCP", "port": 1, "target": [{"address": "10.0.0.1"}]}),
        },
        patch(
            Named::child(Kind::Listener, "edge", "TCP:80:ipv4"),
            json!({"target_group": "new"}),
        ),
        Edit::PutRules {
            balancer: "edge".to_owned(),
            rules: json!([{"action": "deny", "sources": ["10.9.0.0/16"]}]),
        },
        Edit::Remove {
            named: Named::top(Kind::TargetGroup, "web"),
        },
    ];
    let (document, overlay) = overlay_of(&base, &edits);
    let laid = overlay.lay(&base, any);
    assert_eq!(laid.document, document);
    assert_eq!(laid.overlay, overlay);
    assert_eq!(laid.dropped, []);
}

#[test]
fn a_change_that_is_taken_back_leaves_nothing() {
    let base = document();
    let edits = [
        patch(target("10.0.0.12:9090"), json!({"weight": 0})),
        patch(target("10.0.0.12:9090"), json!({"weight": 3})),
        Edit::Put {
            named: target("10.0.0.13:8080"),
            table: json!({}),
        },
        Edit::Remove {
            named: target("10.0.0.13:8080"),
        },
    ];
    let (_, overlay) = overlay_of(&base, &edits[..1]);
    assert_eq!(overlay.len(), 1);
    let (document, overlay) = overlay_of(&base, &edits);
    assert_eq!(document, base);
    assert!(overlay.is_empty(), "{overlay:?}");
}

#[test]
fn over_a_new_base_each_key_is_what_whoever_spoke_last_of_it_said() {
    let base = document();
    let (_, overlay) = overlay_of(
        &base,
        &[patch(target("10.0.0.12:9090"), json!({"weight": 0}))],
    );
    let new = FILE.replace("timeout_seconds = 60", "timeout_seconds = 90");
    let laid = overlay.lay(&Document::from_toml(&new).unwrap(), any);
    let group = laid.document.get(&id("target-group/web")).unwrap();
    assert_eq!(group["deregistration_delay"]["timeout_seconds"], 90);
    assert_eq!(group["target"][1]["weight"], 0);
    assert_eq!(laid.overlay, overlay);
}

#[test]
fn a_change_whose_resource_left_the_base_is_dropped_by_name() {
    let base = document();
    let (_, overlay) = overlay_of(
        &base,
        &[
            patch(target("10.0.0.12:9090"), json!({"weight": 0})),
            patch(target("10.0.0.11"), json!({"weight": 7})),
        ],
    );
    let gone = FILE.replace("address = \"10.0.0.12\"", "address = \"10.0.0.22\"");
    let laid = overlay.lay(&Document::from_toml(&gone).unwrap(), any);
    assert_eq!(laid.overlay.len(), 1);
    let dropped: Vec<_> = laid
        .dropped
        .iter()
        .map(|dropped| (dropped.resource.as_str(), dropped.reason.as_str()))
        .collect();
    assert_eq!(
        dropped,
        [(
            "target-group/web/target/10.0.0.12:9090",
            "target-group/web/target/10.0.0.12:9090 is not in the file any more"
        )]
    );
}

#[test]
fn a_change_that_makes_the_new_base_invalid_is_dropped_alone() {
    let base = document();
    let added: Vec<Edit> = (20..40)
        .map(|number| Edit::Put {
            named: target(&format!("10.0.0.{number}:8080")),
            table: json!({}),
        })
        .collect();
    let (_, overlay) = overlay_of(&base, &added);
    let judged = std::cell::Cell::new(0);
    let laid = overlay.lay(&base, |document| {
        judged.set(judged.get() + 1);
        match document.get(&id("target-group/web/target/10.0.0.33:8080")) {
            Some(_) => Err("unlucky".to_owned()),
            None => Ok(()),
        }
    });
    assert_eq!(laid.dropped.len(), 1);
    assert!(laid.dropped[0].reason.ends_with("unlucky"));
    assert_eq!(laid.overlay.len(), 19);
    assert!(judged.get() < 20, "{} judgements", judged.get());
}

#[test]
fn what_the_new_base_says_itself_is_no_change_any_more() {
    let base = document();
    let (document, overlay) = overlay_of(
        &base,
        &[
            patch(target("10.0.0.11"), json!({"weight": 7})),
            Edit::Remove {
                named: target("10.0.0.12:9090"),
            },
        ],
    );
    let laid = overlay.lay(&document, any);
    assert_eq!(laid.document, document);
    assert!(laid.overlay.is_empty() && laid.dropped.is_empty());
}

/// The document without the listener that shares its port with another one.
fn of_one_version() -> Document {
    let second = "  [[load_balancer.listener]]\n  protocol = \"TCP\"\n  port = 80\n  target_group = \
                  \"web-v6\"\n";
    assert!(FILE.contains(second));
    Document::from_toml(&FILE.replacen(second, "", 1)).unwrap()
}

#[test]
fn targets_that_follow_their_groups_port_are_not_changed_by_it() {
    let base = document();
    let web = Named::top(Kind::TargetGroup, "web");
    let (document, overlay) = overlay_of(&base, &[patch(web, json!({"port": 8081}))]);
    assert_eq!(overlay.len(), 1);
    // The file still says what else there is to say of them.
    let heavier = FILE.replace("\"10.0.0.11\"", "\"10.0.0.11\"\n  weight = 9");
    let laid = overlay.lay(&Document::from_toml(&heavier).unwrap(), any);
    let target = laid
        .document
        .get(&id("target-group/web/target/10.0.0.11:8081"));
    assert_eq!(target.unwrap()["weight"], 9);
    assert!(
        document
            .get(&id("target-group/web/target/10.0.0.12:9090"))
            .is_some()
    );
}

#[test]
fn a_second_listener_on_a_port_does_not_rename_the_first_ones_change() {
    let base = of_one_version();
    let (document, overlay) = overlay_of(
        &base,
        &[
            patch(
                Named::child(Kind::Listener, "edge", "TCP:80"),
                json!({"tcp": {"idle_timeout": {"seconds": 60}}}),
            ),
            Edit::Add {
                kind: Kind::Listener,
                into: Some("edge".to_owned()),
                table: json!({"protocol": "TCP", "port": 80, "target_group": "web-v6"}),
            },
        ],
    );
    let changed: Vec<_> = overlay
        .iter()
        .map(|(id, change)| (id.to_string(), matches!(change, Change::Changed(_))))
        .collect();
    assert_eq!(
        changed,
        [
            ("load-balancer/edge/listener/TCP:80:ipv4".to_owned(), true),
            ("load-balancer/edge/listener/TCP:80:ipv6".to_owned(), false),
        ]
    );
    assert_eq!(overlay.lay(&base, any).document, document);
}

/// Edits of all kinds, many of which meet the same resources.
fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let group = prop::sample::select(vec!["web", "web-v6", "spare"]);
    let address = prop::sample::select(vec!["10.0.0.11:8080", "10.0.0.12:9090", "10.0.0.13:80"]);
    let weight = 0_u64..3;
    let edit = (0..8, group, address, weight).prop_map(|(kind, group, address, weight)| {
        let target = Named::child(Kind::Target, group, address);
        let group_named = Named::top(Kind::TargetGroup, group);
        let listener = Named::child(Kind::Listener, "edge", format!("UDP:{}", 50 + weight));
        match kind {
            0 => Edit::Put {
                named: target,
                table: json!({ "weight": weight }),
            },
            1 => patch(target, json!({ "weight": weight, "port": null })),
            2 => Edit::Remove { named: target },
            3 => Edit::Put {
                named: group_named,
                table: json!({"protocol": "TCP", "port": 8080 + weight}),
            },
            4 => patch(group_named, json!({"tags": {"weight": weight.to_string()}})),
            5 => Edit::Remove { named: group_named },
            6 => Edit::Put {
                named: listener,
                table: json!({ "target_group": group }),
            },
            _ => Edit::PutRules {
                balancer: "edge".to_owned(),
                rules: json!([{"action": "allow", "sources": [format!("10.{weight}.0.0/16")]}]),
            },
        }
    });
    prop::collection::vec(edit, 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_any_edits_the_overlay_leads_from_the_base_to_the_document(edits in edits()) {
        // Where two listeners share a port, an edit of a group that makes them alike is refused by
        // the configuration's rules, which are not asked here.
        let base = of_one_version();
        let (mut document, mut overlay) = (base.clone(), Overlay::default());
        for edit in &edits {
            // Some name what is not there.
            let Ok((edited, Some(id))) = document.edited(edit) else {
                continue;
            };
            let delta = overlay.follow(&base, &edited, &[id.top()]);
            overlay.take(delta);
            document = edited;
        }
        let laid = overlay.lay(&base, any);
        // In whatever order new resources stand, they say the same.
        let differences = changes::of_all(&laid.document, &document);
        prop_assert!(differences.is_empty(), "{:?}", differences);
        prop_assert!(laid.dropped.is_empty(), "{:?}", laid.dropped);
        prop_assert_eq!(overlay.is_empty(), changes::of_all(&base, &document).is_empty());
        // And the way through the journal changes nothing.
        let text = serde_json::to_string(&overlay).unwrap();
        prop_assert_eq!(serde_json::from_str::<Overlay>(&text).unwrap(), overlay);
    }
}
