//! What can go wrong when the kernel is asked about next hops.

use std::{fmt, io, net::IpAddr};

/// Why the kernel's view of links, neighbours and routes could not be had.
#[derive(Debug, thiserror::Error)]
pub enum NextHopError {
    /// No netlink socket.
    #[error(
        "cannot open a netlink route socket: {source}; the daemon needs AF_NETLINK \
         (systemd: RestrictAddressFamilies must list it)"
    )]
    Open {
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused a request.
    #[error("the kernel refused to {request}: {source}{}", advice(source))]
    Refused {
        /// What was asked.
        request: Request,
        /// What the kernel said.
        source: io::Error,
    },
    /// The netlink socket closed before the answer; the next request opens another.
    #[error(
        "the netlink socket closed before the kernel answered a request to {request}; try again"
    )]
    Closed {
        /// What was asked.
        request: Request,
    },
    /// The kernel did not answer in time.
    #[error("the kernel did not answer a request to {request} within 5 seconds; try again")]
    TimedOut {
        /// What was asked.
        request: Request,
    },
    /// An answer without the fields it must have.
    #[error("the kernel's answer to a request to {request} names no {missing}")]
    Incomplete {
        /// What was asked.
        request: Request,
        /// The field that is not there.
        missing: &'static str,
    },
    /// The kernel has no unicast route to the address.
    #[error(transparent)]
    Unroutable(#[from] Unroutable),
}

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "; the daemon needs CAP_NET_ADMIN",
        _ => "",
    }
}

/// A request to the kernel, as it stands in an error's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// `RTM_GETLINK`, all of them.
    Links,
    /// `RTM_GETNEIGH`, all of them.
    Neighbours,
    /// `RTM_GETROUTE` for one address.
    Route(IpAddr),
    /// `RTM_GETNEIGH` for one address on one interface.
    Neighbour(u32, IpAddr),
    /// `RTM_NEWNEIGH` for one address on one interface.
    Resolve(u32, IpAddr),
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Links => f.write_str("list the links"),
            Self::Neighbours => f.write_str("list the neighbours"),
            Self::Route(address) => write!(f, "find the route to {address}"),
            Self::Neighbour(interface, address) => {
                write!(f, "show the neighbour {address} on interface {interface}")
            }
            Self::Resolve(interface, address) => {
                write!(
                    f,
                    "resolve the neighbour {address} on interface {interface}"
                )
            }
        }
    }
}

/// Why packets to an address have no next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unroutable {
    /// No route matches.
    #[error("there is no route to {0}; add one, or a default route")]
    NoRoute(IpAddr),
    /// An `unreachable` route or rule matches.
    #[error("an unreachable route or rule covers {0}; see `ip route get {0}`")]
    Unreachable(IpAddr),
    /// A `blackhole` route or rule matches.
    #[error("a blackhole route or rule covers {0}; see `ip route` and `ip rule`")]
    Blackhole(IpAddr),
    /// A `prohibit` route or rule matches.
    #[error("a prohibit route or rule covers {0}; see `ip route` and `ip rule`")]
    Prohibited(IpAddr),
    /// The address is this host's own.
    #[error("{0} is an address of this host")]
    Local(IpAddr),
    /// A broadcast, anycast or multicast destination.
    #[error("{0} is not a unicast address on this network")]
    NotUnicast(IpAddr),
}
