//! The interface that a frame left by: the kernel does not say it, the addresses that the frame begins with
//! do.

use std::collections::HashMap;

use nlb_common::next_hop::NextHopSlot;

/// The two MAC addresses of a frame.
type Macs = [u8; 12];

/// Interfaces by the MAC addresses of frames that are sent through them.
#[derive(Clone, Debug, Default)]
pub struct Exits(HashMap<Macs, u32>);

impl Exits {
    /// The index of the interface that a frame left by, if any next hop of the packet program has its MAC
    /// addresses.
    pub fn of(&mut self, frame: &[u8], next_hops: &[NextHopSlot]) -> Option<u32> {
        let macs = frame.first_chunk()?;
        if !self.0.contains_key(macs) {
            // One that is new since the last look, or there is none.
            self.look(next_hops);
        }
        self.0.get(macs).copied()
    }

    fn look(&mut self, next_hops: &[NextHopSlot]) {
        for (next_hop, _) in next_hops.iter().filter_map(NextHopSlot::read) {
            let mut macs = Macs::default();
            let [head, tail] = [&next_hop.macs.destination().0, &next_hop.macs.source().0];
            macs[..6].copy_from_slice(head);
            macs[6..].copy_from_slice(tail);
            self.0.insert(macs, next_hop.interface);
        }
    }
}

#[cfg(test)]
mod tests {
    use nlb_common::{
        next_hop::{MacPair, NextHop, VlanId},
        wire::ethernet::MacAddress,
    };

    use super::*;

    #[test]
    fn a_frame_left_by_the_interface_of_the_next_hop_that_it_names() {
        let slots = [NextHopSlot::default(), NextHopSlot::default()];
        let mut exits = Exits::default();
        let frame = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        assert_eq!(exits.of(&frame, &slots), None);
        slots[1].write(&NextHop {
            macs: MacPair::new(
                MacAddress([2, 0, 0, 0, 0, 1]),
                MacAddress([2, 0, 0, 0, 0, 2]),
            ),
            interface: 7,
            mtu_bytes: 1500,
            vlan: VlanId::NONE,
        });
        assert_eq!(exits.of(&frame, &slots), Some(7));
        assert_eq!(exits.of(&frame[..11], &slots), None);
    }
}
