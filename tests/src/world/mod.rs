//! The world that packet tests play in: two sides of a gateway, VIPs of every kind, and their
//! targets.
//!
//! ```text
//!  client 198.51.100.7 ─┐ eth0            eth1 ┌─ targets 10.0.0.11 … (nat), .21 … (dsr-l2)
//!                       │                       ├─ .21 … again (dsr-ipip, dsr-gue, dsr-geneve)
//!  router 198.51.100.254┤ .1   gateway    10.0.0.1 router 10.0.0.254 ─ 10.9.0.5
//!    └─ 203.0.113.9     ┘                       └─ the same in fd00::/64
//! ```
//!
//! [`tables`] describes it to the memory body; [`crate::kernel`] builds the interfaces,
//! neighbours and routes of the same lists in a network namespace.

mod admission;
mod groups;
mod links;
mod listeners;

use std::net::IpAddr;

use nlb_common::{
    address::Address,
    flow::Client,
    hash::{Key, Secret as _},
    listener::{HashInput, ListenerFlags, ListenerId, ListenerKey, ListenerPolicy},
    maps::{Prefilter, Side},
    next_hop::{NextHop, NextHopId, VlanId},
    quic::ServerIdKey,
    ring::{SLOTS, Slot, slot},
    stop::Stop,
    target::{Mode, TargetControl, TargetId, TargetIdentity},
    tick::Tick,
    tunnel::Tunnel,
    wire::protocol::TCP,
};
use nlb_ebpf::{
    flows::Place,
    memory::MemoryTables,
    snat::allocate::{port, spread, turn},
    tables::Route,
};
use zerocopy::big_endian::U16;

use self::admission::ask_who_comes;
pub use self::{
    admission::{LIMITS, RULES, RuleRow, asks_who_comes, rules, set_windows, sweep},
    groups::{GROUPS, Group, NETWORK, SETTLING, TUNNELS},
    links::{FAR, Known, NEIGHBOURS, Neighbour, SMALL_HOP, VLANS},
    listeners::{FILLER, HASH_INPUTS, LISTENERS, QUIC, SERVERS},
};
use crate::packet::{Sentence, eth};

/// The interface towards the clients.
pub const ETH0: u32 = 10;
/// The interface towards the targets.
pub const ETH1: u32 = 12;
/// A VLAN interface on [`ETH0`].
pub const ETH0_VLAN: u32 = 20;
/// A VLAN interface on [`ETH1`].
pub const ETH1_VLAN: u32 = 21;
/// Our MAC address on [`ETH0`].
pub const MAC0: [u8; 6] = [2, 0, 0, 0, 0, 0x10];
/// Our MAC address on [`ETH1`].
pub const MAC1: [u8; 6] = [2, 0, 0, 0, 0, 0x12];
/// Buckets of the flow table.
pub const BUCKETS: usize = 16;
/// MTU of both links, in bytes.
pub const MTU_BYTES: u16 = 1500;

/// A client on the link.
pub const CLIENT: &str = "198.51.100.7";
/// A client on the link that the daemon has no next hop for.
pub const QUIET_CLIENT: &str = "198.51.100.8";
/// A client behind a router.
pub const FAR_CLIENT: &str = "203.0.113.9";
/// A client on the link whose MAC address nobody knows.
pub const UNKNOWN_CLIENT: &str = "198.51.100.77";
/// A client on the link.
pub const CLIENT_V6: &str = "2001:db8:c::7";
/// A client behind a router.
pub const FAR_CLIENT_V6: &str = "2001:db8:f::9";
/// A client in the VLAN 200.
pub const VLAN_CLIENT: &str = "198.18.0.7";
/// The VIP of the translated listeners.
pub const VIP: &str = "192.0.2.10";
/// The VIP of the translated listeners.
pub const VIP_V6: &str = "2001:db8::10";
/// The VIP of the dsr-l2 listeners.
pub const DSR_VIP: &str = "192.0.2.20";
/// The VIP of the dsr-l2 listeners.
pub const DSR_VIP_V6: &str = "2001:db8::20";

/// The VIP of the tunnels' listeners, whose ports say which; see [`TUNNELS`].
pub const TUNNEL_VIP: &str = "192.0.2.30";
/// The same for IPv6 packets, with targets of either version.
pub const TUNNEL_VIP_V6: &str = "2001:db8::30";
/// The VIP of the listeners whose targets see an address of the pool.
pub const FULL_VIP: &str = "192.0.2.60";
/// The VIP of the listeners whose targets see an address of the pool.
pub const FULL_VIP_V6: &str = "2001:db8::60";
/// The pool.
pub const POOL: &[&str] = &["192.0.2.50", "192.0.2.51", "2001:db8::50"];

/// The group whose ring names [`UNWRITTEN_TARGET`].
pub const UNWRITTEN_GROUP: u16 = 15;
/// A target id without a record.
pub const UNWRITTEN_TARGET: u32 = 60;
/// A listener id that the index names and that has no record.
pub const UNWRITTEN_LISTENER: ListenerId = ListenerId(40);

/// The sequence number of a [`Sentence`] that names none.
pub const SEQUENCE: u32 = 0x0102_0304;

/// The port of [`VIP`] whose listener has no record.
pub const UNWRITTEN_LISTENER_PORT: u16 = 91;

/// Silence that an established TCP flow survives.
pub const TCP_IDLE_TICKS: u16 = Tick::at_least_seconds(350);
/// Silence that an established UDP flow survives.
pub const UDP_IDLE_TICKS: u16 = Tick::at_least_seconds(120);

/// An address, from its text.
pub fn address(text: &str) -> Address {
    Address::from(text.parse::<IpAddr>().expect("an IP address"))
}

/// A ring on which these targets take turns.
pub fn ring(targets: &[u32]) -> Vec<u32> {
    let turn = if targets.is_empty() { &[0] } else { targets };
    let mut slots = turn.repeat(SLOTS.div_ceil(turn.len()));
    slots.truncate(SLOTS);
    slots
}

/// How far a slot of a [`settling_ring`] has settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The slot has always had the first target.
    Settled,
    /// It has got the second one, and its flows may be with the first.
    Open,
    /// It has the second one, and so have its flows, but those that are remembered otherwise.
    Closed,
}

impl Turn {
    /// Of a slot.
    pub const fn of(slot: usize) -> Self {
        match slot % 3 {
            0 => Self::Settled,
            1 => Self::Open,
            _ => Self::Closed,
        }
    }
}

/// The slots and bases of a ring of two targets whose slots take [`Turn`]s.
pub fn settling_ring(targets: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let (first, second) = (targets[0], targets[1]);
    (0..SLOTS)
        .map(|slot| match Turn::of(slot) {
            Turn::Settled => (first, first),
            Turn::Open => (second | Slot::CHANGED, first),
            Turn::Closed => (second | Slot::CHANGED, second),
        })
        .unzip()
}

/// The neighbour with this address.
pub fn neighbour_of(text: &str) -> &'static Neighbour {
    NEIGHBOURS
        .iter()
        .find(|neighbour| neighbour.address == text)
        .expect("a neighbour of the world")
}

/// The world as the memory body sees it.
pub fn tables() -> MemoryTables {
    tables_with(BUCKETS)
}

/// The same with a flow table of another size.
pub fn tables_with(buckets: usize) -> MemoryTables {
    let secret = [0xa5; 32];
    let mut tables = MemoryTables::new(Key::derive(&secret, 1), Key::derive(&secret, 2), buckets);
    for neighbour in NEIGHBOURS {
        let route = Route {
            next_hop: neighbour.next_hop(),
            neighbour: address(neighbour.address),
            interface: neighbour.interface,
        };
        let answer = if neighbour.known == Known::Nobody {
            Err(Stop::NeighbourUnknown)
        } else {
            Ok(route)
        };
        tables.routes.insert(route.neighbour, answer);
        if let Known::Both(id) = neighbour.known {
            tables.add_next_hop(
                NextHopId(id),
                route.interface,
                route.neighbour,
                &route.next_hop,
            );
        }
    }
    for (far, router) in FAR {
        let answer = tables.routes[&address(router)];
        tables.routes.insert(address(far), answer);
    }
    tables.next_hops[usize::from(SMALL_HOP.0.0)].write(&NextHop {
        mtu_bytes: SMALL_HOP.1,
        ..neighbour_of("10.0.0.41").next_hop()
    });
    for &(group, ..) in TUNNELS {
        tables.tunnels[usize::from(group)].write(&tunnel(group));
    }
    add_groups(&mut tables);
    tables.set_ring(UNWRITTEN_GROUP, &ring(&[UNWRITTEN_TARGET]));
    for &(id, vip, protocol, port, group) in LISTENERS {
        let key = ListenerKey::new(address(vip), protocol, U16::new(port));
        let idle_ticks = if protocol == TCP {
            TCP_IDLE_TICKS
        } else {
            UDP_IDLE_TICKS
        };
        let input = HASH_INPUTS.iter().find(|(other, _)| *other == id);
        let input = input.map_or(HashInput::FiveTuple, |(_, input)| *input);
        let quic = QUIC.iter().find(|(other, _)| *other == id);
        let policy = ListenerPolicy {
            group,
            idle_ticks,
            flags: ListenerFlags::default()
                .with_hash_input(input)
                .with_quic(quic.is_some())
                .with_pinning_on_change(SETTLING.contains(&group)),
            ..ListenerPolicy::default()
        };
        if let Some((_, layout)) = quic {
            tables.listeners[usize::from(id)].set_cid_layout(*layout);
        }
        tables.add_listener(ListenerId(id), key, policy);
        if policy.flags.pins_on_change() {
            let number = Prefilter::number(Side::Listener, key.address, protocol, key.port);
            tables.hints.insert(number, ListenerId(id));
        }
    }
    for &(group, number, target) in SERVERS {
        let key = ServerIdKey::new(group, number);
        tables.server_ids.insert(key, TargetId(target));
    }
    ask_who_comes(&mut tables);
    let orphan = ListenerKey::new(address(VIP), TCP, U16::new(UNWRITTEN_LISTENER_PORT));
    tables.listener_index.insert(orphan, UNWRITTEN_LISTENER);
    tables.admit(Side::Listener, orphan.address, orphan.protocol, orphan.port);
    let pool: Vec<Address> = POOL.iter().map(|text| address(text)).collect();
    tables.set_pool(&pool);
    tables.now.set(1000);
    tables
}

/// Adds the target groups, with their targets and rings.
fn add_groups(tables: &mut MemoryTables) {
    for group in GROUPS {
        for &(id, at, port, is_known) in group.targets {
            let known = NEIGHBOURS.iter().find(|neighbour| neighbour.address == at);
            let next_hop = match known.map(|neighbour| neighbour.known) {
                Some(Known::Both(id)) if is_known => NextHopId(id),
                _ => NextHopId::NONE,
            };
            let identity = TargetIdentity {
                address: address(at),
                port: U16::new(port),
                group: group.id,
                group_fingerprint: 0xfeed_0000 | u32::from(group.id),
            };
            let mode = group.mode;
            let control = TargetControl {
                mode,
                takes_new_flows: true,
                resets_flows: false,
                next_hop,
            };
            tables.add_target(TargetId(id), &identity, control, group.protocol);
        }
        let ids: Vec<u32> = group.targets.iter().map(|target| target.0).collect();
        if SETTLING.contains(&group.id) {
            let (slots, bases) = settling_ring(&ids);
            tables.set_ring(group.id, &slots);
            tables.ring_bases.insert(group.id, bases);
        } else {
            tables.set_ring(group.id, &ring(&ids));
        }
    }
}

/// The tunnel of a group that has one.
pub fn tunnel(group: u16) -> Tunnel {
    let &(_, v4, bits_v4, v6, bits_v6, has_entropy) = TUNNELS
        .iter()
        .find(|tunnel| tunnel.0 == group)
        .expect("a group with a tunnel");
    let mode = GROUPS.iter().find(|other| other.id == group);
    let is_gue = mode.is_some_and(|group| group.mode == Mode::DSR_GUE);
    let ones = |bits: u32| u64::MAX.checked_shr(64 - bits).unwrap_or(0).to_be_bytes();
    let [.., a, b, c, d] = ones(bits_v4);
    Tunnel {
        source_v4: address(v4),
        source_v6: address(v6),
        spread_v4: [a, b, c, d],
        spread_v6: ones(bits_v6),
        port: U16::new(if is_gue { 6080 } else { 6081 }),
        network: NETWORK,
        has_entropy,
    }
}

/// The pool's (address, port) that a client's flow tries at first, or after so many attempts.
pub fn source_of(
    tables: &MemoryTables,
    client: (&str, u16),
    protocol: u8,
    attempt: u64,
) -> (&'static str, u16) {
    let client = Client {
        address: address(client.0),
        port: U16::new(client.1),
        protocol,
    };
    let spread = spread(Place::of(tables, &client), attempt);
    let id = turn(&tables.pool, client.address.is_v4(), spread).expect("a pool");
    (POOL[usize::from(id.0) - 1], port(spread).get())
}

/// The id of the target that a flow takes when it begins, as the documentation has it: the keyed
/// hash of what the listener looks at, scaled to the ring. A TCP flow begins with a SYN whose
/// sequence number is [`SEQUENCE`].
pub fn chosen(
    tables: &MemoryTables,
    client: (&str, u16),
    vip: (&str, u16),
    protocol: u8,
) -> Option<u32> {
    chosen_by(tables, client, vip, protocol, SEQUENCE)
}

/// The same for another sequence number; 0 for a flow that does not begin with a SYN.
pub fn chosen_by(
    tables: &MemoryTables,
    client: (&str, u16),
    vip: (&str, u16),
    protocol: u8,
    sequence: u32,
) -> Option<u32> {
    let (group, slot) = place(tables, client, vip, protocol, sequence)?;
    Some(Slot(tables.rings.get(&group)?[slot]).target()?.0)
}

/// The ring and the slot that such a flow falls on.
fn place(
    tables: &MemoryTables,
    client: (&str, u16),
    vip: (&str, u16),
    protocol: u8,
    sequence: u32,
) -> Option<(u16, usize)> {
    let key = ListenerKey::new(address(vip.0), protocol, U16::new(vip.1));
    let listener = tables.listener_index.get(&key)?;
    let policy = tables.listeners[usize::from(listener.0)].policy();
    let (source, port) = (address(client.0), U16::new(client.1));
    let hash = match policy.flags.hash_input() {
        HashInput::FiveTuple => {
            (tables.select_key).select(source, port, key.address, key.port, protocol)
        }
        HashInput::FiveTupleAndSequence => {
            let sequence = if protocol == TCP { sequence } else { 0 };
            (tables.select_key).select_with_sequence(
                source,
                port,
                key.address,
                key.port,
                protocol,
                sequence,
            )
        }
        HashInput::Source => {
            let (zero, nowhere) = (U16::ZERO, Address::UNSPECIFIED);
            tables.select_key.select(source, zero, nowhere, zero, 0)
        }
    };
    Some((policy.group, slot(hash)))
}

/// The `nth` client port, from 40,000 on, whose flows fall on a slot of this [`Turn`].
pub fn port_on(
    tables: &MemoryTables,
    client: &str,
    vip: (&str, u16),
    protocol: u8,
    turn: Turn,
    nth: usize,
) -> u16 {
    (40_000..=u16::MAX)
        .filter(|port| {
            place(tables, (client, *port), vip, protocol, SEQUENCE)
                .is_some_and(|(_, slot)| Turn::of(slot) == turn)
        })
        .nth(nth)
        .expect("a third of the slots")
}

/// The `nth` client port, from 40,000 on, whose new flows go to this target.
pub fn port_to(
    tables: &MemoryTables,
    client: &str,
    vip: (&str, u16),
    protocol: u8,
    target: u32,
    nth: usize,
) -> u16 {
    (40_000..=u16::MAX)
        .filter(|port| chosen(tables, (client, *port), vip, protocol) == Some(target))
        .nth(nth)
        .expect("every target has its share of the ring")
}

/// A frame that came from the clients' side.
pub fn from_client() -> Sentence {
    eth().to(MAC0).from(neighbour_of(CLIENT).mac())
}

/// A frame that came from the targets' side, sent by this neighbour.
pub fn from_target(sender: &str) -> Sentence {
    eth().to(MAC1).from(neighbour_of(sender).mac())
}

/// A frame on its way to this neighbour.
pub fn on_to(receiver: &str) -> Sentence {
    let neighbour = neighbour_of(receiver);
    let hop = neighbour.next_hop();
    let sentence = eth().to(hop.macs.destination().0).from(hop.macs.source().0);
    if hop.vlan == VlanId::NONE {
        sentence
    } else {
        sentence.vlan(hop.vlan.0)
    }
}
