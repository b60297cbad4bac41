//! The packets that are measured and those that are counted.

use std::net::IpAddr;

use anyhow::Result;
use nlb_common::wire::protocol::TCP;

use super::kind::{Kind, LISTENER_PORT, TARGET_PORT};
use crate::packet::{Sentence, eth};

/// Where clients send from.
pub const CLIENT_PORT: u16 = 40_000;
/// Bytes behind the transport header; to QUIC, a short header.
const PAYLOAD: [u8; 64] = [0x5a; 64];

/// The client.
pub const fn client(is_v6: bool) -> &'static str {
    if is_v6 { "2001:db8:c::" } else { "10.0.0.0" }
}

/// A packet that comes in at the gateway.
pub fn packet(source: &str, destination: &str) -> Result<Sentence> {
    Ok(eth()
        .to([2, 0, 0, 0, 0, 1])
        .from([2, 0, 0, 0, 1, 99])
        .ip(source.parse()?, destination.parse()?)
        .payload(&PAYLOAD))
}

/// The same with a transport header.
pub fn with_ports(packet: Sentence, protocol: u8, source: u16, destination: u16) -> Sentence {
    if protocol == TCP {
        packet.tcp(source, destination)
    } else {
        packet.udp(source, destination)
    }
}

/// From the client to a listener's port; of TCP one that opens a connection, or that goes on.
pub fn to_port(kind: Kind, port: u16, opens: bool) -> Result<Sentence> {
    let packet = packet(client(kind.is_v6), kind.vip())?;
    let packet = with_ports(packet, kind.protocol, CLIENT_PORT, port);
    Ok(if opens && kind.protocol == TCP {
        packet.syn()
    } else {
        packet
    })
}

/// The target's answer.
pub fn to_client(kind: Kind) -> Result<Sentence> {
    let packet = packet(kind.target(), client(kind.is_v6))?;
    Ok(with_ports(packet, kind.protocol, TARGET_PORT, CLIENT_PORT))
}

/// The target's answer to a packet as it reached the target.
pub fn answer_to(kind: Kind, reached: &[u8]) -> Result<Sentence> {
    let (address, ports) = if kind.is_v6 { (22, 54) } else { (26, 34) };
    let source = if kind.is_v6 {
        IpAddr::from(<[u8; 16]>::try_from(&reached[address..address + 16])?)
    } else {
        IpAddr::from(<[u8; 4]>::try_from(&reached[address..address + 4])?)
    };
    let port = u16::from_be_bytes(reached[ports..ports + 2].try_into()?);
    let packet = packet(kind.target(), &source.to_string())?;
    Ok(with_ports(packet, kind.protocol, TARGET_PORT, port))
}

/// Addressed to nobody that we know.
pub fn to_nobody(is_v6: bool) -> Result<Sentence> {
    let nobody = if is_v6 { "2001:db8::99" } else { "192.0.2.99" };
    Ok(packet(client(is_v6), nobody)?.tcp(CLIENT_PORT, LISTENER_PORT))
}

/// A fragmented datagram to a listener: its first fragment, and a later one.
pub fn fragments(kind: Kind) -> Result<[Sentence; 2]> {
    let whole = packet(client(kind.is_v6), kind.vip())?.udp(CLIENT_PORT, LISTENER_PORT);
    Ok([whole.clone().first_fragment(), whole.later_fragment()])
}

/// A ping of a VIP.
pub fn echo(kind: Kind) -> Result<Sentence> {
    Ok(packet(client(kind.is_v6), kind.vip())?.echo())
}

/// An ARP request.
pub fn arp() -> Sentence {
    eth().arp("10.0.0.7", "192.0.2.10").payload(&[0; 100])
}

/// A router's error about a packet that the listener has sent to the client: too big.
pub fn error_about(kind: Kind) -> Result<Sentence> {
    let quoted = packet(kind.vip(), client(kind.is_v6))?.tcp(LISTENER_PORT, CLIENT_PORT);
    let (router, too_big) = if kind.is_v6 {
        ("2001:db8:c::fe", 2)
    } else {
        ("198.51.100.254", 3)
    };
    Ok(packet(router, kind.vip())?
        .icmp(too_big)
        .code(if kind.is_v6 { 0 } else { 4 }, [0, 0, 5, 0])
        .quoting(&quoted, usize::MAX))
}
