//! nlb.
fn main() {}
