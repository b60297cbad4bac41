//! 5. Next hop and verdict.
//!
//! The next hop is found, and everything that can stop a packet is asked, before the first byte
//! changes: a stopped packet is an untouched packet.

use nlb_common::{
    address::Address,
    next_hop::{NextHop, VlanId},
    stop::Stop,
    wire::ethernet::{self, Macs, VlanTag},
};
use zerocopy::big_endian::U16;

use crate::{
    Verdict,
    frame::{Frame, Offset},
    parse::Packet,
    tables::{Route, RouteQuery, Tables},
};

/// Where the IP header of an untagged frame stands.
const UNTAGGED: Offset = Offset(14);
/// Where the IP header of a frame with one tag stands.
const TAGGED: Offset = Offset(18);

/// Gives a frame the one tag that it leaves with, or none, whatever tags it came with.
#[inline(always)]
fn tag<F: Frame>(frame: &mut F, network: Offset, vlan: VlanId) -> Result<(), Stop> {
    let wanted = if vlan == VlanId::NONE {
        UNTAGGED
    } else {
        TAGGED
    };
    let ether_type = frame
        .get::<U16>(Offset(network.0.wrapping_sub(2)))
        .copied()
        .ok_or(Stop::Malformed)?;
    // A frame that leaves one VLAN for another keeps its priority (IEEE 802.1Q §6.9.3).
    let priority = if network == UNTAGGED {
        0
    } else {
        let first = frame.get::<VlanTag>(UNTAGGED).ok_or(Stop::Malformed)?;
        first.control.get() & 0xf000
    };
    if network != wanted {
        frame.move_start(i16::from(wanted.0) - i16::from(network.0))?;
    }
    if vlan == VlanId::NONE {
        *frame.get_mut::<U16>(Offset(12)).ok_or(Stop::Malformed)? = ether_type;
    } else {
        *frame.get_mut::<U16>(Offset(12)).ok_or(Stop::Malformed)? = ethernet::VLAN;
        let tag = frame.get_mut::<VlanTag>(UNTAGGED).ok_or(Stop::Malformed)?;
        tag.control = U16::new(priority | vlan.0);
        tag.ether_type = ether_type;
    }
    Ok(())
}

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

/// Whether the next hop takes a packet of this size.
#[inline(always)]
pub const fn fits(packet: &Packet, next_hop: &NextHop) -> Result<(), Stop> {
    if packet.length_bytes > next_hop.mtu_bytes {
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

/// Addresses the frame to its next hop and says where it leaves. `network` is where the IP header
/// stands.
///
/// Comes last: a VLAN tag that is put on or taken off moves everything behind it.
#[inline(always)]
pub fn emit<F: Frame>(frame: &mut F, network: Offset, next_hop: &NextHop) -> Result<Verdict, Stop> {
    let came_in = frame.interface();
    if network != UNTAGGED || next_hop.vlan != VlanId::NONE {
        tag(frame, network, next_hop.vlan)?;
    }
    let macs = frame.get_mut::<Macs>(Offset(0)).ok_or(Stop::Malformed)?;
    macs.head = next_hop.macs.head.into();
    macs.tail = next_hop.macs.tail.into();
    Ok(if next_hop.interface == came_in {
        Verdict::Transmit
    } else {
        Verdict::Redirect(next_hop.interface)
    })
}
