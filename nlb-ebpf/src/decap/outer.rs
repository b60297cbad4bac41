//! The Ethernet and IP headers in front of a tunnel.
//!
//! What is wrong about them is the stack's to find: it drops such packets and counts them itself.

use nlb_common::{
    address::Address,
    decap::DecapStop,
    wire::{
        ethernet::{self, Ethernet, VlanTag},
        ipv4::Ipv4,
        ipv6::{self, Extension, FragmentHeader, Ipv6},
        protocol,
    },
};

use super::{DecapTables, Found, Part, ecn};
use crate::{
    checksum,
    frame::{Frame, Offset},
    parse::holds,
};

/// Reads as far as the tunnel's own header; [`DecapStop::NotOurs`] where there is none for us.
#[inline(always)]
pub fn read<F: Frame, T: DecapTables>(
    frame: &F,
    tables: &T,
    found: &mut Found,
) -> Result<(), DecapStop> {
    let ethernet = frame.get::<Ethernet>(Offset(0)).ok_or(DecapStop::NotOurs)?;
    let mut ether_type = ethernet.ether_type;
    let mut network = Offset(14);
    for _ in 0..2 {
        if ether_type == ethernet::VLAN || ether_type == ethernet::SERVICE_VLAN {
            let tag = frame.get::<VlanTag>(network).ok_or(DecapStop::NotOurs)?;
            ether_type = tag.ether_type;
            network = network.plus(4).ok_or(DecapStop::NotOurs)?;
        }
    }
    found.network = network;
    if ether_type == ethernet::IPV4 {
        ipv4(frame, tables, found)
    } else if ether_type == ethernet::IPV6 {
        ipv6(frame, tables, found)
    } else {
        Err(DecapStop::NotOurs)
    }
}

/// Whether a protocol may be a tunnel's; nearly all traffic is answered here.
#[inline(always)]
fn is_wanted<T: DecapTables>(tables: &T, number: u8) -> bool {
    match number {
        protocol::IPV4 | protocol::IPV6 => tables.takes_ipip(),
        protocol::UDP => true,
        _ => false,
    }
}

#[inline(always)]
fn ipv4<F: Frame, T: DecapTables>(
    frame: &F,
    tables: &T,
    found: &mut Found,
) -> Result<(), DecapStop> {
    let header = frame.get::<Ipv4>(found.network).ok_or(DecapStop::NotOurs)?;
    if !header.is_version_4()
        || !is_wanted(tables, header.protocol)
        || !tables.is_own(&Address::from_v4_bytes(header.destination))
    {
        return Err(DecapStop::NotOurs);
    }
    let header_length = u16::from(header.header_length_bytes());
    let length = header.total_length.get();
    if header_length < 20 || length < header_length || !holds(frame, found.network, length) {
        return Err(DecapStop::OuterHeader);
    }
    if !is_intact(frame, found.network, header_length) {
        return Err(DecapStop::OuterHeader);
    }
    found.protocol = header.protocol;
    found.source = Address::from_v4_bytes(header.source);
    found.outer_ecn = header.traffic_class & ecn::MASK;
    if header.is_fragment() {
        found.part = part(header.fragment.get() & 0x1fff != 0);
    }
    found.at = found
        .network
        .plus(header_length)
        .ok_or(DecapStop::TooDeep)?;
    found.left = length - header_length;
    Ok(())
}

#[inline(always)]
const fn part(is_later: bool) -> Part {
    if is_later { Part::Later } else { Part::First }
}

/// Whether an IPv4 header has the right checksum: the stack will not see it any more.
#[inline(always)]
fn is_intact<F: Frame>(frame: &F, network: Offset, header_length: u16) -> bool {
    let mut sum = 0;
    let mut at = network;
    let mut left = header_length;
    // Fifteen words are the longest header that there is.
    for _ in 0..15 {
        if left < 4 {
            break;
        }
        let (Some(word), Some(next)) = (frame.get::<[u8; 4]>(at), at.plus(4)) else {
            return false;
        };
        sum += u64::from(u32::from_ne_bytes(*word));
        at = next;
        left -= 4;
    }
    checksum::is_right(sum)
}

#[inline(always)]
fn ipv6<F: Frame, T: DecapTables>(
    frame: &F,
    tables: &T,
    found: &mut Found,
) -> Result<(), DecapStop> {
    let header = frame.get::<Ipv6>(found.network).ok_or(DecapStop::NotOurs)?;
    let mut number = header.next_header;
    let has_extension = number == ipv6::DESTINATION_OPTIONS || number == ipv6::FRAGMENT;
    let destination = Address::from_v6_bytes(header.destination);
    if !header.is_version_6()
        || !(has_extension || is_wanted(tables, number))
        || destination.is_v4()
        || !tables.is_own(&destination)
    {
        return Err(DecapStop::NotOurs);
    }
    let source = Address::from_v6_bytes(header.source);
    let mut left = header.payload_length.get();
    if source.is_v4() || !holds(frame, found.network, left.saturating_add(40)) {
        return Err(DecapStop::OuterHeader);
    }
    found.source = source;
    found.outer_ecn = header.traffic_class() & ecn::MASK;
    let mut at = found.network.plus(40).ok_or(DecapStop::TooDeep)?;
    // Linux's own tunnels write one: the encapsulation limit of RFC 2473 §4.1.1.
    if number == ipv6::DESTINATION_OPTIONS {
        let extension = frame.get::<Extension>(at).ok_or(DecapStop::OuterHeader)?;
        let length = (u16::from(extension.length) + 1) * 8;
        number = extension.next_header;
        if length > left {
            return Err(DecapStop::OuterHeader);
        }
        at = at.plus(length).ok_or(DecapStop::NotOurs)?;
        left -= length;
    }
    if number == ipv6::FRAGMENT {
        let fragment = frame
            .get::<FragmentHeader>(at)
            .ok_or(DecapStop::OuterHeader)?;
        number = fragment.next_header;
        found.part = part(fragment.is_later());
        if left < 8 {
            return Err(DecapStop::OuterHeader);
        }
        at = at.plus(8).ok_or(DecapStop::NotOurs)?;
        left -= 8;
    }
    if !is_wanted(tables, number) {
        return Err(DecapStop::NotOurs);
    }
    found.protocol = number;
    found.at = at;
    found.left = left;
    Ok(())
}
