//! Kernel program.
fn main() {}
