//! The guard where calls come in: lets calls through or not, and keeps what became of them.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::watch;

use super::{
    Call, Caller, Policy, Tags,
    audit::{AuditLog, Entry, Outcome},
};

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who, if the kernel says.
    pub caller: Option<Caller>,
    /// The process, if it is in our process namespace.
    pub pid: Option<i32>,
    /// Where from, if over the network.
    pub remote: Option<SocketAddr>,
}

/// Decides on calls by the policy that is live, and writes the audit log.
#[derive(Debug, Clone)]
pub struct Guard {
    /// The configuration's rules; a reload changes them.
    pub policy: watch::Receiver<Arc<Policy>>,
    /// The generation that is live.
    pub generation: Arc<AtomicU64>,
    /// Where calls are written down, if anywhere.
    pub audit: Option<Arc<Mutex<AuditLog>>>,
    /// Where calls of this host come in.
    pub from: Arc<str>,
}

impl Guard {
    /// Whether the peer may do that; if not, why, and what helps. A refusal is written down.
    pub fn admit(
        &self,
        peer: &Peer,
        action: &str,
        resource: &str,
        tags: &Tags,
    ) -> Result<(), String> {
        let refusal = match &peer.caller {
            None => "the kernel does not say who asks".to_owned(),
            Some(caller) => {
                let call = Call {
                    action,
                    resource,
                    tags,
                };
                let decision = self.policy.borrow().decide(caller, &call);
                if decision.is_allowed() {
                    return Ok(());
                }
                decision.explain(caller, &call).to_string()
            }
        };
        tracing::warn!(
            who = peer.caller.as_ref().map(tracing::field::display),
            from = peer.remote.map(tracing::field::display),
            action,
            resource,
            "refused"
        );
        let before = self.generation();
        let reason = Some(refusal.clone());
        self.record(peer, action, resource, before, Outcome::Refused, reason);
        Err(refusal)
    }

    /// The generation that is live, to be given to [`Self::record`] after the call.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Writes down what became of a call. That it cannot be written is logged: the call has happened.
    pub fn record(
        &self,
        peer: &Peer,
        action: &str,
        resource: &str,
        generation_before: u64,
        outcome: Outcome,
        reason: Option<String>,
    ) {
        let Some(audit) = &self.audit else {
            return;
        };
        let (user, certificate) = match &peer.caller {
            Some(Caller::User { uid, gid }) => (Some((*uid, *gid)), None),
            Some(Caller::Certificate(certificate)) => (None, Some(certificate.as_ref().into())),
            None => (None, None),
        };
        let entry = Entry {
            uid: user.map(|(uid, _)| uid),
            gid: user.map(|(_, gid)| gid),
            pid: peer.pid,
            certificate,
            from: (peer.remote).map_or_else(|| self.from.to_string(), |remote| remote.to_string()),
            action: action.to_owned(),
            resource: resource.to_owned(),
            outcome,
            reason,
            generation_before,
            generation_after: self.generation(),
        };
        let mut audit = audit.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = audit.add(entry) {
            tracing::error!(
                action,
                resource,
                "a call is missing in the audit log: {error}"
            );
        }
    }
}
