//! What is refused, and how it is told.

use std::fs;

use hyper::Method;
use serde_json::{Value, json};

use super::{FIRST, Server, TARGETS};
use crate::{
    access::{Effect, Policy, Statement, audit, pattern::Pattern},
    client::{self, Call, ClientError, Endpoint},
    daemon::Written,
};

#[tokio::test]
async fn what_is_refused_says_field_value_and_remedy_and_changes_nothing() {
    let server = Server::start();
    let before = server.get("/v1/config").await;
    let body = json!({"address": "10.0.0.300", "weight": 1000, "wieght": 1});
    let problem = server.json("POST", TARGETS, body).await.problem();
    assert_eq!(
        (problem.status, problem.faults.len()),
        (422, 3),
        "{problem:?}"
    );
    let weight = problem
        .faults
        .iter()
        .find(|fault| fault.field.ends_with(".weight"))
        .unwrap();
    assert_eq!(weight.value.as_deref(), Some("1000"));
    assert_eq!(weight.problem, "is out of range");
    assert_eq!(weight.remedy, "write a whole number from 0 to 999");
    for (method, path, body, status) in [
        ("POST", TARGETS, "{", 400),
        ("POST", TARGETS, "[]", 422),
        ("POST", TARGETS, r#"{"address": "10.0.0.11"}"#, 409),
        ("PATCH", FIRST, r#"{"address": "10.0.0.12"}"#, 422),
        ("PATCH", "/v1/target-groups/wep", "{}", 404),
        ("DELETE", "/v1/load-balancers/edge/listeners/TCP", "", 404),
        ("PUT", "/v1/config?dryrun=true", "{}", 400),
        ("POST", "/v1/nothing", "{}", 404),
        ("DELETE", "/v1/config", "", 405),
    ] {
        let got = server.send(method, path, &[], body).await;
        assert_eq!(got.status, status, "{method} {path}: {got:?}");
        assert!(!got.problem().detail.is_empty());
    }
    let after = server.get("/v1/config").await;
    assert_eq!(after.header("etag"), before.header("etag"));
    assert_eq!(after.header("nlb-generation"), "1");
}

#[tokio::test]
async fn a_bad_file_is_not_reloaded_and_its_faults_have_their_lines() {
    let server = Server::start();
    let file = server.home.path().join("nlb.toml");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, good.replace("port = 80\n", "port = 0\n")).unwrap();
    let problem = server.send("POST", "/v1/reload", &[], "").await.problem();
    let line = problem.faults[0].line(None);
    assert!(
        line.starts_with(&format!("{}:13:", file.display())),
        "{line}"
    );
    assert_eq!(server.get("/v1/generation").await.body["generation"], 1);
    fs::write(&file, good).unwrap();
    assert_eq!(server.send("POST", "/v1/reload", &[], "").await.status, 200);
}

#[tokio::test]
async fn what_is_refused_is_told_changes_nothing_and_is_written_down() {
    let own = rustix::process::geteuid().as_raw();
    let deny = |action: &str, resource: &str, team: Option<&str>| Statement {
        effect: Effect::Deny,
        principals: None,
        actions: vec![Pattern::new(action)],
        resources: vec![Pattern::new(resource)],
        tags: (team.into_iter())
            .map(|team| ("team".to_owned(), Pattern::new(team)))
            .collect(),
    };
    let server = Server::start_behind(Policy {
        statements: vec![
            Statement {
                effect: Effect::Allow,
                ..deny("*", "*", None)
            },
            deny("targets:deregister", "target-group/web/target/*", None),
            deny("load-balancers:update", "*", Some("d*")),
        ],
        ..Policy::default()
    });
    assert_eq!(server.get("/v1/config").await.status, 200);
    for (team, status) in [("web", 200), ("db", 200), ("web", 403)] {
        let body = json!({"tags": {"team": team}});
        assert_eq!(
            server
                .json("PATCH", "/v1/load-balancers/edge", body)
                .await
                .status,
            status,
            "{team}"
        );
    }
    // However a target is written, a policy knows it by one name.
    for path in ["/v1/target-groups/web/targets/10.0.0.11", FIRST] {
        let got = server.send("DELETE", path, &[], "").await;
        assert_eq!(got.status, 403);
        assert!(got.problem().detail.contains("statement 2"));
    }
    assert_eq!(server.get(FIRST).await.status, 200);
    let text = fs::read_to_string(server.home.path().join("audit.log")).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["resource"], "target-group/web/target/10.0.0.11:8080");
    assert_eq!(last["outcome"], "refused");
    assert_eq!(last["uid"], own);
    assert_eq!(last["pid"], std::process::id());
    // Reads that were let through are not kept.
    assert_eq!(text.lines().count(), 5);
    assert_eq!(
        audit::verify(&server.home.path().join("audit.log"))
            .unwrap()
            .lines,
        5
    );
}

#[tokio::test]
async fn the_client_tells_what_the_daemon_refused() {
    let server = Server::start();
    let socket = Endpoint::Socket(server.home.path().join("nlb.sock"));
    let call = Call::new(Method::PATCH, FIRST).with_json(&json!({"weight": -1}));
    let error = client::send::<Written>(&socket, call).await.unwrap_err();
    assert!(matches!(error, ClientError::Refused(_)));
    assert_eq!(
        error.to_string(),
        "target_group \"web\".target \"10.0.0.11\".weight: value `-1` is out of range; write a \
         whole number from 0 to 999\n1 fault; nothing has changed"
    );
}
