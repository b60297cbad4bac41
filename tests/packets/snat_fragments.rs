//! Fragments of flows whose source is translated: they get numbers of ours, because what came from
//! several senders arrives as one's.

use nlb_common::{
    fragment::LIFE_TICKS,
    stop::Stop,
    wire::protocol::{TCP, UDP},
};
use nlb_ebpf::tables::PassageKind::{Known, New, Return};
use nlb_tests::{
    packet::{Sentence, fragments::split},
    world::{CLIENT, VIP, from_client, from_target, on_to, source_of, tables},
};

use crate::{
    fragments::given,
    row::{Row, row},
    snat::{Collision, Flow, Hairpin, segment},
};

/// Where all of them are cut, in bytes behind the IP header.
const CUTS: [usize; 2] = [1280, 2560];
/// The number that senders give.
const THEIRS: u16 = 0x0102;

fn payload() -> Vec<u8> {
    (0..3000u16).map(|n| n.to_le_bytes()[0]).collect()
}

/// One way of a flow: what its sender says, and what its receiver hears.
struct Way {
    sent: Sentence,
    arrives: Sentence,
    /// From whom and to whom it arrives, and the protocol.
    ends: (&'static str, &'static str, u8),
    ids: (u16, u32),
    is_return: bool,
}

impl Way {
    /// A row's end: this piece of the `nth` datagram of this way is sent on.
    fn goes(&self, row: Row, theirs: u16, nth: u32, piece: usize, is_new: bool) -> Row {
        let whole = |sentence: &Sentence| sentence.clone().payload(&payload()).build();
        let sent = split(&whole(&self.sent), &CUTS, theirs);
        let arrives = split(&whole(&self.arrives), &CUTS, given(nth, self.ends));
        let kind = match (self.is_return, is_new) {
            (true, _) => Return,
            (false, true) => New,
            (false, false) => Known,
        };
        row.sends_bytes(sent[piece].clone(), arrives[piece].clone(), self.ids, kind)
    }

    /// One piece as its sender sends it.
    fn piece(&self, theirs: u16, piece: usize) -> Vec<u8> {
        let whole = self.sent.clone().payload(&payload()).build();
        split(&whole, &CUTS, theirs)[piece].clone()
    }
}

/// Both ways of a flow, and what it is called.
struct Pair {
    name: &'static str,
    forth: Way,
    back: Way,
}

fn forth(flow: &Flow) -> Way {
    Way {
        sent: flow.request(),
        arrives: flow.through(0),
        ends: (flow.source(0).0, flow.target.0, flow.protocol),
        ids: flow.ids,
        is_return: false,
    }
}

fn full_nat(name: &'static str, flow: Flow) -> Pair {
    Pair {
        name,
        forth: forth(&flow),
        back: Way {
            sent: flow.answer(0),
            arrives: flow.back(),
            ends: (flow.vip.0, flow.client.0, flow.protocol),
            ids: flow.ids,
            is_return: true,
        },
    }
}

fn hairpin() -> Pair {
    let it = Hairpin::new();
    let (target, client) = (("10.0.0.11", 8080), ("10.0.0.11", it.port));
    Pair {
        name: "a hairpin's",
        forth: Way {
            sent: it.request(),
            arrives: it.through(),
            ends: (it.source.0, target.0, TCP),
            ids: (1, 11),
            is_return: false,
        },
        back: Way {
            sent: segment(from_target("10.0.0.11"), TCP, target, it.source),
            arrives: segment(on_to("10.0.0.11"), TCP, (VIP, 80), client).ttl(63),
            ends: (VIP, client.0, TCP),
            ids: (1, 11),
            is_return: true,
        },
    }
}

fn pairs() -> Vec<Pair> {
    vec![
        full_nat("tcp over ipv4", Flow::tcp_v4(0)),
        full_nat("udp over ipv4", Flow::udp_v4()),
        full_nat("tcp over ipv6", Flow::tcp_v6()),
        full_nat("udp over ipv6", Flow::udp_v6()),
        hairpin(),
    ]
}

/// A row for each of these pairs.
fn each(claim: &str, story: impl Fn(&Pair, Row) -> Row) -> Vec<Row> {
    let pairs = pairs();
    let rows = pairs.iter().map(|pair| {
        let text = format!("{claim}: {}", pair.name);
        story(pair, row(Box::leak(text.into_boxed_str())))
    });
    rows.collect()
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = each(
        "fragments with a source of ours follow their first, under a number of ours",
        |Pair { forth, back, .. }, row| {
            let row = forth.goes(row, THEIRS, 0, 0, true);
            let row = forth.goes(row, THEIRS, 0, 2, false);
            let row = forth.goes(row, THEIRS, 0, 1, false);
            let row = back.goes(row, THEIRS, 0, 0, false);
            let row = back.goes(row, THEIRS, 0, 1, false);
            let row = back.goes(row, THEIRS, 0, 2, false);
            // The next datagrams, of which one has an older one's number in between.
            let row = forth.goes(row, THEIRS + 1, 1, 0, false);
            let row = back.goes(row, THEIRS + 7, 1, 0, false);
            let row = forth.goes(row, THEIRS + 1, 1, 2, false);
            let row = back.goes(row, THEIRS + 7, 1, 1, false);
            forth.goes(row, THEIRS, 0, 1, false).remembers(1)
        },
    );
    rows.extend(each(
        "a first fragment that comes twice is one datagram's, also with a source of ours",
        |Pair { forth, back, .. }, row| {
            let row = forth.goes(row, THEIRS, 0, 0, true);
            let row = forth.goes(row, THEIRS, 0, 0, false);
            let row = forth.goes(row, THEIRS, 0, 1, false);
            let row = back.goes(row, THEIRS, 0, 0, false);
            let row = back.goes(row, THEIRS, 0, 0, false);
            back.goes(row, THEIRS, 0, 2, false)
        },
    ));
    rows.extend(each(
        "who uses an old number of his own again gets another of ours",
        |Pair { forth, .. }, row| {
            let row = forth.goes(row, THEIRS, 0, 0, true).silence(LIFE_TICKS + 2);
            // The flow's time has run out, too.
            forth.goes(row, THEIRS, 1, 0, true)
        },
    ));
    rows.extend(each(
        "a client's fragment before its first is stopped, a target's is copied, also in disguise",
        |Pair { forth, back, .. }, row| {
            let is_hairpin = forth.ids == (1, 11);
            let row = row.stops_bytes(forth.piece(THEIRS, 1), Stop::NoFirstFragment);
            let row = forth.goes(row, THEIRS, 0, 0, true);
            let row = row.passes_and_is_copied(back.piece(THEIRS, 1));
            let row = forth.goes(row, THEIRS, 0, 1, false);
            let row = row.stops_bytes(forth.piece(THEIRS + 1, 1), Stop::NoFirstFragment);
            if is_hairpin {
                return row;
            }
            row.change(|tables| tables.fragments.borrow_mut().clear())
                .stops_bytes(forth.piece(THEIRS, 2), Stop::NoFirstFragment)
        },
    ));
    rows.push(two_clients());
    rows.extend(collision());
    rows.push(last_hop());
    rows
}

/// Two clients, one source and one target, and one number.
fn two_clients() -> Row {
    let (first, other) = (Flow::udp_v4(), "203.0.113.9");
    let tables = tables();
    let address = first.source(0).0;
    let port = (1..1000)
        .find(|port| source_of(&tables, (other, *port), UDP, 0).0 == address)
        .expect("a port for the other client");
    let second = Flow {
        client: (other, port),
        ..first
    };
    let [first, second] = [forth(&first), forth(&second)];
    let row = row("two clients' datagrams of one number arrive as two");
    let row = first.goes(row, THEIRS, 0, 0, true);
    let row = second.goes(row, THEIRS, 1, 0, true);
    let row = first.goes(row, THEIRS, 0, 1, false);
    let row = second.goes(row, THEIRS, 1, 1, false);
    let row = second.goes(row, THEIRS, 1, 2, false);
    first.goes(row, THEIRS, 0, 2, false).remembers(2)
}

/// The second of two flows that would collide at their target.
fn collision() -> Vec<Row> {
    let it = Collision::new();
    let forth = Way {
        sent: it.request(97),
        arrives: it.second(),
        ends: (it.source.0, "10.0.0.11", TCP),
        ids: (32, 11),
        is_return: false,
    };
    let back = Way {
        sent: Collision::answer_to(it.source),
        arrives: it.back(97),
        ends: (VIP, CLIENT, TCP),
        ids: (32, 11),
        is_return: true,
    };
    let row = row("fragments of a flow that would collide with another have its number, too")
        .sends(&it.request(80), &it.first(), (1, 11), New);
    let row = forth.goes(row, THEIRS, 0, 0, true);
    let row = forth.goes(row, THEIRS, 0, 1, false);
    let row = back.goes(row, THEIRS, 0, 0, false);
    let row = back.goes(row, THEIRS, 0, 1, false);
    vec![row.remembers(2)]
}

fn last_hop() -> Row {
    let flow = Flow::udp_v4();
    let way = forth(&flow);
    let row = way.goes(
        row("a later fragment's last hop is not taken, also with a source of ours"),
        THEIRS,
        0,
        0,
        true,
    );
    let whole = segment(from_client(), UDP, flow.client, flow.vip).ttl(1);
    let pieces = split(&whole.payload(&payload()).build(), &CUTS, THEIRS);
    row.stops_bytes(pieces[1].clone(), Stop::TtlExpired)
}
