//! The API over a real socket, with a daemon that has no packets to think of: it keeps the document
//! and counts generations.

use serde_json::{Value, json};

use super::{problem::Problem, *};
use crate::{
    access::{
        Effect, Policy, Statement,
        audit::{self, AuditLog},
        pattern::Pattern,
    },
    client::{self, Call as ClientCall, ClientError},
    daemon::{DaemonError, Reading, Written},
    desk::Desk,
    status::{GroupHealth, TargetHealth},
};

const FILE: &str = include_str!("../../tests/small.toml");

/// A daemon without a data plane.
struct Server {
    home: tempfile::TempDir,
}

/// An answer as it came over the wire.
#[derive(Debug)]
struct Got {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Server {
    fn start() -> Self {
        Self::start_behind(Policy {
            owners: vec![rustix::process::geteuid().as_raw()],
            ..Policy::default()
        })
    }

    fn start_behind(policy: Policy) -> Self {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().display().to_string();
        let file = home.path().join("nlb.toml");
        fs::write(&file, FILE.replace("STATE", &format!("{folder}/state"))).unwrap();
        let (mut desk, ..) = Desk::open(&file).unwrap();
        let listener = UnixListener::bind(home.path().join("nlb.sock")).unwrap();
        let (commands, mut received) = mpsc::channel(4);
        let log = home.path().join("audit.log");
        let guard = Guard {
            policy: tokio::sync::watch::Sender::new(Arc::new(policy)).subscribe(),
            generation: Arc::default(),
            audit: Some(Arc::new(std::sync::Mutex::new(
                AuditLog::open(&log).unwrap(),
            ))),
            from: "the test".into(),
        };
        tokio::spawn(serve(listener, commands, guard));
        tokio::spawn(async move {
            let mut generation = 1;
            // A target is healthy at the third look.
            let mut looks = 0;
            while let Some(command) = received.recv().await {
                match command {
                    Command::Read(answer) => drop(answer.send(Reading {
                        generation,
                        is_live: true,
                        view: desk.view(),
                    })),
                    Command::Health(answer) => {
                        looks += 1;
                        drop(answer.send(health(if looks < 3 { "initial" } else { "healthy" })));
                    }
                    Command::Change(request, answer) => {
                        drop(answer.send(change(&mut desk, &request, &mut generation)));
                    }
                    Command::Reload(answer) => {
                        let request = crate::daemon::Request::RELOAD;
                        drop(answer.send(change(&mut desk, &request, &mut generation)));
                    }
                    Command::KillFlows(filter, answer) => {
                        drop(answer.send(filter.or_all().map(|()| 3)));
                    }
                    Command::Status(answer) => drop(answer),
                }
            }
        });
        Self { home }
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Got {
        use http_body_util::{BodyExt as _, Full};
        let stream = UnixStream::connect(self.home.path().join("nlb.sock"))
            .await
            .unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        let driver = tokio::spawn(connection);
        let mut request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "nlb");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(Bytes::from(body.to_owned())))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        driver.abort();
        let text = String::from_utf8(body.to_vec()).unwrap();
        Got {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
        }
    }

    async fn json(&self, method: &str, path: &str, body: Value) -> Got {
        self.send(method, path, &[], &body.to_string()).await
    }

    async fn get(&self, path: &str) -> Got {
        self.send("GET", path, &[], "").await
    }
}

impl Got {
    fn header(&self, name: &str) -> String {
        let value = self.headers.get(name).map(|value| value.to_str().unwrap());
        value.unwrap_or_default().to_owned()
    }

    fn problem(self) -> Problem {
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem: Problem = serde_json::from_value(self.body).unwrap();
        assert_eq!(problem.status, self.status);
        problem
    }
}

fn health(state: &str) -> Vec<GroupHealth> {
    vec![GroupHealth {
        target_group: "web".to_owned(),
        fail_open: false,
        available: true,
        targets: vec![TargetHealth {
            target: "10.0.0.12:8080".to_owned(),
            weight: 1,
            effective_weight: 1.0,
            state: state.to_owned(),
            reason: Some("Elb.InitialHealthChecking".to_owned()),
            description: None,
            last_failure: None,
        }],
    }]
}

fn change(
    desk: &mut Desk,
    request: &crate::daemon::Request,
    generation: &mut u64,
) -> Result<Written, DaemonError> {
    let proposal = desk.propose(&request.intent, &request.condition)?;
    let mut written = Written::of(&proposal);
    written.dry_run = request.dry_run;
    if !request.dry_run {
        let id = proposal.id.clone();
        desk.keep(&proposal).map_err(crate::desk::Refused::Store)?;
        desk.adopt(proposal);
        *generation += 1;
        written.live = true;
        written.etag = desk.view().tag(id.as_ref());
    }
    written.generation = *generation;
    Ok(written)
}

const TARGETS: &str = "/v1/target-groups/web/targets";
const FIRST: &str = "/v1/target-groups/web/targets/10.0.0.11:8080";
const SECOND: &str = "/v1/target-groups/web/targets/10.0.0.12:8080";

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
async fn a_change_of_what_was_read_is_made_only_while_it_is_as_it_was() {
    let server = Server::start();
    let tag = server.get(FIRST).await.header("etag");
    let patch = |weight: u64| json!({ "weight": weight }).to_string();
    let matching = [("if-match", tag.as_str())];
    let first = server.send("PATCH", FIRST, &matching, &patch(2)).await;
    assert_eq!(first.status, 200, "{first:?}");
    let second = server.send("PATCH", FIRST, &matching, &patch(3)).await;
    assert_eq!(second.problem().status, 412);
    assert_eq!(server.get(FIRST).await.body["document"]["weight"], 2);
    // Only if it is not there yet.
    let absent = [("if-none-match", "*")];
    assert_eq!(server.send("PUT", FIRST, &absent, "{}").await.status, 409);
    assert_eq!(server.send("PUT", SECOND, &absent, "{}").await.status, 200);
    // Whoever has it already does not get it again.
    let known = first.header("etag");
    let same = server
        .send("GET", FIRST, &[("if-none-match", &known)], "")
        .await;
    assert_eq!((same.status, same.body), (304, json!("")));
}

#[tokio::test]
async fn a_request_that_is_sent_again_is_done_once() {
    let server = Server::start();
    let key = [("idempotency-key", "one")];
    let body = json!({"address": "10.0.0.12"}).to_string();
    let first = server.send("POST", TARGETS, &key, &body).await;
    let again = server.send("POST", TARGETS, &key, &body).await;
    assert_eq!((first.status, again.status), (201, 201), "{again:?}");
    assert_eq!(first.body, again.body);
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!(again.header("idempotency-replayed"), "true");
    // Without the key, it is another request.
    assert_eq!(server.send("POST", TARGETS, &[], &body).await.status, 409);
    // Another request under the key is a mistake.
    let other = json!({"address": "10.0.0.13"}).to_string();
    let refused = server.send("POST", TARGETS, &key, &other).await.problem();
    assert_eq!(
        (refused.status, refused.kind.as_str()),
        (422, "urn:nlb:problem:key-reused")
    );
    // Two at once are one, too.
    let key = [("idempotency-key", "two")];
    let (one, two) = tokio::join!(
        server.send("POST", TARGETS, &key, &other),
        server.send("POST", TARGETS, &key, &other)
    );
    assert_eq!((one.status, two.status), (201, 201));
    assert_eq!(one.body, two.body);
}

#[tokio::test]
async fn a_caller_that_hung_up_gets_its_answer_when_it_asks_again() {
    let server = Server::start();
    let path = format!("{TARGETS}?wait=healthy");
    let key = [("idempotency-key", "lost")];
    let body = json!({"address": "10.0.0.12"}).to_string();
    {
        let first = std::pin::pin!(server.send("POST", &path, &key, &body));
        let made = std::pin::pin!(async { while server.get(SECOND).await.status != 200 {} });
        // It is dropped, and with it the connection, once the change is made.
        futures_util::future::select(first, made).await;
    }
    let again = server.send("POST", &path, &key, &body).await;
    assert_eq!(again.status, 201, "{again:?}");
}

#[test]
fn only_so_many_idempotency_keys_are_remembered() {
    let mut keys = Keys::default();
    let who = Caller {
        uid: Some(0),
        gid: None,
        pid: None,
    };
    let first = keys.place(who, "0");
    assert!(Arc::ptr_eq(&first, &keys.place(who, "0")));
    for number in 1..=idempotency::REMEMBERED {
        keys.place(who, &number.to_string());
    }
    assert!(
        !Arc::ptr_eq(&first, &keys.place(who, "0")),
        "the oldest is forgotten"
    );
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
    let socket = server.home.path().join("nlb.sock");
    let call = ClientCall::new(Method::PATCH, FIRST).with_json(&json!({"weight": -1}));
    let error = client::send::<Written>(&socket, call).await.unwrap_err();
    assert!(matches!(error, ClientError::Refused(_)));
    assert_eq!(
        error.to_string(),
        "target_group \"web\".target \"10.0.0.11\".weight: value `-1` is out of range; write a \
         whole number from 0 to 999\n1 fault; nothing has changed"
    );
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
