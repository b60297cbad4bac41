//! ICMP: an echo request, and its reply.
//!
//! By a raw socket for each probe, since the kernel's own echo sockets are for groups of users that
//! a sysctl names, whatever capabilities a process has. Connected to the target, it is given that
//! host's messages only.

use std::{
    hash::{BuildHasher as _, RandomState},
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, ipproto, socket_with};
use tokio::{net::UdpSocket, time::Instant};

use super::of_io;
use crate::health::ProbeFailure;

/// Header and payload of a message: type, code, checksum, identifier, sequence number, nonce.
const MESSAGE_BYTES: usize = 16;
/// Room for an IPv4 header with all its options, which raw sockets give along.
const RECEIVE_BYTES: usize = 60 + MESSAGE_BYTES;

/// Waits for a reply without end; that is for the caller to limit.
pub(super) async fn echoes(target: IpAddr) -> Result<Duration, ProbeFailure> {
    let start = Instant::now();
    match exchange(target).await {
        Ok(()) => Ok(start.elapsed()),
        Err(error) => Err(of_io(&error)),
    }
}

async fn exchange(target: IpAddr) -> io::Result<()> {
    let (family, protocol) = match target {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::RAW, flags, Some(protocol))?;
    connect(&socket, &SocketAddr::new(target, 0))?;
    // To tokio, a datagram socket is what has `send` and `recv`: a connected raw socket is one.
    let socket = UdpSocket::from_std(socket.into())?;
    let nonce = nonce();
    socket.send(&request(target, nonce)).await?;
    let mut received = [0; RECEIVE_BYTES];
    loop {
        let length = socket.recv(&mut received).await?;
        if is_reply(target, &received[..length], nonce) {
            return Ok(());
        }
    }
}

/// Names one request among all of this host's.
pub(super) fn nonce() -> u64 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static NEXT: AtomicU64 = AtomicU64::new(0);
    KEY.hash_one(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// An echo request; the kernel fills in the checksum over IPv6, which has the addresses in it.
fn request(target: IpAddr, nonce: u64) -> [u8; MESSAGE_BYTES] {
    let mut message = [0; MESSAGE_BYTES];
    message[0] = if target.is_ipv4() { 8 } else { 128 };
    // Identifier and sequence number repeat the nonce's beginning, so that captures show them.
    message[4..8].copy_from_slice(&nonce.to_be_bytes()[..4]);
    message[8..].copy_from_slice(&nonce.to_be_bytes());
    if target.is_ipv4() {
        let checksum = checksum(&message);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    message
}

/// The checksum of RFC 1071.
fn checksum(message: &[u8; MESSAGE_BYTES]) -> u16 {
    let (words, _) = message.as_chunks::<2>();
    let sum: u32 = words
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or(u16::MAX)
}

/// Whether what was received answers the request.
fn is_reply(target: IpAddr, received: &[u8], nonce: u64) -> bool {
    let (message, reply) = match target {
        IpAddr::V4(_) => {
            let words = received.first().map_or(0, |first| usize::from(first & 0xf));
            (received.get(words * 4..), 0)
        }
        IpAddr::V6(_) => (Some(received), 129),
    };
    message.is_some_and(|message| {
        message.len() >= MESSAGE_BYTES
            && message[..2] == [reply, 0]
            && message[4..8] == nonce.to_be_bytes()[..4]
            && message[8..MESSAGE_BYTES] == nonce.to_be_bytes()
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn a_requests_checksum_makes_its_sum_all_ones() {
        for nonce in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
            assert_eq!(checksum(&request(V4, nonce)), 0, "{nonce:#x}");
        }
    }

    #[test]
    fn only_the_reply_with_the_requests_nonce_is_one() {
        let nonce = 0x0123_4567_89ab_cdef;
        let request = request(V4, nonce);
        let mut packet = [[0x45].as_slice(), &[0; 19], &request].concat();
        assert!(!is_reply(V4, &packet, nonce), "the request itself");
        packet[20] = 0;
        assert!(is_reply(V4, &packet, nonce));
        assert!(!is_reply(V4, &packet, nonce + 1), "another's reply");
        for length in 0..packet.len() {
            assert!(!is_reply(V4, &packet[..length], nonce), "{length} bytes");
        }
    }
}
