//! The API over a real socket, with a daemon that has no packets to think of: it keeps the document
//! and counts generations.

mod changing;
mod listening;
mod network;
mod refusing;
mod repeating;

use std::sync::atomic::AtomicU64;

use axum::{body::Bytes, http::HeaderMap};
use serde_json::Value;

use super::{problem::Problem, *};
use crate::{
    access::{Policy, audit::AuditLog},
    daemon::{DaemonError, Reading, Written},
    desk::Desk,
    status::{GroupHealth, TargetHealth},
};

const FILE: &str = include_str!("../../../tests/small.toml");

/// A daemon without a data plane.
struct Server {
    home: tempfile::TempDir,
    api: Api,
    tasks: tokio::task::JoinSet<()>,
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
        Self::start_behind(own_policy())
    }

    fn start_behind(policy: Policy) -> Self {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().display().to_string();
        let file = home.path().join("nlb.toml");
        fs::write(&file, FILE.replace("STATE", &format!("{folder}/state"))).unwrap();
        Self::start_in(home, policy)
    }

    /// Another daemon after this one, with what that one left.
    async fn restart(self) -> Self {
        let Self {
            home,
            api,
            mut tasks,
        } = self;
        drop(api);
        tasks.shutdown().await;
        fs::remove_file(home.path().join("nlb.sock")).unwrap();
        Self::start_in(home, own_policy())
    }

    fn start_in(home: tempfile::TempDir, policy: Policy) -> Self {
        let listener = UnixListener::bind(home.path().join("nlb.sock")).unwrap();
        let (commands, received) = mpsc::channel(4);
        let log = home.path().join("audit.log");
        let guard = Guard {
            policy: watch::Sender::new(Arc::new(policy)).subscribe(),
            generation: Arc::new(AtomicU64::new(1)),
            audit: Some(Arc::new(Mutex::new(AuditLog::open(&log).unwrap()))),
            from: "the test".into(),
            events: crate::events::Events::default(),
        };
        let answers = KeyLog::open(&home.path().join("state")).unwrap();
        let api = Api::new(commands, guard, answers);
        let mut tasks = tokio::task::JoinSet::new();
        let served = api.clone().serve(listener);
        tasks.spawn(async { served.await.unwrap() });
        let (desk, ..) = Desk::open(&home.path().join("nlb.toml")).unwrap();
        tasks.spawn(daemon(desk, received));
        Self { home, api, tasks }
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

/// What the daemon's loop does with commands.
async fn daemon(mut desk: Desk, mut received: mpsc::Receiver<Command>) {
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
            Command::Metrics(answer) => drop(answer),
        }
    }
}

/// The user who runs the tests may do everything.
fn own_policy() -> Policy {
    Policy {
        owners: vec![rustix::process::geteuid().as_raw()],
        ..Policy::default()
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
