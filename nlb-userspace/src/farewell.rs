//! Telling both ends of a TCP connection that its time has run out.
//!
//! An RST must carry the number that its receiver expects next (RFC 5961 §3.2), and nobody keeps
//! those. So each end gets a segment that says nothing and is nowhere near its window, as if the other
//! end had sent it: TCP answers that with an acknowledgement (RFC 9293 §3.10.7.4), which carries the
//! number, and which the packet path answers with the RST because the flow has expired.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
};

use etherparse::PacketBuilder;
use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with,
};

use crate::dataplane::sweep::ExpiredFlow;

/// Hops that the segments may take.
const HOPS: u8 = 64;
/// Sequence numbers of two segments: no window, which has at most 2³⁰ bytes, is near both.
const SEQUENCES: [u32; 2] = [0, 1 << 31];

/// Why ends were not told.
#[derive(Debug, thiserror::Error)]
pub enum FarewellError {
    /// No raw sockets.
    #[error(
        "cannot open raw sockets to tell the ends of expired connections ({0}); it takes CAP_NET_RAW"
    )]
    Open(#[source] io::Error),
    /// Some segments could not be sent.
    #[error(
        "cannot send {count} segments to ends of expired connections, for example to {to}: {source}"
    )]
    Send {
        /// How many.
        count: usize,
        /// One of them.
        to: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Has both ends of these flows told.
pub fn tell(flows: &[ExpiredFlow]) -> Result<(), FarewellError> {
    let sockets = Sockets::open().map_err(FarewellError::Open)?;
    let mut failed = 0;
    let mut last = None;
    for flow in flows {
        for (from, to) in [(flow.vip, flow.client), (flow.source, flow.target)] {
            for sequence in SEQUENCES {
                // Others may be told all the same.
                if let Err(source) = sockets.send(from, to, sequence) {
                    failed += 1;
                    last = Some((to, source));
                }
            }
        }
    }
    match last {
        Some((to, source)) => Err(FarewellError::Send {
            count: failed,
            to,
            source,
        }),
        None => Ok(()),
    }
}

/// Sockets that segments of other hosts can be sent from.
struct Sockets {
    v4: OwnedFd,
    v6: OwnedFd,
}

impl Sockets {
    fn open() -> io::Result<Self> {
        let open = |family| {
            // With this protocol the IP header is the sender's (raw(7), ipv6(7)).
            let flags = SocketFlags::CLOEXEC;
            socket_with(family, SocketType::RAW, flags, Some(ipproto::RAW))
        };
        Ok(Self {
            v4: open(AddressFamily::INET)?,
            v6: open(AddressFamily::INET6)?,
        })
    }

    fn send(&self, from: SocketAddr, to: SocketAddr, sequence: u32) -> io::Result<()> {
        let packet = segment(from, to, sequence)?;
        let socket = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        // The port of a raw socket's address means nothing, and IPv6 wants none.
        sendto(
            socket,
            &packet,
            SendFlags::empty(),
            &SocketAddr::new(to.ip(), 0),
        )?;
        Ok(())
    }
}

/// An IP packet with an acknowledgement of nothing.
fn segment(from: SocketAddr, to: SocketAddr, sequence: u32) -> io::Result<Vec<u8>> {
    let ip = match (from.ip(), to.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            PacketBuilder::ipv4(source.octets(), destination.octets(), HOPS)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            PacketBuilder::ipv6(source.octets(), destination.octets(), HOPS)
        }
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let tcp = ip.tcp(from.port(), to.port(), sequence, 0).ack(0);
    let mut packet = Vec::with_capacity(tcp.size(0));
    tcp.write(&mut packet, &[]).map_err(io::Error::other)?;
    Ok(packet)
}

#[cfg(test)]
mod tests {
    use etherparse::SlicedPacket;

    use super::*;

    #[test]
    fn a_segment_comes_from_one_end_and_goes_to_the_other() {
        for (from, to) in [
            ("192.0.2.10:80", "198.51.100.7:40000"),
            ("[2001:db8::10]:80", "[2001:db8:c::7]:40000"),
        ] {
            let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
            let packet = segment(from, to, 7).unwrap();
            let read = SlicedPacket::from_ip(&packet).unwrap();
            let tcp = read.transport.and_then(|it| match it {
                etherparse::TransportSlice::Tcp(tcp) => Some(tcp),
                _ => None,
            });
            let tcp = tcp.unwrap();
            assert_eq!((tcp.source_port(), tcp.destination_port()), (80, 40_000));
            assert_eq!((tcp.sequence_number(), tcp.ack()), (7, true));
            assert!(!tcp.rst() && !tcp.syn() && !tcp.fin());
            let header = tcp.to_header();
            let sum = match (from.ip(), to.ip()) {
                (IpAddr::V4(a), IpAddr::V4(b)) => {
                    header.calc_checksum_ipv4_raw(a.octets(), b.octets(), &[])
                }
                (IpAddr::V6(a), IpAddr::V6(b)) => {
                    header.calc_checksum_ipv6_raw(a.octets(), b.octets(), &[])
                }
                _ => unreachable!(),
            };
            assert_eq!(sum.unwrap(), tcp.checksum());
        }
    }

    #[test]
    fn ends_of_different_versions_are_an_error() {
        let (from, to) = ("192.0.2.10:80".parse(), "[2001:db8::1]:80".parse());
        assert!(segment(from.unwrap(), to.unwrap(), 0).is_err());
    }
}
