//! Facts in sentences.

use std::{fmt::Write as _, net::SocketAddr};

use super::{
    Shown,
    fact::{Endpoint, Fact, FoundFlow, Way},
};
use crate::clock;

impl Shown<'_> {
    /// A fact in a sentence.
    #[expect(clippy::too_many_lines, reason = "one arm for each fact")]
    pub(super) fn fact(self, fact: &Fact) -> String {
        match fact {
            Fact::Prefilter { side, may_be } => prefilter(side, *may_be).to_owned(),
            Fact::Listener { endpoint, found } => {
                let (protocol, at) = (endpoint.protocol, endpoint.at);
                match found {
                    None => format!("no listener at {protocol} {at}"),
                    Some(found) => {
                        let (id, choice) = (found.id, hash(found.hash));
                        format!("{} (id {id}): {choice}", self.listener(*endpoint))
                    }
                }
            }
            Fact::Vip {
                address,
                found: true,
            } => format!("{address} is a VIP"),
            Fact::Vip {
                address,
                found: false,
            } => format!("{address} is no VIP"),
            Fact::OnChange { listener } => {
                format!(
                    "listener {listener} may be one that remembers flows only when its ring changes"
                )
            }
            Fact::Rules { source, admits, .. } => {
                let verb = if *admits { "admit" } else { "block" };
                format!("the source rules {verb} {source}")
            }
            Fact::Limits {
                active_flows,
                active_flows_at_most,
                new_flows_per_tick_at_most,
                ..
            } => limits(
                *active_flows,
                *active_flows_at_most,
                *new_flows_per_tick_at_most,
            ),
            Fact::Pressure {
                syns,
                usual_per_tick,
                is_high,
                ..
            } => {
                let so = if *is_high { "high" } else { "usual" };
                format!(
                    "SYNs of the listener: {so}; {syns} in this tick, where up to {usual_per_tick} begin flows without cookies"
                )
            }
            Fact::Bucket {
                number,
                used,
                flows,
            } => self.bucket(*number, *used, flows),
            Fact::Pinned => "an entry of the flow table would be taken for the flow".to_owned(),
            Fact::Slot {
                ring,
                slot,
                target,
                is_settled,
            } => {
                let changed = if *is_settled {
                    ""
                } else {
                    ", which has changed"
                };
                match target {
                    Some(id) => {
                        format!("slot {slot} of ring {ring}{changed}: {}", self.target(*id))
                    }
                    None => format!("slot {slot} of ring {ring}{changed}: no target"),
                }
            }
            Fact::Base { ring, slot, target } => match target {
                Some(id) => format!(
                    "before it changed, slot {slot} of ring {ring} had {}",
                    self.target(*id)
                ),
                None => {
                    format!("nothing was kept of slot {slot} of ring {ring} from before it changed")
                }
            },
            Fact::Server { number, target } => match target {
                Some(id) => format!(
                    "the QUIC connection ID carries {number:#x}, which is {}",
                    self.target(*id)
                ),
                None => format!(
                    "the QUIC connection ID carries {number:#x}, which is no server's number"
                ),
            },
            Fact::Target { id, found } => match found {
                None => format!("target {id} has no record"),
                Some(found) => {
                    let takes = match (found.takes_new_flows, found.resets_flows) {
                        (true, _) => "takes new flows",
                        (false, true) => "takes no new flows, and its flows are reset",
                        (false, false) => "takes no new flows",
                    };
                    format!("{} by {}: {takes}", self.target(*id), found.mode)
                }
            },
            Fact::Tunnel { found: true, .. } => {
                "the target group's tunnel says what is put around".to_owned()
            }
            Fact::Tunnel {
                group,
                found: false,
            } => format!("target group {group} has no tunnel"),
            Fact::Pool => "a free port of node.snat_addresses is looked for".to_owned(),
            Fact::NextHop { id, way } => match way {
                Some(way) => format!("next hop {id}: {}", self.way(way)),
                None => format!("next hop {id} is not known at present"),
            },
            Fact::Route {
                destination,
                source,
                way,
                neighbour,
                refusal,
            } => {
                let asked = format!("the kernel's routes from {source} to {destination}");
                match (way, neighbour, refusal) {
                    (Some(way), Some(neighbour), _) => {
                        format!("{asked}: by {neighbour}, {}", self.way(way))
                    }
                    (_, _, Some(refusal)) => format!("{asked}: {refusal}"),
                    _ => asked,
                }
            }
            Fact::Fragment { found: true } => {
                "the datagram's first fragment has left word".to_owned()
            }
            Fact::Fragment { found: false } => {
                "no first fragment of the datagram has left word".to_owned()
            }
            Fact::FragmentRemembered => "leaves word for its datagram's later fragments".to_owned(),
            Fact::FragmentKept => {
                "the daemon would be asked to keep it until the first one comes".to_owned()
            }
            Fact::CookieMade => {
                "answered with a SYN cookie; 0 stands for its number, which only the kernel can make"
                    .to_owned()
            }
            Fact::CookieBelieved => {
                "as if its number were a SYN cookie, which only the kernel can tell".to_owned()
            }
            Fact::Counted { bytes, flow, .. } => format!("counted: {bytes} bytes, {flow}"),
            Fact::Stopped { stop, meaning } => format!("stopped: {stop}: {meaning}"),
            Fact::NeighbourWanted { address } => {
                format!("the daemon would be asked to have {address} resolved")
            }
        }
    }

    fn bucket(self, number: u32, used: usize, flows: &[FoundFlow]) -> String {
        let mut text = format!("flow table, bucket {number}: {used} of 4 entries in use");
        if flows.is_empty() {
            text += ", none of this endpoint";
        }
        for flow in flows {
            let clock = clock::of_this_kernel();
            let [silent, idle] =
                [flow.silent_ticks, flow.idle_ticks].map(|ticks| clock.seconds_of_count(ticks));
            let over = if flow.is_expired() {
                ", so its time has run out"
            } else {
                ""
            };
            let listener = flow.at.map_or_else(
                || format!("listener {}, which is gone", flow.listener),
                |endpoint| self.listener(endpoint),
            );
            let _infallible = write!(
                text,
                "; a flow of {listener} to {}: {}, silent for {silent} s, forgotten after {idle} s{over}",
                self.target(flow.target),
                flow.state,
            );
        }
        text
    }

    /// A listener's name and where it listens.
    fn listener(self, endpoint: Endpoint) -> String {
        let Endpoint { protocol, at } = endpoint;
        match self.names.listener(at, protocol.0) {
            Some(name) => format!("listener {name} at {protocol} {at}"),
            None => format!("the listener at {protocol} {at}"),
        }
    }

    /// A target's name, or, without a daemon, its address; its number if nothing is known.
    pub(super) fn target(self, id: u32) -> String {
        if let Some(name) = self.names.target(id) {
            return format!("target {name}");
        }
        let address = self.explanation.facts().find_map(|fact| match fact {
            Fact::Target {
                id: other,
                found: Some(found),
            } if *other == id => Some(found.address),
            _ => None,
        });
        address.map_or_else(
            || format!("target {id}"),
            |address: SocketAddr| format!("target {id} at {address}"),
        )
    }

    fn way(self, way: &Way) -> String {
        let tag = if way.vlan == 0 {
            String::new()
        } else {
            format!(", VLAN {}", way.vlan)
        };
        let name = (self.interface)(way.interface);
        format!("{} on {name}{tag}, MTU {}", way.mac, way.mtu_bytes)
    }
}

const fn prefilter(side: &str, may_be: bool) -> &'static str {
    match (side.as_bytes(), may_be) {
        (b"listener", true) => "the destination may be a listener's (prefilter)",
        (b"listener", false) => "the destination is no listener's (prefilter)",
        (b"vip", true) => "the destination may be a VIP (prefilter)",
        (b"vip", false) => "the destination is no VIP (prefilter)",
        (_, true) => "the source may be a target whose answers are translated (prefilter)",
        (_, false) => "the source is no target whose answers are translated (prefilter)",
    }
}

fn hash(input: &str) -> &'static str {
    match input {
        "source_ip" => "its flows stick to the client's address",
        "five_tuple_and_sequence" => {
            "the choice depends on both endpoints and on the first sequence number"
        }
        _ => "the choice depends on both endpoints",
    }
}

fn limits(active: u64, active_at_most: u32, new_per_tick_at_most: u32) -> String {
    let any = |limit: u32| match limit {
        0 => "any number".to_owned(),
        limit => limit.to_string(),
    };
    format!(
        "limits of the listener: {active} flows are remembered, at most {}; new flows in a tick at most {}",
        any(active_at_most),
        any(new_per_tick_at_most),
    )
}
