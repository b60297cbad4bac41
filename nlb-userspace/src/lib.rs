//! The story of a config change.

pub mod config;
pub mod dataplane;
pub mod health;
pub mod next_hop;
pub mod ring;
pub mod target_state;
