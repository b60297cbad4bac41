//! The story of a config change.

pub mod config;
