//! What comes together with SYN cookies at a listener: fragments, targets that are their own clients,
//! and clients whose flows would collide at a target.

use nlb_common::{stop::Stop, wire::protocol::TCP};
use nlb_ebpf::tables::PassageKind::{Known, New, Return};
use nlb_tests::{
    packet::{Sentence, fragments::split},
    world::{CLIENT, SEQUENCE, VIP, from_target, on_to},
};

use crate::{
    connection::{ACK, Connection, RST, SYN, to_client},
    cookies::{Guarded, size, with_cookies},
    fragments::given,
    row::{Row, row},
    snat::{Collision, Hairpin},
};

/// Where packets are cut, in bytes behind the IP header.
const CUTS: [usize; 2] = [1280, 2560];
const NUMBER: u16 = 0x0102;

fn large(packet: Sentence) -> Vec<u8> {
    let payload: Vec<u8> = (0..3000u16).map(|n| n.to_le_bytes()[0]).collect();
    packet.payload(&payload).build()
}

/// A packet's piece, and how it leaves under the first number between these ends.
fn piece(nth: usize, from: Sentence, to: Sentence, ends: (&str, &str)) -> [Vec<u8>; 2] {
    let number = given(0, (ends.0, ends.1, TCP));
    let sent = split(&large(from), &CUTS, NUMBER)[nth].clone();
    [sent, split(&large(to.ttl(63)), &CUTS, number)[nth].clone()]
}

fn fragments() -> Vec<Row> {
    let mut rows = Vec::new();
    let claims = [
        "over ipv4 fragments of a connection with a cookie have the numbers of their receiver",
        "over ipv6 fragments of a connection with a cookie have the numbers of their receiver",
    ];
    for ((_, of, [names, offers]), claim) in Guarded::both().into_iter().zip(claims) {
        let syn = of.0.request().syn().tcp_options(&size(names));
        let row = of.begins(of.asks(of.row(claim), &syn, offers), names);
        let mut row = of.to_target(of.accepts(row), |it| it);
        for nth in 0..3 {
            row = row.with_cookie(move |row, cookie| {
                let ends = (of.0.client, of.0.target);
                let [sent, out] = piece(nth, of.request(cookie), of.translated(), ends);
                row.sends_bytes(sent, out, of.0.ids, Known)
            });
        }
        for nth in 0..3 {
            row = row.with_cookie(move |row, cookie| {
                let ends = (of.0.vip, of.0.client);
                let [sent, out] = piece(nth, of.answer(), of.answer_translated(cookie), ends);
                row.sends_bytes(sent, out, of.0.ids, Return)
            });
        }
        rows.push(row.remembers(1));
    }
    let of = Guarded::v4();
    let first = |packet| split(&large(packet), &CUTS, NUMBER)[0].clone();
    rows.push(
        of.row("a syn in fragments has no cookie")
            .stops_bytes(first(of.0.request().syn()), Stop::Malformed)
            .remembers(0),
    );
    let asked = of.asks(
        of.row("a cookie that comes back in a fragment begins nothing"),
        &of.syn(),
        1460,
    );
    rows.push(
        asked
            .with_cookie(move |row, cookie| row.stops_bytes(first(of.request(cookie)), Stop::Stray))
            .remembers(0),
    );
    rows
}

fn hairpin() -> Row {
    let it = Hairpin::new();
    let (address, port) = it.source;
    let answer = from_target("10.0.0.11").ipv4("10.0.0.11", address);
    let back = on_to("10.0.0.11").ipv4(VIP, "10.0.0.11").ttl(63);
    let claim = "a target that is its own client begins without a cookie, where others have one";
    let of = Guarded::v4();
    let row = of
        .row(claim)
        .sends(&it.request().syn(), &it.through().syn(), (1, 11), New)
        .sends(
            &answer.tcp(8080, port).syn_ack(),
            &back.tcp(80, it.port).syn_ack(),
            (1, 11),
            Return,
        )
        .sends(&it.request(), &it.through(), (1, 11), Known);
    of.asks(row, &of.syn(), 1460).remembers(1)
}

/// The client's port as it stands behind the VIP's first listener.
fn first(it: &Collision) -> Guarded {
    Guarded(Connection {
        port: it.port,
        ..Connection::v4()
    })
}

fn collision() -> Row {
    let it = Collision::new();
    let of = first(&it);
    let claim = "a flow that would collide with one that has a cookie begins without";
    let row = of.opens(with_cookies(of.row(claim), 32));
    let row = row
        .sends(&it.request(97).syn(), &it.second().syn(), (32, 11), New)
        .sends(
            &Collision::answer_to(it.source).syn_ack(),
            &it.back(97).syn_ack(),
            (32, 11),
            Return,
        )
        .sends(&it.request(97), &it.second(), (32, 11), Known);
    let row = of.to_client(row, |it| it.payload(b"to the first"));
    of.to_target(row, |it| it.payload(b"of the first"))
        .remembers(2)
}

fn too_late() -> Row {
    let it = Collision::new();
    let (port, request) = (it.port, it.request(97));
    let ours = to_client().ipv4(VIP, CLIENT).tcp(97, port).made_by_nlb();
    let (syn, answers) = (request.clone().syn(), ours.clone());
    let claim = "a cookie that comes back to where its flow would collide by now is reset";
    with_cookies(row(claim), 32)
        .makes_cookie(move |row, cookie| {
            let answer = answers.clone().flags(SYN | ACK);
            let answer = answer.sequence(cookie, SEQUENCE + 1);
            row.answers(&syn, &answer.tcp_options(&size(1460)), Stop::SynCookie)
        })
        .sends(&it.request(80), &it.first(), (1, 11), New)
        .with_cookie(move |row, cookie| {
            let due = cookie.wrapping_add(1);
            let back = request.clone().sequence(SEQUENCE + 1, due);
            let reset = ours.clone().flags(RST).sequence(due, 0);
            row.answers(&back, &reset, Stop::Stray)
        })
        .remembers(1)
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = fragments();
    rows.extend([hairpin(), collision(), too_late()]);
    rows
}
