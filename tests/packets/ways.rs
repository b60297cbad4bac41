//! Where frames leave: remembered next hops, the kernel's routes, and when which is asked.

use nlb_common::{
    next_hop::{MacPair, NextHopId},
    stop::Stop,
    wire::{ethernet::MacAddress, protocol::TCP},
};
use nlb_ebpf::tables::PassageKind::{Known, New, Return};
use nlb_tests::{
    packet::Sentence,
    world::{
        CLIENT, CLIENT_V6, FAR_CLIENT, FAR_CLIENT_V6, QUIET_CLIENT, UNKNOWN_CLIENT, VIP, VIP_V6,
        from_client, from_target, neighbour_of, on_to, port_to, tables,
    },
};

use crate::row::{Row, row};

/// The MAC address that a neighbour has after [`Row::mac`] with 0x77.
const NEW_MAC: [u8; 6] = [2, 0, 0, 0, 1, 0x77];

/// A flow of this client to 10.0.0.11, and the frames of it.
struct Flow {
    port: u16,
    client: &'static str,
    /// Who stands for the client on our link.
    by: &'static str,
}

impl Flow {
    fn of(client: &'static str, by: &'static str) -> Self {
        let port = port_to(&tables(), client, (VIP, 80), TCP, 11, 0);
        Self { port, client, by }
    }

    fn request(&self) -> Sentence {
        from_client().ipv4(self.client, VIP).tcp(self.port, 80)
    }

    fn through(&self) -> Sentence {
        on_to("10.0.0.11")
            .ipv4(self.client, "10.0.0.11")
            .ttl(63)
            .tcp(self.port, 8080)
    }

    fn answer(&self) -> Sentence {
        from_target("10.0.0.11")
            .ipv4("10.0.0.11", self.client)
            .tcp(8080, self.port)
    }

    fn back(&self) -> Sentence {
        on_to(self.by)
            .ipv4(VIP, self.client)
            .ttl(63)
            .tcp(80, self.port)
    }

    fn begins(&self, claim: &'static str) -> Row {
        row(claim).sends(&self.request(), &self.through(), (1, 11), New)
    }

    fn answered(&self, row: Row) -> Row {
        row.sends(&self.answer(), &self.back(), (1, 11), Return)
    }
}

fn to_targets() -> Vec<Row> {
    let flow = Flow::of(CLIENT, CLIENT);
    let web = |port| from_client().ipv4(CLIENT, VIP).tcp(40_000, port);
    let small = web(89).payload(&[0; 560]);
    vec![
        row("a target on the client's side is reached through the same interface, and back")
            .sends(
                &web(88),
                &on_to("198.51.100.50")
                    .ipv4(CLIENT, "198.51.100.50")
                    .ttl(63)
                    .tcp(40_000, 8080),
                (15, 35),
                New,
            )
            .sends(
                &from_client()
                    .from(neighbour_of("198.51.100.50").mac())
                    .ipv4("198.51.100.50", CLIENT)
                    .tcp(8080, 40_000),
                &on_to(CLIENT).ipv4(VIP, CLIENT).ttl(63).tcp(88, 40_000),
                (15, 35),
                Return,
            ),
        row("a target behind a router is reached through it").sends(
            &web(87),
            &on_to("10.0.0.254")
                .ipv4(CLIENT, "10.9.0.5")
                .ttl(63)
                .tcp(40_000, 8080),
            (14, 34),
            New,
        ),
        row("an ipv6 target behind a router is reached through it").sends(
            &from_client().ipv6(CLIENT_V6, VIP_V6).tcp(40_000, 87),
            &on_to("fd00::fe")
                .ipv6(CLIENT_V6, "fd09::5")
                .ttl(63)
                .tcp(40_000, 8080),
            (21, 37),
            New,
        ),
        row("a packet as large as the link to the target takes passes").sends(
            &small,
            &on_to("10.0.0.41")
                .ipv4(CLIENT, "10.0.0.41")
                .ttl(63)
                .tcp(40_000, 8080)
                .payload(&[0; 560]),
            (16, 36),
            New,
        ),
        row("a ttl of two is the last that passes a translation").sends(
            &flow.request().ttl(2),
            &flow.through().ttl(1),
            (1, 11),
            New,
        ),
        flow.begins("a known next hop is used until it is said to be invalid, then the routes")
            .mac("10.0.0.11", 0x77)
            .sends(&flow.request(), &flow.through(), (1, 11), Known)
            .change(|tables| {
                tables.next_hops[11].invalidate();
            })
            .sends(&flow.request(), &flow.through().to(NEW_MAC), (1, 11), Known),
        flow.begins("a next hop that is written again is used at once")
            .change(|tables| {
                let mut next_hop = neighbour_of("10.0.0.11").next_hop();
                next_hop.macs = MacPair::new(MacAddress(NEW_MAC), next_hop.macs.source());
                tables.next_hops[11].write(&next_hop);
            })
            .sends(&flow.request(), &flow.through().to(NEW_MAC), (1, 11), Known),
        flow.begins("a target without a next hop is found by the routes for each packet")
            .change(|tables| {
                let mut control = tables.targets[11].control().expect("written");
                control.next_hop = NextHopId::NONE;
                tables.targets[11].set_control(control);
            })
            .sends(&flow.request(), &flow.through(), (1, 11), Known)
            .mac("10.0.0.11", 0x77)
            .sends(&flow.request(), &flow.through().to(NEW_MAC), (1, 11), Known),
    ]
}

fn to_clients() -> Vec<Row> {
    let flow = Flow::of(CLIENT, CLIENT);
    let far = Flow::of(FAR_CLIENT, "198.51.100.254");
    let quiet = Flow::of(QUIET_CLIENT, QUIET_CLIENT);
    let unknown = Flow::of(UNKNOWN_CLIENT, UNKNOWN_CLIENT);
    let nowhere = Flow::of("100.64.0.1", CLIENT);
    let port = port_to(&tables(), FAR_CLIENT_V6, (VIP_V6, 80), TCP, 16, 0);
    let returned = |row: Row, out: &Sentence| row.sends(&flow.answer(), out, (1, 11), Return);
    vec![
        far.answered(far.begins("the answer to a client behind a router goes through it")),
        row("the answer to an ipv6 client behind a router goes through it")
            .sends(
                &from_client().ipv6(FAR_CLIENT_V6, VIP_V6).tcp(port, 80),
                &on_to("fd00::11")
                    .ipv6(FAR_CLIENT_V6, "fd00::11")
                    .ttl(63)
                    .tcp(port, 8080),
                (3, 16),
                New,
            )
            .sends(
                &from_target("fd00::11")
                    .ipv6("fd00::11", FAR_CLIENT_V6)
                    .tcp(8080, port),
                &on_to("2001:db8:c::fe")
                    .ipv6(VIP_V6, FAR_CLIENT_V6)
                    .ttl(63)
                    .tcp(80, port),
                (3, 16),
                Return,
            ),
        unknown
            .begins("an answer to a client whose mac nobody knows waits for the neighbour")
            .stops(&unknown.answer(), Stop::NeighbourUnknown),
        nowhere
            .begins("an answer to a client that no route leads to is stopped")
            .stops(&nowhere.answer(), Stop::NoRoute),
        quiet
            .answered(quiet.begins("a client that the daemon has no next hop for is asked anew"))
            .mac(QUIET_CLIENT, 0x77)
            .sends(&quiet.answer(), &quiet.back().to(NEW_MAC), (1, 11), Return),
        flow.answered(
            flow.answered(flow.begins("the way back is remembered while its epoch lasts"))
                .mac(CLIENT, 0x77),
        ),
        returned(
            flow.answered(flow.begins("a new epoch of the way back asks the routes again"))
                .mac(CLIENT, 0x77)
                .change(|tables| tables.next_hops[1].renew()),
            &flow.back().to(NEW_MAC),
        ),
        returned(
            flow.answered(flow.begins("an invalid way back asks the routes"))
                .change(|tables| {
                    tables.next_hops[1].invalidate();
                }),
            &flow.back(),
        ),
        returned(
            returned(
                flow.answered(flow.begins("a way back that was asked anew is remembered anew"))
                    .mac(CLIENT, 0x77)
                    .change(|tables| {
                        let mut next_hop = neighbour_of(CLIENT).next_hop();
                        next_hop.macs = MacPair::new(MacAddress(NEW_MAC), next_hop.macs.source());
                        tables.next_hops[1].write(&next_hop);
                    }),
                &flow.back().to(NEW_MAC),
            )
            .mac(CLIENT, 0x66),
            &flow.back().to(NEW_MAC),
        ),
        flow.begins("an answer with a hop to spare is sent on")
            .sends(&flow.answer().ttl(2), &flow.back().ttl(1), (1, 11), Return),
        flow.begins("an answer larger than the client's link is stopped, if it may be fragmented")
            .stops(&flow.answer().payload(&[0; 1461]), Stop::TooBig),
    ]
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = to_targets();
    rows.extend(to_clients());
    rows
}
