//! Asks a target once whether it is well.
//!
//! Every probe uses a connection, socket or process of its own and ends within the check's timeout
//! whatever the target does; dropping its future drops them all. One file for each kind.

pub mod answers;
mod command;
pub mod data_path;
mod grpc;
mod http;
mod icmp;
pub mod tls;
mod udp;

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    time::Duration,
};

use tokio::{
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout},
};

use super::{Check, CheckProtocol, ProbeFailure, ProbeOutcome};

/// Probes `target` as `check` says. Takes no longer than the check's timeout.
pub async fn probe(check: &Check, target: SocketAddr) -> ProbeOutcome {
    probe_within(check, target, check.timeout).await
}

/// The same within another time than the check's own.
pub async fn probe_within(check: &Check, target: SocketAddr, within: Duration) -> ProbeOutcome {
    let result = match &check.through {
        // These futures are large, and most checks are TCP to the target.
        Some(through) => Box::pin(through.ask(&check.protocol, target.ip(), within)).await,
        None => match timeout(within, exchange(&check.protocol, target)).await {
            Ok(result) => result,
            Err(_elapsed) if check.protocol.takes_silence() => Ok(within),
            Err(_elapsed) => Err(ProbeFailure::TimedOut),
        },
    };
    match result {
        Ok(latency) => ProbeOutcome::Passed { latency },
        Err(reason) => ProbeOutcome::Failed { reason },
    }
}

impl CheckProtocol {
    /// Whether no answer is as good as one.
    const fn takes_silence(&self) -> bool {
        matches!(
            self,
            Self::Udp {
                silence_passes: true,
                ..
            }
        )
    }
}

async fn exchange(protocol: &CheckProtocol, target: SocketAddr) -> Result<Duration, ProbeFailure> {
    match protocol {
        CheckProtocol::Tcp => accepts(target).await,
        CheckProtocol::Http { path, codes, tls } => {
            Box::pin(http::answers(target, path, codes, tls.as_ref())).await
        }
        CheckProtocol::Udp { send, expect, .. } => udp::answers(target, send, expect).await,
        CheckProtocol::Grpc { service, tls } => {
            Box::pin(grpc::serves(target, service, tls.as_ref())).await
        }
        CheckProtocol::Icmp => icmp::echoes(target.ip()).await,
        CheckProtocol::Command { line } => Box::pin(command::succeeds(line, target)).await,
    }
}

/// A connection that ends by RST as soon as it is made: nothing was said on it that could be lost,
/// and a close would leave a socket in `TIME_WAIT` for a minute, at ten thousand checks a second
/// more than half a million.
async fn accepts(target: SocketAddr) -> Result<Duration, ProbeFailure> {
    let start = Instant::now();
    let socket = socket_for(target)?;
    socket.set_zero_linger().map_err(|error| of_io(&error))?;
    let stream = socket.connect(target).await;
    let stream = stream.map_err(|error| of_io(&error))?;
    let latency = start.elapsed();
    drop(stream);
    Ok(latency)
}

async fn connect(target: SocketAddr) -> Result<TcpStream, ProbeFailure> {
    let stream = socket_for(target)?.connect(target).await;
    stream.map_err(|error| of_io(&error))
}

fn socket_for(target: SocketAddr) -> Result<TcpSocket, ProbeFailure> {
    let socket = match target {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    socket.map_err(|error| of_io(&error))
}

fn of_io(error: &io::Error) -> ProbeFailure {
    match error.kind() {
        ErrorKind::ConnectionRefused => ProbeFailure::Refused,
        ErrorKind::TimedOut => ProbeFailure::TimedOut,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => {
            ProbeFailure::Unreachable
        }
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
            ProbeFailure::Reset
        }
        ErrorKind::UnexpectedEof => ProbeFailure::Closed,
        other => ProbeFailure::Local(other),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
