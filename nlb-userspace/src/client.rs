//! The command line's end of the API: at the control socket, or over the network.

pub mod network;

use std::{error::Error, fmt, io, path::PathBuf};

use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, body::Bytes};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
};

use self::network::Network;
use crate::api::problem::Problem;

/// Where a daemon is asked.
#[derive(Debug, Clone)]
pub enum Endpoint {
    /// At its control socket, on this host.
    Socket(PathBuf),
    /// Over the network.
    Network(Box<Network>),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(out),
            Self::Network(network) => out.write_str(&network.authority()),
        }
    }
}

/// Why a daemon did not answer as hoped.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no nlb answers on `{path}`: {source}; is `nlb run` running, and is --socket right?")]
    Connect {
        /// The socket.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// Nobody listens there, or one of both ends does not trust the other.
    #[error(
        "no TLS session with an nlb on `{authority}`: {source}; are --api, --ca and --cert right, \
         and has that daemon a node.api.tcp?"
    )]
    Network {
        /// The host and port.
        authority: String,
        /// Why not.
        source: io::Error,
    },
    /// The conversation broke off.
    #[error("the daemon on `{at}` did not answer: {}", innermost(source))]
    Http {
        /// Where.
        at: String,
        /// Why not.
        source: hyper::Error,
    },
    /// The request could not be made.
    #[error("cannot make the request: {0}")]
    Request(#[from] hyper::http::Error),
    /// The answer is of another shape.
    #[error(
        "the daemon on `{at}` answers in another shape, it may be of another release: {source}"
    )]
    Shape {
        /// Where.
        at: String,
        /// What does not fit.
        source: serde_json::Error,
    },
    /// The daemon refused.
    #[error("{}", said(.0, None))]
    Refused(Box<Problem>),
}

/// What an error goes back to, where the outer ones say little.
fn innermost(error: &hyper::Error) -> String {
    let mut innermost: &dyn Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// What is wrong, for people: every fault on a line, and then the rest. `sent` is the name of the
/// file that was sent.
pub fn said(problem: &Problem, sent: Option<&str>) -> String {
    let mut text = String::new();
    for fault in &problem.faults {
        text += &fault.line(sent);
        text.push('\n');
    }
    text + &problem.detail
}

/// A request to a daemon.
#[derive(Debug, Clone)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// The path, with its query.
    pub path: String,
    /// The body, and what it is written in.
    pub body: Option<(&'static str, Bytes)>,
    /// Other headers.
    pub headers: Vec<(&'static str, String)>,
}

impl Call {
    /// A request without a body.
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            body: None,
            headers: Vec::new(),
        }
    }

    /// The same with a body in JSON.
    #[must_use]
    pub fn with_json(self, body: &serde_json::Value) -> Self {
        self.with_body("application/json", body.to_string())
    }

    /// The same with another header.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The same with any body.
    #[must_use]
    pub fn with_body(self, kind: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            body: Some((kind, body.into())),
            ..self
        }
    }
}

/// Sends a request without a body to a daemon and reads its answer.
pub async fn call<A: DeserializeOwned>(
    endpoint: &Endpoint,
    method: Method,
    path: &str,
) -> Result<A, ClientError> {
    send(endpoint, Call::new(method, path)).await
}

/// Sends a request to a daemon and reads its answer.
pub async fn send<A: DeserializeOwned>(endpoint: &Endpoint, call: Call) -> Result<A, ClientError> {
    let body = text(endpoint, call).await?;
    serde_json::from_slice(&body).map_err(|source| ClientError::Shape {
        at: endpoint.to_string(),
        source,
    })
}

/// The same, with the answer as it is.
pub async fn text(endpoint: &Endpoint, call: Call) -> Result<Bytes, ClientError> {
    let at = endpoint.to_string();
    match endpoint {
        Endpoint::Socket(path) => match UnixStream::connect(path).await {
            Ok(stream) => exchange(stream, "nlb", at, call).await,
            Err(source) => Err(ClientError::Connect { path: at, source }),
        },
        Endpoint::Network(network) => match network.connect().await {
            Ok(stream) => exchange(stream, &network.authority(), at, call).await,
            Err(source) => Err(ClientError::Network {
                authority: at,
                source,
            }),
        },
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    at: String,
    call: Call,
) -> Result<Bytes, ClientError> {
    let http = |source| ClientError::Http {
        at: at.clone(),
        source,
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(http)?;
    let driver = tokio::spawn(connection);
    let mut request = Request::builder()
        .method(call.method)
        .uri(call.path)
        .header(hyper::header::HOST, host);
    for (name, value) in call.headers {
        request = request.header(name, value);
    }
    let body = match call.body {
        Some((kind, body)) => {
            request = request.header(hyper::header::CONTENT_TYPE, kind);
            body
        }
        None => Bytes::new(),
    };
    let request = request.body(Full::new(body))?;
    let response = sender.send_request(request).await.map_err(http)?;
    let status = response.status();
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(http)?
        .to_bytes();
    driver.abort();
    if status.is_success() {
        return Ok(body);
    }
    match serde_json::from_slice(&body) {
        Ok(problem) => Err(ClientError::Refused(Box::new(problem))),
        Err(source) => Err(ClientError::Shape { at, source }),
    }
}
