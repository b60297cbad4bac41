//! The rules of who may use the API. Whether this host has those users and groups is asked
//! when the rules become live, not here: a file is checked on other machines, too.

use super::super::{
    desired::{Access, AccessRole, AccessStatement},
    error::{Problem, Remedy},
    raw::{RawRole, RawStatement},
    reader::Field,
    report::{At, Report},
};
use crate::access::{
    Role,
    certificate::{CertificateName, NotAName},
};

pub(super) fn resolve(
    roles: &[RawRole],
    statements: &[RawStatement],
    report: &mut Report<'_>,
) -> Access {
    Access {
        roles: roles.iter().map(|raw| role(raw, report)).collect(),
        statements: statements
            .iter()
            .map(|raw| statement(raw, report))
            .collect(),
    }
}

fn role(raw: &RawRole, report: &mut Report<'_>) -> AccessRole {
    let principals = [&raw.users, &raw.groups, &raw.certificates];
    if (principals.iter()).all(|field| matches!(field, Field::Absent)) {
        report.fault(&raw.spot, Problem::RoleOfNobody, Remedy::NameUsers);
    }
    AccessRole {
        role: match raw.role.value().map(|at| at.value.as_str()) {
            Some("admin") => Role::Admin,
            Some("operator") => Role::Operator,
            _ => Role::ReadOnly,
        },
        users: texts(&raw.users),
        groups: texts(&raw.groups),
        certificates: certificates(&raw.certificates, report),
    }
}

fn statement(raw: &RawStatement, report: &mut Report<'_>) -> AccessStatement {
    for at in written(&raw.actions) {
        // One that is like no action would deny nothing, in silence.
        if !at.value.contains([':', '*']) {
            report.fault(&at.spot, Problem::ActionForm, Remedy::WriteAction);
        }
    }
    let mut tags = Vec::new();
    for at in written(&raw.tags) {
        match at.value.split_once('=') {
            Some((key, value)) if !key.is_empty() => tags.push((key.to_owned(), value.to_owned())),
            _ => report.fault(&at.spot, Problem::TagForm, Remedy::WriteTag),
        }
    }
    AccessStatement {
        allows: raw.effect.value().is_some_and(|at| at.value == "allow"),
        users: texts(&raw.users),
        groups: texts(&raw.groups),
        certificates: certificates(&raw.certificates, report),
        actions: texts(&raw.actions),
        resources: match &raw.resources {
            Field::Absent => vec!["*".to_owned()],
            resources => texts(resources),
        },
        tags,
    }
}

fn certificates(field: &Field<Vec<At<String>>>, report: &mut Report<'_>) -> Vec<CertificateName> {
    let mut names = Vec::new();
    for at in written(field) {
        match at.value.parse() {
            Ok(name) => names.push(name),
            Err(NotAName) => {
                let problem = Problem::CertificateName;
                report.fault(&at.spot, problem, Remedy::WriteCertificateName);
            }
        }
    }
    names
}

fn written(field: &Field<Vec<At<String>>>) -> &[At<String>] {
    field.value().map_or(&[], |at| at.value.as_slice())
}

fn texts(field: &Field<Vec<At<String>>>) -> Vec<String> {
    written(field).iter().map(|at| at.value.clone()).collect()
}
