//! Fragmentation and reassembly, as plainly as they can be written: what a host does with a packet
//! that is too large, and what another one does with the pieces.

use super::checksum;

const ETHERNET_BYTES: usize = 14;
const IPV6_BYTES: usize = 40;

fn is_v4(frame: &[u8]) -> bool {
    frame[12..14] == [8, 0]
}

fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes)
        .expect("a packet's length")
        .to_be_bytes()
}

/// Bytes before the part of a frame that is cut, and, for IPv6, where the number of what begins there
/// stands.
fn unfragmentable(frame: &[u8]) -> (usize, usize) {
    if is_v4(frame) {
        return (ETHERNET_BYTES + usize::from(frame[14] & 15) * 4, 0);
    }
    let (mut at, mut next_at) = (ETHERNET_BYTES + IPV6_BYTES, ETHERNET_BYTES + 6);
    // Hop-by-hop options and routing headers are for the hosts on the way (RFC 8200 §4.5).
    while matches!(frame[next_at], 0 | 43) {
        next_at = at;
        at += (usize::from(frame[at + 1]) + 1) * 8;
    }
    (at, next_at)
}

/// Cuts an untagged IP frame behind these many bytes of what can be cut: `cuts` rise, in eights.
pub fn split(frame: &[u8], cuts: &[usize], identification: impl Into<u32>) -> Vec<Vec<u8>> {
    let identification = identification.into().to_be_bytes();
    let (start, next_at) = unfragmentable(frame);
    let (head, body) = frame.split_at(start);
    let ends = cuts.iter().copied().chain([body.len()]);
    let mut from = 0;
    ends.map(|to| {
        let is_more = u16::from(to < body.len());
        let offset = u16::try_from(from).expect("an offset");
        assert_eq!(offset % 8, 0, "cut at eights of bytes");
        let mut piece = head.to_vec();
        if is_v4(frame) {
            piece[16..18].copy_from_slice(&length(head.len() - ETHERNET_BYTES + to - from));
            piece[18..20].copy_from_slice(&identification[2..]);
            piece[20..22].copy_from_slice(&(is_more << 13 | offset >> 3).to_be_bytes());
            piece[24..26].fill(0);
            let sum = checksum::internet(&[&piece[ETHERNET_BYTES..]]);
            piece[24..26].copy_from_slice(&sum.to_be_bytes());
        } else {
            let rest = head.len() - ETHERNET_BYTES - IPV6_BYTES + 8 + to - from;
            piece[18..20].copy_from_slice(&length(rest));
            piece[next_at] = 44;
            piece.extend([frame[next_at], 0]);
            piece.extend((offset | is_more).to_be_bytes());
            piece.extend(identification);
        }
        piece.extend(&body[from..to]);
        from = to;
        piece
    })
    .collect()
}

/// Puts pieces together again, in whatever order they came; nothing if one is missing.
pub fn join(pieces: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut sorted: Vec<(usize, bool, &Vec<u8>, usize)> = pieces
        .iter()
        .map(|piece| {
            let (start, _) = unfragmentable(piece);
            if is_v4(piece) {
                let word = u16::from_be_bytes([piece[20], piece[21]]);
                (
                    usize::from(word & 0x1fff) * 8,
                    word & 0x2000 != 0,
                    piece,
                    start,
                )
            } else {
                let word = u16::from_be_bytes([piece[start + 2], piece[start + 3]]);
                (usize::from(word & !7), word & 1 != 0, piece, start + 8)
            }
        })
        .collect();
    sorted.sort_unstable_by_key(|(offset, ..)| *offset);
    let (_, _, first, body_at) = sorted.first()?;
    let (start, next_at) = unfragmentable(first);
    let mut whole = first[..start].to_vec();
    let mut is_open = true;
    for (offset, is_more, piece, at) in &sorted {
        if *offset != whole.len() - start {
            return None;
        }
        whole.extend(&piece[*at..]);
        is_open = *is_more;
    }
    if is_open {
        return None;
    }
    if is_v4(&whole) {
        let total = length(whole.len() - ETHERNET_BYTES);
        whole[16..18].copy_from_slice(&total);
        whole[20..22].fill(0);
        whole[24..26].fill(0);
        let sum = checksum::internet(&[&whole[ETHERNET_BYTES..start]]);
        whole[24..26].copy_from_slice(&sum.to_be_bytes());
    } else {
        let rest = length(whole.len() - ETHERNET_BYTES - IPV6_BYTES);
        whole[18..20].copy_from_slice(&rest);
        whole[next_at] = first[body_at - 8];
    }
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::eth;

    #[test]
    fn what_was_cut_can_be_joined_in_any_order_if_nothing_is_missing() {
        let v4 = eth()
            .ipv4("198.51.100.7", "192.0.2.10")
            .options(&[1])
            .udp(1, 2);
        let v6 = eth().ipv6("2001:db8::7", "2001:db8::10");
        let v6 = v6.hop_by_hop().destination_options().tcp(1, 2);
        for sentence in [v4, v6] {
            let mut frame = sentence.payload(&[0x5a; 1001]).build();
            if is_v4(&frame) {
                frame[18..20].copy_from_slice(&[0, 7]);
                frame[24..26].fill(0);
                let sum = checksum::internet(&[&frame[14..38]]);
                frame[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            let mut pieces = split(&frame, &[400, 808], 7u16);
            assert_eq!(pieces.len(), 3);
            pieces.reverse();
            assert_eq!(join(&pieces), Some(frame));
            assert_eq!(join(&pieces[1..]), None);
            assert_eq!(join(&pieces[..2]), None);
        }
    }
}
