//! Builds and toolchain lookup, shared with build scripts.
