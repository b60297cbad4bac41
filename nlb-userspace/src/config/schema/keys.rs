//! The table itself. A key that is added here is known, read with its range and default, suggested
//! for near misses, and listed in the reference; `raw` must then read it.

use super::{Absent, Key, Kind};

const PORT: Kind = Kind::Whole {
    min: 1,
    max: 65_535,
};
const PROTOCOL: Kind = Kind::Word {
    takes: &["TCP", "UDP", "TCP_UDP"],
    later: &["TLS", "QUIC", "TCP_QUIC"],
};

const fn key(
    path: &'static str,
    kind: Kind,
    absent: Absent,
    nlb: &'static str,
    meaning: &'static str,
) -> Key {
    Key {
        path,
        kind,
        absent,
        nlb,
        meaning,
    }
}

/// Every key, in the order of the reference.
pub const KEYS: &[Key] = &[
    key(
        "node.interfaces",
        Kind::Texts,
        Absent::Required,
        "",
        "Network interfaces on which the XDP program is attached. At least one, each once; names of 1 to 15 bytes.",
    ),
    key(
        "node.xdp_mode",
        Kind::Word {
            takes: &["auto", "driver", "generic"],
            later: &[],
        },
        Absent::Text("auto"),
        "",
        "Where XDP runs: `driver` is fast and needs the driver's support, `generic` works everywhere and is slower, `auto` tries `driver` and falls back.",
    ),
    key(
        "node.hash_key_file",
        Kind::Text,
        Absent::Depends("a key the daemon makes and keeps"),
        "",
        "Absolute path of a file with the hash key: 64 hexadecimal digits, the same on every node of a deployment. Not together with `hash_key`.",
    ),
    key(
        "node.hash_key",
        Kind::Text,
        Absent::Depends("a key the daemon makes and keeps"),
        "",
        "The hash key itself: 64 hexadecimal digits. It is a secret: prefer `hash_key_file`, or keep this file readable by root only.",
    ),
    key(
        "node.bpffs",
        Kind::Text,
        Absent::Text("/sys/fs/bpf"),
        "",
        "Absolute path of a mounted bpffs. What must outlive the daemon is pinned under `nlb` in it.",
    ),
    key(
        "node.socket",
        Kind::Text,
        Absent::Text("/run/nlb/nlb.sock"),
        "",
        "Absolute path of the control socket, at most 107 bytes.",
    ),
    key(
        "node.snat_addresses",
        Kind::Texts,
        Absent::Depends("none"),
        "",
        "Addresses of this node, of either IP version, that targets see as the source of flows of mode `full-nat`, and of those flows of mode `nat` that they could not tell apart otherwise. At most 31 of each version, routed to this node, neither VIPs nor targets, best used by nothing else. A running data plane that was made without any has no room for them.",
    ),
    key(
        "node.capacity.flows",
        Kind::Whole {
            min: 1_024,
            max: 1 << 28,
        },
        Absent::Whole(1_048_576),
        "",
        "Flows remembered at once; a power of two. Sizes of maps are fixed while the data plane is attached.",
    ),
    key(
        "node.capacity.targets",
        Kind::Whole {
            min: 1,
            max: 1_048_575,
        },
        Absent::Whole(4_096),
        "",
        "Targets over all groups.",
    ),
    key(
        "node.capacity.listeners",
        Kind::Whole {
            min: 1,
            max: 65_533,
        },
        Absent::Whole(1_024),
        "",
        "Listener entries: one for each address, protocol and port. A `TCP_UDP` listener takes two for each address.",
    ),
    key(
        "node.capacity.target_groups",
        Kind::Whole {
            min: 1,
            max: 65_535,
        },
        Absent::Whole(1_024),
        "",
        "Target groups.",
    ),
    key(
        "load_balancer",
        Kind::Tables,
        Absent::Depends("none"),
        "CreateLoadBalancer",
        "A load balancer: addresses and the listeners on them.",
    ),
    key(
        "load_balancer.name",
        Kind::Text,
        Absent::Required,
        "Name",
        "1 to 32 letters, digits and `-`; not first or last a `-`, not beginning with `internal-`; unique.",
    ),
    key(
        "load_balancer.addresses",
        Kind::Texts,
        Absent::Required,
        "SubnetMappings",
        "The virtual addresses (VIPs), IPv4 and IPv6. At least one, each in one load balancer only.",
    ),
    key(
        "load_balancer.listener",
        Kind::Tables,
        Absent::Depends("none"),
        "CreateListener",
        "A protocol and a port on which new flows are taken. It answers on every address of its load balancer that has the IP version of its target group.",
    ),
    key(
        "load_balancer.listener.protocol",
        PROTOCOL,
        Absent::Required,
        "Protocol",
        "What the listener takes.",
    ),
    key(
        "load_balancer.listener.port",
        PORT,
        Absent::Required,
        "Port",
        "Where it listens.",
    ),
    key(
        "load_balancer.listener.target_group",
        Kind::Text,
        Absent::Required,
        "DefaultActions.TargetGroupArn",
        "Name of the group that new flows go to. A TCP listener takes a TCP or TCP_UDP group, a UDP listener a UDP or TCP_UDP group, a TCP_UDP listener a TCP_UDP group.",
    ),
    key(
        "load_balancer.listener.tcp.idle_timeout.seconds",
        Kind::Whole {
            min: 60,
            max: 6_000,
        },
        Absent::Whole(350),
        "tcp.idle_timeout.seconds",
        "How long a silent TCP flow is remembered. TCP and TCP_UDP listeners only.",
    ),
    key(
        "load_balancer.listener.udp.idle_timeout.seconds",
        Kind::Whole { min: 1, max: 6_000 },
        Absent::Whole(120),
        "",
        "How long a silent UDP flow is remembered (NLB: always 120). UDP and TCP_UDP listeners only.",
    ),
    key(
        "target_group",
        Kind::Tables,
        Absent::Depends("none"),
        "CreateTargetGroup",
        "Targets with a common health check. It may serve several listeners of one load balancer.",
    ),
    key(
        "target_group.name",
        Kind::Text,
        Absent::Required,
        "Name",
        "As a load balancer's name; unique among target groups.",
    ),
    key(
        "target_group.protocol",
        PROTOCOL,
        Absent::Required,
        "Protocol",
        "What its targets speak.",
    ),
    key(
        "target_group.port",
        PORT,
        Absent::Required,
        "Port",
        "The port of every target that names none.",
    ),
    key(
        "target_group.mode",
        Kind::Word {
            takes: &["nat", "full-nat", "dsr-l2"],
            later: &["dsr-ipip", "dsr-gue", "dsr-geneve"],
        },
        Absent::Text("nat"),
        "",
        "How packets reach a target. `nat`: the destination is rewritten and answers come back through this node. `full-nat`: the source is rewritten, too, to an address of `node.snat_addresses`; targets may be anywhere and do not see the client's address. `dsr-l2`: only the destination MAC is rewritten, and the target, which holds the VIP on its loopback, answers the client directly; ports cannot change.",
    ),
    key(
        "target_group.deregistration_delay.timeout_seconds",
        Kind::Whole { min: 0, max: 3_600 },
        Absent::Whole(300),
        "deregistration_delay.timeout_seconds",
        "How long a removed target keeps its flows.",
    ),
    key(
        "target_group.deregistration_delay.connection_termination.enabled",
        Kind::NotYet,
        Absent::Depends("unset"),
        "deregistration_delay.connection_termination.enabled",
        "Not supported yet: leave it out.",
    ),
    key(
        "target_group.preserve_client_ip.enabled",
        Kind::Switch,
        Absent::Depends("`true`, with `full-nat` `false`"),
        "preserve_client_ip.enabled",
        "Targets see the client's address: `false` with the mode `full-nat`, and only with it.",
    ),
    key(
        "target_group.health_check.enabled",
        Kind::Switch,
        Absent::Switch(true),
        "HealthCheckEnabled",
        "With `false` targets are `unavailable` (`Target.HealthCheckDisabled`) and get traffic as if healthy.",
    ),
    key(
        "target_group.health_check.protocol",
        Kind::Word {
            takes: &["TCP", "HTTP"],
            later: &["HTTPS"],
        },
        Absent::Text("TCP"),
        "HealthCheckProtocol",
        "TCP: a connection must open. HTTP: a GET must be answered with a status of `matcher.http_code`.",
    ),
    key(
        "target_group.health_check.port",
        Kind::Port,
        Absent::Text("traffic-port"),
        "HealthCheckPort",
        "Where to check: each target's own port, or one port for all. UDP groups usually name a port.",
    ),
    key(
        "target_group.health_check.path",
        Kind::Text,
        Absent::Depends("`\"/\"`"),
        "HealthCheckPath",
        "HTTP only: what to GET; begins with `/`, 1 to 1024 printable ASCII characters, no spaces.",
    ),
    key(
        "target_group.health_check.interval_seconds",
        Kind::Seconds {
            min_millis: 100,
            max_millis: 300_000,
        },
        Absent::Millis(30_000),
        "HealthCheckIntervalSeconds",
        "Time between two checks of a target (NLB: at least 5).",
    ),
    key(
        "target_group.health_check.timeout_seconds",
        Kind::Seconds {
            min_millis: 100,
            max_millis: 120_000,
        },
        Absent::Depends("`10` for TCP, `6` for HTTP, never above the interval"),
        "HealthCheckTimeoutSeconds",
        "A check without an answer by then has failed. Not longer than the interval.",
    ),
    key(
        "target_group.health_check.healthy_threshold_count",
        Kind::Whole { min: 2, max: 10 },
        Absent::Whole(5),
        "HealthyThresholdCount",
        "Checks in a row that must pass before an unhealthy target is healthy.",
    ),
    key(
        "target_group.health_check.unhealthy_threshold_count",
        Kind::Whole { min: 2, max: 10 },
        Absent::Whole(2),
        "UnhealthyThresholdCount",
        "Checks in a row that must fail before a healthy target is unhealthy.",
    ),
    key(
        "target_group.health_check.matcher.http_code",
        Kind::Text,
        Absent::Depends("`\"200-399\"`"),
        "Matcher.HttpCode",
        "HTTP only: statuses that pass, as a list of numbers and ranges within 200 to 599, such as `\"200,202,300-399\"`.",
    ),
    key(
        "target_group.target",
        Kind::Tables,
        Absent::Depends("none"),
        "RegisterTargets",
        "One server. All targets of a group have one IP version, and no two the same address and port.",
    ),
    key(
        "target_group.target.address",
        Kind::Text,
        Absent::Required,
        "Targets.Id",
        "Its IPv4 or IPv6 address.",
    ),
    key(
        "target_group.target.port",
        PORT,
        Absent::Depends("the group's `port`"),
        "Targets.Port",
        "Where it serves. With `dsr-l2` it must be the listener's port.",
    ),
    key(
        "target_group.target.weight",
        Kind::Whole { min: 0, max: 999 },
        Absent::Whole(1),
        "",
        "Its share of new flows against the other targets' weights; 0 takes none.",
    ),
];
