//! Translated flows: what changes and, byte for byte, what does not.

use nlb_common::wire::protocol::{TCP, UDP};
use nlb_ebpf::tables::PassageKind::{Known, New, Return};
use nlb_tests::{
    packet::{Sentence, checksum::internet, facts},
    world::{CLIENT, CLIENT_V6, VIP, VIP_V6, from_client, from_target, on_to, port_to, tables},
};

use crate::row::{Row, row};

/// What both rows of a pair, in and out, have in common behind the addresses.
type Rest = fn(Sentence) -> Sentence;

fn tcp_v4(claim: &'static str, rest: Rest) -> Row {
    let port = port_to(&tables(), CLIENT, (VIP, 80), TCP, 11, 0);
    row(claim)
        .sends(
            &rest(from_client().ipv4(CLIENT, VIP).tcp(port, 80)),
            &rest(on_to("10.0.0.11").ipv4(CLIENT, "10.0.0.11").tcp(port, 8080)).ttl(63),
            (1, 11),
            New,
        )
        .sends(
            &rest(
                from_target("10.0.0.11")
                    .ipv4("10.0.0.11", CLIENT)
                    .tcp(8080, port),
            ),
            &rest(on_to(CLIENT).ipv4(VIP, CLIENT).tcp(80, port)).ttl(63),
            (1, 11),
            Return,
        )
}

fn udp_v4(claim: &'static str, rest: Rest) -> Row {
    let port = port_to(&tables(), CLIENT, (VIP, 53), UDP, 15, 0);
    row(claim)
        .sends(
            &rest(from_client().ipv4(CLIENT, VIP).udp(port, 53)),
            &rest(on_to("10.0.0.12").ipv4(CLIENT, "10.0.0.12").udp(port, 5353)).ttl(63),
            (2, 15),
            New,
        )
        .sends(
            &rest(
                from_target("10.0.0.12")
                    .ipv4("10.0.0.12", CLIENT)
                    .udp(5353, port),
            ),
            &rest(on_to(CLIENT).ipv4(VIP, CLIENT).udp(53, port)).ttl(63),
            (2, 15),
            Return,
        )
}

fn tcp_v6(claim: &'static str, rest: Rest) -> Row {
    let port = port_to(&tables(), CLIENT_V6, (VIP_V6, 80), TCP, 17, 0);
    row(claim)
        .sends(
            &rest(from_client().ipv6(CLIENT_V6, VIP_V6).tcp(port, 80)),
            &rest(
                on_to("fd00::12")
                    .ipv6(CLIENT_V6, "fd00::12")
                    .tcp(port, 8080),
            )
            .ttl(63),
            (3, 17),
            New,
        )
        .sends(
            &rest(
                from_target("fd00::12")
                    .ipv6("fd00::12", CLIENT_V6)
                    .tcp(8080, port),
            ),
            &rest(on_to(CLIENT_V6).ipv6(VIP_V6, CLIENT_V6).tcp(80, port)).ttl(63),
            (3, 17),
            Return,
        )
}

fn udp_v6(claim: &'static str, rest: Rest) -> Row {
    let port = port_to(&tables(), CLIENT_V6, (VIP_V6, 53), UDP, 20, 0);
    row(claim)
        .sends(
            &rest(from_client().ipv6(CLIENT_V6, VIP_V6).udp(port, 53)),
            &rest(
                on_to("fd00::12")
                    .ipv6(CLIENT_V6, "fd00::12")
                    .udp(port, 5353),
            )
            .ttl(63),
            (4, 20),
            New,
        )
        .sends(
            &rest(
                from_target("fd00::12")
                    .ipv6("fd00::12", CLIENT_V6)
                    .udp(5353, port),
            ),
            &rest(on_to(CLIENT_V6).ipv6(VIP_V6, CLIENT_V6).udp(53, port)).ttl(63),
            (4, 20),
            Return,
        )
}

/// A payload with which this sentence's checksum field, computed whole, is zero.
fn payload_for_zero(sentence: &Sentence) -> [u8; 2] {
    // Adding the checksum itself to what it covers makes the sum all ones.
    let sum = |payload: [u8; 2]| {
        let frame = sentence.clone().payload(&payload).build();
        let at = frame.len() - payload.len() - 2; // the last word of the UDP header
        u16::from_be_bytes([frame[at], frame[at + 1]])
    };
    sum([0, 0]).to_be_bytes()
}

fn udp_checksum_of_zero() -> Row {
    let port = port_to(&tables(), CLIENT, (VIP, 53), UDP, 14, 0);
    let out = on_to("10.0.0.11")
        .ipv4(CLIENT, "10.0.0.11")
        .ttl(63)
        .udp(port, 5353);
    let payload = payload_for_zero(&out);
    let out = out.payload(&payload);
    assert_eq!(
        out.build()[14 + 20 + 6..][..2],
        [0xff; 2],
        "the row's premise"
    );
    row("a udp checksum that comes out as zero is sent as all ones").sends(
        &from_client()
            .ipv4(CLIENT, VIP)
            .udp(port, 53)
            .payload(&payload),
        &out,
        (2, 14),
        New,
    )
}

fn tcp_checksum_of_zero() -> Row {
    let port = port_to(&tables(), CLIENT, (VIP, 80), TCP, 11, 0);
    let out = on_to("10.0.0.11")
        .ipv4(CLIENT, "10.0.0.11")
        .ttl(63)
        .tcp(port, 8080);
    // The checksum stands before the urgent pointer and the payload.
    let plain = out.clone().payload(&[0, 0]).build();
    let payload = [plain[14 + 20 + 16], plain[14 + 20 + 17]];
    let out = out.payload(&payload);
    assert_eq!(
        out.build()[14 + 20 + 16..][..2],
        [0; 2],
        "the row's premise"
    );
    row("a tcp checksum that comes out as zero stays zero").sends(
        &from_client()
            .ipv4(CLIENT, VIP)
            .tcp(port, 80)
            .payload(&payload),
        &out,
        (1, 11),
        New,
    )
}

fn wrong_checksum() -> Row {
    let port = port_to(&tables(), CLIENT, (VIP, 80), TCP, 11, 0);
    let frame = from_client()
        .ipv4(CLIENT, VIP)
        .tcp(port, 80)
        .payload(b"hello");
    let out = on_to("10.0.0.11")
        .ipv4(CLIENT, "10.0.0.11")
        .ttl(63)
        .tcp(port, 8080);
    let out = out.payload(b"hello");
    let sum = |sentence: &Sentence| {
        let bytes = sentence.build();
        u16::from_be_bytes([bytes[50], bytes[51]])
    };
    // The error that the sender made, in one's complement arithmetic, is the receiver's too.
    let said = 0x1234u16;
    let words = [said, !sum(&frame), sum(&out)]
        .map(u16::to_be_bytes)
        .concat();
    let expected = out.clone().checksum(!internet(&[&words]));
    assert!(!facts::read(&expected.build()).expect("whole").is_intact);
    row("a checksum that was wrong is wrong by as much behind us").sends(
        &frame.checksum(said),
        &expected,
        (1, 11),
        New,
    )
}

fn connection(claim: &'static str) -> Row {
    let port = port_to(&tables(), CLIENT, (VIP, 80), TCP, 13, 0);
    let to = from_client().ipv4(CLIENT, VIP).tcp(port, 80);
    let through = on_to("10.0.0.13")
        .ipv4(CLIENT, "10.0.0.13")
        .ttl(63)
        .tcp(port, 8080);
    let answer = from_target("10.0.0.13")
        .ipv4("10.0.0.13", CLIENT)
        .tcp(8080, port);
    let back = on_to(CLIENT).ipv4(VIP, CLIENT).ttl(63).tcp(80, port);
    row(claim)
        .sends(&to.clone().syn(), &through.clone().syn(), (1, 13), New)
        .sends(
            &answer.clone().syn_ack(),
            &back.clone().syn_ack(),
            (1, 13),
            Return,
        )
        .sends(&to, &through, (1, 13), Known)
        .sends(
            &to.clone().payload(b"GET /"),
            &through.clone().payload(b"GET /"),
            (1, 13),
            Known,
        )
        .sends(
            &answer.clone().payload(b"200"),
            &back.clone().payload(b"200"),
            (1, 13),
            Return,
        )
        .sends(&answer.fin(), &back.fin(), (1, 13), Return)
        .sends(&to.fin(), &through.fin(), (1, 13), Known)
        .remembers(1)
}

pub(crate) fn rows() -> Vec<Row> {
    vec![
        connection("a connection goes to one target and back, and is one entry"),
        tcp_v4("tcp over ipv4 is translated both ways", Sentence::syn),
        tcp_v4("an odd payload is carried and counted", |s| {
            s.payload(b"odd")
        }),
        tcp_v4("tcp options and the urgent pointer are carried", |s| {
            s.tcp_options(&[2, 4, 5, 0xb4, 1, 3, 3, 7])
                .urgent(7)
                .flags(0x38)
                .payload(b"urgent")
        }),
        tcp_v4("unknown tcp flags and reserved bits are carried", |s| {
            s.flags(0xc2)
        }),
        tcp_v4("dscp and ecn of ipv4 are carried", |s| s.class(0xbb)),
        tcp_v4(
            "one word of ipv4 options is stepped over and carried",
            |s| s.options(&[1, 1, 1]),
        ),
        tcp_v4(
            "the longest ipv4 options are stepped over and carried",
            |s| s.options(&[[7, 39, 4].as_slice(), &[0; 37]].concat()),
        ),
        tcp_v4("the do-not-fragment flag is no fragment", |s| {
            s.fragment_word(0x4000)
        }),
        tcp_v4(
            "padding of a short frame stays as it is and is not counted",
            Sentence::padded,
        ),
        tcp_v4("a trailer stays as it is and is not counted", |s| {
            s.trailer(b"\xde\xad\xbe\xef")
        }),
        tcp_v4("a packet of the whole mtu passes", |s| {
            s.payload(&[0x5a; 1460])
        }),
        udp_v4("udp over ipv4 is translated both ways", |s| {
            s.payload(b"query")
        }),
        udp_v4("a udp checksum of zero over ipv4 stays zero", |s| {
            s.payload(b"q").no_checksum()
        }),
        udp_v4("a datagram without payload passes", |s| s),
        udp_v4(
            "a udp length shorter than the packet is the sender's business",
            |s| s.payload(b"question").udp_length(12).checksum(0),
        ),
        tcp_v6("tcp over ipv6 is translated both ways", Sentence::syn),
        tcp_v6("traffic class and flow label of ipv6 are carried", |s| {
            s.class(0xbb)
        }),
        tcp_v6(
            "the urgent pointer and odd flags of ipv6 are carried",
            |s| s.urgent(7).flags(0xf8).payload(b"urgent"),
        ),
        tcp_v6("hop-by-hop options are stepped over", Sentence::hop_by_hop),
        tcp_v6("a routing header is stepped over", Sentence::routing),
        tcp_v6(
            "destination options are stepped over",
            Sentence::destination_options,
        ),
        tcp_v6(
            "a chain of three kinds of extension headers is stepped over",
            |s| {
                s.hop_by_hop()
                    .destination_options()
                    .routing()
                    .payload(b"far in")
            },
        ),
        tcp_v6("six extension headers are stepped over", |s| {
            s.hop_by_hop()
                .routing()
                .routing()
                .routing()
                .routing()
                .routing()
        }),
        tcp_v6("a trailer behind ipv6 stays as it is", |s| {
            s.trailer(b"tail")
        }),
        udp_v6("udp over ipv6 is translated both ways", |s| {
            s.payload(b"query")
        }),
        udp_v6(
            "a udp checksum of zero over ipv6 stays zero",
            Sentence::no_checksum,
        ),
        udp_v6("udp behind extension headers is translated", |s| {
            s.hop_by_hop().destination_options().payload(b"query")
        }),
        udp_checksum_of_zero(),
        tcp_checksum_of_zero(),
        wrong_checksum(),
    ]
}
