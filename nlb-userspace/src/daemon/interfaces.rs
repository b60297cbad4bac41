//! The interfaces that the program is on.

use super::{Daemon, DaemonError};
use crate::{
    config::Node,
    dataplane::{DataplaneError, load::Attached},
};

/// What becomes of an interface of the configuration that does not exist.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// It is an error.
    Refused,
    /// The others are attached to; it may come back.
    Skipped,
}

/// An interface that the program is on.
#[derive(Clone)]
pub(super) struct AttachedTo {
    /// Its name when the program was put on it.
    pub(super) name: String,
    /// Its index, which it keeps when it is renamed.
    pub(super) index: u32,
    /// How the program got there.
    pub(super) how: Attached,
}

impl Daemon {
    /// Puts the program on these interfaces, where it is not yet, and says where it then is.
    pub(super) fn attach(
        &mut self,
        node: &Node,
        missing: Missing,
    ) -> Result<Vec<AttachedTo>, DaemonError> {
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
    pub(super) fn keep_attached(&mut self, attached: Vec<AttachedTo>) -> Result<(), DaemonError> {
        let keep: Vec<u32> = attached.iter().map(|to| to.index).collect();
        self.loaded.detach_others(&keep)?;
        self.attached = attached;
        Ok(())
    }

    /// An interface that was made anew under its old name is another one to the kernel. One that went
    /// into another namespace took the program along, and may come back with another index: its link
    /// is given up when it leaves.
    pub(super) fn attach_again(&mut self) {
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
