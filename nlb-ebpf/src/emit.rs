//! 5. Next hop and verdict.
//!
//! The next hop is found, and everything that can stop a packet is asked, before the first byte
//! changes: a stopped packet is an untouched packet.

use nlb_common::{address::Address, next_hop::NextHop, stop::Stop, wire::ethernet::Macs};

use crate::{
    Verdict,
    frame::{Frame, Offset},
    parse::Packet,
    tables::{Route, RouteQuery, Tables},
};

/// Asks the kernel's routes for the way of this packet to `destination`.
#[inline(always)]
pub fn route<F: Frame, T: Tables>(
    frame: &F,
    tables: &T,
    packet: &Packet,
    source: Address,
    destination: Address,
) -> Result<Route, Stop> {
    tables.route(&RouteQuery {
        destination,
        source,
        interface: frame.interface(),
        traffic_class: packet.traffic_class,
        protocol: packet.protocol,
    })
}

/// How large a packet may be if so many bytes are put in front of it: what its sender must be told
/// as the path's MTU.
#[inline(always)]
pub const fn room_bytes(overhead_bytes: u16, next_hop: &NextHop) -> u16 {
    next_hop.mtu_bytes.saturating_sub(overhead_bytes)
}

/// Whether the next hop takes a packet of this size with so many bytes in front of it.
#[inline(always)]
pub const fn fits(packet: &Packet, overhead_bytes: u16, next_hop: &NextHop) -> Result<(), Stop> {
    if packet.length_bytes > room_bytes(overhead_bytes, next_hop) {
        Err(Stop::TooBig)
    } else {
        Ok(())
    }
}

/// Whether the packet may be sent on by one hop.
#[inline(always)]
pub const fn has_a_hop_left(packet: &Packet) -> Result<(), Stop> {
    if packet.ttl <= 1 {
        Err(Stop::TtlExpired)
    } else {
        Ok(())
    }
}

/// Addresses the frame to its next hop and says where it leaves.
#[inline(always)]
pub fn emit<F: Frame>(frame: &mut F, next_hop: &NextHop) -> Result<Verdict, Stop> {
    let came_in = frame.interface();
    let macs = frame.get_mut::<Macs>(Offset(0)).ok_or(Stop::Malformed)?;
    macs.head = next_hop.macs.head.into();
    macs.tail = next_hop.macs.tail.into();
    Ok(if next_hop.interface == came_in {
        Verdict::Transmit
    } else {
        Verdict::Redirect(next_hop.interface)
    })
}
