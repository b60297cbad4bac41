//! Rows about VLAN tags: listeners and targets in VLANs, in every combination of tags before and
//! after.

use nlb_common::{stop::Stop, wire::protocol::TCP};
use nlb_ebpf::tables::PassageKind::{Known, New, Return};
use nlb_tests::{
    packet::{Sentence, eth},
    world::{
        CLIENT, CLIENT_V6, DSR_VIP, DSR_VIP_V6, MAC1, MTU_BYTES, VIP, VIP_V6, VLAN_CLIENT,
        from_client, from_target, neighbour_of, on_to, port_to, tables,
    },
};

use crate::row::{Row, row};

/// A priority in a tag (IEEE 802.1Q §9.6): the upper three bits.
const PRIORITY: u16 = 0xa000;

/// A frame from the client in the VLAN 200.
fn tagged() -> Sentence {
    from_client()
        .from(neighbour_of(VLAN_CLIENT).mac())
        .vlan(200)
}

/// A frame from a target in the VLAN 100.
fn tagged_target(address: &str) -> Sentence {
    from_target(address).vlan(100)
}

/// Between clients and the targets of one flow: a SYN, its answer, and one more packet each way.
struct Flow {
    /// Of the client to the VIP.
    request: Sentence,
    /// The same on its way to the target.
    through: Sentence,
    /// Of the target to the client.
    answer: Sentence,
    /// The same on its way to the client.
    back: Sentence,
    ids: (u16, u32),
}

impl Flow {
    /// The SYN goes by the stage that begins flows, its answer by the one that asks for the way
    /// back, and what follows by the shorter ways.
    fn goes_both_ways(&self, claim: &'static str) -> Row {
        row(claim)
            .sends(
                &self.request.clone().syn(),
                &self.through.clone().syn(),
                self.ids,
                New,
            )
            .sends(&self.answer, &self.back, self.ids, Return)
            .sends(&self.request, &self.through, self.ids, Known)
            .sends(&self.answer, &self.back, self.ids, Return)
            .remembers(1)
    }
}

fn translated(
    client: (&str, Sentence),
    to_client: Sentence,
    (target, port): (&str, u16),
    from_target: Sentence,
    ids: (u16, u32),
) -> Flow {
    let source = client.0;
    Flow {
        request: client.1.ipv4(source, VIP).tcp(40_000, port),
        through: on_to(target).ipv4(source, target).ttl(63).tcp(40_000, 8080),
        answer: from_target.ipv4(target, source).tcp(8080, 40_000),
        back: to_client.ipv4(VIP, source).ttl(63).tcp(port, 40_000),
        ids,
    }
}

fn both_ways() -> Vec<Row> {
    let client = || (CLIENT, from_client());
    let vlan_client = || (VLAN_CLIENT, tagged());
    let (far, near) = ("10.1.0.11", "198.51.100.50");
    vec![
        translated(
            client(),
            on_to(CLIENT),
            (far, 9000),
            tagged_target(far),
            (50, 50),
        )
        .goes_both_ways("a target in a vlan gets a tag put on, and its answers have it taken off"),
        translated(
            vlan_client(),
            on_to(VLAN_CLIENT),
            (near, 88),
            from_client().from(neighbour_of(near).mac()),
            (15, 35),
        )
        .goes_both_ways("a client in a vlan has its tag taken off, and its answers get one put on"),
        translated(
            vlan_client(),
            on_to(VLAN_CLIENT),
            (far, 9000),
            tagged_target(far),
            (50, 50),
        )
        .goes_both_ways("between two vlans one tag becomes the other"),
        translated(
            client(),
            on_to(CLIENT),
            ("10.1.0.12", 9001),
            tagged_target("10.1.0.12"),
            (51, 51),
        )
        .goes_both_ways("a target in a vlan that only the kernel knows is found by its routes"),
    ]
}

fn edges() -> Vec<Row> {
    let far = "10.1.0.11";
    let query = from_client()
        .ipv6(CLIENT_V6, VIP_V6)
        .udp(40_000, 9002)
        .payload(b"query");
    let large = || tagged().ipv4(VLAN_CLIENT, VIP).tcp(40_000, 9000);
    let payload = usize::from(MTU_BYTES) - 40;
    let web = port_to(&tables(), VLAN_CLIENT, (VIP, 80), TCP, 11, 0);
    vec![
        row("a frame with two tags is read, and leaves with the one of its next hop").sends(
            &from_client()
                .service_vlan(7)
                .vlan(200)
                .ipv4(VLAN_CLIENT, VIP)
                .tcp(web, 80),
            &on_to("10.0.0.11")
                .ipv4(VLAN_CLIENT, "10.0.0.11")
                .ttl(63)
                .tcp(web, 8080),
            (1, 11),
            New,
        ),
        row("ipv6 and udp have their tags exchanged as well")
            .sends(
                &query.clone().vlan(5),
                &on_to("fd01::11")
                    .ipv6(CLIENT_V6, "fd01::11")
                    .ttl(63)
                    .udp(40_000, 5353)
                    .payload(b"query"),
                (52, 52),
                New,
            )
            .sends(
                &tagged_target("fd01::11")
                    .ipv6("fd01::11", CLIENT_V6)
                    .udp(5353, 40_000),
                &on_to(CLIENT_V6)
                    .ipv6(VIP_V6, CLIENT_V6)
                    .ttl(63)
                    .udp(9002, 40_000),
                (52, 52),
                Return,
            ),
        row("a target of dsr-l2 in a vlan gets the tag and nothing else").sends(
            &from_client().ipv4(CLIENT, DSR_VIP).tcp(40_000, 9003),
            &on_to("10.1.0.21").ipv4(CLIENT, DSR_VIP).tcp(40_000, 9003),
            (53, 53),
            New,
        ),
        row("a tag keeps its priority from one vlan to another").sends(
            &from_client()
                .vlan(PRIORITY + 200)
                .ipv4(VLAN_CLIENT, VIP)
                .tcp(40_000, 9000),
            &eth()
                .to(neighbour_of(far).mac())
                .from(MAC1)
                .vlan(PRIORITY + 100)
                .ipv4(VLAN_CLIENT, far)
                .ttl(63)
                .tcp(40_000, 8080),
            (50, 50),
            New,
        ),
        row("a tag does not count as a part of the packet when its size is compared")
            .stops(&large().payload(&vec![0; payload + 1]), Stop::TooBig)
            .sends(
                &large().payload(&vec![0; payload]),
                &on_to(far)
                    .ipv4(VLAN_CLIENT, far)
                    .ttl(63)
                    .tcp(40_000, 8080)
                    .payload(&vec![0; payload]),
                (50, 50),
                New,
            ),
        row("a tagged frame that is not ours passes with its tags")
            .passes(&tagged().ipv4(VLAN_CLIENT, "203.0.113.200").tcp(40_000, 80))
            .passes(
                &from_client()
                    .service_vlan(7)
                    .vlan(9)
                    .ipv4(CLIENT, "203.0.113.200")
                    .udp(1, 2),
            ),
    ]
}

/// Tags of clients before IPv6, for targets that are in no VLAN.
fn taken_off() -> Vec<Row> {
    let web_v6 = port_to(&tables(), CLIENT_V6, (VIP_V6, 80), TCP, 17, 0);
    let dsr_web = port_to(&tables(), CLIENT_V6, (DSR_VIP_V6, 80), TCP, 24, 0);
    vec![
        row("a client's tag before ipv6 is taken off for a target of dsr-l2").sends(
            &from_client()
                .vlan(5)
                .ipv6(CLIENT_V6, DSR_VIP_V6)
                .tcp(dsr_web, 80),
            &on_to("fd00::22")
                .ipv6(CLIENT_V6, DSR_VIP_V6)
                .tcp(dsr_web, 80),
            (7, 24),
            New,
        ),
        row("a client's tag before tcp over ipv6 is taken off").sends(
            &from_client()
                .vlan(5)
                .ipv6(CLIENT_V6, VIP_V6)
                .tcp(web_v6, 80),
            &on_to("fd00::12")
                .ipv6(CLIENT_V6, "fd00::12")
                .ttl(63)
                .tcp(web_v6, 8080),
            (3, 17),
            New,
        ),
    ]
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = both_ways();
    rows.extend(edges());
    rows.extend(taken_off());
    rows
}
