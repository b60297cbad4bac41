//! The way of every request: let through or refused, read within its limits, done once, written down.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::{Query, Request},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    idempotency::{self, Answer, Fingerprint, Keys, Known},
    problem::Problem,
    resources,
    routes::Route,
    shapes::Asked,
};
use crate::{
    access::{
        audit::Outcome,
        guard::{Guard, Peer},
    },
    daemon::Command,
    store::keys::KeyOutcome,
};

/// The largest body of a request, in bytes: a document with some hundred thousand targets.
const LARGEST_BODY: usize = 64 << 20;
/// The same over the network: a document with a hundred thousand targets.
const LARGEST_REMOTE_BODY: usize = 16 << 20;
/// How long a body may take to come.
const BODY: Duration = Duration::from_mins(1);
/// The header of that name.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// What every request is answered with.
#[derive(Clone)]
pub(super) struct App {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) guard: Guard,
    pub(super) keys: Arc<Mutex<Keys>>,
}

/// The names in a path, by what the route calls them.
pub(super) type Names = BTreeMap<String, String>;

/// One request on its way.
pub(super) struct Asking {
    pub(super) app: App,
    pub(super) route: &'static Route,
    pub(super) names: Names,
    pub(super) asked: Asked,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Lets a call through or refuses it; what changes something is written down either way.
pub(super) async fn answer(
    app: &App,
    route: &'static Route,
    peer: &Peer,
    names: Names,
    request: Request,
) -> Response {
    let reading = match app.ask(Command::Read).await {
        Ok(reading) => reading,
        Err(problem) => return problem.into_response(),
    };
    let (resource, tags) = resources::subject(route, &names, &reading.view);
    let (action, guard) = (route.action, &app.guard);
    if let Err(reason) = guard.admit(peer, action, &resource, &tags) {
        let title = "This caller may not do that";
        return Problem::new(StatusCode::FORBIDDEN, "forbidden", title, reason).into_response();
    }
    let before = guard.generation();
    let response = carry_out(app, route, peer, names, request).await;
    if route.is_write() {
        let status = response.status();
        let (outcome, reason) = if status.is_success() {
            (Outcome::Done, None)
        } else {
            (Outcome::Failed, Some(format!("answered with {status}")))
        };
        guard.record(peer, action, &resource, before, outcome, reason);
    }
    response
}

/// Does what a caller may have done.
async fn carry_out(
    app: &App,
    route: &'static Route,
    peer: &Peer,
    names: Names,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let asked = match Query::<Asked>::try_from_uri(&parts.uri) {
        Ok(Query(asked)) => asked,
        Err(error) => return Problem::bad_request(error.body_text()).into_response(),
    };
    let body = match read(body, peer).await {
        Ok(body) => body,
        Err(problem) => return problem.into_response(),
    };
    let head = format!("{} {}", parts.method, parts.uri);
    let asking = Asking {
        app: app.clone(),
        route,
        names,
        asked,
        headers: parts.headers,
        body,
    };
    let key = (asking.headers.get(IDEMPOTENCY_KEY)).filter(|_| route.is_write());
    let Some(key) = key else {
        return asking.answer().await;
    };
    let key = match key.to_str() {
        Ok(key) if (1..=idempotency::LONGEST_KEY).contains(&key.len()) => key.to_owned(),
        _ => {
            return Problem::bad_request(format!(
                "Idempotency-Key must be 1 to {} printable characters",
                idempotency::LONGEST_KEY
            ))
            .into_response();
        }
    };
    // A caller that hangs up must find the answer when it asks again.
    match tokio::spawn(once(asking, peer.owner(), key, head)).await {
        Ok(response) => response,
        Err(_) => Problem::ending().into_response(),
    }
}

/// Reads a body, which must not be too large or take too long.
async fn read(body: Body, peer: &Peer) -> Result<Bytes, Problem> {
    let largest = if peer.remote.is_some() {
        LARGEST_REMOTE_BODY
    } else {
        LARGEST_BODY
    };
    let bytes = timeout(BODY, axum::body::to_bytes(body, largest)).await;
    let late = |_| {
        let title = "The request took too long";
        let detail = format!("the body did not come within {} s", BODY.as_secs());
        Problem::new(StatusCode::REQUEST_TIMEOUT, "slow", title, detail)
    };
    bytes.map_err(late)?.map_err(|error| {
        Problem::bad_request(format!(
            "the body cannot be read: {error} ({largest} bytes at most)"
        ))
    })
}

/// Answers as the first request with this key was answered.
async fn once(asking: Asking, owner: String, key: String, head: String) -> Response {
    let keys = Arc::clone(&asking.app.keys);
    let place = unpoisoned(&keys).place(&owner, &key);
    let fingerprint = idempotency::fingerprint(&head, &asking.body);
    let mut known = place.lock().await;
    if let Some(known) = &*known {
        return again(known, fingerprint, &key);
    }
    let begun = unpoisoned(&keys).keep(&owner, &key, fingerprint, KeyOutcome::Begun);
    if let Err(error) = begun {
        return Problem::not_kept(error.to_string()).into_response();
    }
    let (parts, body) = asking.answer().await.into_parts();
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
        return Problem::ending().into_response();
    };
    let answer = Answer {
        status: parts.status,
        headers: parts.headers.clone(),
        body: body.clone(),
    };
    // What failed for a reason of the daemon's own may work the next time; what is late was done.
    let is_final = !parts.status.is_server_error() || parts.status == StatusCode::GATEWAY_TIMEOUT;
    let outcome = if is_final {
        answer.kept()
    } else {
        KeyOutcome::Open
    };
    if let Err(error) = unpoisoned(&keys).keep(&owner, &key, fingerprint, outcome) {
        tracing::warn!("an answer is not remembered over a restart: {error}");
    }
    *known = is_final.then_some(Known {
        fingerprint,
        answer: Some(answer),
    });
    Response::from_parts(parts, Body::from(body))
}

/// Answers a request whose key was used before.
fn again(known: &Known, fingerprint: Fingerprint, key: &str) -> Response {
    if known.fingerprint != fingerprint {
        let title = "The key was used for another request";
        let detail = format!(
            "Idempotency-Key `{key}` was used for another request; take a new key for each"
        );
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        return Problem::new(status, "key-reused", title, detail).into_response();
    }
    let Some(answer) = &known.answer else {
        let title = "Nobody knows how this request ended";
        let detail = format!(
            "the daemon ended before it had answered the request with Idempotency-Key `{key}`, or \
             its answer was too long to be kept; it is not done again: read what it was to change, \
             and take a new key if it has not"
        );
        return Problem::new(StatusCode::CONFLICT, "key-unfinished", title, detail).into_response();
    };
    let mut response = Response::new(Body::from(answer.body.clone()));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers.clone();
    let replayed = HeaderName::from_static("idempotency-replayed");
    let yes = HeaderValue::from_static("true");
    response.headers_mut().insert(replayed, yes);
    response
}

fn unpoisoned(keys: &Mutex<Keys>) -> MutexGuard<'_, Keys> {
    keys.lock().unwrap_or_else(PoisonError::into_inner)
}

impl App {
    pub(super) async fn ask<A>(
        &self,
        command: impl FnOnce(oneshot::Sender<A>) -> Command,
    ) -> Result<A, Problem> {
        let (sender, answer) = oneshot::channel();
        let sent = self.commands.send(command(sender)).await;
        sent.map_err(|_| Problem::ending())?;
        answer.await.map_err(|_| Problem::ending())
    }
}
