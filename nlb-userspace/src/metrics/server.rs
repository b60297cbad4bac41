//! Where metrics are read: HTTP on a Unix socket or an address of the operator's choice.
//!
//! Anybody may ask there, so it can do nothing but answer, and nobody can keep the daemon busy: a
//! few callers at a time, each for some seconds, and one look at the maps in a second at most,
//! whoever asks meanwhile gets the same text.

use std::{
    convert::Infallible,
    fs::{self, Permissions},
    io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{Mutex, Semaphore, mpsc, oneshot},
    time::{Instant, sleep, timeout},
};

use super::{render, text};
use crate::{config::Endpoint, daemon::Command};

/// Callers at a time; others wait.
const CALLERS: usize = 8;
/// How long a caller may take for one request.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a text is given out.
const FRESH: Duration = Duration::from_secs(1);
/// After a failed accept, such as for want of descriptors.
const AGAIN: Duration = Duration::from_millis(100);

/// Why metrics cannot be read anywhere.
#[derive(Debug, thiserror::Error)]
#[error("node.metrics: cannot listen on `{at}`: {source}; name another place, or leave it out")]
pub struct MetricsError {
    at: String,
    source: io::Error,
}

/// A place where metrics are read.
#[derive(Debug)]
pub enum Listener {
    /// A Unix socket.
    Socket(UnixListener),
    /// An address.
    Address(TcpListener),
}

/// Listens. A socket that an earlier daemon left behind is replaced.
pub async fn bind(endpoint: &Endpoint) -> Result<Listener, MetricsError> {
    let (at, bound) = match endpoint {
        Endpoint::Socket(path) => (path.display().to_string(), bind_socket(path)),
        Endpoint::Address(address) => {
            let bound = TcpListener::bind(address).await;
            (address.to_string(), bound.map(Listener::Address))
        }
    };
    bound.map_err(|source| MetricsError { at, source })
}

fn bind_socket(path: &Path) -> io::Result<Listener> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    // Whoever may enter the folder may read.
    fs::set_permissions(path, Permissions::from_mode(0o666))?;
    Ok(Listener::Socket(listener))
}

/// Answers until the daemon ends.
pub async fn serve(listener: Listener, commands: mpsc::Sender<Command>) {
    let callers = Arc::new(Semaphore::new(CALLERS));
    let source = Arc::new(Source {
        commands,
        latest: Mutex::new(None),
    });
    loop {
        let Ok(permit) = Arc::clone(&callers).acquire_owned().await else {
            return;
        };
        let accepted = match &listener {
            Listener::Socket(listener) => (listener.accept().await)
                .map(|(stream, _)| tokio::spawn(converse(stream, Arc::clone(&source), permit))),
            Listener::Address(listener) => (listener.accept().await)
                .map(|(stream, _)| tokio::spawn(converse(stream, Arc::clone(&source), permit))),
        };
        if accepted.is_err() {
            sleep(AGAIN).await;
        }
    }
}

/// One request and its answer; a caller that breaks off is its own fault. The permit is held until
/// then.
async fn converse<P: Send>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    source: Arc<Source>,
    _permit: P,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let source = Arc::clone(&source);
        async move { Ok::<_, Infallible>(source.answer(&request).await) }
    });
    let mut http = http1::Builder::new();
    let conversation = http
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let _broken_off = timeout(PATIENCE, conversation).await;
}

/// Where texts come from.
struct Source {
    commands: mpsc::Sender<Command>,
    latest: Mutex<Option<(Instant, Bytes)>>,
}

impl Source {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let plain = |status: StatusCode, text: &'static str| {
            let mut response = Response::new(Full::from(text));
            *response.status_mut() = status;
            response
        };
        if request.uri().path() != "/metrics" {
            return plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n");
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "metrics are read only\n");
            let methods = hyper::header::HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(ALLOW, methods);
            return response;
        }
        let Some(text) = self.text().await else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "the daemon is ending\n");
        };
        let mut response = Response::new(Full::new(text));
        let kind = hyper::header::HeaderValue::from_static(text::CONTENT_TYPE);
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }

    /// The text, of this second or of now; nothing if the daemon is ending.
    async fn text(&self) -> Option<Bytes> {
        // Callers that come together wait for one look.
        let mut latest = self.latest.lock().await;
        if let Some((at, text)) = &*latest
            && at.elapsed() < FRESH
        {
            return Some(text.clone());
        }
        let (sender, answer) = oneshot::channel();
        self.commands.send(Command::Metrics(sender)).await.ok()?;
        let snapshot = answer.await.ok()?;
        let text = Bytes::from(render(&snapshot));
        *latest = Some((Instant::now(), text.clone()));
        Some(text)
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
