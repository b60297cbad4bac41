//! The story of a config change.
//!
//! ```text
//!  TOML file ─► raw ─► desired (validated whole, every fault listed)
//!  health, netlink, timers ─► facts          │
//!                              └───────► plan = wish − actual (pure) ─► steps ─► generation N live
//! ```
//!
//! 1. [`config`]: text becomes meaning, in two steps.
//! 2. [`health`], [`target_state`], [`slow_start`], [`next_hop`]: facts about targets join the wish.
//! 3. [`ring`]: builds the selection table of a target group, [`forward`] that of a listener with
//!    several.
//!    [`source_rules`]: what a load balancer's rules say about one listener.
//! 4. [`plan`]: wish minus actual = ordered steps.
//! 5. [`dataplane`]: steps become map writes.
//! 6. [`daemon`]: the loop. [`api`] and [`client`] are the two ends of the control socket,
//!    [`status`] is what they speak of, [`cli`] is what a person types. [`run`] is around it,
//!    [`access`] says who may ask for what, [`service`] what systemd is told, [`privileges`] what the
//!    process gives up.
//!
//! What an operator looks at from outside, with or without a daemon: [`explain`] says what would become
//! of a packet, [`flows`] what is remembered, [`stops`] why packets ended early; [`names`] and
//! [`interfaces`] are what things are called.
//!
//! [`pem`] reads certificates and keys. [`farewell`] has the ends of expired connections told. [`early`] keeps fragments that overtook their
//! first one.
//!
//! [`metrics`] is what monitoring sees of all that, [`events`] is what
//! operators hear, [`log`] how it gets out without anybody waiting, [`top`] what they watch.
//!
//! [`doctor`] looks for what keeps all of it from working on a host.
//!
//! [`decap`] is apart: the command that runs on targets of the tunnelled modes.

pub mod access;
pub mod api;
#[cfg(test)]
mod authority;
mod bond;
pub mod capture;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod dataplane;
pub mod decap;
pub mod desk;
pub mod doctor;
pub mod document;
pub mod early;
pub mod events;
pub mod explain;
pub mod farewell;
pub mod flows;
pub mod forward;
pub mod health;
pub mod interfaces;
pub mod log;
pub mod metrics;
pub mod names;
pub mod next_hop;
pub mod pem;
pub mod plan;
pub mod privileges;
pub mod ring;
pub mod run;
pub mod secret;
pub mod service;
pub mod settling;
pub mod slow_start;
pub mod source_rules;
pub mod status;
pub mod stops;
pub mod store;
mod table;
pub mod target_state;
pub mod top;
