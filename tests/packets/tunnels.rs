//! Tunnel modes: the client's packet, unchanged, inside of another one.

use nlb_common::{
    listener::ListenerId,
    next_hop::NextHopId,
    stop::Stop,
    tunnel::TunnelSlot,
    wire::protocol::{TCP, UDP},
};
use nlb_ebpf::{
    memory::MemoryTables,
    tables::PassageKind::{Known, New},
};
use nlb_tests::{
    outer::wrapped,
    packet::Sentence,
    world::{
        CLIENT, CLIENT_V6, GROUPS, LISTENERS, TUNNEL_VIP, TUNNEL_VIP_V6, from_client, from_target,
        port_to, tables,
    },
};

use crate::{
    answers::error,
    connection::to_client,
    large::wide_links,
    row::{Row, row},
};

/// A listener of the tunnels' VIPs.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) is_v6: bool,
    pub(crate) protocol: u8,
    port: u16,
}

pub(crate) const fn case(is_v6: bool, protocol: u8, port: u16) -> Case {
    Case {
        is_v6,
        protocol,
        port,
    }
}

impl Case {
    pub(crate) const fn ends(self) -> (&'static str, &'static str) {
        if self.is_v6 {
            (CLIENT_V6, TUNNEL_VIP_V6)
        } else {
            (CLIENT, TUNNEL_VIP)
        }
    }

    pub(crate) fn listener(self) -> (ListenerId, u16) {
        let (_, vip) = self.ends();
        let listener = LISTENERS
            .iter()
            .find(|other| other.1 == vip && other.2 == self.protocol && other.3 == self.port)
            .expect("a listener of the world");
        (ListenerId(listener.0), listener.4)
    }

    /// The last target of its group: id and address.
    pub(crate) fn target(self) -> (u32, &'static str) {
        let (_, group) = self.listener();
        let group = GROUPS.iter().find(|other| other.id == group);
        let target = group.and_then(|group| group.targets.last());
        let target = target.expect("a group with targets");
        (target.0, target.1)
    }

    /// The `nth` client port that leads to that target.
    pub(crate) fn client_port(self, nth: usize) -> u16 {
        let (client, vip) = self.ends();
        let vip = (vip, self.port);
        port_to(&tables(), client, vip, self.protocol, self.target().0, nth)
    }

    pub(crate) fn packet(self, nth: usize) -> Sentence {
        let (client, vip) = self.ends();
        let parse = |text: &str| text.parse().expect("an address of the world");
        let packet = from_client().ip(parse(client), parse(vip));
        if self.protocol == TCP {
            packet.tcp(self.client_port(nth), self.port)
        } else {
            packet.udp(self.client_port(nth), self.port)
        }
    }

    /// The first packet of a flow and another one are wrapped; `class` is their traffic class.
    fn twice(
        self,
        claim: &'static str,
        neighbour: &'static str,
        class: u8,
        rest: impl Fn(Sentence) -> Sentence,
    ) -> Row {
        let (listener, _) = self.listener();
        let (target, _) = self.target();
        let frame = rest(self.packet(0).class(class));
        let client = (self.ends().0, self.client_port(0), self.protocol);
        let out = wrapped(
            &tables(),
            &frame.build(),
            (client, class),
            target,
            neighbour,
        );
        row(claim)
            .sends(&frame, &out, (listener.0, target), New)
            .sends(&frame, &out, (listener.0, target), Known)
            .remembers(1)
    }

    /// The same for a client in a VLAN, whose tag is none of the tunnel's.
    fn unties(self, claim: &'static str) -> Row {
        let (ids, frame) = ((self.listener().0.0, self.target().0), self.packet(0));
        let client = (self.ends().0, self.client_port(0), self.protocol);
        let (_, neighbour) = self.target();
        let out = wrapped(&tables(), &frame.build(), (client, 0), ids.1, neighbour);
        let tagged = frame.vlan(5);
        row(claim)
            .sends(&tagged, &out, ids, New)
            .sends(&tagged, &out, ids, Known)
    }

    fn wraps(self, claim: &'static str) -> Row {
        self.twice(claim, self.target().1, 0, |s| s.payload(b"some of it"))
    }

    /// The largest packet that fits goes, one byte more is too much, first and later in a flow.
    fn fills(self, claim: &'static str, mtu_bytes: usize, overhead_bytes: usize) -> Row {
        let links = if mtu_bytes == 9001 {
            wide_links
        } else {
            |_: &mut MemoryTables| {}
        };
        let network = if self.is_v6 { 40 } else { 20 };
        let transport = if self.protocol == TCP { 20 } else { 8 };
        let largest = mtu_bytes - overhead_bytes - network - transport;
        let over = self.packet(0).payload(&vec![1; largest + 1]);
        let (listener, _) = self.listener();
        let (target, at) = self.target();
        let frame = self.packet(0).payload(&vec![2; largest]);
        let client = (self.ends().0, self.client_port(0), self.protocol);
        let out = wrapped(&tables(), &frame.build(), (client, 0), target, at);
        assert_eq!(out.build().len(), 14 + mtu_bytes);
        // The client is told what is left of the MTU; by IPv4, only if it may not fragment.
        let left = u32::try_from(mtu_bytes - overhead_bytes).expect("an MTU");
        let (client_address, vip) = self.ends();
        let too_big = |row: Row| {
            if self.is_v6 {
                let told = error(to_client(), (vip, client_address), (2, 0, left), &over);
                row.answers(&over, &told, Stop::TooBig)
            } else {
                row.stops(&over, Stop::TooBig)
            }
        };
        too_big(too_big(row(claim).change(links)).remembers(0).sends(
            &frame,
            &out,
            (listener.0, target),
            New,
        ))
        .sends(&frame, &out, (listener.0, target), Known)
    }
}

pub(crate) const V4: bool = false;
pub(crate) const V6: bool = true;

fn every_way() -> Vec<Row> {
    vec![
        case(V4, TCP, 1).wraps("ipip wraps tcp over ipv4 in ipv4"),
        case(V4, UDP, 1).wraps("ipip wraps udp over ipv4 in ipv4"),
        case(V6, TCP, 1).wraps("ipip wraps tcp over ipv6 in ipv4"),
        case(V6, UDP, 1).wraps("ipip wraps udp over ipv6 in ipv4"),
        case(V4, TCP, 2).wraps("ipip wraps tcp over ipv4 in ipv6"),
        case(V4, UDP, 2).wraps("ipip wraps udp over ipv4 in ipv6"),
        case(V6, TCP, 2).wraps("ipip wraps tcp over ipv6 in ipv6"),
        case(V6, UDP, 2).wraps("ipip wraps udp over ipv6 in ipv6"),
        case(V4, TCP, 3).wraps("gue wraps tcp over ipv4 in ipv4"),
        case(V4, UDP, 3).wraps("gue wraps udp over ipv4 in ipv4"),
        case(V6, TCP, 3).wraps("gue wraps tcp over ipv6 in ipv4"),
        case(V6, UDP, 3).wraps("gue wraps udp over ipv6 in ipv4"),
        case(V4, TCP, 4).wraps("gue wraps tcp over ipv4 in ipv6"),
        case(V4, UDP, 4).wraps("gue wraps udp over ipv4 in ipv6"),
        case(V6, TCP, 4).wraps("gue wraps tcp over ipv6 in ipv6"),
        case(V6, UDP, 4).wraps("gue wraps udp over ipv6 in ipv6"),
        case(V4, TCP, 5).wraps("geneve wraps tcp over ipv4 in ipv4"),
        case(V4, UDP, 5).wraps("geneve wraps udp over ipv4 in ipv4"),
        case(V6, TCP, 5).wraps("geneve wraps tcp over ipv6 in ipv4"),
        case(V6, UDP, 5).wraps("geneve wraps udp over ipv6 in ipv4"),
        case(V4, TCP, 6).wraps("geneve wraps tcp over ipv4 in ipv6"),
        case(V4, UDP, 6).wraps("geneve wraps udp over ipv4 in ipv6"),
        case(V6, TCP, 6).wraps("geneve wraps tcp over ipv6 in ipv6"),
        case(V6, UDP, 6).wraps("geneve wraps udp over ipv6 in ipv6"),
    ]
}

fn sizes() -> Vec<Row> {
    vec![
        case(V4, TCP, 1).fills("ipip over ipv4 takes twenty bytes of the mtu", 1500, 20),
        case(V6, TCP, 1).fills("ipip of ipv6 over ipv4 takes twenty bytes, too", 1500, 20),
        case(V4, UDP, 2).fills("ipip over ipv6 takes forty bytes of the mtu", 1500, 40),
        case(V4, TCP, 3).fills("gue over ipv4 takes 32 bytes of the mtu", 1500, 32),
        case(V6, UDP, 4).fills("gue over ipv6 takes 52 bytes of the mtu", 1500, 52),
        case(V4, TCP, 5).fills("geneve over ipv4 takes 36 bytes of the mtu", 1500, 36),
        case(V6, TCP, 6).fills("geneve over ipv6 takes 56 bytes of the mtu", 1500, 56),
        case(V4, TCP, 1).fills("ipip takes large frames", 9001, 20),
        case(V6, UDP, 4).fills("gue takes large frames", 9001, 52),
        case(V6, TCP, 5).fills("geneve takes large frames", 9001, 36),
        case(V4, TCP, 13).fills(
            "a link of a smaller mtu takes less through a tunnel",
            600,
            32,
        ),
    ]
}

fn headers() -> Vec<Row> {
    let web = case(V4, TCP, 1);
    let web_v6 = case(V6, TCP, 2);
    vec![
        web.twice(
            "dscp and ecn are copied to ipv4",
            "10.0.0.22",
            0xba | 1,
            |s| s,
        ),
        web_v6.twice(
            "dscp and ecn are copied to ipv6",
            "fd00::22",
            0xb8 | 3,
            |s| s,
        ),
        case(V4, TCP, 1).unties("ipip takes off a client's vlan tag"),
        case(V6, UDP, 4).unties("gue takes off a client's vlan tag over ipv6"),
        case(V6, TCP, 5).unties("geneve takes off a client's vlan tag"),
        web_v6.twice(
            "a tunnel takes no hop of ipv6: a limit of one passes",
            "fd00::22",
            0,
            |s| s.ttl(1),
        ),
        case(V4, UDP, 1).twice(
            "a tunnel leaves a udp checksum of zero alone",
            case(V4, UDP, 1).target().1,
            0,
            Sentence::no_checksum,
        ),
        web.twice(
            "a tunnel leaves the urgent pointer and odd flags alone",
            "10.0.0.22",
            0,
            |s| s.urgent(7).flags(0xf8).payload(b"urgent"),
        ),
        web.twice(
            "a trailer stays behind what is wrapped",
            "10.0.0.22",
            0,
            |s| s.trailer(b"tail"),
        ),
        web.twice(
            "a tunnel takes no hop: a ttl of one passes",
            "10.0.0.22",
            0,
            |s| s.ttl(1),
        ),
        web.twice("a tunnel leaves ipv4 options alone", "10.0.0.22", 0, |s| {
            s.options(&[1, 1, 1, 1])
        }),
        web.twice(
            "a tunnel leaves wrong checksums alone",
            "10.0.0.22",
            0,
            |s| s.checksum(0xbad),
        ),
        web.twice(
            "padding stays behind what is wrapped",
            "10.0.0.22",
            0,
            Sentence::padded,
        ),
        web_v6.twice(
            "a tunnel leaves extension headers alone",
            "fd00::22",
            0,
            |s| s.hop_by_hop().routing(),
        ),
        case(V4, TCP, 7).wraps("a prefix gives each flow an ipv4 source of its own"),
        case(V4, TCP, 8).wraps("a prefix gives each flow an ipv6 source of its own"),
        case(V4, TCP, 9).wraps("without entropy every flow has one port"),
        case(V4, TCP, 10).wraps("without entropy every flow has one port and no label"),
    ]
}

fn ways() -> Vec<Row> {
    let far = |case: Case, claim, neighbour| case.twice(claim, neighbour, 0, Sentence::syn);
    let web = case(V4, TCP, 1);
    let (id, _) = web.listener();
    let (target, at) = web.target();
    let frame = web.packet(0);
    let client = (CLIENT, web.client_port(0), TCP);
    let out = wrapped(&tables(), &frame.build(), (client, 0), target, at);
    vec![
        far(
            case(V4, TCP, 11),
            "a tunnel reaches a target behind a router",
            "10.0.0.254",
        ),
        far(
            case(V4, TCP, 15),
            "a tunnel over ipv6 reaches a target behind a router",
            "fd00::fe",
        ),
        row("a tunnel whose target's mac is unknown is stopped")
            .stops(&case(V4, TCP, 12).packet(0), Stop::NeighbourUnknown),
        row("a tunnel whose target has no route is stopped")
            .stops(&case(V4, TCP, 16).packet(0), Stop::NoRoute),
        row("a target in a tunnel mode whose group has no tunnel is a fault")
            .stops(&case(V4, TCP, 14).packet(0), Stop::UnwrittenTunnel),
        row("a tunnel that is just being changed stops, and forgets nothing")
            .sends(&frame, &out, (id.0, target), New)
            .change(|tables| tables.tunnels[64] = TunnelSlot::default())
            .stops(&frame, Stop::UnwrittenTunnel)
            .change(|tables| tables.tunnels[64].write(&nlb_tests::world::tunnel(64)))
            .sends(&frame, &out, (id.0, target), Known)
            .remembers(1),
        row("a flow in a tunnel whose next hop is not valid asks the routes")
            .sends(&frame, &out, (id.0, target), New)
            .change(|tables| {
                let id = NextHopId(22);
                tables.next_hops[usize::from(id.0)].invalidate();
            })
            .sends(&frame, &out, (id.0, target), Known),
        row("a new flow that there is no room to wrap is stopped and not remembered")
            .has_no_room(&frame)
            .change(|_| ())
            .remembers(0),
        row("what a tunnel's target sends from the vip passes us untouched").passes(
            &from_target("10.0.0.21")
                .ipv4(TUNNEL_VIP, CLIENT)
                .tcp(1, 40_000),
        ),
    ]
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = every_way();
    rows.extend(sizes());
    rows.extend(headers());
    rows.extend(ways());
    rows
}
