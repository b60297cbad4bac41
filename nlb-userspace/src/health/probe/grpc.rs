//! gRPC: `grpc.health.v1.Health/Check` over HTTP/2, with and without TLS.
//!
//! The two messages have one field each, so they are written and read here by hand:
//! `HealthCheckRequest { string service = 1; }` and
//! `HealthCheckResponse { ServingStatus status = 1; }`.

use std::{net::SocketAddr, time::Duration};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{HeaderMap, Request, Response, body::Bytes, client::conn::http2, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{connect, of_io, tls};
use crate::health::ProbeFailure;

const METHOD: &str = "/grpc.health.v1.Health/Check";
/// How large an answer may be; a right one has 7 bytes.
const BODY_BYTES: usize = 16 * 1024;
/// Length of what stands in front of a message: whether it is compressed, and how long it is.
const PREFIX_BYTES: usize = 5;

const USER_AGENT: &str = concat!("nlb-health-check/", env!("CARGO_PKG_VERSION"));

pub(super) async fn serves(
    target: SocketAddr,
    service: &str,
    tls: Option<&tls::Client>,
) -> Result<Duration, ProbeFailure> {
    let request = request(target, service, tls)?;
    let start = Instant::now();
    let stream = connect(target).await?;
    match tls {
        None => ask(stream, request, start).await,
        Some(tls) => {
            let stream = tls.handshake(stream, target.ip()).await?;
            ask(stream, request, start).await
        }
    }
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
    start: Instant,
) -> Result<Duration, ProbeFailure> {
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| of_hyper(&error))?;
    let exchange = async {
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| of_hyper(&error))?;
        verdict(response).await?;
        Ok(start.elapsed())
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
    service: &str,
    tls: Option<&tls::Client>,
) -> Result<Request<Full<Bytes>>, ProbeFailure> {
    // Anew from address and port: the scope of a link-local address means nothing to the target.
    let address = SocketAddr::new(target.ip(), target.port()).to_string();
    let name = tls.and_then(tls::Client::server_name);
    let host = name.map_or(address, |name| format!("{name}:{}", target.port()));
    let scheme = if tls.is_some() { "https" } else { "http" };
    Request::post(format!("{scheme}://{host}{METHOD}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::TE, "trailers")
        .body(Full::from(framed(&asking_for(service))))
        .map_err(|_| ProbeFailure::InvalidPath)
}

/// A `HealthCheckRequest`.
fn asking_for(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        // Field 1, of bytes.
        message.push(0x0a);
        put_varint(&mut message, service.len());
        message.extend_from_slice(service.as_bytes());
    }
    message
}

fn put_varint(message: &mut Vec<u8>, mut number: usize) {
    while number > 0x7f {
        message.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    message.push(u8::try_from(number).unwrap_or(0));
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0], &length.to_be_bytes()[..], message].concat()
}

async fn verdict(response: Response<hyper::body::Incoming>) -> Result<(), ProbeFailure> {
    let (head, body) = response.into_parts();
    let is_grpc = head
        .headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if head.status != 200 || !is_grpc {
        return Err(ProbeFailure::NotGrpc);
    }
    // A call that fails at once says so in its headers alone.
    succeeded(&head.headers)?;
    let body = Limited::new(body, BODY_BYTES).collect().await;
    let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
        Ok(error) => of_hyper(&error),
        Err(_too_long) => ProbeFailure::NotGrpc,
    })?;
    if let Some(trailers) = body.trailers() {
        succeeded(trailers)?;
    }
    let bytes = body.to_bytes();
    let message = bytes
        .split_at_checked(PREFIX_BYTES)
        .filter(|(prefix, message)| {
            prefix[0] == 0
                && usize::try_from(u32::from_be_bytes([
                    prefix[1], prefix[2], prefix[3], prefix[4],
                ])) == Ok(message.len())
        })
        .and_then(|(_, message)| status(message));
    match message {
        Some(1) => Ok(()),
        Some(0) => Err(ProbeFailure::NotServing("UNKNOWN")),
        Some(2) => Err(ProbeFailure::NotServing("NOT_SERVING")),
        Some(3) => Err(ProbeFailure::NotServing("SERVICE_UNKNOWN")),
        Some(_) => Err(ProbeFailure::NotServing(
            "in a state that nlb does not know",
        )),
        None => Err(ProbeFailure::NotGrpc),
    }
}

/// What the headers or trailers of a call say about its end, if anything.
fn succeeded(headers: &HeaderMap) -> Result<(), ProbeFailure> {
    let Some(status) = headers.get("grpc-status") else {
        return Ok(());
    };
    let number = status.to_str().ok().and_then(|text| text.parse().ok());
    match number {
        Some(0) => Ok(()),
        Some(number) => Err(ProbeFailure::GrpcStatus(number, name(number))),
        None => Err(ProbeFailure::NotGrpc),
    }
}

/// The `status` of a `HealthCheckResponse`; nothing if it is none. Fields that are not known are
/// passed over, as protocol buffers want it.
fn status(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let tag = take_varint(&mut message)?;
        match (tag >> 3, tag & 7) {
            (1, 0) => status = take_varint(&mut message)?,
            (_, 0) => {
                take_varint(&mut message)?;
            }
            (_, 1) => message = message.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(take_varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            (_, 5) => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn take_varint(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// The names of gRPC's status codes.
const fn name(status: u16) -> &'static str {
    match status {
        1 => "CANCELLED",
        2 => "UNKNOWN",
        3 => "INVALID_ARGUMENT",
        4 => "DEADLINE_EXCEEDED",
        5 => "NOT_FOUND",
        6 => "ALREADY_EXISTS",
        7 => "PERMISSION_DENIED",
        8 => "RESOURCE_EXHAUSTED",
        9 => "FAILED_PRECONDITION",
        10 => "ABORTED",
        11 => "OUT_OF_RANGE",
        12 => "UNIMPLEMENTED",
        13 => "INTERNAL",
        14 => "UNAVAILABLE",
        15 => "DATA_LOSS",
        16 => "UNAUTHENTICATED",
        _ => "not a known status",
    }
}

fn of_hyper(error: &hyper::Error) -> ProbeFailure {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(error) = inner.downcast_ref::<std::io::Error>() {
            return of_io(error);
        }
        source = inner.source();
    }
    if error.is_canceled() || error.is_closed() || error.is_incomplete_message() {
        return ProbeFailure::Closed;
    }
    ProbeFailure::NotGrpc
}

#[cfg(test)]
#[path = "grpc_tests.rs"]
mod tests;
