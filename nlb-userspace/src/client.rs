//! The command line's end of the control socket.

use std::{
    io,
    path::{Path, PathBuf},
};

use http_body_util::{BodyExt as _, Empty};
use hyper::{Method, Request, StatusCode, body::Bytes};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::api::Refusal;

/// Why a daemon did not answer as hoped.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no nlb answers on `{path}`: {source}; is `nlb run` running, and is --socket right?")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The conversation broke off.
    #[error("the daemon on `{path}` did not answer: {source}")]
    Http {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: hyper::Error,
    },
    /// The request could not be made.
    #[error("cannot make the request: {0}")]
    Request(#[from] hyper::http::Error),
    /// The answer is of another shape.
    #[error(
        "the daemon on `{path}` answers in another shape, it may be of another release: {source}"
    )]
    Shape {
        /// The socket.
        path: PathBuf,
        /// What does not fit.
        source: serde_json::Error,
    },
    /// The daemon refused.
    #[error("{0}")]
    Refused(String),
}

/// Sends a request without a body to a daemon and reads its answer.
pub async fn call<A: DeserializeOwned>(
    socket: &Path,
    method: Method,
    path: &str,
) -> Result<A, ClientError> {
    let http = |source| ClientError::Http {
        path: socket.to_owned(),
        source,
    };
    let shape = |source| ClientError::Shape {
        path: socket.to_owned(),
        source,
    };
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| ClientError::Connect {
            path: socket.to_owned(),
            source,
        })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(http)?;
    let driver = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(hyper::header::HOST, "nlb")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await.map_err(http)?;
    let status = response.status();
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(http)?
        .to_bytes();
    driver.abort();
    if status == StatusCode::OK {
        serde_json::from_slice(&body).map_err(shape)
    } else {
        let refusal: Refusal = serde_json::from_slice(&body).map_err(shape)?;
        Err(ClientError::Refused(refusal.error))
    }
}
