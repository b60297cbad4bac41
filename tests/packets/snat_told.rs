//! What both ends of a flow with a translated source are told, and when it ends; and that a packet
//! which asks for a connection that is there already goes the way of the others.

use nlb_common::{
    stop::Stop,
    target::{TargetControl, TargetId},
};
use nlb_ebpf::tables::PassageKind::{Known, New, Return};
use nlb_tests::packet::Sentence;

use crate::{
    answers::error,
    connection::{RST, to_client, to_target},
    row::{Row, row},
    snat::{Flow, Hairpin},
};

const DO_NOT_FRAGMENT: u16 = 0x4000;

fn opened(claim: &'static str, flow: Flow) -> Row {
    row(claim)
        .sends(&flow.request().syn(), &flow.through(0).syn(), flow.ids, New)
        .sends(
            &flow.answer(0).syn_ack(),
            &flow.back().syn_ack(),
            flow.ids,
            Return,
        )
        .sends(&flow.request(), &flow.through(0), flow.ids, Known)
}

/// A SYN of a remembered flow is no plain packet, and its flow no plain flow.
fn opened_twice() -> Vec<Row> {
    let twice = |claim, flow: Flow| {
        let (syn, through) = (flow.request().syn(), flow.through(0).syn());
        row(claim)
            .sends(&syn, &through, flow.ids, New)
            .sends(&syn, &through, flow.ids, Known)
            .sends(
                &flow.answer(0).syn_ack(),
                &flow.back().syn_ack(),
                flow.ids,
                Return,
            )
            .sends(&syn, &through, flow.ids, Known)
            .remembers(1)
    };
    let hairpin = Hairpin::new();
    let (syn, through) = (hairpin.request().syn(), hairpin.through().syn());
    vec![
        twice(
            "a full-nat syn that comes again goes the same way",
            Flow::tcp_v4(0),
        ),
        twice(
            "a full-nat syn over ipv6 that comes again goes the same way",
            Flow::tcp_v6(),
        ),
        row("a hairpin's syn that comes again goes the same way")
            .sends(&syn, &through, (1, 11), New)
            .sends(&syn, &through, (1, 11), Known),
    ]
}

fn clamped() -> Row {
    let flow = Flow::tcp_v4(0);
    let size = |bytes: u16| {
        let [a, b] = bytes.to_be_bytes();
        [2, 4, a, b]
    };
    let sized = |sentence: Sentence, bytes| sentence.tcp_options(&size(bytes));
    row("segment sizes of a full-nat connection are lowered both ways, also of a syn that comes again")
        .change(move |tables| {
            let listener = &tables.listeners[usize::from(flow.ids.0)];
            let mut policy = listener.policy();
            policy.mss_clamp_bytes = 1360;
            listener.set_policy(policy);
        })
        .sends(
            &sized(flow.request().syn(), 1460),
            &sized(flow.through(0).syn(), 1360),
            flow.ids,
            New,
        )
        .sends(
            &sized(flow.answer(0).syn_ack(), 1460),
            &sized(flow.back().syn_ack(), 1360),
            flow.ids,
            Return,
        )
        .sends(
            &sized(flow.request().syn(), 1460),
            &sized(flow.through(0).syn(), 1360),
            flow.ids,
            Known,
        )
}

fn told() -> Vec<Row> {
    let (v4, v6) = (Flow::tcp_v4(0), Flow::tcp_v6());
    let big = |sentence: Sentence, bytes| {
        let sentence = sentence.payload(&vec![0x5a; bytes]);
        sentence.fragment_word(DO_NOT_FRAGMENT)
    };
    let client = |flow: Flow, what, frame: &Sentence| {
        error(to_client(), (flow.vip.0, flow.client.0), what, frame)
    };
    let target = |flow: Flow, what, frame: &Sentence| {
        error(
            to_target(flow.router),
            (flow.vip.0, flow.target.0),
            what,
            frame,
        )
    };
    let (late, large) = (v4.request().ttl(1), big(v4.request(), 1461));
    let (late_v6, large_v6) = (v6.request().ttl(1), v6.request().payload(&[0x5a; 1441]));
    let (late_back, large_back) = (v4.answer(0).ttl(1), big(v4.answer(0), 1461));
    let late_back_v6 = v6.answer(0).ttl(1);
    let large_back_v6 = v6.answer(0).payload(&[0x5a; 1441]);
    vec![
        row("a full-nat client is told what becomes of its first packet")
            .answers(&late, &client(v4, (11, 0, 0), &late), Stop::TtlExpired)
            .answers(&large, &client(v4, (3, 4, 1500), &large), Stop::TooBig)
            .remembers(0),
        opened("a full-nat client is told what becomes of its packets", v4)
            .answers(&late, &client(v4, (11, 0, 0), &late), Stop::TtlExpired)
            .answers(&large, &client(v4, (3, 4, 1500), &large), Stop::TooBig),
        opened(
            "a full-nat client is told over ipv6 what becomes of its packets",
            v6,
        )
        .answers(&late_v6, &client(v6, (3, 0, 0), &late_v6), Stop::TtlExpired)
        .answers(
            &large_v6,
            &client(v6, (2, 0, 1500), &large_v6),
            Stop::TooBig,
        ),
        opened("a full-nat target is told what becomes of its answers", v4)
            .answers(
                &late_back,
                &target(v4, (11, 0, 0), &late_back),
                Stop::TtlExpired,
            )
            .answers(
                &large_back,
                &target(v4, (3, 4, 1500), &large_back),
                Stop::TooBig,
            ),
        opened(
            "a full-nat target is told over ipv6 what becomes of its answers",
            v6,
        )
        .answers(
            &late_back_v6,
            &target(v6, (3, 0, 0), &late_back_v6),
            Stop::TtlExpired,
        )
        .answers(
            &large_back_v6,
            &target(v6, (2, 0, 1500), &large_back_v6),
            Stop::TooBig,
        ),
    ]
}

/// The target's connections end: both sides are told.
fn terminated() -> Vec<Row> {
    let ended = |claim, flow: Flow| {
        let parse = |text: &str| text.parse().expect("an address of the world");
        let source = flow.source(0);
        let to_client = to_client()
            .ip(parse(flow.vip.0), parse(flow.client.0))
            .tcp(flow.vip.1, flow.client.1)
            .made_by_nlb();
        let to_target = to_target(flow.router)
            .ip(parse(source.0), parse(flow.target.0))
            .tcp(source.1, flow.target.1)
            .made_by_nlb();
        opened(claim, flow)
            .change(move |tables| {
                let TargetId(id) = TargetId(flow.ids.1);
                let target = &tables.targets[id as usize];
                let control = target.control().expect("a target of the world");
                target.set_control(TargetControl {
                    takes_new_flows: false,
                    resets_flows: true,
                    ..control
                });
            })
            .answers(
                &flow.request().sequence(5, 9),
                &to_client.flags(RST).sequence(9, 0),
                Stop::Terminated,
            )
            .answers(
                &flow.answer(0).sequence(5, 9),
                &to_target.flags(RST).sequence(9, 0),
                Stop::Terminated,
            )
            .stops(&flow.answer(0).rst(), Stop::Terminated)
    };
    vec![
        ended(
            "both ends of a full-nat connection to a target that is gone are reset",
            Flow::tcp_v4(0),
        ),
        ended(
            "both ends of such a connection over ipv6 are reset",
            Flow::tcp_v6(),
        ),
    ]
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = opened_twice();
    rows.push(clamped());
    rows.extend(told());
    rows.extend(terminated());
    rows
}
