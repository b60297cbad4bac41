//! 6. The loop: something happens, the wish is made anew, and the plan carries it out.
//!
//! One task owns everything; what happens comes in through channels: probes' outcomes, the
//! network's changes, what the packet program tells, commands of the control socket, signals and
//! timers. Nothing is polled but the flow table, which is swept every few seconds, and, while early
//! fragments wait, the records that they wait for.

mod change;
mod features;
mod groups;
mod interfaces;
mod live;
mod network;
mod reading;
mod report;
mod suspicion;
mod sweeps;
mod warnings;
mod wish;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant, SystemTime},
};

use nlb_common::early::EarlyFragment;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::MissedTickBehavior,
};

pub use self::{
    change::{Request, Written},
    reading::Reading,
};
use self::{
    groups::{Adopted, Groups, Observation, Prober, TargetKey, Way},
    interfaces::{AttachedTo, Missing},
    live::Stale,
    suspicion::Suspicion,
    warnings::UsedUp,
};
use crate::{
    access::{
        Policy,
        directory::{self, DirectoryError},
    },
    api::tls::{self, Terms, TlsError},
    config::{Desired, Faults, Node},
    dataplane::{
        DataplaneError,
        early::EarlyFragments,
        events::Events,
        load::{self, Loaded},
        sweep::Sweep,
    },
    desk::{Desk, OpenError, Refused},
    early,
    events::{self, What, warnings::Warnings},
    flows::filter::{Filter, FilterError},
    health::{passive, state::Transition},
    log,
    metrics::{Changes, Snapshot},
    next_hop::{Change, NextHopError, Watch, book::Book},
    plan::{self, Actual, Limits, PlanError, Wish},
    secret::{self, SecretError},
    service::ServiceManager,
    status::{GroupHealth, Status},
};

/// How often the flow table is swept.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// How late a health check may begin before that is told, and how long until it is told again.
const LATE: Duration = Duration::from_secs(1);
const LATE_AGAIN: Duration = Duration::from_mins(1);
/// How often delays are looked at.
const TICK_EVERY: Duration = Duration::from_millis(200);

/// Why the daemon could not start, or could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration has faults.
    #[error(transparent)]
    Config(#[from] Faults),
    /// A change was refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// What was changed before cannot be had again.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The data plane failed.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
    /// The network could not be watched.
    #[error(transparent)]
    NextHop(#[from] NextHopError),
    /// The API over TCP has no certificate to show, or cannot judge those of clients.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The configuration names someone whom this host does not know.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A secret is missing.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The configuration does not fit.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A change that takes a restart.
    #[error(
        "{field} cannot change while the daemon runs; restart it (traffic goes on meanwhile){more}"
    )]
    NeedsRestart {
        /// The key of the configuration.
        field: &'static str,
        /// What else is needed.
        more: &'static str,
    },
    /// The ring buffer of events could not be waited for.
    #[error("cannot wait for the packet program's events: {0}")]
    Events(io::Error),
    /// Health checks could not be prepared.
    #[error("cannot prepare health checks: {0}")]
    Prober(io::Error),
    /// A signal could not be waited for.
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
}

/// What the control socket asks for.
pub enum Command {
    /// The status.
    Status(oneshot::Sender<Status>),
    /// To read the configuration file again.
    Reload(oneshot::Sender<Result<Written, DaemonError>>),
    /// What can be read of the document.
    Read(oneshot::Sender<Reading>),
    /// What monitoring sees.
    Metrics(oneshot::Sender<Snapshot>),
    /// How targets are.
    Health(oneshot::Sender<Vec<GroupHealth>>),
    /// To forget flows; how many there were.
    KillFlows(Filter, oneshot::Sender<Result<u64, FilterError>>),
    /// To change something.
    Change(Request, oneshot::Sender<Result<Written, DaemonError>>),
}

/// Everything that the daemon knows and holds.
pub struct Daemon {
    config_path: PathBuf,
    desk: Desk,
    desired: Desired,
    /// Whether the maps say what is desired; if not, the next tick tries again.
    is_live: bool,
    /// What may differ from what they say.
    stale: Stale,
    /// Whether there are no records but those that are wished.
    is_tidy: bool,
    /// When the first outcome of a check came that is not live yet.
    first_outcome: Option<Instant>,
    loaded: Loaded,
    actual: Actual,
    book: Book,
    watch: Watch,
    groups: Groups,
    wish: Wish,
    started: Instant,
    started_at: SystemTime,
    attached: Vec<AttachedTo>,
    sweeps: [Sweep; 2],
    last_wish_change: Instant,
    /// What became of the fragments that came before their first one.
    early: early::Counts,
    /// Whether the log has it that they could not be sent in again.
    has_lost_early: bool,
    prober: Prober,
    /// When it was last told that checks begin late.
    told_late: Option<Instant>,
    suspicion: Suspicion,
    /// Where what happens is told.
    events: events::Events,
    /// What was wrong at the last look.
    warnings: Warnings,
    /// What packets have met that is used up.
    used_up: UsedUp,
    /// Why the last change could not be kept.
    not_kept: Option<String>,
    /// How many changes were made and refused.
    changes: Changes,
    service: ServiceManager,
    /// Who may use the control socket.
    policy: watch::Sender<Arc<Policy>>,
    /// What the API over TCP shows and asks for, if there is one.
    terms: watch::Sender<Option<Terms>>,
    /// The generation that is live, for whoever may not wait for the loop.
    generation: Arc<AtomicU64>,
}

/// What comes in from outside.
pub struct Inputs {
    observations: mpsc::Receiver<Observation>,
    changes: mpsc::Receiver<Vec<Change>>,
    events: Events,
    early: EarlyFragments,
}

impl Daemon {
    /// Loads or adopts the data plane and makes the configuration live.
    pub async fn start(config_path: &Path) -> Result<(Self, Inputs), DaemonError> {
        let (desk, desired, notes) = Desk::open(config_path)?;
        for note in &notes {
            tracing::warn!("{note}");
        }
        for warning in &desired.warnings {
            tracing::warn!("{warning}");
        }
        let node = &desired.node;
        let folder = node.socket.parent().unwrap_or(Path::new("/run/nlb"));
        let deployment_secret = secret::deployment_key(&node.hash_key, folder)?;
        let policy = directory::policy(&desired.access)?;
        let terms = node.tcp_api.as_ref().map(tls::load).transpose()?;
        let (watch, changes) = Watch::start().await?;
        let table_secret: [u64; 4] = zerocopy::transmute!(secret::random()?);
        let pins = node.pins();
        let wanted = features::wanted(&desired);
        let mut loaded = load::load(&load::Request {
            bpffs: &node.bpffs,
            pins: &pins,
            capacity: node.capacity,
            features: wanted,
            secret: deployment_secret.bytes(),
            table_secret,
        })?;
        features::warn_of_what_is_kept(&loaded, wanted);
        loaded.forward_log();
        let found = loaded.maps.read()?;
        let (sender, observations) = mpsc::channel(4096);
        let prober = Prober::new(sender).map_err(DaemonError::Prober)?;
        let prober = prober.keep_routine();
        let events = Events::new(loaded.take_events()?).map_err(DaemonError::Events)?;
        let early = EarlyFragments::new(loaded.take_early()?).map_err(DaemonError::Events)?;
        let now = Instant::now();
        let mut daemon = Self {
            config_path: config_path.to_owned(),
            actual: Actual::adopt(&found),
            book: Book::adopt(&found),
            groups: Groups::default(),
            wish: Wish::default(),
            started: now,
            started_at: wall_clock(),
            attached: Vec::new(),
            sweeps: Default::default(),
            last_wish_change: now,
            early: early::Counts::default(),
            has_lost_early: false,
            prober,
            told_late: None,
            suspicion: Suspicion::default(),
            events: events::Events::default(),
            warnings: Warnings::new(),
            used_up: UsedUp::default(),
            not_kept: None,
            changes: Changes::default(),
            service: ServiceManager::of_the_environment(),
            policy: watch::Sender::new(Arc::new(policy)),
            terms: watch::Sender::new(terms),
            generation: Arc::default(),
            is_live: false,
            stale: Stale::Everything,
            is_tidy: false,
            first_outcome: None,
            desk,
            desired,
            loaded,
            watch,
        };
        let adopted = daemon.adopted_targets(&found);
        daemon.groups.configure(
            &daemon.desired,
            Duration::ZERO,
            &adopted,
            Some(&daemon.prober),
        );
        daemon.find_ways_if(|_| true).await;
        daemon.follow_network(true)?;
        daemon.reconcile()?;
        // Only now: the first packet that the program sees finds complete tables.
        let node = daemon.desired.node.clone();
        let attached = daemon.attach(&node, Missing::Refused)?;
        daemon.keep_attached(attached)?;
        Ok((
            daemon,
            Inputs {
                observations,
                changes,
                events,
                early,
            },
        ))
    }

    /// What is configured of this machine.
    pub const fn node(&self) -> &Node {
        &self.desired.node
    }

    /// Who may use the control socket, as reloads change it.
    pub fn policy(&self) -> watch::Receiver<Arc<Policy>> {
        self.policy.subscribe()
    }

    /// What the API over TCP shows and asks for, as reloads change it.
    pub fn terms(&self) -> watch::Receiver<Option<Terms>> {
        self.terms.subscribe()
    }

    /// Where what happens is told.
    pub fn events(&self) -> events::Events {
        self.events.clone()
    }

    /// The generation that is live.
    pub fn generation(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.generation)
    }

    /// Tells the service manager that the daemon is up.
    pub fn tell_ready(&mut self) {
        self.service.ready(self.actual.generation);
    }

    /// What targets were before the daemon started.
    fn adopted_targets(
        &self,
        found: &crate::dataplane::kernel::Found,
    ) -> BTreeMap<TargetKey, Adopted> {
        let names: BTreeMap<u32, &str> = self
            .desired
            .target_groups
            .iter()
            .map(|group| (plan::fingerprint(&group.name), group.name.as_str()))
            .collect();
        found
            .targets
            .iter()
            .filter_map(|(_, identity, control)| {
                let name = names.get(&identity.group_fingerprint)?;
                let address = SocketAddr::new(identity.address.into(), identity.port.get());
                let adopted = Adopted {
                    took_new_flows: control.takes_new_flows,
                    ended_flows: control.resets_flows,
                };
                Some((((*name).to_owned(), address), adopted))
            })
            .collect()
    }

    /// Runs until `stop` resolves.
    pub async fn run(
        mut self,
        mut inputs: Inputs,
        mut commands: mpsc::Receiver<Command>,
        mut reload: mpsc::Receiver<()>,
        stop: impl Future<Output = ()>,
    ) -> Self {
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        let mut tick = tokio::time::interval(TICK_EVERY);
        let mut look = tokio::time::interval(passive::LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Skip);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        // Only now, and not at the start: a thread has the rights that the one has that makes it.
        if let Err(error) = self.prober.begin() {
            tracing::error!("cannot start the thread of health checks: {error}");
            return self;
        }
        tokio::pin!(stop);
        // Whoever asks for the status finds the flows that there were.
        self.sweep();
        self.events.tell(What::Started {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            adopted: self.loaded.is_adopted,
        });
        loop {
            tokio::select! {
                () = &mut stop => {
                    self.service.stopping();
                    return self;
                }
                Some(observation) = inputs.observations.recv() => {
                    self.take_routine();
                    self.on_observation(observation);
                    while let Ok(observation) = inputs.observations.try_recv() {
                        self.on_observation(observation);
                    }
                    self.reconcile_or_log();
                }
                Some(changes) = inputs.changes.recv() => self.on_changes(&changes).await,
                wanted = inputs.events.wanted_neighbours() => match wanted {
                    Ok(wanted) => self.on_wanted(wanted).await,
                    Err(error) => tracing::error!("cannot read the packet program's events: {error}"),
                },
                due = inputs.early.due() => match due {
                    Ok(due) => self.on_due(&due, inputs.early.counts()),
                    Err(error) => tracing::error!("cannot read fragments to be kept: {error}"),
                },
                Some(command) = commands.recv() => self.on_command(command).await,
                Some(()) = reload.recv() => {
                    let refused = self.reload().await.err().map(|error| error.to_string());
                    let generation = self.actual.generation;
                    self.events.tell(What::Reload { generation, refused });
                }
                _ = look.tick() => self.look_at_traffic(),
                _ = sweep.tick() => {
                    self.sweep();
                    self.look_at_counters();
                }
                _ = tick.tick() => {
                    self.service.alive();
                    log::pump();
                    self.take_routine();
                    self.let_time_go_by();
                    self.reconcile_or_log();
                }
            }
        }
    }

    fn let_time_go_by(&mut self) {
        let ticked = self.groups.tick(self.started.elapsed());
        for (key, transition) in &ticked.transitions {
            self.tell_transition(key, transition);
        }
        for place in ticked.stale {
            self.stale.group(place);
        }
    }

    fn tell_transition(&self, (group, address): &TargetKey, transition: &Transition) {
        let reason = transition.reason;
        self.events.tell(What::TargetHealth {
            target_group: group.clone(),
            target: address.to_string(),
            from: transition.from.name().to_owned(),
            to: transition.to.name().to_owned(),
            reason: reason.map(|reason| reason.code().to_owned()),
            description: reason.map(|reason| reason.description().to_owned()),
        });
    }

    /// Takes in what checks found that nobody was woken for: it came before what wakes us.
    fn take_routine(&mut self) {
        for observation in self.prober.routine() {
            self.on_observation(observation);
        }
    }

    fn on_observation(&mut self, observation: Observation) {
        let Observation {
            key,
            outcome,
            lateness,
            at,
        } = observation;
        if lateness > LATE
            && self
                .told_late
                .is_none_or(|told| told.elapsed() > LATE_AGAIN)
        {
            self.told_late = Some(Instant::now());
            tracing::warn!(
                ?lateness,
                "health checks begin late: there are more than one core, or the open files that                  this process may have, can carry; lengthen intervals or raise the limit"
            );
        }
        let now = self.started.elapsed();
        if let Some((place, transition)) = self.groups.observe(&key, now, outcome) {
            self.first_outcome.get_or_insert(at.into_std());
            self.tell_transition(&key, &transition);
            self.stale.group(place);
            self.follow_suspicion(place, &key);
        }
    }

    /// Sends fragments in again whose datagram's first one has come.
    fn on_due(&mut self, due: &[EarlyFragment], counts: early::Counts) {
        self.early = counts;
        for fragment in due {
            let sent = self.loaded.send_in(fragment.interface, fragment.frame());
            if let Err(error) = sent
                && !std::mem::replace(&mut self.has_lost_early, true)
            {
                tracing::warn!("{error}");
            }
        }
    }

    async fn on_command(&mut self, command: Command) {
        // Whoever asked may be gone; then nobody misses the answer.
        match command {
            Command::Status(answer) => drop(answer.send(self.report().await)),
            Command::Reload(answer) => drop(answer.send(self.reload().await)),
            Command::Read(answer) => drop(answer.send(self.reading())),
            Command::Metrics(answer) => drop(answer.send(self.measure().await)),
            Command::Health(answer) => drop(answer.send(self.health())),
            Command::KillFlows(filter, answer) => {
                drop(answer.send(self.kill_flows(&filter).await));
            }
            Command::Change(request, answer) => {
                drop(answer.send(self.change(&request).await));
            }
        }
    }

    /// Reads the file again and makes it live, or changes nothing and says why; the service manager
    /// is told either way.
    async fn reload(&mut self) -> Result<Written, DaemonError> {
        self.service.reloading();
        let result = self.change(&Request::RELOAD).await;
        let generation = self.actual.generation;
        match &result {
            Ok(_) => self.service.ready(generation),
            Err(_) => self.service.refused(generation),
        }
        let written = result?;
        for dropped in &written.dropped {
            tracing::warn!(
                "{} that was {} over the API is no more: {}",
                dropped.resource,
                dropped.change,
                dropped.reason
            );
        }
        Ok(written)
    }

    fn limits(&self) -> Limits {
        self.loaded.maps.limits()
    }
}

/// The time of day, which may jump: to be shown, never to be counted with.
#[expect(
    clippy::disallowed_methods,
    reason = "people want to know since when the daemon runs"
)]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}
