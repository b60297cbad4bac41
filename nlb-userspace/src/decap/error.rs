//! What can go wrong on the way to a running `nlb decap`.

use std::{io, net::IpAddr};

use crate::dataplane::DataplaneError;

/// Something that was attempted, and failed.
#[derive(Debug, thiserror::Error)]
pub enum DecapError {
    /// An interface that was typed does not exist.
    #[error("--interface {0}: there is no such interface; `ip link` lists them")]
    NoInterface(String),
    /// An interface was typed twice.
    #[error("--interface {0} is there twice; leave one away")]
    InterfaceTwice(String),
    /// The kernel could not be asked for interfaces.
    #[error("cannot open a socket to look for interfaces: {0}")]
    Interfaces(#[source] io::Error),
    /// GUE and Geneve at one port.
    #[error("--gue-port and --geneve-port are both {0}; a packet's port must tell which it is")]
    OnePort(u16),
    /// A VIP, or an address of the host's own, that no packet can be sent to.
    #[error(
        "{option} {address}: no packet can be sent to it from elsewhere; a unicast address can"
    )]
    Unreachable {
        /// Which option.
        option: &'static str,
        /// What was typed.
        address: IpAddr,
    },
    /// An address is both.
    #[error(
        "{0} is both a --vip and an --address; tunnels end at an address of this host alone, which \
         no other target has"
    )]
    VipIsOwn(IpAddr),
    /// A signal handler could not be made.
    #[error("cannot wait for signals: {0}")]
    Signals(#[source] io::Error),
    /// The kernel could not be asked for addresses.
    #[error("cannot ask the kernel (netlink) for this host's addresses: {0}")]
    Netlink(#[source] io::Error),
    /// The kernel did not tell the addresses.
    #[error("the kernel does not list this host's addresses: {0}; --address names them instead")]
    Addresses(#[source] Box<rtnetlink::Error>),
    /// The program could not be loaded, attached, told or asked.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
}
