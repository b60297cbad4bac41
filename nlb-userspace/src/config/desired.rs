//! What the operator wants, complete and resolved: every default filled in, every reference found,
//! every rule of one file checked. The rest of the control plane relies on it without looking again.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use nlb_common::{listener::HashInput, quic::CidLayout};
use serde::Serialize;

use super::error::Warning;
pub use super::{
    hash_key::{HashKey, HashKeyError, HashKeySource},
    http_codes::HttpCodes,
};
pub use crate::target_state::Minimum;
use crate::{
    access::{Role, certificate::CertificateName},
    decap::prefix::Prefix,
    source_rules::SourceRules,
};

/// A whole valid configuration; load balancers, listeners, groups and targets in the order of the
/// file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// This node.
    pub node: Node,
    /// The load balancers.
    pub load_balancers: Vec<LoadBalancer>,
    /// The target groups.
    pub target_groups: Vec<TargetGroup>,
    /// Who may use the control socket.
    pub access: Access,
    /// What is legal but seldom meant.
    pub warnings: Vec<Warning>,
}

/// Who may use the control socket, by names that a host may know or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Roles.
    pub roles: Vec<AccessRole>,
    /// Statements.
    pub statements: Vec<AccessStatement>,
}

/// Whose a role is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRole {
    /// The role.
    pub role: Role,
    /// Users who have it.
    pub users: Vec<String>,
    /// Groups whose members have it.
    pub groups: Vec<String>,
    /// Names of client certificates that have it.
    pub certificates: Vec<CertificateName>,
}

/// A statement of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessStatement {
    /// Whether it allows; otherwise it denies.
    pub allows: bool,
    /// Whom it is about; with neither groups nor certificates, everybody.
    pub users: Vec<String>,
    /// Groups whose members it is about.
    pub groups: Vec<String>,
    /// Names of client certificates that it is about.
    pub certificates: Vec<CertificateName>,
    /// Patterns of actions.
    pub actions: Vec<String>,
    /// Patterns of resources.
    pub resources: Vec<String>,
    /// Tags that the resource must have, and patterns of their values.
    pub tags: Vec<(String, String)>,
}

/// What concerns this machine only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Interfaces on which the program is attached; at least one, each once.
    pub interfaces: Vec<String>,
    /// Where XDP runs.
    pub xdp_mode: XdpMode,
    /// Where the hash key comes from.
    pub hash_key: HashKeySource,
    /// A mounted bpffs; see [`Node::pins`].
    pub bpffs: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// Where the API answers over TCP, if anywhere.
    pub tcp_api: Option<TcpApi>,
    /// Where calls are written down.
    pub audit_log: Option<PathBuf>,
    /// Where metrics can be read.
    pub metrics: Option<Endpoint>,
    /// What becomes of the data plane when the daemon is told to end.
    pub on_exit: OnExit,
    /// A user that the daemon becomes.
    pub user: Option<String>,
    /// What becomes of system calls that the daemon has no use for.
    pub seccomp: Seccomp,
    /// Where changes over the API are kept.
    pub state_directory: PathBuf,
    /// Where outer packets of tunnels come from.
    pub tunnel_sources: TunnelSources,
    /// Sizes of the maps.
    pub capacity: Capacity,
    /// Addresses of ours that sources are translated to; each once, none a VIP or a target.
    pub snat_addresses: Vec<IpAddr>,
}

impl Node {
    /// The folder in which maps and links are pinned.
    pub fn pins(&self) -> PathBuf {
        Path::new(&self.bpffs).join("nlb")
    }
}

/// Where the API answers over TCP, and what it shows and asks for there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpApi {
    /// Where it listens.
    pub address: SocketAddr,
    /// The node's certificate and those above it, in PEM.
    pub certificate_file: PathBuf,
    /// The certificate's private key, in PEM.
    pub key_file: PathBuf,
    /// The authorities that vouch for clients, in PEM.
    pub client_ca_file: PathBuf,
}

/// Where something can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// On a Unix socket.
    Socket(PathBuf),
    /// On an address.
    Address(SocketAddr),
}

/// Where a node's outer packets come from, by their IP version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TunnelSources {
    /// IPv4.
    pub v4: Option<TunnelSource<Ipv4Addr>>,
    /// IPv6.
    pub v6: Option<TunnelSource<Ipv6Addr>>,
}

/// An address, and which others may stand for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelSource<A> {
    /// The address as written.
    pub address: A,
    /// Bits of its end that a flow's hash may fill in; 0 for the address alone.
    pub host_bits: u8,
}

/// Sizes of the maps, fixed while the data plane is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Flows remembered at once; a power of two.
    pub flows: NonZeroU32,
    /// Targets over all groups.
    pub targets: NonZeroU32,
    /// Entries of address, protocol and port.
    pub listeners: NonZeroU32,
    /// Target groups.
    pub target_groups: NonZeroU32,
}

/// What becomes of the data plane when the daemon is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExit {
    /// It goes on as it is.
    Keep,
    /// It is taken off, maps and flows with it.
    Detach,
}

/// What becomes of system calls that the daemon has no use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seccomp {
    /// They fail.
    Enforce,
    /// The kernel logs them.
    Log,
    /// Nobody looks.
    Off,
}

/// Where XDP runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver if it can, else generic.
    Auto,
    /// In the driver.
    Driver,
    /// In the stack, after the socket buffer has been made.
    Generic,
}

/// Addresses and the listeners on them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadBalancer {
    /// NLB's `Name`.
    pub name: String,
    /// The VIPs; at least one, each in no other load balancer.
    pub addresses: Vec<IpAddr>,
    /// Whether echo requests to the VIPs are answered.
    pub icmp_echo: bool,
    /// The listeners. No two take the same packet.
    pub listeners: Vec<Listener>,
}

/// Where new flows are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Unique in the file: `edge/TCP/80`, or `edge/TCP/80/ipv6` where a listener of the other IP
    /// version shares protocol and port.
    pub name: String,
    /// What it takes.
    pub protocol: Protocol,
    /// Where it listens.
    pub port: u16,
    /// The VIPs it answers on: those of its target group's IP version; never empty.
    pub addresses: Vec<IpAddr>,
    /// The target groups that share its new flows: one to five, each once, alike in protocol, IP
    /// version and stickiness; not all of weight 0.
    pub forward: Vec<Share>,
    /// What a new flow's choice depends on; [`HashInput::Source`] if its groups have stickiness.
    pub hash_input: HashInput,
    /// Whether flows are remembered only while their ring changes.
    pub pins_on_change: bool,
    /// NLB's `tcp.idle_timeout.seconds`; means nothing to a UDP listener.
    pub tcp_idle_timeout: Duration,
    /// Its counterpart for UDP; means nothing to a TCP listener.
    pub udp_idle_timeout: Duration,
    /// What the load balancer's rules say about its clients, by IP protocol and version; nothing
    /// where all may begin flows.
    pub source_rules: Vec<(u8, IpVersion, SourceRules)>,
    /// How many flows may begin.
    pub limits: FlowLimits,
    /// What becomes of a TCP segment whose flow's idle time-out has run out.
    pub tcp_idle_timeout_action: StrandedAction,
    /// What becomes of a TCP segment that opens nothing and belongs to no known flow.
    pub tcp_stray_action: StrandedAction,
    /// The largest TCP segment size that a SYN may name, in bytes; none for any.
    pub tcp_mss_clamp_bytes: Option<u16>,
    /// When SYNs are answered with cookies; means nothing to a UDP listener.
    pub tcp_syn_cookies: SynCookies,
}

/// When a listener answers SYNs with cookies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SynCookies {
    /// Never.
    Off,
    /// Always.
    On,
    /// While more SYNs come than this many.
    UnderAttack {
        /// In a second.
        above_per_second: u32,
    },
}

/// A rule about who may begin flows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRule {
    /// Whether it allows, or denies.
    pub allows: bool,
    /// Whom.
    pub sources: Vec<Prefix>,
    /// For listeners of this IP protocol only.
    pub protocol: Option<u8>,
    /// For listeners on these ports only.
    pub ports: RangeInclusive<u16>,
}

impl SourceRule {
    /// Whether it is about a listener's clients.
    pub fn means(&self, protocol: u8, port: u16) -> bool {
        self.protocol.is_none_or(|own| own == protocol) && self.ports.contains(&port)
    }
}

/// How many flows may begin at each address and protocol of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowLimits {
    /// New flows in a second.
    pub new_flows_per_second: Option<u32>,
    /// Flows remembered at once.
    pub active_flows: Option<u32>,
    /// New flows of one source in a second.
    pub source_new_flows_per_second: Option<u32>,
    /// Flows of one source remembered at once.
    pub source_active_flows: Option<u32>,
    /// Bits of an IPv4 address that make a source.
    pub source_prefix_ipv4: u8,
    /// Bits of an IPv6 address that make a source.
    pub source_prefix_ipv6: u8,
    /// What becomes of flows over a limit.
    pub over: OverLimit,
}

impl Default for FlowLimits {
    fn default() -> Self {
        Self {
            new_flows_per_second: None,
            active_flows: None,
            source_new_flows_per_second: None,
            source_active_flows: None,
            source_prefix_ipv4: 32,
            source_prefix_ipv6: 64,
            over: OverLimit::Drop,
        }
    }
}

/// What becomes of flows over a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverLimit {
    /// Their packets are dropped.
    Drop,
    /// Each of their packets goes where the ring says; they are not remembered.
    ForwardUnpinned,
}

/// What becomes of a TCP segment that opens nothing and has no live flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StrandedAction {
    /// It goes where a new flow would go, and begins one.
    Forward,
    /// Its sender gets an RST.
    Reset,
    /// The same, and both ends of an established flow get one when its time runs out.
    ResetAtExpiry,
    /// It is dropped.
    Drop,
}

/// A target group's share of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Index of the group in [`Desired::target_groups`].
    pub target_group: usize,
    /// Its name.
    pub name: String,
    /// Its share of new flows, 0 to 999.
    pub weight: u16,
}

/// Targets with a common health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetGroup {
    /// NLB's `Name`.
    pub name: String,
    /// What its targets speak.
    pub protocol: Protocol,
    /// The port of targets that name none.
    pub port: u16,
    /// How packets reach a target.
    pub mode: Mode,
    /// What the outer headers say in tunnel modes; means nothing in others.
    pub tunnel: TunnelOptions,
    /// IP version of all its targets; none while it has no target.
    pub ip_version: Option<IpVersion>,
    /// NLB's `deregistration_delay.timeout_seconds`.
    pub deregistration_delay: Duration,
    /// NLB's `deregistration_delay.connection_termination.enabled`: flows end with the delay.
    pub terminates_deregistered: bool,
    /// NLB's `target_health_state.unhealthy.connection_termination.enabled`: flows end when their
    /// target turns unhealthy.
    pub terminates_unhealthy: bool,
    /// NLB's `target_health_state.unhealthy.draining_interval_seconds`; zero where flows end at
    /// once.
    pub unhealthy_draining_interval: Duration,
    /// NLB's `stickiness.enabled`, by the source address.
    pub is_sticky: bool,
    /// ALB's `slow_start.duration_seconds`; zero is off.
    pub slow_start: Duration,
    /// Below this, the group is unavailable (NLB's
    /// `target_group_health.dns_failover.minimum_healthy_targets`).
    pub dns_failover: Minimum,
    /// Below this, the group fails open (NLB's
    /// `target_group_health.unhealthy_state_routing.minimum_healthy_targets`).
    pub unhealthy_state_routing: Minimum,
    /// How targets are checked.
    pub health_check: HealthCheck,
    /// How its targets' QUIC connection IDs are read: in QUIC and `TCP_QUIC` groups.
    pub quic: Option<CidLayout>,
    /// The targets; no two with the same address and port.
    pub targets: Vec<Target>,
}

/// What a target group's outer headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelOptions {
    /// Whether flows have ports, labels and addresses of their own.
    pub has_entropy: bool,
    /// The UDP port on which targets decapsulate; 0 where there is no UDP header.
    pub port: u16,
    /// Geneve's virtual network identifier, of 24 bits.
    pub vni: u32,
}

/// One server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Its address.
    pub address: IpAddr,
    /// Where it serves.
    pub port: u16,
    /// Its share of new flows, 0 to 999.
    pub weight: u16,
    /// NLB's `QuicServerId`, in QUIC and `TCP_QUIC` groups; no two targets of a group have the same.
    pub quic_server_id: Option<u64>,
    /// Where it is checked, if elsewhere than its group says.
    pub health_check_port: Option<u16>,
}

/// How the targets of a group are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// If not, targets are `unavailable` (`Target.HealthCheckDisabled`) and get traffic as if
    /// healthy.
    pub enabled: bool,
    /// What a check is.
    pub protocol: HealthCheckProtocol,
    /// Whether it goes to the VIPs by the packet path's way to the target, and not to the target's
    /// own address.
    pub through_data_path: bool,
    /// Where it goes.
    pub port: HealthCheckPort,
    /// Time between two checks of one target.
    pub interval: Duration,
    /// A check without an answer by then has failed; never longer than the interval.
    pub timeout: Duration,
    /// Checks in a row that must pass, 2 to 10.
    pub healthy_threshold: u32,
    /// Checks in a row that must fail, 2 to 10.
    pub unhealthy_threshold: u32,
}

/// What a health check does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthCheckProtocol {
    /// Opens a connection.
    Tcp,
    /// GETs a path and looks at the status.
    Http {
        /// The path, beginning with `/`; printable ASCII only.
        path: String,
        /// Statuses that pass.
        matcher: HttpCodes,
        /// Over TLS (`HTTPS`).
        tls: Option<HealthCheckTls>,
    },
    /// Sends a datagram and looks at the answer.
    Udp {
        /// Its payload.
        send: Vec<u8>,
        /// What the answer begins with.
        expect: Vec<u8>,
        /// Whether no answer passes, too.
        silence_passes: bool,
    },
    /// Asks `grpc.health.v1` about a service; about the whole server if the name is empty.
    Grpc {
        /// The service's name.
        service: String,
        /// Over TLS (`GRPCS`).
        tls: Option<HealthCheckTls>,
    },
    /// Sends an echo request.
    Icmp,
    /// Runs a program: its absolute path and its arguments.
    Command(Vec<String>),
}

/// How HTTPS checks use TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheckTls {
    /// What targets are asked for by SNI, and what their certificates are for.
    pub server_name: Option<String>,
    /// Who vouches for certificates; without, any passes.
    pub ca_file: Option<PathBuf>,
}

/// Where a health check goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthCheckPort {
    /// To the port that the target serves on.
    TrafficPort,
    /// To this port, whatever the target's.
    Port(u16),
}

/// Protocol of a listener or a target group. `Display` prints NLB's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Protocol {
    /// TCP.
    #[serde(rename = "TCP")]
    Tcp,
    /// UDP.
    #[serde(rename = "UDP")]
    Udp,
    /// Both on one port.
    #[serde(rename = "TCP_UDP")]
    TcpUdp,
    /// UDP, with connection IDs that name the target.
    #[serde(rename = "QUIC")]
    Quic,
    /// TCP and QUIC on one port.
    #[serde(rename = "TCP_QUIC")]
    TcpQuic,
}

impl Protocol {
    /// Whether it takes TCP.
    pub const fn has_tcp(self) -> bool {
        matches!(self, Self::Tcp | Self::TcpUdp | Self::TcpQuic)
    }

    /// Whether it takes UDP.
    pub const fn has_udp(self) -> bool {
        matches!(self, Self::Udp | Self::TcpUdp | Self::Quic | Self::TcpQuic)
    }

    /// Whether its UDP packets are QUIC.
    pub const fn has_quic(self) -> bool {
        matches!(self, Self::Quic | Self::TcpQuic)
    }

    /// Whether one packet could be for both.
    pub const fn overlaps(self, other: Self) -> bool {
        (self.has_tcp() && other.has_tcp()) || (self.has_udp() && other.has_udp())
    }

    /// Whether a listener of this protocol may forward to a group of that one: the group must take
    /// all that the listener takes.
    pub const fn may_use(self, group: Self) -> bool {
        (!self.has_tcp() || group.has_tcp())
            && (!self.has_udp() || group.has_udp() && self.has_quic() == group.has_quic())
    }

    /// NLB's word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::TcpUdp => "TCP_UDP",
            Self::Quic => "QUIC",
            Self::TcpQuic => "TCP_QUIC",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.word())
    }
}

/// How packets reach a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The destination is rewritten; answers come back through this node.
    Nat,
    /// The destination MAC is rewritten; the target answers the client directly.
    DsrL2,
    /// Both ends are rewritten; the target answers an address of [`Node::snat_addresses`].
    FullNat,
    /// The packet travels inside of an IP packet; the target answers the client directly.
    DsrIpip,
    /// The same, inside of UDP with a GUE header.
    DsrGue,
    /// The same, inside of UDP with a Geneve header.
    DsrGeneve,
}

impl Mode {
    /// Whether the target answers the client directly.
    pub const fn is_dsr(self) -> bool {
        !matches!(self, Self::Nat | Self::FullNat)
    }

    /// The same as the packet program knows it.
    pub const fn on_the_wire(self) -> nlb_common::target::Mode {
        use nlb_common::target::Mode;
        match self {
            Self::Nat => Mode::NAT,
            Self::DsrL2 => Mode::DSR_L2,
            Self::DsrIpip => Mode::DSR_IPIP,
            Self::DsrGue => Mode::DSR_GUE,
            Self::DsrGeneve => Mode::DSR_GENEVE,
            Self::FullNat => Mode::FULL_NAT,
        }
    }

    /// Whether packets reach the target inside of other packets.
    pub const fn is_tunnel(self) -> bool {
        matches!(self, Self::DsrIpip | Self::DsrGue | Self::DsrGeneve)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Nat => "nat",
            Self::DsrL2 => "dsr-l2",
            Self::DsrIpip => "dsr-ipip",
            Self::DsrGue => "dsr-gue",
            Self::DsrGeneve => "dsr-geneve",
            Self::FullNat => "full-nat",
        })
    }
}

/// An IP version. `Display` prints `IPv4` or `IPv6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IpVersion {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl IpVersion {
    /// The version of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }
}

impl fmt::Display for IpVersion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}
