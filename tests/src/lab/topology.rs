//! The cables: namespaces, interfaces, addresses, routes and kernel parameters.

use std::{process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{Lab, addresses, bpf, host::Host, wait::wait_until};

/// Parameters of every host, before it has interfaces: no autoconfiguration, no waiting for
/// duplicate addresses, no reverse path filter (direct answers come in by another way than requests
/// go out).
const EVERYWHERE: [&str; 15] = [
    "ipv4/conf/all/rp_filter=0",
    "ipv4/conf/default/rp_filter=0",
    "ipv4/conf/all/arp_ignore=1",
    "ipv4/conf/all/arp_announce=2",
    "ipv4/conf/all/send_redirects=0",
    "ipv4/conf/default/send_redirects=0",
    "ipv4/conf/all/accept_redirects=0",
    "ipv4/conf/default/accept_redirects=0",
    "ipv6/conf/all/disable_ipv6=0",
    "ipv6/conf/default/disable_ipv6=0",
    "ipv6/conf/default/accept_ra=0",
    "ipv6/conf/default/accept_dad=0",
    "ipv6/conf/default/dad_transmits=0",
    "ipv6/conf/default/router_solicitations=0",
    "ipv4/tcp_congestion_control=reno",
];

/// Builds all of it, and waits until it carries packets.
pub(super) fn build(lab: &Lab) -> Result<()> {
    let targets: Vec<&Host> = lab.targets.iter().map(|target| &target.host).collect();
    let (client, gateway, switch) = (&lab.client, &lab.gateway, &lab.switch);
    for host in [client, gateway, switch].into_iter().chain(targets.clone()) {
        create(host)?;
    }

    cable((client, "eth0", 0x10), (gateway, "eth0", 0x01))?;
    cable((gateway, "eth1", 0x02), (switch, "gateway", 0xf1))?;
    cable((client, "eth1", 0x11), (switch, "client", 0xf2))?;
    for (number, host) in (1..).zip(&targets) {
        cable(
            (host, "eth0", 0x20 + number),
            (switch, host.name(), 0xe0 + number),
        )?;
    }

    let mut ports = String::from(
        "link add bridge type bridge forward_delay 0 stp_state 0 mcast_snooping 0\n\
         link set bridge up\n",
    );
    for port in ["gateway", "client"]
        .into_iter()
        .chain(targets.iter().map(|host| host.name()))
    {
        ports.extend([
            "link set ",
            port,
            " master bridge\nlink set ",
            port,
            " up\n",
        ]);
    }
    switch.ip(&ports)?;
    connect_gateway(gateway)?;
    connect_client(client)?;
    for (index, host) in targets.iter().enumerate() {
        connect_target(host, index)?;
    }

    // Frames with unfinished checksums do not survive a native redirect.
    for (host, interface) in [
        (client, "eth0"),
        (client, "eth1"),
        (gateway, "eth0"),
        (gateway, "eth1"),
    ]
    .into_iter()
    .chain(targets.iter().map(|host| (*host, "eth0")))
    {
        host.run(&format!("ethtool -K {interface} tx off"))?;
    }
    let bpffs = lab.bpffs();
    for (host, interface) in [(client, "eth0"), (client, "eth1"), (switch, "gateway")] {
        bpf::attach_pass(host, interface, &bpffs)?;
    }
    wait_until_it_carries(lab)
}

pub(super) fn create(host: &Host) -> Result<()> {
    let output = Command::new("ip")
        .args(["netns", "add", host.namespace()])
        .output()
        .context("running ip (Debian's package iproute2)")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "ip netns add {}: {stderr}",
        host.namespace()
    );
    host.sysctl(&EVERYWHERE)?;
    host.ip("link set lo up\n")
}

/// One veth pair. Both ends have as many queues: an end with fewer than its peer refuses XDP.
pub(super) fn cable(one: (&Host, &str, u8), other: (&Host, &str, u8)) -> Result<()> {
    let queues = "numtxqueues 2 numrxqueues 2";
    one.0.ip(&format!(
        "link add {} address 02:00:00:00:00:{:02x} {queues} type veth \
         peer name {} address 02:00:00:00:00:{:02x} netns {} {queues}\n",
        one.1,
        one.2,
        other.1,
        other.2,
        other.0.namespace()
    ))
}

fn connect_gateway(host: &Host) -> Result<()> {
    host.sysctl(&["ipv4/ip_forward=1", "ipv6/conf/all/forwarding=1"])?;
    host.ip("addr add 10.1.0.1/24 dev eth0\n\
         addr add fd00:1::1/64 dev eth0 nodad\n\
         addr add 10.2.0.1/24 dev eth1\n\
         addr add fd00:2::1/64 dev eth1 nodad\n\
         link set eth0 up\n\
         link set eth1 up\n")
}

/// The addresses on `eth1` bring no route: the client reaches the targets through the gateway, and
/// only answers from the VIPs come that way.
fn connect_client(host: &Host) -> Result<()> {
    host.ip("addr add 10.1.0.10/24 dev eth0\n\
         addr add fd00:1::10/64 dev eth0 nodad\n\
         addr add 10.2.0.100/24 dev eth1 noprefixroute\n\
         addr add fd00:2::100/64 dev eth1 nodad noprefixroute\n\
         link set eth0 up\n\
         link set eth1 up\n\
         route add 192.0.2.0/24 via 10.1.0.1\n\
         route add 10.2.0.0/24 via 10.1.0.1\n\
         route add 2001:db8::/64 via fd00:1::1\n\
         route add fd00:2::/64 via fd00:1::1\n")
}

/// The VIPs of `dsr-l2` are on the loopback interface, where nobody resolves them; what leaves from
/// them goes to the client directly.
fn connect_target(host: &Host, index: usize) -> Result<()> {
    let (v4, v6) = (addresses::target_v4(index), addresses::target_v6(index));
    let (vip_v4, vip_v6) = (addresses::DSR_VIP_V4, addresses::DSR_VIP_V6);
    host.ip(&format!(
        "addr add {v4}/24 dev eth0\n\
         addr add {v6}/64 dev eth0 nodad\n\
         addr add {vip_v4}/32 dev lo\n\
         addr add {vip_v6}/128 dev lo nodad\n\
         link set eth0 up\n\
         route add default via 10.2.0.1\n\
         route add default via fd00:2::1\n\
         route add default via 10.2.0.100 dev eth0 table 100\n\
         route add default via fd00:2::100 dev eth0 table 100\n\
         rule add from {vip_v4} lookup 100\n"
    ))?;
    // A batch has one IP version for rules.
    host.run(&format!("ip -6 rule add from {vip_v6} lookup 100"))?;
    Ok(())
}

/// The first packets wait for neighbours to be resolved; let that not be a test's.
fn wait_until_it_carries(lab: &Lab) -> Result<()> {
    for index in 0..addresses::TARGETS {
        for address in [
            addresses::target_v4(index).to_string(),
            addresses::target_v6(index).to_string(),
        ] {
            let ping = format!("ping -n -q -c 1 -W 1 {address}");
            wait_until(
                &format!("the client reaches {address} through the gateway"),
                Duration::from_secs(10),
                || {
                    lab.client
                        .output(&ping)
                        .is_ok_and(|output| output.status.success())
                },
            )?;
        }
    }
    Ok(())
}
