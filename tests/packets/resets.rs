//! Segments that are reset: strays, those of flows whose time ran out, and of targets whose
//! connections end.

use nlb_common::{
    listener::Stranded,
    stop::Stop,
    target::TargetControl,
    tick::Tick,
    wire::protocol::{TCP, UDP},
};
use nlb_ebpf::tables::PassageKind::{Known, New, Return, Unpinned};
use nlb_tests::{
    packet::Sentence,
    world::{
        CLIENT, DSR_VIP, TCP_IDLE_TICKS, VIP, from_client, from_target, on_to, port_to, tables,
    },
};

use crate::{
    connection::{ACK, Connection, RST, SYN, to_client},
    row::{Row, row},
};

fn policy(row: Row, listener: usize, stray: Stranded, expired: Stranded) -> Row {
    row.change(move |tables| {
        let record = &tables.listeners[listener];
        let mut policy = record.policy();
        policy.stray = stray;
        policy.expired = expired;
        record.set_policy(policy);
    })
}

const RESET: Stranded = Stranded::RESET;
const DROP: Stranded = Stranded::DROP;
const FORWARD: Stranded = Stranded::FORWARD;

fn strays() -> Vec<Row> {
    let (v4, v6) = (Connection::v4(), Connection::v6());
    let dsr_port = port_to(&tables(), CLIENT, (DSR_VIP, 80), TCP, 21, 0);
    let dsr = from_client().ipv4(CLIENT, DSR_VIP).tcp(dsr_port, 80);
    let dsr_reset = to_client()
        .ipv4(DSR_VIP, CLIENT)
        .tcp(80, dsr_port)
        .made_by_nlb();
    vec![
        v4.is_reset(
            policy(row("a stray segment is reset"), 1, RESET, FORWARD),
            Stop::Stray,
        )
        .remembers(0),
        v6.is_reset(
            policy(row("a stray segment over ipv6 is reset"), 3, RESET, FORWARD),
            Stop::Stray,
        )
        .remembers(0),
        policy(
            row("a stray segment is dropped where the listener says so"),
            1,
            DROP,
            RESET,
        )
        .stops(&v4.request(), Stop::Stray)
        .stops(&v4.request().rst(), Stop::Stray)
        .stops(&v4.request().syn_ack(), Stop::Stray)
        .remembers(0),
        v4.opens(policy(
            row("a syn is no stray, nor what follows it"),
            1,
            RESET,
            RESET,
        )),
        policy(row("what is not tcp is never stray"), 2, RESET, RESET).sends(
            &from_client()
                .ipv4(CLIENT, VIP)
                .udp(port_to(&tables(), CLIENT, (VIP, 53), UDP, 15, 0), 53),
            &on_to("10.0.0.12")
                .ipv4(CLIENT, "10.0.0.12")
                .ttl(63)
                .udp(port_to(&tables(), CLIENT, (VIP, 53), UDP, 15, 0), 5353),
            (2, 15),
            New,
        ),
        policy(
            row("a stray segment to a dsr listener is reset where it says so"),
            5,
            RESET,
            FORWARD,
        )
        .answers(
            &dsr.clone().sequence(5, 9),
            &dsr_reset.clone().flags(RST).sequence(9, 0),
            Stop::Stray,
        ),
        row("a stray rst is forwarded where strays are").sends(
            &v4.request().rst(),
            &v4.translated().rst(),
            v4.ids,
            Unpinned,
        ),
        row("a segment with options and a hop to expire is reset, not told about hops")
            .change(|tables| {
                let mut policy = tables.listeners[1].policy();
                policy.stray = RESET;
                tables.listeners[1].set_policy(policy);
            })
            .answers(
                &v4.request().ttl(1).options(&[1, 1, 1]).sequence(5, 9),
                &v4.reset().flags(RST).sequence(9, 0),
                Stop::Stray,
            ),
        row("a reset does not go to a group")
            .change(|tables| {
                let mut policy = tables.listeners[1].policy();
                policy.stray = RESET;
                tables.listeners[1].set_policy(policy);
            })
            .stops(
                &from_client().ipv4("239.1.2.3", VIP).tcp(7, 80),
                Stop::Stray,
            ),
    ]
}

fn expired() -> Vec<Row> {
    let (v4, v6) = (Connection::v4(), Connection::v6());
    let silent = |row: Row| row.silence(TCP_IDLE_TICKS + 2);
    let opened = |claim, connection: Connection, expired| {
        let listener = usize::from(connection.ids.0);
        // What strays do here must not matter.
        let stray = if expired == FORWARD { DROP } else { FORWARD };
        silent(connection.opens(policy(row(claim), listener, stray, expired)))
    };
    let dsr_port = port_to(&tables(), CLIENT, (DSR_VIP, 80), TCP, 21, 0);
    let dsr = from_client().ipv4(CLIENT, DSR_VIP).tcp(dsr_port, 80);
    let dsr_out = on_to("10.0.0.21").ipv4(CLIENT, DSR_VIP).tcp(dsr_port, 80);
    let dsr_reset = to_client()
        .ipv4(DSR_VIP, CLIENT)
        .tcp(80, dsr_port)
        .made_by_nlb();
    // Userspace knows the present tick within one.
    let closing = Tick::at_least_seconds(120);
    let over = Tick::at_least_seconds(10);
    let dsr_ends = |claim, flags, after| {
        policy(row(claim), 5, FORWARD, RESET)
            .sends(&dsr.clone().syn(), &dsr_out.clone().syn(), (5, 21), New)
            .sends(&dsr, &dsr_out, (5, 21), Known)
            .sends(
                &dsr.clone().flags(flags),
                &dsr_out.clone().flags(flags),
                (5, 21),
                Known,
            )
            .silence(after - 3)
            .sends(&dsr, &dsr_out, (5, 21), Known)
            .silence(after + 2)
            .answers(
                &dsr.clone().sequence(5, 9),
                &dsr_reset.clone().flags(RST).sequence(9, 0),
                Stop::IdleExpired,
            )
    };
    let told = |row: Row, connection: Connection| {
        let answer = connection.answer().sequence(5, 9).payload(b"data");
        let reset = connection.target_reset().flags(RST).sequence(9, 0);
        row.answers(&answer, &reset, Stop::IdleExpired)
            .stops(&answer.rst(), Stop::IdleExpired)
    };
    let late = |claim, expired| opened(claim, v4, expired);
    vec![
        told(
            opened("a target of a flow whose time ran out is told", v4, RESET),
            v4,
        ),
        told(
            opened("a target over ipv6, too", v6, Stranded::RESET_AT_EXPIRY),
            v6,
        ),
        late(
            "a target's answer after the time is dropped in silence",
            DROP,
        )
        .stops(&v4.answer(), Stop::IdleExpired),
        late("a target's answer after the time goes on", FORWARD).sends(
            &v4.answer(),
            &v4.answer_translated(),
            v4.ids,
            Return,
        ),
        v4.is_reset(
            opened("a segment of a flow whose time ran out is reset", v4, RESET),
            Stop::IdleExpired,
        )
        .remembers(1),
        v6.is_reset(
            opened(
                "a segment over ipv6 whose flow's time ran out is reset",
                v6,
                RESET,
            ),
            Stop::IdleExpired,
        ),
        opened(
            "a flow whose time ran out is silent where the listener says so",
            v4,
            DROP,
        )
        .stops(&v4.request(), Stop::IdleExpired),
        opened(
            "a flow whose time ran out begins anew where the listener says so",
            v4,
            FORWARD,
        )
        .sends(&v4.request(), &v4.translated(), v4.ids, New),
        opened("a syn begins anew whatever ran out", v4, RESET).sends(
            &v4.request().syn(),
            &v4.translated().syn(),
            v4.ids,
            New,
        ),
        dsr_ends(
            "a dsr flow is closing after its client's fin",
            0x11,
            closing,
        ),
        dsr_ends("a dsr flow is over after its client's rst", RST | ACK, over),
    ]
}

/// The target takes no new flows and ends those it has.
fn terminated(row: Row, target: usize) -> Row {
    row.change(move |tables| {
        let control = tables.targets[target].control().expect("a target");
        tables.targets[target].set_control(TargetControl {
            takes_new_flows: false,
            resets_flows: true,
            ..control
        });
    })
}

fn terminations() -> Vec<Row> {
    let (v4, v6) = (Connection::v4(), Connection::v6());
    let opened = |claim, connection: Connection| {
        terminated(
            connection.opens(row(claim)),
            usize::try_from(connection.ids.1).expect("small"),
        )
    };
    let both = |row: Row, connection: Connection| {
        let answer = connection.answer().sequence(5, 9).payload(b"data");
        connection
            .is_reset(row, Stop::Terminated)
            .answers(
                &answer,
                &connection.target_reset().flags(RST).sequence(9, 0),
                Stop::Terminated,
            )
            .stops(&answer.rst(), Stop::Terminated)
            .remembers(1)
    };
    let other = on_to("10.0.0.13")
        .ipv4(CLIENT, "10.0.0.13")
        .ttl(63)
        .tcp(v4.port, 8080);
    let port = port_to(&tables(), CLIENT, (VIP, 53), UDP, 14, 0);
    let dns = from_client().ipv4(CLIENT, VIP).udp(port, 53);
    let dns_to = |at: &str| on_to(at).ipv4(CLIENT, at).ttl(63).udp(port, 5353);
    let dns_answer = |at: &str| from_target(at).ipv4(at, CLIENT).udp(5353, port);
    let dns_back = on_to(CLIENT).ipv4(VIP, CLIENT).ttl(63).udp(53, port);
    vec![
        both(
            opened(
                "the flows of a terminated target are reset at both ends",
                v4,
            ),
            v4,
        ),
        both(
            opened(
                "flows over ipv6 of a terminated target are reset at both ends",
                v6,
            ),
            v6,
        ),
        opened("a client that opens anew leaves a terminated target", v4)
            .ring(1, &[13])
            .sends(&v4.request().syn(), &other.clone().syn(), (1, 13), New)
            .sends(&v4.request(), &other, (1, 13), Known)
            .remembers(1),
        terminated(
            row("a udp flow of a terminated target moves to another with its next packet")
                .sends(&dns, &dns_to("10.0.0.11"), (2, 14), New)
                .sends(&dns, &dns_to("10.0.0.11"), (2, 14), Known),
            14,
        )
        .ring(2, &[15])
        .sends(&dns_answer("10.0.0.11"), &dns_back, (2, 14), Return)
        .sends(&dns, &dns_to("10.0.0.12"), (2, 15), New)
        .sends(&dns, &dns_to("10.0.0.12"), (2, 15), Known)
        .passes(&dns_answer("10.0.0.11"))
        .sends(&dns_answer("10.0.0.12"), &dns_back, (2, 15), Return)
        .remembers(1),
    ]
}

fn dsr_terminations() -> Vec<Row> {
    let dsr_port = port_to(&tables(), CLIENT, (DSR_VIP, 80), TCP, 21, 0);
    let dsr = from_client().ipv4(CLIENT, DSR_VIP).tcp(dsr_port, 80);
    let dsr_out = on_to("10.0.0.21").ipv4(CLIENT, DSR_VIP).tcp(dsr_port, 80);
    let dsr_udp_port = port_to(&tables(), CLIENT, (DSR_VIP, 53), UDP, 21, 0);
    let dsr_udp = |sentence: Sentence| sentence.ipv4(CLIENT, DSR_VIP).udp(dsr_udp_port, 53);
    vec![
        terminated(
            row("the flows of a terminated dsr target are reset").sends(
                &dsr.clone().flags(SYN),
                &dsr_out.clone().flags(SYN),
                (5, 21),
                New,
            ),
            21,
        )
        .answers(
            &dsr.sequence(5, 9),
            &to_client()
                .ipv4(DSR_VIP, CLIENT)
                .tcp(80, dsr_port)
                .made_by_nlb()
                .flags(RST)
                .sequence(9, 0),
            Stop::Terminated,
        ),
        terminated(
            row("a udp flow of a terminated dsr target moves").sends(
                &dsr_udp(from_client()),
                &dsr_udp(on_to("10.0.0.21")),
                (6, 21),
                New,
            ),
            21,
        )
        .ring(5, &[22])
        .sends(
            &dsr_udp(from_client()),
            &dsr_udp(on_to("10.0.0.22")),
            (6, 22),
            New,
        ),
    ]
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = strays();
    rows.extend(expired());
    rows.extend(terminations());
    rows.extend(dsr_terminations());
    rows
}
