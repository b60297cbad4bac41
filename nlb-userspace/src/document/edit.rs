//! One change of one resource.

use std::{fmt, net::SocketAddr};

use serde_json::Value;

use super::{
    Document, DocumentError, Table, merge, null_in,
    resource::{ListenerId, NotAnId, ResourceId, RuleId},
    rule_id, target_address,
};

/// What kind of resource something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A load balancer.
    LoadBalancer,
    /// A listener of one.
    Listener,
    /// A source rule of one.
    Rule,
    /// A target group.
    TargetGroup,
    /// A target of one.
    Target,
}

/// A resource as a request names it: a kind, the name of the load balancer or target group, and the
/// name within that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// What it is.
    pub kind: Kind,
    /// The name of the load balancer or target group.
    pub top: String,
    /// For what is in one: `TCP:80`, `10.0.0.11:80`, the id of a rule.
    pub child: Option<String>,
}

/// A change of one resource.
#[derive(Debug, Clone, PartialEq)]
pub enum Edit {
    /// Adds one that must not be there yet; for what is in another, `into` names that.
    Add {
        /// What it is.
        kind: Kind,
        /// The load balancer or target group that it comes into.
        into: Option<String>,
        /// What it says.
        table: Value,
    },
    /// Says everything about one anew, or adds it.
    Put {
        /// Which one.
        named: Named,
        /// What it says from now on.
        table: Value,
    },
    /// Says some keys of one anew; null removes a key (RFC 7396).
    Patch {
        /// Which one.
        named: Named,
        /// The merge patch.
        patch: Value,
    },
    /// Takes one out, with everything in it.
    Remove {
        /// Which one.
        named: Named,
    },
    /// Says all rules of a load balancer anew.
    PutRules {
        /// The load balancer.
        balancer: String,
        /// Its rules, in a list.
        rules: Value,
    },
}

/// Why a change cannot be made, before anybody asks whether its result is valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// Nothing of that name.
    #[error("there is no {0}; `nlb {1} list` shows what there is")]
    Missing(String, &'static str),
    /// Something of that name.
    #[error("{0} exists already; change it with `set`, or choose another name")]
    Exists(ResourceId),
    /// A name that cannot be one.
    #[error(transparent)]
    NotAnId(#[from] NotAnId),
    /// A name that two listeners have.
    #[error("there are two listeners {0}; name one of {1}")]
    Ambiguous(ListenerId, String),
    /// Another shape.
    #[error("the body must be a JSON {0}")]
    Shape(&'static str),
    /// A null in something that is no patch.
    #[error("`{0}` is null; leave the key out instead")]
    Null(String),
    /// The body speaks of another resource.
    #[error(
        "`{key}` says {found} in the body, and the path names {wanted}; a resource keeps its name, so add another one and remove this one"
    )]
    OtherName {
        /// The key.
        key: &'static str,
        /// What the body says.
        found: String,
        /// What the path says.
        wanted: String,
    },
}

impl Kind {
    /// The word for it on the command line.
    pub const fn command(self) -> &'static str {
        match self {
            Self::LoadBalancer => "lb",
            Self::Listener => "listener",
            Self::Rule => "rule",
            Self::TargetGroup => "target-group",
            Self::Target => "target",
        }
    }

    const fn noun(self) -> &'static str {
        match self {
            Self::LoadBalancer => "load balancer",
            Self::Listener => "listener",
            Self::Rule => "rule",
            Self::TargetGroup => "target group",
            Self::Target => "target",
        }
    }

    const fn parent(self) -> Option<Self> {
        match self {
            Self::LoadBalancer | Self::TargetGroup => None,
            Self::Listener | Self::Rule => Some(Self::LoadBalancer),
            Self::Target => Some(Self::TargetGroup),
        }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |kind| match kind {
            Kind::LoadBalancer => "load-balancer",
            Kind::Listener => "listener",
            Kind::Rule => "rule",
            Kind::TargetGroup => "target-group",
            Kind::Target => "target",
        };
        let top = self.kind.parent().unwrap_or(self.kind);
        write!(out, "{}/{}", word(top), self.top)?;
        match &self.child {
            None => Ok(()),
            Some(child) => write!(out, "/{}/{child}", word(self.kind)),
        }
    }
}

impl Named {
    /// A load balancer or target group.
    pub fn top(kind: Kind, name: impl Into<String>) -> Self {
        Self {
            kind,
            top: name.into(),
            child: None,
        }
    }

    /// Something in one.
    pub fn child(kind: Kind, top: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            kind,
            top: top.into(),
            child: Some(name.into()),
        }
    }

    fn missing(&self) -> EditError {
        let what = match &self.child {
            None => format!("{} `{}`", self.kind.noun(), self.top),
            Some(child) => {
                let parent = self.kind.parent().map_or("", Kind::noun);
                format!("{} `{child}` in {parent} `{}`", self.kind.noun(), self.top)
            }
        };
        EditError::Missing(what, self.kind.command())
    }

    /// The id that this name stands for in a document, whether the resource is there or not.
    pub fn id(&self, document: &Document) -> Result<ResourceId, EditError> {
        let child = self.child.as_deref().unwrap_or_default();
        let top = match self.kind.parent() {
            None => return Ok(top_id(self.kind, &self.top)),
            Some(kind) => top_id(kind, &self.top),
        };
        if document.get(&top).is_none() {
            let parent = self.kind.parent().unwrap_or(self.kind);
            return Err(Self::top(parent, self.top.clone()).missing());
        }
        Ok(match self.kind {
            Kind::Rule => ResourceId::Rule(self.top.clone(), child.parse::<RuleId>()?),
            Kind::Listener => {
                let id: ListenerId = child.parse()?;
                let like = document.listeners_like(&self.top, &id);
                let id = match like.as_slice() {
                    [only] if id.version.is_none() => only.clone(),
                    [_, _, ..] if id.version.is_none() => {
                        let names: Vec<_> = like.iter().map(|id| format!("`{id}`")).collect();
                        return Err(EditError::Ambiguous(id, names.join(" and ")));
                    }
                    _ => id,
                };
                ResourceId::Listener(self.top.clone(), id)
            }
            _ => {
                let address = document
                    .target_of(&self.top, child)
                    .ok_or_else(|| NotAnId {
                        text: child.to_owned(),
                        wanted: "a target, such as `10.0.0.11:80` or `[2001:db8::11]:80`",
                    })?;
                ResourceId::Target(self.top.clone(), address)
            }
        })
    }

    /// The id of a resource that is there.
    pub fn existing(&self, document: &Document) -> Result<ResourceId, EditError> {
        let id = self.id(document)?;
        match document.get(&id) {
            Some(_) => Ok(id),
            None => Err(self.missing()),
        }
    }
}

impl Edit {
    /// The resource that it is about, and whose tag a condition is held against: for one that is to
    /// be added, what it comes into.
    pub fn subject(&self) -> Option<Named> {
        match self {
            Self::Add { kind, into, .. } => {
                let parent = kind.parent()?;
                Some(Named::top(parent, into.clone()?))
            }
            Self::Put { named, .. } | Self::Patch { named, .. } | Self::Remove { named } => {
                Some(named.clone())
            }
            Self::PutRules { balancer, .. } => {
                Some(Named::top(Kind::LoadBalancer, balancer.clone()))
            }
        }
    }
}

impl Document {
    /// The document with that change, and the id of what was changed. A resource whose body names
    /// it wrongly or not at all has none: what is wrong with it is for the configuration's rules to
    /// say.
    pub fn edited(&self, edit: &Edit) -> Result<(Self, Option<ResourceId>), EditError> {
        let mut edited = self.clone();
        let id = match edit {
            Edit::Add { kind, into, table } => {
                edited.add(*kind, into.as_deref().unwrap_or_default(), table)?
            }
            Edit::Put { named, table } => {
                let id = named.id(self)?;
                let table = with_name(&id, object(table)?, self)?;
                if !edited.put(&id, table.clone()) {
                    return Err(named.missing());
                }
                Some(renamed(id, &table))
            }
            Edit::Patch { named, patch } => {
                let id = named.existing(self)?;
                let Value::Object(patch) = patch else {
                    return Err(EditError::Shape("object"));
                };
                let mut table = self.get(&id).cloned().unwrap_or_default();
                merge::merge_into(&mut table, patch);
                if let Some(path) = null_in(&table, "") {
                    return Err(EditError::Null(path));
                }
                let table = with_name(&id, table, self)?;
                edited.put(&id, table.clone());
                Some(renamed(id, &table))
            }
            Edit::Remove { named } => {
                let id = named.existing(self)?;
                edited.remove(&id);
                Some(id)
            }
            Edit::PutRules { balancer, rules } => {
                let id = Named::top(Kind::LoadBalancer, balancer.clone()).existing(self)?;
                let Value::Array(list) = rules else {
                    return Err(EditError::Shape("array of rules"));
                };
                let mut table = self.get(&id).cloned().unwrap_or_default();
                table.remove("rule");
                if !list.is_empty() {
                    table.insert("rule".to_owned(), rules.clone());
                }
                if let Some(path) = null_in(&table, "") {
                    return Err(EditError::Null(path));
                }
                edited.put(&id, table);
                Some(id)
            }
        };
        Ok((edited, id))
    }

    fn add(
        &mut self,
        kind: Kind,
        into: &str,
        table: &Value,
    ) -> Result<Option<ResourceId>, EditError> {
        let table = object(table)?;
        if let Some(parent) = kind.parent() {
            Named::top(parent, into).existing(self)?;
        }
        let value = Value::Object(table.clone());
        let id = match kind {
            Kind::LoadBalancer | Kind::TargetGroup => {
                super::name_of(&value).map(|name| top_id(kind, &name))
            }
            Kind::Rule => Some(ResourceId::Rule(into.to_owned(), rule_id(&value))),
            Kind::Target => {
                let group = self.get(&top_id(Kind::TargetGroup, into));
                let address = target_address(&value, group.and_then(super::port_of));
                address.map(|address| ResourceId::Target(into.to_owned(), address))
            }
            // Another one on the same port may be of the other IP version: the rules decide.
            Kind::Listener => None,
        };
        if let Some(id) = id.as_ref().filter(|id| self.get(id).is_some()) {
            return Err(EditError::Exists(id.clone()));
        }
        if kind == Kind::Listener {
            let nowhere = ListenerId {
                protocol: String::new(),
                port: 0,
                version: None,
            };
            self.push(&ResourceId::Listener(into.to_owned(), nowhere), table);
            let balancer = self.get(&top_id(kind, into));
            let listeners = balancer.map(|balancer| self.listener_ids(balancer));
            let last = listeners.and_then(|ids| ids.into_iter().last().flatten());
            return Ok(last.map(|id| ResourceId::Listener(into.to_owned(), id)));
        }
        // One without a name is put there, too, so that its faults are found with all others.
        let place = id.clone().unwrap_or_else(|| match kind {
            Kind::Target => {
                let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
                ResourceId::Target(into.to_owned(), nowhere)
            }
            _ => top_id(kind, ""),
        });
        self.push(&place, table);
        Ok(id)
    }
}

fn top_id(kind: Kind, name: &str) -> ResourceId {
    match kind {
        Kind::TargetGroup | Kind::Target => ResourceId::TargetGroup(name.to_owned()),
        _ => ResourceId::LoadBalancer(name.to_owned()),
    }
}

fn object(value: &Value) -> Result<Table, EditError> {
    let Value::Object(table) = value else {
        return Err(EditError::Shape("object"));
    };
    match null_in(table, "") {
        Some(path) => Err(EditError::Null(path)),
        None => Ok(table.clone()),
    }
}

/// A rule that says something else has another id.
fn renamed(id: ResourceId, table: &Table) -> ResourceId {
    match id {
        ResourceId::Rule(balancer, _) => {
            ResourceId::Rule(balancer, rule_id(&Value::Object(table.clone())))
        }
        other => other,
    }
}

/// A resource whose body says the name that its path has: filled in where it is left out.
fn with_name(id: &ResourceId, mut table: Table, document: &Document) -> Result<Table, EditError> {
    let wanted: Vec<(&'static str, Value)> = match id {
        ResourceId::LoadBalancer(name) | ResourceId::TargetGroup(name) => {
            vec![("name", name.as_str().into())]
        }
        ResourceId::Listener(_, id) => vec![
            ("protocol", id.protocol.as_str().into()),
            ("port", id.port.into()),
        ],
        ResourceId::Rule(..) => Vec::new(),
        ResourceId::Target(group, address) => {
            let written = table.get("address").and_then(Value::as_str);
            let is_same = written.and_then(|text| text.parse().ok()) == Some(address.ip());
            if is_same {
                // However it is written.
                table.insert("address".to_owned(), address.ip().to_string().into());
            }
            let mut wanted = vec![("address", address.ip().to_string().into())];
            let group = document.get(&ResourceId::TargetGroup(group.clone()));
            let is_default = group.and_then(super::port_of) == Some(address.port());
            if !is_default || table.contains_key("port") {
                wanted.push(("port", address.port().into()));
            }
            wanted
        }
    };
    for (key, value) in wanted {
        match table.get(key) {
            Some(found) if *found != value => {
                return Err(EditError::OtherName {
                    key,
                    found: found.to_string(),
                    wanted: value.to_string(),
                });
            }
            Some(_) => {}
            None => {
                table.insert(key.to_owned(), value);
            }
        }
    }
    Ok(table)
}

impl From<DocumentError> for EditError {
    fn from(error: DocumentError) -> Self {
        match error {
            DocumentError::Null(path) => Self::Null(path),
            DocumentError::Toml(_) | DocumentError::Unwritable(_) => Self::Shape("object"),
        }
    }
}
