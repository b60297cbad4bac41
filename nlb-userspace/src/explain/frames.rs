//! The packet that is to be explained: made from two endpoints, or read from a capture file.

use std::{
    io::{self, Read},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use etherparse::{
    IpNumber, Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6FlowLabel, Ipv6Header, PacketBuilder,
    TcpHeader,
};
use nlb_common::wire::protocol;
use pcap_file::{
    DataLink, PcapError,
    pcap::PcapReader,
    pcapng::{Block, PcapNgReader, blocks::interface_description::InterfaceDescriptionOption},
};

/// A frame, and what the file says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// The bytes that are there.
    pub bytes: Vec<u8>,
    /// How many there were on the wire.
    pub wire_bytes: u32,
    /// The name of the interface, where the file says one.
    pub interface: Option<String>,
}

/// Why there is no packet to explain.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A packet cannot go from one IP version to the other.
    #[error("--from {from} and --to {to} are of different IP versions")]
    Versions {
        /// Where the packet would come from.
        from: SocketAddr,
        /// Where it would go.
        to: SocketAddr,
    },
    /// A packet of that size cannot be made.
    #[error("--payload {payload_bytes}: {source}")]
    Size {
        /// Bytes behind the TCP or UDP header.
        payload_bytes: u16,
        /// Why not.
        source: etherparse::err::packet::BuildVecWriteError,
    },
    /// The file cannot be read.
    #[error("cannot read `{path}`: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is no capture file, or a broken one.
    #[error("`{path}` is no pcap or pcapng file that can be read: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: PcapError,
    },
    /// The frames are not of Ethernet.
    #[error(
        "`{path}` holds frames of link type {found:?}, and nlb sees Ethernet frames; capture on one \
         interface (`tcpdump -i eth0`), not on `any`"
    )]
    Link {
        /// Which file.
        path: PathBuf,
        /// Its link type.
        found: DataLink,
    },
}

/// A packet without a history.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Where it comes from.
    pub from: SocketAddr,
    /// Where it goes.
    pub to: SocketAddr,
    /// [`protocol::TCP`] or [`protocol::UDP`].
    pub protocol: u8,
    /// Whether it opens a TCP connection.
    pub is_syn: bool,
    /// The sequence number of a TCP segment.
    pub sequence: u32,
    /// Bytes behind the TCP or UDP header.
    pub payload_bytes: u16,
}

/// How many hops the packet has left; any number above 1 is as good.
const TTL: u8 = 64;

/// A frame between two neighbours; MAC addresses as the wire has them.
pub fn make(wanted: &Wanted, source: [u8; 6], destination: [u8; 6]) -> Result<Vec<u8>, FrameError> {
    let ethernet = PacketBuilder::ethernet2(source, destination);
    let number = IpNumber(wanted.protocol);
    let ip = match (wanted.from.ip(), wanted.to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            // The builder writes the length.
            let header = Ipv4Header::new(0, TTL, number, from.octets(), to.octets());
            let header = header.unwrap_or_default();
            ethernet.ip(etherparse::IpHeaders::Ipv4(
                header,
                Ipv4Extensions::default(),
            ))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: 0,
                next_header: number,
                hop_limit: TTL,
                source: from.octets(),
                destination: to.octets(),
            };
            ethernet.ip(etherparse::IpHeaders::Ipv6(
                header,
                Ipv6Extensions::default(),
            ))
        }
        _ => {
            return Err(FrameError::Versions {
                from: wanted.from,
                to: wanted.to,
            });
        }
    };
    let payload = vec![0; wanted.payload_bytes.into()];
    let mut bytes = Vec::new();
    let (from, to) = (wanted.from.port(), wanted.to.port());
    let written = if wanted.protocol == protocol::UDP {
        ip.udp(from, to).write_to_vec(&mut bytes, &payload)
    } else {
        let mut tcp = TcpHeader::new(from, to, wanted.sequence, u16::MAX);
        (tcp.syn, tcp.ack) = (wanted.is_syn, !wanted.is_syn);
        ip.tcp_header(tcp).write_to_vec(&mut bytes, &payload)
    };
    written.map_err(|source| FrameError::Size {
        payload_bytes: wanted.payload_bytes,
        source,
    })?;
    Ok(bytes)
}

/// The frames of a pcap or pcapng file, told apart by how it begins.
pub fn read(path: &std::path::Path) -> Result<Vec<Captured>, FrameError> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(|source| FrameError::Io {
            path: path.to_owned(),
            source,
        })?;
    let broken = |source| FrameError::File {
        path: path.to_owned(),
        source,
    };
    let (found, frames) = if bytes.starts_with(&PCAPNG) {
        of_pcapng(&bytes).map_err(broken)?
    } else {
        of_pcap(&bytes).map_err(broken)?
    };
    match found {
        Some(found) => Err(FrameError::Link {
            path: path.to_owned(),
            found,
        }),
        None => Ok(frames),
    }
}

/// The type of a section header block, with which every pcapng file begins.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// Frames, and a link type that is not Ethernet, if there is one.
type Frames = (Option<DataLink>, Vec<Captured>);

fn of_pcap(bytes: &[u8]) -> Result<Frames, PcapError> {
    let mut reader = PcapReader::new(bytes)?;
    let link = reader.header().datalink;
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_raw_packet() {
        let packet = packet?;
        frames.push(Captured {
            wire_bytes: packet.orig_len,
            bytes: packet.data.into_owned(),
            interface: None,
        });
    }
    Ok(((link != DataLink::ETHERNET).then_some(link), frames))
}

fn of_pcapng(bytes: &[u8]) -> Result<Frames, PcapError> {
    let mut reader = PcapNgReader::new(bytes)?;
    let mut frames = Vec::new();
    let mut other = None;
    // Which interface a packet is of is looked up at the end: the reader lends out one block at a time.
    let mut interfaces = Vec::new();
    while let Some(block) = reader.next_block() {
        let (interface, wire_bytes, bytes) = match block? {
            Block::InterfaceDescription(interface) => {
                if interface.linktype != DataLink::ETHERNET {
                    other = Some(interface.linktype);
                }
                let name = interface.options.iter().find_map(|option| match option {
                    InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
                    _ => None,
                });
                interfaces.push(name);
                continue;
            }
            Block::EnhancedPacket(packet) => (
                packet.interface_id,
                packet.original_len,
                packet.data.into_owned(),
            ),
            Block::SimplePacket(packet) => (0, packet.original_len, packet.data.into_owned()),
            _ => continue,
        };
        let interface = usize::try_from(interface).ok();
        frames.push(Captured {
            bytes,
            wire_bytes,
            interface: interface.and_then(|index| interfaces.get(index).cloned()?),
        });
    }
    Ok((other, frames))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use pcap_file::{
        pcap::{PcapHeader, PcapPacket, PcapWriter},
        pcapng::{
            PcapNgWriter,
            blocks::{
                enhanced_packet::EnhancedPacketBlock,
                interface_description::InterfaceDescriptionBlock,
            },
        },
    };

    use super::*;

    const WANTED: Wanted = Wanted {
        from: SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7)), 40_000),
        to: SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 443),
        protocol: protocol::TCP,
        is_syn: true,
        sequence: 7,
        payload_bytes: 0,
    };

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn a_made_packet_is_read_as_what_was_wanted() {
        for (from, to) in [
            ("198.51.100.7:4", "192.0.2.1:443"),
            ("[::7]:4", "[::1]:443"),
        ] {
            for protocol in [protocol::TCP, protocol::UDP] {
                let wanted = Wanted {
                    from: from.parse().unwrap(),
                    to: to.parse().unwrap(),
                    protocol,
                    ..WANTED
                };
                let bytes = make(&wanted, [2; 6], [4; 6]).unwrap();
                let frame = nlb_ebpf::memory::MemoryFrame::new(bytes, 1);
                let packet = nlb_ebpf::parse::parse(&frame).unwrap();
                assert_eq!(packet.kind, nlb_ebpf::parse::Kind::Transport);
                assert_eq!(IpAddr::from(packet.source), wanted.from.ip());
                assert_eq!(IpAddr::from(packet.destination), wanted.to.ip());
                assert_eq!(packet.destination_port.get(), 443);
                assert_eq!(packet.protocol, protocol);
            }
        }
        let mixed = Wanted {
            to: "[::1]:443".parse().unwrap(),
            ..WANTED
        };
        assert!(matches!(
            make(&mixed, [2; 6], [4; 6]),
            Err(FrameError::Versions { .. })
        ));
    }

    #[test]
    fn both_kinds_of_files_are_read_with_what_they_say() {
        let frame = make(&WANTED, [2; 6], [4; 6]).unwrap();
        let mut old = PcapWriter::new(Vec::new()).unwrap();
        let packet = PcapPacket::new(std::time::Duration::ZERO, 1000, &frame);
        old.write_packet(&packet).unwrap();
        let expected = Captured {
            bytes: frame.clone(),
            wire_bytes: 1000,
            interface: None,
        };
        let old = file(&old.into_writer());
        assert_eq!(read(old.path()).unwrap(), std::slice::from_ref(&expected));

        let mut new = PcapNgWriter::new(Vec::new()).unwrap();
        let name = InterfaceDescriptionOption::IfName("eth7".into());
        new.write_pcapng_block(InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: 0,
            options: vec![name],
        })
        .unwrap();
        new.write_pcapng_block(EnhancedPacketBlock {
            interface_id: 0,
            timestamp: std::time::Duration::ZERO,
            original_len: 1000,
            data: frame.into(),
            options: Vec::new(),
        })
        .unwrap();
        let new = file(&new.into_inner());
        let expected = Captured {
            interface: Some("eth7".to_owned()),
            ..expected
        };
        assert_eq!(read(new.path()).unwrap(), [expected]);
    }

    #[test]
    fn what_is_no_capture_of_ethernet_is_refused_by_name() {
        let nothing = file(b"not a capture");
        assert!(matches!(read(nothing.path()), Err(FrameError::File { .. })));
        let header = PcapHeader {
            datalink: DataLink::LINUX_SLL,
            ..PcapHeader::default()
        };
        let cooked = PcapWriter::with_header(Vec::new(), header).unwrap();
        let cooked = file(&cooked.into_writer());
        let error = read(cooked.path()).unwrap_err().to_string();
        assert!(
            error.contains("LINUX_SLL") && error.contains("-i eth0"),
            "{error}"
        );
    }
}
