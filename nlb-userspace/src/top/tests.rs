//! Looks and keys, and what they look like.

use std::time::Duration;

use ratatui::{Terminal, backend::TestBackend, crossterm::event::KeyCode};
use serde_json::json;

use super::{
    super::state::{Asked, Sort, State},
    draw,
};
use crate::status::Status;

/// A status after so many seconds of steady traffic; the second target has four times the first's.
fn status(seconds: u64) -> Status {
    let counters = |share: u64| {
        json!({ "packets": 600 * share * seconds, "bytes": 60_000 * share * seconds,
            "return_packets": 400 * share * seconds, "return_bytes": 65_000 * share * seconds,
            "new_flows": 5 * share * seconds, "unpinned_packets": 0 })
    };
    let with = |mut value: serde_json::Value, share: u64| {
        let counted = counters(share);
        let counted = counted.as_object().unwrap().clone();
        value.as_object_mut().unwrap().extend(counted);
        value
    };
    let target = |last: u8, state: &str, share: u64| {
        let value = json!({ "address": format!("10.0.0.{last}"), "port": 80, "weight": 1,
            "effective_weight": 1.0, "state": state, "next_hop": { "state": "resolved" },
            "active_flows": 10 * share, "probe_latency_seconds": 0.0012 });
        with(value, share)
    };
    serde_json::from_value(json!({
        "version": "0.1.0", "generation": 12, "started_at_unix_seconds": 0, "uptime_seconds": 1.0,
        "config": "nlb.toml", "adopted": false, "interfaces": [],
        "flows": { "active": 50, "capacity": 65536 },
        "load_balancers": [{ "name": "edge", "addresses": [], "listeners": [with(json!({
            "name": "edge/TCP/80", "protocol": "TCP", "port": 80, "addresses": [],
            "target_groups": [], "hash": "five_tuple", "active_flows": 50 }), 5)] }],
        "target_groups": [{ "name": "web", "protocol": "TCP", "mode": "nat", "fail_open": false,
            "available": true,
            "targets": [target(11, "healthy", 1), target(12, "unhealthy", 4)] }],
        "early_fragments": { "kept": 0, "sent_on": 0, "given_up": 0 },
        "stops": [{ "name": "stray", "count": 3 * seconds, "verdict": "drop", "meaning": "" },
                  { "name": "too_big", "count": 7, "verdict": "drop", "meaning": "" }],
        "warnings": ["one"],
    }))
    .unwrap()
}

/// What is seen after two seconds.
fn seen() -> State {
    let mut state = State::new(&status(0), Duration::ZERO);
    for seconds in 1..=2 {
        state.take(&status(seconds), Duration::from_secs(seconds));
    }
    state
}

fn drawn(state: &State) -> String {
    let mut terminal = Terminal::new(TestBackend::new(100, 24)).unwrap();
    terminal.draw(|frame| draw(state, frame)).unwrap();
    terminal.backend().to_string()
}

fn names(state: &State) -> Vec<String> {
    state.targets().iter().map(|row| row.name.clone()).collect()
}

#[test]
fn rates_history_health_and_stops_are_there_to_read() {
    let text = drawn(&seen());
    for part in [
        "nlb 0.1.0  generation 12  flows 50 of 65536  warnings 1",
        "packets/s  now 5.0k  most 5.0k",
        "stops/s: stray 3.0",
        "q quit  s sort: packets",
    ] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    let line = |name: &str| {
        text.lines()
            .find(|line| line.contains(name))
            .unwrap()
            .to_owned()
    };
    // 5,000 packets of 125 bytes on average are 5 Mbit/s.
    for part in ["5.0k", "5.0M", "25", "50"] {
        assert!(line("edge/TCP/80").contains(part), "{text}");
    }
    for part in ["web", "unhealthy", "4.0k", "4.0M", "20", "40", "1.2ms"] {
        assert!(line("10.0.0.12:80").contains(part), "{text}");
    }
    assert!(!text.contains("too_big"), "it does not happen now:\n{text}");
}

#[test]
fn a_first_look_has_no_rates_and_a_counter_that_went_back_none_either() {
    let mut state = State::new(&status(1000), Duration::ZERO);
    assert!(state.listeners().iter().all(|row| row.rates.packets == 0.0));
    assert!(state.history.is_empty());
    state.take(&status(0), Duration::from_secs(1));
    assert!(state.targets().iter().all(|row| row.rates.packets == 0.0));
}

#[test]
fn keys_sort_and_filter() {
    let mut state = seen();
    assert_eq!(names(&state), ["10.0.0.12:80", "10.0.0.11:80"]);
    for sort in [Sort::NewFlows, Sort::Flows, Sort::Latency, Sort::Name] {
        assert_eq!(state.key(KeyCode::Char('s')), Asked::Nothing);
        assert_eq!(state.sort, sort);
    }
    assert_eq!(names(&state), ["10.0.0.11:80", "10.0.0.12:80"]);
    // What is typed is no command.
    for key in "/unhealthyq".chars() {
        assert_eq!(state.key(KeyCode::Char(key)), Asked::Nothing);
    }
    assert_eq!(names(&state), [""; 0]);
    state.key(KeyCode::Backspace);
    assert!(drawn(&state).contains("filter: unhealthy_"));
    state.key(KeyCode::Enter);
    assert_eq!(names(&state), ["10.0.0.12:80"]);
    for key in [KeyCode::Char('/'), KeyCode::Esc] {
        state.key(key);
    }
    assert_eq!(names(&state).len(), 2);
    assert_eq!(state.key(KeyCode::Char('q')), Asked::Quit);
}

#[test]
fn a_target_is_drained_when_asked_twice_and_only_then() {
    let mut state = seen();
    state.key(KeyCode::Down);
    state.key(KeyCode::Down);
    state.key(KeyCode::Char('d'));
    assert!(drawn(&state).contains("drain 10.0.0.11:80 of web? y: yes"));
    assert_eq!(state.key(KeyCode::Char('n')), Asked::Nothing);
    assert_eq!(state.key(KeyCode::Char('y')), Asked::Nothing);
    state.key(KeyCode::Char('d'));
    let asked = state.key(KeyCode::Char('y'));
    let (group, target) = ("web".to_owned(), "10.0.0.11:80".to_owned());
    assert_eq!(asked, Asked::Drain { group, target });
    state.say("10.0.0.11:80 drains".to_owned());
    assert!(drawn(&state).contains("10.0.0.11:80 drains"));
}

#[test]
fn a_small_terminal_shows_what_fits() {
    for (width, height) in [(1, 1), (20, 5), (80, 24)] {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(&seen(), frame)).unwrap();
    }
}
