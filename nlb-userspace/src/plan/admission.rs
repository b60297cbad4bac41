//! Who may begin flows, in steps: rules and limits are there before a listener asks for them, and
//! rules go when no packet can ask any more.

use nlb_common::{admission::AdmissionPolicy, listener::ListenerId};

use super::{Actual, Planned, Wish, push};
use crate::{dataplane::Step, source_rules::SourceRules};

/// Who may begin flows, and how many: all, and any number, by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WishedAdmission {
    /// The rules, if there are any.
    pub rules: Option<SourceRules>,
    /// The limits; whether there are rules is not looked at.
    pub limits: AdmissionPolicy,
}

impl WishedAdmission {
    pub(super) const fn policy(&self) -> AdmissionPolicy {
        AdmissionPolicy {
            has_rules: self.rules.is_some(),
            ..self.limits
        }
    }

    /// Whether a flow that begins has to ask.
    pub(super) const fn is_asked(&self) -> bool {
        self.rules.is_some() || self.limits.has_limits()
    }

    /// Whether the record says anything: to flows that begin, or to SYNs.
    const fn is_needed(&self) -> bool {
        self.is_asked() || self.limits.usual_syns_per_tick != 0
    }
}

/// What must be there before the listener asks for it.
pub(super) fn prepare(
    id: ListenerId,
    wished: &WishedAdmission,
    after: &mut Actual,
    steps: &mut Vec<Planned>,
) {
    if let Some(rules) = &wished.rules
        && after.rules.get(&id).and_then(Option::as_ref) != Some(rules)
    {
        let rules = rules.clone();
        push(steps, after, Step::ReplaceRules { id, rules });
    }
    if wished.is_needed() {
        set_policy(id, wished.policy(), after, steps);
    }
}

/// What goes when the listener no longer asks.
pub(super) fn tidy(
    id: ListenerId,
    wished: &WishedAdmission,
    after: &mut Actual,
    steps: &mut Vec<Planned>,
) {
    if !wished.is_needed() {
        set_policy(id, AdmissionPolicy::default(), after, steps);
    }
}

fn set_policy(
    id: ListenerId,
    policy: AdmissionPolicy,
    after: &mut Actual,
    steps: &mut Vec<Planned>,
) {
    if after.admissions.get(&id).copied().unwrap_or_default() != policy {
        push(steps, after, Step::SetAdmission { id, policy });
    }
}

/// Rules that nobody asks for. Not taken away with the wish for them: a packet may have read before
/// that there are rules.
pub(super) fn retire(actual: &Actual, wish: &Wish) -> Vec<Step> {
    let has_rules = |id: &ListenerId| {
        actual.listeners.get(id).is_some_and(|(key, _)| {
            let mut wished = wish.listeners.iter();
            wished.any(|listener| listener.key == *key && listener.admission.rules.is_some())
        })
    };
    let gone = actual.rules.keys().filter(|id| !has_rules(id));
    gone.map(|id| Step::RemoveRules { id: *id }).collect()
}
