//! The table of every key a configuration may hold: its shape, range, default and meaning.
//!
//! One table serves three readers, so that they cannot disagree: `reader` takes shapes, ranges and
//! defaults from it, the near-miss search takes the known names, and the tables of
//! `docs/configuration.md` are printed from it and compared by a test. Rules that need more than
//! one key (references, compatible protocols) are not here but in `resolve`.

use std::fmt::Write as _;

/// What may stand behind a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `[[key]]`, any number of times.
    Tables,
    /// A string, whose form the meaning describes.
    Text,
    /// A list of strings.
    Texts,
    /// One of a few words.
    Word {
        /// The words taken today.
        takes: &'static [&'static str],
        /// Words of NLB or of ours that are planned; each is refused with that explanation.
        later: &'static [&'static str],
    },
    /// An integer.
    Whole {
        /// Smallest value taken.
        min: u64,
        /// Largest value taken.
        max: u64,
    },
    /// Seconds, as an integer or a float.
    Seconds {
        /// Shortest time taken, in milliseconds.
        min_millis: u64,
        /// Longest time taken, in milliseconds.
        max_millis: u64,
    },
    /// `true` or `false`.
    Switch,
    /// The word `traffic-port`, or a port number.
    Port,
    /// A key of NLB that is known and refused for now.
    NotYet,
}

/// What holds when a key is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// Absence is a fault.
    Required,
    /// A string.
    Text(&'static str),
    /// An integer.
    Whole(u64),
    /// A time in milliseconds.
    Millis(u64),
    /// A boolean.
    Switch(bool),
    /// It depends on other keys, in these words.
    Depends(&'static str),
}

/// One key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Full dotted name, for example `target_group.health_check.interval_seconds`.
    pub path: &'static str,
    /// What may stand behind it.
    pub kind: Kind,
    /// What holds without it.
    pub absent: Absent,
    /// NLB's attribute or API name; empty where NLB has none.
    pub nlb: &'static str,
    /// One or two sentences for the reference.
    pub meaning: &'static str,
}

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
            takes: &["nat", "dsr-l2"],
            later: &["full-nat", "dsr-ipip", "dsr-gue", "dsr-geneve"],
        },
        Absent::Text("nat"),
        "",
        "How packets reach a target. `nat`: the destination is rewritten and answers come back through this node. `dsr-l2`: only the destination MAC is rewritten, and the target, which holds the VIP on its loopback, answers the client directly; ports cannot change.",
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
        Absent::Switch(true),
        "preserve_client_ip.enabled",
        "Targets see the client's address. `false` needs the mode `full-nat`, which is not supported yet.",
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

/// The key with this full dotted name.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// `table.name`, or `name` at the top of the file.
pub(super) fn join(table: &str, name: &str) -> String {
    if table.is_empty() {
        name.to_owned()
    } else {
        format!("{table}.{name}")
    }
}

/// Whether a key or a table of that full dotted name exists.
pub(super) fn is_known(path: &str) -> bool {
    KEYS.iter().any(|key| {
        key.path
            .strip_prefix(path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// Names that may stand directly in the table of that full dotted name, each once.
pub(super) fn names_in(table: &str) -> Vec<&'static str> {
    let mut names = Vec::new();
    for key in KEYS {
        let rest = if table.is_empty() {
            Some(key.path)
        } else {
            key.path
                .strip_prefix(table)
                .and_then(|rest| rest.strip_prefix('.'))
        };
        if let Some(name) = rest.and_then(|rest| rest.split('.').next())
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    names
}

/// Milliseconds as a person writes seconds: `30`, `0.1`.
pub(super) fn seconds(millis: u64) -> String {
    let (whole, part) = (millis / 1_000, millis % 1_000);
    if part == 0 {
        whole.to_string()
    } else {
        format!("{whole}.{part:03}")
            .trim_end_matches('0')
            .to_owned()
    }
}

impl Key {
    fn shape(&self) -> &'static str {
        match self.kind {
            Kind::Tables => "tables",
            Kind::Text | Kind::Word { .. } => "string",
            Kind::Texts => "list of strings",
            Kind::Whole { .. } => "integer",
            Kind::Seconds { .. } => "integer or float",
            Kind::Switch | Kind::NotYet => "boolean",
            Kind::Port => "string or integer",
        }
    }

    fn range(&self) -> String {
        match self.kind {
            Kind::Tables | Kind::Text | Kind::Texts => "see meaning".to_owned(),
            Kind::NotYet => "refused".to_owned(),
            Kind::Switch => "`true`, `false`".to_owned(),
            Kind::Port => "`\"traffic-port\"`, 1 to 65535".to_owned(),
            Kind::Whole { min, max } => format!("{min} to {max}"),
            Kind::Seconds {
                min_millis,
                max_millis,
            } => {
                format!("{} to {}", seconds(min_millis), seconds(max_millis))
            }
            Kind::Word { takes, later } => {
                let list = takes
                    .iter()
                    .map(|word| format!("`\"{word}\"`"))
                    .collect::<Vec<_>>()
                    .join(", ");
                if later.is_empty() {
                    return list;
                }
                let later = later
                    .iter()
                    .map(|word| format!("`{word}`"))
                    .collect::<Vec<_>>()
                    .join(", ");
                format!("{list} (not yet: {later})")
            }
        }
    }

    fn default_words(&self) -> String {
        match self.absent {
            Absent::Required => "required".to_owned(),
            Absent::Text(text) => format!("`\"{text}\"`"),
            Absent::Whole(number) => format!("`{number}`"),
            Absent::Millis(millis) => format!("`{}`", seconds(millis)),
            Absent::Switch(on) => format!("`{on}`"),
            Absent::Depends(words) => words.to_owned(),
        }
    }
}

/// The table of the reference for one section (`node`, `load_balancer` or `target_group`), as
/// Markdown: one row for each key whose name begins with it.
pub fn reference(section: &str) -> String {
    let mut text = String::from(
        "| Key | Type | Default | Range | NLB's name | Meaning |\n|---|---|---|---|---|---|\n",
    );
    for key in KEYS
        .iter()
        .filter(|key| key.path.split('.').next() == Some(section))
    {
        let nlb = if key.nlb.is_empty() {
            String::new()
        } else {
            format!("`{}`", key.nlb)
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} | {nlb} | {} |",
            key.path,
            key.shape(),
            key.default_words(),
            key.range(),
            key.meaning,
        );
    }
    text
}
