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
        What::Generation { generation, steps } => {
            tracing::debug!(event, generation, steps, "live");
        }
        What::Call {
            uid,
            pid,
            action,
            resource,
            outcome,
            reason,
            generation,
        } => {
            let reason = reason.as_deref();
            if *outcome == Outcome::Refused {
                tracing::warn!(
                    event, uid, pid, action, resource, reason, generation, "refused"
                );
            } else {
                let outcome = outcome.name();
                tracing::info!(
                    event, uid, pid, action, resource, outcome, reason, generation, "call"
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
