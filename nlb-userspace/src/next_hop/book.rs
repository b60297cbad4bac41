//! Which next hop has which id, and what must change in the maps when the network does.
//!
//! Pure. An id stands for a neighbour (interface and address) as long as there is room; its record
//! is invalid while the neighbour's MAC address is not known. Ids of neighbours that are gone are
//! given away only when all others are taken: flows that remember one notice by its epoch.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use nlb_common::{
    address::Address,
    next_hop::{MacPair, NeighbourKey, NextHop, NextHopId, VlanId, VlanLink},
    wire::ethernet::MacAddress,
};

use super::{Link, Neighbour};
use crate::dataplane::{Step, kernel::Found};

/// The next hops in the maps.
#[derive(Clone, Debug, Default)]
pub struct Book {
    entries: HashMap<NeighbourKey, (NextHopId, Option<NextHop>)>,
    vlan_links: BTreeMap<u32, VlanLink>,
}

/// What is behind a link, if it is a VLAN interface: carrier 0 if packets cannot be sent that way,
/// because it is a VLAN in a VLAN, or a provider's.
fn vlan_link(link: &Link, links: &HashMap<u32, &Link>) -> Option<VlanLink> {
    let vlan = link.vlan?;
    let is_plain = vlan.is_customer
        && links
            .get(&vlan.carrier)
            .is_some_and(|carrier| carrier.vlan.is_none());
    Some(VlanLink {
        carrier: if is_plain { vlan.carrier } else { 0 },
        vlan: VlanId(vlan.id),
    })
}

/// Ids that there are.
const IDS: std::ops::RangeInclusive<u16> = 1..=u16::MAX;

impl Book {
    /// What another daemon left.
    pub fn adopt(found: &Found) -> Self {
        Self {
            vlan_links: found.vlan_links.iter().copied().collect(),
            entries: found
                .next_hops
                .iter()
                .filter(|(_, id, _)| *id != NextHopId::NONE)
                .map(|(key, id, next_hop)| (*key, (*id, *next_hop)))
                .collect(),
        }
    }

    /// The id of a neighbour, and where it leads if its MAC address is known.
    pub fn get(&self, interface: u32, address: IpAddr) -> Option<(NextHopId, Option<NextHop>)> {
        self.entries
            .get(&NeighbourKey::new(interface, Address::from(address)))
            .copied()
    }

    /// Gives a neighbour an id, before its MAC address is known; nothing if all ids are taken.
    pub fn ensure(&mut self, interface: u32, address: IpAddr) -> Vec<Step> {
        let key = NeighbourKey::new(interface, Address::from(address));
        let mut steps = Vec::new();
        if !self.entries.contains_key(&key)
            && let Some(id) = self.free_id(&mut steps)
        {
            self.entries.insert(key, (id, None));
            steps.push(Step::InvalidateNextHop { id });
            steps.push(Step::IndexNextHop { neighbour: key, id });
        }
        steps
    }

    /// Follows the network. `routes_changed` makes flows ask the kernel's routes once more.
    pub fn follow(
        &mut self,
        links: &[Link],
        neighbours: &[Neighbour],
        routes_changed: bool,
    ) -> Vec<Step> {
        let links: HashMap<u32, &Link> = links.iter().map(|link| (link.index, link)).collect();
        let mut steps = self.follow_vlans(&links);
        // Ordered, so that the same network gives the same steps.
        let mut wanted = BTreeMap::new();
        for neighbour in neighbours {
            if let Some(link) = links.get(&neighbour.interface)
                && link.up
                && link.has_mac()
                && let Some(mac) = neighbour.usable_mac()
            {
                let VlanLink { carrier, vlan } = vlan_link(link, &links).unwrap_or(VlanLink {
                    carrier: link.index,
                    vlan: VlanId::NONE,
                });
                if carrier == 0 {
                    continue;
                }
                let next_hop = NextHop {
                    macs: MacPair::new(MacAddress(mac), MacAddress(link.mac)),
                    interface: carrier,
                    vlan,
                    mtu_bytes: u16::try_from(link.mtu).unwrap_or(u16::MAX),
                };
                wanted.insert((neighbour.interface, neighbour.address), next_hop);
            }
        }
        let mut lost: Vec<_> = self
            .entries
            .iter_mut()
            .filter(|(key, (_, next_hop))| {
                next_hop.is_some()
                    && !wanted.contains_key(&(key.interface, IpAddr::from(key.address)))
            })
            .map(|(_, (id, next_hop))| {
                *next_hop = None;
                *id
            })
            .collect();
        lost.sort_unstable();
        steps.extend(lost.into_iter().map(|id| Step::InvalidateNextHop { id }));
        for ((interface, address), next_hop) in wanted {
            let key = NeighbourKey::new(interface, Address::from(address));
            if let Some((id, known)) = self.entries.get_mut(&key) {
                if *known != Some(next_hop) {
                    *known = Some(next_hop);
                    steps.push(Step::WriteNextHop { id: *id, next_hop });
                } else if routes_changed {
                    steps.push(Step::RenewNextHop { id: *id });
                }
            } else if let Some(id) = self.free_id(&mut steps) {
                self.entries.insert(key, (id, Some(next_hop)));
                steps.push(Step::WriteNextHop { id, next_hop });
                steps.push(Step::IndexNextHop { neighbour: key, id });
            }
        }
        steps
    }

    /// Follows the VLAN interfaces.
    fn follow_vlans(&mut self, links: &HashMap<u32, &Link>) -> Vec<Step> {
        let wanted: BTreeMap<u32, VlanLink> = links
            .values()
            .filter_map(|link| Some((link.index, vlan_link(link, links)?)))
            .collect();
        let gone = self
            .vlan_links
            .keys()
            .filter(|interface| !wanted.contains_key(interface))
            .map(|interface| Step::RemoveVlanLink {
                interface: *interface,
            });
        let new = wanted
            .iter()
            .filter(|(interface, link)| self.vlan_links.get(interface) != Some(link))
            .map(|(interface, link)| Step::WriteVlanLink {
                interface: *interface,
                link: *link,
            });
        let steps = gone.chain(new).collect();
        self.vlan_links = wanted;
        steps
    }

    /// An id that nobody has, or one of a neighbour that is gone, which is then forgotten.
    fn free_id(&mut self, steps: &mut Vec<Step>) -> Option<NextHopId> {
        if self.entries.len() < usize::from(*IDS.end()) {
            let used: std::collections::HashSet<NextHopId> =
                self.entries.values().map(|(id, _)| *id).collect();
            return IDS.map(NextHopId).find(|id| !used.contains(id));
        }
        let (key, id) = self
            .entries
            .iter()
            .filter(|(_, (_, next_hop))| next_hop.is_none())
            .map(|(key, (id, _))| (*key, *id))
            .min_by_key(|(_, id)| *id)?;
        self.entries.remove(&key);
        steps.push(Step::UnindexNextHop { neighbour: key });
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Vlan, *};

    fn link(mac: u8) -> Link {
        Link {
            index: 3,
            name: "eth1".into(),
            mac: [2, 0, 0, 0, 0, mac],
            mtu: 1500,
            vlan: None,
            enabled: true,
            up: true,
        }
    }

    fn neighbour(mac: Option<u8>) -> Neighbour {
        Neighbour {
            interface: 3,
            address: IpAddr::from([10, 0, 0, 1]),
            mac: mac.map(|last| [2, 0, 0, 0, 1, last]),
            usable: mac.is_some(),
            permanent: false,
            kept: false,
        }
    }

    #[test]
    fn a_neighbour_is_written_before_it_is_indexed() {
        let steps = Book::default().follow(&[link(1)], &[neighbour(Some(1))], false);
        assert!(matches!(
            steps.as_slice(),
            [Step::WriteNextHop { .. }, Step::IndexNextHop { .. }]
        ));
    }

    #[test]
    fn a_neighbour_in_a_vlan_is_reached_through_what_carries_it() {
        let tagged = Link {
            index: 9,
            name: "eth1.100".into(),
            vlan: Some(Vlan {
                carrier: 3,
                id: 100,
                is_customer: true,
            }),
            ..link(9)
        };
        let inside = Link {
            index: 10,
            vlan: Some(Vlan {
                carrier: 9,
                id: 7,
                is_customer: true,
            }),
            ..tagged.clone()
        };
        let on = |interface| Neighbour {
            interface,
            ..neighbour(Some(1))
        };
        let mut book = Book::default();
        let links = [link(1), tagged, inside];
        let steps = book.follow(&links, &[on(9), on(10)], false);
        let link = |carrier, id| VlanLink {
            carrier,
            vlan: VlanId(id),
        };
        assert_eq!(
            steps[..2],
            [
                Step::WriteVlanLink {
                    interface: 9,
                    link: link(3, 100),
                },
                Step::WriteVlanLink {
                    interface: 10,
                    link: link(0, 7),
                },
            ]
        );
        assert!(matches!(
            &steps[2..],
            [
                Step::WriteNextHop {
                    next_hop: NextHop {
                        interface: 3,
                        vlan: VlanId(100),
                        ..
                    },
                    ..
                },
                Step::IndexNextHop {
                    neighbour: NeighbourKey { interface: 9, .. },
                    ..
                },
            ]
        ));
        let steps = book.follow(&links[..1], &[], false);
        assert!(
            steps.contains(&Step::RemoveVlanLink { interface: 9 }),
            "{steps:?}"
        );
    }

    #[test]
    fn only_what_changed_is_written() {
        let mut book = Book::default();
        book.follow(&[link(1)], &[neighbour(Some(1))], false);
        assert_eq!(
            book.follow(&[link(1)], &[neighbour(Some(1))], false),
            vec![]
        );
        let id = NextHopId(1);
        let steps = book.follow(&[link(1)], &[neighbour(Some(2))], true);
        assert!(
            matches!(steps.as_slice(), [Step::WriteNextHop { id: written, .. }] if *written == id)
        );
        assert_eq!(
            book.follow(&[link(1)], &[neighbour(Some(2))], true),
            vec![Step::RenewNextHop { id }]
        );
        assert_eq!(
            book.follow(&[link(1)], &[neighbour(None)], true),
            vec![Step::InvalidateNextHop { id }]
        );
        assert_eq!(book.follow(&[link(1)], &[neighbour(None)], true), vec![]);
    }

    #[test]
    fn an_id_given_before_the_mac_is_known_is_the_one_that_is_filled_later() {
        let mut book = Book::default();
        book.ensure(3, IpAddr::from([10, 0, 0, 1]));
        let (id, next_hop) = book.get(3, IpAddr::from([10, 0, 0, 1])).unwrap();
        assert_eq!(next_hop, None);
        let steps = book.follow(&[link(1)], &[neighbour(Some(1))], false);
        assert!(
            matches!(steps.as_slice(), [Step::WriteNextHop { id: written, .. }] if *written == id)
        );
    }
}
