//! Facts about the interfaces that nlb is, or would be, attached to.

use std::{fs, path::Path};

use super::{
    facts::{Interface, Link, Xdp},
    offloads,
};
use crate::{
    bond::{Bond, bond_of},
    config::{Desired, Mode},
    dataplane::present,
    next_hop::{self, Watch},
};

pub(super) async fn look(desired: &Desired, watch: &Watch) -> Vec<Interface> {
    let (needs_v4, needs_v6) = needs_forwarding(desired);
    let mut interfaces = Vec::new();
    for name in &desired.node.interfaces {
        let Some(found) = watch.link_named(name) else {
            let (name, link) = (name.clone(), None);
            interfaces.push(Interface { name, link });
            continue;
        };
        let links = watch.links();
        let on_it = |vlan: &next_hop::Vlan| vlan.carrier == found.index;
        let bond = Bond::named(name);
        // Of a packet that a bond takes in, the routes are asked as of its member's.
        let members = bond.iter().flat_map(|bond| &bond.members);
        let takers = || members.clone().chain([name]);
        let forwards = |v6| {
            takers()
                .map(|taker| next_hop::forwarding(taker, v6))
                .reduce(|all, one| Some(all? && one?))
                .flatten()
        };
        let link = Link {
            member_of: bond_of(name),
            is_up: found.up,
            mtu_bytes: found.mtu,
            driver: driver(name),
            xdp: xdp(watch, found.index).await,
            has_vlans: (links.iter().filter_map(|link| link.vlan.as_ref())).any(on_it),
            forwards_v4: needs_v4.then(|| forwards(false)).flatten(),
            forwards_v6: needs_v6.then(|| forwards(true)).flatten(),
            rp_filter: rp_filter(name),
            offloads: offloads::look(name).await,
            bond,
        };
        interfaces.push(Interface {
            name: name.clone(),
            link: Some(link),
        });
    }
    interfaces
}

/// Answers that come through us are routed by the kernel's tables.
fn needs_forwarding(desired: &Desired) -> (bool, bool) {
    let answers_come_back =
        (desired.target_groups.iter()).any(|group| matches!(group.mode, Mode::Nat | Mode::FullNat));
    let mut vips = (desired.load_balancers.iter()).flat_map(|balancer| &balancer.addresses);
    let has_v4 = vips.clone().any(std::net::IpAddr::is_ipv4);
    let has_v6 = vips.any(std::net::IpAddr::is_ipv6);
    (answers_come_back && has_v4, answers_come_back && has_v6)
}

async fn xdp(watch: &Watch, index: u32) -> Option<Xdp> {
    let attached = watch.attached_xdp(index).await?;
    let id = attached.program;
    Some(Xdp {
        mode: attached.mode.to_owned(),
        id,
        name: id.and_then(present::program_name),
        link_id: id.and_then(present::link_of_program),
    })
}

/// Where sysfs is that of our network namespace, its driver.
fn driver(interface: &str) -> Option<String> {
    let link = Path::new("/sys/class/net")
        .join(interface)
        .join("device/driver");
    let driver = fs::read_link(link).ok()?;
    Some(driver.file_name()?.to_string_lossy().into_owned())
}

/// The kernel takes the larger of an interface's own and that of all (`ip-sysctl`).
fn rp_filter(interface: &str) -> Option<u32> {
    let of = |name: &str| {
        let file = Path::new("/proc/sys/net/ipv4/conf")
            .join(name)
            .join("rp_filter");
        fs::read_to_string(file).ok()?.trim().parse::<u32>().ok()
    };
    of("all").max(of(interface))
}
