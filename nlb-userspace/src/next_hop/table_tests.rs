//! Claims about what the table takes for a change, with messages as the kernel writes them.

use netlink_packet_route::{
    address::AddressMessage, link::InfoKind, route::RouteMessage, rule::RuleMessage,
};

use super::*;

const UP: LinkFlags = LinkFlags::Up.union(LinkFlags::LowerUp);
const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn address() -> IpAddr {
    "192.0.2.1".parse().unwrap()
}

fn link(index: u32, name: &str, flags: LinkFlags) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = flags;
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Mtu(1500),
        LinkAttribute::Address(vec![2, 0, 0, 0, 1, 0]),
    ];
    message
}

fn neighbour(interface: u32, state: NeighbourState, mac: Option<[u8; 6]>) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = interface;
    message.header.state = state;
    message.attributes = vec![NeighbourAttribute::Destination(NeighbourAddress::Inet(
        "192.0.2.1".parse().unwrap(),
    ))];
    if let Some(mac) = mac {
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    }
    message
}

fn link_is(table: &mut Table, message: LinkMessage) -> Vec<Change> {
    table.apply(&RouteNetlinkMessage::NewLink(message))
}

fn neighbour_is(table: &mut Table, state: NeighbourState, mac: Option<[u8; 6]>) -> Vec<Change> {
    table.apply(&RouteNetlinkMessage::NewNeighbour(neighbour(2, state, mac)))
}

#[test]
fn a_resolved_neighbour_is_a_change_and_usable() {
    let mut table = Table::default();
    let changes = neighbour_is(&mut table, NeighbourState::Reachable, Some(ROUTER));
    assert_eq!(changes, [Change::Neighbour(2, address())]);
    assert_eq!(
        table.neighbour(2, address()).unwrap().usable_mac(),
        Some(ROUTER)
    );
    assert_eq!(table.neighbour(3, address()), None);
}

#[test]
fn states_that_keep_the_mac_usable_are_no_change() {
    use NeighbourState::{Delay, Noarp, Permanent, Probe, Reachable, Stale};
    let mut table = Table::default();
    drop(neighbour_is(&mut table, Reachable, Some(ROUTER)));
    for state in [Stale, Delay, Probe, Permanent, Noarp, Reachable] {
        assert_eq!(
            neighbour_is(&mut table, state, Some(ROUTER)),
            [],
            "{state:?}"
        );
        assert_eq!(
            table.neighbour(2, address()).unwrap().usable_mac(),
            Some(ROUTER),
            "{state:?}"
        );
    }
}

#[test]
fn a_changed_mac_is_a_change_and_the_new_one_is_known() {
    let mut table = Table::default();
    drop(neighbour_is(
        &mut table,
        NeighbourState::Reachable,
        Some(ROUTER),
    ));
    let changes = neighbour_is(&mut table, NeighbourState::Reachable, Some(OTHER));
    assert_eq!(changes, [Change::Neighbour(2, address())]);
    assert_eq!(
        table.neighbour(2, address()).unwrap().usable_mac(),
        Some(OTHER)
    );
}

#[test]
fn a_neighbour_that_fails_or_is_being_resolved_is_not_usable() {
    for state in [
        NeighbourState::Failed,
        NeighbourState::Incomplete,
        NeighbourState::None,
    ] {
        let mut table = Table::default();
        drop(neighbour_is(
            &mut table,
            NeighbourState::Probe,
            Some(ROUTER),
        ));
        let changes = neighbour_is(&mut table, state, Some(ROUTER));
        assert_eq!(changes, [Change::Neighbour(2, address())], "{state:?}");
        assert_eq!(
            table.neighbour(2, address()).unwrap().usable_mac(),
            None,
            "{state:?}"
        );
    }
}

#[test]
fn a_deleted_neighbour_is_a_change_once() {
    let mut table = Table::default();
    drop(neighbour_is(
        &mut table,
        NeighbourState::Stale,
        Some(ROUTER),
    ));
    let gone = RouteNetlinkMessage::DelNeighbour(neighbour(2, NeighbourState::Stale, Some(ROUTER)));
    assert_eq!(table.apply(&gone), [Change::Neighbour(2, address())]);
    assert_eq!(table.apply(&gone), []);
    assert_eq!(table.neighbours().count(), 0);
}

#[test]
fn bridge_entries_proxies_and_multicast_are_not_neighbours() {
    let state = NeighbourState::Permanent;
    let mut bridge = neighbour(2, state, Some(ROUTER));
    bridge.header.family = AddressFamily::Bridge;
    let mut proxy = neighbour(2, state, Some(ROUTER));
    proxy.header.flags = NeighbourFlags::Proxy;
    let mut multicast = neighbour(2, NeighbourState::Noarp, Some(ROUTER));
    multicast.attributes[0] =
        NeighbourAttribute::Destination(NeighbourAddress::Inet("224.0.0.22".parse().unwrap()));
    let mut table = Table::default();
    for message in [bridge, proxy, multicast] {
        assert_eq!(table.apply(&RouteNetlinkMessage::NewNeighbour(message)), []);
    }
    assert_eq!(table, Table::default());
}

#[test]
fn only_managed_permanent_and_noarp_neighbours_are_kept_by_the_kernel() {
    let kept = |state, flags: NeighbourExtFlags| {
        let mut table = Table::default();
        let mut message = neighbour(2, state, Some(ROUTER));
        message.attributes.push(NeighbourAttribute::ExtFlags(flags));
        drop(table.apply(&RouteNetlinkMessage::NewNeighbour(message)));
        let neighbour = table.neighbour(2, address()).unwrap();
        (neighbour.kept, neighbour.permanent)
    };
    assert_eq!(
        kept(NeighbourState::Stale, NeighbourExtFlags::empty()),
        (false, false)
    );
    assert_eq!(
        kept(NeighbourState::Stale, NeighbourExtFlags::Locked),
        (false, false)
    );
    assert_eq!(
        kept(NeighbourState::Stale, NeighbourExtFlags::Managed),
        (true, false)
    );
    assert_eq!(
        kept(NeighbourState::Noarp, NeighbourExtFlags::empty()),
        (true, false)
    );
    assert_eq!(
        kept(NeighbourState::Permanent, NeighbourExtFlags::empty()),
        (true, true)
    );
}

#[test]
fn a_new_link_is_known_by_index_and_name_and_repeating_it_is_no_change() {
    let mut table = Table::default();
    assert_eq!(link_is(&mut table, link(2, "eth0", UP)), [Change::Link(2)]);
    assert_eq!(link_is(&mut table, link(2, "eth0", UP)), []);
    let expected = Link {
        index: 2,
        name: "eth0".to_owned(),
        mac: [2, 0, 0, 0, 1, 0],
        mtu: 1500,
        vlan: None,
        enabled: true,
        up: true,
    };
    assert_eq!(table.link(2), Some(&expected));
    assert_eq!(table.link_named("eth0"), Some(&expected));
}

#[test]
fn a_link_without_carrier_or_set_down_is_not_up_and_its_routes_may_be_gone() {
    let mut table = Table::default();
    drop(link_is(&mut table, link(2, "eth0", UP)));
    let both = [Change::Link(2), Change::Routes];
    assert_eq!(link_is(&mut table, link(2, "eth0", LinkFlags::Up)), both);
    assert!(!table.link(2).unwrap().up && table.link(2).unwrap().enabled);
    assert_eq!(
        link_is(&mut table, link(2, "eth0", LinkFlags::empty())),
        both
    );
    assert!(!table.link(2).unwrap().up && !table.link(2).unwrap().enabled);
}

#[test]
fn a_renamed_link_is_found_by_its_new_name_only() {
    let mut table = Table::default();
    drop(link_is(&mut table, link(2, "eth0", UP)));
    assert_eq!(
        link_is(&mut table, link(2, "uplink", UP)),
        [Change::Link(2)]
    );
    assert_eq!(table.link_named("uplink").map(|link| link.index), Some(2));
    assert_eq!(table.link_named("eth0"), None);
}

#[test]
fn a_deleted_link_takes_its_neighbours_along() {
    let mut table = Table::default();
    drop(link_is(&mut table, link(2, "eth0", UP)));
    drop(link_is(&mut table, link(3, "eth1", UP)));
    for interface in [2, 3] {
        let message = neighbour(interface, NeighbourState::Reachable, Some(ROUTER));
        drop(table.apply(&RouteNetlinkMessage::NewNeighbour(message)));
    }
    let changes = table.apply(&RouteNetlinkMessage::DelLink(link(2, "eth0", UP)));
    assert_eq!(
        changes,
        [
            Change::Link(2),
            Change::Neighbour(2, address()),
            Change::Routes
        ]
    );
    assert_eq!(table.link(2), None);
    assert_eq!(table.neighbour(2, address()), None);
    assert!(table.neighbour(3, address()).is_some());
}

#[test]
fn a_port_that_leaves_its_bridge_is_still_a_link() {
    let mut table = Table::default();
    drop(link_is(&mut table, link(2, "eth0", UP)));
    let mut left = link(2, "eth0", UP);
    left.header.interface_family = AddressFamily::Bridge;
    assert_eq!(table.apply(&RouteNetlinkMessage::DelLink(left)), []);
    assert!(table.link(2).is_some());
}

#[test]
fn a_message_without_attributes_leaves_name_mac_and_mtu() {
    let mut table = Table::default();
    drop(link_is(&mut table, link(2, "wlan0", UP)));
    let mut event = link(2, "", UP);
    event.attributes.clear();
    assert_eq!(link_is(&mut table, event), []);
    assert_eq!(table.link(2).unwrap().name, "wlan0");
}

#[test]
fn routes_rules_and_addresses_may_move_routes() {
    let mut table = Table::default();
    for message in [
        RouteNetlinkMessage::NewRoute(RouteMessage::default()),
        RouteNetlinkMessage::DelRoute(RouteMessage::default()),
        RouteNetlinkMessage::NewRule(RuleMessage::default()),
        RouteNetlinkMessage::DelRule(RuleMessage::default()),
        RouteNetlinkMessage::NewAddress(AddressMessage::default()),
        RouteNetlinkMessage::DelAddress(AddressMessage::default()),
    ] {
        assert_eq!(table.apply(&message), [Change::Routes]);
    }
}

#[test]
fn after_a_loss_everything_old_and_new_counts_as_changed() {
    let mut table = Table::default();
    drop(link_is(&mut table, link(2, "eth0", UP)));
    drop(neighbour_is(
        &mut table,
        NeighbourState::Reachable,
        Some(ROUTER),
    ));
    let mut newer = Table::default();
    drop(link_is(&mut newer, link(3, "eth1", UP)));
    let changes = table.replace(newer.clone());
    let expected = [
        Change::Link(2),
        Change::Link(3),
        Change::Neighbour(2, address()),
        Change::Routes,
    ];
    assert_eq!(changes, expected);
    assert_eq!(table, newer);
}

#[test]
fn a_vlan_interface_names_its_carrier_unless_that_is_in_another_namespace() {
    let info = || {
        let data = InfoData::Vlan(vec![
            InfoVlan::Id(100),
            InfoVlan::Protocol(VlanProtocol::Ieee8021Q),
        ]);
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(data)])
    };
    let vlan = |carrier| {
        Some(Vlan {
            carrier,
            id: 100,
            is_customer: true,
        })
    };
    let mut table = Table::default();
    let mut message = link(7, "eth0.100", UP);
    message.attributes.extend([LinkAttribute::Link(2), info()]);
    link_is(&mut table, message.clone());
    assert_eq!(table.link(7).and_then(|link| link.vlan), vlan(2));
    message.attributes.push(LinkAttribute::LinkNetNsId(1));
    link_is(&mut table, message);
    assert_eq!(table.link(7).and_then(|link| link.vlan), vlan(0));
}
