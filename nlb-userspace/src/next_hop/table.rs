//! The kernel's links and neighbours as a value: netlink messages in, changes out.
//!
//! No socket is touched here, so every rule about what counts as a change is tested with messages
//! made by hand. A change is reported only when something the data plane depends on differs: a
//! neighbour that goes from `REACHABLE` to `STALE` with the same MAC is not a change.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, VlanProtocol},
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
        NeighbourState,
    },
};

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Interface index, unique in the network namespace.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// MAC address; all zero for a link without one (loopback, tun).
    pub mac: [u8; 6],
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// What is behind it, if it is a VLAN interface.
    pub vlan: Option<Vlan>,
    /// Set up by the administrator (`IFF_UP`). The kernel removes the routes of a link that is not.
    pub enabled: bool,
    /// Enabled, and with a carrier (`IFF_LOWER_UP`): packets can leave.
    pub up: bool,
}

/// What is behind a VLAN interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vlan {
    /// Index of the interface that carries the VLAN's frames.
    pub carrier: u32,
    /// Which VLAN: 1 to 4094.
    pub id: u16,
    /// Whether its tags are those of IEEE 802.1Q, and not a provider's (802.1ad).
    pub is_customer: bool,
}

impl Link {
    /// Whether frames on this link carry MAC addresses that can be written.
    pub fn has_mac(&self) -> bool {
        self.mac != [0; 6]
    }
}

/// An IP address on a link, with the MAC address it was resolved to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Index of the interface it is on.
    pub interface: u32,
    /// Its IP address.
    pub address: IpAddr,
    /// Its MAC address, if the kernel knows one.
    pub mac: Option<[u8; 6]>,
    /// The kernel would send to `mac` now: `NUD_VALID` of `net/neighbour.h`, that is reachable,
    /// stale, delay, probe, permanent or noarp.
    pub usable: bool,
    /// Set by the administrator for good (`NUD_PERMANENT`); never to be touched.
    pub permanent: bool,
    /// The kernel resolves it again by itself, without traffic (`NTF_EXT_MANAGED`, or an entry that
    /// needs no resolution).
    pub kept: bool,
}

impl Neighbour {
    /// The MAC address to write into frames to this neighbour, if it may be used.
    pub fn usable_mac(&self) -> Option<[u8; 6]> {
        self.mac.filter(|_| self.usable)
    }
}

/// Something the data plane depends on is different from before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// The link with this index appeared, went, or has another name, MAC, MTU or state.
    Link(u32),
    /// The neighbour at (interface index, address) appeared, went, or has another MAC or usability.
    Neighbour(u32, IpAddr),
    /// Some route, rule or address changed, or a link's state, on which routes depend: routes may
    /// lead elsewhere now.
    Routes,
}

/// Links by index and neighbours by (interface index, address).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    links: BTreeMap<u32, Link>,
    neighbours: BTreeMap<(u32, IpAddr), Neighbour>,
}

impl Table {
    /// The link with this index.
    pub fn link(&self, index: u32) -> Option<&Link> {
        self.links.get(&index)
    }

    /// The link with this name.
    pub fn link_named(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// All links, by index.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// The neighbour with this address on this interface.
    pub fn neighbour(&self, interface: u32, address: IpAddr) -> Option<&Neighbour> {
        self.neighbours.get(&(interface, address))
    }

    /// All neighbours, by interface and address.
    pub fn neighbours(&self) -> impl Iterator<Item = &Neighbour> {
        self.neighbours.values()
    }

    /// Takes one message of the kernel in, and says what is different now.
    pub fn apply(&mut self, message: &RouteNetlinkMessage) -> Vec<Change> {
        match message {
            RouteNetlinkMessage::NewLink(message) => self.link_is(message),
            RouteNetlinkMessage::DelLink(message) => self.link_went(message),
            RouteNetlinkMessage::NewNeighbour(message) => self.neighbour_is(message),
            RouteNetlinkMessage::DelNeighbour(message) => self.neighbour_went(message),
            RouteNetlinkMessage::NewRoute(_)
            | RouteNetlinkMessage::DelRoute(_)
            | RouteNetlinkMessage::NewRule(_)
            | RouteNetlinkMessage::DelRule(_)
            | RouteNetlinkMessage::NewAddress(_)
            | RouteNetlinkMessage::DelAddress(_) => vec![Change::Routes],
            _ => Vec::new(),
        }
    }

    /// Puts `newer` in this table's place after notifications were lost, and reports all of both as
    /// changed: what happened in between is not known.
    pub fn replace(&mut self, newer: Self) -> Vec<Change> {
        let older = std::mem::replace(self, newer);
        let mut changes = BTreeSet::from([Change::Routes]);
        for table in [&older, self] {
            changes.extend(table.links.keys().map(|&index| Change::Link(index)));
            changes.extend(
                table
                    .neighbours
                    .keys()
                    .map(|&(interface, address)| Change::Neighbour(interface, address)),
            );
        }
        changes.into_iter().collect()
    }

    fn link_is(&mut self, message: &LinkMessage) -> Vec<Change> {
        // A bridge reports its ports with messages of its own family that describe membership.
        if message.header.interface_family != AddressFamily::Unspec {
            return Vec::new();
        }
        let index = message.header.index;
        let before = self.links.get(&index);
        // Some messages (wireless events) carry hardly any attribute: what they do not name stays.
        let mut link = before.cloned().unwrap_or_else(|| Link {
            index,
            name: String::new(),
            mac: [0; 6],
            mtu: 0,
            vlan: None,
            enabled: false,
            up: false,
        });
        link.enabled = message.header.flags.contains(LinkFlags::Up);
        link.up = link.enabled && message.header.flags.contains(LinkFlags::LowerUp);
        let mut carrier = None;
        let mut is_here = true;
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::Link(index) => carrier = Some(*index),
                // The carrier is in another network namespace, where its index is another's.
                LinkAttribute::LinkNetNsId(_) => is_here = false,
                LinkAttribute::LinkInfo(infos) => {
                    if let Some((id, is_customer)) = vlan(infos) {
                        link.vlan = Some(Vlan {
                            carrier: 0,
                            id,
                            is_customer,
                        });
                    }
                }
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Address(bytes) => link.mac = mac(bytes).unwrap_or_default(),
                _ => {}
            }
        }
        if let (Some(vlan), Some(carrier)) = (&mut link.vlan, carrier) {
            vlan.carrier = if is_here { carrier } else { 0 };
        }
        if link.name.is_empty() || before == Some(&link) {
            return Vec::new();
        }
        let mut changes = vec![Change::Link(index)];
        // IPv4 routes of a link that goes down disappear without a notification of their own.
        if before.is_some_and(|before| (before.enabled, before.up) != (link.enabled, link.up)) {
            changes.push(Change::Routes);
        }
        self.links.insert(index, link);
        changes
    }

    fn link_went(&mut self, message: &LinkMessage) -> Vec<Change> {
        let index = message.header.index;
        // RTM_DELLINK of the bridge family says that a port left its bridge; the link lives on.
        if message.header.interface_family != AddressFamily::Unspec
            || self.links.remove(&index).is_none()
        {
            return Vec::new();
        }
        let mut changes = vec![Change::Link(index)];
        self.neighbours.retain(|&(interface, address), _| {
            let stays = interface != index;
            if !stays {
                changes.push(Change::Neighbour(interface, address));
            }
            stays
        });
        changes.push(Change::Routes);
        changes
    }

    fn neighbour_is(&mut self, message: &NeighbourMessage) -> Vec<Change> {
        let Some(neighbour) = neighbour(message) else {
            return Vec::new();
        };
        let key = (neighbour.interface, neighbour.address);
        let now = (neighbour.mac, neighbour.usable);
        let before = self.neighbours.insert(key, neighbour);
        if before.is_some_and(|before| (before.mac, before.usable) == now) {
            return Vec::new();
        }
        vec![Change::Neighbour(key.0, key.1)]
    }

    fn neighbour_went(&mut self, message: &NeighbourMessage) -> Vec<Change> {
        let Some(Neighbour {
            interface, address, ..
        }) = neighbour(message)
        else {
            return Vec::new();
        };
        match self.neighbours.remove(&(interface, address)) {
            Some(_) => vec![Change::Neighbour(interface, address)],
            None => Vec::new(),
        }
    }
}

/// The neighbour a message describes; `None` for what is not a unicast IP neighbour: a bridge's
/// forwarding entries share the message type, proxies answer for others, and multicast addresses
/// map to fixed MACs.
pub(super) fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    if !matches!(
        message.header.family,
        AddressFamily::Inet | AddressFamily::Inet6
    ) || message.header.flags.contains(NeighbourFlags::Proxy)
    {
        return None;
    }
    let mut address = None;
    let mut link_layer = None;
    let mut managed = false;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => link_layer = mac(bytes),
            NeighbourAttribute::ExtFlags(flags) => {
                managed = flags.contains(NeighbourExtFlags::Managed);
            }
            _ => {}
        }
    }
    let address = address.filter(|address| !address.is_multicast())?;
    let state = message.header.state;
    let permanent = state == NeighbourState::Permanent;
    Some(Neighbour {
        interface: message.header.ifindex,
        address,
        mac: link_layer,
        usable: matches!(
            state,
            NeighbourState::Reachable
                | NeighbourState::Stale
                | NeighbourState::Delay
                | NeighbourState::Probe
                | NeighbourState::Permanent
                | NeighbourState::Noarp
        ),
        permanent,
        kept: managed || permanent || state == NeighbourState::Noarp,
    })
}

/// The id of a VLAN interface, and whether its tags are IEEE 802.1Q's.
fn vlan(infos: &[LinkInfo]) -> Option<(u16, bool)> {
    let data = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vlan(data)) => Some(data),
        _ => None,
    })?;
    let id = data.iter().find_map(|info| match info {
        InfoVlan::Id(id) => Some(*id),
        _ => None,
    })?;
    let is_customer = data.iter().all(|info| match info {
        InfoVlan::Protocol(protocol) => *protocol == VlanProtocol::Ieee8021Q,
        _ => true,
    });
    Some((id, is_customer))
}

fn mac(bytes: &[u8]) -> Option<[u8; 6]> {
    bytes.try_into().ok()
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
