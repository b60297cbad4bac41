//! 6. The loop: something happens, the wish is made anew, and the plan carries it out.
//!
//! One task owns everything; what happens comes in through channels: probes' outcomes, the
//! network's changes, what the packet program tells, commands of the control socket, signals and
//! timers. Nothing is polled but the flow table, which is swept every few seconds, and, while early
//! fragments wait, the records that they wait for.

mod change;
mod groups;
mod reading;
mod report;
mod suspicion;
mod sweeps;
mod wish;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use nlb_common::{early::EarlyFragment, next_hop::NextHopId};
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
    suspicion::Suspicion,
};
use crate::{
    access::{
        Policy,
        directory::{self, DirectoryError},
    },
    api::tls::{self, Terms, TlsError},
    config::{Desired, Faults, Mode, Node},
    dataplane::{
        Dataplane as _, DataplaneError, Step,
        early::EarlyFragments,
        events::Events,
        load::{self, Attached, Loaded},
        sweep::Sweep,
    },
    desk::{Desk, OpenError, Refused},
    early,
    flows::filter::{Filter, FilterError},
    health::passive,
    next_hop::{Change, NextHopError, Resolution, Unresolved, Watch, book::Book},
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
    /// The steps of slow starts that are live.
    slow_starts: Vec<u16>,
    /// What became of the fragments that came before their first one.
    early: early::Counts,
    /// Whether the log has it that they could not be sent in again.
    has_lost_early: bool,
    prober: Prober,
    /// When it was last told that checks begin late.
    told_late: Option<Instant>,
    suspicion: Suspicion,
    service: ServiceManager,
    /// Who may use the control socket.
    policy: watch::Sender<Arc<Policy>>,
    /// What the API over TCP shows and asks for, if there is one.
    terms: watch::Sender<Option<Terms>>,
    /// The generation that is live, for whoever may not wait for the loop.
    generation: Arc<AtomicU64>,
}

/// What becomes of an interface of the configuration that does not exist.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// It is an error.
    Refused,
    /// The others are attached to; it may come back.
    Skipped,
}

/// An interface that the program is on.
#[derive(Clone)]
struct AttachedTo {
    name: String,
    index: u32,
    how: Attached,
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
        let mut loaded = load::load(&load::Request {
            bpffs: &node.bpffs,
            pins: &pins,
            capacity: node.capacity,
            translates_sources: !node.snat_addresses.is_empty(),
            pins_on_change: pins_on_change(&desired),
            secret: deployment_secret.bytes(),
            table_secret,
        })?;
        for size in &loaded.kept_sizes {
            tracing::warn!(
                "node.capacity.{}: the pinned map has {} entries and keeps them; {} take effect \
                 after `nlb detach`",
                size.key,
                size.kept,
                size.asked
            );
        }
        if !node.snat_addresses.is_empty() && !loaded.translates_sources {
            tracing::error!(
                "node.snat_addresses: the pinned maps were made without a pool and have no room \
                 for translated sources: no flow can have one until `nlb detach` and a new start"
            );
        }
        loaded.forward_log();
        let found = loaded.maps.read()?;
        let (sender, observations) = mpsc::channel(4096);
        let prober = Prober::new(sender).map_err(DaemonError::Prober)?;
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
            slow_starts: Vec::new(),
            early: early::Counts::default(),
            has_lost_early: false,
            prober,
            told_late: None,
            suspicion: Suspicion::default(),
            service: ServiceManager::of_the_environment(),
            policy: watch::Sender::new(Arc::new(policy)),
            terms: watch::Sender::new(terms),
            generation: Arc::default(),
            is_live: false,
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
        daemon.find_ways().await;
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
            .filter_map(|(id, identity, control)| {
                let name = names.get(&identity.group_fingerprint)?;
                let address = SocketAddr::new(identity.address.into(), identity.port.get());
                let adopted = Adopted {
                    took_new_flows: found.in_rings.contains(id),
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
        loop {
            tokio::select! {
                () = &mut stop => {
                    self.service.stopping();
                    return self;
                }
                Some(observation) = inputs.observations.recv() => {
                    let mut changed = self.on_observation(observation);
                    while let Ok(observation) = inputs.observations.try_recv() {
                        changed |= self.on_observation(observation);
                    }
                    if changed {
                        self.reconcile_or_log();
                    }
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
                Some(()) = reload.recv() => match self.reload().await {
                    Ok(done) => tracing::info!(generation = done.generation, "reloaded"),
                    Err(error) => tracing::error!("the reload failed: {error}"),
                },
                _ = look.tick() => self.look_at_traffic(),
                _ = sweep.tick() => self.sweep(),
                _ = tick.tick() => {
                    self.service.alive();
                    let now = self.started.elapsed();
                    let transitions = self.groups.tick(now);
                    for (key, transition) in &transitions {
                        log_transition(key, transition);
                    }
                    let has_more = !transitions.is_empty() || !self.is_live;
                    if has_more || self.groups.slow_starts(now) != self.slow_starts {
                        self.reconcile_or_log();
                    }
                }
            }
        }
    }

    /// Whether it changed a target's state.
    fn on_observation(&mut self, observation: Observation) -> bool {
        let Observation {
            key,
            outcome,
            lateness,
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
        let transition = self.groups.observe(&key, self.started.elapsed(), outcome);
        if let Some(transition) = &transition {
            log_transition(&key, transition);
            self.suspicion.changed(&key);
        }
        transition.is_some()
    }

    async fn on_changes(&mut self, changes: &[Change]) {
        let routes_changed = changes
            .iter()
            .any(|change| matches!(change, Change::Routes));
        let links_changed = changes
            .iter()
            .any(|change| matches!(change, Change::Link(_)));
        // First what is known already: no packet goes to a MAC address that is another's now, or to
        // nobody, for as long as it takes to ask the kernel for every target's way.
        self.follow_network_or_log(routes_changed);
        self.suspect_behind(changes);
        if links_changed {
            self.attach_again();
        }
        if routes_changed || links_changed {
            self.find_ways().await;
            self.follow_network_or_log(false);
        }
        self.reconcile_or_log();
    }

    fn follow_network_or_log(&mut self, routes_changed: bool) {
        if let Err(error) = self.follow_network(routes_changed) {
            tracing::error!("cannot follow the network's change: {error}");
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

    /// Has the kernel resolve neighbours that packets were dropped for.
    async fn on_wanted(&mut self, wanted: Vec<(u32, IpAddr)>) {
        for (interface, address) in wanted {
            if let Err(error) = self.watch.request_neighbour(interface, address).await {
                tracing::warn!(%address, "cannot have the neighbour resolved: {error}");
            }
        }
    }

    async fn on_command(&mut self, command: Command) {
        // Whoever asked may be gone; then nobody misses the answer.
        match command {
            Command::Status(answer) => drop(answer.send(self.report().await)),
            Command::Reload(answer) => drop(answer.send(self.reload().await)),
            Command::Read(answer) => drop(answer.send(self.reading())),
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

    /// Asks the kernel for the way to every target.
    async fn find_ways(&mut self) {
        self.find_ways_if(|_| true).await;
    }

    /// Asks the kernel for the way to the targets of which this is known.
    async fn find_ways_if(&mut self, is_wanted: impl Fn(&Way) -> bool) {
        let mut wanted = Vec::new();
        for group in &mut self.groups.list {
            let on_link_only = group.configured.mode == Mode::DsrL2;
            let targets = group.targets.iter_mut();
            for (address, target) in targets.filter(|(_, target)| is_wanted(&target.way)) {
                let way = match self.watch.resolve(address.ip(), on_link_only).await {
                    Ok(Resolution::Resolved(hop)) => Way::Through {
                        interface: hop.interface,
                        neighbour: hop.neighbour,
                    },
                    Ok(Resolution::Unresolved {
                        reason:
                            Unresolved::NeighbourUnknown {
                                interface,
                                neighbour,
                            },
                    }) => Way::Through {
                        interface,
                        neighbour,
                    },
                    Ok(Resolution::Unresolved { reason }) => Way::None(reason),
                    Err(error) => Way::Failed(error.to_string()),
                };
                if let Way::Through {
                    interface,
                    neighbour,
                } = way
                {
                    wanted.push((interface, neighbour));
                }
                if target.way != way {
                    tracing::debug!(target = %address, ?way, "the way to a target");
                }
                target.way = way;
            }
        }
        for (interface, neighbour) in wanted {
            let steps = self.book.ensure(interface, neighbour);
            if let Err(error) = self.take_all(&steps) {
                tracing::error!("cannot note a next hop: {error}");
            }
            // So that the kernel keeps it resolved, also while no packet goes there.
            if let Err(error) = self.watch.request_neighbour(interface, neighbour).await {
                tracing::warn!(%neighbour, "cannot have the neighbour kept: {error}");
            }
        }
    }

    fn follow_network(&mut self, routes_changed: bool) -> Result<(), DataplaneError> {
        let steps = self.book.follow(
            &self.watch.links(),
            &self.watch.neighbours(),
            routes_changed,
        );
        self.take_all(&steps)
    }

    fn take_all(&mut self, steps: &[Step]) -> Result<(), DataplaneError> {
        steps
            .iter()
            .try_for_each(|step| self.loaded.maps.take(step))
    }

    fn limits(&self) -> Limits {
        self.loaded.maps.limits()
    }

    /// Makes the wish anew and carries out what differs; says how many steps it took.
    fn reconcile(&mut self) -> Result<usize, DaemonError> {
        let result = self.carry_out();
        self.is_live = result.is_ok();
        result
    }

    fn carry_out(&mut self) -> Result<usize, DaemonError> {
        let book = &self.book;
        let now = self.started.elapsed();
        self.slow_starts = self.groups.slow_starts(now);
        let wish = self.groups.wish(&self.desired, now, |way| match way {
            Way::Through {
                interface,
                neighbour,
            } => book
                .get(*interface, *neighbour)
                .map_or(NextHopId::NONE, |(id, _)| id),
            Way::Unknown | Way::None(_) | Way::Failed(_) => NextHopId::NONE,
        });
        let steps = plan::plan(&self.actual, &wish, self.limits())?;
        self.last_wish_change = if wish == self.wish {
            self.last_wish_change
        } else {
            Instant::now()
        };
        self.wish = wish;
        for planned in &steps {
            self.loaded.maps.take(&planned.step)?;
            self.actual.note(&planned.step);
            if let Some(ring) = &planned.ring {
                self.actual.note_ring(ring.clone());
            }
        }
        self.generation
            .store(self.actual.generation, Ordering::Relaxed);
        if !steps.is_empty() {
            tracing::debug!(
                generation = self.actual.generation,
                steps = steps.len(),
                "live"
            );
        }
        Ok(steps.len())
    }

    fn reconcile_or_log(&mut self) {
        if let Err(error) = self.reconcile() {
            tracing::error!("cannot bring the data plane up to date: {error}");
        }
    }

    /// Puts the program on these interfaces, where it is not yet, and says where it then is.
    fn attach(&mut self, node: &Node, missing: Missing) -> Result<Vec<AttachedTo>, DaemonError> {
        let mut attached = Vec::new();
        for name in &node.interfaces {
            let Some(link) = self.watch.link_named(name) else {
                if missing == Missing::Skipped {
                    // One that was given another name is the same one still.
                    attached.extend(
                        self.attached
                            .iter()
                            .find(|to| to.name == *name)
                            .filter(|to| self.watch.link(to.index).is_some())
                            .cloned(),
                    );
                    continue;
                }
                return Err(DataplaneError::NoInterface(name.clone()).into());
            };
            let index = link.index;
            let known = self.attached.iter().find(|to| to.index == index);
            let how = if let Some(to) = known {
                to.how
            } else {
                let how = self.loaded.attach(name, index, node.xdp_mode)?;
                tracing::info!(interface = %name, how = how.name(), "attached");
                how
            };
            attached.push(AttachedTo {
                name: name.clone(),
                index,
                how,
            });
        }
        Ok(attached)
    }

    /// Takes the program off every other interface.
    fn keep_attached(&mut self, attached: Vec<AttachedTo>) -> Result<(), DaemonError> {
        let keep: Vec<u32> = attached.iter().map(|to| to.index).collect();
        self.loaded.detach_others(&keep)?;
        self.attached = attached;
        Ok(())
    }

    /// An interface that was made anew under its old name is another one to the kernel. One that went
    /// into another namespace took the program along, and may come back with another index: its link
    /// is given up when it leaves.
    fn attach_again(&mut self) {
        let node = self.desired.node.clone();
        let is_there = |to: &AttachedTo| self.watch.link(to.index).is_some();
        let is_attached = |name: &String| {
            let link = self.watch.link_named(name);
            link.is_none_or(|link| self.attached.iter().any(|to| to.index == link.index))
        };
        if node.interfaces.iter().all(is_attached) && self.attached.iter().all(is_there) {
            return;
        }
        let result = self
            .attach(&node, Missing::Skipped)
            .and_then(|attached| self.keep_attached(attached));
        if let Err(error) = result {
            tracing::error!("cannot attach to an interface that has come back: {error}");
        }
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

/// Whether any listener pins flows on change only.
fn pins_on_change(desired: &Desired) -> bool {
    let mut listeners = desired
        .load_balancers
        .iter()
        .flat_map(|balancer| &balancer.listeners);
    listeners.any(|listener| listener.pins_on_change)
}

fn log_transition((group, address): &TargetKey, transition: &crate::health::state::Transition) {
    let reason = transition.reason.map_or("", |reason| reason.description());
    tracing::info!(
        %group,
        target = %address,
        from = transition.from.name(),
        to = transition.to.name(),
        reason,
        "target health"
    );
}
