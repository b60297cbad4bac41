//! The front stage: plain packets of flows that need nothing but forwarding, and plain packets that
//! are not ours; which is nearly all of them.
//!
//! Plain means: no VLAN tag, no IPv4 options, no IPv6 extension headers, no fragment, TCP or UDP, and
//! nothing that contradicts itself. So every header stands at a place that the compiler knows, and
//! the texts of [`crate::to_target`] and [`crate::to_client`], which are the same for every stage,
//! become straight lines.

use nlb_common::{
    address::Address,
    maps::{Prefilter, Side},
    stop::Stop,
    wire::{
        ethernet::{self, Ethernet},
        ipv4::Ipv4,
        ipv6::Ipv6,
        protocol,
    },
};

use crate::{
    Exit, Stage, Verdict,
    classify::is_nobodys,
    frame::{Frame, Offset},
    parse::{Packet, plain_v4, plain_v6},
    tables::Tables,
    to_client::to_client,
    to_target::to_target,
};

/// Where the IP header of a frame without VLAN tags stands.
const IP: Offset = Offset(14);

/// Forwards or passes a plain packet; everything else goes on.
#[inline(always)]
pub fn front<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Exit> {
    let ethernet = frame.get::<Ethernet>(Offset(0)).ok_or(Stop::NotOurs)?;
    let ether_type = ethernet.ether_type;
    let prefilter = tables.prefilter().ok_or(Stop::NotOurs)?;
    if ether_type == ethernet::IPV4 {
        // Of an ICMP error the quoted packet may be ours.
        if let Some(header) = frame.get::<Ipv4>(IP)
            && header.protocol != protocol::ICMP
        {
            let source = Address::from_v4_bytes(header.source);
            let destination = Address::from_v4_bytes(header.destination);
            if is_nobodys(prefilter, source, destination) {
                return Err(Exit::Stop(Stop::NotOurs));
            }
        }
        let packet = plain_v4(frame).ok_or(Exit::Go(Stage::Classify))?;
        forward(frame, &packet, tables, prefilter)
    } else if ether_type == ethernet::IPV6 {
        // Behind any other header ICMP may stand.
        if let Some(header) = frame.get::<Ipv6>(IP)
            && matches!(header.next_header, protocol::TCP | protocol::UDP)
        {
            let source = Address::from_v6_bytes(header.source);
            let destination = Address::from_v6_bytes(header.destination);
            if is_nobodys(prefilter, source, destination) {
                return Err(Exit::Stop(Stop::NotOurs));
            }
        }
        let packet = plain_v6(frame).ok_or(Exit::Go(Stage::Classify))?;
        forward(frame, &packet, tables, prefilter)
    } else if ether_type == ethernet::VLAN || ether_type == ethernet::SERVICE_VLAN {
        Err(Exit::Go(Stage::Classify))
    } else {
        Err(Exit::Stop(Stop::NotOurs))
    }
}

#[inline(always)]
fn forward<F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    tables: &T,
    prefilter: &Prefilter,
) -> Result<Verdict, Exit> {
    let (to, from) = (packet.destination, packet.source);
    let (to_port, from_port) = (packet.destination_port, packet.source_port);
    if prefilter.admits(Side::Listener, to, packet.protocol, to_port) {
        to_target(frame, packet, tables)
    } else if prefilter.admits(Side::Target, from, packet.protocol, from_port) {
        to_client::<false, F, T>(frame, packet, tables)
    } else {
        Err(Exit::Stop(Stop::NotOurs))
    }
}
