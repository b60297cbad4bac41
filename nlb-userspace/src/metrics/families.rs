//! From a snapshot to samples.

use super::{
    Snapshot,
    catalogue::{self as c, Metric},
    probes::ProbeStatistics,
};
use crate::status::{Counters, Listener, Status, Target, TargetGroup};

/// Targets that have series of their own. Each has a dozen; with this many an answer has some ten
/// megabytes, which is as much as a scrape should have.
pub const MOST_TARGETS: usize = 10_000;

/// All samples of a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// The metric.
    pub metric: &'static Metric,
    /// Its samples; of the same labels, once.
    pub samples: Vec<Sample>,
}

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The labels' values, in the order of the metric's names.
    pub labels: Vec<String>,
    /// What was counted.
    pub value: Value,
}

/// A number.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// How often.
    Counter(u64),
    /// How much.
    Gauge(f64),
    /// How long, each time.
    Histogram(ProbeStatistics),
    /// Nothing but its labels.
    Info,
}

/// Every family, those without a sample among them.
pub fn of(snapshot: &Snapshot) -> Vec<Family> {
    let mut families = Families(
        (c::ALL.iter())
            .map(|metric| Family {
                metric,
                samples: Vec::new(),
            })
            .collect(),
    );
    let status = &snapshot.status;
    for balancer in &status.load_balancers {
        for listener in &balancer.listeners {
            families.listener(&balancer.name, listener);
        }
    }
    let mut room = MOST_TARGETS;
    for group in &status.target_groups {
        families.group(group);
        for target in group.targets.iter().take(room) {
            families.target(&group.name, target);
        }
        room = room.saturating_sub(group.targets.len());
    }
    let targets: usize = (status.target_groups.iter())
        .map(|group| group.targets.len())
        .sum();
    families.gauge(
        &c::TARGETS_LEFT_OUT,
        &[],
        targets.saturating_sub(MOST_TARGETS),
    );
    for (group, found) in &snapshot.probes {
        let labels = [group.as_str()];
        families.add(&c::GROUP_PROBE_LATENCY, &labels, Value::Histogram(*found));
        families.counter(&c::GROUP_PROBE_FAILURES, &labels, found.failed());
    }
    families.data_plane(status);
    families.own(snapshot);
    families.0
}

struct Families(Vec<Family>);

impl Families {
    fn add(&mut self, metric: &Metric, labels: &[&str], value: Value) {
        if let Some(family) = self.0.iter_mut().find(|family| family.metric == metric) {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            family.samples.push(Sample { labels, value });
        }
    }

    fn counter(&mut self, metric: &Metric, labels: &[&str], count: u64) {
        self.add(metric, labels, Value::Counter(count));
    }

    fn gauge(&mut self, metric: &Metric, labels: &[&str], value: impl Measure) {
        self.add(metric, labels, Value::Gauge(value.measure()));
    }

    fn listener(&mut self, balancer: &str, listener: &Listener) {
        let (name, protocol) = (listener.name.as_str(), listener.protocol.as_str());
        let labels = [balancer, name, protocol];
        let ways = ways(&listener.counters);
        for (way, packets, bytes) in ways {
            let labels = [balancer, name, protocol, way];
            self.counter(&c::LISTENER_PACKETS, &labels, packets);
            self.counter(&c::LISTENER_BYTES, &labels, bytes);
        }
        let counters = &listener.counters;
        self.counter(&c::LISTENER_NEW_FLOWS, &labels, counters.new_flows);
        self.gauge(&c::LISTENER_ACTIVE_FLOWS, &labels, listener.active_flows);
        let unpinned = counters.unpinned_packets;
        self.counter(&c::LISTENER_UNPINNED_PACKETS, &labels, unpinned);
    }

    fn group(&mut self, group: &TargetGroup) {
        let labels = [group.name.as_str()];
        let targets = group.targets.iter();
        let in_state = |is_it: fn(&str) -> bool| {
            let these = targets.clone().filter(|target| is_it(&target.state));
            these.count()
        };
        self.gauge(&c::GROUP_TARGETS, &labels, group.targets.len());
        self.gauge(&c::GROUP_HEALTHY, &labels, in_state(is_healthy));
        let unhealthy = in_state(|state| state.starts_with("unhealthy"));
        self.gauge(&c::GROUP_UNHEALTHY, &labels, unhealthy);
        self.gauge(&c::GROUP_AVAILABLE, &labels, group.available);
        self.gauge(&c::GROUP_FAIL_OPEN, &labels, group.fail_open);
    }

    fn target(&mut self, group: &str, target: &Target) {
        let name = std::net::SocketAddr::new(target.address, target.port).to_string();
        let labels = [group, &name];
        self.gauge(&c::TARGET_HEALTHY, &labels, is_healthy(&target.state));
        self.gauge(&c::TARGET_WEIGHT, &labels, target.effective_weight);
        let is_resolved = target.next_hop.state == "resolved";
        self.gauge(&c::TARGET_RESOLVED, &labels, is_resolved);
        for (way, packets, bytes) in ways(&target.counters) {
            let labels = [group, &name, way];
            self.counter(&c::TARGET_PACKETS, &labels, packets);
            self.counter(&c::TARGET_BYTES, &labels, bytes);
        }
        self.counter(&c::TARGET_NEW_FLOWS, &labels, target.counters.new_flows);
        self.gauge(&c::TARGET_ACTIVE_FLOWS, &labels, target.active_flows);
        self.gauge(&c::TARGET_SNAT_PORTS, &labels, target.snat_ports_in_use);
    }

    fn data_plane(&mut self, status: &Status) {
        for stop in &status.stops {
            self.counter(&c::STOPS, &[&stop.name, &stop.verdict], stop.count);
        }
        self.gauge(&c::FLOWS, &[], status.flows.active);
        self.gauge(&c::FLOW_CAPACITY, &[], status.flows.capacity);
        let early = &status.early_fragments;
        for (outcome, count) in [
            ("kept", early.kept),
            ("sent_on", early.sent_on),
            ("given_up", early.given_up),
        ] {
            self.counter(&c::EARLY_FRAGMENTS, &[outcome], count);
        }
        for interface in &status.interfaces {
            let labels = [interface.name.as_str(), &interface.xdp_mode];
            self.add(&c::INTERFACE, &labels, Value::Info);
        }
    }

    fn own(&mut self, snapshot: &Snapshot) {
        let Snapshot { status, own, .. } = snapshot;
        for fill in &own.maps {
            self.gauge(&c::MAP_ENTRIES, &[fill.map], fill.used);
            self.gauge(&c::MAP_CAPACITY, &[fill.map], fill.capacity);
        }
        let layout = nlb_common::maps::LAYOUT_VERSION.to_string();
        self.add(&c::BUILD, &[&status.version, &layout], Value::Info);
        self.gauge(&c::START_TIME, &[], status.started_at_unix_seconds);
        self.gauge(&c::UPTIME, &[], status.uptime_seconds);
        self.gauge(&c::ADOPTED, &[], status.adopted);
        self.gauge(&c::GENERATION, &[], status.generation);
        self.gauge(&c::LIVE, &[], own.is_live);
        self.counter(&c::CHANGES, &["done"], own.changes.done);
        self.counter(&c::CHANGES, &["refused"], own.changes.refused);
        self.counter(&c::LOG_MESSAGES, &["warn"], own.logged.warnings);
        self.counter(&c::LOG_MESSAGES, &["error"], own.logged.errors);
        self.counter(&c::LOG_LOST, &[], own.logged.lost);
        self.gauge(&c::WARNINGS, &[], status.warnings.len());
    }
}

fn is_healthy(state: &str) -> bool {
    state == "healthy"
}

/// Both directions, with their packets and bytes.
const fn ways(counters: &Counters) -> [(&'static str, u64, u64); 2] {
    [
        ("to_target", counters.packets, counters.bytes),
        ("to_client", counters.return_packets, counters.return_bytes),
    ]
}

/// What a gauge can show.
trait Measure {
    fn measure(self) -> f64;
}

impl Measure for f64 {
    fn measure(self) -> f64 {
        self
    }
}

impl Measure for bool {
    fn measure(self) -> f64 {
        f64::from(u8::from(self))
    }
}

impl Measure for u64 {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    fn measure(self) -> f64 {
        self as f64
    }
}

impl Measure for usize {
    fn measure(self) -> f64 {
        (self as u64).measure()
    }
}

#[cfg(test)]
#[path = "families_tests.rs"]
mod tests;
