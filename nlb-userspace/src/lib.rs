//! The story of a config change.
