//! HTTP and HTTPS: a request over HTTP/1.1, and the status of its answer.
//!
//! Of an answer, 16 KiB of head and 64 KiB of body are read, so that a target can cost neither time
//! nor memory beyond that.

use std::{error::Error as _, io, net::SocketAddr, ops::RangeInclusive, time::Duration};

use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request, Uri,
    body::{Body as _, Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{connect, of_io, tls};
use crate::health::ProbeFailure;

/// How much of a response's body is read. The body does not count; it is read, up to here, because
/// closing a connection with unread data on it resets it, which a target would log as an error.
const BODY_BYTES: usize = 64 * 1024;

/// How large the head of a response may be.
const HEAD_BYTES: usize = 16 * 1024;

const USER_AGENT: &str = concat!("nlb-health-check/", env!("CARGO_PKG_VERSION"));

pub(super) async fn answers(
    target: SocketAddr,
    path: &str,
    codes: &[RangeInclusive<u16>],
    tls: Option<&tls::Client>,
) -> Result<Duration, ProbeFailure> {
    // The host that the request names: the certificate's, where one is configured.
    let name = tls.and_then(tls::Client::server_name);
    let request = request(target, name, path)?;
    let start = Instant::now();
    let stream = connect(target).await?;
    match tls {
        None => ask(stream, request, codes, start).await,
        Some(tls) => {
            let stream = tls.handshake(stream, target.ip()).await?;
            ask(stream, request, codes, start).await
        }
    }
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Empty<Bytes>>,
    codes: &[RangeInclusive<u16>],
    start: Instant,
) -> Result<Duration, ProbeFailure> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| of_hyper(&error))?;
    let exchange = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| of_hyper(&error))?;
        let latency = start.elapsed();
        let code = response.status().as_u16();
        if !codes.iter().any(|range| range.contains(&code)) {
            return Err(ProbeFailure::ResponseCodeMismatch(code));
        }
        read(response.into_body()).await?;
        Ok(latency)
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // The connection is over, well or badly; what it has read is with the exchange by now.
        _ = &mut connection => exchange.await,
    }
}

fn request(
    target: SocketAddr,
    name: Option<&str>,
    path: &str,
) -> Result<Request<Empty<Bytes>>, ProbeFailure> {
    let uri: Uri = path.parse().map_err(|_| ProbeFailure::InvalidPath)?;
    if !path.starts_with('/') {
        return Err(ProbeFailure::InvalidPath);
    }
    // Anew from address and port: the scope of a link-local address means nothing to the target.
    let address = SocketAddr::new(target.ip(), target.port()).to_string();
    let host = name.map_or(address, |name| format!("{name}:{}", target.port()));
    Request::get(uri)
        .header(header::HOST, host)
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::new())
        .map_err(|_| ProbeFailure::InvalidPath)
}

async fn read(mut body: Incoming) -> Result<(), ProbeFailure> {
    let mut left = BODY_BYTES;
    while left > 0 && !body.is_end_stream() {
        let Some(frame) = body.frame().await else {
            break;
        };
        let frame = frame.map_err(|error| of_hyper(&error))?;
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
    }
    Ok(())
}

fn of_hyper(error: &hyper::Error) -> ProbeFailure {
    if let Some(error) = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
    {
        return of_io(error);
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return ProbeFailure::Closed;
    }
    ProbeFailure::BadResponse
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
