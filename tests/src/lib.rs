//! What the tests share: packets as sentences, a world of tables, the loaded program, an oracle, a
//! lab of network namespaces, a machine that counts instructions, and the benchmark.

pub mod bench;
pub mod hostile;
pub mod kernel;
pub mod lab;
pub mod machine;
pub mod model;
pub mod outer;
pub mod packet;
pub mod stack;
pub mod world;
