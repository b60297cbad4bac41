//! The daemon's end of the control socket: HTTP and JSON over a Unix socket.
//!
//! ```text
//!  request ─► route (routes) ─► who, what, of what (caller, access) ─► known already? (idempotency)
//!          ─► command to the daemon's loop (resources) ─► live yet? (wait) ─► answer, or problem
//! ```
//!
//! [`routes`] is the one table of what there is; [`openapi`] describes it.

pub mod caller;
mod idempotency;
mod listen;
pub mod openapi;
pub mod problem;
mod resources;
pub mod routes;
pub mod shapes;
mod wait;

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, Query, Request, State},
    http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{MethodFilter, on},
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
};

use self::{
    caller::Caller,
    idempotency::{Answer, Keys},
    problem::Problem,
    routes::{Does, ROUTES, Route, Verb},
    shapes::Asked,
};
use crate::{
    access::{audit::Outcome, guard::Guard},
    daemon::Command,
};

/// The largest body of a request, in bytes: a document with some hundred thousand targets.
const LARGEST_BODY: usize = 64 << 20;
/// The header of that name.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// A file could not be used.
    #[error("node.socket: cannot {action} `{path}`: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another daemon answers there.
    #[error("node.socket: another nlb answers on `{0}`; stop it, or set another socket and bpffs")]
    Taken(PathBuf),
    /// Something that is not a socket stands there.
    #[error("node.socket: `{0}` exists and is not a socket")]
    NotASocket(PathBuf),
}

/// Binds the control socket. One that nobody listens on any more is replaced.
pub async fn bind(path: &Path) -> Result<UnixListener, ApiError> {
    let error = |action| {
        move |source| ApiError::Io {
            action,
            path: path.to_owned(),
            source,
        }
    };
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ApiError::NotASocket(path.to_owned()));
        }
        Ok(_) => {
            if UnixStream::connect(path).await.is_ok() {
                return Err(ApiError::Taken(path.to_owned()));
            }
            fs::remove_file(path).map_err(error("remove the stale socket"))?;
        }
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(error("look at")(source)),
    }
    let listener = UnixListener::bind(path).map_err(error("listen on"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .map_err(error("set the permissions of"))?;
    Ok(listener)
}

/// Answers until the daemon ends, whom the guard lets through.
pub async fn serve(
    listener: UnixListener,
    commands: mpsc::Sender<Command>,
    guard: Guard,
) -> io::Result<()> {
    let service = router(commands, guard).into_make_service_with_connect_info::<Caller>();
    axum::serve(listener, service).await
}

/// What every request is answered with.
#[derive(Clone)]
struct App {
    commands: mpsc::Sender<Command>,
    guard: Guard,
    keys: Arc<std::sync::Mutex<Keys>>,
}

fn router(commands: mpsc::Sender<Command>, guard: Guard) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let filter = match route.verb {
            Verb::Get => MethodFilter::GET,
            Verb::Post => MethodFilter::POST,
            Verb::Put => MethodFilter::PUT,
            Verb::Patch => MethodFilter::PATCH,
            Verb::Delete => MethodFilter::DELETE,
        };
        let handler = move |State(app): State<App>,
                            ConnectInfo(caller): ConnectInfo<Caller>,
                            axum::extract::Path(names): axum::extract::Path<Names>,
                            request: Request| async move {
            answer(&app, route, caller, names, request).await
        };
        router = router.route(route.path, on(filter, handler));
    }
    router
        .fallback(async |method: Method, uri: Uri| {
            Problem::missing(format!(
                "there is no {method} {uri}; GET /v1/openapi.json lists what there is"
            ))
        })
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "The method is not allowed",
                format!("{uri} does not take {method}; GET /v1/openapi.json lists what there is"),
            )
        })
        .with_state(App {
            commands,
            guard,
            keys: Arc::default(),
        })
}

/// The names in a path, by what the route calls them.
type Names = BTreeMap<String, String>;

/// One request on its way.
struct Asking {
    app: App,
    route: &'static Route,
    names: Names,
    asked: Asked,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

/// Lets a call through or refuses it; what changes something is written down either way.
async fn answer(
    app: &App,
    route: &'static Route,
    caller: Caller,
    names: Names,
    request: Request,
) -> Response {
    let reading = match app.ask(Command::Read).await {
        Ok(reading) => reading,
        Err(problem) => return problem.into_response(),
    };
    let (resource, tags) = resources::subject(route, &names, &reading.view);
    let (action, guard) = (route.action, &app.guard);
    if let Err(reason) = guard.admit(caller.into(), action, &resource, &tags) {
        let title = "This caller may not do that";
        return Problem::new(StatusCode::FORBIDDEN, "forbidden", title, reason).into_response();
    }
    let before = guard.generation();
    let response = carry_out(app, route, caller, names, request).await;
    if route.is_write() {
        let status = response.status();
        let (outcome, reason) = if status.is_success() {
            (Outcome::Done, None)
        } else {
            (Outcome::Failed, Some(format!("answered with {status}")))
        };
        guard.record(caller.into(), action, &resource, before, outcome, reason);
    }
    response
}

/// Does what a caller may have done.
async fn carry_out(
    app: &App,
    route: &'static Route,
    caller: Caller,
    names: Names,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let asked = match route.does {
        // In words of its own.
        Does::Events => Ok(Query::default()),
        _ => Query::<Asked>::try_from_uri(&parts.uri),
    };
    let asked = match asked {
        Ok(Query(asked)) => asked,
        Err(error) => return Problem::bad_request(error.body_text()).into_response(),
    };
    let body = match axum::body::to_bytes(body, LARGEST_BODY).await {
        Ok(body) => body,
        Err(error) => {
            return Problem::bad_request(format!("the body cannot be read: {error}"))
                .into_response();
        }
    };
    let head = format!("{} {}", parts.method, parts.uri);
    let asking = Asking {
        app: app.clone(),
        route,
        names,
        asked,
        uri: parts.uri,
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
    match tokio::spawn(once(asking, caller, key, head)).await {
        Ok(response) => response,
        Err(_) => Problem::ending().into_response(),
    }
}

/// Answers as the first request with this key was answered.
async fn once(asking: Asking, caller: Caller, key: String, head: String) -> Response {
    let place = {
        let keys = &asking.app.keys;
        let mut keys = keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.place(caller, &key)
    };
    let fingerprint = idempotency::fingerprint(&head, &asking.body);
    let mut known = place.lock().await;
    if let Some((of, answer)) = &*known {
        if *of != fingerprint {
            let title = "The key was used for another request";
            let detail = format!(
                "Idempotency-Key `{key}` was used for another request; take a new key for each"
            );
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            return Problem::new(status, "key-reused", title, detail).into_response();
        }
        let mut response = Response::new(Body::from(answer.body.clone()));
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers.clone();
        let replayed = HeaderName::from_static("idempotency-replayed");
        response
            .headers_mut()
            .insert(replayed, header::HeaderValue::from_static("true"));
        return response;
    }
    let (parts, body) = asking.answer().await.into_parts();
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
        return Problem::ending().into_response();
    };
    // What failed for a reason of the daemon's own may work the next time; what is late was done.
    if !parts.status.is_server_error() || parts.status == StatusCode::GATEWAY_TIMEOUT {
        let answer = Answer {
            status: parts.status,
            headers: parts.headers.clone(),
            body: body.clone(),
        };
        *known = Some((fingerprint, answer));
    }
    Response::from_parts(parts, Body::from(body))
}

impl App {
    async fn ask<A>(
        &self,
        command: impl FnOnce(oneshot::Sender<A>) -> Command,
    ) -> Result<A, Problem> {
        let (sender, answer) = oneshot::channel();
        let sent = self.commands.send(command(sender)).await;
        sent.map_err(|_| Problem::ending())?;
        answer.await.map_err(|_| Problem::ending())
    }
}

#[cfg(test)]
#[path = "api/tests.rs"]
mod tests;
