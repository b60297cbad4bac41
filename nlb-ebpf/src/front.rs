//! The front stage: plain packets of flows that need nothing but forwarding, and plain packets that
//! are not ours; which is nearly all of them.
//!
//! Plain means: no VLAN tag, no IPv4 options, no IPv6 extension headers, no fragment, TCP or UDP, and
//! nothing that contradicts itself. So every header stands at a place that the compiler knows, and
//! the texts of [`crate::to_target`] and [`crate::to_client`], which are the same for every stage,
//! become straight lines.

use nlb_common::{
    stop::Stop,
    wire::ethernet::{self, Ethernet},
};

use crate::{
    Exit, Stage, Verdict,
    classify::{may_be_an_answer, may_be_for_a_listener},
    frame::{Frame, Offset},
    parse::{Packet, plain_v4, plain_v6},
    tables::Tables,
    to_client::to_client,
    to_target::to_target,
};

/// Forwards or passes a plain packet; everything else goes on.
#[inline(always)]
pub fn front<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Exit> {
    let ethernet = frame.get::<Ethernet>(Offset(0)).ok_or(Stop::NotOurs)?;
    let ether_type = ethernet.ether_type;
    if ether_type == ethernet::IPV4 {
        let packet = plain_v4(frame).ok_or(Exit::Go(Stage::Classify))?;
        forward(frame, &packet, tables)
    } else if ether_type == ethernet::IPV6 {
        let packet = plain_v6(frame).ok_or(Exit::Go(Stage::Classify))?;
        forward(frame, &packet, tables)
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
) -> Result<Verdict, Exit> {
    if may_be_for_a_listener(packet, tables) {
        to_target(frame, packet, tables)
    } else if may_be_an_answer(packet, tables) {
        to_client::<false, F, T>(frame, packet, tables)
    } else {
        Err(Exit::Stop(Stop::NotOurs))
    }
}
