//! Frames read back: one line for a failed assertion, and whether the checksums hold.
//!
//! Written for messages and properties; it trusts nothing and knows no more than they need.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use nlb_common::wire::protocol;

use super::checksum;

/// What can be read of an IP packet that carries TCP or UDP whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// What follows.
    pub protocol: u8,
    /// Ports of TCP and UDP.
    pub ports: Option<(u16, u16)>,
    /// TCP flags.
    pub flags: u8,
    /// Bytes of the IP packet, as its header says.
    pub length_bytes: usize,
    /// Whether all checksums hold.
    pub is_intact: bool,
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// Where the IP header stands, behind how many tags, and the type before it.
fn network(frame: &[u8]) -> Option<(usize, usize, u16)> {
    let mut at = 12;
    let mut tags = 0;
    while matches!(word(frame, at)?, 0x8100 | 0x88a8) && tags < 2 {
        at += 4;
        tags += 1;
    }
    Some((at + 2, tags, word(frame, at)?))
}

/// Reads a frame, if it is an IP packet that is no fragment and lies in the frame as a whole.
pub fn read(frame: &[u8]) -> Option<Facts> {
    let (start, _, ether_type) = network(frame)?;
    let packet = frame.get(start..)?;
    match ether_type {
        0x0800 => {
            let header_length = usize::from(*packet.first()? & 15) * 4;
            let length_bytes = usize::from(word(packet, 2)?);
            let header = packet.get(..header_length.max(20))?;
            let segment = packet.get(header_length..length_bytes)?;
            if header[0] >> 4 != 4 || word(header, 6)? & 0x3fff != 0 {
                return None;
            }
            let source = <[u8; 4]>::try_from(&header[12..16]).ok()?;
            let destination = <[u8; 4]>::try_from(&header[16..20]).ok()?;
            let is_intact = checksum::internet(&[header]) == 0;
            transport(
                segment,
                (&source, &destination),
                header[9],
                Facts {
                    source: Ipv4Addr::from(source).into(),
                    destination: Ipv4Addr::from(destination).into(),
                    ttl: header[8],
                    protocol: header[9],
                    ports: None,
                    flags: 0,
                    length_bytes,
                    is_intact,
                },
            )
        }
        0x86dd => {
            let header = packet.get(..40)?;
            let length_bytes = 40 + usize::from(word(header, 4)?);
            if header[0] >> 4 != 6 {
                return None;
            }
            let mut next = header[6];
            let mut at = 40;
            while matches!(next, 0 | 43 | 60) {
                let length = (usize::from(*packet.get(at + 1)?) + 1) * 8;
                next = packet[at];
                at += length;
            }
            let segment = packet.get(at..length_bytes)?;
            let source = <[u8; 16]>::try_from(&header[8..24]).ok()?;
            let destination = <[u8; 16]>::try_from(&header[24..40]).ok()?;
            transport(
                segment,
                (&source, &destination),
                next,
                Facts {
                    source: Ipv6Addr::from(source).into(),
                    destination: Ipv6Addr::from(destination).into(),
                    ttl: header[7],
                    protocol: next,
                    ports: None,
                    flags: 0,
                    length_bytes,
                    is_intact: true,
                },
            )
        }
        _ => None,
    }
}

/// Bytes of the IP packet in a frame, as its header says.
pub fn length_bytes(frame: &[u8]) -> Option<usize> {
    let (start, _, ether_type) = network(frame)?;
    Some(match ether_type {
        0x0800 => word(frame, start + 2)?.into(),
        0x86dd => 40 + usize::from(word(frame, start + 4)?),
        _ => return None,
    })
}

fn transport(segment: &[u8], ends: (&[u8], &[u8]), number: u8, facts: Facts) -> Option<Facts> {
    let whole = || checksum::transport(ends.0, ends.1, number, segment) == 0;
    let ports = || Some((word(segment, 0)?, word(segment, 2)?));
    match number {
        protocol::TCP => Some(Facts {
            ports: Some(ports()?),
            flags: *segment.get(13)?,
            is_intact: facts.is_intact && whole(),
            ..facts
        }),
        protocol::UDP => Some(Facts {
            ports: Some(ports()?),
            is_intact: facts.is_intact && (word(segment, 6)? == 0 || whole()),
            ..facts
        }),
        _ => Some(facts),
    }
}

fn mac(bytes: &[u8]) -> String {
    let parts: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    parts.join(":")
}

/// One line about a frame.
pub fn describe(frame: &[u8]) -> String {
    let Some((_, tags, ether_type)) = network(frame) else {
        return format!("{} bytes, no whole Ethernet header", frame.len());
    };
    let mut line = format!("{} > {}", mac(&frame[6..12]), mac(&frame[..6]));
    if tags > 0 {
        write!(line, ", {tags} tag(s)").expect("a string takes all");
    }
    match read(frame) {
        None => write!(line, ", type {ether_type:#06x}, not read further"),
        Some(facts) => {
            let (from, to) = facts.ports.unwrap_or_default();
            let Facts {
                source,
                destination,
                ttl,
                protocol,
                flags,
                length_bytes,
                is_intact,
                ..
            } = facts;
            let sums = if is_intact { "hold" } else { "DO NOT HOLD" };
            write!(
                line,
                ", {source}.{from} > {destination}.{to} protocol {protocol} flags {flags:#04x} \
                 ttl {ttl} length {length_bytes}, checksums {sums}"
            )
        }
    }
    .expect("a string takes all");
    line
}

/// A frame's bytes, sixteen a line, those that differ from `other` in brackets.
pub fn hex(frame: &[u8], other: &[u8]) -> String {
    let mut text = String::new();
    for (index, byte) in frame.iter().enumerate() {
        let lead = if index % 16 == 0 { "\n    " } else { "" };
        let same = other.get(index) == Some(byte);
        let shown = if same {
            format!(" {byte:02x} ")
        } else {
            format!("[{byte:02x}]")
        };
        write!(text, "{lead}{shown}").expect("a string takes all");
    }
    text
}

/// The message of a comparison that failed; nothing if the frames are equal.
pub fn difference(expected: &[u8], found: &[u8]) -> Option<String> {
    (expected != found).then(|| {
        format!(
            "expected {}{}\n  found    {}{}",
            describe(expected),
            hex(expected, found),
            describe(found),
            hex(found, expected)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::eth;

    #[test]
    fn a_sentence_reads_back_as_it_was_said_and_its_checksums_hold() {
        for frame in [
            eth()
                .ipv4("198.51.100.7", "192.0.2.10")
                .ttl(9)
                .tcp(40_000, 80)
                .payload(b"odd"),
            eth()
                .ipv4("198.51.100.7", "192.0.2.10")
                .ttl(9)
                .options(&[1])
                .udp(40_000, 80),
            eth()
                .vlan(5)
                .ipv6("2001:db8::7", "2001:db8::10")
                .ttl(9)
                .tcp(40_000, 80),
            eth()
                .ipv6("2001:db8::7", "2001:db8::10")
                .ttl(9)
                .hop_by_hop()
                .destination_options()
                .udp(40_000, 80)
                .padded(),
        ] {
            let facts = read(&frame.build()).unwrap();
            assert_eq!(facts.ports, Some((40_000, 80)));
            assert_eq!(facts.ttl, 9);
            assert!(facts.is_intact, "{facts:?}");
            assert!(!read(&frame.checksum(1).build()).unwrap().is_intact);
        }
    }

    #[test]
    fn a_difference_shows_both_frames_and_the_bytes_in_question() {
        let one = eth().ipv4("10.0.0.1", "10.0.0.2").udp(1, 2);
        assert_eq!(difference(&one.build(), &one.build()), None);
        let message = difference(&one.build(), &one.ttl(63).build()).unwrap();
        assert!(message.contains("ttl 64") && message.contains("ttl 63"));
        assert!(message.contains("[40]") && message.contains("[3f]"));
    }
}
