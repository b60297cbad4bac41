//! Packets of nlb's own: resets and ICMP errors, byte for byte.

use nlb_common::{
    answer::ErrorBudget,
    listener::Stranded,
    stop::Stop,
    target::TargetControl,
    tick::Tick,
    wire::protocol::{TCP, UDP},
};
use nlb_ebpf::tables::PassageKind::{Known, New, Return, Unpinned};
use nlb_tests::{
    packet::{Sentence, eth},
    world::{
        CLIENT, CLIENT_V6, DSR_VIP, DSR_VIP_V6, MAC0, MAC1, TCP_IDLE_TICKS, VIP, VIP_V6,
        from_client, from_target, neighbour_of, on_to, port_to, tables,
    },
};

use crate::row::{Row, row};

/// The flags of TCP, as a client sets them.
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 0x10;

/// The most of a packet that an ICMP error quotes.
const QUOTE_BYTES: usize = 128;

/// A frame from us to the client, through the interface that it came in by.
fn to_client() -> Sentence {
    eth().to(neighbour_of(CLIENT).mac()).from(MAC0)
}

/// A frame from us back to a target.
fn to_target(target: &str) -> Sentence {
    eth().to(neighbour_of(target).mac()).from(MAC1)
}

/// What an ICMP error quotes of a frame.
fn quote(frame: &Sentence) -> Vec<u8> {
    let mut packet = frame.build().split_off(14);
    let length = packet.len().min(QUOTE_BYTES) & !3;
    packet.truncate(length);
    packet
}

/// An ICMP error from the VIP about this frame.
fn error(
    to: Sentence,
    ends: (&str, &str),
    (kind, code, mtu): (u8, u8, u32),
    frame: &Sentence,
) -> Sentence {
    let ip = if ends.0.contains(':') {
        to.ipv6(ends.0, ends.1)
    } else {
        to.ipv4(ends.0, ends.1).class(0xc0)
    };
    ip.icmp_error(kind, code, mtu)
        .made_by_nlb()
        .payload(&quote(frame))
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
                // A little later than now, so that no tick of the test's is a new one.
                let soon = Tick(tables.now.get().wrapping_add(4));
                tables.error_budget.set(ErrorBudget::new(soon, 0).0);
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

/// A connection through us, as both ends see it.
#[derive(Clone, Copy)]
struct Connection {
    client: &'static str,
    vip: &'static str,
    target: &'static str,
    port: u16,
    ids: (u16, u32),
}

impl Connection {
    fn v4() -> Self {
        Self {
            client: CLIENT,
            vip: VIP,
            target: "10.0.0.11",
            port: port_to(&tables(), CLIENT, (VIP, 80), TCP, 11, 0),
            ids: (1, 11),
        }
    }

    fn v6() -> Self {
        Self {
            client: CLIENT_V6,
            vip: VIP_V6,
            target: "fd00::12",
            port: port_to(&tables(), CLIENT_V6, (VIP_V6, 80), TCP, 17, 0),
            ids: (3, 17),
        }
    }

    fn ip(sentence: Sentence, from: &str, to: &str) -> Sentence {
        let parse = |text: &str| text.parse().expect("an address");
        sentence.ip(parse(from), parse(to))
    }

    /// From the client.
    fn request(self) -> Sentence {
        Self::ip(from_client(), self.client, self.vip).tcp(self.port, 80)
    }

    /// The same, behind us.
    fn translated(self) -> Sentence {
        Self::ip(on_to(self.target), self.client, self.target)
            .ttl(63)
            .tcp(self.port, 8080)
    }

    /// From the target.
    fn answer(self) -> Sentence {
        Self::ip(from_target(self.target), self.target, self.client).tcp(8080, self.port)
    }

    /// The same, behind us.
    fn answer_translated(self) -> Sentence {
        Self::ip(on_to(self.client), self.vip, self.client)
            .ttl(63)
            .tcp(80, self.port)
    }

    /// Our reset to the client.
    fn reset(self) -> Sentence {
        Self::ip(to_client(), self.vip, self.client)
            .tcp(80, self.port)
            .made_by_nlb()
    }

    /// Our reset to the target.
    fn target_reset(self) -> Sentence {
        Self::ip(to_target(self.target), self.client, self.target)
            .tcp(self.port, 8080)
            .made_by_nlb()
    }

    fn opens(self, row: Row) -> Row {
        row.sends(
            &self.request().syn(),
            &self.translated().syn(),
            self.ids,
            New,
        )
        .sends(
            &self.answer().syn_ack(),
            &self.answer_translated().syn_ack(),
            self.ids,
            Return,
        )
        .sends(&self.request(), &self.translated(), self.ids, Known)
    }

    /// Every segment that may be reset, and its reset.
    fn is_reset(self, mut row: Row, stop: Stop) -> Row {
        let request = self.request().sequence(1000, 7000);
        let of_ack = self.reset().flags(RST).sequence(7000, 0);
        for frame in [
            request.clone(),
            request.clone().payload(b"data"),
            request.clone().fin(),
            request.clone().tcp_options(&[1; 12]).payload(&[1; 1400]),
            request.clone().syn_ack(),
            request.clone().padded(),
        ] {
            row = row.answers(&frame, &of_ack, stop);
        }
        let of_none = |next| self.reset().flags(RST | ACK).sequence(0, next);
        row.answers(&request.clone().flags(0), &of_none(1000), stop)
            .answers(
                &request.clone().flags(1).payload(b"odd"),
                &of_none(1004),
                stop,
            )
            .answers(
                &request
                    .clone()
                    .flags(0)
                    .sequence(u32::MAX, 0)
                    .payload(b"12"),
                &of_none(1),
                stop,
            )
            // Nobody resets a reset.
            .stops(&request.clone().rst(), stop)
            .stops(&request.flags(RST | ACK), stop)
    }
}

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
        policy(
            row("a word that means nothing drops stray segments"),
            1,
            Stranded(3),
            RESET,
        )
        .stops(&v4.request(), Stop::Stray),
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
    vec![
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
    let dsr_port = port_to(&tables(), CLIENT, (DSR_VIP, 80), TCP, 21, 0);
    let dsr = from_client().ipv4(CLIENT, DSR_VIP).tcp(dsr_port, 80);
    let dsr_out = on_to("10.0.0.21").ipv4(CLIENT, DSR_VIP).tcp(dsr_port, 80);
    let dsr_udp_port = port_to(&tables(), CLIENT, (DSR_VIP, 53), UDP, 21, 0);
    let dsr_udp = |sentence: Sentence| sentence.ipv4(CLIENT, DSR_VIP).udp(dsr_udp_port, 53);
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
    rows.extend(strays());
    rows.extend(expired());
    rows.extend(terminations());
    rows
}
