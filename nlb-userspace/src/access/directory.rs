//! The numbers behind the names of users and groups, as this host's name service has them.
//!
//! Asked when the configuration is read, not with each call: a name service that is slow or gone must
//! not stop the daemon's loop. So who joins a group later counts from the next reload on.

use nix::unistd::{Group, User};

use super::{Effect, Grant, Policy, Principals, Statement, pattern::Pattern};
use crate::config::{Access, AccessStatement};

/// The rules of a configuration, on this host.
pub fn policy(access: &Access) -> Result<Policy, DirectoryError> {
    let grants = access.roles.iter().map(|granted| {
        Ok(Grant {
            role: granted.role,
            principals: Principals {
                certificates: granted.certificates.clone(),
                ..find("access_role", &granted.users, &granted.groups)?
            },
        })
    });
    Ok(Policy {
        owners: vec![0, rustix::process::geteuid().as_raw()],
        grants: grants.collect::<Result<_, _>>()?,
        statements: (access.statements.iter())
            .map(statement)
            .collect::<Result<_, _>>()?,
    })
}

fn statement(written: &AccessStatement) -> Result<Statement, DirectoryError> {
    let patterns = |texts: &[String]| texts.iter().map(Pattern::new).collect();
    let (users, groups) = (&written.users, &written.groups);
    let certificates = &written.certificates;
    let is_about_some = !users.is_empty() || !groups.is_empty() || !certificates.is_empty();
    let principals = is_about_some.then(|| {
        Ok(Principals {
            certificates: certificates.clone(),
            ..find("access_statement", users, groups)?
        })
    });
    Ok(Statement {
        effect: if written.allows {
            Effect::Allow
        } else {
            Effect::Deny
        },
        principals: principals.transpose()?,
        actions: patterns(&written.actions),
        resources: patterns(&written.resources),
        tags: (written.tags.iter())
            .map(|(key, value)| (key.clone(), Pattern::new(value)))
            .collect(),
    })
}

/// A name that this host does not know, or cannot look up.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Nobody has that name.
    #[error("{field}: this host has no {kind} `{name}`; `getent {database}` lists those it has")]
    Unknown {
        /// The key of the configuration.
        field: &'static str,
        /// `user` or `group`.
        kind: &'static str,
        /// The name.
        name: String,
        /// `passwd` or `group`.
        database: &'static str,
    },
    /// The question failed.
    #[error("{field}: cannot look up `{name}`: {source}")]
    Lookup {
        /// The key of the configuration.
        field: &'static str,
        /// The name.
        name: String,
        /// Why not.
        source: nix::Error,
    },
}

/// Finds users, and groups with all their members.
pub fn find(
    field: &'static str,
    users: &[String],
    groups: &[String],
) -> Result<Principals, DirectoryError> {
    let lookup = |name: &str| {
        let name = name.to_owned();
        move |source| DirectoryError::Lookup {
            field,
            name,
            source,
        }
    };
    let mut principals = Principals::default();
    for name in users {
        let user = User::from_name(name).map_err(lookup(name))?;
        let user = user.ok_or_else(|| DirectoryError::Unknown {
            field,
            kind: "user",
            name: name.clone(),
            database: "passwd",
        })?;
        principals.uids.push(user.uid.as_raw());
    }
    for name in groups {
        let group = Group::from_name(name).map_err(lookup(name))?;
        let group = group.ok_or_else(|| DirectoryError::Unknown {
            field,
            kind: "group",
            name: name.clone(),
            database: "group",
        })?;
        principals.gids.push(group.gid.as_raw());
        for member in &group.mem {
            // A member who is no user any more can call nobody.
            if let Some(user) = User::from_name(member).map_err(lookup(member))? {
                principals.uids.push(user.uid.as_raw());
            }
        }
    }
    Ok(principals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_numbers_and_an_unknown_one_is_told() {
        let found = find("f", &["root".to_owned()], &["root".to_owned()]).unwrap();
        assert!(found.uids.contains(&0) && found.gids == [0]);
        let error = find("access.role.users", &["no-such-user".to_owned()], &[]).unwrap_err();
        let said = error.to_string();
        assert!(said.starts_with("access.role.users: this host has no user `no-such-user`"));
        let error = find("access.role.groups", &[], &["no-such-group".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("getent group"), "{error}");
    }
}
