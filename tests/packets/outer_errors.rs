//! ICMP errors about outer packets: the client is told of its own.

use nlb_common::{
    answer::ErrorBudget,
    stop::Stop,
    tick::Tick,
    wire::protocol::{TCP, UDP},
};
use nlb_ebpf::tables::PassageKind::{New, Return};
use nlb_tests::{
    outer::wrapped,
    packet::{Sentence, facts},
    world::{CLIENT, FULL_VIP, TUNNEL_VIP, from_target, tables},
};

use crate::{
    answers::{QUOTE_BYTES, error_quoting},
    connection::to_client,
    row::{Row, row},
    tunnels::{Case, V4, V6, case},
};

/// `(type, code, rest)` of an error.
type Kind = (u8, u8, [u8; 4]);

const TOO_BIG_V4: Kind = (3, 4, [0, 0, 5, 0x14]);
const TOO_BIG_V6: Kind = (2, 0, [0, 0, 5, 0x14]);
/// Their MTU.
const MTU_BYTES: usize = 1300;
/// What comes to "nobody delivers to the host".
const LOST_V4: &[Kind] = &[
    (3, 0, [0; 4]),
    (3, 1, [0; 4]),
    (3, 2, [0; 4]),
    (3, 3, [0; 4]),
    (3, 13, [0; 4]),
    (11, 0, [0; 4]),
];
const LOST_V6: &[Kind] = &[
    (1, 0, [0; 4]),
    (1, 3, [0; 4]),
    (1, 4, [0; 4]),
    (3, 0, [0; 4]),
];
/// What concerns nobody but who wrote the outer headers.
const UNTOLD_V4: &[Kind] = &[
    (3, 5, [0; 4]),
    (12, 0, [0; 4]),
    (3, 4, [0; 4]),
    (3, 4, [0, 0, 0, 60]),
];
const UNTOLD_V6: &[Kind] = &[
    (4, 0, [0, 0, 0, 6]),
    (2, 0, [0; 4]),
    (2, 0, [0, 0, 0, 60]),
    (2, 0, [0, 1, 5, 0x14]),
];

/// A client's packet, and the outer one that it went on in.
struct Sent {
    case: Case,
    frame: Sentence,
    out: Sentence,
}

impl Sent {
    /// By IPv4 one that may not be fragmented.
    fn by(case: Case, rest: impl Fn(Sentence) -> Sentence) -> Self {
        let frame = rest(case.packet(0).fragment_word(0x4000).payload(&[0x5a; 400]));
        let client = (case.ends().0, case.client_port(0), case.protocol);
        let (target, at) = case.target();
        let out = wrapped(&tables(), &frame.build(), (client, 0), target, at);
        Self { case, frame, out }
    }

    fn ids(&self) -> (u16, u32) {
        let (listener, _) = self.case.listener();
        (listener.0, self.case.target().0)
    }

    /// The outer packet, as a router has it.
    fn outer(&self) -> Vec<u8> {
        self.out.build().split_off(14)
    }

    /// Bytes of the outer headers.
    fn overhead_bytes(&self) -> usize {
        self.out.build().len() - self.frame.build().len()
    }

    fn is_outer_v4(&self) -> bool {
        !self.case.target().1.contains(':')
    }

    /// A router's error about these bytes, to where the outer packet came from.
    fn error(&self, (kind, code, rest): Kind, quote: &[u8]) -> Sentence {
        let from = if self.is_outer_v4() {
            "10.0.0.254"
        } else {
            "fd00::fe"
        };
        let source = facts::read(&self.out.build()).expect("a packet").source;
        from_target(from)
            .ip(from.parse().expect("an address"), source)
            .icmp(kind)
            .code(code, rest)
            .payload(quote)
    }

    /// The VIP's own error, quoting so many bytes of the client's packet.
    fn told(&self, said: (u8, u8, u32), bytes: usize) -> Sentence {
        let (client, vip) = self.case.ends();
        let mut quote = self.frame.build().split_off(14);
        quote.truncate(bytes.min(QUOTE_BYTES) & !3);
        error_quoting(to_client(), (vip, client), said, &quote)
    }

    fn too_big(&self) -> Kind {
        if self.is_outer_v4() {
            TOO_BIG_V4
        } else {
            TOO_BIG_V6
        }
    }

    fn told_too_big(&self, bytes: usize) -> Sentence {
        let left = u32::try_from(MTU_BYTES - self.overhead_bytes()).expect("an MTU");
        if self.case.is_v6 {
            self.told((2, 0, left), bytes)
        } else {
            self.told((3, 4, left), bytes)
        }
    }

    fn told_lost(&self, bytes: usize) -> Sentence {
        if self.case.is_v6 {
            self.told((1, 3, 0), bytes)
        } else {
            self.told((3, 1, 0), bytes)
        }
    }

    fn begins(&self, claim: &'static str) -> Row {
        row(claim).sends(&self.frame, &self.out, self.ids(), New)
    }
}

fn sent(case: Case) -> Sent {
    Sent::by(case, |packet| packet)
}

/// One of each encapsulation, outer and inner version, TCP and UDP in turn.
const WAYS: [Case; 12] = [
    case(V4, TCP, 1),
    case(V6, UDP, 1),
    case(V4, UDP, 2),
    case(V6, TCP, 2),
    case(V4, UDP, 3),
    case(V6, TCP, 3),
    case(V4, TCP, 4),
    case(V6, UDP, 4),
    case(V4, TCP, 5),
    case(V6, UDP, 5),
    case(V4, UDP, 6),
    case(V6, TCP, 6),
];

/// Every kind of error that a client is told of, with quotes of every length that suffices.
fn told(case: Case, claim: &'static str) -> Row {
    let sent = sent(case);
    let mut row = sent.begins(claim);
    let header = if case.is_v6 { 40 } else { 20 };
    for bytes in [8, 11, 20, 87, 88, 89, 200, 1000] {
        let mut quote = sent.outer();
        quote.truncate(sent.overhead_bytes() + header + bytes);
        let kept = quote.len() - sent.overhead_bytes();
        let error = sent.error(sent.too_big(), &quote);
        row = row.sends(&error, &sent.told_too_big(kept), sent.ids(), Return);
    }
    for kind in if sent.is_outer_v4() { LOST_V4 } else { LOST_V6 } {
        let error = sent.error(*kind, &sent.outer());
        row = row.sends(&error, &sent.told_lost(usize::MAX), sent.ids(), Return);
    }
    row.remembers(1)
}

fn every_way() -> Vec<Row> {
    let claims = [
        "errors about ipv4 in ipip over ipv4 reach the client as of its own packet",
        "errors about ipv6 in ipip over ipv4 reach the client as of its own packet",
        "errors about ipv4 in ipip over ipv6 reach the client as of its own packet",
        "errors about ipv6 in ipip over ipv6 reach the client as of its own packet",
        "errors about ipv4 in gue over ipv4 reach the client as of its own packet",
        "errors about ipv6 in gue over ipv4 reach the client as of its own packet",
        "errors about ipv4 in gue over ipv6 reach the client as of its own packet",
        "errors about ipv6 in gue over ipv6 reach the client as of its own packet",
        "errors about ipv4 in geneve over ipv4 reach the client as of its own packet",
        "errors about ipv6 in geneve over ipv4 reach the client as of its own packet",
        "errors about ipv4 in geneve over ipv6 reach the client as of its own packet",
        "errors about ipv6 in geneve over ipv6 reach the client as of its own packet",
    ];
    let mut rows: Vec<Row> = (WAYS.into_iter().zip(claims))
        .map(|(case, claim)| told(case, claim))
        .collect();
    rows.extend([
        told(
            case(V4, TCP, 7),
            "so do those to an ipv4 source that is a flow's own",
        ),
        told(
            case(V4, TCP, 8),
            "so do those to an ipv6 source that is a flow's own",
        ),
    ]);
    rows
}

/// Errors that no client is told of, in every way.
fn untold() -> Vec<Row> {
    let mut short = row("an error that quotes too little of the client's packet is counted");
    let mut useless = row("an error that a client can do nothing about is counted");
    for case in WAYS {
        let sent = sent(case);
        let needed = sent.overhead_bytes() + if case.is_v6 { 48 } else { 28 };
        // From what RFC 792 asks for on: eight bytes behind the outer IP header.
        let outer_header = if sent.is_outer_v4() { 20 } else { 40 };
        for bytes in outer_header + 8..needed {
            let error = sent.error(sent.too_big(), &sent.outer()[..bytes]);
            short = short.stops(&error, Stop::OuterErrorUnreadable);
        }
        for kind in if sent.is_outer_v4() {
            UNTOLD_V4
        } else {
            UNTOLD_V6
        } {
            let error = sent.error(*kind, &sent.outer());
            useless = useless.stops(&error, Stop::OuterErrorUntold);
        }
    }
    let may = Sent::by(case(V4, TCP, 1), |packet| packet.fragment_word(0));
    let later = Sent::by(case(V4, TCP, 1), |packet| packet);
    let mut quote = later.outer();
    quote[26] = 0x40 | 1;
    vec![
        short.remembers(0),
        useless.remembers(0),
        row("a client that lets its packets be fragmented is not told that they are too big")
            .stops(&may.error(TOO_BIG_V4, &may.outer()), Stop::OuterErrorUntold)
            .sends(
                &may.error(LOST_V4[0], &may.outer()),
                &may.told_lost(usize::MAX),
                may.ids(),
                Return,
            ),
        row("an error about a later fragment of a client's is counted")
            .stops(&later.error(TOO_BIG_V4, &quote), Stop::OuterErrorUnreadable),
    ]
}

/// Errors that only look like ours.
fn not_ours() -> Vec<Row> {
    let mut elsewhere = row("an error about what we did not send from there is the host's");
    let mut other = row("an error about a packet for another target than the flow's is the host's");
    let mut nobody = row("an error about a packet for no listener is the host's");
    let mut hostless = row("an error about a client that is no host is the host's");
    for case in WAYS {
        let sent = sent(case);
        let error = sent.error(sent.too_big(), &sent.outer());
        let v4 = sent.is_outer_v4();
        let mut quote = sent.outer();
        // The last byte of the outer source, here and there.
        quote[if v4 { 15 } else { 23 }] ^= 2;
        elsewhere = elsewhere.passes(&sent.error(sent.too_big(), &quote));
        let moved = error.clone();
        let (router, own) = if v4 {
            ("10.0.0.254", "10.0.0.3")
        } else {
            ("fd00::fe", "fd00::3")
        };
        let parse = |text: &str| text.parse().expect("an address");
        elsewhere = elsewhere.passes(&moved.ip(parse(router), parse(own)).payload(&quote));
        let mut quote = sent.outer();
        // Of .21 and .22 the other one.
        quote[if v4 { 19 } else { 39 }] ^= 3;
        other = other.passes(&sent.error(sent.too_big(), &quote));
        let mut quote = sent.outer();
        let inner = sent.overhead_bytes();
        // The VIP's last byte.
        quote[inner + if case.is_v6 { 39 } else { 19 }] ^= 1;
        nobody = nobody.passes(&sent.error(sent.too_big(), &quote));
        let mut quote = sent.outer();
        quote[inner + if case.is_v6 { 8 } else { 12 }] = if case.is_v6 { 0xff } else { 239 };
        // The ring may lead it to either target.
        let mut swapped = quote.clone();
        swapped[if v4 { 19 } else { 39 }] ^= 3;
        for quote in [quote, swapped] {
            hostless = hostless.passes(&sent.error(sent.too_big(), &quote));
        }
    }
    let gue = sent(case(V4, TCP, 3));
    let (headers, inner) = (gue.outer(), gue.frame.build().split_off(14));
    let geneve = [0, 0, 8, 0, 0, 0, 0, 0];
    let as_geneve = [&headers[..28], &geneve, &inner[..]].concat();
    let ipip = sent(case(V4, TCP, 1));
    vec![
        elsewhere,
        other,
        nobody,
        hostless,
        row("an error about a tunnel of another kind is the host's")
            .passes(&gue.error(TOO_BIG_V4, &as_geneve)),
        row("an error about what the host itself sends to a target is the host's").passes(
            &from_target("10.0.0.254")
                .ipv4("10.0.0.254", "10.0.0.1")
                .icmp_error(3, 4, 1300)
                .quoting(
                    &from_target("10.0.0.21")
                        .ipv4("10.0.0.1", "10.0.0.21")
                        .tcp(40_000, 80),
                    64,
                ),
        ),
        row("an error about an outer packet to a vip is the vip's").stops(
            &ipip
                .error(TOO_BIG_V4, &ipip.outer())
                .ipv4("10.0.0.254", FULL_VIP),
            Stop::IcmpUnreadable,
        ),
    ]
}

fn around() -> Vec<Row> {
    let web = sent(case(V4, TCP, 1));
    let error = web.error(TOO_BIG_V4, &web.outer());
    let told = web.told_too_big(usize::MAX);
    let extended = Sent::by(case(V6, UDP, 2), |packet| packet.hop_by_hop().routing());
    let options = Sent::by(case(V4, TCP, 3), |packet| packet.options(&[1; 40]));
    // 32 words, zeros among them, and then an extension (RFC 4884 §5.1).
    let small = Sent::by(case(V4, UDP, 1), |packet| packet.payload(b"few"));
    let mut padded = small.outer();
    padded.resize(128, 0);
    padded.extend([0x20, 0, 0, 0, 0, 8, 1, 1, 0xbe, 0xef, 0xbe, 0xef]);
    let mut long = web.outer();
    long.truncate(128);
    long.extend([0x20, 0, 0, 0, 0, 8, 1, 1, 0xbe, 0xef, 0xbe, 0xef]);
    let gone = sent(case(V6, TCP, 4));
    let mut long_v6 = gone.outer();
    long_v6.truncate(128);
    long_v6.extend([0x20, 0, 0, 0, 0, 8, 1, 1, 0xbe, 0xef, 0xbe, 0xef]);
    vec![
        row("a flow that nobody remembers is told by the ring")
            .sends(&error, &told, web.ids(), Return)
            .remembers(0),
        row("errors with ip options, with tags and with trailers are read")
            .sends(&error.clone().options(&[1; 8]), &told, web.ids(), Return)
            .sends(&error.clone().trailer(&[7; 9]), &told, web.ids(), Return)
            .sends(&error.clone().vlan(7), &told, web.ids(), Return),
        row("the last hop of an error is no matter: we tell anew").sends(
            &error.clone().ttl(1),
            &told,
            web.ids(),
            Return,
        ),
        row("a client's extension headers are shown").sends(
            &extended.error(TOO_BIG_V6, &extended.outer()),
            &extended.told_too_big(usize::MAX),
            extended.ids(),
            Return,
        ),
        row("a client's options are shown").sends(
            &options.error(TOO_BIG_V4, &options.outer()),
            &options.told_too_big(usize::MAX),
            options.ids(),
            Return,
        ),
        row("extensions of an error, and zeros before them, are not taken for the packet")
            .sends(
                &small.error((11, 0, [0, 32, 0, 0]), &padded),
                &small.told_lost(31),
                small.ids(),
                Return,
            )
            .sends(
                &web.error((3, 4, [0, 32, 5, 0x14]), &long),
                &web.told_too_big(128 - web.overhead_bytes()),
                web.ids(),
                Return,
            )
            .sends(
                &gone.error((1, 0, [16, 0, 0, 0]), &long_v6),
                &gone.told_lost(128 - gone.overhead_bytes()),
                gone.ids(),
                Return,
            ),
        row("clients are told of outer packets as often as of all else")
            .change(|tables| {
                let now = Tick(tables.now.get());
                tables.error_budget.set(ErrorBudget::new(now, 1).0);
            })
            .sends(&error, &told, web.ids(), Return)
            .stops(&error, Stop::ErrorLimit),
        row("a tunnel that is just being changed is told of no error")
            .change(|tables| tables.tunnels[64] = nlb_common::tunnel::TunnelSlot::default())
            .passes(&error)
            .change(|tables| tables.tunnels[64].write(&nlb_tests::world::tunnel(64))),
        row("an error about an answer, from the vip, is not one about an outer packet").passes(
            &from_target("10.0.0.254")
                .ipv4("10.0.0.254", "10.0.0.1")
                .icmp_error(3, 4, 1300)
                .quoting(
                    &from_target("10.0.0.21").ipv4(TUNNEL_VIP, CLIENT).tcp(1, 2),
                    64,
                ),
        ),
    ]
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = every_way();
    rows.extend(untold());
    rows.extend(not_ours());
    rows.extend(around());
    rows
}
