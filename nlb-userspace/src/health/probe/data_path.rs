//! The data path: a SYN or a datagram for a VIP, brought to one target as the packet path brings it
//! there, and the VIP's answer.
//!
//! A check of the target's own address does not see whether the target has the VIP, takes packets
//! out of their tunnel, and answers from the VIP by a way that leads to clients. This one does: the
//! client is this node. No connection comes of it: what the target accepted is reset.
//!
//! Packets go out by raw sockets: the kernel routes them by the address that they are sent to, which
//! is the target's, whatever their header says (`raw(7)`). Answers come from the VIP, which may be an
//! address of this node, too; so they are taken off the wire, by [`super::answers`].

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep, ip_number};
use futures_util::future::try_join_all;
use nlb_common::{
    target::Mode,
    tunnel::Tunnel,
    wire::{ethernet, geneve::Geneve, gue::Gue, protocol},
};
use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, bind, getsockname, ipproto, sendto,
    socket_with,
};
use tokio::time::{Instant, timeout};
use zerocopy::IntoBytes as _;

use super::{
    answers::{Answer, Answers, Conversation},
    icmp::nonce,
    of_io,
};
use crate::health::{CheckProtocol, ProbeFailure};

/// Hops that packets may take.
const HOPS: u8 = 64;
/// The window of a SYN.
const WINDOW: u16 = 65_535;
/// The outer source port, of the range that RFC 6335 leaves to everybody.
const OUTER_PORT: u16 = 49_152;

/// Which VIPs are asked, and how that gets to a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataPath {
    /// The VIPs with their ports. Those of the target's IP version are asked, all of them.
    pub vips: Vec<SocketAddr>,
    /// How packets reach the group's targets: a `dsr` mode.
    pub mode: Mode,
    /// What the outer headers say, where the mode has them.
    pub tunnel: Option<Tunnel>,
}

/// What it takes to ask VIPs.
#[derive(Debug, Clone)]
pub struct Through {
    /// Which, and how.
    pub path: DataPath,
    /// Who hears what they answer.
    pub answers: Arc<Answers>,
}

impl Through {
    /// Asks all VIPs through a target, each within this time: a datagram where the protocol is UDP,
    /// and a connection otherwise.
    pub(super) async fn ask(
        &self,
        protocol: &CheckProtocol,
        target: IpAddr,
        within: Duration,
    ) -> Result<Duration, ProbeFailure> {
        let start = Instant::now();
        let vips = self.path.vips.iter();
        let of_version = vips.filter(|vip| vip.is_ipv4() == target.is_ipv4());
        let asked = of_version.map(async |vip| {
            match timeout(within, self.ask_one(protocol, target, *vip)).await {
                Ok(answer) => answer,
                Err(_elapsed) if protocol.takes_silence() => Ok(()),
                Err(_elapsed) => Err(ProbeFailure::SilentVip(*vip)),
            }
        });
        if try_join_all(asked).await?.is_empty() {
            return Err(ProbeFailure::NoVip);
        }
        Ok(start.elapsed())
    }

    /// Waits for an answer without end; that is for the caller to limit.
    async fn ask_one(
        &self,
        protocol: &CheckProtocol,
        target: IpAddr,
        vip: SocketAddr,
    ) -> Result<(), ProbeFailure> {
        let of_io = |error: io::Error| of_io(&error);
        let source = source_towards(SocketAddr::new(target, vip.port())).map_err(of_io)?;
        let sequence = sequence();
        let (port, packet, expected) = if let CheckProtocol::Udp { send, expect, .. } = protocol {
            let port = HeldPort::udp(source).map_err(of_io)?;
            let packet = datagram(port.client, vip, send);
            (port, packet, Some(expect))
        } else {
            let port = HeldPort::tcp(source).map_err(of_io)?;
            let packet = syn(port.client, vip, sequence);
            (port, packet, None)
        };
        let client = port.client;
        let conversation = Conversation { vip, client };
        let mut waiting = self.answers.wait_for(conversation).map_err(of_io)?;
        let send = |packet: &[u8]| send_to(target, &wrapped(&self.path, target, packet)?);
        packet.and_then(|packet| send(&packet)).map_err(of_io)?;
        loop {
            match (waiting.next().await, expected) {
                (Answer::Accepted { acknowledged }, None)
                    if acknowledged == sequence.wrapping_add(1) =>
                {
                    // By the same way, or the target waits for the handshake's end.
                    let end = rst(client, vip, acknowledged).and_then(|packet| send(&packet));
                    return end.map_err(of_io);
                }
                (Answer::Datagram(answer), Some(expect)) => {
                    let is_right = answer.starts_with(expect);
                    return is_right.then_some(()).ok_or(ProbeFailure::AnswerMismatch);
                }
                (Answer::Refused, _) => return Err(ProbeFailure::RefusedVip(vip)),
                // Another question's.
                (Answer::Accepted { .. } | Answer::Datagram(_), _) => {}
            }
        }
    }
}

/// Which of our addresses a host answers to, as the kernel routes.
fn source_towards(host: SocketAddr) -> io::Result<IpAddr> {
    let any: SocketAddr = match host {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(host)?;
    Ok(socket.local_addr()?.ip())
}

/// A port of ours that nobody else gets meanwhile.
struct HeldPort {
    client: SocketAddr,
    _socket: OwnedFd,
}

impl HeldPort {
    fn tcp(source: IpAddr) -> io::Result<Self> {
        // One that neither listens nor connects.
        Self::of(source, SocketType::STREAM)
    }

    fn udp(source: IpAddr) -> io::Result<Self> {
        Self::of(source, SocketType::DGRAM)
    }

    fn of(source: IpAddr, kind: SocketType) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family(source), kind, flags, None)?;
        bind(&socket, &SocketAddr::new(source, 0))?;
        let client = getsockname(&socket)?.try_into()?;
        Ok(Self {
            client,
            _socket: socket,
        })
    }
}

const fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    }
}

/// A sequence number for a SYN.
fn sequence() -> u32 {
    let [a, b, c, d, ..] = nonce().to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

fn ip(client: SocketAddr, vip: SocketAddr) -> io::Result<PacketBuilderStep<IpHeaders>> {
    between(client.ip(), vip.ip())
}

fn between(source: IpAddr, destination: IpAddr) -> io::Result<PacketBuilderStep<IpHeaders>> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Ok(PacketBuilder::ipv4(
            source.octets(),
            destination.octets(),
            HOPS,
        )),
        (IpAddr::V6(source), IpAddr::V6(destination)) => Ok(PacketBuilder::ipv6(
            source.octets(),
            destination.octets(),
            HOPS,
        )),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn syn(client: SocketAddr, vip: SocketAddr, sequence: u32) -> io::Result<Vec<u8>> {
    let tcp = ip(client, vip)?.tcp(client.port(), vip.port(), sequence, WINDOW);
    let mut packet = Vec::new();
    tcp.syn()
        .write(&mut packet, &[])
        .map_err(io::Error::other)?;
    Ok(packet)
}

fn rst(client: SocketAddr, vip: SocketAddr, sequence: u32) -> io::Result<Vec<u8>> {
    let tcp = ip(client, vip)?.tcp(client.port(), vip.port(), sequence, 0);
    let mut packet = Vec::new();
    tcp.rst()
        .write(&mut packet, &[])
        .map_err(io::Error::other)?;
    Ok(packet)
}

fn datagram(client: SocketAddr, vip: SocketAddr, payload: &[u8]) -> io::Result<Vec<u8>> {
    let udp = ip(client, vip)?.udp(client.port(), vip.port());
    let mut packet = Vec::new();
    udp.write(&mut packet, payload).map_err(io::Error::other)?;
    Ok(packet)
}

/// A packet as the packet path hands it to a target, from the IP header on.
fn wrapped(path: &DataPath, target: IpAddr, packet: &[u8]) -> io::Result<Vec<u8>> {
    let Some(tunnel) = &path.tunnel else {
        return Ok(packet.to_vec());
    };
    let source = match target {
        IpAddr::V4(_) => tunnel.source_v4,
        IpAddr::V6(_) => tunnel.source_v6,
    };
    let outer = between(source.into(), target)?;
    let is_v4 = packet.first().is_some_and(|first| first >> 4 == 4);
    let (number, ip_protocol, ether_type) = if is_v4 {
        (ip_number::IPV4, protocol::IPV4, ethernet::IPV4)
    } else {
        (ip_number::IPV6, protocol::IPV6, ethernet::IPV6)
    };
    let mut whole = Vec::with_capacity(packet.len() + 64);
    if path.mode == Mode::DSR_IPIP {
        outer.write(&mut whole, number, packet)
    } else {
        let shim = if path.mode == Mode::DSR_GUE {
            Gue::of(ip_protocol).as_bytes().to_vec()
        } else {
            Geneve::of(ether_type, tunnel.network).as_bytes().to_vec()
        };
        let udp = outer.udp(OUTER_PORT, tunnel.port.get());
        udp.write(&mut whole, &[&shim, packet].concat())
    }
    .map_err(io::Error::other)?;
    Ok(whole)
}

fn send_to(target: IpAddr, packet: &[u8]) -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family(target), SocketType::RAW, flags, Some(ipproto::RAW))?;
    sendto(
        &socket,
        packet,
        SendFlags::empty(),
        &SocketAddr::new(target, 0),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    use nlb_common::address::Address;
    use zerocopy::big_endian::U16;

    use super::*;

    fn path(mode: Mode) -> DataPath {
        DataPath {
            vips: Vec::new(),
            mode,
            tunnel: mode.is_tunnel().then(|| Tunnel {
                source_v4: Address::from(IpAddr::from([10, 2, 0, 1])),
                source_v6: Address::UNSPECIFIED,
                spread_v4: [0; 4],
                spread_v6: [0; 8],
                port: U16::new(6080),
                network: [0, 0, 7],
                has_entropy: true,
            }),
        }
    }

    fn destination(packet: &SlicedPacket<'_>) -> IpAddr {
        match &packet.net {
            Some(NetSlice::Ipv4(ip)) => ip.header().destination_addr().into(),
            Some(NetSlice::Ipv6(ip)) => ip.header().destination_addr().into(),
            _ => panic!("not IP"),
        }
    }

    #[test]
    fn a_syn_for_the_vip_is_in_what_each_mode_sends_to_the_target() {
        let client = "10.2.0.1:40000".parse().unwrap();
        let vip: SocketAddr = "192.0.2.20:80".parse().unwrap();
        let target = IpAddr::from([10, 2, 0, 11]);
        let inner = syn(client, vip, 7).unwrap();
        for (mode, outer_bytes) in [
            (Mode::DSR_L2, 0),
            (Mode::DSR_IPIP, 20),
            (Mode::DSR_GUE, 32),
            (Mode::DSR_GENEVE, 36),
        ] {
            let packet = wrapped(&path(mode), target, &inner).unwrap();
            assert_eq!(packet[outer_bytes..], inner, "{mode:?}");
            assert_eq!(
                usize::from(mode.overhead_bytes(true)) * usize::from(mode.is_tunnel()),
                outer_bytes
            );
            let outer = SlicedPacket::from_ip(&packet).unwrap();
            let is_for = if outer_bytes == 0 { vip.ip() } else { target };
            assert_eq!(destination(&outer), is_for, "{mode:?}");
        }
        let read = SlicedPacket::from_ip(&inner).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = read.transport else {
            panic!("not TCP");
        };
        assert!(tcp.syn() && !tcp.ack());
        assert_eq!((tcp.source_port(), tcp.destination_port()), (40_000, 80));
    }
}
