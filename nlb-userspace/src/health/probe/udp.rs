//! UDP: a datagram, and the beginning of its answer. A closed port says so by ICMP.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{net::UdpSocket, time::Instant};

use super::of_io;
use crate::health::ProbeFailure;

/// How much of an answer is read: more than any expectation is long.
const ANSWER_BYTES: usize = 2048;

/// Waits for an answer without end; that is for the caller to limit.
pub(super) async fn answers(
    target: SocketAddr,
    send: &[u8],
    expect: &[u8],
) -> Result<Duration, ProbeFailure> {
    let start = Instant::now();
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let exchange = async {
        let socket = UdpSocket::bind(any).await?;
        // Connected: only the target's answers arrive, and so do errors of the path.
        socket.connect(target).await?;
        socket.send(send).await?;
        let mut answer = [0; ANSWER_BYTES];
        let length = socket.recv(&mut answer).await?;
        Ok(answer[..length].starts_with(expect))
    };
    match exchange.await {
        Ok(true) => Ok(start.elapsed()),
        Ok(false) => Err(ProbeFailure::AnswerMismatch),
        Err(error) => Err(of_io(&error)),
    }
}
