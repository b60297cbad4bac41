//! Asks a target again and again: one task for each target, until its guard is dropped.

use std::{
    hash::{Hash, Hasher as _},
    net::SocketAddr,
    time::Duration,
};

use tokio::{
    sync::mpsc,
    task::AbortHandle,
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};
use xxhash_rust::xxh64::Xxh64;

use super::{Check, ProbeOutcome, probe::probe};

/// First probes are spread over this time, so that a config of a thousand targets does not send a
/// thousand SYNs at once, and later rounds keep that spread. Short, because a new target takes no
/// flows before its first check.
const SPREAD: Duration = Duration::from_millis(100);

/// The least time between two probes of a target, for an interval of 0.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

/// A target's probes. Dropping it stops them, the one under way included.
#[derive(Debug)]
#[must_use = "dropping it stops the probes"]
pub struct Probes(AbortHandle);

impl Drop for Probes {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Probes `target` from now on, every `interval` and without drift, and sends what comes of it to
/// `outcomes`. The first probe comes within 100 ms, at a point that follows from `key`.
///
/// When a probe takes longer than the interval, or the receiver does not keep up, one round comes
/// late and those missed with it are skipped, not made up for. The probes end when the receiver is
/// gone.
///
/// Needs a tokio runtime around it, with I/O and time.
pub fn spawn<K>(
    key: K,
    check: Check,
    target: SocketAddr,
    interval: Duration,
    outcomes: mpsc::Sender<(K, ProbeOutcome)>,
) -> Probes
where
    K: Clone + Hash + Send + Sync + 'static,
{
    let mut rounds = rounds(Instant::now() + delay_of_first(&key, interval), interval);
    let task = async move {
        loop {
            rounds.tick().await;
            let outcome = probe(&check, target).await;
            if outcomes.send((key.clone(), outcome)).await.is_err() {
                return;
            }
        }
    };
    Probes(tokio::spawn(task).abort_handle())
}

/// When the first probe comes: anywhere in [`SPREAD`], or in a shorter interval.
fn delay_of_first(key: &impl Hash, interval: Duration) -> Duration {
    let mut hasher = Xxh64::new(0);
    key.hash(&mut hasher);
    // The hash as a fraction of one, in 2^-32.
    let spread = u64::try_from(interval.min(SPREAD).as_nanos()).unwrap_or(0);
    Duration::from_nanos(((hasher.finish() >> 32) * spread) >> 32)
}

/// When to probe: at `first` and every `interval` after it; of rounds missed, one comes at
/// once and the others not at all.
fn rounds(first: Instant, interval: Duration) -> Interval {
    let mut rounds = interval_at(first, interval.max(SHORTEST_INTERVAL));
    rounds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    rounds
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::{net::TcpListener, time::timeout};

    use super::*;
    use crate::health::CheckProtocol;

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_late_round_comes_at_once_and_the_next_on_the_grid_again() {
        let start = Instant::now();
        let mut rounds = rounds(start + Duration::from_millis(50), Duration::from_secs(10));
        let mut seen = Vec::new();
        // The second round overruns its interval.
        for takes in [3, 25, 3, 3, 3] {
            rounds.tick().await;
            seen.push(start.elapsed().as_millis());
            tokio::time::sleep(Duration::from_secs(takes)).await;
        }
        assert_eq!(seen, [50, 10_050, 35_050, 40_050, 50_050]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_interval_of_zero_is_not_a_panic() {
        rounds(Instant::now(), Duration::ZERO).tick().await;
    }

    #[test]
    fn first_probes_of_many_targets_are_spread() {
        let interval = Duration::from_secs(10);
        let early = (0..1000_u32)
            .filter(|key| delay_of_first(key, interval) < SPREAD / 2)
            .count();
        assert!(
            (400..600).contains(&early),
            "{early} of 1000 in the first half"
        );
    }

    proptest! {
        #[test]
        fn the_first_probe_comes_within_100_ms_and_the_interval_at_a_point_of_the_key(
            key in any::<u64>(),
            interval in 0..300_000_u64,
        ) {
            let interval = Duration::from_millis(interval);
            let delay = delay_of_first(&key, interval);
            prop_assert!(delay <= SPREAD && delay <= interval);
            prop_assert_eq!(delay, delay_of_first(&key, interval));
        }
    }

    #[tokio::test]
    async fn outcomes_arrive_with_their_key_until_the_guard_is_dropped() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let target = listener.local_addr().expect("an address");
        let check = Check {
            protocol: CheckProtocol::Tcp,
            timeout: LONG,
        };
        let (outcomes, mut received) = mpsc::channel(1);
        let probes = spawn(
            "a target",
            check,
            target,
            Duration::from_millis(5),
            outcomes,
        );
        for _ in 0..3 {
            let (key, outcome) = timeout(LONG, received.recv())
                .await
                .expect("in time")
                .expect("a sender");
            assert_eq!(key, "a target");
            assert!(
                matches!(outcome, ProbeOutcome::Passed { .. }),
                "{outcome:?}"
            );
        }
        drop(probes);
        // The task owned the only sender: the channel ends after what was already in it.
        let end = async { while received.recv().await.is_some() {} };
        timeout(LONG, end).await.expect("the task ends");
    }
}
