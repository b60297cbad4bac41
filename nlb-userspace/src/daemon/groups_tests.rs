//! Which targets start slowly, and what a group's state makes of its weights.

use super::*;
use crate::{
    config,
    health::{ProbeFailure, ProbeOutcome},
};

const GROUP: &str = "web";

/// A file with one group of these targets, all in slow start for 100 s when they may be.
fn desired(targets: &[u8]) -> Desired {
    let targets: Vec<String> = targets
        .iter()
        .map(|last| format!("[[target_group.target]]\naddress = \"10.0.0.{last}\"\n"))
        .collect();
    let text = format!(
        "[node]\ninterfaces = [\"eth0\"]\n\
         [[load_balancer]]\nname = \"edge\"\naddresses = [\"192.0.2.10\"]\n\
         [[load_balancer.listener]]\nprotocol = \"TCP\"\nport = 80\ntarget_group = \"{GROUP}\"\n\
         [[target_group]]\nname = \"{GROUP}\"\nprotocol = \"TCP\"\nport = 80\n\
         slow_start.duration_seconds = 100\nhealth_check.healthy_threshold_count = 2\n{}",
        targets.concat()
    );
    config::parse("nlb.toml", &text).expect("a good file")
}

struct World {
    groups: Groups,
}

impl World {
    fn new(targets: &[u8]) -> Self {
        let mut world = Self {
            groups: Groups::default(),
        };
        world.configure(targets, 0);
        world
    }

    fn configure(&mut self, targets: &[u8], seconds: u64) {
        let now = Duration::from_secs(seconds);
        let none = BTreeMap::new();
        self.groups.configure(&desired(targets), now, &none, None);
    }

    /// Enough checks of a target pass or fail for its state to change.
    fn checks(&mut self, last: u8, seconds: u64, passes: bool) {
        let key = (GROUP.to_owned(), SocketAddr::from(([10, 0, 0, last], 80)));
        for _ in 0..2 {
            let outcome = if passes {
                ProbeOutcome::Passed {
                    latency: Duration::ZERO,
                }
            } else {
                ProbeOutcome::Failed {
                    reason: ProbeFailure::Refused,
                }
            };
            (self.groups).observe(&key, Duration::from_secs(seconds), outcome);
        }
    }

    /// The weights that the group's ring is built from.
    fn weights(&self, seconds: u64) -> Vec<u16> {
        let group = &self.groups.list[0];
        group.weights(&group.selection(), Duration::from_secs(seconds))
    }

    /// Two targets that have been healthy from the beginning.
    fn running() -> Self {
        let mut world = Self::new(&[1, 2]);
        world.checks(1, 0, true);
        world.checks(2, 1, true);
        assert_eq!(world.weights(1), [1, 1], "the first targets of a group");
        world
    }
}

#[test]
fn a_target_that_joins_healthy_ones_starts_slowly() {
    let mut world = World::running();
    world.configure(&[1, 2, 3], 10);
    assert_eq!(world.weights(10), [1, 1, 0]);
    world.checks(3, 20, true);
    assert_eq!(world.weights(20), [10, 10, 1]);
    assert_eq!(world.weights(70), [10, 10, 5]);
    assert_eq!(world.weights(119), [10, 10, 9]);
    assert_eq!(world.weights(120), [1, 1, 1]);
    let shown = |seconds| {
        let group = &world.groups.list[0];
        group.effective_weights(&group.selection(), Duration::from_secs(seconds))
    };
    assert_eq!(shown(20), [1.0, 1.0, 0.1]);
    assert_eq!(shown(120), [1.0, 1.0, 1.0]);
}

#[test]
fn a_target_that_comes_back_starts_slowly_each_time() {
    let mut world = World::running();
    world.checks(2, 10, false);
    assert_eq!(world.weights(10), [1, 0]);
    world.checks(2, 20, true);
    assert_eq!(world.weights(70), [10, 5]);
    world.checks(2, 70, false);
    world.checks(2, 80, true);
    assert_eq!(world.weights(80), [10, 1]);
}

#[test]
fn nobody_starts_slowly_when_nobody_else_is_healthy() {
    let mut world = World::running();
    world.checks(2, 10, false);
    world.checks(2, 20, true);
    // The one that carried the rest fails.
    world.checks(1, 30, false);
    assert_eq!(world.weights(30), [0, 1]);
    // Nobody who is not in slow start himself is there for it.
    world.checks(1, 40, true);
    assert_eq!(world.weights(40), [10, 2]);
}

#[test]
fn targets_that_start_slowly_do_not_take_each_others_place() {
    let mut world = World::running();
    world.configure(&[1, 2, 3, 4], 10);
    world.checks(3, 20, true);
    world.checks(4, 70, true);
    assert_eq!(world.weights(70), [10, 10, 5, 1]);
    // The groups that time changes are known, as long as it does.
    for (seconds, is_stale) in [(82, true), (170, true), (171, false)] {
        let ticked = world.groups.tick(Duration::from_secs(seconds));
        assert_eq!(ticked.stale.contains(&0), is_stale, "{seconds} s");
    }
    assert_eq!(world.weights(171), [1, 1, 1, 1]);
}
