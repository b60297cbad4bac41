//! What the kernel knows about how to reach an address: links, neighbours, routes.
//!
//! The XDP program writes MAC addresses and picks the interface itself, so the daemon must know at
//! once when a neighbour's MAC, a link or a route changes. Every target and every client is reached
//! through a *next hop*: an interface and the IP address of a neighbour on it. Nothing here polls:
//! [`Watch`] subscribes to the kernel's notifications first, dumps what exists, and then follows.
//! Routes are not mirrored, because only the kernel can apply its policy rules: [`Watch::route_to`]
//! asks it for one address, and [`Change::Routes`] says when to ask again.
//!
//! - [`Table`] is the pure picture of links and neighbours, fed with netlink messages.
//! - [`Watch`] keeps a table up to date and answers questions about it.
//! - [`forwarding`] reads the one sysctl the BPF FIB lookup depends on.
//!
//! The network namespace is the one of the thread that calls [`Watch::start`].

pub mod book;
mod error;
mod forwarding;
mod monitor;
mod request;
mod table;
mod watch;

pub use error::{NextHopError, Request, Unroutable};
pub use forwarding::forwarding;
pub use request::{AttachedXdp, Route};
pub use table::{Change, Link, Neighbour, Table, Vlan};
pub use watch::{NextHop, Resolution, Unresolved, Watch};
