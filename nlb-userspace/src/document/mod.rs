//! The document: a configuration as a tree that can be read and edited resource by resource.
//!
//! ```text
//!  file ─► base ─┬─► document ─► text ─► config::parse ─► Desired
//!  overlay ──────┘      ▲
//!                     edit
//! ```
//!
//! It has the keys of the configuration file and nothing else, and whatever it says is judged by
//! the code that judges a file: it is written out as TOML and parsed. So there is one schema, one
//! set of rules and one set of messages, whichever way a change comes.
//!
//! [`resource`] names its parts, [`edit`] changes them, [`overlay`] is the difference between two
//! documents as it is kept, [`changes`] the difference as a person reads it.

pub mod changes;
pub mod edit;
mod merge;
pub mod overlay;
pub mod resource;

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde_json::{Map, Value};

use self::resource::{ListenerId, ListenerVersion, ResourceId, RuleId};

/// A table of a document.
pub type Table = Map<String, Value>;

const LOAD_BALANCER: &str = "load_balancer";
const TARGET_GROUP: &str = "target_group";
const LISTENER: &str = "listener";
const RULE: &str = "rule";
const TARGET: &str = "target";
/// What stands for a secret wherever a document is shown.
pub const NOT_SHOWN: &str = "(not shown)";

/// Why text is no document, or a document no text.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not TOML.
    #[error("is not TOML: {0}")]
    Toml(#[from] toml::de::Error),
    /// A value that TOML does not have.
    #[error("cannot be written as TOML: {0}")]
    Unwritable(#[from] toml::ser::Error),
    /// A null.
    #[error("`{0}` is null; leave the key out instead")]
    Null(String),
}

/// A configuration as a tree. Tables that say nothing and nulls are not in it.
#[derive(Clone, Default, PartialEq)]
pub struct Document {
    root: Table,
}

impl fmt::Debug for Document {
    /// Secrets are not shown.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Document")
            .field(&self.shown().root)
            .finish()
    }
}

/// Where a resource stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    list: &'static str,
    index: usize,
    child: Option<(&'static str, usize)>,
}

impl Document {
    /// Reads TOML.
    pub fn from_toml(text: &str) -> Result<Self, DocumentError> {
        Ok(Self {
            root: toml::from_str(text)?,
        })
    }

    /// Takes a tree over.
    pub fn from_table(root: Table) -> Result<Self, DocumentError> {
        match null_in(&root, "") {
            Some(path) => Err(DocumentError::Null(path)),
            None => Ok(Self { root }),
        }
    }

    /// Writes TOML.
    pub fn to_toml(&self) -> Result<String, DocumentError> {
        Ok(toml::to_string(&self.root)?)
    }

    /// The whole tree, secrets among it.
    pub const fn root(&self) -> &Table {
        &self.root
    }

    /// The same for people: secrets are not shown.
    #[must_use]
    pub fn shown(&self) -> Self {
        let mut shown = self.clone();
        if let Some(key) = shown.secret_mut() {
            *key = NOT_SHOWN.into();
        }
        shown
    }

    /// Puts the secrets of `other` where this document says that they were not shown: a document
    /// that was read, edited and given back means the secrets that there are.
    pub fn restore_secrets(&mut self, other: &Self) {
        let known = (other.root.get("node")).and_then(|node| node.get("hash_key"));
        if let (Some(key), Some(known)) = (self.secret_mut(), known)
            && key == NOT_SHOWN
        {
            key.clone_from(known);
        }
    }

    /// Whether it says a secret.
    pub fn has_secret(&self) -> bool {
        let node = self.root.get("node");
        node.is_some_and(|node| node.get("hash_key").is_some())
    }

    fn secret_mut(&mut self) -> Option<&mut Value> {
        self.root.get_mut("node")?.get_mut("hash_key")
    }

    /// A hash of what a document, or a part of it, says.
    pub fn hash(value: &impl serde::Serialize) -> u64 {
        // Keys are in order, so equal trees are equal text; a tree cannot fail to be written.
        let text = serde_json::to_vec(value).unwrap_or_default();
        xxhash_rust::xxh64::xxh64(&text, 0)
    }

    /// A resource with everything in it.
    pub fn get(&self, id: &ResourceId) -> Option<&Table> {
        let slot = self.slot(id)?;
        let top = self.list(slot.list).get(slot.index)?;
        match slot.child {
            None => top.as_object(),
            Some((list, index)) => top.get(list)?.get(index)?.as_object(),
        }
    }

    /// A resource without the resources that are in it.
    pub fn own(&self, id: &ResourceId) -> Option<Table> {
        let mut own = self.get(id)?.clone();
        if id.is_top() {
            for list in [LISTENER, RULE, TARGET] {
                own.remove(list);
            }
        }
        Some(own)
    }

    /// The load balancers and target groups, in the order of the document.
    pub fn tops(&self) -> Vec<ResourceId> {
        let names = |list| self.list(list).iter().filter_map(name_of);
        names(LOAD_BALANCER)
            .map(ResourceId::LoadBalancer)
            .chain(names(TARGET_GROUP).map(ResourceId::TargetGroup))
            .collect()
    }

    /// The same with what they say: to look at all of them, where [`Self::get`] looks for one.
    fn tables_of_tops(&self) -> HashMap<ResourceId, &Value> {
        let named = |list, id: fn(String) -> ResourceId| {
            let tops = self.list(list).iter();
            tops.filter_map(move |top| Some((id(name_of(top)?), top)))
        };
        named(LOAD_BALANCER, ResourceId::LoadBalancer)
            .chain(named(TARGET_GROUP, ResourceId::TargetGroup))
            .collect()
    }

    /// What is in a load balancer or target group, in the order of the document; a load balancer's
    /// listeners before its rules.
    pub fn children(&self, top: &ResourceId) -> Vec<ResourceId> {
        let Some(table) = self.get(top) else {
            return Vec::new();
        };
        match top {
            ResourceId::LoadBalancer(name) => {
                let listeners = self.listener_ids(table);
                listeners
                    .into_iter()
                    .flatten()
                    .map(|id| ResourceId::Listener(name.clone(), id))
                    .chain(
                        list_in(table, RULE)
                            .iter()
                            .map(|rule| ResourceId::Rule(name.clone(), rule_id(rule))),
                    )
                    .collect()
            }
            ResourceId::TargetGroup(name) => {
                let port = port_of(table);
                list_in(table, TARGET)
                    .iter()
                    .filter_map(|target| target_address(target, port))
                    .map(|address| ResourceId::Target(name.clone(), address))
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    /// The address of a target of a group; one without a port has the group's.
    pub fn target_of(&self, group: &str, text: &str) -> Option<SocketAddr> {
        if let Ok(address) = text.parse() {
            return Some(address);
        }
        let address: IpAddr = text.trim_matches(['[', ']']).parse().ok()?;
        let group = self.get(&ResourceId::TargetGroup(group.to_owned()))?;
        Some(SocketAddr::new(address, port_of(group)?))
    }

    /// The listeners of a load balancer that an id may mean.
    pub fn listeners_like(&self, balancer: &str, id: &ListenerId) -> Vec<ListenerId> {
        let top = ResourceId::LoadBalancer(balancer.to_owned());
        let Some(table) = self.get(&top) else {
            return Vec::new();
        };
        self.listener_ids(table)
            .into_iter()
            .flatten()
            .filter(|other| other.protocol == id.protocol && other.port == id.port)
            .collect()
    }

    fn list(&self, list: &str) -> &[Value] {
        list_in(&self.root, list)
    }

    fn slot(&self, id: &ResourceId) -> Option<Slot> {
        let list = match id {
            ResourceId::LoadBalancer(_) | ResourceId::Listener(..) | ResourceId::Rule(..) => {
                LOAD_BALANCER
            }
            ResourceId::TargetGroup(_) | ResourceId::Target(..) => TARGET_GROUP,
        };
        let name = id.top_name();
        let index = (self.list(list).iter())
            .position(|top| top.get("name").and_then(Value::as_str) == Some(name))?;
        let top = self.list(list).get(index)?.as_object()?;
        let child = match id {
            ResourceId::LoadBalancer(_) | ResourceId::TargetGroup(_) => None,
            ResourceId::Listener(_, id) => Some((LISTENER, self.find_listener(top, id)?)),
            ResourceId::Rule(_, id) => {
                let rules = list_in(top, RULE);
                let at = rules.iter().position(|rule| rule_id(rule) == *id)?;
                Some((RULE, at))
            }
            ResourceId::Target(_, address) => {
                let port = port_of(top);
                let targets = list_in(top, TARGET);
                let is_it = |target: &Value| target_address(target, port) == Some(*address);
                Some((TARGET, targets.iter().position(is_it)?))
            }
        };
        Some(Slot { list, index, child })
    }

    fn find_listener(&self, balancer: &Table, id: &ListenerId) -> Option<usize> {
        let listeners = list_in(balancer, LISTENER);
        let mut alike = (0..).zip(listeners).filter(|(_, listener)| {
            protocol_and_port(listener)
                .is_some_and(|(protocol, port)| protocol == id.protocol && port == id.port)
        });
        let Some(version) = id.version else {
            let (index, _) = alike.next()?;
            // One of two must be told from the other.
            return alike.next().is_none().then_some(index);
        };
        alike
            .find(|(_, listener)| self.version_of(listener) == Some(version))
            .map(|(index, _)| index)
    }

    /// The ids of a load balancer's listeners; none for one without protocol and port.
    fn listener_ids(&self, balancer: &Table) -> Vec<Option<ListenerId>> {
        let listeners = list_in(balancer, LISTENER);
        let mut uses: HashMap<(&str, u16), usize> = HashMap::new();
        for key in listeners.iter().filter_map(protocol_and_port) {
            *uses.entry(key).or_default() += 1;
        }
        listeners
            .iter()
            .map(|listener| {
                let key = protocol_and_port(listener)?;
                let shared = uses.get(&key).is_some_and(|&uses| uses > 1);
                Some(ListenerId {
                    protocol: key.0.to_owned(),
                    port: key.1,
                    version: shared.then(|| self.version_of(listener)).flatten(),
                })
            })
            .collect()
    }

    /// The IP version of a listener's targets, if its first group has any.
    fn version_of(&self, listener: &Value) -> Option<ListenerVersion> {
        let named = listener.get("target_group").or_else(|| {
            let first = listener.get("target_groups")?.get(0)?;
            first.get("name")
        });
        let group = self.get(&ResourceId::TargetGroup(named?.as_str()?.to_owned()))?;
        let address = list_in(group, TARGET).first()?.get("address")?.as_str()?;
        Some(if address.contains(':') {
            ListenerVersion::V6
        } else {
            ListenerVersion::V4
        })
    }

    /// Writes a resource at its place, or at the end of its list if it is new; `false` if what it
    /// belongs to is not there.
    fn put(&mut self, id: &ResourceId, table: Table) -> bool {
        if let Some(slot) = self.slot(id) {
            if let Some(place) = self.at_mut(slot) {
                *place = table;
            }
            return true;
        }
        self.push(id, table)
    }

    /// Writes a resource at the end of its list, whatever is there already.
    fn push(&mut self, id: &ResourceId, table: Table) -> bool {
        let (list, child) = match id {
            ResourceId::LoadBalancer(_) => (LOAD_BALANCER, None),
            ResourceId::TargetGroup(_) => (TARGET_GROUP, None),
            ResourceId::Listener(..) => (LOAD_BALANCER, Some(LISTENER)),
            ResourceId::Rule(..) => (LOAD_BALANCER, Some(RULE)),
            ResourceId::Target(..) => (TARGET_GROUP, Some(TARGET)),
        };
        let parent = match child {
            None => Some(&mut self.root),
            Some(_) => self.slot(&id.top()).and_then(|slot| self.at_mut(slot)),
        };
        let Some(parent) = parent else {
            return false;
        };
        let entries = parent
            .entry(child.unwrap_or(list))
            .or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(entries) = entries {
            entries.push(Value::Object(table));
        }
        true
    }

    /// Takes a resource out, with everything in it; `false` if it was not there.
    fn remove(&mut self, id: &ResourceId) -> bool {
        let Some(slot) = self.slot(id) else {
            return false;
        };
        let (parent, list, index) = match slot.child {
            None => (Some(&mut self.root), slot.list, slot.index),
            Some((list, index)) => {
                let top = Slot {
                    child: None,
                    ..slot
                };
                (self.at_mut(top), list, index)
            }
        };
        let Some(parent) = parent else {
            return false;
        };
        if let Some(Value::Array(entries)) = parent.get_mut(list) {
            if index < entries.len() {
                entries.remove(index);
            }
            if entries.is_empty() {
                parent.remove(list);
            }
        }
        true
    }

    fn at_mut(&mut self, slot: Slot) -> Option<&mut Table> {
        let top = self.root.get_mut(slot.list)?.get_mut(slot.index)?;
        match slot.child {
            None => top.as_object_mut(),
            Some((list, index)) => top.get_mut(list)?.get_mut(index)?.as_object_mut(),
        }
    }
}

fn list_in<'t>(table: &'t Table, list: &str) -> &'t [Value] {
    table
        .get(list)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn name_of(table: &Value) -> Option<String> {
    Some(table.get("name")?.as_str()?.to_owned())
}

fn port_of(table: &Table) -> Option<u16> {
    u16::try_from(table.get("port")?.as_u64()?).ok()
}

fn protocol_and_port(listener: &Value) -> Option<(&str, u16)> {
    let protocol = listener.get("protocol")?.as_str()?;
    let port = listener.get("port")?.as_u64()?;
    Some((protocol, u16::try_from(port).ok()?))
}

fn target_address(target: &Value, group_port: Option<u16>) -> Option<SocketAddr> {
    let address = target.get("address")?.as_str()?.parse().ok()?;
    let port = match target.get("port") {
        Some(port) => u16::try_from(port.as_u64()?).ok()?,
        None => group_port?,
    };
    Some(SocketAddr::new(address, port))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "half of the hash is enough to tell a load balancer's rules apart"
)]
fn rule_id(rule: &Value) -> RuleId {
    RuleId(Document::hash(rule) as u32)
}

/// The dotted name of the first null.
fn null_in(table: &Table, above: &str) -> Option<String> {
    fn search(value: &Value, path: String) -> Option<String> {
        match value {
            Value::Null => Some(path),
            Value::Object(table) => null_in(table, &path),
            Value::Array(items) => items.iter().find_map(|item| search(item, path.clone())),
            _ => None,
        }
    }
    table.iter().find_map(|(key, value)| {
        let path = if above.is_empty() {
            key.clone()
        } else {
            format!("{above}.{key}")
        };
        search(value, path)
    })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
