//! That what `docs` says is what the code says.
//!
//! `NLB_BLESS=1 cargo test -p nlb-userspace --test reference` writes anew what comes from the code.

mod api;
mod cli;
mod config;
mod document;
mod links;
mod metrics;
mod stops;
