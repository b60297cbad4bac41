//! ICMP errors about packets of our flows, both ways.
//!
//! What must come out is said anew, with checksums computed whole.

use std::net::IpAddr;

use nlb_common::{
    stop::Stop,
    wire::protocol::{TCP, UDP},
};
use nlb_ebpf::tables::PassageKind::{Known, New, Return, Unpinned};
use nlb_tests::{
    packet::{Sentence, eth},
    world::{
        CLIENT, CLIENT_V6, DSR_VIP, DSR_VIP_V6, FAR_CLIENT, QUIET_CLIENT, VIP, VIP_V6, from_client,
        from_target, on_to, port_to, tables,
    },
};

use crate::row::{Row, row};

/// Quotes of every kind of length: what RFC 792 asks for, just too little and just enough of a
/// TCP header to have its checksum, and all there is.
pub(crate) const QUOTED_BYTES: &[usize] = &[8, 16, 18, usize::MAX];

/// `(type, code, rest)` of each error, ICMP's and `ICMPv6`'s.
pub(crate) type Kind = (u8, u8, [u8; 4]);
pub(crate) const ERRORS_V4: &[Kind] = &[
    (3, 1, [0; 4]),
    (3, 3, [0; 4]),
    (3, 4, [0, 0, 5, 0x14]),
    (11, 0, [0; 4]),
    (12, 0, [20, 0, 0, 0]),
];
pub(crate) const ERRORS_V6: &[Kind] = &[
    (1, 4, [0; 4]),
    (2, 0, [0, 0, 5, 0]),
    (3, 0, [0; 4]),
    (4, 1, [0, 0, 0, 6]),
];

/// A flow, and the sentences about it.
#[derive(Clone, Copy)]
struct Flow {
    client: (&'static str, u16),
    vip: (&'static str, u16),
    target: (&'static str, u16),
    protocol: u8,
    ids: (u16, u32),
    is_nat: bool,
}

impl Flow {
    fn new(
        vip: (&'static str, u16),
        protocol: u8,
        ids: (u16, u32),
        target: (&'static str, u16),
        is_nat: bool,
    ) -> Self {
        let client = if vip.0.contains(':') {
            CLIENT_V6
        } else {
            CLIENT
        };
        let port = port_to(&tables(), client, vip, protocol, ids.1, 0);
        Self {
            client: (client, port),
            vip,
            target,
            protocol,
            ids,
            is_nat,
        }
    }

    fn web() -> Self {
        Self::new((VIP, 80), TCP, (1, 11), ("10.0.0.11", 8080), true)
    }

    fn web_v6() -> Self {
        Self::new((VIP_V6, 80), TCP, (3, 16), ("fd00::11", 8080), true)
    }

    fn dns() -> Self {
        Self::new((VIP, 53), UDP, (2, 14), ("10.0.0.11", 5353), true)
    }

    fn dns_v6() -> Self {
        Self::new((VIP_V6, 53), UDP, (4, 19), ("fd00::11", 5353), true)
    }

    fn direct_web() -> Self {
        Self::new((DSR_VIP, 80), TCP, (5, 22), ("10.0.0.22", 80), false)
    }

    fn direct_web_v6() -> Self {
        Self::new((DSR_VIP_V6, 80), TCP, (7, 24), ("fd00::22", 80), false)
    }

    fn direct_dns() -> Self {
        Self::new((DSR_VIP, 53), UDP, (6, 21), ("10.0.0.21", 53), false)
    }

    fn direct_dns_v6() -> Self {
        Self::new((DSR_VIP_V6, 53), UDP, (8, 23), ("fd00::21", 53), false)
    }

    fn is_v6(&self) -> bool {
        self.client.0.contains(':')
    }

    fn errors(&self) -> &'static [Kind] {
        if self.is_v6() { ERRORS_V6 } else { ERRORS_V4 }
    }

    fn segment(&self, begun: Sentence, from: (&str, u16), to: (&str, u16)) -> Sentence {
        let packet = ip(begun, from.0, to.0);
        if self.protocol == TCP {
            packet.tcp(from.1, to.1)
        } else {
            packet.udp(from.1, to.1)
        }
    }

    /// The flow's first packet is sent on.
    fn begins(&self, row: Row) -> Row {
        let came = self.segment(from_client(), self.client, self.vip);
        let out = if self.is_nat {
            self.segment(on_to(self.target.0), self.client, self.target)
                .ttl(63)
        } else {
            self.segment(on_to(self.target.0), self.client, self.vip)
        };
        row.sends(&came, &out, self.ids, New)
    }

    /// A packet that the client gets, as it is behind us, and as the target sent it.
    fn answer(&self) -> (Sentence, Sentence) {
        let sent_by = |server| {
            self.segment(eth(), server, self.client)
                .ttl(61)
                .payload(b"an answer")
        };
        let target = if self.is_nat { self.target } else { self.vip };
        (sent_by(self.vip), sent_by(target))
    }

    /// A packet that the target gets, and as the client sent it.
    fn request(&self) -> (Sentence, Sentence) {
        let sent_to = |server| {
            self.segment(eth(), self.client, server)
                .ttl(61)
                .payload(b"a question")
        };
        (sent_to(self.target), sent_to(self.vip))
    }

    /// A router on the client's side.
    fn router(&self) -> &'static str {
        if self.is_v6() {
            "2001:db8:c::fe"
        } else {
            "198.51.100.254"
        }
    }

    /// A router on the target's side.
    fn inner_router(&self) -> &'static str {
        if self.is_v6() {
            "fd00::fe"
        } else {
            "10.0.0.254"
        }
    }

    /// An error about an answer, as it comes to the VIP.
    fn error(&self, kind: Kind) -> Sentence {
        said(ip(from_client(), self.router(), self.vip.0), kind)
    }

    /// The same on its way to the target.
    fn passed_on(&self, kind: Kind) -> Sentence {
        let out = on_to(self.target.0);
        if self.is_nat {
            said(ip(out, self.router(), self.target.0).ttl(63), kind)
        } else {
            said(ip(out, self.router(), self.vip.0), kind)
        }
    }

    /// An error about a request, said by a router or the target.
    fn inner_error(&self, sender: &'static str, kind: Kind) -> Sentence {
        said(ip(from_target(sender), sender, self.client.0), kind)
    }

    /// The same on its way to the client.
    fn passed_back(&self, sender: &'static str, kind: Kind) -> Sentence {
        said(
            ip(on_to(self.client.0), sender, self.client.0).ttl(63),
            kind,
        )
    }

    /// Errors of every kind, and of every length of quote, about a packet to the client.
    fn every_error(&self, mut row: Row, is_known: bool) -> Row {
        let (quoted, translated) = self.answer();
        for &kind in self.errors() {
            for &bytes in QUOTED_BYTES {
                row = row.sends(
                    &self.error(kind).quoting(&quoted, bytes),
                    &self.passed_on(kind).quoting(&translated, bytes),
                    self.ids,
                    if is_known { Known } else { Unpinned },
                );
            }
        }
        row
    }

    /// The same about a packet to the target.
    fn every_inner_error(&self, mut row: Row) -> Row {
        let (quoted, translated) = self.request();
        let (router, target) = (self.inner_router(), self.target.0);
        for &kind in self.errors() {
            for &bytes in QUOTED_BYTES {
                for (sender, seen_as) in [(router, router), (target, self.vip.0)] {
                    row = row.sends(
                        &self.inner_error(sender, kind).quoting(&quoted, bytes),
                        &self.passed_back(seen_as, kind).quoting(&translated, bytes),
                        self.ids,
                        Return,
                    );
                }
            }
        }
        row
    }
}

pub(crate) fn ip(sentence: Sentence, source: &str, destination: &str) -> Sentence {
    let parse = |text: &str| -> IpAddr { text.parse().expect("an address of the world") };
    sentence.ip(parse(source), parse(destination))
}

pub(crate) fn said(sentence: Sentence, (kind, code, rest): Kind) -> Sentence {
    sentence.icmp(kind).code(code, rest)
}

const TOO_BIG: Kind = ERRORS_V4[2];
const TOO_BIG_V6: Kind = ERRORS_V6[1];

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = to_targets();
    rows.extend(ways_to_targets());
    rows.extend(to_clients());
    rows.extend(unknown());
    rows.extend(quotes());
    rows.extend(unreadable());
    rows
}

fn to_targets() -> Vec<Row> {
    let known = |claim, flow: Flow| flow.every_error(flow.begins(row(claim)), true).remembers(1);
    let by_hash = |claim, flow: Flow| flow.every_error(row(claim), false).remembers(0);
    let web = Flow::web();
    let direct = Flow::direct_web();
    vec![
        known(
            "an error about a translated tcp answer goes to the target",
            web,
        ),
        known(
            "an error about a translated udp answer goes to the target",
            Flow::dns(),
        ),
        known(
            "an error about a translated tcp answer goes to the ipv6 target",
            Flow::web_v6(),
        ),
        known(
            "an error about a translated udp answer goes to the ipv6 target",
            Flow::dns_v6(),
        ),
        known(
            "an error about a dsr target's tcp answer goes to it as it is",
            direct,
        ),
        known(
            "an error about a dsr target's udp answer goes to it as it is",
            Flow::direct_dns(),
        ),
        known(
            "an error about an ipv6 dsr target's tcp answer goes to it as it is",
            Flow::direct_web_v6(),
        ),
        known(
            "an error about an ipv6 dsr target's udp answer goes to it as it is",
            Flow::direct_dns_v6(),
        ),
        by_hash(
            "an error about an unknown tcp flow goes where dsr would send the flow",
            direct,
        ),
        by_hash(
            "an error about an unknown udp flow goes where dsr would send the flow",
            Flow::direct_dns(),
        ),
        by_hash(
            "an error about an unknown ipv6 tcp flow goes where dsr would send the flow",
            Flow::direct_web_v6(),
        ),
        by_hash(
            "an error about an unknown ipv6 udp flow goes where dsr would send the flow",
            Flow::direct_dns_v6(),
        ),
    ]
}

fn ways_to_targets() -> Vec<Row> {
    let web = Flow::web();
    let (quoted, translated) = web.answer();
    let error = web.error(TOO_BIG).quoting(&quoted, 8);
    let direct = Flow::direct_web();
    let (direct_quoted, _) = direct.answer();
    vec![
        web.begins(row(
            "an error takes a hop where it is translated, and is stopped without one",
        ))
        .stops(&error.clone().ttl(1), Stop::TtlExpired)
        .sends(
            &error.clone().ttl(2),
            &web.passed_on(TOO_BIG).ttl(1).quoting(&translated, 8),
            web.ids,
            Known,
        ),
        direct
            .begins(row("an error takes no hop on its way to a dsr target"))
            .sends(
                &direct.error(TOO_BIG).ttl(1).quoting(&direct_quoted, 8),
                &direct.passed_on(TOO_BIG).ttl(1).quoting(&direct_quoted, 8),
                direct.ids,
                Known,
            ),
        web.begins(row("an error whose next hop is not known asks the routes"))
            .change(|tables| {
                tables.next_hops[11].invalidate();
            })
            .sends(
                &error,
                &web.passed_on(TOO_BIG).quoting(&translated, 8),
                web.ids,
                Known,
            ),
        web.begins(row("an error from the client itself goes to the target"))
            .sends(
                &ip(from_client(), CLIENT, VIP)
                    .icmp(3)
                    .code(3, [0; 4])
                    .quoting(&quoted, 8),
                &ip(on_to("10.0.0.11"), CLIENT, "10.0.0.11")
                    .ttl(63)
                    .icmp(3)
                    .code(3, [0; 4])
                    .quoting(&translated, 8),
                web.ids,
                Known,
            ),
        direct
            .begins(row(
                "an error larger than the link to the target is stopped",
            ))
            .stops(
                &direct
                    .error(TOO_BIG)
                    .quoting(&direct_quoted.payload(&[0; 1500]), usize::MAX),
                Stop::TooBig,
            ),
        web.begins(row("a tagged error to a vip is translated, too"))
            .sends(
                &error.clone().vlan(5),
                &web.passed_on(TOO_BIG).quoting(&translated, 8),
                web.ids,
                Known,
            ),
    ]
}

fn to_clients() -> Vec<Row> {
    let known = |claim, flow: Flow| flow.every_inner_error(flow.begins(row(claim))).remembers(1);
    let web = Flow::web();
    let (quoted, translated) = web.request();
    let error = web.inner_error("10.0.0.254", TOO_BIG);
    let far = Flow {
        client: (FAR_CLIENT, 40_000),
        ..web
    };
    let port = port_to(&tables(), FAR_CLIENT, web.vip, TCP, 11, 0);
    let far = Flow {
        client: (FAR_CLIENT, port),
        ..far
    };
    let (far_quoted, far_translated) = far.request();
    let port = port_to(&tables(), QUIET_CLIENT, web.vip, TCP, 11, 0);
    let quiet = Flow {
        client: (QUIET_CLIENT, port),
        ..web
    };
    let (quiet_quoted, quiet_translated) = quiet.request();
    vec![
        known(
            "an error about a translated tcp request goes to the client",
            web,
        ),
        known(
            "an error about a translated udp request goes to the client",
            Flow::dns(),
        ),
        known(
            "an error about a translated tcp request goes to the ipv6 client",
            Flow::web_v6(),
        ),
        known(
            "an error about a translated udp request goes to the ipv6 client",
            Flow::dns_v6(),
        ),
        web.begins(row(
            "an error to a client takes a hop, and is stopped without one",
        ))
        .stops(&error.clone().ttl(1).quoting(&quoted, 8), Stop::TtlExpired)
        .sends(
            &error.clone().ttl(2).quoting(&quoted, 8),
            &web.passed_back("10.0.0.254", TOO_BIG)
                .ttl(1)
                .quoting(&translated, 8),
            web.ids,
            Return,
        ),
        far.begins(row(
            "an error to a client behind a router takes the way through it",
        ))
        .sends(
            &far.inner_error("10.0.0.254", TOO_BIG)
                .quoting(&far_quoted, 8),
            &said(
                ip(on_to("198.51.100.254"), "10.0.0.254", FAR_CLIENT).ttl(63),
                TOO_BIG,
            )
            .quoting(&far_translated, 8),
            web.ids,
            Return,
        ),
        quiet
            .begins(row(
                "an error to a client without a remembered way asks the routes",
            ))
            .sends(
                &quiet
                    .inner_error("10.0.0.254", TOO_BIG)
                    .quoting(&quiet_quoted, 8),
                &quiet
                    .passed_back("10.0.0.254", TOO_BIG)
                    .quoting(&quiet_translated, 8),
                web.ids,
                Return,
            ),
    ]
}

fn unknown() -> Vec<Row> {
    let web = Flow::web();
    let web_v6 = Flow::web_v6();
    let (quoted, _) = web.answer();
    let (quoted_v6, _) = web_v6.answer();
    let (request, _) = web.request();
    let (request_v6, _) = web_v6.request();
    let ssh = web.segment(eth(), (VIP, 22), web.client);
    vec![
        row("an error about a translated flow that nobody remembers is the host's")
            .stops(
                &web.error(TOO_BIG).quoting(&quoted, 8),
                Stop::IcmpUnknownFlow,
            )
            .stops(
                &web_v6.error(TOO_BIG_V6).quoting(&quoted_v6, 8),
                Stop::IcmpUnknownFlow,
            )
            .remembers(0),
        row("an error about what the host itself sent from a vip is the host's")
            .stops(&web.error(TOO_BIG).quoting(&ssh, 8), Stop::IcmpUnknownFlow),
        row("an error to a client about a flow that nobody remembers passes")
            .passes(&web.inner_error("10.0.0.254", TOO_BIG).quoting(&request, 8))
            .passes(
                &web_v6
                    .inner_error("fd00::fe", TOO_BIG_V6)
                    .quoting(&request_v6, 8),
            ),
        row("an error to a client about a packet that was no target's passes").passes(
            &web.inner_error("10.0.0.254", TOO_BIG)
                .quoting(&web.segment(eth(), web.client, ("10.0.0.11", 22)), 8),
        ),
        web.begins(row(
            "an error to one host about the packet of another passes",
        ))
        .passes(
            &said(
                ip(from_target("10.0.0.254"), "10.0.0.254", QUIET_CLIENT),
                TOO_BIG,
            )
            .quoting(&request, 8),
        ),
        web.begins(row(
            "an error to somebody else's address passes, whatever it quotes",
        ))
        .passes(&said(ip(from_client(), web.router(), "192.0.2.99"), TOO_BIG).quoting(&quoted, 8)),
        row("an error about an unknown dsr flow is dropped where there is no target")
            .ring(5, &[])
            .stops(
                &Flow::direct_web()
                    .error(TOO_BIG)
                    .quoting(&Flow::direct_web().answer().0, 8),
                Stop::NoTarget,
            ),
    ]
}

fn quotes() -> Vec<Row> {
    let web = Flow::web();
    let web_v6 = Flow::web_v6();
    let dns = Flow::dns();
    let sends = |row: Row, flow: &Flow, kind, change: fn(Sentence) -> Sentence, bytes| {
        let (quoted, translated) = flow.answer();
        row.sends(
            &flow.error(kind).quoting(&change(quoted), bytes),
            &flow.passed_on(kind).quoting(&change(translated), bytes),
            flow.ids,
            Known,
        )
    };
    let options = |row| {
        let row = sends(row, &web, TOO_BIG, |s| s.options(&[1; 4]), 8);
        let row = sends(row, &web, TOO_BIG, |s| s.options(&[1; 40]), 8);
        sends(row, &web, TOO_BIG, |s| s.options(&[1; 40]), usize::MAX)
    };
    let extensions = |row| {
        let row = sends(row, &web_v6, TOO_BIG_V6, Sentence::hop_by_hop, 8);
        let all = |s: Sentence| s.hop_by_hop().destination_options().routing();
        sends(row, &web_v6, TOO_BIG_V6, all, usize::MAX)
    };
    vec![
        options(web.begins(row("a quote's ipv4 options are stepped over"))),
        extensions(web_v6.begins(row("a quote's extension headers are stepped over"))),
        sends(
            web.begins(row("a quoted first fragment has ports")),
            &web,
            ERRORS_V4[3],
            Sentence::first_fragment,
            usize::MAX,
        ),
        sends(
            web_v6.begins(row("a quoted first ipv6 fragment has ports")),
            &web_v6,
            ERRORS_V6[2],
            Sentence::first_fragment,
            usize::MAX,
        ),
        sends(
            dns.begins(row("a quoted udp checksum of zero stays zero")),
            &dns,
            TOO_BIG,
            Sentence::no_checksum,
            usize::MAX,
        ),
    ]
}

fn unreadable() -> Vec<Row> {
    let web = Flow::web();
    let web_v6 = Flow::web_v6();
    let (quoted, _) = web.answer();
    let (quoted_v6, _) = web_v6.answer();
    let stop = |row: Row, quote: &Sentence| {
        let error = web.error(TOO_BIG).quoting(quote, 8);
        row.stops(&error, Stop::IcmpUnreadable)
    };
    let stop_v6 = |row: Row, quote: &Sentence| {
        let error = web_v6.error(TOO_BIG_V6).quoting(quote, 8);
        row.stops(&error, Stop::IcmpUnreadable)
    };
    let mut cut = web.begins(row(
        "a quote that ends before the ports' eight bytes is not read",
    ));
    for count in 0..28 {
        let whole = quoted.build();
        let part = web.error(TOO_BIG).payload(&whole[14..14 + count]);
        cut = cut
            .stops(&part, Stop::IcmpUnreadable)
            // What follows the IP packet is no part of the quote.
            .stops(
                &part.clone().trailer(&whole[14 + count..]),
                Stop::IcmpUnreadable,
            );
    }
    let mut cut_v6 = web_v6.begins(row("an ipv6 quote that is cut short is not read"));
    for count in 0..48 {
        let whole = quoted_v6.build();
        let part = web_v6.error(TOO_BIG_V6).payload(&whole[14..14 + count]);
        cut_v6 = cut_v6.stops(&part, Stop::IcmpUnreadable).stops(
            &part.clone().trailer(&whole[14 + count..]),
            Stop::IcmpUnreadable,
        );
    }
    let mut odd = web.begins(row(
        "a quote that contradicts itself or has no ports is not read",
    ));
    for quote in [
        quoted.clone().version(6),
        quoted.clone().header_words(4),
        quoted.clone().header_words(15),
        quoted.clone().later_fragment(),
        quoted.clone().protocol(1),
        quoted.clone().protocol(47),
        eth().ipv4(VIP, CLIENT).icmp(0),
        // About a packet that the VIP did not send.
        web.segment(eth(), ("192.0.2.99", 80), web.client),
        web.request().0,
    ] {
        odd = stop(odd, &quote);
    }
    let mut odd_v6 = web_v6.begins(row("an ipv6 quote that contradicts itself is not read"));
    for quote in [
        quoted_v6.clone().version(4),
        quoted_v6.clone().later_fragment(),
        quoted_v6.clone().protocol(58),
        quoted_v6.clone().protocol(59),
        (0..7).fold(quoted_v6.clone(), |quote, _| quote.hop_by_hop()),
        quoted_v6.clone().extension(60, &[0; 102]),
        web_v6.request().0,
    ] {
        odd_v6 = stop_v6(odd_v6, &quote);
    }
    let nested = web.error(TOO_BIG).quoting(&quoted, 8);
    vec![
        cut,
        cut_v6,
        odd,
        odd_v6,
        stop(
            web.begins(row("an error about an error is not read")),
            &nested,
        ),
    ]
}
