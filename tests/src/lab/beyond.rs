//! Hosts behind hosts of the lab, which are routers for them, over a link that takes smaller packets
//! than all others. The hosts' own side of that link does not say so: who is on it announces a large
//! segment size, and only ICMP tells the other side that large packets do not arrive.

use anyhow::Result;

use super::{Lab, host::Host, topology};

pub(super) fn behind_client(lab: &Lab, mtu_bytes: u16) -> Result<Host> {
    let host = behind(lab, "beyond-client", (&lab.client, 3), mtu_bytes)?;
    lab.gateway.ip("route add 10.3.0.0/24 via 10.1.0.10\n\
         route add fd00:3::/64 via fd00:1::10\n")?;
    Ok(host)
}

pub(super) fn behind_target(lab: &Lab, mtu_bytes: u16) -> Result<Host> {
    let router = &lab.targets[0].host;
    let host = behind(lab, "beyond-target", (router, 4), mtu_bytes)?;
    lab.gateway.ip("route add 10.4.0.0/24 via 10.2.0.11\n\
         route add fd00:4::/64 via fd00:2::11\n")?;
    Ok(host)
}

/// A host behind a router, on the network of this number.
fn behind(lab: &Lab, role: &str, (router, number): (&Host, u8), mtu_bytes: u16) -> Result<Host> {
    let host = Host::new(role, &format!("{}-{role}", lab.name));
    topology::create(&host)?;
    topology::cable(
        (router, "beyond", 0x30 + number),
        (&host, "eth0", 0x40 + number),
    )?;
    router.sysctl(&["ipv4/ip_forward=1", "ipv6/conf/all/forwarding=1"])?;
    router.ip(&format!(
        "addr add 10.{number}.0.1/24 dev beyond\n\
         addr add fd00:{number}::1/64 dev beyond nodad\n\
         link set beyond mtu {mtu_bytes} up\n"
    ))?;
    host.ip(&format!(
        "addr add 10.{number}.0.10/24 dev eth0\n\
         addr add fd00:{number}::10/64 dev eth0 nodad\n\
         link set eth0 up\n\
         route add default via 10.{number}.0.1\n\
         route add default via fd00:{number}::1\n"
    ))?;
    // As everywhere in the lab: frames with unfinished checksums do not survive a native redirect.
    host.run("ethtool -K eth0 tx off")?;
    router.run("ethtool -K beyond tx off")?;
    Ok(host)
}
