//! What was looked at, before anything is made of it.

use std::net::SocketAddr;

use serde::Serialize;

use crate::bond::Bond;

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// Whether a daemon answers.
    pub daemon_answers: bool,
    /// This host.
    pub host: Host,
    /// The interfaces of `node.interfaces`.
    pub interfaces: Vec<Interface>,
    /// The targets.
    pub targets: Vec<Target>,
}

/// The host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Host {
    /// The kernel's release, such as `6.1.0-18-amd64`.
    pub kernel: String,
    /// The processor's architecture.
    pub machine: String,
    /// Options of the kernel that nlb needs and this one lacks; none if it does not tell.
    pub missing_options: Vec<&'static str>,
    /// How many processors there are.
    pub processors: usize,
    /// `net.core.bpf_jit_enable`, where it can be read: not in a network namespace.
    pub jit: Option<u32>,
    /// Capabilities that nlb starts with and this process lacks.
    pub missing_capabilities: Vec<&'static str>,
    /// How much memory this process may lock, in bytes; nothing if as much as it likes.
    pub memlock_bytes: Option<u64>,
    /// Where the bpffs should be.
    pub bpffs: String,
    /// Whether it is.
    pub has_bpffs: bool,
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// What the kernel says; nothing if there is no such interface.
    pub link: Option<Link>,
}

/// What the kernel says of an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Whether it is up and has carrier.
    pub is_up: bool,
    /// Its MTU, in bytes.
    pub mtu_bytes: u32,
    /// The bond that it is a member of.
    pub member_of: Option<String>,
    /// What it is if it is a bond itself.
    pub bond: Option<Bond>,
    /// Its driver, where the kernel says.
    pub driver: Option<String>,
    /// The XDP program on it.
    pub xdp: Option<Xdp>,
    /// Whether it has VLAN interfaces.
    pub has_vlans: bool,
    /// Whether packets that come in by it, or by its members, are forwarded; nothing where the
    /// configuration needs none.
    pub forwards_v4: Option<bool>,
    /// The same for IPv6.
    pub forwards_v6: Option<bool>,
    /// Its reverse path filter: the stricter of its own and that of all.
    pub rp_filter: Option<u32>,
    /// What its card does.
    pub offloads: Offloads,
}

/// An XDP program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Xdp {
    /// `driver`, `generic` or `hardware`.
    pub mode: String,
    /// The kernel's number for it.
    pub id: Option<u32>,
    /// Its name, where the kernel says.
    pub name: Option<String>,
    /// The kernel's number of the link that holds it there, if one does.
    pub link_id: Option<u32>,
}

/// What a card does, as far as it says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Offloads {
    /// Merges packets that come in, in the kernel (`rx-gro`).
    pub gro: Option<bool>,
    /// Merges packets that come in, in the card (`rx-lro`).
    pub lro: Option<bool>,
    /// Splits TCP segments that go out (`tx-tcp-segmentation`).
    pub tso: Option<bool>,
    /// Checks sums of packets that come in (`rx-checksum`).
    pub rx_checksum: Option<bool>,
    /// Computes sums of packets that go out.
    pub tx_checksum: Option<bool>,
    /// Takes VLAN tags off (`rx-vlan-hw-parse`).
    pub rx_vlan: Option<bool>,
    /// Queues in use for packets that come in.
    pub queues: Option<u32>,
    /// How many there could be.
    pub most_queues: Option<u32>,
    /// Whether `queues` are pairs with those for packets that go out (`combined`).
    pub queues_are_combined: bool,
}

/// A target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Its group.
    pub group: String,
    /// How packets get there.
    pub mode: String,
    /// Its address.
    pub address: SocketAddr,
    /// Bytes that are put in front of packets.
    pub overhead_bytes: u32,
    /// The way there.
    pub way: Way,
}

/// The way to a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Way {
    /// Packets can go.
    Known {
        /// By this interface.
        interface: String,
        /// So large.
        mtu_bytes: u32,
    },
    /// The neighbour does not answer.
    NoNeighbour {
        /// On this interface.
        interface: String,
        /// The neighbour: the target itself, or a router.
        neighbour: std::net::IpAddr,
    },
    /// It leads by an interface that is down.
    Down {
        /// The interface.
        interface: String,
    },
    /// It leads through a router, and the mode takes none.
    Routed {
        /// The router.
        gateway: std::net::IpAddr,
    },
    /// There is none.
    None {
        /// Why.
        reason: String,
    },
}
