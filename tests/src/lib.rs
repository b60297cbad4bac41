//! What the tests share.

pub mod kernel;
pub mod packet;
pub mod world;
