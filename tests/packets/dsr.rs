//! dsr-l2: nothing but the MAC addresses changes, and only the client's side is seen.

use nlb_common::{
    stop::Stop,
    wire::protocol::{TCP, UDP},
};
use nlb_ebpf::tables::PassageKind::{Known, New};
use nlb_tests::{
    packet::{Sentence, eth},
    world::{
        CLIENT, CLIENT_V6, DSR_VIP, DSR_VIP_V6, MAC1, from_client, from_target, neighbour_of,
        on_to, port_to, tables,
    },
};

use crate::row::{Row, row};

type Rest = fn(Sentence) -> Sentence;

fn twice(
    claim: &'static str,
    rest: impl Fn(Sentence) -> Sentence,
    target: &'static str,
    ids: (u16, u32),
) -> Row {
    row(claim)
        .sends(&rest(from_client()), &rest(on_to(target)), ids, New)
        .sends(&rest(from_client()), &rest(on_to(target)), ids, Known)
        .remembers(1)
}

fn web(claim: &'static str, rest: Rest) -> Row {
    let port = port_to(&tables(), CLIENT, (DSR_VIP, 80), TCP, 22, 0);
    let whole = |s: Sentence| rest(s.ipv4(CLIENT, DSR_VIP).tcp(port, 80));
    twice(claim, whole, "10.0.0.22", (5, 22))
}

fn web_v6(claim: &'static str, rest: Rest) -> Row {
    let port = port_to(&tables(), CLIENT_V6, (DSR_VIP_V6, 80), TCP, 24, 0);
    let whole = |s: Sentence| rest(s.ipv6(CLIENT_V6, DSR_VIP_V6).tcp(port, 80));
    twice(claim, whole, "fd00::22", (7, 24))
}

fn dns(claim: &'static str, rest: Rest) -> Row {
    let port = port_to(&tables(), CLIENT, (DSR_VIP, 53), UDP, 21, 0);
    let whole = |s: Sentence| rest(s.ipv4(CLIENT, DSR_VIP).udp(port, 53));
    twice(claim, whole, "10.0.0.21", (6, 21))
}

fn dns_v6(claim: &'static str, rest: Rest) -> Row {
    let port = port_to(&tables(), CLIENT_V6, (DSR_VIP_V6, 53), UDP, 23, 0);
    let whole = |s: Sentence| rest(s.ipv6(CLIENT_V6, DSR_VIP_V6).udp(port, 53));
    twice(claim, whole, "fd00::21", (8, 23))
}

pub(crate) fn rows() -> Vec<Row> {
    let answer = |target| from_target(target).ipv4(DSR_VIP, CLIENT).tcp(80, 40_000);
    vec![
        web(
            "dsr sends tcp over ipv4 to the target's mac and changes nothing else",
            Sentence::syn,
        ),
        web("dsr leaves ipv4 options alone", |s| {
            s.options(&[1, 1, 1, 1])
        }),
        web("dsr takes no hop: a ttl of one passes", |s| s.ttl(1)),
        web("dsr leaves wrong checksums alone", |s| s.checksum(0xbad)),
        web("dsr leaves padding alone", Sentence::padded),
        web("dsr leaves dscp and ecn of ipv4 alone", |s| s.class(0xbb)),
        web("dsr leaves the urgent pointer and odd flags alone", |s| {
            s.urgent(7).flags(0xf8).payload(b"urgent")
        }),
        web("dsr leaves a trailer behind ipv4 alone", |s| {
            s.trailer(b"tail")
        }),
        web_v6(
            "dsr sends tcp over ipv6 to the target's mac and changes nothing else",
            |s| s.payload(b"x"),
        ),
        web_v6("dsr leaves extension headers alone", |s| {
            s.hop_by_hop().routing()
        }),
        web_v6("dsr leaves dscp and ecn of ipv6 alone", |s| s.class(0xbb)),
        web_v6("dsr takes no hop of ipv6: a limit of one passes", |s| {
            s.ttl(1)
        }),
        web_v6("dsr leaves the urgent pointer alone over ipv6", |s| {
            s.urgent(7).flags(0xf8).payload(b"urgent")
        }),
        web_v6("dsr leaves a trailer behind ipv6 alone", |s| {
            s.trailer(b"tail")
        }),
        dns("dsr sends udp over ipv4", |s| s.payload(b"query")),
        dns(
            "dsr leaves a udp checksum of zero alone",
            Sentence::no_checksum,
        ),
        dns_v6("dsr sends udp over ipv6", |s| s.payload(b"query")),
        dns_v6(
            "dsr leaves a udp checksum of zero alone over ipv6",
            Sentence::no_checksum,
        ),
        row("a dsr target without a next hop is found by the routes").sends(
            &from_client().ipv4(CLIENT, DSR_VIP).tcp(40_000, 92),
            &on_to("10.0.0.21").ipv4(CLIENT, DSR_VIP).tcp(40_000, 92),
            (20, 38),
            New,
        ),
        row("a dsr target behind a router is not reached by a mac").stops(
            &from_client().ipv4(CLIENT, DSR_VIP).tcp(40_000, 86),
            Stop::NotOnLink,
        ),
        row("a packet larger than the dsr target's link is stopped").stops(
            &from_client()
                .ipv4(CLIENT, DSR_VIP)
                .tcp(40_000, 80)
                .payload(&[0; 1461]),
            Stop::TooBig,
        ),
        row("what a dsr target sends from the vip passes us untouched")
            .passes(&answer("10.0.0.21")),
        row("a dsr target's traffic from its own address passes untouched").passes(
            &eth()
                .to(MAC1)
                .from(neighbour_of("10.0.0.21").mac())
                .ipv4("10.0.0.21", CLIENT)
                .tcp(80, 40_000),
        ),
    ]
}
