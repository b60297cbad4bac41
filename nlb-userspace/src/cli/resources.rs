//! `nlb lb`, `listener`, `rule`, `target-group`, `target` and `health`: the API's resources, typed.
//! One file for each noun; what they share is in [`asking`].

mod asking;
mod health;
mod lb;
mod listener;
mod rule;
mod target;
mod target_group;

pub(in crate::cli) use self::asking::Once;
pub use self::{
    health::Health, lb::Lb, listener::Listener, rule::Rule, target::Target,
    target_group::TargetGroup,
};

/// Where load balancers are.
const BALANCERS: &str = "/v1/load-balancers";
/// Where target groups are.
const GROUPS: &str = "/v1/target-groups";
