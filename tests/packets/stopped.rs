//! What is ours and yet not sent on: one reason, one counter, and the frame as it came.

use nlb_common::stop::Stop;
use nlb_tests::{
    packet::eth,
    world::{CLIENT, CLIENT_V6, DSR_VIP, MAC0, UNWRITTEN_LISTENER_PORT, VIP, VIP_V6, from_client},
};

use crate::row::{Row, row};

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = without_ports();
    rows.extend(malformed());
    rows.extend(cut_short());
    rows.extend(not_sent_on());
    rows
}

fn without_ports() -> Vec<Row> {
    let to = |port| from_client().ipv4(CLIENT, VIP).tcp(40_000, port);
    let web = to(80);
    let web_v6 = from_client().ipv6(CLIENT_V6, VIP_V6).tcp(40_000, 80);
    let dns_v6 = from_client()
        .ipv6(CLIENT_V6, VIP_V6)
        .udp(40_000, 53)
        .payload(b"query");
    vec![
        row("fragments to a vip are stopped, the first and later ones")
            .stops(&web.clone().first_fragment(), Stop::Fragment)
            .stops(&web.clone().later_fragment(), Stop::Fragment)
            .remembers(0),
        row("ipv6 fragments to a vip are stopped, the first and later ones")
            .stops(&dns_v6.clone().first_fragment(), Stop::Fragment)
            .stops(&dns_v6.clone().later_fragment(), Stop::Fragment),
        row("an ipv6 fragment header behind options is found").stops(
            &web_v6.clone().hop_by_hop().first_fragment(),
            Stop::Fragment,
        ),
        row("a fragment to a dsr vip is stopped").stops(
            &from_client()
                .ipv4(CLIENT, DSR_VIP)
                .udp(40_000, 53)
                .later_fragment(),
            Stop::Fragment,
        ),
        row("icmp echo to a vip is left to the host and counted")
            .stops(&from_client().ipv4(CLIENT, VIP).echo(), Stop::Icmp)
            .stops(&from_client().ipv6(CLIENT_V6, VIP_V6).echo(), Stop::Icmp),
        row("an icmp error to a vip is left to the host and counted")
            .stops(
                &from_client().ipv4(CLIENT, VIP).icmp(3).payload(&[0; 28]),
                Stop::Icmp,
            )
            .stops(
                &from_client()
                    .ipv6(CLIENT_V6, VIP_V6)
                    .icmp(2)
                    .payload(&[0; 48]),
                Stop::Icmp,
            ),
    ]
}

fn malformed() -> Vec<Row> {
    let to = |port| from_client().ipv4(CLIENT, VIP).tcp(40_000, port);
    let web = to(80);
    let web_v6 = from_client().ipv6(CLIENT_V6, VIP_V6).tcp(40_000, 80);
    let dns = from_client()
        .ipv4(CLIENT, VIP)
        .udp(40_000, 53)
        .payload(b"query");
    let dns_v6 = from_client()
        .ipv6(CLIENT_V6, VIP_V6)
        .udp(40_000, 53)
        .payload(b"query");
    vec![
        row("an ipv4 header that says it is too short is malformed")
            .stops(&web.clone().header_words(4), Stop::Malformed)
            .stops(&web.clone().header_words(0), Stop::Malformed),
        row("an ipv4 header longer than its packet is malformed")
            .stops(&web.clone().header_words(15).length(40), Stop::Malformed),
        row("a total length shorter than the header is malformed")
            .stops(&web.clone().length(19), Stop::Malformed)
            .stops(&web.clone().length(0), Stop::Malformed),
        row("a total length beyond the frame is malformed")
            .stops(&web.clone().length(41), Stop::Malformed)
            .stops(&web.clone().length(u16::MAX), Stop::Malformed),
        row("a total length that cuts the tcp header is malformed, though the frame has it")
            .stops(&web.clone().length(39), Stop::Malformed),
        row("a payload length beyond the frame is malformed")
            .stops(&web_v6.clone().length(21), Stop::Malformed)
            .stops(&web_v6.clone().length(u16::MAX), Stop::Malformed),
        row("a payload length that cuts the tcp header is malformed")
            .stops(&web_v6.clone().length(19), Stop::Malformed)
            .stops(&web_v6.clone().length(0), Stop::Malformed),
        row("a tcp data offset below five words is malformed")
            .stops(&web.clone().data_words(4), Stop::Malformed)
            .stops(&web_v6.clone().data_words(0), Stop::Malformed),
        row("a tcp data offset beyond the packet is malformed")
            .stops(&web.clone().data_words(6), Stop::Malformed)
            .stops(&web_v6.clone().data_words(15), Stop::Malformed),
        row("a udp length below its header is malformed")
            .stops(&dns.clone().udp_length(7), Stop::Malformed)
            .stops(&dns_v6.clone().udp_length(0), Stop::Malformed),
        row("a udp length beyond the packet is malformed")
            .stops(&dns.clone().udp_length(14), Stop::Malformed)
            .stops(&dns_v6.clone().udp_length(u16::MAX), Stop::Malformed),
        row("a trailer does not make up for a udp length that lies").stops(
            &dns.clone().udp_length(14).trailer(&[0; 8]),
            Stop::Malformed,
        ),
        row("an extension header longer than the packet is malformed").stops(
            &web_v6.clone().hop_by_hop().length(4).trailer(&[0; 64]),
            Stop::Malformed,
        ),
        row("seven extension headers are more than we step over").stops(
            &web_v6
                .clone()
                .routing()
                .routing()
                .routing()
                .routing()
                .routing()
                .routing()
                .routing(),
            Stop::Malformed,
        ),
        row("extension headers that reach too far are malformed")
            .stops(&web_v6.clone().extension(60, &[0; 126]), Stop::Malformed),
        row("malformed packets do not make flows")
            .stops(&web.clone().data_words(4), Stop::Malformed)
            .remembers(0),
    ]
}

fn cut_short() -> Vec<Row> {
    let to = |port| from_client().ipv4(CLIENT, VIP).tcp(40_000, port);
    let web = to(80);
    let web_v6 = from_client().ipv6(CLIENT_V6, VIP_V6).tcp(40_000, 80);
    let mut cut = row("a packet to a vip that the frame cuts is stopped, at every length");
    for at in 14 + 20..web.build().len() {
        cut = cut.stops_bytes(web.build()[..at].to_vec(), Stop::Malformed);
    }
    let mut cut_v6 = row("an ipv6 packet to a vip that the frame cuts is stopped, at every length");
    for at in 14 + 40..web_v6.build().len() {
        cut_v6 = cut_v6.stops_bytes(web_v6.build()[..at].to_vec(), Stop::Malformed);
    }
    vec![cut, cut_v6]
}

fn not_sent_on() -> Vec<Row> {
    let to = |port| from_client().ipv4(CLIENT, VIP).tcp(40_000, port);
    let web = to(80);
    let web_v6 = from_client().ipv6(CLIENT_V6, VIP_V6).tcp(40_000, 80);
    vec![
        row("a ttl that would expire here stops a translated packet")
            .stops(&web.clone().ttl(1), Stop::TtlExpired)
            .stops(&web.clone().ttl(0), Stop::TtlExpired),
        row("a hop limit that would expire here stops a translated packet")
            .stops(&web_v6.clone().ttl(1), Stop::TtlExpired)
            .stops(&web_v6.clone().ttl(0), Stop::TtlExpired),
        row("a packet larger than the target's link is stopped")
            .stops(&web.clone().payload(&[0; 1461]), Stop::TooBig)
            .stops(&web_v6.clone().payload(&[0; 1441]), Stop::TooBig),
        row("the size that counts is that of the link to the target")
            .stops(&to(89).payload(&[0; 561]), Stop::TooBig),
        row("an empty ring stops new flows")
            .stops(&to(81), Stop::NoTarget)
            .remembers(0),
        row("a group without a ring stops new flows").stops(&to(82), Stop::NoTarget),
        row("a listener without a record is seen")
            .stops(&to(UNWRITTEN_LISTENER_PORT), Stop::UnwrittenListener),
        row("a target without a record is seen")
            .stops(&to(90), Stop::UnwrittenTarget)
            .remembers(0),
        row("an unknown neighbour stops packets to its target")
            .stops(&to(84), Stop::NeighbourUnknown)
            .stops(
                &from_client().ipv6(CLIENT_V6, VIP_V6).tcp(40_000, 84),
                Stop::NeighbourUnknown,
            ),
        row("a target that no route leads to is not reached").stops(&to(85), Stop::NoRoute),
        row("forwarding that is switched off stops what must ask the routes")
            .forwarding_off()
            .stops(&to(87), Stop::ForwardingOff)
            .stops(
                &from_client().ipv6(CLIENT_V6, VIP_V6).tcp(40_000, 87),
                Stop::ForwardingOff,
            ),
        row("the destination mac is no concern of ours").stops(
            &eth()
                .to(MAC0)
                .from([0xfe; 6])
                .ipv4(CLIENT, VIP)
                .tcp(40_000, 81),
            Stop::NoTarget,
        ),
    ]
}
