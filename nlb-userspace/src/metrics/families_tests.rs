//! What becomes of a snapshot, sample by sample and as text.

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;

use super::*;
use crate::{
    health::ProbeOutcome,
    metrics::{Changes, MapFill, Own, render},
};

fn target(port: u16, state: &str) -> serde_json::Value {
    json!({
        "address": "10.0.0.11", "port": port, "weight": 1, "effective_weight": 0.5, "state": state,
        "next_hop": { "state": "resolved" }, "active_flows": 4,
        "packets": 7, "bytes": 700, "return_packets": 5, "return_bytes": 500, "new_flows": 2,
        "unpinned_packets": 0,
    })
}

fn snapshot(targets: usize) -> Snapshot {
    let all_states = ["healthy", "unhealthy", "unhealthy.draining", "draining"];
    let targets: Vec<_> = (1..=targets)
        .map(|port| {
            target(
                u16::try_from(port).unwrap(),
                all_states[(port - 1) % all_states.len()],
            )
        })
        .collect();
    let status = json!({
        "version": "1.2.3", "generation": 9, "started_at_unix_seconds": 1_700_000_000,
        "uptime_seconds": 1.5, "config": "nlb.toml", "adopted": true,
        "interfaces": [{ "name": "e\"0", "index": 2, "xdp_mode": "driver" }],
        "flows": { "active": 3, "capacity": 1024 },
        "load_balancers": [{ "name": "edge", "addresses": ["192.0.2.10"], "listeners": [{
            "name": "edge/TCP/80", "protocol": "TCP", "port": 80, "addresses": ["192.0.2.10"],
            "target_groups": [], "hash": "five_tuple", "active_flows": 3, "packets": 70,
            "bytes": 7000, "return_packets": 50, "return_bytes": 5000, "new_flows": 20,
            "unpinned_packets": 1,
        }] }],
        "target_groups": [{
            "name": "web", "protocol": "TCP", "mode": "nat", "fail_open": false, "available": true,
            "targets": targets,
        }],
        "early_fragments": { "kept": 3, "sent_on": 2, "given_up": 1 },
        "stops": [{ "name": "stray", "count": 6, "verdict": "drop", "meaning": "" }],
        "warnings": ["one"],
    });
    let mut probes = ProbeStatistics::default();
    for millis in [2, 30] {
        let latency = Duration::from_millis(millis);
        probes.count(&ProbeOutcome::Passed { latency });
    }
    Snapshot {
        status: serde_json::from_value(status).unwrap(),
        own: Own {
            is_live: true,
            changes: Changes {
                done: 2,
                refused: 0,
            },
            maps: vec![MapFill {
                map: "targets",
                used: 4,
                capacity: 4096,
            }],
            ..Own::default()
        },
        probes: vec![("web".to_owned(), probes)],
    }
}

#[test]
fn every_metric_of_the_catalogue_has_a_sample_with_all_of_its_labels() {
    for family in of(&snapshot(4)) {
        let name = family.metric.name;
        assert!(!family.samples.is_empty(), "{name}");
        let mut seen = BTreeSet::new();
        for sample in &family.samples {
            assert_eq!(sample.labels.len(), family.metric.labels.len(), "{name}");
            assert!(seen.insert(sample.labels.clone()), "{name}: {sample:?}");
        }
    }
}

#[test]
fn the_text_is_what_a_scraper_reads() {
    let text = render(&snapshot(4));
    for line in [
        "# TYPE nlb_listener_packets counter",
        "nlb_listener_packets_total{load_balancer=\"edge\",listener=\"edge/TCP/80\",protocol=\"TCP\",direction=\"to_client\"} 50",
        "nlb_target_group_healthy_targets{target_group=\"web\"} 1.0",
        "nlb_target_group_unhealthy_targets{target_group=\"web\"} 2.0",
        "nlb_target_effective_weight{target_group=\"web\",target=\"10.0.0.11:2\"} 0.5",
        "nlb_target_group_probe_latency_seconds_bucket{le=\"0.0025\",target_group=\"web\"} 1",
        "nlb_target_group_probe_latency_seconds_bucket{le=\"+Inf\",target_group=\"web\"} 2",
        "nlb_target_group_probe_latency_seconds_count{target_group=\"web\"} 2",
        "nlb_stops_total{stop=\"stray\",verdict=\"drop\"} 6",
        "nlb_build_info{version=\"1.2.3\",map_layout=\"4\"} 1",
        "nlb_interface_info{interface=\"e\\\"0\",xdp_mode=\"driver\"} 1",
        "nlb_generation 9.0",
        "nlb_map_capacity{map=\"targets\"} 4096.0",
    ] {
        let line = line.replace(
            "\"4\"",
            &format!("\"{}\"", nlb_common::maps::LAYOUT_VERSION),
        );
        assert!(
            text.lines().any(|written| written == line),
            "no {line} in\n{text}"
        );
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn an_answer_has_no_more_targets_than_it_may_and_says_how_many_are_missing() {
    let families = of(&snapshot(MOST_TARGETS + 3));
    let of = |metric: &Metric| {
        let family = families.iter().find(|family| family.metric == metric);
        &family.unwrap().samples
    };
    assert_eq!(of(&c::TARGET_HEALTHY).len(), MOST_TARGETS);
    assert_eq!(of(&c::TARGETS_LEFT_OUT)[0].value, Value::Gauge(3.0));
    // What is of the group counts them all.
    let all = (MOST_TARGETS + 3).measure();
    assert_eq!(of(&c::GROUP_TARGETS)[0].value, Value::Gauge(all));
}
