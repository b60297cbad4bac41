//! What `nlb status` shows: the shape of the answer, and its text for people.

mod text;

use std::net::IpAddr;

use nlb_common::counter::Traffic;
use serde::{Deserialize, Serialize};

use crate::early::Counts;

/// The whole answer of `GET /v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// The generation of the configuration that is live on the wire.
    pub generation: u64,
    /// When the daemon started, in seconds since 1970.
    pub started_at_unix_seconds: u64,
    /// How long it has been running.
    pub uptime_seconds: f64,
    /// The configuration file.
    pub config: String,
    /// Whether the daemon found the data plane running when it started.
    pub adopted: bool,
    /// Where the program is attached.
    pub interfaces: Vec<Interface>,
    /// The flow table.
    pub flows: Flows,
    /// The load balancers.
    pub load_balancers: Vec<LoadBalancer>,
    /// The target groups.
    pub target_groups: Vec<TargetGroup>,
    /// What became of fragments that came before their datagram's first one.
    pub early_fragments: Counts,
    /// Every reason for which packets are stopped.
    pub stops: Vec<StopCount>,
    /// What is legal but seldom meant, or limits what works.
    pub warnings: Vec<String>,
}

/// An interface that the program is attached to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// `driver`, `generic`, or `unknown`.
    pub xdp_mode: String,
    /// Whether the kernel forwards IPv4 from it, which asking its routes needs.
    pub forwarding_v4: Option<bool>,
    /// The same for IPv6.
    pub forwarding_v6: Option<bool>,
}

/// The flow table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Flows {
    /// Flows whose time has not run out, as the last sweep counted them (`ActiveFlowCount`).
    pub active: u64,
    /// How many there is room for.
    pub capacity: u64,
}

/// A load balancer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoadBalancer {
    /// Its name.
    pub name: String,
    /// Its VIPs.
    pub addresses: Vec<IpAddr>,
    /// Its listeners.
    pub listeners: Vec<Listener>,
}

/// A listener.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// `TCP`, `UDP` or `TCP_UDP`.
    pub protocol: String,
    /// Its port.
    pub port: u16,
    /// The VIPs that it answers on.
    pub addresses: Vec<IpAddr>,
    /// Its target groups.
    pub target_groups: Vec<ForwardShare>,
    /// What a new flow's choice depends on: `five_tuple`, `five_tuple_and_sequence`, or `source_ip`
    /// with stickiness.
    pub hash: String,
    /// Flows that are remembered.
    #[serde(default)]
    pub active_flows: u64,
    /// What was counted.
    #[serde(flatten)]
    pub counters: Counters,
}

/// A target group's share of a listener.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ForwardShare {
    /// The group's name.
    pub name: String,
    /// Its share of new flows against the listener's other groups.
    pub weight: u16,
}

/// A target group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TargetGroup {
    /// Its name.
    pub name: String,
    /// `TCP`, `UDP` or `TCP_UDP`.
    pub protocol: String,
    /// How packets get to its targets.
    pub mode: String,
    /// Whether new flows go to all targets because too few are healthy (`unhealthy_state_routing`).
    pub fail_open: bool,
    /// Whether enough targets are healthy for the group to count as available (`dns_failover`).
    pub available: bool,
    /// Its targets.
    pub targets: Vec<Target>,
}

/// A target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Target {
    /// Its id in the maps, if it has one.
    pub id: Option<u32>,
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its share of new flows.
    pub weight: u16,
    /// The same, as it is now: 0 if it takes none, less than `weight` in slow start.
    pub effective_weight: f64,
    /// The number in the QUIC connection IDs that it hands out, as the configuration says it.
    pub quic_server_id: Option<String>,
    /// NLB's target health state.
    pub state: String,
    /// NLB's reason code.
    pub reason: Option<String>,
    /// NLB's description of the reason.
    pub description: Option<String>,
    /// What went wrong in the last health check that failed.
    pub last_failure: Option<String>,
    /// The way there.
    pub next_hop: NextHop,
    /// Flows to it whose source is an address of `node.snat_addresses`: each has a port of its own.
    #[serde(default)]
    pub snat_ports_in_use: u64,
    /// Flows that are remembered.
    #[serde(default)]
    pub active_flows: u64,
    /// What was counted.
    #[serde(flatten)]
    pub counters: Counters,
}

/// The health of a target group: the whole answer of `GET /v1/target-groups/{name}/health`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct GroupHealth {
    /// Its name.
    pub target_group: String,
    /// Whether new flows go to all targets because too few are healthy (`unhealthy_state_routing`).
    pub fail_open: bool,
    /// Whether enough targets are healthy for the group to count as available (`dns_failover`).
    pub available: bool,
    /// Its targets, those that are being deregistered among them.
    pub targets: Vec<TargetHealth>,
}

/// The health of a target, in NLB's words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TargetHealth {
    /// Its address and port.
    pub target: String,
    /// Its share of new flows.
    pub weight: u16,
    /// The same, as it is now: 0 if it takes none, less than `weight` in slow start.
    pub effective_weight: f64,
    /// NLB's target health state: `initial`, `healthy`, `unhealthy`, `unhealthy.draining`,
    /// `draining`, `unused` or `unavailable`.
    pub state: String,
    /// NLB's reason code, such as `Target.FailedHealthChecks`.
    pub reason: Option<String>,
    /// NLB's description of the reason.
    pub description: Option<String>,
    /// What went wrong in the last health check that failed.
    pub last_failure: Option<String>,
}

/// The way to a target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NextHop {
    /// `resolved` or `unresolved`.
    pub state: String,
    /// Why it is unresolved.
    pub reason: Option<String>,
    /// The interface that packets leave through.
    pub interface: Option<String>,
    /// The neighbour's MAC address.
    pub mac: Option<String>,
}

/// What was counted of a listener or a target; bytes are those of IP packets.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Packets sent to targets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets sent back to clients.
    pub return_packets: u64,
    /// Their bytes.
    pub return_bytes: u64,
    /// Flows that began.
    pub new_flows: u64,
    /// Packets forwarded by the ring alone.
    pub unpinned_packets: u64,
}

impl From<Traffic> for Counters {
    fn from(traffic: Traffic) -> Self {
        Self {
            packets: traffic.packets,
            bytes: traffic.bytes,
            return_packets: traffic.return_packets,
            return_bytes: traffic.return_bytes,
            new_flows: traffic.new_flows,
            unpinned_packets: traffic.unpinned_packets,
        }
    }
}

/// How often packets were stopped for a reason.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StopCount {
    /// The reason's name.
    pub name: String,
    /// How often.
    pub count: u64,
    /// `drop` or `pass`.
    pub verdict: String,
    /// What it means.
    pub meaning: String,
}
