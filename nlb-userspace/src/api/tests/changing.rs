//! Resources read and changed, one by one and as a document.

use serde_json::{Value, json};

use super::{super::routes::ROUTES, FIRST, SECOND, Server, TARGETS};

#[tokio::test]
async fn a_target_is_registered_read_changed_drained_and_deregistered() {
    let server = Server::start();
    let added = server
        .json(
            "POST",
            TARGETS,
            json!({"address": "10.0.0.12", "weight": 5}),
        )
        .await;
    assert_eq!(added.status, 201, "{added:?}");
    assert_eq!(added.header("location"), SECOND);
    assert_eq!(added.header("nlb-generation"), "2");
    assert_eq!(
        added.body["resource"],
        "target-group/web/target/10.0.0.12:8080"
    );
    assert_eq!(added.body["live"], true);
    assert_eq!(added.body["changes"][0]["action"], "add");

    let read = server.get(SECOND).await;
    assert_eq!(read.status, 200);
    assert_eq!(read.header("etag"), added.header("etag"));
    assert_eq!(read.body["origin"], "api");
    assert_eq!(
        read.body["document"],
        json!({"address": "10.0.0.12", "weight": 5})
    );

    let changed = server.json("PATCH", SECOND, json!({"weight": 7})).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    let keys = &changed.body["changes"][0]["keys"];
    assert_eq!(*keys, json!([{"key": "weight", "from": 5, "to": 7}]));

    let drained = server
        .send("POST", &format!("{SECOND}/drain"), &[], "")
        .await;
    assert_eq!(drained.status, 200, "{drained:?}");
    let list = server.get(TARGETS).await;
    let ids: Vec<_> = list.body["items"].as_array().unwrap().iter().collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0]["origin"], "file");
    assert_eq!(ids[1]["document"]["weight"], 0);

    let gone = server.send("DELETE", SECOND, &[], "").await;
    assert_eq!((gone.status, &gone.body["etag"]), (200, &Value::Null));
    let generation = server.get("/v1/generation").await;
    assert_eq!(generation.body["changed_over_api"], 0);
    assert_eq!(
        server.get(SECOND).await.problem().kind,
        "urn:nlb:problem:not-found"
    );
}

#[tokio::test]
async fn a_load_balancer_its_listeners_and_its_rules_are_resources() {
    let server = Server::start();
    let group = json!({"name": "dns", "protocol": "UDP", "port": 53,
        "health_check": {"enabled": false}, "target": [{"address": "10.0.1.1"}]});
    assert_eq!(
        server.json("POST", "/v1/target-groups", group).await.status,
        201
    );
    let balancer = json!({"name": "inner", "addresses": ["192.0.2.53"], "scheme": "internal",
        "tags": {"team": "dns"}});
    assert_eq!(
        server
            .json("POST", "/v1/load-balancers", balancer)
            .await
            .status,
        201
    );
    let listener = json!({"protocol": "UDP", "port": 53, "target_group": "dns"});
    let listeners = "/v1/load-balancers/inner/listeners";
    let added = server.json("POST", listeners, listener).await;
    assert_eq!(
        added.header("location"),
        "/v1/load-balancers/inner/listeners/UDP:53"
    );
    let rules = "/v1/load-balancers/inner/rules";
    let rule = json!({"action": "allow", "sources": ["10.0.0.0/8"]});
    let added = server.json("POST", rules, rule.clone()).await;
    assert_eq!(added.status, 201, "{added:?}");
    let path = added.header("location");
    assert_eq!(server.get(&path).await.body["document"], rule);
    // The same rule is the same resource.
    assert_eq!(server.json("POST", rules, rule).await.status, 409);
    let all = json!([{"action": "deny", "sources": ["10.9.0.0/16"]}]);
    assert_eq!(server.json("PUT", rules, all).await.status, 200);
    assert_eq!(server.get(&path).await.status, 404);
    let whole = server.get("/v1/load-balancers/inner").await;
    assert_eq!(whole.body["document"]["tags"]["team"], "dns");
    assert_eq!(whole.body["document"]["listener"][0]["port"], 53);

    // In use: refused with the reason, and gone when nothing uses it.
    let refused = server
        .send("DELETE", "/v1/target-groups/dns", &[], "")
        .await
        .problem();
    assert_eq!(refused.kind, "urn:nlb:problem:invalid");
    assert_eq!(
        refused.faults[0].line(None),
        "load_balancer \"inner\".listener \"UDP/53\".target_group: value `\"dns\"` is not a target \
         group of this file; use \"web\", or add a [[target_group]] of that name"
    );
    for path in ["/v1/load-balancers/inner", "/v1/target-groups/dns"] {
        assert_eq!(server.send("DELETE", path, &[], "").await.status, 200);
    }
}

#[tokio::test]
async fn a_dry_run_answers_with_the_plan_and_changes_nothing() {
    let server = Server::start();
    let planned = server
        .send("DELETE", &format!("{FIRST}?dry_run=true"), &[], "")
        .await;
    assert_eq!(planned.status, 200);
    assert_eq!(planned.body["dry_run"], true);
    assert_eq!(planned.body["changes"][0]["action"], "remove");
    assert_eq!(server.get(FIRST).await.status, 200);
    assert_eq!(server.get("/v1/generation").await.body["generation"], 1);
}

#[tokio::test]
async fn the_whole_document_is_read_and_applied_in_json_and_in_toml() {
    let server = Server::start();
    server.json("PUT", SECOND, json!({})).await;
    let read = server.get("/v1/config").await;
    assert_eq!(read.body["node"]["hash_key"], "(not shown)");
    let mut document = read.body;
    document["target_group"][0]["port"] = json!(9090);
    let applied = server.json("PUT", "/v1/config", document).await;
    assert_eq!(applied.status, 200, "{applied:?}");
    assert_eq!(
        applied.body["discarded"],
        json!(["target-group/web/target/10.0.0.12:8080"])
    );
    let toml = [("accept", "application/toml")];
    let text = server.send("GET", "/v1/config", &toml, "").await.body;
    let text = text.as_str().unwrap();
    assert!(text.contains("port = 9090"), "{text}");
    let sent = [("content-type", "application/toml")];
    let bad = text.replace("port = 9090", "port = 0");
    let problem = server
        .send("PUT", "/v1/config", &sent, &bad)
        .await
        .problem();
    let line = bad.lines().position(|line| line == "port = 0").unwrap() + 1;
    assert_eq!(problem.faults[0].line, Some(line));
    assert_eq!(
        server.send("PUT", "/v1/config", &sent, text).await.status,
        200
    );
}

#[tokio::test]
async fn an_answer_waits_for_the_target_to_be_healthy() {
    let server = Server::start();
    let waiting = format!("{SECOND}?wait=healthy&timeout_seconds=0");
    let late = server.json("PUT", &waiting, json!({})).await.problem();
    assert_eq!(late.status, 504);
    assert!(
        late.detail
            .contains("is initial (Elb.InitialHealthChecking)"),
        "{late:?}"
    );
    // The change is kept all the same.
    assert_eq!(server.get(SECOND).await.status, 200);
    let waiting = format!("{SECOND}?wait=healthy&timeout_seconds=60");
    assert_eq!(server.json("PUT", &waiting, json!({})).await.status, 200);
    let health = server.get("/v1/target-groups/web/health").await;
    assert_eq!(health.body["targets"][0]["state"], "healthy");
}

#[tokio::test]
async fn the_description_is_served() {
    let server = Server::start();
    let description = server.get("/v1/openapi.json").await.body;
    assert_eq!(description["openapi"], "3.1.0");
    let paths = description["paths"].as_object().unwrap();
    let operations: usize = paths
        .values()
        .map(|path| path.as_object().unwrap().len())
        .sum();
    assert_eq!(operations, ROUTES.len());
}
