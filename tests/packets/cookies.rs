//! Connections that begin with a SYN cookie, segment by segment.

use nlb_common::{
    admission::AdmissionPolicy,
    listener::{ListenerId, Stranded},
    stop::Stop,
};
use nlb_ebpf::tables::PassageKind::{Known, New, Return};
use nlb_tests::{
    packet::Sentence,
    world::{SEQUENCE, TCP_IDLE_TICKS},
};

use crate::{
    connection::{ACK, Connection, RST, SYN, to_client},
    row::{Row, row},
};

/// The target's first sequence number; the client's is [`SEQUENCE`].
const TARGET_SEQUENCE: u32 = 0xffff_fff0;
/// What the client's system puts into its SYN: segment size, SACK, timestamps, window scale.
pub(crate) const OPTIONS: &[u8] = &[
    2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7,
];
/// The target's window, in bytes.
const WINDOW: u16 = 0x7210;

/// A connection to a listener with cookies.
#[derive(Clone, Copy)]
pub(crate) struct Guarded(pub(crate) Connection);

impl Guarded {
    /// Both IP versions: the name, the connection, and the segment sizes that the client names, that
    /// its cookie stands for, and that we name.
    pub(crate) fn both() -> [(&'static str, Self, [u16; 2]); 2] {
        [
            ("ipv4", Self(Connection::v4()), [1460, 1460]),
            ("ipv6", Self(Connection::v6()), [1440, 1440]),
        ]
    }

    pub(crate) fn v4() -> Self {
        Self(Connection::v4())
    }

    /// Begins a row whose listener answers SYNs with cookies.
    pub(crate) fn row(self, claim: &'static str) -> Row {
        let (listener, _) = self.0.ids;
        with_cookies(row(claim), listener)
    }

    /// The client's SYN.
    pub(crate) fn syn(self) -> Sentence {
        self.0.request().syn().tcp_options(OPTIONS)
    }

    /// From the client, with the first byte's number, after the cookie.
    pub(crate) fn request(self, cookie: u32) -> Sentence {
        let (next, due) = (SEQUENCE + 1, cookie.wrapping_add(1));
        self.0.request().sequence(next, due)
    }

    /// The same, behind us.
    pub(crate) fn translated(self) -> Sentence {
        let due = TARGET_SEQUENCE.wrapping_add(1);
        self.0.translated().sequence(SEQUENCE + 1, due)
    }

    /// From the target, with its first byte's number.
    pub(crate) fn answer(self) -> Sentence {
        let next = TARGET_SEQUENCE.wrapping_add(1);
        self.0.answer().sequence(next, SEQUENCE + 1)
    }

    /// The same, behind us.
    pub(crate) fn answer_translated(self, cookie: u32) -> Sentence {
        let next = cookie.wrapping_add(1);
        self.0.answer_translated().sequence(next, SEQUENCE + 1)
    }

    /// The target accepts.
    fn syn_ack(self) -> Sentence {
        let accepting = self.0.answer().syn_ack().window(WINDOW);
        accepting
            .sequence(TARGET_SEQUENCE, SEQUENCE + 1)
            .tcp_options(&size(1460))
    }

    /// The SYN that the target gets.
    pub(crate) fn syn_of_ours(self, bytes: u16) -> Sentence {
        let syn = self.0.translated().made_by_nlb().syn();
        let window = Sentence::DEFAULT_WINDOW;
        syn.window(window)
            .sequence(SEQUENCE, 0)
            .tcp_options(&size(bytes))
    }

    /// What the client gets for the target's SYN-ACK.
    fn window(self, cookie: u32) -> Sentence {
        let told = self.0.answer_translated().made_by_nlb();
        told.flags(ACK)
            .window(WINDOW)
            .sequence(cookie, SEQUENCE + 1)
            .payload(&[0])
    }

    /// A SYN is answered with a cookie.
    pub(crate) fn asks(self, row: Row, syn: &Sentence, offers: u16) -> Row {
        let syn = syn.clone();
        row.makes_cookie(move |row, cookie| {
            let answer = self.0.reset().flags(SYN | ACK);
            let answer = answer.sequence(cookie, SEQUENCE + 1);
            let answer = answer.tcp_options(&size(offers));
            row.answers(&syn, &answer, Stop::SynCookie)
        })
    }

    /// The acknowledgement begins the flow.
    pub(crate) fn begins(self, row: Row, bytes: u16) -> Row {
        row.with_cookie(move |row, cookie| {
            let (ack, syn) = (self.request(cookie), self.syn_of_ours(bytes));
            row.sends(&ack, &syn, self.0.ids, New)
        })
    }

    /// The target accepts.
    pub(crate) fn accepts(self, row: Row) -> Row {
        row.with_cookie(move |row, cookie| {
            row.sends(&self.syn_ack(), &self.window(cookie), self.0.ids, Return)
        })
    }

    /// A segment of the client's, and how its target gets it.
    pub(crate) fn to_target(self, row: Row, rest: impl Fn(Sentence) -> Sentence + 'static) -> Row {
        row.with_cookie(move |row, cookie| {
            let (from, to) = (rest(self.request(cookie)), rest(self.translated()));
            row.sends(&from, &to.ttl(63), self.0.ids, Known)
        })
    }

    /// A segment of the target's, and how its client gets it.
    pub(crate) fn to_client(self, row: Row, rest: impl Fn(Sentence) -> Sentence + 'static) -> Row {
        row.with_cookie(move |row, cookie| {
            let (from, to) = (rest(self.answer()), rest(self.answer_translated(cookie)));
            row.sends(&from, &to.ttl(63), self.0.ids, Return)
        })
    }

    /// All of it, until the client's own acknowledgement has reached the target.
    pub(crate) fn opens(self, row: Row) -> Row {
        let row = self.asks(row, &self.syn(), 1460).remembers(0);
        let row = self.begins(row, 1460).remembers(1);
        let row = self.accepts(row);
        self.to_target(row, |it| it)
    }

    /// What our reset answers.
    pub(crate) fn is_reset(self, row: Row, frame: &Sentence, sequence: u32, stop: Stop) -> Row {
        let reset = self.0.reset().flags(RST).sequence(sequence, 0);
        row.answers(frame, &reset, stop)
    }
}

/// Has a listener answer SYNs with cookies.
pub(crate) fn with_cookies(row: Row, listener: u16) -> Row {
    row.change(move |tables| {
        let record = &tables.listeners[usize::from(listener)];
        let mut policy = record.policy();
        policy.flags = policy.flags.with_syn_cookies(true);
        policy.stray = Stranded::RESET;
        policy.expired = Stranded::RESET;
        record.set_policy(policy);
    })
}

pub(crate) fn size(bytes: u16) -> Vec<u8> {
    let [a, b] = bytes.to_be_bytes();
    vec![2, 4, a, b]
}

fn handshakes() -> Vec<Row> {
    let claims = [
        [
            "over ipv4 a syn is answered with a cookie, which begins a flow whose target accepts it",
            "over ipv4 the numbers of either end are those that it knows, also past zero",
        ],
        [
            "over ipv6 a syn is answered with a cookie, which begins a flow whose target accepts it",
            "over ipv6 the numbers of either end are those that it knows, also past zero",
        ],
    ];
    let mut rows = Vec::new();
    for ((_, guarded, [names, offers]), [opens, goes_on]) in Guarded::both().into_iter().zip(claims)
    {
        let syn = guarded.0.request().syn().tcp_options(&size(names));
        let asked = |claim| guarded.asks(guarded.row(claim), &syn, offers).remembers(0);
        let begun = guarded.begins(asked(opens), names).remembers(1);
        rows.push(guarded.to_target(guarded.accepts(begun), |it| it));
        let begun = guarded.accepts(guarded.begins(asked(goes_on), names));
        let row = guarded.to_target(begun, |it| it.payload(b"a question"));
        let row = guarded.to_client(row, |it| it.payload(&[7; 1400]));
        let row = guarded.to_client(row, Sentence::fin);
        let row = guarded.to_target(row, |it| it.fin().payload(b"odd"));
        rows.push(row.remembers(1));
    }
    rows
}

fn begins() -> Vec<Row> {
    let guarded = Guarded::v4();
    let asked = |claim| guarded.asks(guarded.row(claim), &guarded.syn(), 1460);
    let begun = |claim| guarded.begins(asked(claim), 1460).remembers(1);
    let sizes = [
        ("a client that takes any segment", 9000, 1460),
        ("a client that takes segments of a tunnel", 1400, 1300),
        ("a client that takes the smallest segments only", 536, 536),
        ("a client that names no segment size it could mean", 0, 536),
    ];
    let mut rows: Vec<Row> = sizes
        .into_iter()
        .map(|(claim, named, found)| {
            let syn = guarded.0.request().syn().tcp_options(&size(named));
            guarded.begins(guarded.asks(guarded.row(claim), &syn, 1460), found)
        })
        .collect();
    rows.extend([
        guarded.begins(
            guarded.asks(
                guarded
                    .row("a listener lowers the segment size of what is said for either end")
                    .change(|tables| {
                        let mut policy = tables.listeners[1].policy();
                        policy.mss_clamp_bytes = 1200;
                        tables.listeners[1].set_policy(policy);
                    }),
                &guarded.syn(),
                1200,
            ),
            1200,
        ),
        guarded.begins(
            guarded
                .asks(
                    guarded.row("a syn without options, and of the shortest frame, has a cookie"),
                    &guarded.0.request().syn(),
                    1460,
                )
                .remembers(0),
            536,
        ),
        asked("a window probe begins the flow whose acknowledgement got lost").with_cookie(
            move |row, cookie| {
                let probe = guarded.0.request();
                let probe = probe.sequence(SEQUENCE, cookie.wrapping_add(1));
                row.sends(&probe, &guarded.syn_of_ours(1460), guarded.0.ids, New)
            },
        ),
        asked("data begin the flow, and are not sent on").with_cookie(move |row, cookie| {
            let data = guarded.request(cookie).payload(b"data");
            row.sends(&data, &guarded.syn_of_ours(1460), guarded.0.ids, New)
        }),
        begun("whatever the client sends, its target gets the syn again until it answers")
            .with_cookie(move |row, cookie| {
                let again = guarded.request(cookie);
                row.sends(&again, &guarded.syn_of_ours(1460), guarded.0.ids, Known)
            })
            .with_cookie(move |row, cookie| {
                let data = guarded.request(cookie).fin().payload(b"data");
                row.sends(&data, &guarded.syn_of_ours(1460), guarded.0.ids, Known)
            }),
        guarded
            .asks(
                begun("a client that asks anew before its target has answered has a new cookie"),
                &guarded.syn(),
                1460,
            )
            .remembers(0),
        begun("a client that gives up before its target has answered resets it").with_cookie(
            move |row, cookie| {
                let reset = guarded.0.translated().made_by_nlb().rst();
                let reset = reset
                    .window(Sentence::DEFAULT_WINDOW)
                    .sequence(SEQUENCE + 1, 0);
                let request = guarded.request(cookie).flags(RST | ACK);
                row.sends(&request, &reset, guarded.0.ids, Known)
            },
        ),
    ]);
    rows
}

fn refusals() -> Vec<Row> {
    let guarded = Guarded::v4();
    let asked = |claim| guarded.asks(guarded.row(claim), &guarded.syn(), 1460);
    let wrong = guarded.request(0x1234_5678);
    vec![
        guarded
            .is_reset(
                guarded.row("an acknowledgement of no cookie is a stray segment"),
                &wrong,
                0x1234_5679,
                Stop::Stray,
            )
            .remembers(0),
        guarded
            .row("an acknowledgement of no cookie is dropped where strays are")
            .change(|tables| {
                let mut policy = tables.listeners[1].policy();
                policy.stray = Stranded::DROP;
                tables.listeners[1].set_policy(policy);
            })
            .stops(&wrong, Stop::Stray)
            .remembers(0),
        guarded
            .row("a listener without cookies takes none back")
            .change(|tables| {
                let mut policy = tables.listeners[1].policy();
                policy.flags = policy.flags.with_syn_cookies(false);
                tables.listeners[1].set_policy(policy);
            })
            .sends(
                &guarded.syn(),
                &guarded.0.translated().syn().tcp_options(OPTIONS),
                guarded.0.ids,
                New,
            ),
        guarded
            .row("a syn that says more than that has no answer")
            .stops(&guarded.syn().flags(SYN | 1), Stop::Malformed)
            .stops(&guarded.syn().flags(SYN | RST), Stop::Malformed)
            .remembers(0),
        guarded
            .row("a syn to a group without targets has no cookie")
            .ring(1, &[])
            .stops(&guarded.syn(), Stop::NoTarget),
        asked("a cookie that comes back when no target is left is answered with a reset")
            .ring(1, &[])
            .with_cookie(move |row, cookie| {
                let due = cookie.wrapping_add(1);
                guarded.is_reset(row, &guarded.request(cookie), due, Stop::NoTarget)
            })
            .remembers(0),
        asked("a flow more than a listener takes is answered with a reset")
            .change(|tables| {
                let policy = AdmissionPolicy {
                    active_flows: 1,
                    ..AdmissionPolicy::default()
                };
                tables.set_admission(ListenerId(1), &policy);
                tables.admissions[1].active.store(1);
            })
            .with_cookie(move |row, cookie| {
                let due = cookie.wrapping_add(1);
                guarded.is_reset(row, &guarded.request(cookie), due, Stop::ActiveFlowLimit)
            })
            .remembers(0),
    ]
}

fn targets() -> Vec<Row> {
    let guarded = Guarded::v4();
    let asked = |claim| guarded.asks(guarded.row(claim), &guarded.syn(), 1460);
    let begun = |claim| guarded.begins(asked(claim), 1460);
    let of_target = |sequence| {
        let reset = guarded.0.target_reset();
        reset.flags(RST).sequence(sequence, 0)
    };
    let refused = guarded
        .0
        .answer()
        .flags(RST | ACK)
        .sequence(0, SEQUENCE + 1);
    let old = guarded.0.answer().sequence(77, 99);
    vec![
        begun("a target that refuses resets its client").with_cookie(move |row, cookie| {
            let told = guarded.0.answer_translated().flags(RST | ACK);
            let told = told.sequence(cookie.wrapping_add(1), SEQUENCE + 1);
            row.sends(&refused, &told, guarded.0.ids, Return)
        }),
        begun("a target that speaks of another connection is answered with a reset")
            .answers(&old, &of_target(99), Stop::Unaccepted)
            .answers(&old.clone().syn_ack(), &of_target(99), Stop::Unaccepted)
            .stops(&old.clone().rst(), Stop::Unaccepted)
            .stops(&old.flags(RST | ACK), Stop::Unaccepted),
        guarded.accepts(guarded.accepts(begun(
            "a target that has not heard of its client has it asked again",
        ))),
        guarded
            .opens(guarded.row("a target that says so once more is let through"))
            .with_cookie(move |row, cookie| {
                let told = guarded.0.answer_translated().syn_ack().window(WINDOW);
                let told = told.sequence(cookie, SEQUENCE + 1);
                let told = told.tcp_options(&size(1460));
                row.sends(&guarded.syn_ack(), &told, guarded.0.ids, Return)
            }),
        guarded
            .to_client(
                guarded
                    .opens(guarded.row("either end resets the other with numbers that it knows")),
                |it| it.flags(RST | ACK),
            )
            .with_cookie(move |row, cookie| {
                let (from, to) = (guarded.request(cookie), guarded.translated());
                row.sends(
                    &from.rst(),
                    &unacknowledged(&to, cookie),
                    guarded.0.ids,
                    Known,
                )
            }),
    ]
}

/// A reset as it is where only the acknowledgement, which means nothing, is not translated.
fn unacknowledged(to: &Sentence, cookie: u32) -> Sentence {
    to.clone()
        .rst()
        .sequence(SEQUENCE + 1, cookie.wrapping_add(1))
}

fn later() -> Vec<Row> {
    let guarded = Guarded::v4();
    let opened = |claim| guarded.opens(guarded.row(claim));
    let again = guarded.0.translated().made_by_nlb().syn();
    let again = again
        .window(Sentence::DEFAULT_WINDOW)
        .sequence(SEQUENCE, 0)
        .tcp_options(&size(1460));
    let over = |claim| {
        let row = guarded.to_client(opened(claim), Sentence::fin);
        guarded.to_target(row, Sentence::fin)
    };
    vec![
        opened("a syn of an open connection goes to its target without options").sends(
            &guarded.syn(),
            &again,
            guarded.0.ids,
            Known,
        ),
        guarded.begins(
            guarded
                .asks(
                    over("a client's port that is used again has a new cookie, and a new flow"),
                    &guarded.syn(),
                    1460,
                )
                .remembers(0),
            1460,
        ),
        guarded.opens(
            guarded
                .opens(guarded.row("a flow that has expired begins anew by a cookie"))
                .silence(TCP_IDLE_TICKS + 5),
        ),
        opened("a segment of an expired flow brings no cookie back")
            .silence(TCP_IDLE_TICKS + 5)
            .with_cookie(move |row, _| {
                let late = guarded.0.request().sequence(SEQUENCE + 5000, 77);
                guarded.is_reset(row, &late, 77, Stop::IdleExpired)
            }),
        opened("segments with a hop to expire are not sent on").with_cookie(move |row, cookie| {
            let told = to_client();
            let request = guarded.request(cookie).ttl(1);
            let told = told
                .ipv4(guarded.0.vip, guarded.0.client)
                .made_by_nlb()
                .class(0xc0)
                .icmp_error(11, 0, 0)
                .quoting(&request, 1000);
            row.answers(&request, &told, Stop::TtlExpired)
        }),
        opened("a large segment that does not fit is told its sender with its own numbers")
            .with_cookie(move |row, cookie| {
                let error = from_router(guarded, guarded.answer_translated(cookie));
                let passed_on = to_target_of(guarded, guarded.answer());
                row.sends(&error, &passed_on, guarded.0.ids, Known)
            }),
    ]
}

/// An error of a router on the client's side, about what the client was to get.
fn from_router(guarded: Guarded, quoted: Sentence) -> Sentence {
    nlb_tests::world::from_client()
        .ipv4("198.51.100.254", guarded.0.vip)
        .icmp_error(3, 4, 1300)
        .quoting(&quoted.ttl(61).payload(b"an answer"), 1000)
}

/// The same, as the target gets it.
fn to_target_of(guarded: Guarded, quoted: Sentence) -> Sentence {
    nlb_tests::world::on_to(guarded.0.target)
        .ipv4("198.51.100.254", guarded.0.target)
        .ttl(63)
        .icmp_error(3, 4, 1300)
        .quoting(&quoted.ttl(61).payload(b"an answer"), 1000)
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = handshakes();
    rows.extend(begins());
    rows.extend(refusals());
    rows.extend(targets());
    rows.extend(later());
    rows
}
