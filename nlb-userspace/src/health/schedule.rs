//! Asks targets again and again, on a thread of its own.
//!
//! A thread, so that ten thousand checks a second and the daemon's loop do not wait for each other.
//! In it, each target has a task; tokio's timer wheel wakes it and costs the same however many
//! there are.
//!
//! The first check of a target comes at once, since it takes no flows before it; of many new targets
//! one every [`PACE`]. From then on it is checked on a grid: every interval, at a point that follows
//! from the target and this node's name. So a group's checks are spread over the whole interval, and
//! the nodes of a fleet do not ask a target at the same moment.
//!
//! Whoever wants to know is woken by each outcome, unless it wants routine kept apart
//! ([`Prober::keep_routine`]): that a target is well which was well many times is no news.

use std::{
    hash::{Hash, Hasher as _},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::{Notify, Semaphore, mpsc, oneshot},
    task::AbortHandle,
    time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, sleep_until},
};
use xxhash_rust::xxh64::Xxh64;

use super::{Check, ProbeOutcome, probe::probe_within};

/// Between the first checks of targets that come together: ten thousand within half a second.
const PACE: Duration = Duration::from_micros(50);
/// The least time between two probes of a target, for an interval of 0.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);
/// Between the probes of a target under suspicion: a server that restarts at once is not taken for
/// dead.
const SUSPECT_EVERY: Duration = Duration::from_millis(10);
/// How long a target under suspicion may take to answer, at least.
const SUSPECT_PATIENCE: Duration = Duration::from_millis(40);
/// The same, as a multiple of the time that it takes otherwise.
const SUSPECT_LATENCIES: u32 = 4;
/// A target that was well so many times in a row is so by every threshold that there may be.
const ROUTINE_AFTER: u32 = 10;
/// Routine outcomes that are kept; more than come in a second.
const ROUTINE_ROOM: usize = 16_384;
/// Descriptors that probes leave to the rest of the daemon.
const OTHER_DESCRIPTORS: u64 = 1024;
/// Probes under way at a time, at least and at most.
const SLOTS: (u64, u64) = (64, 65_536);

/// What came of one probe of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation<K> {
    /// Which target.
    pub key: K,
    /// What came of it.
    pub outcome: ProbeOutcome,
    /// How much later than planned the probe began.
    pub lateness: Duration,
    /// When it came out.
    pub at: Instant,
}

/// The thread that probes. It ends, with all its probes, when this is dropped.
#[derive(Debug)]
pub struct Prober<K> {
    runtime: Handle,
    /// What the thread will run, until it does.
    waiting: Option<(Runtime, oneshot::Receiver<()>)>,
    outcomes: mpsc::Sender<Observation<K>>,
    /// Outcomes that are no news, if they are kept apart.
    routine: Option<Routine<K>>,
    /// Probes that may be under way at a time: each has a descriptor, and they are not endless.
    slots: Arc<Semaphore>,
    /// The grid's origin.
    epoch: Instant,
    /// When the next new target may be asked.
    next_first: Mutex<Instant>,
    node: String,
    _stop: oneshot::Sender<()>,
}

/// Outcomes that nobody is woken for.
type Routine<K> = Arc<Mutex<Vec<Observation<K>>>>;

/// A target's probes. Dropping it stops them, the one under way included.
#[derive(Debug)]
#[must_use = "dropping it stops the probes"]
pub struct Probes {
    task: AbortHandle,
    suspicion: Arc<Suspicion>,
}

/// What makes a target be asked before its time.
#[derive(Debug, Default)]
struct Suspicion {
    raised: Notify,
    /// How many failures in a row decide.
    failures: std::sync::atomic::AtomicU32,
}

impl Probes {
    /// Has the target asked now, and again and again until it answers or has failed so many times.
    /// It has less time for its answers than otherwise: a few times what they took before.
    pub fn suspect(&self, failures: u32) {
        self.suspicion
            .failures
            .store(failures, std::sync::atomic::Ordering::Relaxed);
        self.suspicion.raised.notify_one();
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<K: Clone + Hash + Send + Sync + 'static> Prober<K> {
    /// What probes find will go to `outcomes`. Nobody is asked before [`begin`](Self::begin).
    pub fn new(outcomes: mpsc::Sender<Observation<K>>) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let node = rustix::system::uname();
        Ok(Self {
            runtime: runtime.handle().clone(),
            waiting: Some((runtime, stopped)),
            outcomes,
            routine: None,
            slots: Arc::new(Semaphore::new(slots())),
            epoch: Instant::now(),
            next_first: Mutex::new(Instant::now()),
            node: node.nodename().to_string_lossy().into_owned(),
            _stop: stop,
        })
    }

    /// Keeps outcomes that are no news until [`routine`](Self::routine) asks for them.
    #[must_use]
    pub fn keep_routine(mut self) -> Self {
        self.routine = Some(Arc::default());
        self
    }

    /// What was kept: all of it came out before whatever is received after this call.
    pub fn routine(&self) -> Vec<Observation<K>> {
        let kept = self.routine.as_ref().map(|kept| {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *kept)
        });
        kept.unwrap_or_default()
    }

    /// Starts the thread, in the network namespace of the calling one and with no more rights than
    /// that has by now. Those whose probes were asked for before have their turn.
    pub fn begin(&mut self) -> io::Result<()> {
        let Some((runtime, stopped)) = self.waiting.take() else {
            return Ok(());
        };
        thread::Builder::new()
            .name("health".to_owned())
            .spawn(move || {
                // Until the sender is dropped; then the runtime is, and with it every task.
                let _dropped = runtime.block_on(stopped);
            })?;
        Ok(())
    }

    /// Probes `target` from now on, every `interval` and without drift.
    ///
    /// When a probe takes longer than the interval, or the receiver does not keep up, one round
    /// comes late and those missed with it are skipped, not made up for. The probes end when the
    /// receiver is gone.
    pub fn spawn(
        &self,
        key: K,
        check: Arc<Check>,
        target: SocketAddr,
        interval: Duration,
    ) -> Probes {
        let suspicion = Arc::<Suspicion>::default();
        let interval = interval.max(SHORTEST_INTERVAL);
        let mut hasher = Xxh64::new(0);
        (&self.node, &key).hash(&mut hasher);
        let phase = fraction(interval, hasher.finish());
        let subject = Subject {
            key,
            check,
            target,
            outcomes: self.outcomes.clone(),
            routine: self.routine.clone(),
            passed_in_a_row: 0,
            slots: Arc::clone(&self.slots),
            usual: None,
        };
        let first = self.turn();
        let epoch = self.epoch;
        let task = subject.run(
            first,
            move |now| rounds(epoch, phase, interval, now),
            Arc::clone(&suspicion),
        );
        Probes {
            task: self.runtime.spawn(task).abort_handle(),
            suspicion,
        }
    }

    /// When a new target is asked first.
    fn turn(&self) -> Instant {
        let mut next = self
            .next_first
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let turn = Instant::now().max(*next);
        *next = turn + PACE;
        turn
    }
}

impl<K> Drop for Prober<K> {
    fn drop(&mut self) {
        if let Some((runtime, _)) = self.waiting.take() {
            // Waiting for its end is not allowed where other tasks run.
            runtime.shutdown_background();
        }
    }
}

/// How many probes may be under way at a time, by the descriptors that this process may have; the
/// limit is raised as far as it may be.
fn slots() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Refused, the old one holds.
    let _refused = setrlimit(Resource::Nofile, limit);
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let slots = descriptors.saturating_sub(OTHER_DESCRIPTORS);
    usize::try_from(slots.clamp(SLOTS.0, SLOTS.1)).unwrap_or(usize::MAX)
}

/// A part of a time: the hash as a fraction of one, in 2^-32.
fn fraction(time: Duration, hash: u64) -> Duration {
    let nanos = (u128::from(hash >> 32) * time.as_nanos()) >> 32;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// When to probe: at the points of the grid after `now`. Of rounds missed, one comes at once and
/// the others not at all.
fn rounds(epoch: Instant, phase: Duration, interval: Duration, now: Instant) -> Interval {
    let elapsed = now.saturating_duration_since(epoch + phase);
    let passed = elapsed.as_nanos() / interval.as_nanos().max(1);
    let passed = u32::try_from(passed).unwrap_or(u32::MAX);
    let mut next = epoch + phase + interval.saturating_mul(passed);
    while next <= now {
        next += interval;
    }
    let mut rounds = interval_at(next, interval);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    rounds
}

/// A target and how it is asked.
struct Subject<K> {
    key: K,
    check: Arc<Check>,
    target: SocketAddr,
    outcomes: mpsc::Sender<Observation<K>>,
    routine: Option<Routine<K>>,
    passed_in_a_row: u32,
    slots: Arc<Semaphore>,
    /// How long it takes to answer: the mean of late, as TCP smooths its round trips (RFC 6298).
    usual: Option<Duration>,
}

impl<K: Clone> Subject<K> {
    async fn run(
        mut self,
        first: Instant,
        rounds: impl Fn(Instant) -> Interval,
        suspicion: Arc<Suspicion>,
    ) {
        sleep_until(first).await;
        if self.ask(first, self.check.timeout).await.is_none() {
            return;
        }
        let mut rounds = rounds(Instant::now());
        loop {
            let goes_on = tokio::select! {
                planned = rounds.tick() => self.ask(planned, self.check.timeout).await.is_some(),
                () = suspicion.raised.notified() => {
                    let failures = suspicion.failures.load(std::sync::atomic::Ordering::Relaxed);
                    self.ask_suspect(failures).await
                }
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Asks until there is an answer, or so many failures. Whether somebody wants to know more.
    async fn ask_suspect(&mut self, failures: u32) -> bool {
        let patience = self
            .usual
            .unwrap_or_default()
            .saturating_mul(SUSPECT_LATENCIES);
        let within = patience.max(SUSPECT_PATIENCE).min(self.check.timeout);
        for round in 0..failures.max(1) {
            if round > 0 {
                sleep(SUSPECT_EVERY).await;
            }
            match self.ask(Instant::now(), within).await {
                None => return false,
                Some(true) => break,
                Some(false) => {}
            }
        }
        true
    }

    /// Asks once, and says whether the target is well; nothing if nobody wants to know.
    async fn ask(&mut self, planned: Instant, within: Duration) -> Option<bool> {
        let slot = self.slots.acquire().await.ok()?;
        let lateness = planned.elapsed();
        let outcome = probe_within(&self.check, self.target, within).await;
        drop(slot);
        let latency = match &outcome {
            ProbeOutcome::Passed { latency } => Some(*latency),
            ProbeOutcome::Failed { .. } => None,
        };
        if let Some(latency) = latency {
            let usual = self.usual.unwrap_or(latency);
            self.usual = Some(usual.saturating_sub(usual / 8) + latency / 8);
        }
        let observation = Observation {
            key: self.key.clone(),
            outcome,
            lateness,
            at: Instant::now(),
        };
        self.passed_in_a_row = match latency {
            Some(_) => self.passed_in_a_row.saturating_add(1),
            None => 0,
        };
        if let Some(news) = self.keep(observation) {
            self.outcomes.send(news).await.ok()?;
        }
        Some(latency.is_some())
    }

    /// Keeps what is no news; hands back what is.
    fn keep(&self, observation: Observation<K>) -> Option<Observation<K>> {
        if self.passed_in_a_row <= ROUTINE_AFTER || self.outcomes.is_closed() {
            return Some(observation);
        }
        let Some(routine) = &self.routine else {
            return Some(observation);
        };
        let mut kept = routine.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= ROUTINE_ROOM {
            return Some(observation);
        }
        kept.push(observation);
        None
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
