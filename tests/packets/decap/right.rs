//! Rows of odd packets that are right, and of packets that are not ours.

use nlb_common::decap::Encapsulation;
use nlb_tests::packet::eth;

use super::{
    rows::{Row, Wrapping, inner, outer, packet, wrap, wrap_bytes},
    target::{CLIENT_V4, CLIENT_V6, LB_V6, OWN_V4, VIP_V4, VIP_V6},
};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = outer_oddities();
    rows.extend(inner_oddities());
    rows.extend(not_ours());
    rows
}

/// Odd outer headers that are right.
fn outer_oddities() -> Vec<Row> {
    let whole = |outer| wrap(Wrapping::Gue, outer, true, &inner(true));
    let gue = Encapsulation::Gue;
    vec![
        Row::comes_out(
            "outer IPv4 options go, too",
            (gue, &whole(outer(true).options(&[1; 12]))),
            &inner(true),
        ),
        Row::comes_out(
            "the most outer IPv4 options go, too",
            (gue, &whole(outer(true).options(&[1; 40]))),
            &inner(true),
        ),
        Row::comes_out(
            "Linux's encapsulation limit goes, too",
            (
                Encapsulation::Ipip,
                &wrap(
                    Wrapping::Ipip,
                    outer(false).extension(60, &[4, 1, 4, 1, 1, 0]),
                    true,
                    &inner(true),
                ),
            ),
            &inner(true),
        ),
        Row::comes_out(
            "an outer UDP checksum of zero is none",
            (gue, &whole(outer(true)).no_checksum()),
            &inner(true),
        ),
        Row::comes_out(
            "an outer UDP checksum is not looked at",
            (gue, &whole(outer(true)).checksum(0x1234)),
            &inner(true),
        ),
    ]
}

/// Odd inner packets that are right.
fn inner_oddities() -> Vec<Row> {
    let gue = Encapsulation::Gue;
    let tcp = eth()
        .ipv4(CLIENT_V4, VIP_V4)
        .tcp(40_000, 80)
        .syn()
        .payload(b"data");
    let fragment = eth()
        .ipv4(CLIENT_V4, VIP_V4)
        .protocol(17)
        .payload(&[9; 64])
        .later_fragment();
    let echo = eth().ipv6(CLIENT_V6, VIP_V6).echo().payload(&[1; 32]);
    vec![
        Row::comes_out(
            "inner options stay",
            (
                gue,
                &wrap(
                    Wrapping::Gue,
                    outer(true),
                    true,
                    &inner(true).options(&[1; 8]),
                ),
            ),
            &inner(true).options(&[1; 8]),
        ),
        Row::comes_out(
            "an inner TTL of one is left: nothing is forwarded here",
            (
                gue,
                &wrap(Wrapping::Gue, outer(true), true, &inner(true).ttl(1)),
            ),
            &inner(true).ttl(1),
        ),
        Row::comes_out(
            "TCP comes out",
            (gue, &wrap(Wrapping::GueDirect, outer(false), true, &tcp)),
            &tcp,
        ),
        Row::comes_out(
            "an inner fragment comes out",
            (
                Encapsulation::Ipip,
                &wrap(Wrapping::Ipip, outer(true), true, &fragment),
            ),
            &fragment,
        ),
        Row::comes_out(
            "an echo request comes out",
            (
                Encapsulation::Geneve,
                &wrap(Wrapping::Geneve, outer(false), false, &echo),
            ),
            &echo,
        ),
        Row::comes_out(
            "padding inside the tunnel becomes a trailer",
            (
                gue,
                &wrap_bytes(
                    Wrapping::Gue,
                    outer(true),
                    true,
                    &[packet(&inner(true)), vec![0; 9]].concat(),
                ),
            ),
            &inner(true).trailer(&[0; 9]),
        ),
    ]
}

fn not_ours() -> Vec<Row> {
    let whole = wrap(Wrapping::Gue, outer(true), true, &inner(true));
    let mapped: &str = "::ffff:192.0.2.20";
    let nested = wrap(
        Wrapping::Ipip,
        outer(true),
        true,
        &wrap(Wrapping::Ipip, outer(true), true, &inner(true)),
    );
    vec![
        Row::passes("ARP passes", &eth().arp("10.0.0.1", OWN_V4)),
        Row::passes("a bare VIP packet passes", &inner(true)),
        Row::passes("a bare VIP packet of IPv6 passes", &inner(false)),
        Row::passes(
            "TCP to the host passes",
            &outer(true).tcp(1, 6080).payload(&[4; 60]),
        ),
        Row::passes(
            "UDP to another port passes",
            &outer(true).udp(1, 6082).payload(&packet(&inner(true))),
        ),
        Row::passes(
            "UDP to port 0 passes",
            &outer(false).udp(1, 0).payload(&packet(&inner(true))),
        ),
        Row::passes(
            "an IPv6 packet for the IPv4-mapped VIP passes",
            &wrap(
                Wrapping::Ipip,
                outer(true),
                false,
                &inner(false).ipv6(CLIENT_V6, mapped),
            ),
        ),
        Row::passes(
            "an outer packet for the IPv4-mapped own address passes",
            &wrap(
                Wrapping::Ipip,
                eth().ipv6(LB_V6, "::ffff:10.0.0.11"),
                true,
                &inner(true),
            ),
        ),
        Row::passes("a tunnel in a tunnel passes", &nested),
        Row::passes(
            "a third tag passes",
            &whole.clone().service_vlan(1).vlan(2).vlan(3),
        ),
        Row::passes(
            "an EtherType that lies passes",
            &whole.clone().ether_type(0x86dd),
        ),
        Row::passes("a frame without an IP header passes", &whole).cut(14),
        Row::passes("a frame with half an IP header passes", &whole).cut(30),
        Row::passes("a frame with half a tag passes", &whole.clone().vlan(5)).cut(15),
        Row::passes("half an Ethernet header passes", &whole).cut(9),
        Row::passes("nothing passes", &whole).cut(0),
        Row::passes("ESP passes", &outer(true).protocol(50).payload(&[7; 80])),
        Row::passes(
            "hop-by-hop options pass",
            &wrap(
                Wrapping::Ipip,
                outer(false).hop_by_hop(),
                true,
                &inner(true),
            ),
        ),
        Row::passes(
            "a datagram without room for a UDP header passes",
            &outer(true).protocol(17).payload(&[0; 7]),
        ),
    ]
}
