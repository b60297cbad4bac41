//! Who may do what: a pure decision about one call.
//!
//! ```text
//!  caller ─► their roles, as statements ─┐
//!         └► the statements about them ──┴─► a deny? ─► an allow? ─► otherwise no
//! ```
//!
//! The rules are those of identity-based policies: what nothing allows is denied, and one explicit
//! deny outweighs any number of allows, in whatever order they stand. A role is nothing but a short
//! name for some statements. Root and the daemon's own user are asked nothing: they could end the
//! daemon or rewrite its file.
//!
//! Who comes over the network is known by the names in a [`certificate`], and nothing is allowed to
//! whom no role and no statement names.
//!
//! [`directory`] finds the numbers behind the names of a file, [`guard`] stands where calls come in,
//! [`audit`] keeps what became of each.

pub mod audit;
pub mod certificate;
pub mod directory;
pub mod guard;
pub mod pattern;
#[cfg(test)]
mod properties;

use std::{collections::BTreeMap, fmt, sync::Arc};

use self::{
    certificate::{Certificate, CertificateName},
    pattern::Pattern,
};

/// What a resource is labelled with.
pub type Tags = BTreeMap<String, String>;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A user of this host, as the kernel says of the other end of a Unix socket.
    User {
        /// The user.
        uid: u32,
        /// The user's first group.
        gid: u32,
    },
    /// Whoever has the key of a certificate that an authority for clients has signed.
    Certificate(Arc<Certificate>),
}

impl fmt::Display for Caller {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User { uid, .. } => write!(out, "user {uid}"),
            Self::Certificate(certificate) => write!(out, "certificate {}", certificate.name()),
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Call<'c> {
    /// Such as `targets:register`: what it is about, and what is done with it.
    pub action: &'c str,
    /// Such as `target-group/web/target/10.0.0.11:80`; `*` for what is no resource.
    pub resource: &'c str,
    /// The resource's tags, if it is there and has any.
    pub tags: &'c Tags,
}

/// Whom a grant or a statement is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Principals {
    /// These users.
    pub uids: Vec<u32>,
    /// And those whose first group is one of these.
    pub gids: Vec<u32>,
    /// And whoever has a certificate with one of these names.
    pub certificates: Vec<CertificateName>,
}

impl Principals {
    /// Whether the caller is one of them.
    pub fn include(&self, caller: &Caller) -> bool {
        match caller {
            Caller::User { uid, gid } => self.uids.contains(uid) || self.gids.contains(gid),
            Caller::Certificate(certificate) => {
                (certificate.names.iter()).any(|name| self.certificates.contains(name))
            }
        }
    }

    /// Whether users of this host are among them.
    const fn have_users(&self) -> bool {
        !self.uids.is_empty() || !self.gids.is_empty()
    }
}

/// A short name for what someone usually does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Looks at everything and changes nothing.
    ReadOnly,
    /// Also registers, weighs, drains and deregisters targets.
    Operator,
    /// Does everything.
    Admin,
}

impl Role {
    /// As the configuration writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The actions that it allows, on every resource.
    pub const fn actions(self) -> &'static [&'static str] {
        match self {
            Self::ReadOnly => &["*:read"],
            Self::Operator => &["*:read", "targets:*"],
            Self::Admin => &["*"],
        }
    }

    fn allows(self, action: &str) -> bool {
        let mut patterns = self.actions().iter();
        patterns.any(|pattern| pattern::matches(pattern, action))
    }
}

/// Some callers' role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Which.
    pub role: Role,
    /// Whose.
    pub principals: Principals,
}

/// What a statement says about the calls that it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// They are allowed, unless something denies them.
    Allow,
    /// They are denied, whatever allows them.
    Deny,
}

/// A statement of a policy. It is about a call if all of its parts are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// What it says.
    pub effect: Effect,
    /// Whom it is about; `None` for everybody, but that an allow is then for users of this host only:
    /// a certificate must be named.
    pub principals: Option<Principals>,
    /// The actions.
    pub actions: Vec<Pattern>,
    /// The resources.
    pub resources: Vec<Pattern>,
    /// Tags that the resource must have, each with a value like this. A resource without the tag is
    /// another one.
    pub tags: BTreeMap<String, Pattern>,
}

impl Statement {
    fn is_about(&self, caller: &Caller, call: &Call<'_>) -> bool {
        let is_about_caller = match &self.principals {
            Some(principals) => principals.include(caller),
            None => self.effect == Effect::Deny || matches!(caller, Caller::User { .. }),
        };
        is_about_caller
            && self
                .actions
                .iter()
                .any(|action| action.matches(call.action))
            && (self.resources.iter()).any(|resource| resource.matches(call.resource))
            && (self.tags.iter())
                .all(|(key, value)| call.tags.get(key).is_some_and(|tag| value.matches(tag)))
    }
}

/// All of a node's rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Users that are asked nothing: root, and the daemon's own.
    pub owners: Vec<u32>,
    /// Roles.
    pub grants: Vec<Grant>,
    /// Statements, counted from 1 in messages.
    pub statements: Vec<Statement>,
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It may happen.
    Allowed,
    /// The statement of that number denies it.
    Denied(usize),
    /// Nothing allows it.
    NotAllowed,
}

impl Policy {
    /// Whether the caller may do that.
    pub fn decide(&self, caller: &Caller, call: &Call<'_>) -> Decision {
        if let Caller::User { uid, .. } = caller
            && self.owners.contains(uid)
        {
            return Decision::Allowed;
        }
        let about = || {
            let numbered = self.statements.iter().zip(1..);
            numbered.filter(|(statement, _)| statement.is_about(caller, call))
        };
        if let Some((_, number)) = about().find(|(statement, _)| statement.effect == Effect::Deny) {
            return Decision::Denied(number);
        }
        let has_role = self
            .grants
            .iter()
            .any(|grant| grant.principals.include(caller) && grant.role.allows(call.action));
        if has_role || about().next().is_some() {
            Decision::Allowed
        } else {
            Decision::NotAllowed
        }
    }

    /// Whether users of this host may do anything besides root and the daemon's own user.
    pub fn is_shared(&self) -> bool {
        let is_for_users = |statement: &Statement| {
            let principals = statement.principals.as_ref();
            principals.is_none_or(Principals::have_users)
        };
        (self.grants.iter()).any(|grant| grant.principals.have_users())
            || self.statements.iter().any(is_for_users)
    }
}

impl Decision {
    /// Whether the call may happen.
    pub fn is_allowed(self) -> bool {
        self == Self::Allowed
    }

    /// Why a caller is refused, and what helps.
    pub fn explain(self, caller: &Caller, call: &Call<'_>) -> Explanation {
        Explanation {
            decision: self,
            who: caller.to_string(),
            action: call.action.to_owned(),
            resource: call.resource.to_owned(),
        }
    }
}

/// A decision in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    decision: Decision,
    who: String,
    action: String,
    resource: String,
}

impl fmt::Display for Explanation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            decision,
            who,
            action,
            resource,
        } = self;
        match decision {
            Decision::Allowed => write!(out, "{who} may {action} {resource}"),
            Decision::Denied(number) => write!(
                out,
                "{who} may not {action} {resource}: statement {number} of the configuration's \
                 access_statement denies it"
            ),
            Decision::NotAllowed => write!(
                out,
                "{who} may not {action} {resource}: nothing in the configuration's access allows \
                 it; an access_role or access_statement that names them would, or, for a user, try \
                 `sudo`"
            ),
        }
    }
}
