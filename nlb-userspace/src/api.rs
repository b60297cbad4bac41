//! The daemon's end of the control socket: HTTP and JSON over a Unix socket, for its owner only.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
};

use crate::{
    daemon::{Command, DaemonError},
    desk::Refused,
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

/// The answer to a request that was refused.
#[derive(Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// What is wrong, for a person.
    pub error: String,
    /// The faults of a configuration, each for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults: Option<serde_json::Value>,
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

/// Answers until the daemon ends.
pub async fn serve(listener: UnixListener, commands: mpsc::Sender<Command>) -> io::Result<()> {
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/reload", post(reload))
        .with_state(commands);
    axum::serve(listener, router).await
}

async fn status(State(commands): State<mpsc::Sender<Command>>) -> Response {
    match ask(&commands, Command::Status).await {
        Some(status) => Json(status).into_response(),
        None => ending(),
    }
}

async fn reload(State(commands): State<mpsc::Sender<Command>>) -> Response {
    match ask(&commands, Command::Reload).await {
        Some(Ok(reloaded)) => Json(reloaded).into_response(),
        Some(Err(error)) => {
            let faults = match &error {
                DaemonError::Refused(Refused::Config(faults)) => serde_json::to_value(faults).ok(),
                _ => None,
            };
            let refusal = Refusal {
                error: error.to_string(),
                faults,
            };
            (StatusCode::UNPROCESSABLE_ENTITY, Json(refusal)).into_response()
        }
        None => ending(),
    }
}

async fn ask<A>(
    commands: &mpsc::Sender<Command>,
    command: impl FnOnce(oneshot::Sender<A>) -> Command,
) -> Option<A> {
    let (sender, answer) = oneshot::channel();
    commands.send(command(sender)).await.ok()?;
    answer.await.ok()
}

fn ending() -> Response {
    let refusal = Refusal {
        error: "the daemon is ending".to_owned(),
        faults: None,
    };
    (StatusCode::SERVICE_UNAVAILABLE, Json(refusal)).into_response()
}
