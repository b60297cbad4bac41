//! Checksums computed whole, as plainly as RFC 1071 says it, so that the packet path's adjusted
//! ones are judged by something that shares no line with them.

/// The Internet checksum of these parts, one after the other; only the last may be odd.
pub fn internet(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for part in parts {
        for pair in part.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u64::from(u16::from_be_bytes([pair[0], low]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded to sixteen bits")
}

/// The checksum of a TCP, UDP or `ICMPv6` segment with its pseudo-header (RFC 9293 §3.1, RFC 8200
/// §8.1). `source` and `destination` are 4 or 16 bytes long.
pub fn transport(source: &[u8], destination: &[u8], protocol: u8, segment: &[u8]) -> u16 {
    let length = u32::try_from(segment.len()).expect("a packet's length");
    let meta = [&length.to_be_bytes()[..], &[0, 0, 0, protocol]].concat();
    internet(&[source, destination, &meta, segment])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_comes_out() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(internet(&[&bytes]), !0xddf2);
    }
}
