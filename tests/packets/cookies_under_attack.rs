//! Listeners that answer SYNs with cookies only while more come than usual.

use nlb_common::{
    admission::AdmissionPolicy,
    listener::ListenerId,
    pressure::{CALM_TICKS, Pressure},
    stop::Stop,
    tick::Tick,
    wire::protocol::TCP,
};
use nlb_ebpf::tables::PassageKind::{Known, New, Return};
use nlb_tests::{
    packet::Sentence,
    world::{CLIENT, VIP, port_to, tables},
};

use crate::{
    connection::Connection,
    cookies::{Guarded, OPTIONS},
    row::Row,
};

/// SYNs in a tick that are usual.
const USUAL: u32 = 1;

/// The client's `nth` connection to the first target.
fn guarded(nth: usize) -> Guarded {
    Guarded(Connection {
        port: port_to(&tables(), CLIENT, (VIP, 80), TCP, 11, nth),
        ..Connection::v4()
    })
}

fn listener(of: Guarded, claim: &'static str) -> Row {
    let (listener, _) = of.0.ids;
    of.row(claim).change(move |tables| {
        let policy = AdmissionPolicy {
            usual_syns_per_tick: USUAL,
            ..AdmissionPolicy::default()
        };
        tables.set_admission(ListenerId(listener), &policy);
    })
}

/// There were too many SYNs so many ticks ago.
fn too_many(row: Row, (listener, _): (u16, u32), ticks_ago: u16) -> Row {
    row.change(move |tables| {
        let then = Tick(tables.now.get().wrapping_sub(ticks_ago));
        let pressure = Pressure::of_word(0).after_a_syn(then, 0);
        let record = &tables.admissions[usize::from(listener)];
        record.pressure.store(pressure.to_word());
    })
}

fn over(row: Row, ids: (u16, u32)) -> Row {
    too_many(row, ids, CALM_TICKS + 1)
}

/// A SYN goes to its target, with all that it says.
fn goes(row: Row, of: Guarded) -> Row {
    let (syn, through) = (of.syn(), of.0.translated().syn().tcp_options(OPTIONS));
    row.sends(&syn, &through, of.0.ids, New)
}

/// The rest of the handshake, and a question, without cookies.
fn goes_on(row: Row, of: Guarded) -> Row {
    let rest = of.0;
    let (told, tells) = (rest.answer().syn_ack(), rest.answer_translated().syn_ack());
    row.sends(&told, &tells, rest.ids, Return).sends(
        &rest.request(),
        &rest.translated(),
        rest.ids,
        Known,
    )
}

fn begins() -> Vec<Row> {
    let claims = [
        "over ipv4 a syn is answered with a cookie when more have come than usual",
        "over ipv6 a syn is answered with a cookie when more have come than usual",
    ];
    let mut rows = Vec::new();
    for ((_, of, [_, offers]), claim) in Guarded::both().into_iter().zip(claims) {
        let next = Guarded(Connection {
            port: of.0.port ^ 1,
            ..of.0
        });
        let row = goes(listener(of, claim), of);
        rows.push(next.asks(row, &next.syn(), offers).remembers(1));
    }
    rows
}

fn moments() -> Vec<Row> {
    let (of, ids) = (guarded(0), guarded(0).0.ids);
    let last = too_many(
        listener(of, "syns have cookies until some ticks after too many"),
        ids,
        CALM_TICKS,
    );
    let calm = listener(of, "syns have no cookies when that is over");
    vec![
        of.asks(last, &of.syn(), 1460).remembers(0),
        goes(over(calm, ids), of).remembers(1),
    ]
}

/// What has begun goes on as it began.
fn switches() -> Vec<Row> {
    let (before, during, after) = (guarded(0), guarded(1), guarded(2));
    let ids = before.0.ids;
    let row = listener(
        before,
        "connections go on through the beginning and the end of an attack",
    );
    let row = too_many(goes_on(goes(row, before), before), ids, 0);
    let say = |it: Sentence| it.payload(b"more");
    let same = |row: Row, of: Guarded| {
        let (request, through) = (say(of.0.request()), say(of.0.translated()));
        let (answer, back) = (say(of.0.answer()), say(of.0.answer_translated()));
        row.sends(&request, &through, ids, Known)
            .sends(&answer, &back, ids, Return)
    };
    let row = during.begins(during.asks(row, &during.syn(), 1460), 1460);
    let row = during.to_target(during.accepts(row), |it| it);
    let row = over(same(row, before), ids);
    let row = during.to_target(during.to_client(row, say), say);
    let row = goes_on(goes(same(row, before), after), after);

    let late = listener(
        during,
        "a cookie that comes back after an attack begins a flow",
    );
    let late = during.asks(too_many(late, ids, 0), &during.syn(), 1460);
    let lie = listener(
        during,
        "an acknowledgement without a cookie is a stray at any time",
    );
    vec![
        row.remembers(3),
        during.begins(over(late, ids), 1460).remembers(1),
        during.is_reset(lie, &during.request(0x1234_5678), 0x1234_5679, Stop::Stray),
    ]
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = begins();
    rows.extend(moments());
    rows.extend(switches());
    rows
}
