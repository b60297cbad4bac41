//! Large frames, which a driver hands over in several buffers: what does not fit into the first one is
//! never looked at, and stays what it was.

use nlb_common::{
    listener::Stranded,
    next_hop::NextHop,
    stop::Stop,
    wire::protocol::{TCP, UDP},
};
use nlb_ebpf::{
    memory::MemoryTables,
    tables::PassageKind::{Known, New},
};
use nlb_tests::{
    packet::Sentence,
    world::{CLIENT, CLIENT_V6, DSR_VIP_V6, VIP, VIP_V6, from_client, on_to, port_to, tables},
};

use crate::{
    answers::error,
    connection::{Connection, RST, to_client},
    row::{Row, row},
};

/// Bytes of data in a segment that fills a link of 9,001 bytes, by IPv4.
const LARGEST: usize = 9001 - 40;

/// Bytes that fit the first buffer of `BPF_PROG_TEST_RUN`: a page without headroom and without what
/// the kernel keeps at its end.
const FIRST_BUFFER: usize = 4096 - 256 - 320;

/// Every link that the tables know takes 9,001 bytes: what instances on AWS have.
pub(crate) fn wide_links(tables: &mut MemoryTables) {
    for slot in &tables.next_hops {
        if let Some((next_hop, _)) = slot.read() {
            slot.write(&NextHop {
                mtu_bytes: 9001,
                ..next_hop
            });
        }
    }
}

fn resets_strays(tables: &mut MemoryTables) {
    for listener in &tables.listeners {
        let mut policy = listener.policy();
        policy.stray = Stranded::RESET;
        listener.set_policy(policy);
    }
}

fn data(bytes: usize) -> Vec<u8> {
    (0..=250).cycle().take(bytes).collect()
}

fn web(claim: &'static str, connection: Connection, bytes: usize) -> Row {
    let data = data(bytes);
    connection
        .opens(row(claim))
        .change(wide_links)
        .sends(
            &connection.request().payload(&data),
            &connection.translated().payload(&data),
            connection.ids,
            Known,
        )
        // A first packet may be as large.
        .sends(
            &connection.request().syn().payload(&data),
            &connection.translated().syn().payload(&data),
            connection.ids,
            Known,
        )
        .remembers(1)
}

fn forwarded() -> Vec<Row> {
    let dns_port = port_to(&tables(), CLIENT, (VIP, 53), UDP, 15, 0);
    let dns = |s: Sentence, to, port| s.ipv4(CLIENT, to).udp(dns_port, port).payload(&data(8000));
    let dns_out = dns(on_to("10.0.0.12").ttl(63), "10.0.0.12", 5353);
    let dsr_port = port_to(&tables(), CLIENT_V6, (DSR_VIP_V6, 80), TCP, 24, 0);
    let dsr = |s: Sentence| {
        s.ipv6(CLIENT_V6, DSR_VIP_V6)
            .tcp(dsr_port, 80)
            .payload(&data(8000))
    };
    vec![
        web("nat: a segment of 9,001 bytes", Connection::v4(), LARGEST),
        web(
            "nat: a segment of 9,001 bytes over ipv6",
            Connection::v6(),
            LARGEST - 20,
        ),
        web(
            "nat: a segment that just leaves the first buffer",
            Connection::v4(),
            FIRST_BUFFER - 54 + 1,
        ),
        web(
            "nat: a segment that just fits the first buffer",
            Connection::v4(),
            FIRST_BUFFER - 54,
        ),
        row("nat: a large datagram")
            .change(wide_links)
            .sends(&dns(from_client(), VIP, 53), &dns_out, (2, 15), New)
            .sends(&dns(from_client(), VIP, 53), &dns_out, (2, 15), Known),
        row("dsr: a large segment")
            .change(wide_links)
            .sends(&dsr(from_client()), &dsr(on_to("fd00::22")), (7, 24), New)
            .sends(&dsr(from_client()), &dsr(on_to("fd00::22")), (7, 24), Known),
    ]
}

/// Answers cut the frame off, over the border of the first buffer.
fn answered() -> Vec<Row> {
    let connection = Connection::v4();
    let strict = from_client()
        .ipv4(CLIENT, VIP)
        .tcp(40_000, 80)
        .payload(&data(8000))
        .fragment_word(0x4000);
    let needed = error(to_client(), (VIP, CLIENT), (3, 4, 1500), &strict);
    let v6 = from_client()
        .ipv6(CLIENT_V6, VIP_V6)
        .tcp(40_000, 80)
        .payload(&data(8000));
    let needed_v6 = error(to_client(), (VIP_V6, CLIENT_V6), (2, 0, 1500), &v6);
    let ping = from_client().ipv4(CLIENT, VIP).echo();
    let answer = to_client().ipv4(VIP, CLIENT).icmp(0);
    let stray = connection.request().sequence(1000, 7000);
    vec![
        row("a large segment that the target's link does not take is told its mtu")
            .answers(&strict, &needed, Stop::TooBig)
            .answers(&v6, &needed_v6, Stop::TooBig)
            .remembers(0),
        row("a large ping of a vip is answered").answers(
            &ping.payload(&data(8000)),
            &answer.payload(&data(8000)),
            Stop::IcmpEcho,
        ),
        row("a large segment of no flow is reset")
            .change(resets_strays)
            .answers(
                &stray.payload(&data(8000)),
                &connection.reset().flags(RST).sequence(7000, 0),
                Stop::Stray,
            ),
    ]
}

fn left_alone() -> Vec<Row> {
    let not_ours = from_client().ipv4(CLIENT, "203.0.113.9").tcp(40_000, 80);
    let web = from_client().ipv4(CLIENT, VIP).tcp(40_000, 80);
    vec![
        row("a large packet that is not ours passes").passes(&not_ours.payload(&data(8000))),
        row("a large frame that is shorter than its packet is malformed")
            .stops(&web.payload(&data(8000)).length(8041), Stop::Malformed),
    ]
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = forwarded();
    rows.extend(answered());
    rows.extend(left_alone());
    rows
}
