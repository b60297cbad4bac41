//! Events in the log: one line each, whose fields journald keeps apart.

use super::What;
use crate::access::audit::Outcome;

/// Logs it, by how much it matters.
pub(super) fn log(what: &What) {
    let event = what.name();
    match what {
        What::Started { version, adopted } => tracing::info!(event, version, adopted, "started"),
        What::TargetHealth {
            target_group,
            target,
            from,
            to,
            reason,
            description,
        } => {
            let (reason, description) = (reason.as_deref(), description.as_deref());
            tracing::info!(event, target_group, target = %target, from, to, reason, description, "target health");
        }
        What::Generation {
            generation,
            steps,
            after_us,
        } => tracing::debug!(event, generation, steps, after_us, "live"),
        What::Call {
            who,
            pid,
            remote,
            action,
            resource,
            outcome,
            reason,
            generation,
        } => {
            let (who, remote, reason) = (who.as_deref(), remote.as_deref(), reason.as_deref());
            let outcome = outcome.name();
            if outcome == Outcome::Refused.name() {
                tracing::warn!(
                    event, who, pid, remote, action, resource, reason, generation, "refused"
                );
            } else {
                tracing::info!(
                    event, who, pid, remote, action, resource, outcome, reason, generation, "call"
                );
            }
        }
        What::Reload {
            generation,
            refused: None,
        } => tracing::info!(event, generation, "reloaded"),
        What::Reload {
            generation,
            refused: Some(why),
        } => tracing::error!(event, generation, "the reload failed: {why}"),
        What::Warning {
            warning,
            subject,
            over: true,
            ..
        } => tracing::info!(event, warning, subject, over = true, "over"),
        What::Warning {
            warning,
            subject,
            text,
            over: false,
        } => tracing::warn!(event, warning, subject, "{text}"),
    }
}
