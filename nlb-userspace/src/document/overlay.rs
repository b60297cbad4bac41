//! What was changed over the API, as the difference to the base.
//!
//! Not a history: for each resource there is at most one entry, which says how it differs now. So
//! an overlay is never larger than what it describes, a change that is taken back leaves nothing,
//! and what the base says of keys that nobody changed stays the base's to say.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Document, Table, merge,
    resource::{ListenerId, ResourceId},
};

/// How a resource differs from the base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The base does not have it. This is what it says, without what is in it.
    Added(Table),
    /// The base has it. This merge patch makes it what it is.
    Changed(Table),
    /// The base has it, and it is gone.
    Removed,
}

/// An entry and its place in the order in which changes came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Counts up.
    pub order: u64,
    /// The change.
    pub change: Change,
}

/// The difference between the base and the document, by resource.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Overlay {
    entries: BTreeMap<ResourceId, Entry>,
}

/// What becomes of entries: as a record of the journal has it.
pub type Delta = BTreeMap<ResourceId, Option<Entry>>;

/// A change that could not be laid over a new base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Dropped {
    /// What had been changed.
    pub resource: String,
    /// `added` or `changed`.
    pub change: String,
    /// Why it is no more.
    pub reason: String,
}

/// A base with an overlay on it.
#[derive(Debug)]
pub struct Laid {
    /// The result; valid if the base is.
    pub document: Document,
    /// What is left of the overlay: what the base now says itself is not in it.
    pub overlay: Overlay,
    /// What could not be laid.
    pub dropped: Vec<Dropped>,
}

impl Overlay {
    /// Whether the document is the base.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many resources differ from the base.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The resources that differ, and how.
    pub fn iter(&self) -> impl Iterator<Item = (&ResourceId, &Change)> {
        self.entries.iter().map(|(id, entry)| (id, &entry.change))
    }

    /// The entries themselves.
    pub(crate) const fn entries(&self) -> &BTreeMap<ResourceId, Entry> {
        &self.entries
    }

    /// Where a resource's words come from: `file`, `api`, or both.
    pub fn origin(&self, id: &ResourceId) -> &'static str {
        match self.entries.get(id).map(|entry| &entry.change) {
            None => "file",
            Some(Change::Added(_)) => "api",
            Some(Change::Changed(_) | Change::Removed) => "file+api",
        }
    }

    /// Takes a record in.
    pub fn take(&mut self, delta: Delta) {
        for (id, entry) in delta {
            match entry {
                Some(entry) => self.entries.insert(id, entry),
                None => self.entries.remove(&id),
            };
        }
    }

    /// What must change in this overlay so that it leads from `base` to `document`, which differ
    /// from what it leads to now in these load balancers and target groups only.
    pub fn follow(&self, base: &Document, document: &Document, tops: &[ResourceId]) -> Delta {
        let mut delta = Delta::new();
        let mut next = 1 + self
            .entries
            .values()
            .map(|entry| entry.order)
            .max()
            .unwrap_or(0);
        for top in tops {
            let mut wanted = difference(base, document, top);
            let known = (self.entries.range(top.clone()..)).filter(|(id, _)| id.top() == *top);
            for (id, entry) in known {
                match wanted.remove(id) {
                    None => delta.insert(id.clone(), None),
                    Some(change) if change == entry.change => None,
                    Some(change) => {
                        let order = entry.order;
                        delta.insert(id.clone(), Some(Entry { order, change }))
                    }
                };
            }
            for (id, change) in wanted {
                let order = next;
                next += 1;
                delta.insert(id, Some(Entry { order, change }));
            }
        }
        delta
    }

    /// Lays the overlay over a base. What names nothing there any more, or would make it invalid,
    /// is dropped; `judge` says why a document is invalid.
    pub fn lay(&self, base: &Document, judge: impl Fn(&Document) -> Result<(), String>) -> Laid {
        let mut document = base.clone();
        let mut dropped = Vec::new();
        // Parents before what is in them; groups go last, for by their targets' IP version
        // listeners are told apart.
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_by_key(|(id, entry)| {
            let is_removed = entry.change == Change::Removed;
            let phase = match (id.is_top(), is_removed) {
                (true, false) => 0,
                (false, true) => 1,
                (false, false) => 2,
                (true, true) => 3,
            };
            (phase, entry.order)
        });
        let mut waiting: Vec<Pending<'_>> = entries
            .into_iter()
            .map(|(id, entry)| (id, &entry.change))
            .collect();
        // What needs another change waits for it.
        loop {
            let before = waiting.len();
            waiting = settle(&mut document, &waiting, &judge);
            if waiting.is_empty() || waiting.len() == before {
                break;
            }
        }
        for (id, change) in waiting {
            let reason = match try_on(&document, &[(id, change)]) {
                Err(missing) => format!("{missing} is not in the file any more"),
                Ok(with_it) => match judge(&with_it) {
                    Err(fault) => format!("the file leaves no room for it: {fault}"),
                    Ok(()) => "it is in conflict with another change".to_owned(),
                },
            };
            dropped.push(Dropped {
                resource: id.to_string(),
                change: match change {
                    Change::Added(_) => "added",
                    Change::Changed(_) => "changed",
                    Change::Removed => "removed",
                }
                .to_owned(),
                reason,
            });
        }
        let tops: BTreeSet<_> = self.entries.keys().map(ResourceId::top).collect();
        let tops: Vec<_> = tops.into_iter().collect();
        let mut overlay = self.clone();
        overlay.take(self.follow(base, &document, &tops));
        Laid {
            document,
            overlay,
            dropped,
        }
    }
}

type Pending<'a> = (&'a ResourceId, &'a Change);

/// Lays as many of these changes as can be laid in this order; the others are handed back. Halves
/// what fails, so that few failures among many changes take few judgements.
fn settle<'a>(
    document: &mut Document,
    changes: &[Pending<'a>],
    judge: &impl Fn(&Document) -> Result<(), String>,
) -> Vec<Pending<'a>> {
    if let Ok(with_all) = try_on(document, changes)
        && judge(&with_all).is_ok()
    {
        *document = with_all;
        return Vec::new();
    }
    if changes.len() <= 1 {
        return changes.to_vec();
    }
    let (first, second) = changes.split_at(changes.len() / 2);
    let mut failed = settle(document, first, judge);
    failed.extend(settle(document, second, judge));
    failed
}

/// A document with these changes, or what one of them misses.
fn try_on(document: &Document, changes: &[Pending<'_>]) -> Result<Document, ResourceId> {
    let mut document = document.clone();
    for (id, change) in changes {
        let is_laid = match change {
            Change::Added(own) => {
                let whole = match document.get(id) {
                    // The base has it now, and something in it perhaps.
                    Some(there) if id.is_top() => {
                        let mut whole = own.clone();
                        let mut lists = there.clone();
                        lists.retain(|key, _| is_list(key));
                        whole.append(&mut lists);
                        whole
                    }
                    _ => own.clone(),
                };
                document.put(id, whole)
            }
            Change::Changed(patch) => match document.get(id).cloned() {
                Some(mut table) => {
                    merge::merge_into(&mut table, patch);
                    document.put(id, table)
                }
                None => false,
            },
            // Gone is gone, whoever took it out.
            Change::Removed => {
                document.remove(id);
                true
            }
        };
        if !is_laid {
            let parent = id.top();
            let missing = match document.get(&parent) {
                Some(_) => (*id).clone(),
                None => parent,
            };
            return Err(missing);
        }
    }
    Ok(document)
}

fn is_list(key: &str) -> bool {
    matches!(key, super::LISTENER | super::RULE | super::TARGET)
}

/// How a load balancer or target group and what is in it differ, as an overlay says it.
fn difference(
    base: &Document,
    document: &Document,
    top: &ResourceId,
) -> BTreeMap<ResourceId, Change> {
    let changed = |pair: Pair| {
        Some(match pair {
            (_, None) => Change::Removed,
            (None, Some(own)) => Change::Added(own),
            (Some(from), Some(to)) => Change::Changed(merge::between(&from, &to)?),
        })
    };
    pairs(base, document, top)
        .into_iter()
        .filter_map(|(id, pair)| Some((id, changed(pair)?)))
        .collect()
}

/// What a resource says in two documents, without what is in it.
pub(super) type Pair = (Option<Table>, Option<Table>);

/// A load balancer or target group and what is in it, as far as it differs. What is in one that is
/// removed is not listed.
pub(super) fn pairs(
    base: &Document,
    document: &Document,
    top: &ResourceId,
) -> BTreeMap<ResourceId, Pair> {
    let mut found = BTreeMap::new();
    let own = (base.own(top), document.own(top));
    let is_there = own.1.is_some();
    if own.0 != own.1 {
        found.insert(top.clone(), own);
    }
    if !is_there {
        return found;
    }
    let shared = shared_ports(&[base, document], top);
    // Targets without a port follow their group's, and are the same targets.
    let port = document.get(top).and_then(super::port_of);
    let mut before = members(base, top, &shared, port);
    for (id, to) in members(document, top, &shared, port) {
        let from = before.remove(&id);
        if from != Some(to) {
            found.insert(id, (from.cloned(), Some(to.clone())));
        }
    }
    for (id, from) in before {
        found.insert(id, (Some(from.clone()), None));
    }
    found
}

/// Protocols and ports that two listeners share in one of these documents: there, both documents
/// name listeners by their IP version.
fn shared_ports(documents: &[&Document], top: &ResourceId) -> BTreeSet<(String, u16)> {
    documents
        .iter()
        .flat_map(|document| document.children(top))
        .filter_map(|id| match id {
            ResourceId::Listener(
                _,
                ListenerId {
                    protocol,
                    port,
                    version: Some(_),
                },
            ) => Some((protocol, port)),
            _ => None,
        })
        .collect()
}

fn members<'d>(
    document: &'d Document,
    top: &ResourceId,
    shared: &BTreeSet<(String, u16)>,
    port: Option<u16>,
) -> HashMap<ResourceId, &'d Table> {
    let mut members = HashMap::new();
    let Some(table) = document.get(top) else {
        return members;
    };
    let lists = [super::LISTENER, super::RULE, super::TARGET];
    let tables = lists
        .iter()
        .flat_map(|list| super::list_in(table, list))
        .filter_map(Value::as_object);
    for (id, table) in document.children(top).into_iter().zip(tables) {
        let id = match id {
            ResourceId::Listener(name, mut id) => {
                if shared.contains(&(id.protocol.clone(), id.port)) {
                    id.version = document.version_of(&Value::Object(table.clone()));
                }
                ResourceId::Listener(name, id)
            }
            ResourceId::Target(name, mut address) => {
                if let Some(port) = port.filter(|_| !table.contains_key("port")) {
                    address.set_port(port);
                }
                ResourceId::Target(name, address)
            }
            other => other,
        };
        members.insert(id, table);
    }
    members
}
