//! The daemon's end of the control socket: HTTP and JSON over a Unix socket, and over TCP with mutual
//! TLS if the configuration says where.
//!
//! ```text
//!  request ─► route (routes) ─► who, what, of what (caller, access) ─► known already? (idempotency)
//!          ─► command to the daemon's loop (resources) ─► live yet? (wait) ─► answer, or problem
//! ```
//!
//! [`routes`] is the one table of what there is; [`openapi`] describes it. [`network`] is the listener
//! over TCP, [`tls`] what it shows and asks for, [`request`] the way of every request.

mod caller;
mod idempotency;
mod listen;
pub mod network;
pub mod openapi;
pub mod problem;
mod request;
mod resources;
pub mod routes;
pub mod shapes;
pub mod tls;
mod wait;

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::{ConnectInfo, Request, State},
    http::{Method, StatusCode},
    routing::{MethodFilter, on},
};
use rustix::fs::{FlockOperation, flock};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{mpsc, watch},
};

use self::{
    idempotency::Keys,
    network::Network,
    problem::Problem,
    request::{App, Names, answer},
    routes::{ROUTES, Verb},
    tls::Terms,
};
use crate::{
    access::guard::{Guard, Peer},
    daemon::Command,
    store::keys::KeyLog,
};

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
///
/// One daemon at a time may look: or two find the same old socket, and the second one removes what the
/// first has just bound, which then listens where nobody can reach it.
pub async fn bind(path: &Path) -> Result<UnixListener, ApiError> {
    let error = |action| {
        move |source| ApiError::Io {
            action,
            path: path.to_owned(),
            source,
        }
    };
    let folder = path.parent().unwrap_or(Path::new("/"));
    let folder = fs::File::open(folder).map_err(error("open the folder of"))?;
    flock(&folder, FlockOperation::LockExclusive)
        .map_err(|errno| error("lock the folder of")(errno.into()))?;
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

/// The API, wherever it is asked.
#[derive(Debug, Clone)]
pub struct Api(Router);

impl Api {
    /// Asks the daemon by these commands for whom the guard lets through, and remembers answers.
    pub fn new(commands: mpsc::Sender<Command>, guard: Guard, answers: KeyLog) -> Self {
        Self(router(App {
            commands,
            guard,
            keys: Arc::new(Mutex::new(Keys::new(answers))),
        }))
    }

    /// Answers at the control socket until the daemon ends.
    pub async fn serve(self, listener: UnixListener) -> io::Result<()> {
        let service = self.0.into_make_service_with_connect_info::<Peer>();
        axum::serve(listener, service).await
    }

    /// Answers over TCP, from a thread of its own.
    pub fn serve_network(
        self,
        network: Network,
        terms: watch::Receiver<Option<Terms>>,
    ) -> io::Result<()> {
        network.serve(terms, self.0)
    }
}

fn router(app: App) -> Router {
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
                            ConnectInfo(peer): ConnectInfo<Peer>,
                            axum::extract::Path(names): axum::extract::Path<Names>,
                            request: Request| async move {
            answer(&app, route, &peer, names, request).await
        };
        router = router.route(route.path, on(filter, handler));
    }
    router
        .fallback(async |method: Method, uri: axum::http::Uri| {
            Problem::missing(format!(
                "there is no {method} {uri}; GET /v1/openapi.json lists what there is"
            ))
        })
        .method_not_allowed_fallback(async |method: Method, uri: axum::http::Uri| {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "The method is not allowed",
                format!("{uri} does not take {method}; GET /v1/openapi.json lists what there is"),
            )
        })
        .with_state(app)
}

#[cfg(test)]
mod tests;
