//! What a new flow's choice of a target depends on: the five-tuple (every other row of the packet
//! table), NLB's hash with the sequence number, and stickiness by the client's address.

use nlb_common::wire::{
    protocol::{TCP, UDP},
    tcp::{ACK, SYN},
};
use nlb_ebpf::tables::PassageKind::{self, Known, New};
use nlb_tests::{
    packet::Sentence,
    world::{
        CLIENT, CLIENT_V6, FAR_CLIENT, VIP, VIP_V6, chosen, chosen_by, from_client, on_to, tables,
    },
};

use crate::row::{Row, row};

/// Where the targets of the rows listen.
const TARGET_PORT: u16 = 8090;

const fn target(id: u32) -> &'static str {
    match id {
        41 => "10.0.0.11",
        42 => "10.0.0.12",
        43 => "10.0.0.13",
        44 => "fd00::11",
        _ => "fd00::12",
    }
}

/// A client's endpoint and a listener.
#[derive(Clone, Copy)]
struct Path {
    client: (&'static str, u16),
    listener: (u16, &'static str, u16),
}

impl Path {
    const fn new(client: (&'static str, u16), listener: (u16, &'static str, u16)) -> Self {
        Self { client, listener }
    }

    fn ip(from: Sentence, source: &str, destination: &str) -> Sentence {
        let parse = |text: &str| text.parse().expect("an address of the world");
        from.ip(parse(source), parse(destination))
    }

    /// The segment that `finish` ends goes to this target.
    fn goes(
        self,
        row: Row,
        id: u32,
        kind: PassageKind,
        finish: impl Fn(Sentence, u16, u16) -> Sentence,
    ) -> Row {
        let (source, port) = self.client;
        let (listener, vip, vip_port) = self.listener;
        let to = target(id);
        row.sends(
            &finish(Self::ip(from_client(), source, vip), port, vip_port),
            &finish(Self::ip(on_to(to), source, to).ttl(63), port, TARGET_PORT),
            (listener, id),
            kind,
        )
    }
}

fn syn(sequence: u32) -> impl Fn(Sentence, u16, u16) -> Sentence {
    move |from, port, to| from.tcp(port, to).flags(SYN).sequence(sequence, 0)
}

/// Where the connection goes whose SYN has this number.
fn by_sequence(client: (&str, u16), vip: &str, sequence: u32) -> u32 {
    chosen_by(&tables(), client, (vip, 95), TCP, sequence).expect("a target")
}

/// A sequence number whose connection goes elsewhere than that of `other`.
fn sequence_elsewhere(client: (&str, u16), vip: &str, other: u32) -> u32 {
    (1..1000)
        .find(|sequence| by_sequence(client, vip, *sequence) != other)
        .expect("a sequence number for every target")
}

/// Every port, listener and protocol leads one client to one target.
fn sticky() -> Row {
    let target = chosen(&tables(), (CLIENT, 1), (VIP, 93), TCP).expect("a target");
    let mut row = row("with stickiness a client's flows share a target, whatever their ports");
    for port in 50_000..50_008 {
        let path = Path::new((CLIENT, port), (22, VIP, 93));
        row = path.goes(row, target, New, syn(7 * u32::from(port)));
    }
    let path = Path::new((CLIENT, 50_100), (23, VIP, 94));
    row = path.goes(row, target, New, syn(1));
    let path = Path::new((CLIENT, 50_100), (24, VIP, 93));
    path.goes(row, target, New, Sentence::udp)
}

fn others() -> Row {
    let of = |client| chosen(&tables(), (client, 1), (VIP, 93), UDP).expect("a target");
    let client = (2..=250u8)
        .map(|last| &*format!("203.0.113.{last}").leak())
        .find(|client| of(client) != of(FAR_CLIENT))
        .expect("a client for every target");
    let row = row("with stickiness another client may have another target");
    let row = Path::new((FAR_CLIENT, 1), (22, VIP, 93)).goes(row, of(FAR_CLIENT), New, syn(1));
    Path::new((client, 1), (22, VIP, 93)).goes(row, of(client), New, syn(1))
}

fn sticky_v6() -> Row {
    let target = chosen(&tables(), (CLIENT_V6, 1), (VIP_V6, 93), TCP).expect("a target");
    let row = row("with stickiness an ipv6 client's flows share a target");
    (50_000..50_006).fold(row, |row, port| {
        let path = Path::new((CLIENT_V6, port), (26, VIP_V6, 93));
        path.goes(row, target, New, syn(u32::from(port)))
    })
}

/// The same endpoint opens connections that differ in nothing but the sequence number. The first
/// is forgotten between them: a client that is remembered keeps its target.
fn sequences(
    claim: &'static str,
    client: (&'static str, u16),
    (listener, vip): (u16, &'static str),
) -> Row {
    let path = Path::new(client, (listener, vip, 95));
    let one = by_sequence(client, vip, 1);
    let other = sequence_elsewhere(client, vip, one);
    let row = path.goes(row(claim), one, New, syn(1)).silence(1000);
    path.goes(row, by_sequence(client, vip, other), New, syn(other))
}

fn sequence_of_a_known_flow() -> Row {
    let client = (CLIENT, 50_000);
    let path = Path::new(client, (25, VIP, 95));
    let one = by_sequence(client, VIP, 1);
    let other = sequence_elsewhere(client, VIP, one);
    let row = row("with the sequence number in the hash a known flow keeps its target");
    let row = path.goes(row, one, New, syn(1));
    path.goes(row, one, Known, move |from, port, to| {
        from.tcp(port, to).flags(ACK).sequence(other, 9)
    })
}

fn sequence_without_syn() -> Row {
    let client = (CLIENT, 50_001);
    let target = by_sequence(client, VIP, 0);
    let other = sequence_elsewhere(client, VIP, target);
    let row = row("the sequence number of a packet that opens nothing says nothing");
    Path::new(client, (25, VIP, 95)).goes(row, target, New, move |from, port, to| {
        from.tcp(port, to).flags(ACK).sequence(other, 9)
    })
}

pub(crate) fn rows() -> Vec<Row> {
    vec![
        sticky(),
        others(),
        sticky_v6(),
        sequences(
            "with the sequence number in the hash another connection may have another target",
            (CLIENT, 50_002),
            (25, VIP),
        ),
        sequences(
            "with the sequence number in the hash another ipv6 connection may have another target",
            (CLIENT_V6, 50_002),
            (27, VIP_V6),
        ),
        sequence_of_a_known_flow(),
        sequence_without_syn(),
    ]
}
