//! Pings of a VIP, and other ICMP messages to it that are about no packet.

use nlb_common::{fragment::LIFE_TICKS, stop::Stop};
use nlb_tests::{
    packet::{Sentence, eth, fragments::split},
    world::{CLIENT, CLIENT_V6, DSR_VIP, DSR_VIP_V6, VIP, VIP_V6, from_client},
};

use crate::row::{Row, row};

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = echo();
    rows.extend(in_fragments());
    rows.extend(other_messages());
    rows
}

fn echo() -> Vec<Row> {
    let ping = || from_client().ipv4(CLIENT, VIP).echo();
    let ping_v6 = || from_client().ipv6(CLIENT_V6, VIP_V6).echo();
    let back = |vip| {
        eth()
            .to(from_client_mac())
            .from(our_mac())
            .ipv4(vip, CLIENT)
    };
    let back_v6 = |vip| {
        let begun = eth().to(from_client_mac()).from(our_mac());
        begun.ipv6(vip, CLIENT_V6).icmp(129)
    };
    let mut sizes = row("a ping of a vip is answered, whatever its size");
    let mut sizes_v6 = row("a ping of an ipv6 vip is answered, whatever its size");
    for size in [0, 1, 2, 56, 1399, 1400] {
        let payload: Vec<u8> = (0..=255).cycle().take(size).collect();
        sizes = sizes.answers(
            &ping().ttl(7).class(0xb9).payload(&payload),
            &back(VIP).icmp(0).class(0xb9).payload(&payload),
            Stop::IcmpEcho,
        );
        sizes_v6 = sizes_v6.answers(
            &ping_v6().ttl(7).class(0xb9).payload(&payload),
            &back_v6(VIP_V6).class(0xb9).payload(&payload),
            Stop::IcmpEcho,
        );
    }
    vec![
        sizes,
        sizes_v6,
        row("a ping of a dsr vip is answered here, too")
            .answers(
                &from_client().ipv4(CLIENT, DSR_VIP).echo().padded(),
                &back(DSR_VIP).icmp(0).padded(),
                Stop::IcmpEcho,
            )
            .answers(
                &from_client().ipv6(CLIENT_V6, DSR_VIP_V6).echo(),
                &back_v6(DSR_VIP_V6),
                Stop::IcmpEcho,
            ),
        quiet(row("a ping is the host's where echo replies are off"))
            .stops(&ping(), Stop::Icmp)
            .stops(&ping_v6(), Stop::Icmp),
        row("a ping with options or extension headers is the host's")
            .stops(&ping().options(&[7, 7, 4, 0, 0, 0, 0]), Stop::Icmp)
            .stops(&ping_v6().destination_options(), Stop::Icmp),
        row("a ping from or to more than one host is not answered")
            .stops(&ping().to([0xff; 6]), Stop::Icmp)
            .stops(&from_client().ipv4("224.0.0.1", VIP).echo(), Stop::Icmp)
            .stops(
                &from_client().ipv4("255.255.255.255", VIP).echo(),
                Stop::Icmp,
            )
            .stops(&from_client().ipv4("0.0.0.0", VIP).echo(), Stop::Icmp)
            .stops(&from_client().ipv4("127.0.0.1", VIP).echo(), Stop::Icmp)
            .stops(&from_client().ipv6("ff02::1", VIP_V6).echo(), Stop::Icmp)
            .stops(&from_client().ipv6("::", VIP_V6).echo(), Stop::Icmp)
            .stops(&from_client().ipv6("::1", VIP_V6).echo(), Stop::Icmp),
        row("a ping whose checksum is wrong is answered with as wrong a one").answers(
            &ping().checksum(0x1234),
            // One's complement: the type went from 8 to 0, so the sum is 0x800 less.
            &back(VIP).icmp(0).checksum(0x1a34),
            Stop::IcmpEcho,
        ),
    ]
}

/// No VIP answers any more.
fn quiet(row: Row) -> Row {
    row.change(|tables| {
        for listener in &tables.listeners {
            let mut policy = listener.policy();
            policy.flags = policy.flags.with_echo(false);
            listener.set_policy(policy);
        }
    })
}

/// Where a ping is cut, in bytes behind the IP header.
const CUTS: [usize; 2] = [1480, 2960];
const NUMBER: u16 = 0x0102;

/// The fragments of a message.
fn pieces(whole: &Sentence) -> Vec<Vec<u8>> {
    split(&whole.build(), &CUTS, NUMBER)
}

/// A ping that is too large for its link, and what is answered, cut in the same places.
fn large(client: &str, vip: &str, with: impl Fn(Sentence) -> Sentence) -> [Sentence; 2] {
    let payload: Vec<u8> = (0..=255).cycle().take(4000).collect();
    let parse = |text: &str| text.parse().expect("an address of the world");
    let ping = from_client().ip(parse(client), parse(vip)).echo();
    let back = eth().to(from_client_mac()).from(our_mac());
    let back = back.ip(parse(vip), parse(client));
    let back = if vip.contains(':') {
        back.icmp(129)
    } else {
        back.icmp(0)
    };
    [
        with(ping).ttl(7).payload(&payload),
        with(back).payload(&payload),
    ]
}

const PAIRS: [(&str, &str); 4] = [
    (CLIENT, VIP),
    (CLIENT_V6, VIP_V6),
    (CLIENT, DSR_VIP),
    (CLIENT_V6, DSR_VIP_V6),
];

/// A row about the fragments of a ping for each pair of client and VIP.
fn each_pair(claim: &str, story: impl Fn(Row, &[Vec<u8>], &[Vec<u8>]) -> Row) -> Vec<Row> {
    let pairs = PAIRS.iter().map(|(client, vip)| {
        let [sent, answered] = large(client, vip, |sentence| sentence.class(0xb9));
        let text = format!("{claim}: {vip}");
        let row = row(Box::leak(text.into_boxed_str()));
        story(row, &pieces(&sent), &pieces(&answered))
    });
    pairs.collect()
}

fn in_fragments() -> Vec<Row> {
    let echo = Stop::IcmpEcho;
    let goes_back = |row: Row, piece: usize, sent: &[Vec<u8>], answered: &[Vec<u8>]| {
        row.answers_bytes(sent[piece].clone(), answered[piece].clone(), echo)
    };
    let mut rows = each_pair(
        "a ping in fragments is answered in fragments",
        |row, sent, answered| {
            let row = [0, 1, 2]
                .into_iter()
                .fold(row, |row, piece| goes_back(row, piece, sent, answered));
            // In another order, and twice.
            [0, 2, 1, 1, 0]
                .into_iter()
                .fold(row, |row, piece| goes_back(row, piece, sent, answered))
                .remembers(0)
        },
    );
    rows.extend(each_pair(
        "a ping's fragment before its first, or long after it, is stopped",
        |row, sent, answered| {
            let row = row.stops_bytes(sent[1].clone(), Stop::NoFirstFragment);
            let row = goes_back(row, 0, sent, answered);
            goes_back(row, 1, sent, answered)
                .silence(LIFE_TICKS + 8)
                .stops_bytes(sent[2].clone(), Stop::NoFirstFragment)
        },
    ));
    rows.extend(each_pair(
        "a ping's fragments are the host's where echo replies are off",
        |row, sent, _| {
            sent.iter().fold(quiet(row), |row, piece| {
                row.stops_bytes(piece.clone(), Stop::Icmp)
            })
        },
    ));
    rows.extend([refused_in_fragments(), another_protocols_fragments()]);
    rows
}

fn refused_in_fragments() -> Row {
    let options = large(CLIENT, VIP, |ping| ping.options(&[7, 7, 4, 0, 0, 0, 0]));
    let extended = large(CLIENT_V6, VIP_V6, Sentence::destination_options);
    let group = large(CLIENT, VIP, |ping| ping.to([0xff; 6]));
    let senders = [large("224.0.0.1", VIP, |ping| ping), {
        large("::1", VIP_V6, |ping| ping)
    }];
    let other = |vip: &str| {
        let [ping, _] = large(if vip == VIP { CLIENT } else { CLIENT_V6 }, vip, |ping| {
            ping
        });
        // Neither a request nor an error.
        [ping.clone().icmp(13), ping.icmp(3)]
    };
    let mut whole: Vec<Sentence> = [options, extended, group]
        .into_iter()
        .chain(senders)
        .map(|[ping, _]| ping)
        .collect();
    whole.extend(other(VIP));
    whole.extend(other(VIP_V6));
    whole.iter().fold(
        row("a ping that is not answered as a whole is not answered in fragments"),
        |row, whole| {
            let pieces = pieces(whole);
            row.stops_bytes(pieces[0].clone(), Stop::Fragment)
                .stops_bytes(pieces[1].clone(), Stop::NoFirstFragment)
        },
    )
}

fn another_protocols_fragments() -> Row {
    let [ping, answered] = large(CLIENT, VIP, |ping| ping).map(|whole| pieces(&whole));
    let payload = [7; 4000];
    let datagram = from_client().ipv4(CLIENT, VIP).udp(40_000, 53);
    let datagram = pieces(&datagram.payload(&payload));
    let elsewhere = pieces(
        &from_client()
            .ipv4(CLIENT, "192.0.2.99")
            .echo()
            .payload(&payload),
    );
    row("a ping's fragments lend their way to no others")
        .answers_bytes(ping[0].clone(), answered[0].clone(), Stop::IcmpEcho)
        .stops_bytes(datagram[1].clone(), Stop::NoFirstFragment)
        .passes_bytes(elsewhere[0].clone())
        .passes_bytes(elsewhere[1].clone())
}

fn from_client_mac() -> [u8; 6] {
    nlb_tests::world::neighbour_of(CLIENT).mac()
}

const fn our_mac() -> [u8; 6] {
    nlb_tests::world::MAC0
}

fn other_messages() -> Vec<Row> {
    let mut left =
        row("every other icmp message to a vip is the host's, neighbour discovery above all");
    for kind in [0, 4, 5, 9, 10, 13, 17, 42] {
        left = left.stops(&from_client().ipv4(CLIENT, VIP).icmp(kind), Stop::Icmp);
    }
    for kind in [129, 130, 133, 134, 135, 136, 137, 0, 5, 200] {
        left = left.stops(
            &from_client().ipv6(CLIENT_V6, VIP_V6).icmp(kind),
            Stop::Icmp,
        );
    }
    let crossed = |sentence: Sentence, protocol, kind| sentence.icmp(kind).protocol(protocol);
    vec![
        left,
        row("the other version's icmp means nothing")
            .stops(
                &crossed(from_client().ipv4(CLIENT, VIP), 58, 128),
                Stop::Icmp,
            )
            .stops(
                &crossed(from_client().ipv6(CLIENT_V6, VIP_V6), 1, 8),
                Stop::Icmp,
            ),
        row("icmp that is cut short is the host's").stops(
            &from_client()
                .ipv4(CLIENT, VIP)
                .protocol(1)
                .payload(&[8, 0, 0, 0])
                .trailer(&[0; 60]),
            Stop::Icmp,
        ),
        row("neighbour discovery among others passes").passes(
            &from_client()
                .ipv6(CLIENT_V6, "ff02::1:ff00:10")
                .icmp(135)
                .payload(&[0; 24]),
        ),
    ]
}
