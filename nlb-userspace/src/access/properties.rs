//! The rules, for all policies: what is decided for some is in the tests of the control socket.

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

/// The same by the definition, which tries everything.
fn naive(pattern: &[char], word: &[char]) -> bool {
    match (pattern, word) {
        ([], []) => true,
        (['*', rest @ ..], _) => (0..=word.len()).any(|taken| naive(rest, &word[taken..])),
        (['?', rest @ ..], [_, word @ ..]) => naive(rest, word),
        ([expected, rest @ ..], [found, word @ ..]) => expected == found && naive(rest, word),
        _ => false,
    }
}

fn principals() -> impl Strategy<Value = Principals> {
    let names = vec(name(), 0..2);
    (vec(1_u32..4, 0..3), vec(1_u32..4, 0..2), names).prop_map(|(uids, gids, certificates)| {
        Principals {
            uids,
            gids,
            certificates,
        }
    })
}

fn name() -> impl Strategy<Value = CertificateName> {
    select(
        &[
            "CN:alice",
            "CN:bob",
            "DNS:alice",
            "URI:spiffe://example.org/ops",
        ][..],
    )
    .prop_map(|name| name.parse().expect("a name"))
}

fn certificate() -> impl Strategy<Value = Caller> {
    vec(name(), 0..3).prop_map(|names| {
        Caller::Certificate(Arc::new(Certificate {
            subject: "O=Example".to_owned(),
            names,
            sha256: String::new(),
        }))
    })
}

fn caller() -> impl Strategy<Value = Caller> {
    let user = (1_u32..4, 1_u32..4).prop_map(|(uid, gid)| Caller::User { uid, gid });
    prop_oneof![user, certificate()]
}

fn pattern(of: &'static [&'static str]) -> impl Strategy<Value = Pattern> {
    select(of).prop_map(Pattern::new)
}

const ACTIONS: &[&str] = &[
    "*",
    "*:read",
    "targets:*",
    "targets:drain",
    "daemon:reload",
    "?argets:read",
];
const RESOURCES: &[&str] = &[
    "*",
    "target-group/web",
    "target-group/web/*",
    "target-group/*",
];

fn statement() -> impl Strategy<Value = Statement> {
    (
        any::<bool>(),
        proptest::option::of(principals()),
        vec(pattern(ACTIONS), 1..3),
        vec(pattern(RESOURCES), 1..3),
        proptest::option::of(pattern(&["web", "w*", "db"])),
    )
        .prop_map(|(allows, principals, actions, resources, team)| Statement {
            effect: if allows { Effect::Allow } else { Effect::Deny },
            principals,
            actions,
            resources,
            tags: (team.into_iter())
                .map(|team| ("team".to_owned(), team))
                .collect(),
        })
}

fn policy() -> impl Strategy<Value = Policy> {
    let role = select(&[Role::ReadOnly, Role::Operator, Role::Admin][..]);
    let grant = (role, principals()).prop_map(|(role, principals)| Grant { role, principals });
    (vec(grant, 0..3), vec(statement(), 0..5)).prop_map(|(grants, statements)| Policy {
        owners: vec![0, 9],
        grants,
        statements,
    })
}

#[derive(Debug, Clone)]
struct Asked {
    caller: Caller,
    action: &'static str,
    resource: &'static str,
    tags: Tags,
}

impl Asked {
    fn call(&self) -> Call<'_> {
        Call {
            action: self.action,
            resource: self.resource,
            tags: &self.tags,
        }
    }
}

fn asked() -> impl Strategy<Value = Asked> {
    let actions = &[
        "targets:read",
        "targets:drain",
        "daemon:reload",
        "target-groups:read",
    ][..];
    let resources = &[
        "*",
        "target-group/web",
        "target-group/web/target/10.0.0.1:80",
    ][..];
    let team = proptest::option::of(select(&["web", "db"][..]));
    (caller(), select(actions), select(resources), team).prop_map(
        |(caller, action, resource, team)| Asked {
            caller,
            action,
            resource,
            tags: (team.into_iter())
                .map(|team| ("team".to_owned(), team.to_owned()))
                .collect(),
        },
    )
}

proptest! {
    #[test]
    fn a_pattern_matches_what_its_definition_says(
        pattern in "[ab:?*]{0,8}", word in "[ab:]{0,10}"
    ) {
        let by_definition = naive(
            &pattern.chars().collect::<Vec<_>>(),
            &word.chars().collect::<Vec<_>>(),
        );
        prop_assert_eq!(pattern::matches(&pattern, &word), by_definition);
    }

    #[test]
    fn what_nothing_is_said_about_is_not_allowed(asked in asked()) {
        let decision = Policy::default().decide(&asked.caller, &asked.call());
        prop_assert_eq!(decision, Decision::NotAllowed);
    }

    #[test]
    fn one_deny_outweighs_whatever_allows_wherever_it_stands(
        mut policy in policy(), asked in asked(), at in 0_usize..6
    ) {
        let at = at.min(policy.statements.len());
        let everything = || vec![Pattern::new("*")];
        policy.statements.insert(at, Statement {
            effect: Effect::Deny,
            principals: None,
            actions: everything(),
            resources: everything(),
            tags: BTreeMap::new(),
        });
        let decision = policy.decide(&asked.caller, &asked.call());
        prop_assert!(matches!(decision, Decision::Denied(_)), "{:?}", decision);
        // But nobody is locked out who could rewrite the file.
        for uid in [0, 9] {
            let owner = Caller::User { uid, gid: 1 };
            prop_assert!(policy.decide(&owner, &asked.call()).is_allowed());
        }
    }

    #[test]
    fn the_order_of_statements_changes_no_answer(policy in policy(), asked in asked()) {
        let mut reversed = policy.clone();
        reversed.statements.reverse();
        prop_assert_eq!(
            policy.decide(&asked.caller, &asked.call()).is_allowed(),
            reversed.decide(&asked.caller, &asked.call()).is_allowed()
        );
    }

    #[test]
    fn an_allow_takes_nothing_away_and_a_deny_gives_nothing(
        policy in policy(), more in statement(), asked in asked()
    ) {
        let before = policy.decide(&asked.caller, &asked.call()).is_allowed();
        let effect = more.effect;
        let mut with = policy;
        with.statements.push(more);
        let after = with.decide(&asked.caller, &asked.call()).is_allowed();
        match effect {
            Effect::Allow => prop_assert!(after || !before),
            Effect::Deny => prop_assert!(before || !after),
        }
    }

    #[test]
    fn a_role_allows_what_a_lesser_one_does(asked in asked()) {
        let has_no_name = match &asked.caller {
            Caller::User { .. } => false,
            Caller::Certificate(certificate) => certificate.names.is_empty(),
        };
        prop_assume!(!has_no_name);
        let may = |role| {
            let mut principals = Principals::default();
            match &asked.caller {
                Caller::User { uid, .. } => principals.uids.push(*uid),
                Caller::Certificate(certificate) => {
                    principals.certificates.clone_from(&certificate.names);
                }
            }
            let policy = Policy { grants: vec![Grant { role, principals }], ..Policy::default() };
            policy.decide(&asked.caller, &asked.call()).is_allowed()
        };
        prop_assert!(may(Role::Admin));
        prop_assert!(may(Role::Operator) || !may(Role::ReadOnly));
        prop_assert_eq!(may(Role::ReadOnly), asked.action.ends_with(":read"));
    }
}

proptest! {
    #[test]
    fn a_certificate_that_nothing_names_may_do_nothing_whatever_users_may(
        policy in policy(), asked in asked(), caller in certificate()
    ) {
        let Caller::Certificate(certificate) = &caller else { unreachable!() };
        let is_named = |principals: &Principals| {
            certificate.names.iter().any(|name| principals.certificates.contains(name))
        };
        let statements = policy.statements.iter().filter_map(|it| it.principals.as_ref());
        let grants = policy.grants.iter().map(|grant| &grant.principals);
        prop_assume!(!statements.chain(grants).any(is_named));
        prop_assert!(!policy.decide(&caller, &asked.call()).is_allowed());
    }
}

#[test]
fn an_operator_drains_targets_and_reloads_nothing() {
    let principals = Principals {
        gids: vec![100],
        ..Principals::default()
    };
    let grant = Grant {
        role: Role::Operator,
        principals,
    };
    let policy = Policy {
        grants: vec![grant],
        ..Policy::default()
    };
    let caller = Caller::User {
        uid: 1000,
        gid: 100,
    };
    let tags = Tags::new();
    let call = |action| Call {
        action,
        resource: "*",
        tags: &tags,
    };
    assert!(policy.decide(&caller, &call("targets:drain")).is_allowed());
    assert!(policy.decide(&caller, &call("status:read")).is_allowed());
    let refused = policy.decide(&caller, &call("daemon:reload"));
    assert_eq!(refused, Decision::NotAllowed);
    let said = refused.explain(&caller, &call("daemon:reload")).to_string();
    assert!(said.contains("user 1000 may not daemon:reload *"), "{said}");
}
