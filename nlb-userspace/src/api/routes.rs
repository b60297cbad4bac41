//! The table of everything that can be asked for: method, path, the name of the action, and what is
//! done. The router, the check of who may do it and the `OpenAPI` description are made from it, so
//! that none of them can know a route that another does not.

use crate::document::edit::Kind;

/// A method of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Reads.
    Get,
    /// Adds, or sets something going.
    Post,
    /// Says everything anew.
    Put,
    /// Says some keys anew.
    Patch,
    /// Takes out.
    Delete,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// Lists resources of a kind.
    List(Kind),
    /// Adds one.
    Add(Kind),
    /// Reads one.
    Read(Kind),
    /// Says everything about one anew, or adds it.
    Put(Kind),
    /// Says some keys of one anew.
    Patch(Kind),
    /// Takes one out.
    Remove(Kind),
    /// Says all rules of a load balancer anew.
    PutRules,
    /// Sets the weight of a target to 0.
    Drain,
    /// Reads the health of all groups.
    Health,
    /// Reads the health of a group.
    GroupHealth,
    /// Reads the document.
    ReadConfig,
    /// Applies a document.
    Apply,
    /// Says which generation is live.
    Generation,
    /// Reads the status.
    Status,
    /// Reads the configuration file again.
    Reload,
    /// Reads what happened, or waits for what happens.
    Events,
    /// Forgets flows.
    KillFlows,
    /// Reads the description of this API.
    Describe,
}

/// A route.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// The method.
    pub verb: Verb,
    /// The path, with names in braces.
    pub path: &'static str,
    /// What a policy calls it.
    pub action: &'static str,
    /// What it does.
    pub does: Does,
    /// The same in words.
    pub summary: &'static str,
}

impl Route {
    /// Whether it may change something.
    pub const fn is_write(&self) -> bool {
        !matches!(self.verb, Verb::Get)
    }

    /// The names in its path.
    pub fn parameters(&self) -> Vec<&'static str> {
        self.path
            .split('{')
            .skip(1)
            .filter_map(|rest| rest.split('}').next())
            .collect()
    }
}

const fn route(
    verb: Verb,
    path: &'static str,
    action: &'static str,
    does: Does,
    summary: &'static str,
) -> Route {
    Route {
        verb,
        path,
        action,
        does,
        summary,
    }
}

const BALANCERS: &str = "/v1/load-balancers";
const BALANCER: &str = "/v1/load-balancers/{load_balancer}";
const LISTENERS: &str = "/v1/load-balancers/{load_balancer}/listeners";
const LISTENER: &str = "/v1/load-balancers/{load_balancer}/listeners/{listener}";
const RULES: &str = "/v1/load-balancers/{load_balancer}/rules";
const RULE: &str = "/v1/load-balancers/{load_balancer}/rules/{rule}";
const GROUPS: &str = "/v1/target-groups";
const GROUP: &str = "/v1/target-groups/{target_group}";
const TARGETS: &str = "/v1/target-groups/{target_group}/targets";
const TARGET: &str = "/v1/target-groups/{target_group}/targets/{target}";
const DRAIN: &str = "/v1/target-groups/{target_group}/targets/{target}/drain";
const GROUP_HEALTH: &str = "/v1/target-groups/{target_group}/health";

/// Every route.
#[rustfmt::skip]
pub const ROUTES: &[Route] = &[
    route(Verb::Get, BALANCERS, "load-balancers:read", Does::List(Kind::LoadBalancer), "List load balancers"),
    route(Verb::Post, BALANCERS, "load-balancers:create", Does::Add(Kind::LoadBalancer), "Add a load balancer, with listeners and rules if the body has them"),
    route(Verb::Get, BALANCER, "load-balancers:read", Does::Read(Kind::LoadBalancer), "Read a load balancer with its listeners and rules"),
    route(Verb::Put, BALANCER, "load-balancers:update", Does::Put(Kind::LoadBalancer), "Make a load balancer say exactly this, listeners and rules included, or add it"),
    route(Verb::Patch, BALANCER, "load-balancers:update", Does::Patch(Kind::LoadBalancer), "Change some keys of a load balancer"),
    route(Verb::Delete, BALANCER, "load-balancers:delete", Does::Remove(Kind::LoadBalancer), "Remove a load balancer with its listeners and rules"),
    route(Verb::Get, LISTENERS, "listeners:read", Does::List(Kind::Listener), "List the listeners of a load balancer"),
    route(Verb::Post, LISTENERS, "listeners:create", Does::Add(Kind::Listener), "Add a listener"),
    route(Verb::Get, LISTENER, "listeners:read", Does::Read(Kind::Listener), "Read a listener"),
    route(Verb::Put, LISTENER, "listeners:update", Does::Put(Kind::Listener), "Make a listener say exactly this, or add it"),
    route(Verb::Patch, LISTENER, "listeners:update", Does::Patch(Kind::Listener), "Change some keys of a listener"),
    route(Verb::Delete, LISTENER, "listeners:delete", Does::Remove(Kind::Listener), "Remove a listener; its flows go on until they end"),
    route(Verb::Get, RULES, "rules:read", Does::List(Kind::Rule), "List the source rules of a load balancer"),
    route(Verb::Post, RULES, "rules:create", Does::Add(Kind::Rule), "Add a source rule"),
    route(Verb::Put, RULES, "rules:update", Does::PutRules, "Replace all source rules of a load balancer at once"),
    route(Verb::Get, RULE, "rules:read", Does::Read(Kind::Rule), "Read a source rule"),
    route(Verb::Put, RULE, "rules:update", Does::Put(Kind::Rule), "Make a source rule say exactly this, which gives it another id"),
    route(Verb::Delete, RULE, "rules:delete", Does::Remove(Kind::Rule), "Remove a source rule"),
    route(Verb::Get, GROUPS, "target-groups:read", Does::List(Kind::TargetGroup), "List target groups"),
    route(Verb::Post, GROUPS, "target-groups:create", Does::Add(Kind::TargetGroup), "Add a target group, with targets if the body has them"),
    route(Verb::Get, GROUP, "target-groups:read", Does::Read(Kind::TargetGroup), "Read a target group with its targets"),
    route(Verb::Put, GROUP, "target-groups:update", Does::Put(Kind::TargetGroup), "Make a target group say exactly this, targets included, or add it"),
    route(Verb::Patch, GROUP, "target-groups:update", Does::Patch(Kind::TargetGroup), "Change some keys of a target group"),
    route(Verb::Delete, GROUP, "target-groups:delete", Does::Remove(Kind::TargetGroup), "Remove a target group that no listener uses"),
    route(Verb::Get, GROUP_HEALTH, "health:read", Does::GroupHealth, "Say how the targets of a group are"),
    route(Verb::Get, TARGETS, "targets:read", Does::List(Kind::Target), "List the targets of a group"),
    route(Verb::Post, TARGETS, "targets:register", Does::Add(Kind::Target), "Register a target that is not registered yet"),
    route(Verb::Get, TARGET, "targets:read", Does::Read(Kind::Target), "Read a target"),
    route(Verb::Put, TARGET, "targets:register", Does::Put(Kind::Target), "Register a target, or make it say exactly this"),
    route(Verb::Patch, TARGET, "targets:update", Does::Patch(Kind::Target), "Change some keys of a target, such as its weight"),
    route(Verb::Delete, TARGET, "targets:deregister", Does::Remove(Kind::Target), "Deregister a target: it takes no new flows from now on, and keeps those it has for the deregistration delay"),
    route(Verb::Post, DRAIN, "targets:drain", Does::Drain, "Set a target's weight to 0: it stays registered and keeps its flows, and takes no new ones"),
    route(Verb::Get, "/v1/health", "health:read", Does::Health, "Say how all targets are"),
    route(Verb::Get, "/v1/config", "config:read", Does::ReadConfig, "Read the whole document, as JSON or TOML; secrets are not shown"),
    route(Verb::Put, "/v1/config", "config:apply", Does::Apply, "Make the document exactly this, in JSON or TOML; what was changed over the API before is discarded"),
    route(Verb::Get, "/v1/generation", "status:read", Does::Generation, "Say which generation is live"),
    route(Verb::Get, "/v1/status", "status:read", Does::Status, "Say how everything is, with counters"),
    route(Verb::Get, "/v1/events", "events:read", Does::Events, "Say what happened, or wait for what happens"),
    route(Verb::Post, "/v1/reload", "daemon:reload", Does::Reload, "Read the configuration file again, and lay what was changed over the API over it"),
    route(Verb::Post, "/v1/flows/kill", "flows:kill", Does::KillFlows, "Forget the flows that a filter means: the next packet of each is one of no known flow"),
    route(Verb::Get, "/v1/openapi.json", "api:read", Does::Describe, "Read this description"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_is_there_once_and_its_action_is_resource_and_verb() {
        let mut seen = BTreeSet::new();
        for route in ROUTES {
            assert!(
                seen.insert((route.path, format!("{:?}", route.verb))),
                "{route:?}"
            );
            let (resource, verb) = route.action.split_once(':').unwrap();
            let is_word = |word: &str| {
                word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.is_empty()
            };
            assert!(is_word(resource) && is_word(verb), "{route:?}");
            assert_eq!(verb == "read", !route.is_write(), "{route:?}");
        }
    }
}
