//! ICMP errors of nlb's own, byte for byte.

use nlb_common::{answer::ErrorBudget, stop::Stop, tick::Tick};
use nlb_tests::{
    packet::{Sentence, eth},
    world::{CLIENT, CLIENT_V6, DSR_VIP, DSR_VIP_V6, VIP, VIP_V6, from_client, neighbour_of},
};

use crate::{
    connection::{Connection, to_client, to_target},
    row::{Row, row},
};

/// The most of a packet that an ICMP error quotes.
pub(crate) const QUOTE_BYTES: usize = 128;

/// What an ICMP error quotes of a frame.
fn quote(frame: &Sentence) -> Vec<u8> {
    let mut packet = frame.build().split_off(14);
    let length = packet.len().min(QUOTE_BYTES) & !3;
    packet.truncate(length);
    packet
}

/// An ICMP error from the VIP about this frame.
pub(crate) fn error(
    to: Sentence,
    ends: (&str, &str),
    (kind, code, mtu): (u8, u8, u32),
    frame: &Sentence,
) -> Sentence {
    error_quoting(to, ends, (kind, code, mtu), &quote(frame))
}

/// The same about a packet that begins with these bytes.
pub(crate) fn error_quoting(
    to: Sentence,
    ends: (&str, &str),
    (kind, code, mtu): (u8, u8, u32),
    quote: &[u8],
) -> Sentence {
    let ip = if ends.0.contains(':') {
        to.ipv6(ends.0, ends.1)
    } else {
        to.ipv4(ends.0, ends.1).class(0xc0)
    };
    ip.icmp_error(kind, code, mtu).made_by_nlb().payload(quote)
}

fn web() -> Sentence {
    from_client().ipv4(CLIENT, VIP).tcp(40_000, 80)
}

fn web_v6() -> Sentence {
    from_client().ipv6(CLIENT_V6, VIP_V6).tcp(40_000, 80)
}

const TIME_EXCEEDED: (u8, u8, u32) = (11, 0, 0);
const V6_TIME_EXCEEDED: (u8, u8, u32) = (3, 0, 0);
const DO_NOT_FRAGMENT: u16 = 0x4000;

fn errors() -> Vec<Row> {
    let told = |row: Row, frame: &Sentence| {
        row.answers(
            frame,
            &error(to_client(), (VIP, CLIENT), TIME_EXCEEDED, frame),
            Stop::TtlExpired,
        )
    };
    let told_v6 = |row: Row, frame: &Sentence| {
        row.answers(
            frame,
            &error(to_client(), (VIP_V6, CLIENT_V6), V6_TIME_EXCEEDED, frame),
            Stop::TtlExpired,
        )
    };
    let mut row_v4 = row("a ttl that would expire here is told the client, whatever the packet");
    let dns = from_client().ipv4(CLIENT, VIP).udp(40_000, 53);
    for frame in [
        web().ttl(1),
        web().ttl(0),
        web().ttl(1).syn().options(&[1, 1, 1]),
        web().ttl(1).payload(b"odd"),
        web()
            .ttl(1)
            .payload(&[0x5a; 1400])
            .tcp_options(&[2, 4, 5, 0xb4]),
        dns.clone().ttl(1),
        dns.clone().ttl(1).payload(b"query").no_checksum(),
        dns.ttl(1).payload(&[7; 100]),
    ] {
        row_v4 = told(row_v4, &frame);
    }
    let mut row_v6 = row("a hop limit that would expire here is told the client");
    let dns = from_client().ipv6(CLIENT_V6, VIP_V6).udp(40_000, 53);
    for frame in [
        web_v6().ttl(1),
        web_v6().ttl(0),
        web_v6().ttl(1).hop_by_hop().routing(),
        web_v6().ttl(1).payload(&[0x5a; 1400]),
        dns.clone().ttl(1),
        dns.ttl(1).payload(b"odd"),
    ] {
        row_v6 = told_v6(row_v6, &frame);
    }
    let known = Connection::v4();
    let padded = web().ttl(1).padded();
    let trailer = row("what follows a packet in its frame is not quoted").answers(
        &padded,
        &error(to_client(), (VIP, CLIENT), TIME_EXCEEDED, &web().ttl(1)),
        Stop::TtlExpired,
    );
    vec![
        row_v4.remembers(0),
        row_v6.remembers(0),
        trailer,
        told(
            known.opens(row("a known flow's packet that would expire is told, too")),
            &known.request().ttl(1),
        ),
        row("no error follows what was sent to a group").stops(
            &eth()
                .to([1, 0, 0x5e, 0, 0, 1])
                .from(neighbour_of(CLIENT).mac())
                .ipv4(CLIENT, VIP)
                .tcp(40_000, 80)
                .ttl(1),
            Stop::TtlExpired,
        ),
        row("no error goes to an address that is not one host's")
            .stops(
                &from_client().ipv4("224.0.0.5", VIP).tcp(1, 80).ttl(1),
                Stop::TtlExpired,
            )
            .stops(
                &from_client().ipv4("255.255.255.255", VIP).tcp(1, 80).ttl(1),
                Stop::TtlExpired,
            )
            .stops(
                &from_client().ipv4("0.0.0.0", VIP).tcp(1, 80).ttl(1),
                Stop::TtlExpired,
            )
            .stops(
                &from_client().ipv4("127.0.0.1", VIP).tcp(1, 80).ttl(1),
                Stop::TtlExpired,
            )
            .stops(
                &from_client().ipv6("::", VIP_V6).tcp(1, 80).ttl(1),
                Stop::TtlExpired,
            )
            .stops(
                &from_client().ipv6("ff02::1", VIP_V6).tcp(1, 80).ttl(1),
                Stop::TtlExpired,
            ),
        row("errors beyond the limit are not sent, and counted")
            .change(|tables| {
                let now = Tick(tables.now.get());
                tables.error_budget.set(ErrorBudget::new(now, 0).0);
            })
            .stops_twice(&web().ttl(1), [Stop::TtlExpired, Stop::ErrorLimit]),
    ]
}

fn too_big() -> Vec<Row> {
    let big = |sentence: Sentence, bytes| sentence.payload(&vec![0x5a; bytes]);
    let strict = |sentence: Sentence| sentence.fragment_word(DO_NOT_FRAGMENT);
    let web = strict(big(web(), 1461));
    let small = strict(big(from_client().ipv4(CLIENT, VIP).tcp(40_000, 89), 561));
    let web_v6 = big(web_v6(), 1441);
    let dsr = strict(big(
        from_client().ipv4(CLIENT, DSR_VIP).udp(40_000, 53),
        1473,
    ));
    let dsr_v6 = big(
        from_client().ipv6(CLIENT_V6, DSR_VIP_V6).tcp(40_000, 80),
        1441,
    );
    let needed =
        |mtu, vip: &str, frame: &Sentence| error(to_client(), (vip, CLIENT), (3, 4, mtu), frame);
    let v6 =
        |vip: &str, frame: &Sentence| error(to_client(), (vip, CLIENT_V6), (2, 0, 1500), frame);
    vec![
        row("a packet larger than the target's link is told its mtu")
            .answers(&web, &needed(1500, VIP, &web), Stop::TooBig)
            .answers(&small, &needed(600, VIP, &small), Stop::TooBig)
            .remembers(0),
        row("an ipv6 packet larger than the target's link is told its mtu").answers(
            &web_v6,
            &v6(VIP_V6, &web_v6),
            Stop::TooBig,
        ),
        row("a packet larger than a dsr target's link is told its mtu")
            .answers(&dsr, &needed(1500, DSR_VIP, &dsr), Stop::TooBig)
            .answers(&dsr_v6, &v6(DSR_VIP_V6, &dsr_v6), Stop::TooBig),
    ]
}

fn answers_back() -> Vec<Row> {
    let (v4, v6) = (Connection::v4(), Connection::v6());
    let frame = v4.answer().ttl(1);
    let big = v4
        .answer()
        .payload(&[0x5a; 1461])
        .fragment_word(DO_NOT_FRAGMENT);
    let frame_v6 = v6.answer().ttl(1);
    let big_v6 = v6.answer().payload(&[0x5a; 1441]);
    let tell = |connection: Connection, what, frame: &Sentence| {
        let ends = (connection.vip, connection.target);
        error(to_target(connection.target), ends, what, frame)
    };
    vec![
        v4.opens(row("a target is told what becomes of its answers"))
            .answers(&frame, &tell(v4, TIME_EXCEEDED, &frame), Stop::TtlExpired)
            .answers(&big, &tell(v4, (3, 4, 1500), &big), Stop::TooBig)
            .stops(&big.fragment_word(0), Stop::TooBig),
        v6.opens(row(
            "a target is told over ipv6 what becomes of its answers",
        ))
        .answers(
            &frame_v6,
            &tell(v6, V6_TIME_EXCEEDED, &frame_v6),
            Stop::TtlExpired,
        )
        .answers(&big_v6, &tell(v6, (2, 0, 1500), &big_v6), Stop::TooBig),
    ]
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = errors();
    rows.extend(too_big());
    rows.extend(answers_back());
    rows
}
