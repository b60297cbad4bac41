//! Frames that a network, a fool or an enemy may send: sentences of the world with random words,
//! and what is left of them after bits and bytes were lost. The same seed makes the same frames.

use nlb_common::{
    flow::Bucket,
    target::Mode,
    wire::{
        protocol::TCP,
        tcp::{ACK, FIN, RST, SYN},
    },
};
use nlb_ebpf::{
    handle,
    memory::{MemoryFrame, MemoryTables},
};

use crate::{
    packet::{Sentence, eth, facts},
    world::{
        CLIENT, CLIENT_V6, ETH0, ETH1, FAR_CLIENT, FAR_CLIENT_V6, FULL_VIP, FULL_VIP_V6, GROUPS,
        LISTENERS, MAC0, MAC1, QUIC, QUIET_CLIENT, SERVERS, TUNNEL_VIP, TUNNEL_VIP_V6,
        UNKNOWN_CLIENT, UNWRITTEN_LISTENER_PORT, VIP, VIP_V6, asks_who_comes, tables,
    },
};

/// `SplitMix64` (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of this seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).expect("a small number");
        usize::try_from(self.next() % end).expect("a small number")
    }

    /// Any byte.
    pub const fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    /// Any word.
    pub const fn word(&mut self) -> u16 {
        let [a, b, ..] = self.next().to_le_bytes();
        u16::from_le_bytes([a, b])
    }

    /// Whether one thing in `of` happens.
    pub fn once_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// So many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }
}

const CLIENTS_V4: &[&str] = &[CLIENT, CLIENT, QUIET_CLIENT, FAR_CLIENT, UNKNOWN_CLIENT];
const CLIENTS_V6: &[&str] = &[CLIENT_V6, CLIENT_V6, FAR_CLIENT_V6];
/// Everybody who sends requests.
pub const CLIENTS: &[&str] = &[
    CLIENT,
    QUIET_CLIENT,
    FAR_CLIENT,
    UNKNOWN_CLIENT,
    CLIENT_V6,
    FAR_CLIENT_V6,
];
/// Mostly what keeps a connection alive.
const FLAGS: &[u8] = &[
    SYN,
    SYN,
    ACK,
    ACK,
    ACK,
    ACK,
    ACK | 8,
    FIN | ACK,
    RST,
    SYN | ACK,
    0,
    0xff,
];
/// Client ports: few, so that flows meet again in both directions.
const PORTS: usize = 8;

/// Identifications of fragments: few, so that later ones meet a first one.
const NUMBERS: &[u16] = &[9, 10];

/// A frame and the interface that it came in through.
pub fn frame(random: &mut Random, is_v6: bool) -> MemoryFrame {
    if random.once_in(40) {
        let count = 14 + random.below(120);
        return MemoryFrame::new(random.bytes(count), ETH0);
    }
    let (sentence, interface) = match random.below(20) {
        0 | 1 => error(random, is_v6),
        2..13 => {
            let sentence = request(random, is_v6);
            (decorated(random, sentence, is_v6), ETH0)
        }
        _ => {
            let sentence = answer(random, is_v6);
            (decorated(random, sentence, is_v6), ETH1)
        }
    };
    let mut bytes = if random.once_in(8) {
        lying(random, sentence).build()
    } else {
        sentence.build()
    };
    damage(random, &mut bytes);
    MemoryFrame::new(bytes, interface)
}

fn client(random: &mut Random, is_v6: bool) -> (&'static str, u16) {
    let clients = if is_v6 { CLIENTS_V6 } else { CLIENTS_V4 };
    let port = 40_000 + u16::try_from(random.below(PORTS)).expect("few ports");
    (random.pick(clients), port)
}

fn ip(sentence: Sentence, source: &str, destination: &str) -> Sentence {
    let parse = |text: &str| text.parse().expect("an address of the world");
    sentence.ip(parse(source), parse(destination))
}

fn transport(random: &mut Random, from: Sentence, protocol: u8, ports: (u16, u16)) -> Sentence {
    if protocol == TCP {
        from.tcp(ports.0, ports.1).flags(random.pick(FLAGS))
    } else {
        from.udp(ports.0, ports.1)
    }
}

/// An address and a port.
type End = (&'static str, u16);

fn request(random: &mut Random, is_v6: bool) -> Sentence {
    let (vip, protocol) = called(random, is_v6);
    let client = client(random, is_v6);
    let sentence = ip(eth().to(MAC0), client.0, vip.0);
    transport(random, sentence, protocol, (client.1, vip.1))
}

fn answer(random: &mut Random, is_v6: bool) -> Sentence {
    let (target, protocol) = serving(random, is_v6);
    let client = client(random, is_v6);
    let sentence = ip(eth().to(MAC1), target.0, client.0);
    transport(random, sentence, protocol, (target.1, client.1))
}

/// An ICMP error, or what looks like one, about an answer from a VIP or a request to a target.
fn error(random: &mut Random, is_v6: bool) -> (Sentence, u32) {
    let client = client(random, is_v6);
    let is_answer = random.once_in(2);
    let (server, protocol) = if is_answer {
        called(random, is_v6)
    } else {
        serving(random, is_v6)
    };
    let (from, to) = if is_answer {
        (server, client)
    } else {
        (client, server)
    };
    let quoted = ip(eth(), from.0, to.0);
    let quoted = transport(random, quoted, protocol, (from.1, to.1));
    let mut quoted = decorated(random, quoted, is_v6);
    if random.once_in(16) {
        quoted = lying(random, quoted);
    }
    let count = random.pick(&[8, 8, 16, 18, 20, 7, 0, 64]);
    let (mac, interface) = if is_answer {
        (MAC0, ETH0)
    } else {
        (MAC1, ETH1)
    };
    // From a router, or from the end that the quoted packet was for.
    let router = if is_v6 {
        "2001:db8:c::fe"
    } else {
        "10.0.0.254"
    };
    let source = random.pick(&[router, to.0]);
    let to = if random.once_in(30) { to.0 } else { from.0 };
    let kinds: &[u8] = if is_v6 {
        &[1, 2, 3, 4, 128, 129, 135]
    } else {
        &[3, 3, 11, 12, 8, 0, 5]
    };
    let mut error = ip(eth().to(mac), source, to)
        .icmp(random.pick(kinds))
        .code(random.byte() & 15, [0; 4])
        .quoting(&quoted, count);
    if random.once_in(16) {
        error = error.ttl(random.pick(&[0, 1, 2, 255]));
    }
    if random.once_in(16) {
        error = if is_v6 {
            error.hop_by_hop()
        } else {
            error.options(&[1; 4])
        };
    }
    (error, interface)
}

/// A listener that somebody calls.
fn called(random: &mut Random, is_v6: bool) -> (End, u8) {
    let of_version: Vec<_> = LISTENERS
        .iter()
        .filter(|listener| listener.1.contains(':') == is_v6)
        .collect();
    // The first listeners of the world are those that work: they get most of the traffic.
    let tunnels: Vec<_> = of_version
        .iter()
        .copied()
        .filter(|listener| [TUNNEL_VIP, TUNNEL_VIP_V6].contains(&listener.1))
        .collect();
    let selective: Vec<_> = of_version
        .iter()
        .copied()
        .filter(|listener| asks_who_comes(listener.0))
        .collect();
    let quic: Vec<_> = of_version
        .iter()
        .copied()
        .filter(|listener| QUIC.iter().any(|(other, _)| *other == listener.0))
        .collect();
    let full: Vec<_> = of_version
        .iter()
        .copied()
        .filter(|listener| [FULL_VIP, FULL_VIP_V6].contains(&listener.1))
        .collect();
    let (_, vip, protocol, mut port, _) = match random.below(10) {
        9 => *random.pick(&full),
        8 => *random.pick(&quic),
        0 | 1 => *of_version[random.below(of_version.len())],
        2 => *tunnels[random.below(tunnels.len())],
        3 | 4 => *selective[random.below(selective.len())],
        _ => *of_version[random.below(4)],
    };
    if random.once_in(50) {
        port = random.word();
    }
    if random.once_in(100) && vip == VIP {
        port = UNWRITTEN_LISTENER_PORT;
    }
    ((vip, port), protocol)
}

/// A translated target, which answers somebody.
fn serving(random: &mut Random, is_v6: bool) -> (End, u8) {
    let targets: Vec<_> = GROUPS
        .iter()
        .filter(|group| group.mode == Mode::NAT)
        .flat_map(|group| {
            group
                .targets
                .iter()
                .map(move |target| (group.protocol, target))
        })
        .filter(|(_, target)| target.1.contains(':') == is_v6)
        .collect();
    // As with listeners: the first groups are those whose connections get anywhere.
    let count = if random.once_in(4) { targets.len() } else { 5 };
    let (protocol, target) = targets[random.below(count)];
    ((target.1, target.2), protocol)
}

/// A target's answer to a frame that was sent on, if that has the plainest of shapes: both ends of
/// everything change places.
pub fn reply(sent: &[u8]) -> Option<MemoryFrame> {
    let mut bytes = sent.to_vec();
    let (start, length) = match bytes.get(12..15)? {
        [0x08, 0x00, 0x45] => (26, 4),
        [0x86, 0xdd, _] => (22, 16),
        _ => return None,
    };
    let ports = start + 2 * length;
    if bytes.len() < ports + 4 {
        return None;
    }
    let (one, other) = bytes[start..ports].split_at_mut(length);
    one.swap_with_slice(other);
    let (one, other) = bytes[ports..ports + 4].split_at_mut(2);
    one.swap_with_slice(other);
    bytes[..6].copy_from_slice(&crate::world::MAC1);
    Some(MemoryFrame::new(bytes, ETH1))
}

/// An ICMP error about a frame that was sent on, if that has the plainest of shapes: to whom it says
/// that it comes from, from a router or from the receiver, on either side.
pub fn complaint(random: &mut Random, sent: &[u8]) -> Option<MemoryFrame> {
    let facts = facts::read(sent)?;
    let is_v6 = facts.source.is_ipv6();
    let (mac, interface) = random.pick(&[(MAC1, ETH1), (MAC0, ETH0)]);
    let router = if is_v6 { "fd00::fe" } else { "10.0.0.254" };
    let router = router.parse().expect("an address of the world");
    let from = random.pick(&[router, facts.destination]);
    let kinds: &[u8] = if is_v6 { &[1, 2, 3, 4] } else { &[3, 11, 12] };
    let error = eth().to(mac).ip(from, facts.source);
    // An MTU, or how much is quoted.
    let rest = random.pick(&[
        [0; 4],
        [0, 0, 5, 0],
        [0, 32, 5, 0],
        [16, 0, 0, 0],
        [0, 0, 0, 90],
    ]);
    let error = error.icmp(random.pick(kinds)).code(random.byte() & 7, rest);
    let quoted: Vec<u8> = sent
        .get(14..)?
        .iter()
        .copied()
        .take(random.pick(&[28, 36, 48, 60, 84, 104, 128, 512]))
        .collect();
    Some(MemoryFrame::new(error.payload(&quoted).build(), interface))
}

/// A QUIC packet's beginning, of which not everything need be true: the header's form, the length of
/// the connection ID, the server's number in it, and where it is cut.
fn quic(random: &mut Random) -> Vec<u8> {
    let (_, layout) = random.pick(QUIC);
    let (_, number, _) = random.pick(SERVERS);
    let mut id = random.bytes(layout.id_bytes.into());
    let (at, length) = (
        usize::from(layout.server_id_offset_bytes),
        usize::from(layout.server_id_bytes),
    );
    id[at..at + length].copy_from_slice(&number.to_be_bytes()[8 - length..]);
    if random.once_in(6) {
        let at = random.below(id.len());
        id[at] = random.byte();
    }
    let mut bytes = vec![random.byte()];
    if bytes[0] & 0x80 != 0 {
        let version = random.pick(&[1, 0x6b33_43cf, 0, u32::MAX]);
        bytes.extend(version.to_be_bytes());
        bytes.push(if random.once_in(4) {
            random.pick(&[0, 8, 16, 18, 20, 255])
        } else {
            layout.id_bytes
        });
    }
    bytes.extend(id);
    let rest = random.below(24);
    bytes.extend(random.bytes(rest));
    if random.once_in(5) {
        let left = random.below(bytes.len());
        bytes.truncate(left);
    }
    bytes
}

/// Rare but right: options, extension headers, sizes, hops.
fn decorated(random: &mut Random, mut sentence: Sentence, is_v6: bool) -> Sentence {
    let length = match random.below(20) {
        0 => 1380 + random.below(90),
        1 => 500 + random.below(100),
        2..10 => 0,
        _ => random.below(64),
    };
    let payload = if random.once_in(3) {
        quic(random)
    } else {
        random.bytes(length)
    };
    sentence = sentence.payload(&payload).class(random.byte());
    if random.once_in(16) {
        sentence = sentence.ttl(random.pick(&[0, 1, 2, 255]));
    }
    if random.once_in(6) {
        sentence = if is_v6 {
            (0..random.below(9)).fold(sentence, |sentence, _| {
                let body = random.pick(&[6, 14, 6, 22]);
                let number = random.pick(&[0, 43, 60, 43, 60, 44, 50]);
                let bytes = random.bytes(body);
                sentence.extension(number, &bytes)
            })
        } else {
            let count = random.below(41);
            sentence.options(&random.bytes(count))
        };
    }
    match random.below(24) {
        0 => sentence.padded(),
        1 => {
            let count = random.below(32);
            sentence.trailer(&random.bytes(count))
        }
        2 => sentence.vlan(5),
        3 => sentence.service_vlan(7).vlan(5),
        4 => sentence.fragment(0, true, random.pick(NUMBERS)),
        5 => {
            let offset_bytes = random.pick(&[1480, 1480, 1480, 8, 16, 24, 0xfff8]);
            let is_more = random.once_in(2);
            sentence.fragment(offset_bytes, is_more, random.pick(NUMBERS))
        }
        6 => {
            let echo = sentence.echo();
            if random.once_in(2) {
                echo
            } else {
                let offset_bytes = random.pick(&[0, 0, 1480]);
                echo.fragment(offset_bytes, true, random.pick(NUMBERS))
            }
        }
        7 => sentence.no_checksum(),
        8 => sentence.tcp_options(&[2, 4, 5, 0xb4]),
        9 => {
            let count = random.below(41);
            sentence.tcp_options(&random.bytes(count))
        }
        10 => sentence.fragment_word(0x4000),
        _ => sentence,
    }
}

/// A word of the headers says something else than the truth.
fn lying(random: &mut Random, sentence: Sentence) -> Sentence {
    let near = u16::try_from(random.below(120)).expect("small");
    let word = if random.once_in(2) {
        near
    } else {
        random.word()
    };
    match random.below(8) {
        0 | 1 => sentence.length(word),
        2 => sentence.udp_length(word),
        3 => sentence.data_words(random.byte() & 15),
        4 => sentence.header_words(random.byte() & 15),
        5 => sentence.version(random.byte() & 15),
        6 => sentence.protocol(random.byte()),
        _ => sentence.fragment_word(word),
    }
}

/// The frame is cut, or some of its bytes are others.
fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    if random.once_in(12) {
        let at = 14 + random.below(bytes.len() - 14);
        bytes.truncate(at);
    }
    if random.once_in(10) {
        let headers = bytes.len().min(100);
        for _ in 0..=random.below(3) {
            let at = random.below(headers);
            bytes[at] = random.byte();
        }
    }
    // The kernel routes nothing for a multicast sender (RFC 4291 §2.7), whoever the receiver is;
    // the memory body's routes know receivers only.
    for network in [14, 18, 22] {
        if bytes.get(network - 2..network) == Some(&[0x86, 0xdd])
            && bytes.get(network + 8) == Some(&0xff)
        {
            bytes[network + 8] = 0x20;
        }
    }
}

/// Any bytes, through the packet path; it must not panic, and what it passes or drops it must not
/// have touched.
pub fn packet(bytes: &[u8], tables: &MemoryTables) {
    use nlb_ebpf::Verdict;
    for interface in [ETH0, ETH1] {
        let mut frame = MemoryFrame::new(bytes.to_vec(), interface);
        match handle(&mut frame, tables) {
            Verdict::Pass | Verdict::Drop => assert_eq!(
                frame.bytes, bytes,
                "a frame that was not sent on has changed"
            ),
            // Sent on, perhaps with another VLAN tag, or answered.
            Verdict::Redirect(_) | Verdict::Transmit => {}
        }
    }
}

/// A world in which flows are under way, the same for every input of the fuzz target `packet`.
///
/// It is built once: its rings take a thousand times as long as a packet does.
#[derive(Debug)]
pub struct Arena {
    tables: MemoryTables,
    opening: Vec<Vec<u8>>,
}

/// The client's port of the flows in an [`Arena`].
pub const ARENA_PORT: u16 = 40_000;

impl Default for Arena {
    fn default() -> Self {
        let begin = |client, vip| ip(eth().to(MAC0), client, vip);
        let (v4, v6) = (begin(CLIENT, VIP), begin(CLIENT_V6, VIP_V6));
        let opening = [v4, v6].into_iter().flat_map(|sentence| {
            let tcp = sentence.clone().tcp(ARENA_PORT, 80).syn();
            [tcp.build(), sentence.udp(ARENA_PORT, 53).build()]
        });
        Self {
            tables: tables(),
            opening: opening.collect(),
        }
    }
}

impl Arena {
    /// The body of the fuzz target `packet`: [`packet`], with nothing left of the input before.
    pub fn packet(&mut self, bytes: &[u8]) {
        self.tables.buckets.fill_with(Bucket::default);
        self.tables.listener_counters.take();
        self.tables.target_counters.take();
        self.tables.events.take();
        self.tables.fragments.take();
        for frame in &self.opening {
            let mut frame = MemoryFrame::new(frame.clone(), ETH0);
            let verdict = handle(&mut frame, &self.tables);
            assert_eq!(verdict, nlb_ebpf::Verdict::Redirect(ETH1));
        }
        packet(bytes, &self.tables);
    }
}

/// The body of the fuzz target `config`: any text is a configuration or a list of faults.
pub fn config(text: &str) {
    if let Err(faults) = nlb_userspace::config::parse("fuzz.toml", text) {
        assert!(!faults.to_string().is_empty(), "a refusal without a reason");
    }
}
