//! QUIC listeners: the server's number in a packet's connection ID goes before what is remembered of
//! its flow, and where there is none the flow goes the way of any other.

use nlb_common::wire::protocol::UDP;
use nlb_ebpf::tables::PassageKind::{self, Known, New, Return};
use nlb_tests::{
    outer::wrapped,
    packet::Sentence,
    world::{
        CLIENT, CLIENT_V6, DSR_VIP, DSR_VIP_V6, FAR_CLIENT, FAR_CLIENT_V6, FULL_VIP, FULL_VIP_V6,
        TUNNEL_VIP, TUNNEL_VIP_V6, VIP, VIP_V6, from_client, from_target, on_to, port_to,
        source_of, tables,
    },
};

use crate::row::{Row, row};

/// A target: its id, its address, and the number in its connection IDs.
#[derive(Clone, Copy)]
struct Server {
    id: u32,
    address: &'static str,
    number: u64,
}

const fn server(id: u32, address: &'static str, number: u64) -> Server {
    Server {
        id,
        address,
        number,
    }
}

/// What becomes of packets on their way to a server.
#[derive(Clone, Copy)]
enum Way {
    /// They go to this port of it.
    Nat(u16),
    /// So they do, from a source of ours.
    FullNat(u16),
    /// They stay what they are.
    Dsr,
    /// So they do, inside of others.
    Tunnel,
}

/// A listener, who comes to it, and two of its targets.
#[derive(Clone, Copy)]
struct Place {
    name: &'static str,
    listener: u16,
    vip: &'static str,
    client: &'static str,
    far: &'static str,
    /// Who gives the far client its packets.
    router: &'static str,
    way: Way,
    servers: [Server; 2],
}

/// The port of the listeners.
const PORT: u16 = 4433;
/// A number that no server has.
const NOBODY: u64 = 0xdead;

const PLACES: [Place; 8] = [
    Place {
        name: "nat",
        listener: 54,
        vip: VIP,
        client: CLIENT,
        far: FAR_CLIENT,
        router: "198.51.100.254",
        way: Way::Nat(4443),
        servers: [
            server(1, "10.0.0.11", 0xa1),
            server(2, "10.0.0.12", 0xffff_ffff_ffff_ff03),
        ],
    },
    Place {
        name: "nat over ipv6",
        listener: 55,
        vip: VIP_V6,
        client: CLIENT_V6,
        far: FAR_CLIENT_V6,
        router: "2001:db8:c::fe",
        way: Way::Nat(4443),
        servers: [
            server(4, "fd00::11", 0xa1),
            server(5, "fd00::12", 0x5a5a_5a5a_5a5a_5a5a),
        ],
    },
    Place {
        name: "dsr-l2",
        listener: 56,
        vip: DSR_VIP,
        client: CLIENT,
        far: FAR_CLIENT,
        router: "198.51.100.254",
        way: Way::Dsr,
        servers: [
            server(6, "10.0.0.21", 0xa1),
            server(7, "10.0.0.22", 0x5a5a_5a5a_5a5a_5a5a),
        ],
    },
    Place {
        name: "dsr-l2 over ipv6",
        listener: 57,
        vip: DSR_VIP_V6,
        client: CLIENT_V6,
        far: FAR_CLIENT_V6,
        router: "2001:db8:c::fe",
        way: Way::Dsr,
        servers: [
            server(8, "fd00::21", 0xa1),
            server(9, "fd00::22", 0x5a5a_5a5a_5a5a_5a5a),
        ],
    },
    Place {
        name: "dsr-gue over ipv4",
        listener: 117,
        vip: TUNNEL_VIP,
        client: CLIENT,
        far: FAR_CLIENT,
        router: "198.51.100.254",
        way: Way::Tunnel,
        servers: [
            server(98, "10.0.0.21", 0xa1),
            server(99, "10.0.0.22", 0x5a5a_5a5a_5a5a_5a5a),
        ],
    },
    Place {
        name: "dsr-ipip over ipv6",
        listener: 118,
        vip: TUNNEL_VIP_V6,
        client: CLIENT_V6,
        far: FAR_CLIENT_V6,
        router: "2001:db8:c::fe",
        way: Way::Tunnel,
        servers: [
            server(100, "fd00::21", 0xa1),
            server(101, "fd00::22", 0x5a5a_5a5a_5a5a_5a5a),
        ],
    },
    Place {
        name: "full-nat",
        listener: 119,
        vip: FULL_VIP,
        client: CLIENT,
        far: FAR_CLIENT,
        router: "198.51.100.254",
        way: Way::FullNat(4443),
        servers: [
            server(102, "10.0.0.11", 0xa1),
            server(103, "10.0.0.12", 0x5a5a_5a5a_5a5a_5a5a),
        ],
    },
    Place {
        name: "full-nat over ipv6",
        listener: 120,
        vip: FULL_VIP_V6,
        client: CLIENT_V6,
        far: FAR_CLIENT_V6,
        router: "2001:db8:c::fe",
        way: Way::FullNat(4443),
        servers: [
            server(104, "fd00::11", 0xa1),
            server(105, "fd00::12", 0x5a5a_5a5a_5a5a_5a5a),
        ],
    },
];

const NAT: Place = PLACES[0];

/// A connection ID of NLB's layout.
fn id_of(number: u64) -> Vec<u8> {
    [&[0x2f][..], &number.to_be_bytes(), &[0x77; 8]].concat()
}

/// A packet with a short header (RFC 9000 §17.3.1).
fn short(id: &[u8]) -> Vec<u8> {
    [&[0x41], id, &[0xee; 20]].concat()
}

/// One with a long header (RFC 9000 §17.2); the kinds are 0 Initial, 1 0-RTT, 2 Handshake.
fn long(kind: u8, id: &[u8]) -> Vec<u8> {
    let length = u8::try_from(id.len()).expect("a short ID");
    let first = 0xc0 | kind << 4;
    [&[first, 0, 0, 0, 1, length][..], id, &[0, 0, 0xee, 0xee]].concat()
}

fn ip(from: Sentence, source: &str, destination: &str) -> Sentence {
    let parse = |text: &str| text.parse().expect("an address of the world");
    from.ip(parse(source), parse(destination))
}

impl Place {
    /// A client's port whose flows go to this server.
    fn port_to(&self, client: &str, server: Server) -> u16 {
        port_to(&tables(), client, (self.vip, PORT), UDP, server.id, 0)
    }

    /// A client's packet goes to this server.
    fn goes(
        &self,
        row: Row,
        client: (&str, u16),
        server: Server,
        kind: PassageKind,
        payload: &[u8],
    ) -> Row {
        self.goes_with(row, client, server, kind, |from| from.payload(payload))
    }

    fn goes_with(
        &self,
        row: Row,
        (client, port): (&str, u16),
        server: Server,
        kind: PassageKind,
        finish: impl Fn(Sentence) -> Sentence,
    ) -> Row {
        let sent = finish(ip(from_client(), client, self.vip).udp(port, PORT));
        let on = |(source, port), (destination, to)| {
            finish(ip(on_to(server.address), source, destination).udp(port, to))
        };
        let out = match self.way {
            Way::Nat(to) => on((client, port), (server.address, to)).ttl(63),
            Way::FullNat(to) => {
                let source = source_of(&tables(), (client, port), UDP, 0);
                on(source, (server.address, to)).ttl(63)
            }
            Way::Dsr => on((client, port), (self.vip, PORT)),
            Way::Tunnel => {
                let flow = ((client, port, UDP), 0);
                wrapped(&tables(), &sent.build(), flow, server.id, server.address)
            }
        };
        row.sends(&sent, &out, (self.listener, server.id), kind)
    }

    /// A server's answer reaches the client, if it comes through here.
    fn answers(&self, row: Row, client: (&str, u16), server: Server) -> Row {
        let (target_port, seen) = match self.way {
            Way::Nat(port) => (port, client),
            Way::FullNat(port) => (port, source_of(&tables(), client, UDP, 0)),
            Way::Dsr | Way::Tunnel => return row,
        };
        let (client, port) = client;
        let receiver = if client == self.far {
            self.router
        } else {
            client
        };
        let sent = ip(from_target(server.address), server.address, seen.0);
        let out = ip(on_to(receiver), self.vip, client).ttl(63);
        row.sends(
            &sent.udp(target_port, seen.1),
            &out.udp(PORT, port),
            (self.listener, server.id),
            Return,
        )
    }
}

fn claim(text: &str, place: &Place) -> &'static str {
    format!("quic, {}: {text}", place.name).leak()
}

fn handshake(place: &Place) -> Row {
    let [one, other] = place.servers;
    let client = (place.client, place.port_to(place.client, one));
    let row = row(claim(
        "a client's own id leaves the choice to the hash, its server's id names the server",
        place,
    ));
    let row = place.goes(row, client, one, New, &long(0, &[0x99; 8]));
    let row = place.answers(row, client, one);
    let row = place.goes(row, client, one, Known, &long(2, &id_of(one.number)));
    let row = place.goes(row, client, one, Known, &short(&id_of(one.number)));
    // As after a retry by another server, or on a port that another connection used before.
    let row = place.goes(row, client, other, New, &long(2, &id_of(other.number)));
    let row = place.answers(row, client, other);
    place
        .goes(row, client, other, Known, &short(&id_of(other.number)))
        .remembers(1)
}

fn migration(place: &Place) -> Row {
    let [one, other] = place.servers;
    let before = (place.client, place.port_to(place.client, one));
    let after = (place.far, place.port_to(place.far, other));
    let row = row(claim(
        "a connection stays with its server when its client's address changes",
        place,
    ));
    let row = place.goes(row, before, one, New, &long(0, &[0x99; 8]));
    let row = place.goes(row, before, one, Known, &short(&id_of(one.number)));
    let row = place.goes(row, after, one, New, &short(&id_of(one.number)));
    let row = place.answers(row, after, one);
    let row = place.goes(row, after, one, Known, &short(&id_of(one.number)));
    place.answers(row, before, one).remembers(2)
}

fn older_flow(place: &Place) -> Row {
    let [one, other] = place.servers;
    let client = (place.client, place.port_to(place.client, other));
    let row = row(claim(
        "an id goes before a flow that an earlier connection left behind",
        place,
    ));
    let row = place.goes(row, client, other, New, &long(0, &[0x99; 20]));
    let row = place.answers(row, client, other);
    let row = place.goes(row, client, other, Known, &short(&id_of(other.number)));
    let row = place.goes(row, client, one, New, &short(&id_of(one.number)));
    place.answers(row, client, one).remembers(1)
}

/// An ID that names nobody: the packets go where their flow goes.
fn nameless(text: &str, place: &Place, payload: &[u8]) -> Row {
    let [one, other] = place.servers;
    let client = (place.client, place.port_to(place.client, other));
    let row = row(claim(text, place));
    let row = place.goes(row, client, other, New, payload);
    let row = place.goes(row, client, one, New, &short(&id_of(one.number)));
    place.goes(row, client, one, Known, payload)
}

/// The packet says that it ends in the middle of the ID, whose rest follows it in the frame.
fn cut_short() -> Row {
    let [one, other] = NAT.servers;
    let client = (NAT.client, NAT.port_to(NAT.client, other));
    let row = row("quic: an id that reaches beyond the datagram names nobody");
    NAT.goes_with(row, client, other, New, |from| {
        let payload = short(&id_of(one.number));
        from.payload(&payload).udp_length(8 + 17).no_checksum()
    })
}

fn behind_options() -> Row {
    let [one, other] = NAT.servers;
    let client = (NAT.client, NAT.port_to(NAT.client, other));
    let row = row("quic: an id is found behind ip options");
    NAT.goes_with(row, client, one, New, |from| {
        from.options(&[7, 7, 4, 0, 0, 0, 0])
            .payload(&short(&id_of(one.number)))
    })
}

fn leaving() -> Row {
    let [one, other] = NAT.servers;
    let client = (NAT.client, NAT.port_to(NAT.client, one));
    let row = row("quic: a target that takes no new flows keeps its connections").ring(54, &[2, 3]);
    let row = NAT.goes(row, client, one, New, &short(&id_of(one.number)));
    let row = NAT.answers(row, client, one);
    NAT.goes(row, client, other, New, &short(&id_of(other.number)))
}

/// The number stands elsewhere in IDs of another length.
fn other_layout() -> Row {
    let client = (CLIENT, port_to(&tables(), CLIENT, (VIP, 4434), UDP, 59, 0));
    let id = [&[1, 2][..], &[0x12, 0x34, 0x56, 0x78, 0xff], &[0; 5]].concat();
    let step = |row: Row, target: u32, address: &str, kind, payload: &[u8]| {
        let sent = ip(from_client(), CLIENT, VIP).udp(client.1, 4434);
        let out = ip(on_to(address), CLIENT, address).ttl(63);
        row.sends(
            &sent.payload(payload),
            &out.udp(client.1, 4444).payload(payload),
            (58, target),
            kind,
        )
    };
    let row = row("quic: a listener finds the number where its group says it stands");
    let row = step(row, 59, "10.0.0.12", New, &short(&id_of(0x12_3456_78ff)));
    let row = step(row, 10, "10.0.0.11", New, &short(&id));
    step(row, 10, "10.0.0.11", Known, &long(2, &id))
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = PLACES
        .iter()
        .flat_map(|place| [handshake(place), migration(place), older_flow(place)])
        .collect();
    let right = id_of(NAT.servers[0].number);
    for place in &PLACES {
        rows.extend([
            nameless(
                "a number that no server has names nobody",
                place,
                &short(&id_of(NOBODY)),
            ),
            nameless(
                "an id of another length names nobody",
                place,
                &long(2, &right[..16]),
            ),
            nameless(
                "a short header cut inside its id names nobody",
                place,
                &short(&right)[..17],
            ),
            nameless(
                "a long header cut inside its id names nobody",
                place,
                &long(2, &right)[..22],
            ),
            nameless(
                "a long header cut before its id names nobody",
                place,
                &long(2, &right)[..4],
            ),
            nameless("an empty datagram names nobody", place, &[]),
        ]);
    }
    rows.extend([cut_short(), behind_options(), leaving(), other_layout()]);
    rows
}
