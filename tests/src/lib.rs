//! What the tests share.

pub mod bench;
pub mod kernel;
pub mod packet;
pub mod world;
