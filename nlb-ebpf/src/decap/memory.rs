//! [`DecapTables`] over ordinary memory, for tests.
extern crate std;

use core::{cell::RefCell, net::IpAddr};
use std::{collections::HashSet, vec::Vec};

use nlb_common::{
    address::Address,
    decap::{DecapSettings, DecapStop, Decapsulated, Encapsulation},
};
use zerocopy::big_endian::U16;

use super::DecapTables;

/// All maps, in memory.
#[derive(Debug, Default)]
pub struct MemoryDecapTables {
    /// The loader's constants.
    pub settings: DecapSettings,
    /// The host's addresses.
    pub own: HashSet<Address>,
    /// The VIPs.
    pub vips: HashSet<Address>,
    /// Who may send through tunnels: addresses and prefix lengths.
    pub sources: Vec<(IpAddr, u8)>,
    /// What was counted per encapsulation.
    pub counters: RefCell<[Decapsulated; Encapsulation::ALL.len()]>,
    /// What was counted per stop.
    pub stops: RefCell<[u64; DecapStop::COUNT]>,
}

/// Whether an address lies in a prefix.
fn lies_in(address: IpAddr, (prefix, length): (IpAddr, u8)) -> bool {
    let (address, prefix, width) = match (address, prefix) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return false,
    };
    let ignored = u32::from(width - length.min(width));
    address.checked_shr(ignored) == prefix.checked_shr(ignored)
}

impl DecapTables for MemoryDecapTables {
    fn gue_port(&self) -> U16 {
        self.settings.gue_port
    }

    fn geneve_port(&self) -> U16 {
        self.settings.geneve_port
    }

    fn takes_ipip(&self) -> bool {
        self.settings.takes_ipip != 0
    }

    fn is_own(&self, address: &Address) -> bool {
        self.own.contains(address)
    }

    fn is_vip(&self, address: &Address) -> bool {
        self.vips.contains(address)
    }

    fn is_trusted(&self, source: &Address) -> bool {
        let source = IpAddr::from(*source);
        self.settings.restricts_sources == 0
            || self.sources.iter().any(|prefix| lies_in(source, *prefix))
    }

    fn count(&self, encapsulation: Encapsulation, bytes: u16) {
        self.counters.borrow_mut()[encapsulation as usize] += Decapsulated {
            packets: 1,
            bytes: bytes.into(),
        };
    }

    fn count_stop(&self, stop: DecapStop) {
        self.stops.borrow_mut()[stop as usize] += 1;
    }
}
