//! Who stands on the gateway: the kernel's routing, its translation, two proxies of Debian, and nlb.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Stdio},
};

use anyhow::{Context as _, Result};

use crate::lab::{
    Lab,
    addresses::{
        DSR_VIP_V4, HTTP_PORT, NAT_HTTP_PORT, NAT_UDP_PORT, NAT_VIP_V4, TARGETS, UDP_PORT,
        target_v4,
    },
    daemon::Daemon,
};

const EXAMPLE: &str = include_str!("../../../../docs/examples/demo.toml");
/// The VIP of those that are not nlb.
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 30);

/// Who forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rival {
    /// Clients know the servers' addresses; nobody balances.
    Routing,
    /// nftables: destinations are translated, servers take turns.
    Nftables,
    /// HAProxy in TCP mode.
    HaProxy,
    /// nginx's stream module.
    NginxStream,
    /// nlb, translating.
    NlbNat,
    /// nlb, with answers that do not come back through the gateway.
    NlbDsr,
}

impl Rival {
    /// All, the measure of the others first.
    pub const ALL: [Self; 6] = [
        Self::Routing,
        Self::Nftables,
        Self::HaProxy,
        Self::NginxStream,
        Self::NlbNat,
        Self::NlbDsr,
    ];

    /// What the report calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Routing => "plain routing",
            Self::Nftables => "nftables DNAT",
            Self::HaProxy => "HAProxy, TCP mode",
            Self::NginxStream => "nginx stream",
            Self::NlbNat => "nlb nat",
            Self::NlbDsr => "nlb dsr-l2",
        }
    }

    /// Sets it up on the lab's gateway.
    pub fn start(self, lab: &Lab) -> Result<Running> {
        let vip = |address| vec![SocketAddr::from((address, HTTP_PORT))];
        let udp = |address| Some(SocketAddr::from((address, UDP_PORT)));
        let (addresses, udp, with) = match self {
            Self::Routing => {
                let servers = (0..TARGETS).map(|index| (target_v4(index), NAT_HTTP_PORT).into());
                let udp = (target_v4(0), NAT_UDP_PORT).into();
                (servers.collect(), Some(udp), With::Nothing)
            }
            Self::Nftables => {
                let file = written(lab, "nft.conf", &nftables())?;
                lab.gateway().run(&format!("nft -f {file}"))?;
                (vip(VIP), udp(VIP), With::Rules)
            }
            Self::HaProxy => {
                let file = written(lab, "haproxy.cfg", &haproxy())?;
                let proxy = proxy(lab, &["haproxy", "-db", "-f", &file])?;
                (vip(VIP), None, proxy)
            }
            Self::NginxStream => {
                let file = written(lab, "stream.conf", &nginx_stream(lab))?;
                let proxy = proxy(lab, &["nginx", "-e", "/dev/null", "-c", &file])?;
                (vip(VIP), None, proxy)
            }
            Self::NlbNat | Self::NlbDsr => {
                let address = if self == Self::NlbNat {
                    NAT_VIP_V4
                } else {
                    DSR_VIP_V4
                };
                lab.write_config(EXAMPLE)?;
                let daemon = With::Daemon(lab.start_nlb()?);
                (vip(address), udp(address), daemon)
            }
        };
        Ok(Running {
            addresses,
            udp,
            with,
        })
    }
}

/// What must be ended.
enum With {
    Nothing,
    Rules,
    Proxy(Child),
    Daemon(Daemon),
}

/// Somebody who forwards.
pub struct Running {
    addresses: Vec<SocketAddr>,
    udp: Option<SocketAddr>,
    with: With,
}

impl Running {
    /// Where clients connect to.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where datagrams go that leave behind the gateway frame by frame.
    pub const fn udp(&self) -> Option<SocketAddr> {
        self.udp
    }

    /// Takes it away again.
    pub fn stop(self, lab: &Lab) -> Result<()> {
        match self.with {
            With::Nothing => {}
            With::Rules => drop(lab.gateway().run("nft delete table ip rival")?),
            With::Proxy(mut child) => {
                child.kill()?;
                child.wait()?;
                lab.gateway().ip(&format!("addr del {VIP}/32 dev lo\n"))?;
            }
            With::Daemon(mut daemon) => {
                daemon.terminate()?;
                daemon.detach(lab)?;
            }
        }
        Ok(())
    }
}

/// Writes a file of the lab; its path.
fn written(lab: &Lab, name: &str, text: &str) -> Result<String> {
    let file = lab.directory().join(name);
    fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    Ok(file.to_string_lossy().into_owned())
}

/// Starts a proxy, which ends with the process that we have started: no masters and workers.
fn proxy(lab: &Lab, words: &[&str]) -> Result<With> {
    lab.gateway().ip(&format!("addr add {VIP}/32 dev lo\n"))?;
    let log = fs::File::create(lab.directory().join("proxy.log"))?;
    let child = lab
        .gateway()
        .command(words[0])
        .args(&words[1..])
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .with_context(|| format!("starting {} (a package of Debian)", words[0]))?;
    Ok(With::Proxy(child))
}

/// Something of each server, one after another.
fn servers(of: impl Fn(usize, Ipv4Addr) -> String) -> String {
    (0..TARGETS)
        .map(|index| of(index, target_v4(index)))
        .collect()
}

fn nftables() -> String {
    let map = |port| servers(|index, address| format!("{index} : {address} . {port}, "));
    format!(
        "table ip rival {{\n  chain in {{\n    type nat hook prerouting priority dstnat;\n    \
         ip daddr {VIP} tcp dport {HTTP_PORT} dnat ip to numgen inc mod {TARGETS} map {{ {}}}\n    \
         ip daddr {VIP} udp dport {UDP_PORT} dnat ip to numgen inc mod {TARGETS} map {{ {}}}\n  \
         }}\n}}\n",
        map(NAT_HTTP_PORT),
        map(NAT_UDP_PORT)
    )
}

fn haproxy() -> String {
    let servers =
        servers(|index, address| format!("  server target{index} {address}:{NAT_HTTP_PORT}\n"));
    format!(
        "global\n  maxconn 4096\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1m\n  \
         timeout server 1m\nfrontend in\n  bind {VIP}:{HTTP_PORT}\n  default_backend servers\n\
         backend servers\n  balance roundrobin\n{servers}"
    )
}

fn nginx_stream(lab: &Lab) -> String {
    let servers = servers(|_, address| format!("server {address}:{NAT_HTTP_PORT}; "));
    let directory = lab.directory().display();
    format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n\
         daemon off;\nmaster_process off;\nuser root;\npid {directory}/stream.pid;\n\
         events {{ worker_connections 8192; }}\n\
         stream {{ upstream servers {{ {servers}}}\n\
         server {{ listen {VIP}:{HTTP_PORT} reuseport; proxy_pass servers; }} }}\n"
    )
}
