//! Rows of what is wrong: left to the stack, or stopped.

use nlb_common::decap::DecapStop;
use nlb_tests::packet::{Sentence, eth};

use super::{
    rows::{Row, Wrapping, inner, outer, packet, wrap},
    target::OWN_V6,
};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = left_to_the_stack();
    rows.extend(gue());
    rows.extend(geneve());
    rows.extend(lengths());
    rows
}

fn udp(port: u16, header: &[u8], content: &[u8]) -> Sentence {
    outer(true)
        .udp(50_000, port)
        .payload(&[header, content].concat())
}

fn left_to_the_stack() -> Vec<Row> {
    let whole = wrap(Wrapping::Gue, outer(true), true, &inner(true));
    let mut broken = Row::stops(
        "a wrong outer header checksum is left to the stack",
        &whole,
        DecapStop::OuterHeader,
    );
    broken.frame[24] ^= 1;
    let mut broken_option = Row::stops(
        "a wrong checksum over outer options is left to the stack",
        &wrap(
            Wrapping::Ipip,
            outer(true).options(&[1; 40]),
            true,
            &inner(true),
        ),
        DecapStop::OuterHeader,
    );
    broken_option.frame[73] ^= 1;
    let gue = |header: [u8; 4]| {
        let payload = [&header[..], &packet(&inner(true))].concat();
        outer(true).udp(1, 6080).payload(&payload)
    };
    let geneve = |header: [u8; 8]| {
        let payload = [&header[..], &packet(&inner(true))].concat();
        outer(true).udp(1, 6081).payload(&payload)
    };
    vec![
        broken,
        broken_option,
        Row::stops(
            "an outer header length below 20 is left to the stack",
            &whole.clone().header_words(4),
            DecapStop::OuterHeader,
        ),
        Row::stops(
            "an outer source mapped into IPv6 is left to the stack",
            &wrap(
                Wrapping::Gue,
                eth().ipv6("::ffff:10.0.0.1", OWN_V6),
                true,
                &inner(true),
            ),
            DecapStop::OuterHeader,
        ),
        Row::stops(
            "a GUE control message is left to the stack",
            &gue([0x20, 4, 0, 0]),
            DecapStop::Control,
        ),
        Row::stops(
            "a Geneve control message is left to the stack",
            &geneve([0, 0x80, 8, 0, 0, 0, 0, 0]),
            DecapStop::Control,
        ),
        Row::stops(
            "GUE around GRE is left to the stack",
            &gue([0, 47, 0, 0]),
            DecapStop::NotIp,
        ),
        Row::stops(
            "Geneve around Ethernet is left to the stack",
            &geneve([0, 0, 0x65, 0x58, 0, 0, 0, 0]),
            DecapStop::NotIp,
        ),
    ]
}

fn gue() -> Vec<Row> {
    let packet_v4 = packet(&inner(true));
    vec![
        Row::stops(
            "GUE of variant 2 is stopped",
            &udp(6080, &[0x80, 4, 0, 0], &packet_v4),
            DecapStop::Malformed,
        ),
        Row::stops(
            "GUE of variant 1 with IP version 5 is stopped",
            &udp(6080, &[], &[0x55; 60]),
            DecapStop::Malformed,
        ),
        Row::stops(
            "GUE flags that are not known are stopped",
            &udp(6080, &[1, 4, 0, 1, 0, 0, 0, 0], &packet_v4),
            DecapStop::UnknownOption,
        ),
        Row::stops(
            "GUE without a whole header is stopped",
            &udp(6080, &[0, 4, 0], &[]),
            DecapStop::Malformed,
        ),
        Row::stops(
            "GUE with nothing inside is stopped",
            &udp(6080, &[0, 4, 0, 0], &[]),
            DecapStop::Malformed,
        ),
        Row::stops(
            "GUE fields longer than the packet are stopped",
            &udp(6080, &[0x1f, 4, 0, 0], &packet_v4),
            DecapStop::Malformed,
        ),
        Row::stops(
            "GUE fields longer than what is looked at are stopped",
            &udp(
                6080,
                &[0x1f, 4, 0, 0],
                &[&[0; 124][..], &packet_v4].concat(),
            ),
            DecapStop::TooDeep,
        ),
    ]
}

fn geneve() -> Vec<Row> {
    let packet_v4 = packet(&inner(true));
    vec![
        Row::stops(
            "Geneve of another version is stopped",
            &udp(6081, &[0x40, 0, 8, 0, 0, 0, 0, 0], &packet_v4),
            DecapStop::Malformed,
        ),
        Row::stops(
            "critical Geneve options are stopped",
            &udp(
                6081,
                &[1, 0x40, 8, 0, 0, 0, 0, 0, 0, 1, 0x81, 0],
                &packet_v4,
            ),
            DecapStop::UnknownOption,
        ),
        Row::stops(
            "Geneve without a whole header is stopped",
            &udp(6081, &[0, 0, 8, 0, 0, 0, 0], &[]),
            DecapStop::Malformed,
        ),
        Row::stops(
            "Geneve options longer than the packet are stopped",
            &udp(6081, &[0x3f, 0, 8, 0, 0, 0, 0, 0], &packet_v4),
            DecapStop::Malformed,
        ),
        Row::stops(
            "Geneve options longer than what is looked at are stopped",
            &udp(
                6081,
                &[0x3f, 0, 8, 0, 0, 0, 0, 0],
                &[&[0; 252][..], &packet_v4].concat(),
            ),
            DecapStop::TooDeep,
        ),
    ]
}

fn lengths() -> Vec<Row> {
    vec![
        Row::stops(
            "an outer UDP length above its packet is stopped",
            &wrap(Wrapping::Gue, outer(true), true, &inner(true)).udp_length(500),
            DecapStop::Malformed,
        ),
        Row::stops(
            "an outer UDP length below its header is stopped",
            &wrap(Wrapping::Gue, outer(false), true, &inner(true)).udp_length(7),
            DecapStop::Malformed,
        ),
        Row::stops(
            "an outer UDP length that cuts the inner packet is stopped",
            &wrap(Wrapping::Gue, outer(false), true, &inner(true)).udp_length(33),
            DecapStop::InnerLength,
        ),
        Row::stops(
            "an inner header length below 20 is stopped",
            &wrap(
                Wrapping::Ipip,
                outer(true),
                true,
                &inner(true).header_words(4),
            ),
            DecapStop::InnerLength,
        ),
        Row::stops(
            "an inner packet shorter than its header is stopped",
            &wrap(
                Wrapping::Ipip,
                outer(true),
                true,
                &inner(true).options(&[1; 8]).length(27),
            ),
            DecapStop::InnerLength,
        ),
    ]
}
