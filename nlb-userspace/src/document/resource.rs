//! Names of resources: what a request's path, a plan's line and a record of the journal mean.

use std::{fmt, net::SocketAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::config::IpVersion;

/// What can be read and changed by itself. Ordered so that a parent stands before what is in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ResourceId {
    /// `load-balancer/edge`.
    LoadBalancer(String),
    /// `load-balancer/edge/listener/TCP:80`.
    Listener(String, ListenerId),
    /// `load-balancer/edge/rule/1f0c99d2`.
    Rule(String, RuleId),
    /// `target-group/web`.
    TargetGroup(String),
    /// `target-group/web/target/10.0.0.11:80`.
    Target(String, SocketAddr),
}

impl ResourceId {
    /// The load balancer or target group that it is or that it is in.
    #[must_use]
    pub fn top(&self) -> Self {
        match self {
            Self::LoadBalancer(name) | Self::Listener(name, _) | Self::Rule(name, _) => {
                Self::LoadBalancer(name.clone())
            }
            Self::TargetGroup(name) | Self::Target(name, _) => Self::TargetGroup(name.clone()),
        }
    }

    /// Whether it is a load balancer or a target group.
    pub const fn is_top(&self) -> bool {
        matches!(self, Self::LoadBalancer(_) | Self::TargetGroup(_))
    }

    /// The name of the load balancer or target group.
    pub fn top_name(&self) -> &str {
        match self {
            Self::LoadBalancer(name)
            | Self::Listener(name, _)
            | Self::Rule(name, _)
            | Self::TargetGroup(name)
            | Self::Target(name, _) => name,
        }
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoadBalancer(name) => write!(out, "load-balancer/{name}"),
            Self::Listener(name, id) => write!(out, "load-balancer/{name}/listener/{id}"),
            Self::Rule(name, id) => write!(out, "load-balancer/{name}/rule/{id}"),
            Self::TargetGroup(name) => write!(out, "target-group/{name}"),
            Self::Target(name, address) => write!(out, "target-group/{name}/target/{address}"),
        }
    }
}

/// Text that names no resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {wanted}")]
pub struct NotAnId {
    /// The text.
    pub text: String,
    /// What was looked for, with an example.
    pub wanted: &'static str,
}

impl FromStr for ResourceId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let wrong = || NotAnId {
            text: text.to_owned(),
            wanted: "the name of a resource, such as `target-group/web`",
        };
        let parts: Vec<&str> = text.splitn(4, '/').collect();
        Ok(match *parts.as_slice() {
            ["load-balancer", name] => Self::LoadBalancer(name.to_owned()),
            ["load-balancer", name, "listener", id] => Self::Listener(name.to_owned(), id.parse()?),
            ["load-balancer", name, "rule", id] => Self::Rule(name.to_owned(), id.parse()?),
            ["target-group", name] => Self::TargetGroup(name.to_owned()),
            ["target-group", name, "target", address] => {
                Self::Target(name.to_owned(), address.parse().map_err(|_| wrong())?)
            }
            _ => return Err(wrong()),
        })
    }
}

impl TryFrom<String> for ResourceId {
    type Error = NotAnId;

    fn try_from(text: String) -> Result<Self, NotAnId> {
        text.parse()
    }
}

impl From<ResourceId> for String {
    fn from(id: ResourceId) -> Self {
        id.to_string()
    }
}

/// A listener in its load balancer: `TCP:80`, or `TCP:80:ipv6` where one of the other IP version
/// shares protocol and port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId {
    /// Its protocol, as the configuration writes it.
    pub protocol: String,
    /// Its port.
    pub port: u16,
    /// The IP version of its targets, where that tells it from another.
    pub version: Option<ListenerVersion>,
}

/// An IP version that can be ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenerVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl From<ListenerVersion> for IpVersion {
    fn from(version: ListenerVersion) -> Self {
        match version {
            ListenerVersion::V4 => Self::Ipv4,
            ListenerVersion::V6 => Self::Ipv6,
        }
    }
}

impl fmt::Display for ListenerId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.protocol, self.port)?;
        match self.version {
            None => Ok(()),
            Some(ListenerVersion::V4) => out.write_str(":ipv4"),
            Some(ListenerVersion::V6) => out.write_str(":ipv6"),
        }
    }
}

impl FromStr for ListenerId {
    type Err = NotAnId;

    /// Takes `TCP/80`, too, as `nlb status` prints it.
    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let wrong = || NotAnId {
            text: text.to_owned(),
            wanted: "a listener, such as `TCP:80`, or `TCP:80:ipv6` where two share a port",
        };
        let parts: Vec<&str> = text.split([':', '/']).collect();
        let (protocol, port, version) = match *parts.as_slice() {
            [protocol, port] => (protocol, port, None),
            [protocol, port, "ipv4"] => (protocol, port, Some(ListenerVersion::V4)),
            [protocol, port, "ipv6"] => (protocol, port, Some(ListenerVersion::V6)),
            _ => return Err(wrong()),
        };
        if protocol.is_empty() {
            return Err(wrong());
        }
        Ok(Self {
            protocol: protocol.to_ascii_uppercase(),
            port: port.parse().map_err(|_| wrong())?,
            version,
        })
    }
}

/// A source rule in its load balancer, named after what it says: a rule that says something else is
/// another rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub u32);

impl fmt::Display for RuleId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:08x}", self.0)
    }
}

impl FromStr for RuleId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        u32::from_str_radix(text, 16)
            .ok()
            .filter(|_| text.len() == 8)
            .map(Self)
            .ok_or_else(|| NotAnId {
                text: text.to_owned(),
                wanted: "a rule: eight hexadecimal digits, as `nlb rule list` prints them",
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_back() {
        for text in [
            "load-balancer/edge",
            "load-balancer/edge/listener/TCP_UDP:53",
            "load-balancer/edge/listener/TCP:80:ipv6",
            "load-balancer/edge/rule/00c0ffee",
            "target-group/web",
            "target-group/web/target/10.0.0.11:8080",
            "target-group/web/target/[2001:db8::1]:8080",
        ] {
            let id: ResourceId = text.parse().unwrap();
            assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn what_names_nothing_is_refused_with_an_example() {
        for text in [
            "",
            "edge",
            "listener/edge",
            "load-balancer/edge/listener/TCP",
            "load-balancer/edge/listener/TCP:80:ipv5",
            "load-balancer/edge/rule/12",
            "target-group/web/target/10.0.0.11",
        ] {
            let message = text.parse::<ResourceId>().unwrap_err().to_string();
            assert!(
                message.contains("is not") && message.contains("such as") || text.ends_with("12")
            );
        }
    }
}
