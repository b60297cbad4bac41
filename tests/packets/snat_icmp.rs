//! ICMP errors about flows with a translated source: whoever is told knows the packet that is
//! quoted, from its own end.

use nlb_ebpf::tables::PassageKind::{Known, New, Return};
use nlb_tests::{
    packet::eth,
    world::{from_client, from_target, on_to},
};

use crate::{
    icmp::{ERRORS_V4, ERRORS_V6, QUOTED_BYTES, ip, said},
    row::{Row, row},
    snat::{Flow, Hairpin, segment},
};

/// Routers on the client's side and on the target's.
fn routers(flow: Flow) -> (&'static str, &'static str) {
    if flow.client.0.contains(':') {
        ("2001:db8:c::fe", "fd00::fe")
    } else {
        ("198.51.100.254", "10.0.0.254")
    }
}

/// Errors of every kind, and of every length of quote, both ways.
fn errors(claim: &'static str, flow: Flow) -> Row {
    let (outer, inner) = routers(flow);
    let source = flow.source(0);
    let quoted = |from, to| {
        segment(eth(), flow.protocol, from, to)
            .ttl(61)
            .payload(b"data")
    };
    let to_client = quoted(flow.vip, flow.client);
    let from_the_target = quoted(flow.target, source);
    let to_the_target = quoted(source, flow.target);
    let from_client_itself = quoted(flow.client, flow.vip);
    let kinds = if flow.client.0.contains(':') {
        ERRORS_V6
    } else {
        ERRORS_V4
    };
    let mut row = row(claim).sends(&flow.request(), &flow.through(0), flow.ids, New);
    for &kind in kinds {
        for &bytes in QUOTED_BYTES {
            // The client itself is told apart from a router: the target does not know it.
            for (sender, seen_as) in [(outer, outer), (flow.client.0, source.0)] {
                let came = said(ip(from_client(), sender, flow.vip.0), kind);
                let went = ip(on_to(flow.router), seen_as, flow.target.0).ttl(63);
                row = row.sends(
                    &came.quoting(&to_client, bytes),
                    &said(went, kind).quoting(&from_the_target, bytes),
                    flow.ids,
                    Known,
                );
            }
            for (sender, seen_as) in [(inner, inner), (flow.target.0, flow.vip.0)] {
                let came = said(ip(from_target(flow.router), sender, source.0), kind);
                let went = ip(on_to(flow.client.0), seen_as, flow.client.0).ttl(63);
                row = row.sends(
                    &came.quoting(&to_the_target, bytes),
                    &said(went, kind).quoting(&from_client_itself, bytes),
                    flow.ids,
                    Return,
                );
            }
        }
    }
    row
}

/// Errors about nobody's packets, and about packets of others.
fn unknown() -> Vec<Row> {
    let flow = Flow::tcp_v4(0);
    let (_, inner) = routers(flow);
    let source = flow.source(0);
    let about = |from, to: (&str, u16)| {
        let error = ip(from_target(flow.router), inner, source.0);
        said(error, ERRORS_V4[2]).quoting(&segment(eth(), flow.protocol, from, to), 8)
    };
    vec![
        row("an error about no flow's source passes")
            .passes(&about(source, flow.target))
            .sends(&flow.request(), &flow.through(0), flow.ids, New)
            .passes(&about(source, ("10.0.0.12", 8080)))
            .passes(&about((source.0, source.1 ^ 1), flow.target)),
    ]
}

/// A hairpin's answers come to the target as client from the VIP.
fn hairpin() -> Row {
    let it = Hairpin::new();
    let target = ("10.0.0.11", 8080);
    let quote = |from, to| segment(eth(), 6, from, to).ttl(61);
    let kind = ERRORS_V4[2];
    row("an error about a hairpin's request reaches the target in its part as client")
        .sends(&it.request(), &it.through(), (1, 11), New)
        .sends(
            &said(
                ip(from_target("10.0.0.11"), "10.0.0.254", it.source.0),
                kind,
            )
            .quoting(&quote(it.source, target), 8),
            &said(
                ip(on_to("10.0.0.11"), "10.0.0.254", "10.0.0.11").ttl(63),
                kind,
            )
            .quoting(
                &quote(("10.0.0.11", it.port), (nlb_tests::world::VIP, 80)),
                8,
            ),
            (1, 11),
            Return,
        )
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = vec![
        errors(
            "errors about full-nat over tcp are translated both ways",
            Flow::tcp_v4(0),
        ),
        errors(
            "errors about full-nat over udp are translated both ways",
            Flow::udp_v4(),
        ),
        errors(
            "errors about full-nat over tcp and ipv6 are translated both ways",
            Flow::tcp_v6(),
        ),
        errors(
            "errors about full-nat over udp and ipv6 are translated both ways",
            Flow::udp_v6(),
        ),
        hairpin(),
    ];
    rows.extend(unknown());
    rows
}
