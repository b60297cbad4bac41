//! What the tests share: packets as sentences, a world of tables, the loaded program, and a lab of
//! network namespaces.

pub mod hostile;
pub mod kernel;
pub mod lab;
pub mod model;
pub mod packet;
pub mod world;
