//! A frame's bytes for people: its headers, one a line, and a dump in which changed bytes stand out.

use std::fmt::Write as _;

use etherparse::{
    LaxPacketHeaders, LaxPayloadSlice, LinkExtHeader, LinkHeader, NetHeaders, TcpHeader,
    TransportHeader,
};
use nlb_common::wire::protocol;

use super::fact::mac;

/// Headers that are shown at most, however deep they are nested.
const MOST_HEADERS: usize = 12;

/// The headers of a frame, from the outermost on.
pub(super) fn headers(frame: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    match LaxPacketHeaders::from_ethernet(frame) {
        Ok(headers) => describe(&headers, &mut lines),
        Err(_) => lines.push(format!("{} bytes that are no Ethernet frame", frame.len())),
    }
    lines
}

fn describe(headers: &LaxPacketHeaders<'_>, lines: &mut Vec<String>) {
    if lines.len() >= MOST_HEADERS {
        return;
    }
    if let Some(LinkHeader::Ethernet2(ethernet)) = &headers.link {
        let (from, to) = (mac(ethernet.source), mac(ethernet.destination));
        lines.push(format!("Ethernet {from} > {to}"));
    }
    for extension in &headers.link_exts {
        if let LinkExtHeader::Vlan(vlan) = extension {
            let (id, priority) = (vlan.vlan_id.value(), vlan.pcp.value());
            lines.push(format!("VLAN {id}, priority {priority}"));
        }
    }
    match &headers.net {
        Some(NetHeaders::Ipv4(ip, _)) => {
            let [from, to] = [ip.source, ip.destination].map(std::net::Ipv4Addr::from);
            let mut line = format!(
                "IPv4 {from} > {to}, TTL {}, {} bytes",
                ip.time_to_live, ip.total_len
            );
            if ip.dont_fragment {
                line += ", do not fragment";
            }
            if ip.more_fragments || ip.fragment_offset.value() > 0 {
                let offset = u32::from(ip.fragment_offset.value()) * 8;
                let _infallible = write!(
                    line,
                    ", fragment at {offset} of datagram {}",
                    ip.identification
                );
            }
            lines.push(line);
        }
        Some(NetHeaders::Ipv6(ip, _)) => {
            let [from, to] = [ip.source, ip.destination].map(std::net::Ipv6Addr::from);
            let bytes = usize::from(ip.payload_length) + 40;
            lines.push(format!(
                "IPv6 {from} > {to}, hop limit {}, {bytes} bytes",
                ip.hop_limit
            ));
        }
        Some(NetHeaders::Arp(_)) => lines.push("ARP".to_owned()),
        None => {}
    }
    match &headers.transport {
        Some(TransportHeader::Tcp(tcp)) => {
            let (from, to) = (tcp.source_port, tcp.destination_port);
            let (sequence, flags) = (tcp.sequence_number, flags(tcp));
            lines.push(format!("TCP {from} > {to}, {flags}, sequence {sequence}"));
        }
        Some(TransportHeader::Udp(udp)) => {
            let (from, to) = (udp.source_port, udp.destination_port);
            lines.push(format!("UDP {from} > {to}, {} bytes", udp.length));
        }
        Some(TransportHeader::Icmpv4(icmp)) => {
            lines.push(icmp_line("ICMP", icmp.to_bytes().as_ref()));
        }
        Some(TransportHeader::Icmpv6(icmp)) => {
            lines.push(icmp_line("ICMPv6", icmp.to_bytes().as_ref()));
        }
        Some(TransportHeader::Igmp(_)) | None => {}
    }
    // What is inside of a tunnel; what an ICMP error quotes is left to the dump.
    if let LaxPayloadSlice::Ip(inside) = &headers.payload
        && matches!(inside.ip_number.0, IPIP | IPV6_IN_IP)
        && let Ok(inner) = LaxPacketHeaders::from_ip(inside.payload)
    {
        describe(&inner, lines);
    }
}

/// IP-in-IP with IPv4 (RFC 2003) and IPv6 (RFC 2473) inside.
const IPIP: u8 = 4;
const IPV6_IN_IP: u8 = 41;

fn icmp_line(name: &str, header: &[u8]) -> String {
    match header {
        [kind, code, ..] => format!("{name} type {kind} code {code}"),
        _ => name.to_owned(),
    }
}

fn flags(tcp: &TcpHeader) -> String {
    let all = [
        (tcp.syn, "SYN"),
        (tcp.ack, "ACK"),
        (tcp.fin, "FIN"),
        (tcp.rst, "RST"),
        (tcp.psh, "PSH"),
    ];
    let set: Vec<&str> = all
        .iter()
        .filter(|(is, _)| *is)
        .map(|(_, name)| *name)
        .collect();
    if set.is_empty() {
        "no flags".to_owned()
    } else {
        set.join("+")
    }
}

/// Bytes of a line.
const WIDTH: usize = 16;

/// A dump of `bytes`. With another version of them of the same length, lines that are the same in both
/// are left out, and below each line that is not, changed bytes are marked.
pub(super) fn dump(bytes: &[u8], other: Option<&[u8]>) -> String {
    let mut text = String::new();
    let other = other.filter(|other| other.len() == bytes.len());
    for (number, line) in bytes.chunks(WIDTH).enumerate() {
        let at = number * WIDTH;
        let before = other.and_then(|other| other.get(at..at + line.len()));
        if before == Some(line) {
            continue;
        }
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let _infallible = writeln!(text, "{at:04x}  {}", hex.join(" "));
        if let Some(before) = before {
            let marks: Vec<&str> = (line.iter().zip(before))
                .map(|(byte, before)| if byte == before { "  " } else { "^^" })
                .collect();
            let _infallible = writeln!(text, "      {}", marks.join(" ").trim_end());
        }
    }
    text
}

/// The protocol and both endpoints of a packet, in a line.
pub(super) fn summary(packet: &nlb_ebpf::parse::Packet) -> String {
    let end = |address, port: zerocopy::big_endian::U16| {
        let address = std::net::IpAddr::from(address);
        if matches!(packet.protocol, protocol::TCP | protocol::UDP) {
            std::net::SocketAddr::new(address, port.get()).to_string()
        } else {
            address.to_string()
        }
    };
    let name = super::fact::Protocol(packet.protocol);
    let from = end(packet.source, packet.source_port);
    let to = end(packet.destination, packet.destination_port);
    format!("{name} {from} > {to}, {} bytes", packet.length_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_shows_changed_lines_only_and_marks_what_changed() {
        let mut after = [0u8; 40];
        let before = after;
        after[17] = 0xab;
        let shown = dump(&after, Some(&before));
        let expected = format!("0010  00 ab{}\n         ^^\n", " 00".repeat(14));
        assert_eq!(shown, expected);
        assert_eq!(dump(&before, Some(&before)), "");
        // Of another length nothing can be compared.
        assert_eq!(dump(&after, Some(&before[..8])).lines().count(), 3);
    }

    #[test]
    fn headers_inside_of_a_tunnel_are_shown_too() {
        let inner = etherparse::PacketBuilder::ipv4([198, 51, 100, 7], [192, 0, 2, 1], 9).udp(1, 2);
        let mut packet = Vec::new();
        inner.write_to_vec(&mut packet, &[0; 4]).unwrap();
        let outer = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(
            [10, 0, 0, 1],
            [10, 0, 0, 2],
            64,
        );
        let mut frame = Vec::new();
        outer
            .write_to_vec(&mut frame, etherparse::IpNumber(IPIP), &packet)
            .unwrap();
        let lines = headers(&frame);
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(
            lines[1].starts_with("IPv4 10.0.0.1 > 10.0.0.2, TTL 64"),
            "{lines:?}"
        );
        assert!(
            lines[2].starts_with("IPv4 198.51.100.7 > 192.0.2.1, TTL 9"),
            "{lines:?}"
        );
        assert_eq!(lines[3], "UDP 1 > 2, 12 bytes");
    }
}
