//! What an operator calls the things that maps number: from the daemon's status, or, without a daemon,
//! from the maps' own records.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

use nlb_common::wire::protocol;

use crate::{
    client::{self, Endpoint},
    status::Status,
};

/// Names by what the maps say.
#[derive(Clone, Debug, Default)]
pub struct Names {
    listeners: HashMap<(IpAddr, u16, u8), String>,
    targets: HashMap<u32, Target>,
    /// Whether a daemon gave them.
    pub are_known: bool,
}

/// A target's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its group's name.
    pub group: String,
    /// Its address and port.
    pub address: SocketAddr,
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.group, self.address)
    }
}

impl Names {
    /// What a daemon calls things; nothing if none answers.
    pub async fn ask(daemon: &Endpoint) -> Self {
        let status = client::call(daemon, hyper::Method::GET, "/v1/status").await;
        status.map_or_else(|_| Self::default(), |status: Status| Self::of(&status))
    }

    /// What a status calls things.
    pub fn of(status: &Status) -> Self {
        let mut names = Self {
            are_known: true,
            ..Self::default()
        };
        for balancer in &status.load_balancers {
            for listener in &balancer.listeners {
                for protocol in protocols(&listener.protocol) {
                    for address in &listener.addresses {
                        let key = (*address, listener.port, *protocol);
                        names.listeners.insert(key, listener.name.clone());
                    }
                }
            }
        }
        for group in &status.target_groups {
            for target in &group.targets {
                if let Some(id) = target.id {
                    let name = Target {
                        group: group.name.clone(),
                        address: SocketAddr::new(target.address, target.port),
                    };
                    names.targets.insert(id, name);
                }
            }
        }
        names
    }

    /// The name of the listener at an endpoint: load balancer and listener.
    pub fn listener(&self, address: SocketAddr, protocol: u8) -> Option<&str> {
        let key = (address.ip(), address.port(), protocol);
        self.listeners.get(&key).map(String::as_str)
    }

    /// The name of a target.
    pub fn target(&self, id: u32) -> Option<&Target> {
        self.targets.get(&id)
    }
}

/// The IP protocols of a listener's protocol.
fn protocols(name: &str) -> &'static [u8] {
    match name {
        "TCP" => &[protocol::TCP],
        // QUIC is UDP, too.
        "UDP" | "QUIC" => &[protocol::UDP],
        _ => &[protocol::TCP, protocol::UDP],
    }
}
