//! Packets as sentences: `eth().ipv4("198.51.100.7", "192.0.2.10").tcp(40_000, 80).syn().build()`.
//!
//! A sentence is right unless it says otherwise: lengths and checksums are computed when it is
//! built, from [`checksum`], and every word that a liar may want to change has a method.

pub mod checksum;
pub mod facts;
pub mod fragments;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nlb_common::wire::{
    ipv6::{DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ROUTING},
    protocol,
    tcp::{ACK, FIN, RST, SYN},
};

/// What follows the Ethernet header.
#[derive(Clone, Debug)]
enum Network {
    Nothing,
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

/// What follows the IP header and its extensions.
#[derive(Clone, Debug)]
enum Transport {
    /// The payload alone.
    Nothing,
    Tcp {
        ports: (u16, u16),
        flags: u8,
    },
    Udp {
        ports: (u16, u16),
    },
    Icmp {
        kind: u8,
    },
}

/// A frame in the making.
#[derive(Clone, Debug)]
pub struct Sentence {
    macs: ([u8; 6], [u8; 6]),
    tags: Vec<(u16, u16)>,
    ether_type: Option<u16>,
    network: Network,
    class: u8,
    ttl: u8,
    identification: u16,
    label: u32,
    window: u16,
    fragment: u16,
    is_more: bool,
    options: Vec<u8>,
    extensions: Vec<(u8, Vec<u8>)>,
    version: Option<u8>,
    header_words: Option<u8>,
    length: Option<u16>,
    protocol: Option<u8>,
    transport: Transport,
    sequence: (u32, u32),
    data_words: Option<u8>,
    tcp_options: Vec<u8>,
    urgent: u16,
    udp_length: Option<u16>,
    code: u8,
    rest: [u8; 4],
    checksum: Option<u16>,
    payload: Vec<u8>,
    trailer: Vec<u8>,
    shortest: usize,
}

/// Starts a frame.
pub fn eth() -> Sentence {
    Sentence {
        macs: ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]),
        tags: Vec::new(),
        ether_type: None,
        network: Network::Nothing,
        class: 0,
        ttl: 64,
        identification: 0x1234,
        label: 0xbeef,
        window: Sentence::DEFAULT_WINDOW,
        fragment: 0,
        is_more: false,
        options: Vec::new(),
        extensions: Vec::new(),
        version: None,
        header_words: None,
        length: None,
        protocol: None,
        transport: Transport::Nothing,
        sequence: (0x0102_0304, 0),
        data_words: None,
        tcp_options: Vec::new(),
        urgent: 0,
        udp_length: None,
        code: 0,
        rest: [0x12, 0x34, 0, 1],
        checksum: None,
        payload: Vec::new(),
        trailer: Vec::new(),
        shortest: 0,
    }
}

impl Sentence {
    /// The window of a sentence that names none.
    pub const DEFAULT_WINDOW: u16 = 0xfaf0;

    /// Sets the destination MAC.
    #[must_use]
    pub const fn to(mut self, mac: [u8; 6]) -> Self {
        self.macs.0 = mac;
        self
    }

    /// Sets the source MAC.
    #[must_use]
    pub const fn from(mut self, mac: [u8; 6]) -> Self {
        self.macs.1 = mac;
        self
    }

    /// Adds an IEEE 802.1Q tag.
    #[must_use]
    pub fn vlan(mut self, id: u16) -> Self {
        self.tags.push((0x8100, id));
        self
    }

    /// Adds an IEEE 802.1ad tag.
    #[must_use]
    pub fn service_vlan(mut self, id: u16) -> Self {
        self.tags.push((0x88a8, id));
        self
    }

    /// Says another `EtherType` than the truth.
    #[must_use]
    pub const fn ether_type(mut self, ether_type: u16) -> Self {
        self.ether_type = Some(ether_type);
        self
    }

    /// An ARP request (RFC 826): who has `wanted`?
    #[must_use]
    pub fn arp(self, asker: &str, wanted: &str) -> Self {
        let (asker, wanted): (Ipv4Addr, Ipv4Addr) =
            (asker.parse().expect("IPv4"), wanted.parse().expect("IPv4"));
        let source = self.macs.1;
        let body = [
            &[0, 1, 8, 0, 6, 4, 0, 1][..],
            &source,
            &asker.octets(),
            &[0; 6],
            &wanted.octets(),
        ]
        .concat();
        self.ether_type(0x0806).payload(&body)
    }

    /// An IPv4 header.
    #[must_use]
    pub fn ipv4(mut self, source: &str, destination: &str) -> Self {
        self.network = Network::V4(
            source.parse().expect("IPv4"),
            destination.parse().expect("IPv4"),
        );
        self
    }

    /// An IPv6 header.
    #[must_use]
    pub fn ipv6(mut self, source: &str, destination: &str) -> Self {
        self.network = Network::V6(
            source.parse().expect("IPv6"),
            destination.parse().expect("IPv6"),
        );
        self
    }

    /// An IP header of the addresses' version.
    #[must_use]
    pub fn ip(mut self, source: IpAddr, destination: IpAddr) -> Self {
        self.network = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Network::V4(source, destination),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Network::V6(source, destination),
            _ => panic!("{source} and {destination} are of two versions"),
        };
        self
    }

    /// DSCP and ECN.
    #[must_use]
    pub const fn class(mut self, class: u8) -> Self {
        self.class = class;
        self
    }

    /// TTL or hop limit.
    #[must_use]
    pub const fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// IPv4's identification.
    #[must_use]
    pub const fn identification(mut self, identification: u16) -> Self {
        self.identification = identification;
        self
    }

    /// IPv6's flow label.
    #[must_use]
    pub const fn label(mut self, label: u32) -> Self {
        self.label = label;
        self
    }

    /// IPv4 options, padded with end-of-list to whole words.
    #[must_use]
    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self.options.resize(options.len().next_multiple_of(4), 0);
        self
    }

    /// IPv4's flags and offset as one word.
    #[must_use]
    pub const fn fragment_word(mut self, word: u16) -> Self {
        self.fragment = word;
        self
    }

    /// A fragment, by the header's words in IPv4 and by a header of its own in IPv6. Zeros behind the
    /// payload fill one that is not the last up to eights of bytes.
    #[must_use]
    pub fn fragment(mut self, offset_bytes: u16, is_more: bool, identification: u16) -> Self {
        self.is_more = is_more;
        self.identification = identification;
        if let Network::V6(..) = self.network {
            let [a, b] = (offset_bytes & !7 | u16::from(is_more)).to_be_bytes();
            let [c, d] = identification.to_be_bytes();
            self.extension(FRAGMENT, &[a, b, 0, 0, c, d])
        } else {
            self.fragment_word(u16::from(is_more) << 13 | offset_bytes >> 3)
        }
    }

    /// The first fragment of a packet.
    #[must_use]
    pub fn first_fragment(self) -> Self {
        self.fragment(0, true, 9)
    }

    /// The last fragment, at an offset of 1,480 bytes.
    #[must_use]
    pub fn later_fragment(self) -> Self {
        self.fragment(1480, false, 9)
    }

    /// An IPv6 packet that is its only fragment (RFC 6946).
    #[must_use]
    pub fn atomic_fragment(self) -> Self {
        self.fragment(0, false, 9)
    }

    /// An IPv6 extension header: its number and what follows its first two bytes.
    #[must_use]
    pub fn extension(mut self, number: u8, body: &[u8]) -> Self {
        assert_eq!(
            (body.len() + 2) % 8,
            0,
            "extension headers come in eights of bytes"
        );
        self.extensions.push((number, body.to_vec()));
        self
    }

    /// Hop-by-hop options: six bytes of padding.
    #[must_use]
    pub fn hop_by_hop(self) -> Self {
        self.extension(HOP_BY_HOP, &[1, 4, 0, 0, 0, 0])
    }

    /// A routing header that has arrived: no segments left.
    #[must_use]
    pub fn routing(self) -> Self {
        self.extension(ROUTING, &[4, 0, 0, 0, 0, 0])
    }

    /// Destination options: fourteen bytes of padding.
    #[must_use]
    pub fn destination_options(self) -> Self {
        self.extension(
            DESTINATION_OPTIONS,
            &[1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        )
    }

    /// Says another IP version than the truth.
    #[must_use]
    pub const fn version(mut self, version: u8) -> Self {
        self.version = Some(version);
        self
    }

    /// Says another IPv4 header length, in words of 4 bytes.
    #[must_use]
    pub const fn header_words(mut self, words: u8) -> Self {
        self.header_words = Some(words);
        self
    }

    /// Says another total length (IPv4) or payload length (IPv6).
    #[must_use]
    pub const fn length(mut self, length: u16) -> Self {
        self.length = Some(length);
        self
    }

    /// Says which protocol follows.
    #[must_use]
    pub const fn protocol(mut self, protocol: u8) -> Self {
        self.protocol = Some(protocol);
        self
    }

    /// A TCP header with the ACK flag alone.
    #[must_use]
    pub const fn tcp(mut self, source: u16, destination: u16) -> Self {
        self.transport = Transport::Tcp {
            ports: (source, destination),
            flags: ACK,
        };
        self
    }

    /// The TCP flags.
    #[must_use]
    pub const fn flags(mut self, to: u8) -> Self {
        if let Transport::Tcp { ports, .. } = self.transport {
            self.transport = Transport::Tcp { ports, flags: to };
        }
        self
    }

    /// Opens a connection.
    #[must_use]
    pub const fn syn(self) -> Self {
        self.flags(SYN)
    }

    /// Accepts a connection.
    #[must_use]
    pub const fn syn_ack(self) -> Self {
        self.flags(SYN | ACK)
    }

    /// Ends one direction.
    #[must_use]
    pub const fn fin(self) -> Self {
        self.flags(FIN | ACK)
    }

    /// Ends the connection.
    #[must_use]
    pub const fn rst(self) -> Self {
        self.flags(RST)
    }

    /// Sequence and acknowledgement numbers.
    #[must_use]
    pub const fn sequence(mut self, sequence: u32, acknowledgement: u32) -> Self {
        self.sequence = (sequence, acknowledgement);
        self
    }

    /// What TCP's sender has room for.
    #[must_use]
    pub const fn window(mut self, window: u16) -> Self {
        self.window = window;
        self
    }

    /// TCP options, padded with end-of-list to whole words.
    #[must_use]
    pub fn tcp_options(mut self, options: &[u8]) -> Self {
        self.tcp_options = options.to_vec();
        self.tcp_options
            .resize(options.len().next_multiple_of(4), 0);
        self
    }

    /// TCP's urgent pointer.
    #[must_use]
    pub const fn urgent(mut self, urgent: u16) -> Self {
        self.urgent = urgent;
        self
    }

    /// Says another TCP header length, in words of 4 bytes.
    #[must_use]
    pub const fn data_words(mut self, words: u8) -> Self {
        self.data_words = Some(words);
        self
    }

    /// A UDP header.
    #[must_use]
    pub const fn udp(mut self, source: u16, destination: u16) -> Self {
        self.transport = Transport::Udp {
            ports: (source, destination),
        };
        self
    }

    /// Says another UDP length.
    #[must_use]
    pub const fn udp_length(mut self, length: u16) -> Self {
        self.udp_length = Some(length);
        self
    }

    /// No UDP checksum was computed.
    #[must_use]
    pub const fn no_checksum(self) -> Self {
        self.checksum(0)
    }

    /// Says another transport checksum than the right one.
    #[must_use]
    pub const fn checksum(mut self, checksum: u16) -> Self {
        self.checksum = Some(checksum);
        self
    }

    /// An ICMP or `ICMPv6` message of this type.
    #[must_use]
    pub const fn icmp(self, kind: u8) -> Self {
        self.icmp_error(kind, 0, 0x1234_0001)
    }

    /// An ICMP message with a code and a number: an MTU, or whatever the type says.
    #[must_use]
    pub const fn icmp_error(mut self, kind: u8, code: u8, number: u32) -> Self {
        self.transport = Transport::Icmp { kind };
        self.code = code;
        self.rest = number.to_be_bytes();
        self
    }

    /// ICMP's code, and what follows the checksum.
    #[must_use]
    pub const fn code(mut self, code: u8, rest: [u8; 4]) -> Self {
        self.code = code;
        self.rest = rest;
        self
    }

    /// Carries the beginning of that packet, as ICMP errors do: its IP header with options and
    /// extensions, and so many bytes behind them.
    #[must_use]
    pub fn quoting(self, other: &Self, transport_bytes: usize) -> Self {
        let frame = other.build();
        let (segment, _) = other.segment();
        let behind = segment.len() + other.trailer.len();
        let end = frame.len() - behind + segment.len().min(transport_bytes);
        self.payload(&frame[14 + 4 * other.tags.len()..end])
    }

    /// A packet of nlb's own: its hops, no identification, not to be fragmented; no flow label, no
    /// window.
    #[must_use]
    pub const fn made_by_nlb(mut self) -> Self {
        self.identification = 0;
        self.fragment = 0x4000;
        self.label = 0;
        self.window = 0;
        self.ttl(64)
    }

    /// An echo request.
    #[must_use]
    pub const fn echo(self) -> Self {
        match self.network {
            Network::V6(..) => self.icmp(128),
            _ => self.icmp(8),
        }
    }

    /// What the transport carries, or what follows the last header.
    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// Bytes behind the IP packet that do not belong to it.
    #[must_use]
    pub fn trailer(mut self, trailer: &[u8]) -> Self {
        self.trailer = trailer.to_vec();
        self
    }

    /// Zeros behind the IP packet up to Ethernet's 60 bytes.
    #[must_use]
    pub const fn padded(mut self) -> Self {
        self.shortest = 60;
        self
    }

    /// The frame.
    pub fn build(&self) -> Vec<u8> {
        let (network_type, packet) = match self.network {
            Network::Nothing => (0x0800, self.payload.clone()),
            Network::V4(source, destination) => (0x0800, self.ipv4_packet(source, destination)),
            Network::V6(source, destination) => (0x86dd, self.ipv6_packet(source, destination)),
        };
        let mut frame = [self.macs.0, self.macs.1].concat();
        for (kind, control) in &self.tags {
            frame.extend(kind.to_be_bytes());
            frame.extend(control.to_be_bytes());
        }
        frame.extend(self.ether_type.unwrap_or(network_type).to_be_bytes());
        frame.extend(packet);
        frame.extend(&self.trailer);
        if frame.len() < self.shortest {
            frame.resize(self.shortest, 0);
        }
        frame
    }

    fn transport_protocol(&self) -> u8 {
        self.protocol
            .unwrap_or(match (&self.transport, &self.network) {
                (Transport::Tcp { .. }, _) => protocol::TCP,
                (Transport::Udp { .. }, _) => protocol::UDP,
                (Transport::Icmp { .. }, Network::V6(..)) => protocol::ICMPV6,
                (Transport::Icmp { .. }, _) => protocol::ICMP,
                // "No next header" (RFC 8200 §4.7), which IPv4 does not know either.
                (Transport::Nothing, _) => 59,
            })
    }

    /// The segment, and where in it the checksum stands.
    fn segment(&self) -> (Vec<u8>, Option<usize>) {
        match self.transport {
            Transport::Nothing => (self.payload.clone(), None),
            Transport::Tcp { ports, flags } => {
                let words = 5 + u8::try_from(self.tcp_options.len() / 4).expect("few options");
                let mut bytes = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
                bytes.extend(self.sequence.0.to_be_bytes());
                bytes.extend(self.sequence.1.to_be_bytes());
                bytes.extend([self.data_words.unwrap_or(words) << 4, flags]);
                bytes.extend(self.window.to_be_bytes());
                bytes.extend([0, 0]);
                bytes.extend(self.urgent.to_be_bytes());
                bytes.extend(&self.tcp_options);
                bytes.extend(&self.payload);
                (bytes, Some(16))
            }
            Transport::Udp { ports } => {
                let length = u16::try_from(8 + self.payload.len()).expect("a packet's length");
                let mut bytes = [ports.0, ports.1, self.udp_length.unwrap_or(length), 0]
                    .map(u16::to_be_bytes)
                    .concat();
                bytes.extend(&self.payload);
                (bytes, Some(6))
            }
            Transport::Icmp { kind } => {
                let mut bytes = vec![kind, self.code, 0, 0];
                bytes.extend(self.rest);
                bytes.extend(&self.payload);
                (bytes, Some(2))
            }
        }
    }

    /// The segment with its checksum; fragments' checksums cover bytes that are elsewhere, so any
    /// value will do there.
    fn finished_segment(&self, source: &[u8], destination: &[u8]) -> Vec<u8> {
        let (mut segment, checksum_at) = self.segment();
        let Some(at) = checksum_at else {
            self.fill_up(&mut segment);
            return segment;
        };
        let is_icmp_v4 = matches!(self.transport, Transport::Icmp { .. }) && source.len() == 4;
        let right = if is_icmp_v4 {
            checksum::internet(&[&segment])
        } else {
            checksum::transport(source, destination, self.transport_protocol(), &segment)
        };
        let right = if right == 0 && matches!(self.transport, Transport::Udp { .. }) {
            0xffff
        } else {
            right
        };
        let said = self.checksum.unwrap_or(right).to_be_bytes();
        segment[at..at + 2].copy_from_slice(&said);
        self.fill_up(&mut segment);
        segment
    }

    fn fill_up(&self, segment: &mut Vec<u8>) {
        if self.is_more {
            segment.resize(segment.len().next_multiple_of(8), 0);
        }
    }

    fn ipv4_packet(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        let segment = self.finished_segment(&source.octets(), &destination.octets());
        let words = 5 + u8::try_from(self.options.len() / 4).expect("at most ten words");
        let length = u16::try_from(20 + self.options.len() + segment.len());
        let length = self
            .length
            .unwrap_or_else(|| length.expect("a packet's length"));
        let mut header = vec![
            self.version.unwrap_or(4) << 4 | self.header_words.unwrap_or(words),
            self.class,
        ];
        header.extend(length.to_be_bytes());
        header.extend(self.identification.to_be_bytes());
        header.extend(self.fragment.to_be_bytes());
        header.extend([self.ttl, self.transport_protocol(), 0, 0]);
        header.extend(source.octets());
        header.extend(destination.octets());
        header.extend(&self.options);
        let checksum = checksum::internet(&[&header]);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        [header, segment].concat()
    }

    fn ipv6_packet(&self, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
        let segment = self.finished_segment(&source.octets(), &destination.octets());
        let mut numbers: Vec<u8> = self.extensions.iter().map(|(number, _)| *number).collect();
        numbers.push(self.transport_protocol());
        let mut rest = Vec::new();
        for ((_, body), next) in self.extensions.iter().zip(&numbers[1..]) {
            let eights = u8::try_from((body.len() + 2) / 8 - 1).expect("a short extension");
            rest.extend([*next, eights]);
            rest.extend(body);
        }
        rest.extend(segment);
        let length = self
            .length
            .unwrap_or_else(|| u16::try_from(rest.len()).expect("a packet's length"));
        let [_, a, b, c] = self.label.to_be_bytes();
        let mut header = vec![
            self.version.unwrap_or(6) << 4 | self.class >> 4,
            self.class << 4 | a,
            b,
            c,
        ];
        header.extend(length.to_be_bytes());
        header.extend([numbers[0], self.ttl]);
        header.extend(source.octets());
        header.extend(destination.octets());
        [header, rest].concat()
    }
}
