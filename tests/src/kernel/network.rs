//! The network namespace that the kernel program runs in: the world's interfaces, neighbours and
//! routes, so that the kernel answers as the memory body's routes do.

use std::{
    fmt::Write as _,
    fs::{self, File},
    os::fd::AsFd as _,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread::Builder,
};

use anyhow::{Context as _, Result, ensure};
use rustix::thread::{
    CpuSet, LinkNameSpaceType, move_into_link_name_space, sched_getcpu, sched_setaffinity,
};

use crate::world::{ETH0, ETH1, FAR, Known, MAC0, MAC1, NEIGHBOURS, VLANS, neighbour_of};

/// As much as a program's first thread has.
const STACK_BYTES: usize = 8 << 20;

/// Why the kernel's side cannot run here, if it cannot.
pub fn unavailable() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root".into());
    }
    None
}

fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()?;
    ensure!(
        output.status.success(),
        "`ip {arguments}`: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn sysctl(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{name}");
    fs::write(&path, value).with_context(|| format!("writing {value} to {path}"))
}

/// A network namespace, deleted on drop.
struct Lab(String);

impl Drop for Lab {
    fn drop(&mut self) {
        // Nothing can be done about a namespace that will not go.
        drop(ip(&format!("netns del {}", self.0)));
    }
}

/// An interface's name.
fn device(index: u32) -> &'static str {
    match index {
        ETH0 => "eth0",
        ETH1 => "eth1",
        index => VLANS
            .iter()
            .find(|vlan| vlan.1 == index)
            .map_or("", |vlan| vlan.0),
    }
}

/// Builds the world's interfaces, neighbours and routes in the thread's namespace.
fn build_links() -> Result<()> {
    ip("link set lo up")?;
    for (name, index, mac, addresses) in [
        ("eth0", ETH0, MAC0, ["198.51.100.1/24", "2001:db8:c::1/64"]),
        ("eth1", ETH1, MAC1, ["10.0.0.1/24", "fd00::1/64"]),
    ] {
        let mut text = String::new();
        for byte in mac {
            write!(text, "{}{byte:02x}", if text.is_empty() { "" } else { ":" })?;
        }
        ip(&format!(
            "link add {name} index {index} address {text} type veth peer name {name}-far index {}",
            index + 1
        ))?;
        // The far ends only keep the links up; they must not talk.
        sysctl(&format!("ipv6/conf/{name}-far/disable_ipv6"), "1")?;
        sysctl(&format!("ipv6/conf/{name}/accept_dad"), "0")?;
        ip(&format!("link set {name}-far up"))?;
        ip(&format!("link set {name} up"))?;
        for address in addresses {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            ip(&format!("addr add {address} dev {name} {nodad}"))?;
        }
    }
    // Stand-ins: not every kernel has VLAN interfaces, and the program knows one by what the
    // routes say and by `VLAN_LINKS` only.
    for (name, index, carrier, _, addresses) in VLANS {
        let last = if *carrier == ETH0 { MAC0 } else { MAC1 }[5];
        ip(&format!(
            "link add {name} index {index} address 02:00:00:00:00:{last:02x} \
             type veth peer name {name}-far index {}",
            index + 10
        ))?;
        ip(&format!("link set {name}-far up"))?;
        sysctl(&format!("ipv6/conf/{name}/accept_dad"), "0")?;
        ip(&format!("link set {name} up"))?;
        for address in addresses {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            ip(&format!("addr add {address} dev {name} {nodad}"))?;
        }
    }
    for neighbour in NEIGHBOURS {
        if neighbour.known == Known::Nobody {
            continue;
        }
        let [a, b, c, d, e, f] = neighbour.mac();
        let device = device(neighbour.interface);
        ip(&format!(
            "neigh replace {} lladdr {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x} \
             dev {device} nud permanent",
            neighbour.address
        ))?;
    }
    for (far, router) in FAR {
        let device = device(neighbour_of(router).interface);
        ip(&format!("route add {far} via {router} dev {device}"))?;
    }
    set_forwarding(true)
}

/// Switches IP forwarding on or off.
pub fn set_forwarding(is_on: bool) -> Result<()> {
    let value = if is_on { "1" } else { "0" };
    sysctl("ipv4/ip_forward", value)?;
    sysctl("ipv6/conf/all/forwarding", value)
}

/// Runs a claim in the world's network namespace, on a thread of its own, since a namespace is a
/// thread's.
pub fn in_lab<R: Send>(claim: impl FnOnce() -> R + Send) -> Result<R> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let lab = Lab(format!("nlb-packets-{}-{number}", std::process::id()));
    ip(&format!("netns add {}", lab.0))?;
    let inside = || -> Result<R> {
        let namespace = File::open(format!("/run/netns/{}", lab.0))?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        build_links()?;
        Ok(claim())
    };
    std::thread::scope(|scope| {
        // Rings go over the stack when they are read, a quarter of a megabyte at a time.
        let thread = Builder::new().stack_size(STACK_BYTES);
        match thread.spawn_scoped(scope, inside)?.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Keeps the thread on the processor that it is on.
pub fn stay_on_this_processor() -> Result<()> {
    let mut one = CpuSet::new();
    one.set(sched_getcpu());
    Ok(sched_setaffinity(None, &one)?)
}
