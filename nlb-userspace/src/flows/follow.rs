//! What became of flows between two looks at the table.

use std::{collections::HashMap, net::SocketAddr};

use super::Flow;
use crate::explain::fact::state;

/// What a flow is known by for as long as it lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    client: SocketAddr,
    protocol: u8,
    listener: u16,
}

/// Flows as they were when they were looked at.
#[derive(Default)]
pub struct Seen(HashMap<Key, Flow>);

/// What became of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// It is there, and was not before.
    Began,
    /// It goes on in another state, or to another target.
    Changed,
    /// It is there no more.
    Ended,
}

impl Change {
    /// What a line about it begins with.
    pub const fn sign(self) -> &'static str {
        match self {
            Self::Began => "+",
            Self::Changed => "~",
            Self::Ended => "-",
        }
    }
}

impl Seen {
    /// What has changed since the last look; what is there now is seen from now on. Flows that are there
    /// come first, in their order, then those that are gone.
    pub fn look(&mut self, flows: &[Flow]) -> Vec<(Change, Flow)> {
        let mut now = HashMap::with_capacity(flows.len());
        let mut changes = Vec::new();
        for flow in flows {
            let key = Key {
                client: flow.client,
                protocol: flow.protocol,
                listener: flow.listener,
            };
            let is_same = |before: &Flow| {
                before.target == flow.target && state(before.state) == state(flow.state)
            };
            match self.0.remove(&key) {
                None => changes.push((Change::Began, *flow)),
                Some(before) if is_same(&before) => {}
                Some(_) => changes.push((Change::Changed, *flow)),
            }
            now.insert(key, *flow);
        }
        let mut ended: Vec<Flow> = self.0.drain().map(|(_, flow)| flow).collect();
        ended.sort_by_key(|flow| (flow.client, flow.listener));
        changes.extend(ended.into_iter().map(|flow| (Change::Ended, flow)));
        self.0 = now;
        changes
    }
}
