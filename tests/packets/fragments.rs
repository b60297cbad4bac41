//! Fragments: the first one begins or goes on with a flow, the later ones follow it, and nothing else
//! is taken for either.

use nlb_common::{
    fragment::{Identifications, LIFE_TICKS},
    hash::Secret as _,
    stop::Stop,
    wire::protocol::{TCP, UDP},
};
use nlb_ebpf::tables::PassageKind::{Known, New, Return};
use nlb_tests::{
    packet::{Sentence, fragments::split},
    world::{
        CLIENT, CLIENT_V6, DSR_VIP, DSR_VIP_V6, FAR_CLIENT, VIP, VIP_V6, address, from_client,
        from_target, on_to, port_to, tables,
    },
};
use zerocopy::big_endian::U16;

use crate::row::{Row, row};

/// A flow whose packets are too large.
#[derive(Clone, Copy)]
struct Flow {
    client: &'static str,
    vip: (&'static str, u16),
    protocol: u8,
    target: (&'static str, u16),
    /// Listener and target.
    ids: (u16, u32),
    is_nat: bool,
}

const UDP_V4: Flow = Flow {
    client: CLIENT,
    vip: (VIP, 53),
    protocol: UDP,
    target: ("10.0.0.12", 5353),
    ids: (2, 15),
    is_nat: true,
};
const TCP_V4: Flow = Flow {
    client: CLIENT,
    vip: (VIP, 80),
    protocol: TCP,
    target: ("10.0.0.11", 8080),
    ids: (1, 11),
    is_nat: true,
};
const UDP_V6: Flow = Flow {
    client: CLIENT_V6,
    vip: (VIP_V6, 53),
    protocol: UDP,
    target: ("fd00::12", 5353),
    ids: (4, 20),
    is_nat: true,
};
const TCP_V6: Flow = Flow {
    client: CLIENT_V6,
    vip: (VIP_V6, 80),
    protocol: TCP,
    target: ("fd00::12", 8080),
    ids: (3, 17),
    is_nat: true,
};
const DSR_UDP_V4: Flow = Flow {
    client: CLIENT,
    vip: (DSR_VIP, 53),
    protocol: UDP,
    target: ("10.0.0.21", 53),
    ids: (6, 21),
    is_nat: false,
};
const DSR_UDP_V6: Flow = Flow {
    client: CLIENT_V6,
    vip: (DSR_VIP_V6, 53),
    protocol: UDP,
    target: ("fd00::21", 53),
    ids: (8, 23),
    is_nat: false,
};
const DSR_TCP_V4: Flow = Flow {
    client: CLIENT,
    vip: (DSR_VIP, 80),
    protocol: TCP,
    target: ("10.0.0.22", 80),
    ids: (5, 22),
    is_nat: false,
};
const FLOWS: [Flow; 7] = [
    UDP_V4, TCP_V4, UDP_V6, TCP_V6, DSR_UDP_V4, DSR_UDP_V6, DSR_TCP_V4,
];

/// Where all of them are cut, in bytes behind the IP header.
const CUTS: [usize; 2] = [1280, 2560];
const NUMBER: u16 = 0x0102;

impl Flow {
    fn port(&self) -> u16 {
        port_to(
            &tables(),
            self.client,
            self.vip,
            self.protocol,
            self.ids.1,
            0,
        )
    }

    fn say(&self, frame: Sentence, ends: [(&str, u16); 2]) -> Sentence {
        let [source, destination] = ends;
        let parse = |text: &str| text.parse().expect("an address of the world");
        let packet = frame.ip(parse(source.0), parse(destination.0));
        let segment = if self.protocol == TCP {
            packet.tcp(source.1, destination.1)
        } else {
            packet.udp(source.1, destination.1)
        };
        let payload: Vec<u8> = (0..3000u16).map(|n| n.to_le_bytes()[0]).collect();
        segment.payload(&payload)
    }

    /// The whole of what a client sends, and of what arrives.
    fn whole(&self) -> [Sentence; 2] {
        let client = (self.client, self.port());
        let sent = self.say(from_client(), [client, self.vip]);
        let arrives = if self.is_nat {
            self.say(on_to(self.target.0), [client, self.target])
                .ttl(63)
        } else {
            self.say(on_to(self.target.0), [client, self.vip])
        };
        [sent, arrives]
    }

    fn whole_answer(&self) -> [Sentence; 2] {
        let client = (self.client, self.port());
        [
            self.say(from_target(self.target.0), [self.target, client]),
            self.say(on_to(self.client), [self.vip, client]).ttl(63),
        ]
    }

    /// What a datagram's number becomes: of those that are translated, one after another.
    fn given(&self, number: u16, ends: [&str; 2]) -> u32 {
        if !self.is_nat {
            return number.into();
        }
        let nth = u32::from(number - NUMBER);
        given(nth, (ends[0], ends[1], self.protocol))
    }

    /// The pieces of what a client sends, and of what arrives.
    fn pieces(&self, number: u16, with: impl Fn(Sentence) -> Sentence) -> [Vec<Vec<u8>>; 2] {
        let [sent, arrives] = self.whole().map(|whole| with(whole).build());
        let given = self.given(number, [self.client, self.target.0]);
        [split(&sent, &CUTS, number), split(&arrives, &CUTS, given)]
    }

    /// A row's end: this piece of a datagram is sent on.
    fn goes(&self, row: Row, number: u16, piece: usize, is_new: bool) -> Row {
        let [sent, arrives] = self.pieces(number, |whole| whole);
        let kind = if is_new { New } else { Known };
        row.sends_bytes(sent[piece].clone(), arrives[piece].clone(), self.ids, kind)
    }

    /// The pieces of what a target answers, and of what arrives as the client's `nth`.
    fn answered(&self, number: u16, nth: u16) -> [Vec<Vec<u8>>; 2] {
        let [sent, arrives] = self.whole_answer().map(|whole| whole.build());
        let given = self.given(NUMBER + nth, [self.vip.0, self.client]);
        [split(&sent, &CUTS, number), split(&arrives, &CUTS, given)]
    }

    fn returns(&self, row: Row, number: u16, piece: usize) -> Row {
        let [sent, arrives] = self.answered(number, 0);
        row.sends_bytes(
            sent[piece].clone(),
            arrives[piece].clone(),
            self.ids,
            Return,
        )
    }

    /// A small datagram goes.
    fn begins(&self, row: Row) -> Row {
        let [sent, arrives] = self.whole().map(|whole| whole.payload(b"small"));
        row.sends(&sent, &arrives, self.ids, New)
    }

    /// This piece of a datagram is stopped.
    fn stops(&self, row: Row, number: u16, piece: usize, stop: Stop) -> Row {
        let [sent, _] = self.whole();
        row.stops_bytes(split(&sent.build(), &CUTS, number)[piece].clone(), stop)
    }
}

/// The number that the `nth` datagram between these ends gets, by the protocol.
pub(crate) fn given(nth: u32, (source, destination, protocol): (&str, &str, u8)) -> u32 {
    let is_v4 = !source.contains(':');
    // IPv6 fragments need not agree about it.
    let protocol = if is_v4 { protocol } else { 0 };
    let hash = tables().table_key.source(
        address(destination),
        U16::ZERO,
        address(source),
        U16::ZERO,
        protocol,
    );
    Identifications::number(nth, hash, is_v4)
}

/// What an untagged packet has besides.
type Rest = fn(Sentence) -> Sentence;

/// A row for each of these flows.
fn each(flows: &[Flow], claim: &str, story: impl Fn(&Flow, Row) -> Row) -> Vec<Row> {
    flows
        .iter()
        .map(|flow| {
            let name = match flow.protocol {
                TCP => "tcp",
                _ => "udp",
            };
            let text = format!("{claim}: {name} to {}", flow.vip.0);
            story(flow, row(Box::leak(text.into_boxed_str())))
        })
        .collect()
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = followed();
    rows.extend(not_followed());
    rows.extend(never_anothers());
    rows.extend(contradictions());
    rows.extend(whole_after_all());
    rows.extend(tagged());
    rows
}

fn followed() -> Vec<Row> {
    let mut rows = each(&FLOWS, "later fragments follow the first", |flow, row| {
        let row = flow.goes(row, NUMBER, 0, true);
        let row = flow.goes(row, NUMBER, 1, false);
        let row = flow.goes(row, NUMBER, 2, false).remembers(1);
        // The next datagram of the flow.
        let row = flow.goes(row, NUMBER + 1, 0, false);
        flow.goes(row, NUMBER + 1, 2, false).remembers(1)
    });
    let nat: Vec<Flow> = FLOWS.into_iter().filter(|flow| flow.is_nat).collect();
    rows.extend(each(
        &nat,
        "an answer's fragments come from the vip",
        |flow, row| {
            let row = flow.goes(row, NUMBER, 0, true);
            let row = flow.returns(row, NUMBER, 0);
            let row = flow.returns(row, NUMBER, 1);
            let row = flow.returns(row, NUMBER, 2);
            // The client's remain the client's: the numbers are each sender's own.
            flow.goes(row, NUMBER, 2, false).remembers(1)
        },
    ));
    rows.extend(each(
        &FLOWS,
        "later fragments may come in any order, and twice",
        |flow, row| {
            let row = flow.goes(row, NUMBER, 0, true);
            let row = flow.goes(row, NUMBER, 2, false);
            let row = flow.goes(row, NUMBER, 1, false);
            let row = flow.goes(row, NUMBER, 0, false);
            flow.goes(row, NUMBER, 1, false)
        },
    ));
    rows.extend(each(
        &[UDP_V4, UDP_V6],
        "a first fragment's way is its datagram's for life",
        |flow, row| {
            let row = flow.goes(row, NUMBER, 0, true);
            // No ring and no flow leads there any more.
            let row = row.ring(2, &[14]).ring(4, &[19]).change(|tables| {
                tables.buckets.fill_with(Default::default);
            });
            flow.goes(row, NUMBER, 1, false).remembers(0)
        },
    ));
    rows.extend(each(
        &FLOWS[..4],
        "the routes are asked if no next hop is known",
        |flow, row| {
            let row = flow.goes(row, NUMBER, 0, true).change(|tables| {
                for slot in &tables.next_hops[11..20] {
                    slot.invalidate();
                }
            });
            flow.goes(row, NUMBER, 1, false)
        },
    ));
    rows
}

fn not_followed() -> Vec<Row> {
    let mut rows = each(
        &FLOWS,
        "a fragment before its first is stopped",
        |flow, row| {
            let row = flow
                .stops(row, NUMBER, 1, Stop::NoFirstFragment)
                .remembers(0);
            let row = flow.goes(row, NUMBER, 0, true);
            flow.goes(row, NUMBER, 1, false)
        },
    );
    rows.extend(each(
        &FLOWS,
        "a fragment long after its first is stopped",
        |flow, row| {
            let row = flow.goes(row, NUMBER, 0, true).silence(LIFE_TICKS - 3);
            let row = flow.goes(row, NUMBER, 1, false).silence(8);
            flow.stops(row, NUMBER, 2, Stop::NoFirstFragment)
        },
    ));
    rows.extend(each(
        &FLOWS,
        "a fragment whose record was displaced is stopped",
        |flow, row| {
            let row = flow.goes(row, NUMBER, 0, true).change(|tables| {
                tables.fragments.borrow_mut().clear();
            });
            flow.stops(row, NUMBER, 1, Stop::NoFirstFragment)
        },
    ));
    rows.extend(each(
        &FLOWS,
        "the fragments of a stopped first one are stopped",
        |flow, row| {
            let empty = |tables: &mut nlb_ebpf::memory::MemoryTables| {
                for group in [1, 2, 3, 4, 5, 6] {
                    tables.set_ring(group, &nlb_tests::world::ring(&[]));
                }
            };
            let row = flow.stops(row.change(empty), NUMBER, 0, Stop::NoTarget);
            flow.stops(row, NUMBER, 1, Stop::NoFirstFragment)
        },
    ));
    rows.extend(each(
        &FLOWS[..4],
        "a later fragment's last hop is not taken",
        |flow, row| {
            let row = flow.goes(row, NUMBER, 0, true);
            let [sent, _] = flow.whole();
            let pieces = split(&sent.ttl(1).build(), &CUTS, NUMBER);
            row.stops_bytes(pieces[1].clone(), Stop::TtlExpired)
        },
    ));
    let flow = UDP_V4;
    let whole = flow.say(from_client(), [(CLIENT, flow.port()), flow.vip]);
    let large = split(&whole.build(), &[400], NUMBER).remove(1);
    rows.push(
        row("a fragment before its first that is too large to be kept is only stopped")
            .stops_twice_bytes(large, [Stop::NoFirstFragment, Stop::EarlyLimit]),
    );
    let small = Flow {
        vip: (VIP, 89),
        target: ("10.0.0.41", 8080),
        ids: (16, 36),
        ..TCP_V4
    };
    let cut = |whole: &Sentence, number| split(&whole.build(), &[400, 1480], number);
    let [sent, arrives] = small.whole();
    let number = small.given(NUMBER, [CLIENT, "10.0.0.41"]);
    let (sent, arrives) = (cut(&sent, NUMBER.into()), cut(&arrives, number));
    rows.push(
        row("a later fragment that the link does not take is stopped")
            .sends_bytes(sent[0].clone(), arrives[0].clone(), small.ids, New)
            .stops_bytes(sent[1].clone(), Stop::TooBig),
    );
    rows
}

fn tagged() -> Vec<Row> {
    each(
        &FLOWS,
        "fragments in a vlan are followed, too",
        |flow, row| {
            let [sent, arrives] = flow.pieces(NUMBER, |whole| whole);
            let with_tag = |piece: &[u8]| [&piece[..12], &[0x81, 0, 0, 5], &piece[12..]].concat();
            row.sends_bytes(with_tag(&sent[0]), arrives[0].clone(), flow.ids, New)
                .sends_bytes(with_tag(&sent[1]), arrives[1].clone(), flow.ids, Known)
                .sends_bytes(with_tag(&sent[2]), arrives[2].clone(), flow.ids, Known)
        },
    )
}

fn never_anothers() -> Vec<Row> {
    let other = |client, vip, number| {
        let flow = Flow {
            client,
            vip: (vip, 53),
            ..UDP_V4
        };
        let sent = flow.say(from_client(), [(client, 9), flow.vip]).build();
        split(&sent, &CUTS, number)
    };
    let begun = |text| UDP_V4.goes(row(text), NUMBER, 0, true);
    let foreign = |ends: [(&str, u16); 2]| {
        split(
            &UDP_V4.say(from_target("10.0.0.12"), ends).build(),
            &CUTS,
            NUMBER,
        )
    };
    let backup = foreign([("10.0.0.12", 2049), (CLIENT, 2049)]);
    let elsewhere = foreign([("10.0.0.12", 2049), (FAR_CLIENT, 2049)]);
    let [own, _] = UDP_V4.whole_answer();
    let tcp = split(&TCP_V4.whole()[0].build(), &CUTS, NUMBER);
    vec![
        begun("another client's datagram of the same number is another one").stops_bytes(
            other(FAR_CLIENT, VIP, NUMBER)[1].clone(),
            Stop::NoFirstFragment,
        ),
        begun("another vip's datagram of the same number is another one").stops_bytes(
            other(CLIENT, DSR_VIP, NUMBER)[1].clone(),
            Stop::NoFirstFragment,
        ),
        begun("another number is another datagram").stops_bytes(
            other(CLIENT, VIP, NUMBER + 1)[1].clone(),
            Stop::NoFirstFragment,
        ),
        begun("another protocol's datagram of the same number is another one")
            .stops_bytes(tcp[1].clone(), Stop::NoFirstFragment),
        row("fragments for nobody of ours pass, whoever else's are under way")
            .passes_bytes(other(CLIENT, "192.0.2.99", NUMBER)[0].clone())
            .passes_bytes(other(CLIENT, "192.0.2.99", NUMBER)[1].clone()),
        row("fragments to a vip's other port: the first passes, what follows has no port to tell")
            .passes_bytes({
                let flow = Flow {
                    vip: (VIP, 54),
                    ..UDP_V4
                };
                let sent = flow.say(from_client(), [(CLIENT, 9), flow.vip]).build();
                split(&sent, &CUTS, NUMBER)[0].clone()
            })
            .stops_bytes(other(CLIENT, VIP, NUMBER)[1].clone(), Stop::NoFirstFragment),
        begun("a target's own fragments pass")
            .passes_bytes(backup[0].clone())
            .passes_and_is_copied(backup[1].clone())
            .passes_and_is_copied(elsewhere[1].clone()),
        UDP_V4.returns(
            UDP_V4.returns(
                begun(
                    "a target's fragment before its first passes, but its copy goes to the client",
                )
                .passes_and_is_copied(split(&own.build(), &CUTS, NUMBER)[1].clone()),
                NUMBER,
                0,
            ),
            NUMBER,
            1,
        ),
        UDP_V4
            .returns(
                begun("a target's answer does not lend its way to others"),
                NUMBER,
                0,
            )
            .passes_and_is_copied(elsewhere[1].clone()),
        row("a reset in fragments that ends no flow is stopped")
            .stops_bytes(
                split(&TCP_V4.whole()[0].clone().rst().build(), &CUTS, NUMBER)[0].clone(),
                Stop::ResetWithoutFlow,
            )
            .remembers(0),
        two_targets(
            "two targets' datagrams of one number to one client get two",
            UDP_V4,
            Flow {
                target: ("10.0.0.11", 5353),
                ids: (2, 14),
                ..UDP_V4
            },
        ),
        two_targets(
            "so do those over ipv6",
            UDP_V6,
            Flow {
                target: ("fd00::11", 5353),
                ids: (4, 19),
                ..UDP_V6
            },
        ),
    ]
}

/// The answers of two flows of one client, whose numbers are the same.
fn two_targets(claim: &'static str, one: Flow, other: Flow) -> Row {
    let mut row = other.begins(one.goes(row(claim), NUMBER, 0, true));
    for piece in [0, 1, 2] {
        for (nth, flow) in [(0, one), (1, other)] {
            let [sent, arrives] = flow.answered(NUMBER, nth);
            let (sent, arrives) = (sent[piece].clone(), arrives[piece].clone());
            row = row.sends_bytes(sent, arrives, flow.ids, Return);
        }
    }
    row
}

fn contradictions() -> Vec<Row> {
    let tcp_v4 = || from_client().ipv4(CLIENT, VIP).tcp(40_000, 80);
    let tcp_v6 = || from_client().ipv6(CLIENT_V6, VIP_V6).tcp(40_000, 80);
    let udp_v4 = || from_client().ipv4(CLIENT, VIP).udp(40_000, 53);
    let udp_v6 = || from_client().ipv6(CLIENT_V6, VIP_V6).udp(40_000, 53);
    let cut = |sentence: Sentence, at: usize| split(&sentence.build(), &[at], NUMBER);
    let (short_v4, short_v6) = (cut(tcp_v4(), 8), cut(tcp_v6(), 8));
    let (split_v4, split_v6) = (cut(tcp_v4(), 16), cut(tcp_v6(), 16));
    let long = |sentence: Sentence| sentence.tcp_options(&[1; 40]);
    let (long_v4, long_v6) = (cut(long(tcp_v4()), 40), cut(long(tcp_v6()), 40));
    let chain = cut(udp_v6().destination_options(), 16);
    vec![
        row("a first fragment that splits the tcp header is tiny")
            .stops_bytes(short_v4[0].clone(), Stop::TinyFragment)
            .stops_bytes(split_v4[0].clone(), Stop::TinyFragment)
            .stops_bytes(long_v4[0].clone(), Stop::TinyFragment)
            .remembers(0),
        row("an ipv6 first fragment that splits the tcp header is tiny")
            .stops_bytes(short_v6[0].clone(), Stop::TinyFragment)
            .stops_bytes(split_v6[0].clone(), Stop::TinyFragment)
            .stops_bytes(long_v6[0].clone(), Stop::TinyFragment)
            .remembers(0),
        row("a later fragment that would overwrite the tcp header is tiny")
            .stops_bytes(short_v4[1].clone(), Stop::TinyFragment)
            .stops_bytes(split_v4[1].clone(), Stop::TinyFragment)
            .stops_bytes(short_v6[1].clone(), Stop::TinyFragment)
            .stops_bytes(split_v6[1].clone(), Stop::TinyFragment),
        row("an ipv6 first fragment without the whole chain of headers is tiny")
            .stops_bytes(chain[0].clone(), Stop::TinyFragment)
            .remembers(0),
        row("a tiny fragment for someone else passes").passes(
            &from_client()
                .ipv4(CLIENT, "192.0.2.99")
                .fragment(8, true, 9)
                .tcp(40_000, 80),
        ),
        row("a fragment that is not the last and no eights of bytes long is malformed")
            .stops(
                &udp_v4().payload(&[1; 5]).fragment_word(0x2000),
                Stop::Malformed,
            )
            .stops(
                &udp_v4().payload(&[1; 5]).fragment_word(0x2010),
                Stop::Malformed,
            )
            .stops(
                &udp_v6().payload(&[1; 5]).extension(44, &[0, 1, 0, 0, 0, 9]),
                Stop::Malformed,
            ),
        row("a fragment that ends past the largest packet is malformed")
            .stops(
                &udp_v4().fragment_word(0x1fff).payload(&[1; 8]),
                Stop::Malformed,
            )
            .stops(
                &udp_v6().fragment(0xfff8, false, 9).payload(&[1; 8]),
                Stop::Malformed,
            ),
        row("an empty fragment is malformed")
            .stops(&udp_v4().length(20).fragment_word(0x2000), Stop::Malformed)
            .stops(&udp_v6().length(8).fragment(0, true, 9), Stop::Malformed)
            .stops(&udp_v6().length(7).fragment(0, true, 9), Stop::Malformed),
        row("a udp length below its header is no first fragment's")
            .stops(&udp_v4().udp_length(7).first_fragment(), Stop::TinyFragment),
        row("a fragment of a fragment is malformed, or tiny")
            .stops(
                &udp_v6().atomic_fragment().atomic_fragment(),
                Stop::Malformed,
            )
            .stops(
                &udp_v6().first_fragment().first_fragment(),
                Stop::TinyFragment,
            ),
    ]
}

fn whole_after_all() -> Vec<Row> {
    let flow = UDP_V6;
    let headers: [(&'static str, Rest); 3] = [
        (
            "a packet that is its only fragment is handled as whole",
            |s| s.atomic_fragment(),
        ),
        ("so it is behind options", |s| {
            s.hop_by_hop().atomic_fragment()
        }),
        ("and before options", |s| {
            s.atomic_fragment().destination_options()
        }),
    ];
    let short =
        |[sent, arrives]: [Sentence; 2]| [sent.payload(b"short"), arrives.payload(b"short")];
    let mut rows: Vec<Row> = headers
        .into_iter()
        .map(|(claim, with)| {
            let [sent, arrives] = short(flow.whole()).map(with);
            let [said, returned] = short(flow.whole_answer()).map(with);
            row(claim)
                .sends(&sent, &arrives, flow.ids, New)
                .sends(&said, &returned, flow.ids, Return)
                .change(|tables| assert!(tables.fragments.borrow().is_empty()))
        })
        .collect();
    let [sent, arrives] = flow.pieces(NUMBER, |whole| whole.hop_by_hop().destination_options());
    rows.push(
        row("ipv6 options before and behind the fragment header are stepped over")
            .sends_bytes(sent[0].clone(), arrives[0].clone(), flow.ids, New)
            .sends_bytes(sent[1].clone(), arrives[1].clone(), flow.ids, Known),
    );
    let [sent, arrives] = UDP_V4.pieces(NUMBER, |whole| whole.options(&[1; 8]));
    rows.push(
        row("ipv4 options of a fragment stay")
            .sends_bytes(sent[0].clone(), arrives[0].clone(), UDP_V4.ids, New)
            .sends_bytes(sent[1].clone(), arrives[1].clone(), UDP_V4.ids, Known),
    );
    let [sent, arrives] = UDP_V4.pieces(NUMBER, Sentence::no_checksum);
    rows.push(
        row("a datagram without a checksum gets none by being cut")
            .sends_bytes(sent[0].clone(), arrives[0].clone(), UDP_V4.ids, New)
            .sends_bytes(sent[2].clone(), arrives[2].clone(), UDP_V4.ids, Known),
    );
    rows
}
