//! Every metric: its name, its labels, what it means, and what NLB calls it in CloudWatch.

use std::fmt::Write as _;

use nlb_common::stop::Stop;

/// What kind of number it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from the data plane's or the daemon's start on. Its samples end in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Times by how long they are.
    Histogram,
    /// Always 1: what counts are the labels.
    Info,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }

    /// What its samples' names end with, after the metric's.
    const fn suffix(self) -> &'static str {
        match self {
            Self::Counter => "_total",
            Self::Gauge | Self::Histogram => "",
            Self::Info => "_info",
        }
    }
}

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name, with its unit, without the ending that its kind brings.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// The metric of `AWS/NetworkELB` that says the same, or what comes nearest; empty where NLB has
    /// none.
    pub cloudwatch: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

macro_rules! metrics {
    ($($constant:ident = $name:literal $kind:ident $labels:expr, $cloudwatch:literal, $meaning:literal;)+) => {
        $(
            #[doc = $meaning]
            pub const $constant: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                labels: &$labels,
                cloudwatch: $cloudwatch,
                meaning: $meaning,
            };
        )+
        /// All of them, in the order of an answer.
        pub const ALL: &[Metric] = &[$($constant,)+];
    };
}

/// Labels of a listener's traffic.
const LISTENER: [&str; 3] = ["load_balancer", "listener", "protocol"];
const LISTENER_WAY: [&str; 4] = ["load_balancer", "listener", "protocol", "direction"];
const GROUP: [&str; 1] = ["target_group"];
const TARGET: [&str; 2] = ["target_group", "target"];
const TARGET_WAY: [&str; 3] = ["target_group", "target", "direction"];
const NONE: [&str; 0] = [];

#[rustfmt::skip]
metrics! {
    LISTENER_PACKETS = "nlb_listener_packets" Counter LISTENER_WAY, "ProcessedPackets",
        "Packets forwarded: `direction` is `to_target` or `to_client`, of which direct server return shows none. Unlike NLB's, without health checks.";
    LISTENER_BYTES = "nlb_listener_bytes" Counter LISTENER_WAY, "ProcessedBytes, ProcessedBytes_TCP, _UDP, _QUIC",
        "Bytes of those, IP headers included.";
    LISTENER_NEW_FLOWS = "nlb_listener_new_flows" Counter LISTENER, "NewFlowCount, NewFlowCount_TCP, _UDP, _QUIC",
        "Flows that began.";
    LISTENER_ACTIVE_FLOWS = "nlb_listener_active_flows" Gauge LISTENER, "ActiveFlowCount, ActiveFlowCount_TCP, _UDP",
        "Flows that are remembered, as the last sweep of the flow table counted them.";
    LISTENER_UNPINNED_PACKETS = "nlb_listener_unpinned_packets" Counter LISTENER, "",
        "Packets forwarded by the ring alone, because there was no room to remember their flow.";
    GROUP_TARGETS = "nlb_target_group_targets" Gauge GROUP, "",
        "Targets, those being deregistered among them.";
    GROUP_HEALTHY = "nlb_target_group_healthy_targets" Gauge GROUP, "HealthyHostCount",
        "Targets in the state `healthy`.";
    GROUP_UNHEALTHY = "nlb_target_group_unhealthy_targets" Gauge GROUP, "UnHealthyHostCount",
        "Targets in the states `unhealthy` and `unhealthy.draining`.";
    GROUP_AVAILABLE = "nlb_target_group_available" Gauge GROUP, "ZonalHealthStatus",
        "1 if enough targets are healthy (`dns_failover`), otherwise 0.";
    GROUP_FAIL_OPEN = "nlb_target_group_fail_open" Gauge GROUP, "UnhealthyRoutingFlowCount",
        "1 while new flows go to all targets because too few are healthy. NLB counts those flows; here they are `nlb_target_new_flows` meanwhile.";
    GROUP_PROBE_LATENCY = "nlb_target_group_probe_latency_seconds" Histogram GROUP, "",
        "How long health checks that passed took.";
    GROUP_PROBE_FAILURES = "nlb_target_group_probe_failures" Counter GROUP, "",
        "Health checks that failed.";
    TARGET_HEALTHY = "nlb_target_healthy" Gauge TARGET, "",
        "1 if the target is in the state `healthy`, otherwise 0.";
    TARGET_WEIGHT = "nlb_target_effective_weight" Gauge TARGET, "",
        "The target's share of new flows as it is now: 0 if it takes none, less than its weight in slow start.";
    TARGET_RESOLVED = "nlb_target_next_hop_resolved" Gauge TARGET, "",
        "1 if the way to the target is known, down to the MAC address.";
    TARGET_PACKETS = "nlb_target_packets" Counter TARGET_WAY, "",
        "Packets forwarded to and from the target.";
    TARGET_BYTES = "nlb_target_bytes" Counter TARGET_WAY, "",
        "Bytes of those, IP headers included.";
    TARGET_NEW_FLOWS = "nlb_target_new_flows" Counter TARGET, "NewFlowCount of a target group",
        "Flows that began.";
    TARGET_ACTIVE_FLOWS = "nlb_target_active_flows" Gauge TARGET, "ActiveFlowCount of a target group",
        "Flows that are remembered, as the last sweep counted them.";
    TARGET_SNAT_PORTS = "nlb_target_snat_ports_in_use" Gauge TARGET, "",
        "Ports of `node.snat_addresses` that flows to the target have.";
    TARGETS_LEFT_OUT = "nlb_metrics_targets_left_out" Gauge NONE, "",
        "Targets without series of their own, because there are too many.";
    STOPS = "nlb_stops" Counter ["stop", "verdict"], "see below",
        "Packets that left early, by reason (see [stops](operations.md)) and by what became of them: `drop`, `pass` or `answer`.";
    FLOWS = "nlb_flows" Gauge NONE, "ActiveFlowCount",
        "Flows that are remembered, of all listeners.";
    FLOW_CAPACITY = "nlb_flow_capacity" Gauge NONE, "",
        "How many flows there is room for.";
    MAP_ENTRIES = "nlb_map_entries" Gauge ["map"], "",
        "Records in use, of `listeners`, `targets` and `target_groups`.";
    MAP_CAPACITY = "nlb_map_capacity" Gauge ["map"], "",
        "How many there is room for (`node.capacity`).";
    EARLY_FRAGMENTS = "nlb_early_fragments" Counter ["outcome"], "",
        "Fragments that came before their datagram's first one, since the daemon started: `kept` at first, then `sent_on` or `given_up`. The ring buffer that they come through was full as often as `nlb_stops` says of `early_limit`.";
    BUILD = "nlb_build" Info ["version", "map_layout"], "",
        "The daemon that answers.";
    START_TIME = "nlb_start_time_seconds" Gauge NONE, "",
        "When the daemon started, in seconds since 1970.";
    UPTIME = "nlb_uptime_seconds" Gauge NONE, "",
        "How long it has been running.";
    ADOPTED = "nlb_data_plane_adopted" Gauge NONE, "",
        "1 if the daemon found the data plane running when it started.";
    GENERATION = "nlb_generation" Gauge NONE, "",
        "The generation that is live. It grows with every change of the maps, those that health checks bring about, too.";
    LIVE = "nlb_configuration_live" Gauge NONE, "",
        "1 if the maps say what is configured; 0 while a map cannot be written, which is tried again and again.";
    CHANGES = "nlb_configuration_changes" Counter ["result"], "",
        "Reloads and changes over the API since the daemon started: `done` or `refused`.";
    LOG_MESSAGES = "nlb_log_messages" Counter ["level"], "",
        "Messages of level `warn` and `error` that the daemon has logged: its faults.";
    LOG_LOST = "nlb_log_messages_lost" Counter NONE, "",
        "Messages that found no reader: whoever reads the log has stopped, or is too slow.";
    WARNINGS = "nlb_warnings" Gauge NONE, "",
        "Warnings that `nlb status` shows now.";
    INTERFACE = "nlb_interface" Info ["interface", "xdp_mode"], "",
        "An interface that the program is attached to: `driver` or `generic`.";
}

/// What NLB counts where we stop a packet for this reason.
pub const fn cloudwatch_of(stop: Stop) -> Option<&'static str> {
    Some(match stop {
        Stop::PortAllocationError => "PortAllocationErrorCount",
        Stop::BlockedTcp => "SecurityGroupBlockedFlowCount_Inbound_TCP",
        Stop::BlockedUdp => "SecurityGroupBlockedFlowCount_Inbound_UDP",
        Stop::Stray | Stop::IdleExpired | Stop::Terminated => {
            "TCP_ELB_Reset_Count (unless the segment is dropped silently)"
        }
        Stop::NoTarget
        | Stop::FlowTableFull
        | Stop::NewFlowLimit
        | Stop::SourceFlowLimit
        | Stop::ActiveFlowLimit
        | Stop::SourceActiveLimit => "RejectedFlowCount",
        _ => return None,
    })
}

/// The table of the reference, as Markdown.
pub fn reference() -> String {
    let mut text = String::from(
        "| Metric | Kind | Labels | NLB in CloudWatch | Meaning |\n|---|---|---|---|---|\n",
    );
    for metric in ALL {
        let quoted = |words: Vec<&str>| {
            let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
            quoted.join(", ")
        };
        let _infallible = writeln!(
            text,
            "| `{}{}` | {} | {} | {} | {} |",
            metric.name,
            metric.kind.suffix(),
            metric.kind.name(),
            quoted(metric.labels.to_vec()),
            metric.cloudwatch,
            metric.meaning,
        );
    }
    text
}

/// The table of stops that NLB counts, too.
pub fn stops_reference() -> String {
    let mut text = String::from("| `stop` | NLB in CloudWatch |\n|---|---|\n");
    for stop in Stop::ALL {
        if let Some(name) = cloudwatch_of(*stop) {
            let _infallible = writeln!(text, "| `{}` | {name} |", stop.name());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ours_and_unique_and_say_their_unit_last() {
        for (index, metric) in ALL.iter().enumerate() {
            let name = metric.name;
            assert!(name.starts_with("nlb_"), "{name}");
            let is_plain = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(name.chars().all(is_plain), "{name}");
            assert!(
                !name.ends_with("_total") && !name.ends_with("_info"),
                "{name}"
            );
            assert!(
                ALL[..index].iter().all(|other| other.name != name),
                "{name}"
            );
            assert!(metric.meaning.ends_with('.'), "{name}");
            if metric.kind == Kind::Histogram {
                assert!(name.ends_with("_seconds"), "{name}");
            }
        }
    }
}
