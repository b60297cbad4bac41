//! When targets are asked, and by whom.

use std::time::Duration;

use proptest::prelude::*;
use tokio::{
    net::TcpListener,
    time::{Instant, timeout},
};

use super::*;
use crate::health::{CheckProtocol, ProbeFailure};

const LONG: Duration = Duration::from_secs(30);

fn tcp() -> Arc<Check> {
    Arc::new(Check {
        protocol: CheckProtocol::Tcp,
        through: None,
        timeout: LONG,
    })
}

#[tokio::test(start_paused = true)]
async fn a_late_round_comes_at_once_and_the_next_on_the_grid_again() {
    let start = Instant::now();
    let phase = Duration::from_millis(50);
    let mut rounds = rounds(start, phase, Duration::from_secs(10), start);
    let mut seen = Vec::new();
    // The second round overruns its interval.
    for takes in [3, 25, 3, 3, 3] {
        rounds.tick().await;
        seen.push(start.elapsed().as_millis());
        tokio::time::sleep(Duration::from_secs(takes)).await;
    }
    assert_eq!(seen, [50, 10_050, 35_050, 40_050, 50_050]);
}

#[test]
fn the_points_of_many_targets_are_spread_over_the_whole_interval() {
    let interval = Duration::from_secs(10);
    let mut tenths = [0; 10];
    for key in 0..10_000_u32 {
        let mut hasher = Xxh64::new(0);
        ("node", key).hash(&mut hasher);
        let phase = fraction(interval, hasher.finish());
        assert!(phase < interval);
        tenths[usize::try_from(phase.as_secs()).expect("a few seconds")] += 1;
    }
    assert!(
        tenths.iter().all(|count| (800..1200).contains(count)),
        "{tenths:?}"
    );
}

proptest! {
    #[test]
    fn the_next_round_comes_within_an_interval_and_on_the_grid(
        phase in 0..1000_u64,
        interval in 1..300_000_u64,
        elapsed in 0..10_000_000_u64,
    ) {
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
        let _guard = runtime.enter();
        let epoch = Instant::now();
        let interval = Duration::from_millis(interval);
        let phase = Duration::from_millis(phase).min(interval.saturating_sub(Duration::from_millis(1)));
        let now = epoch + Duration::from_millis(elapsed);
        let mut rounds = rounds(epoch, phase, interval, now);
        // `reset_*` aside, an interval's next tick is what a poll at its time would give.
        let next = runtime.block_on(async {
            tokio::time::pause();
            rounds.tick().await
        });
        prop_assert!(next > now && next <= now + interval.max(phase));
        let since = next - (epoch + phase);
        prop_assert_eq!(since.as_nanos() % interval.as_nanos(), 0);
    }
}

fn prober<K: Clone + Hash + Send + Sync + 'static>(
    outcomes: mpsc::Sender<Observation<K>>,
) -> Prober<K> {
    let mut prober = Prober::new(outcomes).expect("a runtime");
    prober.begin().expect("a thread");
    prober
}

#[tokio::test]
async fn nobody_is_asked_before_the_thread_begins_and_then_everybody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let target = listener.local_addr().expect("an address");
    let (outcomes, mut received) = mpsc::channel(8);
    let mut prober = Prober::new(outcomes.clone()).expect("a runtime");
    let _guards = [1, 2].map(|key| prober.spawn(key, tcp(), target, LONG));
    let early = timeout(Duration::from_millis(50), received.recv()).await;
    assert!(early.is_err(), "{early:?}");
    prober.begin().expect("a thread");
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 2 {
        seen.insert(received.recv().await.expect("a sender").key);
    }
    // One that never begins ends without a word, among other tasks, too.
    drop(Prober::new(outcomes).expect("a runtime"));
}

#[tokio::test]
async fn outcomes_arrive_with_their_key_until_the_guard_is_dropped() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let target = listener.local_addr().expect("an address");
    let (outcomes, mut received) = mpsc::channel(1);
    let prober = prober(outcomes);
    let guard = prober.spawn("a target", tcp(), target, Duration::from_millis(5));
    for _ in 0..3 {
        let seen = timeout(LONG, received.recv())
            .await
            .expect("in time")
            .expect("a sender");
        assert_eq!(seen.key, "a target");
        assert!(
            matches!(seen.outcome, ProbeOutcome::Passed { .. }),
            "{seen:?}"
        );
    }
    drop(guard);
    drop(prober);
    // Nobody sends any more: the channel ends after what was already in it.
    let end = async { while received.recv().await.is_some() {} };
    timeout(LONG, end).await.expect("the thread ends");
}

#[tokio::test]
async fn routine_wakes_nobody_and_a_failure_comes_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let target = listener.local_addr().expect("an address");
    let (outcomes, mut received) = mpsc::channel(64);
    let mut prober = Prober::new(outcomes).expect("a runtime").keep_routine();
    prober.begin().expect("a thread");
    let _guard = prober.spawn((), tcp(), target, Duration::from_millis(2));
    let passed = |seen: &Observation<()>| matches!(seen.outcome, ProbeOutcome::Passed { .. });
    for _ in 0..ROUTINE_AFTER {
        assert!(passed(&received.recv().await.expect("a sender")));
    }
    let mut routine = Vec::new();
    while routine.len() < 3 {
        tokio::task::yield_now().await;
        routine.extend(prober.routine());
    }
    assert!(routine.iter().all(passed));
    assert!(received.is_empty(), "nobody is woken");
    drop(listener);
    let first = received.recv().await.expect("a sender");
    assert!(!passed(&first));
    routine.extend(prober.routine());
    assert!(
        routine
            .iter()
            .all(|seen| passed(seen) && seen.at <= first.at)
    );
}

#[tokio::test]
async fn a_target_under_suspicion_is_asked_before_its_time_until_enough_failures_are_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let target = listener.local_addr().expect("an address");
    let (outcomes, mut received) = mpsc::channel(8);
    let prober = prober(outcomes);
    // Long enough that no round of the grid comes.
    let guard = prober.spawn((), tcp(), target, Duration::from_hours(100));
    let passed = |seen: Option<Observation<()>>| match seen.expect("a sender").outcome {
        ProbeOutcome::Passed { .. } => true,
        ProbeOutcome::Failed { reason } => {
            assert_eq!(reason, ProbeFailure::Refused);
            false
        }
    };
    assert!(passed(received.recv().await));
    // One that is well is asked once.
    guard.suspect(3);
    assert!(passed(received.recv().await));
    drop(listener);
    guard.suspect(3);
    for _ in 0..3 {
        assert!(!passed(received.recv().await));
    }
    let more = timeout(SUSPECT_EVERY * 3, received.recv()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test]
async fn first_probes_of_many_targets_are_paced() {
    let (outcomes, _received) = mpsc::channel::<Observation<u32>>(1);
    let prober = prober(outcomes);
    let first = prober.turn();
    let last = (0..100).map(|_| prober.turn()).last().expect("a turn");
    assert!(last >= first + PACE * 99);
}
