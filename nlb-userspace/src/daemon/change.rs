//! How a change becomes live: judged, kept, and carried out, in this order. Until it is kept nothing
//! has changed; from then on it is the truth, and the maps follow.

use std::{collections::BTreeMap, sync::Arc};

use nlb_common::next_hop::NextHopId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Daemon, DaemonError, Groups, Missing, Stale, Way, features, plan};
use crate::{
    access::directory,
    api::tls,
    config::{Desired, Node},
    dataplane::DataplaneError,
    desk::{Condition, Intent, Proposal, Refused},
    document::{changes::PlannedChange, overlay::Dropped},
};

/// A change that somebody asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What is wanted.
    pub intent: Intent,
    /// Under which condition.
    pub condition: Condition,
    /// Whether only the plan is wanted.
    pub dry_run: bool,
}

impl Request {
    /// To read the configuration file again.
    pub const RELOAD: Self = Self {
        intent: Intent::Reload,
        condition: Condition {
            any_of: None,
            absent: false,
        },
        dry_run: false,
    };
}

/// What a change did, or with `dry_run` would do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Written {
    /// The generation in which the change is live; with `dry_run`, the one that is live now.
    pub generation: u64,
    /// Whether it is live: the kernel's maps say it. If not, it is kept and tried again until they
    /// do, and `warnings` say why.
    pub live: bool,
    /// Whether nothing was done.
    #[serde(default)]
    pub dry_run: bool,
    /// What was changed, such as `target-group/web`; absent for a whole document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The tag of what was changed, as it is now; absent if it was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// What differs: the plan.
    #[serde(default)]
    pub changes: Vec<PlannedChange>,
    /// Changes over the API that could not be laid over a new base and are no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<Dropped>,
    /// Changes over the API that a new document discards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub discarded: Vec<String>,
    /// How many steps it took in the kernel's maps.
    #[serde(default)]
    pub steps: usize,
    /// What is legal but seldom meant.
    #[serde(default)]
    pub warnings: Vec<String>,
}

impl Written {
    /// What a proposal says of itself.
    pub fn of(proposal: &Proposal) -> Self {
        Self {
            resource: proposal.id.as_ref().map(ToString::to_string),
            changes: proposal.changes.clone(),
            dropped: proposal.dropped.clone(),
            discarded: proposal.discarded.clone(),
            warnings: (proposal.desired.warnings.iter())
                .map(ToString::to_string)
                .collect(),
            ..Self::default()
        }
    }
}

impl Daemon {
    /// Makes a change, or changes nothing and says why. What can be wrong with it, and what does not
    /// fit or cannot be attached to, is found before anything has changed; what fails after that is
    /// the kernel's refusal of a map write, and the next tick, change or reload goes on from there.
    pub(super) async fn change(&mut self, request: &Request) -> Result<Written, DaemonError> {
        let result = self.try_change(request).await;
        self.look_for_warnings();
        match &result {
            Ok(written) => self.changes.done += u64::from(!written.dry_run),
            Err(_) => self.changes.refused += 1,
        }
        result
    }

    async fn try_change(&mut self, request: &Request) -> Result<Written, DaemonError> {
        let proposal = self.desk.propose(&request.intent, &request.condition)?;
        self.check(&proposal.desired)?;
        // A change of one resource leaves the node's files alone.
        let terms = match request.intent {
            Intent::Edit(_) => None,
            Intent::Apply(_) | Intent::Reload => {
                let api = proposal.desired.node.tcp_api.as_ref();
                Some(api.map(tls::load).transpose()?)
            }
        };
        let mut written = Written::of(&proposal);
        if request.dry_run {
            written.dry_run = true;
            written.generation = self.actual.generation;
            return Ok(written);
        }
        let id = proposal.id.clone();
        let result = self.make_live(proposal).await?;
        if let Some(terms) = terms {
            self.terms.send_replace(terms);
        }
        match result {
            Ok(steps) => written.steps = steps,
            Err(error) => {
                tracing::error!("a change was taken and is not live yet: {error}");
                written.warnings.push(format!("not live yet: {error}"));
            }
        }
        written.live = self.is_live;
        // What is not live will be with the next generation that is.
        written.generation = self.actual.generation + u64::from(!self.is_live);
        written.etag = self.desk.view().tag(id.as_ref());
        Ok(written)
    }

    /// Whether the daemon that runs can bring that about.
    fn check(&self, desired: &Desired) -> Result<(), DaemonError> {
        let (old, new) = (&self.desired.node, &desired.node);
        let (loaded, wanted) = (self.loaded.features, features::wanted(desired));
        let api = |node: &Node| node.tcp_api.as_ref().map(|api| api.address);
        let detach_first = "; maps keep their size until `nlb detach`";
        for (differs, field, more) in [
            (old.bpffs != new.bpffs, "node.bpffs", ""),
            (old.socket != new.socket, "node.socket", ""),
            (
                old.state_directory != new.state_directory,
                "node.state_directory",
                "; move what is in it along",
            ),
            (old.hash_key != new.hash_key, "node.hash_key", ""),
            (api(old) != api(new), "node.api.tcp.address", ""),
            (old.audit_log != new.audit_log, "node.audit_log", ""),
            (old.metrics != new.metrics, "node.metrics", ""),
            (old.user != new.user, "node.user", ""),
            (old.seccomp != new.seccomp, "node.seccomp", ""),
            (
                old.xdp_mode != new.xdp_mode,
                "node.xdp_mode",
                "; links keep their mode until `nlb detach`",
            ),
            (old.capacity != new.capacity, "node.capacity", detach_first),
            (
                wanted.translates_sources && !loaded.translates_sources,
                "node.snat_addresses",
                "; the running maps were made without a pool and have no room for one: `nlb detach` \
                 first",
            ),
            (
                wanted.pins_on_change && !loaded.pins_on_change,
                "load_balancer.listener.pinning",
                ": the packet program that runs was loaded without what `on_change` takes, and a \
                 running daemon may load none. Write the listener into the configuration file, and \
                 restart; from then on such listeners come and go without",
            ),
            (
                wanted.makes_cookies && !loaded.makes_cookies,
                "load_balancer.listener.tcp.syn_cookies",
                "; the running maps were made without such a listener and have no room for its \
                 flows: `nlb detach` first",
            ),
        ] {
            if differs {
                return Err(DaemonError::NeedsRestart { field, more });
            }
        }
        directory::policy(&desired.access)?;
        for name in &new.interfaces {
            if self.watch.link_named(name).is_none() {
                return Err(DataplaneError::NoInterface(name.clone()).into());
            }
        }
        // A plan that cannot be made must be noticed before anything is touched.
        let mut trial = Groups::default();
        trial.configure(desired, self.started.elapsed(), &BTreeMap::new(), None);
        let wish = trial.wish(desired, self.started.elapsed(), |_| NextHopId::NONE);
        plan::fits(&self.actual, &wish, self.limits())?;
        Ok(())
    }

    /// Keeps a change and carries it out. The outer error says that nothing has changed; the inner
    /// one that the change is kept, and not all of it could be carried out.
    async fn make_live(
        &mut self,
        proposal: Proposal,
    ) -> Result<Result<usize, DaemonError>, DaemonError> {
        let node = proposal.desired.node.clone();
        let policy = directory::policy(&proposal.desired.access)?;
        // New interfaces first: what fails here has changed nothing that carries traffic.
        let attached = self.attach(&node, Missing::Refused);
        let kept = match &attached {
            Ok(_) => {
                let kept = self.desk.keep(&proposal);
                self.not_kept = kept.as_ref().err().map(ToString::to_string);
                kept.map_err(Refused::Store)
            }
            Err(_) => Ok(()),
        };
        let attached = match (attached, kept) {
            (Ok(attached), Ok(())) => attached,
            (attached, kept) => {
                let old = std::mem::take(&mut self.attached);
                self.keep_attached(old)?;
                attached?;
                kept?;
                return Ok(Ok(0));
            }
        };
        let only_targets = proposal.only_targets;
        self.desired = self.desk.adopt(proposal);
        self.policy.send_replace(Arc::new(policy));
        let now = self.started.elapsed();
        self.groups
            .configure(&self.desired, now, &BTreeMap::new(), Some(&self.prober));
        self.stale = Stale::Everything;
        // The network's changes are followed as they come, so that known ways need no question.
        if only_targets {
            self.find_ways_if(|way| *way == Way::Unknown).await;
        } else {
            self.find_ways_if(|way| !matches!(way, Way::Through { .. }))
                .await;
        }
        let carried_out = match self.follow_network(false) {
            Ok(()) => self.reconcile(),
            Err(error) => {
                self.is_live = false;
                Err(error.into())
            }
        };
        Ok(carried_out.and_then(|steps| self.keep_attached(attached).map(|()| steps)))
    }
}
