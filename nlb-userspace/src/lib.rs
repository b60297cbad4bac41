//! The story of a config change.

pub mod next_hop;
