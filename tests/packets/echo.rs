//! Pings of a VIP, and other ICMP messages to it that are about no packet.

use nlb_common::stop::Stop;
use nlb_tests::{
    packet::{Sentence, eth},
    world::{CLIENT, CLIENT_V6, DSR_VIP, DSR_VIP_V6, VIP, VIP_V6, from_client},
};

use crate::row::{Row, row};

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = echo();
    rows.extend(other_messages());
    rows
}

fn echo() -> Vec<Row> {
    let ping = || from_client().ipv4(CLIENT, VIP).echo();
    let ping_v6 = || from_client().ipv6(CLIENT_V6, VIP_V6).echo();
    let back = |vip| {
        eth()
            .to(from_client_mac())
            .from(our_mac())
            .ipv4(vip, CLIENT)
    };
    let back_v6 = |vip| {
        let begun = eth().to(from_client_mac()).from(our_mac());
        begun.ipv6(vip, CLIENT_V6).icmp(129)
    };
    let mut sizes = row("a ping of a vip is answered, whatever its size");
    let mut sizes_v6 = row("a ping of an ipv6 vip is answered, whatever its size");
    for size in [0, 1, 2, 56, 1399, 1400] {
        let payload: Vec<u8> = (0..=255).cycle().take(size).collect();
        sizes = sizes.answers(
            &ping().ttl(7).class(0xb9).payload(&payload),
            &back(VIP).icmp(0).class(0xb9).payload(&payload),
            Stop::IcmpEcho,
        );
        sizes_v6 = sizes_v6.answers(
            &ping_v6().ttl(7).class(0xb9).payload(&payload),
            &back_v6(VIP_V6).class(0xb9).payload(&payload),
            Stop::IcmpEcho,
        );
    }
    let quiet = |row: Row| {
        row.change(|tables| {
            for listener in &tables.listeners {
                let mut policy = listener.policy();
                policy.flags = policy.flags.with_echo(false);
                listener.set_policy(policy);
            }
        })
    };
    vec![
        sizes,
        sizes_v6,
        row("a ping of a dsr vip is answered here, too")
            .answers(
                &from_client().ipv4(CLIENT, DSR_VIP).echo().padded(),
                &back(DSR_VIP).icmp(0).padded(),
                Stop::IcmpEcho,
            )
            .answers(
                &from_client().ipv6(CLIENT_V6, DSR_VIP_V6).echo(),
                &back_v6(DSR_VIP_V6),
                Stop::IcmpEcho,
            ),
        quiet(row("a ping is the host's where echo replies are off"))
            .stops(&ping(), Stop::Icmp)
            .stops(&ping_v6(), Stop::Icmp),
        row("a ping with options or extension headers is the host's")
            .stops(&ping().options(&[7, 7, 4, 0, 0, 0, 0]), Stop::Icmp)
            .stops(&ping_v6().destination_options(), Stop::Icmp),
        row("a fragmented ping is not answered")
            .stops(&ping().first_fragment(), Stop::Fragment)
            .stops(&ping_v6().first_fragment(), Stop::Fragment),
        row("a ping from or to more than one host is not answered")
            .stops(&ping().to([0xff; 6]), Stop::Icmp)
            .stops(&from_client().ipv4("224.0.0.1", VIP).echo(), Stop::Icmp)
            .stops(
                &from_client().ipv4("255.255.255.255", VIP).echo(),
                Stop::Icmp,
            )
            .stops(&from_client().ipv4("0.0.0.0", VIP).echo(), Stop::Icmp)
            .stops(&from_client().ipv4("127.0.0.1", VIP).echo(), Stop::Icmp)
            .stops(&from_client().ipv6("ff02::1", VIP_V6).echo(), Stop::Icmp)
            .stops(&from_client().ipv6("::", VIP_V6).echo(), Stop::Icmp)
            .stops(&from_client().ipv6("::1", VIP_V6).echo(), Stop::Icmp),
        row("a ping whose checksum is wrong is answered with as wrong a one").answers(
            &ping().checksum(0x1234),
            // One's complement: the type went from 8 to 0, so the sum is 0x800 less.
            &back(VIP).icmp(0).checksum(0x1a34),
            Stop::IcmpEcho,
        ),
    ]
}

fn from_client_mac() -> [u8; 6] {
    nlb_tests::world::neighbour_of(CLIENT).mac()
}

const fn our_mac() -> [u8; 6] {
    nlb_tests::world::MAC0
}

fn other_messages() -> Vec<Row> {
    let mut left =
        row("every other icmp message to a vip is the host's, neighbour discovery above all");
    for kind in [0, 4, 5, 9, 10, 13, 17, 42] {
        left = left.stops(&from_client().ipv4(CLIENT, VIP).icmp(kind), Stop::Icmp);
    }
    for kind in [129, 130, 133, 134, 135, 136, 137, 0, 5, 200] {
        left = left.stops(
            &from_client().ipv6(CLIENT_V6, VIP_V6).icmp(kind),
            Stop::Icmp,
        );
    }
    let crossed = |sentence: Sentence, protocol, kind| sentence.icmp(kind).protocol(protocol);
    vec![
        left,
        row("the other version's icmp means nothing")
            .stops(
                &crossed(from_client().ipv4(CLIENT, VIP), 58, 128),
                Stop::Icmp,
            )
            .stops(
                &crossed(from_client().ipv6(CLIENT_V6, VIP_V6), 1, 8),
                Stop::Icmp,
            ),
        row("icmp that is cut short is the host's").stops(
            &from_client()
                .ipv4(CLIENT, VIP)
                .protocol(1)
                .payload(&[8, 0, 0, 0])
                .trailer(&[0; 60]),
            Stop::Icmp,
        ),
        row("neighbour discovery among others passes").passes(
            &from_client()
                .ipv6(CLIENT_V6, "ff02::1:ff00:10")
                .icmp(135)
                .payload(&[0; 24]),
        ),
    ]
}
