//! Which flows are meant: as it is typed, and as it is asked of each entry.

use std::net::{IpAddr, SocketAddr};

use nlb_common::{address::Address, tick::Clock, wire::protocol};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Flow, Table};
use crate::{
    decap::prefix::{NotAPrefix, Prefix},
    explain::fact::{STATES, state},
    names::Names,
};

/// What flows must have in common to be meant; what is left out is not asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Flows of this listener, such as `web/TCP/80`, as `nlb status` has it; a load balancer's name alone
    /// means all of its listeners
    #[arg(long, value_name = "NAME")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// Flows to this VIP
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip: Option<String>,
    /// Flows of this target
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Flows of the targets of this target group
    #[arg(long, value_name = "NAME")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_group: Option<String>,
    /// Flows of these clients
    #[arg(long, value_name = "PREFIX")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// `tcp` or `udp`
    #[arg(long, value_name = "PROTOCOL")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// `new`, `resumed`, `answered`, `established`, `closing`, `closed` or `reset`
    #[arg(long, value_name = "STATE")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Flows of which no packet was seen for so long, or longer
    #[arg(long, value_name = "SECONDS")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_at_least: Option<u32>,
    /// Flows of which a packet was seen within that time
    #[arg(long, value_name = "SECONDS")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_at_most: Option<u32>,
    /// Every flow; only killing asks for it
    #[arg(long, conflicts_with_all = [
        "listener", "vip", "target", "target_group", "client", "protocol", "state",
        "silent_at_least", "silent_at_most",
    ])]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

/// Why a filter means nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// There is no such listener.
    #[error("listener: there is no listener or load balancer `{0}`; `nlb status` shows them")]
    Listener(String),
    /// There is no such group, or it has no targets.
    #[error(
        "target_group: there is no target group `{0}` with targets that are in use; \
         `nlb target-group list` shows what there is"
    )]
    Group(String),
    /// Names are known only to the daemon.
    #[error("{field}: no daemon answers, and only it knows names; use {instead}")]
    NoNames {
        /// Which field.
        field: &'static str,
        /// What works without names.
        instead: &'static str,
    },
    /// Not an address.
    #[error(
        "{field}: `{value}` is not an address; write 192.0.2.1, 192.0.2.1:80 or [2001:db8::1]:80"
    )]
    Address {
        /// Which field.
        field: &'static str,
        /// What stands there.
        value: String,
    },
    /// Not a prefix.
    #[error("client: {0}")]
    Client(NotAPrefix),
    /// Not a protocol of listeners.
    #[error("protocol: `{0}` is not a protocol of listeners; tcp and udp are")]
    Protocol(String),
    /// Not a state.
    #[error("state: `{value}` is not a state of flows; {} are", STATES.join(", "))]
    State {
        /// What stands there.
        value: String,
    },
    /// Would mean every flow.
    #[error("no filter means every flow; if that is meant, say so: `--all`")]
    All,
}

/// A filter, as it is asked of each flow.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// By id; all if there is none.
    listeners: Option<Vec<bool>>,
    /// By id; all if there is none.
    targets: Option<Vec<bool>>,
    client: Option<(Address, u8)>,
    protocol: Option<u8>,
    state: Option<&'static str>,
    silent_ticks_at_least: u16,
    silent_ticks_at_most: Option<u16>,
}

impl Filter {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// An error if it means every flow without saying so.
    pub fn or_all(&self) -> Result<(), FilterError> {
        if self.is_empty() {
            Err(FilterError::All)
        } else {
            Ok(())
        }
    }

    /// What it comes to, as listeners and targets are now.
    pub fn resolve(
        &self,
        table: &Table<'_>,
        names: &Names,
        clock: Clock,
    ) -> Result<Selection, FilterError> {
        let client = self.client.as_ref().map(|text| text.parse::<Prefix>());
        let client = client.transpose().map_err(FilterError::Client)?;
        Ok(Selection {
            listeners: self.listeners(table, names)?,
            targets: self.targets(table, names)?,
            client: client.map(|prefix| {
                let bits = u8::try_from(prefix.mapped_length()).unwrap_or(128);
                (prefix.mapped(), bits)
            }),
            protocol: self.protocol.as_deref().map(protocol).transpose()?,
            state: self.state.as_deref().map(known_state).transpose()?,
            silent_ticks_at_least: clock.count_of_seconds(self.silent_at_least.unwrap_or(0)),
            silent_ticks_at_most: self.silent_at_most.map(|most| clock.count_of_seconds(most)),
        })
    }

    fn listeners(
        &self,
        table: &Table<'_>,
        names: &Names,
    ) -> Result<Option<Vec<bool>>, FilterError> {
        if self.listener.is_none() && self.vip.is_none() {
            return Ok(None);
        }
        let vip = self.vip.as_deref().map(|text| Ends::read("vip", text));
        let vip = vip.transpose()?;
        if self.listener.is_some() && !names.are_known {
            return Err(FilterError::NoNames {
                field: "listener",
                instead: "--vip",
            });
        }
        let is_meant = |id| {
            let Some((at, protocol)) = table.vip(id) else {
                return false;
            };
            let has_name = self.listener.as_ref().is_none_or(|wanted| {
                let name = names.listener(at, protocol).unwrap_or_default();
                name == wanted
                    || name
                        .strip_prefix(wanted)
                        .is_some_and(|rest| rest.starts_with('/'))
            });
            has_name && vip.is_none_or(|vip| vip.has(at))
        };
        let ids = (0..).take(table.listeners.len());
        let meant: Vec<bool> = ids.map(is_meant).collect();
        match &self.listener {
            Some(wanted) if !meant.contains(&true) && vip.is_none() => {
                Err(FilterError::Listener(wanted.clone()))
            }
            _ => Ok(Some(meant)),
        }
    }

    fn targets(&self, table: &Table<'_>, names: &Names) -> Result<Option<Vec<bool>>, FilterError> {
        if self.target.is_none() && self.target_group.is_none() {
            return Ok(None);
        }
        let target = self
            .target
            .as_deref()
            .map(|text| Ends::read("target", text));
        let target = target.transpose()?;
        if self.target_group.is_some() && !names.are_known {
            return Err(FilterError::NoNames {
                field: "target_group",
                instead: "--target",
            });
        }
        let is_of_group = |id| {
            self.target_group.as_ref().is_none_or(|wanted| {
                names
                    .target(id)
                    .is_some_and(|target| target.group == *wanted)
            })
        };
        let ids = (0..).take(table.targets.len());
        let meant: Vec<bool> = ids
            .map(|id| {
                let at = table.target(id);
                is_of_group(id) && at.is_some_and(|at| target.is_none_or(|target| target.has(at)))
            })
            .collect();
        match &self.target_group {
            Some(wanted) if !meant.contains(&true) && target.is_none() => {
                Err(FilterError::Group(wanted.clone()))
            }
            _ => Ok(Some(meant)),
        }
    }
}

impl Selection {
    /// The ids of the listeners that are meant, or none for all.
    pub fn listeners(&self) -> Option<impl Iterator<Item = u16>> {
        Some((0..).zip(self.listeners.as_ref()?).filter_map(listed))
    }

    /// The ids of the targets that are meant, or none for all.
    pub fn targets(&self) -> Option<impl Iterator<Item = u32>> {
        Some((0..).zip(self.targets.as_ref()?).filter_map(listed))
    }

    /// The prefix of the clients that are meant, and how many of its bits count, if not all are.
    pub const fn client(&self) -> Option<(Address, u8)> {
        self.client
    }

    /// The protocol that is meant, if not all are.
    pub const fn protocol(&self) -> Option<u8> {
        self.protocol
    }

    /// Whether a flow is meant.
    pub fn has(&self, flow: &Flow) -> bool {
        let listed = |ids: &Option<Vec<bool>>, id: usize| {
            ids.as_ref()
                .is_none_or(|ids| ids.get(id).copied().unwrap_or(false))
        };
        listed(&self.listeners, flow.listener.into())
            && listed(&self.targets, flow.target as usize)
            && self
                .protocol
                .is_none_or(|protocol| flow.protocol == protocol)
            && self.state.is_none_or(|wanted| state(flow.state) == wanted)
            && flow.silent_ticks >= self.silent_ticks_at_least
            && self
                .silent_ticks_at_most
                .is_none_or(|most| flow.silent_ticks <= most)
            && self
                .client
                .is_none_or(|(prefix, bits)| Address::from(flow.client.ip()).prefix(bits) == prefix)
    }
}

fn listed<I>((id, is_meant): (I, &bool)) -> Option<I> {
    is_meant.then_some(id)
}

/// An address, and perhaps a port.
#[derive(Clone, Copy)]
struct Ends {
    address: IpAddr,
    port: Option<u16>,
}

impl Ends {
    fn read(field: &'static str, text: &str) -> Result<Self, FilterError> {
        if let Ok(address) = text.parse() {
            return Ok(Self {
                address,
                port: None,
            });
        }
        let both: Result<SocketAddr, _> = text.parse();
        both.map(|both| Self {
            address: both.ip(),
            port: Some(both.port()),
        })
        .map_err(|_| FilterError::Address {
            field,
            value: text.to_owned(),
        })
    }

    fn has(self, at: SocketAddr) -> bool {
        at.ip() == self.address && self.port.is_none_or(|port| at.port() == port)
    }
}

fn protocol(text: &str) -> Result<u8, FilterError> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(protocol::TCP),
        "udp" | "quic" => Ok(protocol::UDP),
        _ => Err(FilterError::Protocol(text.to_owned())),
    }
}

fn known_state(text: &str) -> Result<&'static str, FilterError> {
    let known = STATES.into_iter().find(|state| *state == text);
    known.ok_or_else(|| FilterError::State {
        value: text.to_owned(),
    })
}
