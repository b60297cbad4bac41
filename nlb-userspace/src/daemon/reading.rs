//! What can be read without a look at the maps: the document, and how targets are.

use super::Daemon;
use crate::{
    desk::View,
    status::{GroupHealth, TargetHealth},
};

/// One moment's state: whoever has it reads on, whatever is changed meanwhile.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The generation that is live on the wire.
    pub generation: u64,
    /// Whether everything that was changed is live.
    pub is_live: bool,
    /// The document.
    pub view: View,
}

impl Daemon {
    /// What the document says now.
    pub(super) fn reading(&self) -> Reading {
        Reading {
            generation: self.actual.generation,
            is_live: self.is_live,
            view: self.desk.view(),
        }
    }

    /// How the targets of all groups are.
    pub(super) fn health(&self) -> Vec<GroupHealth> {
        let now = self.started.elapsed();
        self.groups
            .list
            .iter()
            .map(|group| {
                let selection = group.selection();
                let weights = group.effective_weights(&selection, now);
                GroupHealth {
                    target_group: group.configured.name.clone(),
                    fail_open: selection.fail_open && !group.targets.is_empty(),
                    available: selection.is_available,
                    targets: group
                        .targets
                        .iter()
                        .zip(weights)
                        .map(|((address, entry), effective_weight)| TargetHealth {
                            target: address.to_string(),
                            weight: entry.weight,
                            effective_weight,
                            state: entry.health.state().name().to_owned(),
                            reason: (entry.health.reason()).map(|reason| reason.code().to_owned()),
                            description: (entry.health.reason())
                                .map(|reason| reason.description().to_owned()),
                            last_failure: (entry.health.last_failure()).map(ToString::to_string),
                        })
                        .collect(),
                }
            })
            .collect()
    }
}
