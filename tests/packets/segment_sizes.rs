//! The maximum segment size of TCP, where a listener lowers it.

use nlb_common::wire::protocol::TCP;
use nlb_ebpf::tables::PassageKind::{Known, New, Return};
use nlb_tests::{
    outer::wrapped,
    packet::Sentence,
    world::{
        CLIENT, CLIENT_V6, DSR_VIP, DSR_VIP_V6, VIP, VIP_V6, from_client, from_target, on_to,
        port_to, tables,
    },
};

use crate::{
    row::{Row, row},
    tunnels::{Case, V4, V6, case},
};

/// The segment size that the listeners of these rows allow.
const MOST_BYTES: u16 = 1360;

fn clamped(claim: &'static str, listener: usize) -> Row {
    row(claim).change(move |tables| {
        let mut policy = tables.listeners[listener].policy();
        policy.mss_clamp_bytes = MOST_BYTES;
        tables.listeners[listener].set_policy(policy);
    })
}

/// A SYN to the web with these options, and those that it leaves with.
fn web(row: Row, options: &[u8], left: &[u8]) -> Row {
    let port = port_to(&tables(), CLIENT, (VIP, 80), TCP, 11, 0);
    let syn = |sentence: Sentence, options: &[u8]| sentence.syn().tcp_options(options);
    row.sends(
        &syn(from_client().ipv4(CLIENT, VIP).tcp(port, 80), options),
        &syn(
            on_to("10.0.0.11")
                .ipv4(CLIENT, "10.0.0.11")
                .ttl(63)
                .tcp(port, 8080),
            left,
        ),
        (1, 11),
        New,
    )
}

fn size(bytes: u16) -> Vec<u8> {
    let [a, b] = bytes.to_be_bytes();
    vec![2, 4, a, b]
}

pub(crate) fn rows() -> Vec<Row> {
    let one = |claim, options: &[u8], left: &[u8]| web(clamped(claim, 1), options, left);
    let usual = |bytes| {
        [
            size(bytes),
            vec![4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7],
        ]
        .concat()
    };
    let behind = |before: &[u8], bytes| [before, &size(bytes)].concat();
    let same = |claim, options: &[u8]| one(claim, options, options);
    let nothing = [1; 36];
    let stamps = [8, 10, 0, 0, 0, 1, 0, 0, 0, 0];
    vec![
        one(
            "a segment size above the listener's is lowered",
            &usual(1460),
            &usual(1360),
        ),
        one(
            "the segment size of a jumbo frame is lowered",
            &size(u16::MAX),
            &size(1360),
        ),
        same("a segment size below the listener's stays", &usual(1359)),
        same("the listener's own segment size stays", &size(1360)),
        one(
            "a segment size behind one byte of nothing is lowered",
            &behind(&[1], 1460),
            &behind(&[1], 1360),
        ),
        one(
            "a segment size behind other options is lowered",
            &behind(&stamps, 1460),
            &behind(&stamps, 1360),
        ),
        one(
            "a segment size behind as many bytes of nothing as fit is lowered",
            &behind(&nothing, 1460),
            &behind(&nothing, 1360),
        ),
        same("a syn without a segment size gets none", &stamps),
        same("a syn without options stays as it is", &[]),
        same(
            "a segment size behind the list's end is none",
            &behind(&[0, 0, 0, 0], 1460),
        ),
        same(
            "a segment size of another length is left alone",
            &[2, 3, 5, 180, 1, 1, 1, 1],
        ),
        same(
            "a segment size behind an option of no length is left alone",
            &behind(&[8, 0, 1, 1], 1460),
        ),
        same(
            "a segment size behind an option of one byte is left alone",
            &behind(&[8, 1, 1, 1], 1460),
        ),
        same(
            "a segment size behind an option that is longer than the header is left alone",
            &behind(&[8, 40, 1, 1], 1460),
        ),
        same(
            "a segment size that the header cuts is left alone",
            &[1, 1, 1, 1, 1, 1, 2, 4],
        ),
        web(
            row("a listener that lowers nothing leaves a segment size"),
            &usual(1460),
            &usual(1460),
        ),
        connection("both ends' segment sizes are lowered, also when they are repeated"),
        connection_v6("segment sizes over ipv6 are lowered"),
        dsr(
            "a dsr client's segment size is lowered",
            (CLIENT, DSR_VIP),
            (5, 21, "10.0.0.21"),
        ),
        dsr(
            "a dsr client's segment size is lowered over ipv6, too",
            (CLIENT_V6, DSR_VIP_V6),
            (7, 23, "fd00::21"),
        ),
        tunnel(
            "a segment size is lowered inside of a tunnel",
            case(V4, TCP, 3),
        ),
        tunnel(
            "a segment size over ipv6 is lowered inside of a tunnel",
            case(V6, TCP, 2),
        ),
    ]
}

/// What goes around the packet is what goes around one that says so itself.
fn tunnel(claim: &'static str, case: Case) -> Row {
    let (listener, _) = case.listener();
    let (target, at) = case.target();
    let syn = |bytes| case.packet(0).syn().tcp_options(&size(bytes));
    let client = ((case.ends().0, case.client_port(0), TCP), 0);
    let out = wrapped(&tables(), &syn(1360).build(), client, target, at);
    clamped(claim, usize::from(listener.0))
        .sends(&syn(1460), &out, (listener.0, target), New)
        .sends(&syn(1460), &out, (listener.0, target), Known)
}

fn connection(claim: &'static str) -> Row {
    let port = port_to(&tables(), CLIENT, (VIP, 80), TCP, 11, 0);
    let sized = |sentence: Sentence, bytes| sentence.tcp_options(&size(bytes));
    let request = from_client().ipv4(CLIENT, VIP).tcp(port, 80);
    let through = on_to("10.0.0.11")
        .ipv4(CLIENT, "10.0.0.11")
        .ttl(63)
        .tcp(port, 8080);
    let answer = from_target("10.0.0.11")
        .ipv4("10.0.0.11", CLIENT)
        .tcp(8080, port);
    let back = on_to(CLIENT).ipv4(VIP, CLIENT).ttl(63).tcp(80, port);
    let ids = (1, 11);
    let syn = |sentence: &Sentence, bytes| sized(sentence.clone().syn(), bytes);
    let accept = |sentence: &Sentence, bytes| sized(sentence.clone().syn_ack(), bytes);
    clamped(claim, 1)
        .sends(&syn(&request, 1460), &syn(&through, 1360), ids, New)
        .sends(&syn(&request, 1460), &syn(&through, 1360), ids, Known)
        .sends(&accept(&answer, 8960), &accept(&back, 1360), ids, Return)
        .sends(&accept(&answer, 8960), &accept(&back, 1360), ids, Return)
        .sends(&accept(&answer, 1200), &accept(&back, 1200), ids, Return)
        // What is no SYN says nothing about sizes.
        .sends(&sized(request, 1460), &sized(through, 1460), ids, Known)
        .sends(&sized(answer, 1460), &sized(back, 1460), ids, Return)
}

fn connection_v6(claim: &'static str) -> Row {
    let port = port_to(&tables(), CLIENT_V6, (VIP_V6, 80), TCP, 17, 0);
    let sized = |sentence: Sentence, bytes| sentence.tcp_options(&size(bytes));
    let ids = (3, 17);
    clamped(claim, 3)
        .sends(
            &sized(
                from_client()
                    .ipv6(CLIENT_V6, VIP_V6)
                    .hop_by_hop()
                    .tcp(port, 80)
                    .syn(),
                1440,
            ),
            &sized(
                on_to("fd00::12")
                    .ipv6(CLIENT_V6, "fd00::12")
                    .hop_by_hop()
                    .ttl(63)
                    .tcp(port, 8080)
                    .syn(),
                1360,
            ),
            ids,
            New,
        )
        .sends(
            &sized(
                from_target("fd00::12")
                    .ipv6("fd00::12", CLIENT_V6)
                    .tcp(8080, port)
                    .syn_ack(),
                1440,
            ),
            &sized(
                on_to(CLIENT_V6)
                    .ipv6(VIP_V6, CLIENT_V6)
                    .ttl(63)
                    .tcp(80, port)
                    .syn_ack(),
                1360,
            ),
            ids,
            Return,
        )
}

fn dsr(
    claim: &'static str,
    (client, vip): (&str, &str),
    (listener, target, at): (u16, u32, &str),
) -> Row {
    let port = port_to(&tables(), client, (vip, 80), TCP, target, 0);
    let parse = |text: &str| text.parse().expect("an address of the world");
    let whole = |sentence: Sentence, bytes| {
        sentence
            .ip(parse(client), parse(vip))
            .tcp(port, 80)
            .syn()
            .tcp_options(&size(bytes))
    };
    let (sent, arrives) = (whole(from_client(), 1460), whole(on_to(at), 1360));
    clamped(claim, usize::from(listener))
        .sends(&sent, &arrives, (listener, target), New)
        .sends(&sent, &arrives, (listener, target), Known)
}
