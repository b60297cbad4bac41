//! What is not ours passes, untouched and uncounted.

use nlb_tests::{
    packet::eth,
    world::{CLIENT, CLIENT_V6, MAC0, VIP, VIP_V6, from_client, from_target},
};

use crate::row::{Row, row};

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = elsewhere();
    rows.extend(cut_short());
    rows.extend(odd());
    rows
}

fn elsewhere() -> Vec<Row> {
    let web = from_client().ipv4(CLIENT, VIP).tcp(40_000, 80);
    let other = from_client().ipv4(CLIENT, "192.0.2.99").tcp(40_000, 80);
    let web_v6 = from_client().ipv6(CLIENT_V6, VIP_V6).tcp(40_000, 80);
    vec![
        row("tcp to an address that is no vip passes").passes(&other),
        row("tcp to an ipv6 address that is no vip passes").passes(
            &from_client()
                .ipv6(CLIENT_V6, "2001:db8::99")
                .tcp(40_000, 80),
        ),
        row("tcp to a vip's port without listener passes")
            .passes(&from_client().ipv4(CLIENT, VIP).tcp(40_000, 8443)),
        row("udp to a tcp listener's port passes")
            .passes(&from_client().ipv4(CLIENT, VIP).udp(40_000, 80)),
        row("tcp to a udp listener's port passes")
            .passes(&from_client().ipv6(CLIENT_V6, VIP_V6).tcp(40_000, 53)),
        row("a protocol that listeners do not speak passes")
            .passes(&from_client().ipv4(CLIENT, VIP).protocol(47).payload(b"gre"))
            .passes(
                &from_client()
                    .ipv6(CLIENT_V6, VIP_V6)
                    .protocol(50)
                    .payload(b"esp"),
            ),
        row("arp passes").passes(&from_client().arp(CLIENT, VIP).padded()),
        row("an unknown ethertype passes").passes(&web.clone().ether_type(0x88cc)),
        row("a length instead of an ethertype passes").passes(&web.clone().ether_type(64)),
        row("ipv4 that says another version passes").passes(&web.clone().version(5)),
        row("ipv6 that says another version passes").passes(&web_v6.clone().version(4)),
        row("ipv4 under ipv6's ethertype passes").passes(&web.clone().ether_type(0x86dd)),
    ]
}

fn cut_short() -> Vec<Row> {
    let web = from_client().ipv4(CLIENT, VIP).tcp(40_000, 80);
    let other = from_client().ipv4(CLIENT, "192.0.2.99").tcp(40_000, 80);
    let web_v6 = from_client().ipv6(CLIENT_V6, VIP_V6).tcp(40_000, 80);
    let truncated = |at: usize| web.build()[..at].to_vec();
    let truncated_v6 = |at: usize| web_v6.build()[..at].to_vec();
    let mut cut = row("a frame cut before its addresses end passes, at every length");
    for at in 0..14 + 20 {
        cut = cut.passes_bytes(truncated(at));
    }
    let mut cut_v6 = row("an ipv6 frame cut before its addresses end passes, at every length");
    for at in 0..14 + 40 {
        cut_v6 = cut_v6.passes_bytes(truncated_v6(at));
    }
    let mut cut_other = row("a frame for someone else passes cut at every length");
    for at in 0..other.build().len() {
        cut_other = cut_other.passes_bytes(other.build()[..at].to_vec());
    }
    vec![cut, cut_v6, cut_other]
}

fn odd() -> Vec<Row> {
    let web = from_client().ipv4(CLIENT, VIP).tcp(40_000, 80);
    let other = from_client().ipv4(CLIENT, "192.0.2.99").tcp(40_000, 80);
    vec![
        row("a frame shorter than an ethernet header passes")
            .passes_bytes(vec![])
            .passes_bytes(vec![0xa5; 13]),
        row("tagged frames for someone else pass")
            .passes(&other.clone().vlan(5))
            .passes(&other.clone().service_vlan(7).vlan(5)),
        row("three tags are more than we read").passes(&web.clone().vlan(1).vlan(2).vlan(3)),
        row("a tag that is cut off passes")
            .passes_bytes(web.clone().vlan(5).build()[..16].to_vec()),
        row("a fragment for someone else passes")
            .passes(&other.clone().first_fragment())
            .passes(&other.clone().later_fragment()),
        row("icmp to someone else passes")
            .passes(&from_client().ipv4(CLIENT, "192.0.2.99").echo())
            .passes(&from_client().ipv6(CLIENT_V6, "2001:db8::99").echo()),
        row("malformed packets for someone else pass")
            .passes(&other.clone().header_words(4))
            .passes(&other.clone().length(10))
            .passes(&other.clone().length(2000))
            .passes(&other.clone().data_words(4))
            .passes(&other.clone().data_words(15)),
        row("a target's traffic that belongs to no flow passes")
            .passes(
                &from_target("10.0.0.11")
                    .ipv4("10.0.0.11", CLIENT)
                    .tcp(8080, 40_000),
            )
            .passes(
                &from_target("fd00::11")
                    .ipv6("fd00::11", CLIENT_V6)
                    .tcp(8080, 40_000),
            ),
        row("a target's traffic from another port passes").passes(
            &from_target("10.0.0.11")
                .ipv4("10.0.0.11", CLIENT)
                .tcp(22, 40_000),
        ),
        row("broadcast and multicast pass")
            .passes(
                &eth()
                    .to([0xff; 6])
                    .ipv4("0.0.0.0", "255.255.255.255")
                    .udp(68, 67),
            )
            .passes(
                &eth()
                    .to([0x33, 0x33, 0, 0, 0, 1])
                    .ipv6("fe80::1", "ff02::1")
                    .icmp(134),
            ),
        row("an ipv4 address written as a mapped ipv6 address is not the listener's peer").passes(
            &eth()
                .to(MAC0)
                .ipv6("::ffff:198.51.100.7", "::ffff:192.0.2.99")
                .tcp(40_000, 80),
        ),
    ]
}
