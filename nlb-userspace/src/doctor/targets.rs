//! Facts about the ways to targets.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::facts::{Target, Way};
use crate::{
    config::{Desired, Mode},
    next_hop::{NextHopError, Watch},
};

/// How long a neighbour has to answer: the kernel asks three times, a second apart.
const PATIENCE: Duration = Duration::from_secs(4);
/// Between looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// `discard` (RFC 863): what is sent there does nothing.
const DISCARD: u16 = 9;

pub(super) async fn look(desired: &Desired, watch: &Watch) -> Vec<Target> {
    let mut targets = Vec::new();
    for group in &desired.target_groups {
        for target in &group.targets {
            let address = target.address;
            targets.push(Target {
                group: group.name.clone(),
                mode: group.mode.to_string(),
                address: SocketAddr::new(address, target.port),
                overhead_bytes: u32::from(
                    group.mode.on_the_wire().overhead_bytes(address.is_ipv4()),
                ),
                way: way(watch, address, group.mode == Mode::DsrL2).await,
            });
        }
    }
    // All of them are asked for at once, and waited for together.
    let unknown = |target: &Target| matches!(target.way, Way::NoNeighbour { .. });
    for target in targets.iter().filter(|target| unknown(target)) {
        ask_for(target.address.ip());
    }
    let until = Instant::now() + PATIENCE;
    while targets.iter().any(unknown) && Instant::now() < until {
        sleep(LOOK_EVERY).await;
        for target in targets.iter_mut().filter(|target| unknown(target)) {
            target.way = way(watch, target.address.ip(), false).await;
        }
    }
    targets
}

/// The way, as it is known now.
async fn way(watch: &Watch, address: IpAddr, on_link_only: bool) -> Way {
    let none = |reason: String| Way::None { reason };
    let route = match watch.route_to(address).await {
        Ok(route) => route,
        Err(NextHopError::Unroutable(why)) => return none(why.to_string()),
        Err(error) => return none(error.to_string()),
    };
    if let (Some(gateway), true) = (route.gateway, on_link_only) {
        return Way::Routed { gateway };
    }
    let Some(link) = watch.link(route.interface) else {
        return none("the route leads by an interface that is gone".to_owned());
    };
    let interface = link.name.clone();
    if !link.up {
        return Way::Down { interface };
    }
    if !link.has_mac() {
        return none(format!(
            "{interface} has no MAC addresses; nlb needs an Ethernet link"
        ));
    }
    let neighbour = route.gateway.unwrap_or(address);
    let known = watch.neighbour(route.interface, neighbour);
    match known.and_then(|known| known.usable_mac()) {
        Some(_) => Way::Known {
            interface,
            mtu_bytes: route.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu)),
        },
        None => Way::NoNeighbour {
            interface,
            neighbour,
        },
    }
}

/// Has the kernel ask for the neighbour, as any packet there does. That it cannot be sent shows in the
/// neighbour, which stays unknown.
fn ask_for(address: IpAddr) {
    let any: SocketAddr = match address {
        IpAddr::V4(_) => ([0; 4], 0).into(),
        IpAddr::V6(_) => ([0; 16], 0).into(),
    };
    let _shows = UdpSocket::bind(any).and_then(|socket| socket.send_to(&[], (address, DISCARD)));
}
