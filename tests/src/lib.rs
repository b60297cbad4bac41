//! What the tests share.

pub mod hostile;
pub mod kernel;
pub mod model;
pub mod packet;
pub mod world;
