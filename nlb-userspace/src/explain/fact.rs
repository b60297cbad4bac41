//! What a packet asked of a table, and what it was told: numbers and addresses, as they stand in the maps.

use std::net::{IpAddr, SocketAddr};

use nlb_common::{
    flow::{FlowEntry, FlowState},
    listener::{HashInput, Listener, ListenerId, ListenerKey},
    next_hop::NextHop,
    stop::Stop,
    target::{Mode, Target},
    tick::Tick,
};
use nlb_ebpf::tables::{Passage, PassageKind};
use serde::Serialize;

/// What one question and its answer come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum Fact {
    /// Whether the prefilter lets the packet in as one for a listener, for a VIP, or of a target.
    Prefilter {
        /// `listener`, `vip` or `target`.
        side: &'static str,
        /// Whether it may be.
        may_be: bool,
    },
    /// The listener under an endpoint.
    Listener {
        /// The endpoint.
        endpoint: Endpoint,
        /// Its listener, if there is one.
        found: Option<FoundListener>,
    },
    /// The VIP under an address without a port.
    Vip {
        /// The address.
        address: IpAddr,
        /// Whether a listener is on it.
        found: bool,
    },
    /// The listener may pin flows on change only.
    OnChange {
        /// Which.
        listener: u16,
    },
    /// What the listener's source rules say.
    Rules {
        /// Whose.
        listener: u16,
        /// The packet's source.
        source: IpAddr,
        /// Whether they let it begin a flow.
        admits: bool,
    },
    /// A listener's limits were asked.
    Limits {
        /// Whose.
        listener: u16,
        /// Flows that are remembered.
        active_flows: u64,
        /// How many may be; 0 for any number.
        active_flows_at_most: u32,
        /// New flows in a tick, at most; 0 for any number.
        new_flows_per_tick_at_most: u32,
    },
    /// A listener asked whether more SYNs come than it is used to.
    Pressure {
        /// Which.
        listener: u16,
        /// SYNs in this tick so far.
        syns: u32,
        /// How many are usual.
        usual_per_tick: u32,
        /// Whether there were more, now or not long ago.
        is_high: bool,
    },
    /// A bucket of the flow table.
    Bucket {
        /// Its number.
        number: u32,
        /// How many of its four entries hold a flow.
        used: usize,
        /// Those that are of the packet's client.
        flows: Vec<FoundFlow>,
    },
    /// An entry of the flow table is taken for the flow.
    Pinned,
    /// A slot of a ring.
    Slot {
        /// Whose ring: a target group's, or a listener's own.
        ring: u16,
        /// Which slot.
        slot: usize,
        /// The target there.
        target: Option<u32>,
        /// Whether flows of the slot need not be looked for.
        is_settled: bool,
    },
    /// What a slot had before it changed.
    Base {
        /// Whose ring.
        ring: u16,
        /// Which slot.
        slot: usize,
        /// The target that was there.
        target: Option<u32>,
    },
    /// A QUIC server's number.
    Server {
        /// The number that the packet's connection ID carries.
        number: u64,
        /// Whose it is.
        target: Option<u32>,
    },
    /// A target's record.
    Target {
        /// Its id.
        id: u32,
        /// What stands there, if anything.
        found: Option<FoundTarget>,
    },
    /// What headers are put around packets of a target group.
    Tunnel {
        /// The group.
        group: u16,
        /// Whether its record can be used.
        found: bool,
    },
    /// A free port of the pool is looked for.
    Pool,
    /// A next hop's record.
    NextHop {
        /// Its id.
        id: u16,
        /// The way, unless the record is invalid.
        way: Option<Way>,
    },
    /// The kernel's routes were asked.
    Route {
        /// Where to.
        destination: IpAddr,
        /// Where from.
        source: IpAddr,
        /// The way.
        way: Option<Way>,
        /// The neighbour that it goes by.
        neighbour: Option<IpAddr>,
        /// Why there is none.
        refusal: Option<&'static str>,
    },
    /// What a datagram's first fragment left.
    Fragment {
        /// Whether it left anything.
        found: bool,
    },
    /// The packet leaves word for its datagram's later fragments.
    FragmentRemembered,
    /// The daemon is asked to keep the fragment for a moment.
    FragmentKept,
    /// The packet is answered with a SYN cookie, which only the kernel can make.
    CookieMade,
    /// The packet's number is taken for a SYN cookie, which only the kernel can tell.
    CookieBelieved,
    /// The packet is sent on, and counted.
    Counted {
        /// Whose.
        listener: u16,
        /// To or from which target.
        target: u32,
        /// `known`, `new`, `unpinned` or `return`.
        flow: &'static str,
        /// Bytes of the IP packet.
        bytes: u16,
    },
    /// The packet is stopped.
    Stopped {
        /// The reason.
        stop: &'static str,
        /// What it means.
        meaning: &'static str,
    },
    /// The daemon would be asked to have a neighbour's MAC address resolved.
    NeighbourWanted {
        /// The neighbour.
        address: IpAddr,
    },
}

/// An address, a port, and a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// `TCP`, `UDP`, or a number.
    pub protocol: Protocol,
    /// The address and the port.
    #[serde(rename = "address")]
    pub at: SocketAddr,
}

impl Endpoint {
    /// Where a listener listens.
    pub(super) fn of(key: ListenerKey) -> Self {
        Self {
            protocol: Protocol(key.protocol),
            at: SocketAddr::new(key.address.into(), key.port.get()),
        }
    }
}

/// An IP protocol, which is shown by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Protocol(pub u8);

impl std::fmt::Display for Protocol {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use nlb_common::wire::protocol;
        match self.0 {
            protocol::TCP => out.write_str("TCP"),
            protocol::UDP => out.write_str("UDP"),
            protocol::ICMP => out.write_str("ICMP"),
            protocol::ICMPV6 => out.write_str("ICMPv6"),
            other => write!(out, "protocol {other}"),
        }
    }
}

impl Serialize for Protocol {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

/// A listener's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FoundListener {
    /// Its id.
    pub id: u16,
    /// The ring that its flows choose from.
    pub ring: u16,
    /// What the choice depends on: `five_tuple`, `five_tuple_and_sequence` or `source_ip`.
    pub hash: &'static str,
}

impl FoundListener {
    pub(super) fn of(id: ListenerId, record: Option<&Listener>) -> Self {
        let policy = record.map(Listener::policy).unwrap_or_default();
        Self {
            id: id.0,
            ring: policy.group,
            hash: match policy.flags.hash_input() {
                HashInput::FiveTuple => "five_tuple",
                HashInput::FiveTupleAndSequence => "five_tuple_and_sequence",
                HashInput::Source => "source_ip",
            },
        }
    }
}

/// A flow in the flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FoundFlow {
    /// Its listener.
    pub listener: u16,
    /// Where that listens, unless it is gone.
    pub at: Option<Endpoint>,
    /// Its target.
    pub target: u32,
    /// How far it has come.
    pub state: &'static str,
    /// For how many ticks no packet of it was seen.
    pub silent_ticks: u16,
    /// After how many it is forgotten.
    pub idle_ticks: u16,
}

impl FoundFlow {
    /// The flow in an entry.
    pub(super) fn of(entry: &FlowEntry, word: u64, listener: Option<&Listener>, now: Tick) -> Self {
        let idle_ticks = listener.map_or(0, |listener| listener.policy().idle_ticks);
        let choice = nlb_common::flow::Choice::of_word(word);
        let progress = entry.progress();
        Self {
            listener: choice.listener.0,
            at: listener.and_then(Listener::key).map(Endpoint::of),
            target: choice.target.0,
            state: state(progress.state),
            silent_ticks: now.since(progress.last_seen),
            idle_ticks: progress.state.idle_ticks(idle_ticks),
        }
    }

    /// Whether its time has run out.
    pub const fn is_expired(&self) -> bool {
        self.silent_ticks > self.idle_ticks
    }
}

/// How far a flow has come, in a word.
pub const fn state(state: FlowState) -> &'static str {
    if state.has(FlowState::RESET) {
        "reset"
    } else if state.is_over() {
        "closed"
    } else if state.0 & (FlowState::CLIENT_CLOSED.0 | FlowState::TARGET_CLOSED.0) != 0 {
        "closing"
    } else if state.has(FlowState::ESTABLISHED) {
        "established"
    } else if state.has(FlowState::ANSWERED) {
        "answered"
    } else if state.has(FlowState::RESUMED) {
        "resumed"
    } else {
        "new"
    }
}

/// The words of [`state`], from a flow's beginning to its end.
pub const STATES: [&str; 7] = [
    "new",
    "resumed",
    "answered",
    "established",
    "closing",
    "closed",
    "reset",
];

/// A target's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FoundTarget {
    /// Its address and port.
    pub address: SocketAddr,
    /// How packets get there.
    pub mode: &'static str,
    /// Whether it takes new flows.
    pub takes_new_flows: bool,
    /// Whether its flows are reset.
    pub resets_flows: bool,
}

impl FoundTarget {
    pub(super) fn of(record: &Target) -> Option<Self> {
        let control = record.control()?;
        Some(Self {
            address: SocketAddr::new(record.address().into(), record.port().get()),
            mode: match control.mode {
                Mode::NAT => "nat",
                Mode::DSR_L2 => "dsr-l2",
                Mode::FULL_NAT => "nat without the client's address",
                Mode::DSR_IPIP => "dsr-ipip",
                Mode::DSR_GUE => "dsr-gue",
                Mode::DSR_GENEVE => "dsr-geneve",
                _ => "unknown",
            },
            takes_new_flows: control.takes_new_flows,
            resets_flows: control.resets_flows,
        })
    }
}

/// Where a frame goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Way {
    /// The index of the interface that it leaves by.
    pub interface: u32,
    /// The neighbour's MAC address.
    pub mac: String,
    /// The largest IP packet that it takes, in bytes.
    pub mtu_bytes: u16,
    /// The VLAN that its tag names; 0 for none.
    pub vlan: u16,
}

impl Way {
    pub(super) fn of(next_hop: &NextHop) -> Self {
        Self {
            interface: next_hop.interface,
            mac: mac(next_hop.macs.destination().0),
            mtu_bytes: next_hop.mtu_bytes,
            vlan: next_hop.vlan.0,
        }
    }
}

/// A MAC address, as people write it.
pub(super) fn mac(bytes: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = bytes;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

impl Fact {
    pub(super) const fn counted(passage: &Passage) -> Self {
        Self::Counted {
            listener: passage.listener.0,
            target: passage.target.0,
            flow: match passage.kind {
                PassageKind::Known => "known",
                PassageKind::New => "new",
                PassageKind::Unpinned => "unpinned",
                PassageKind::Return => "return",
            },
            bytes: passage.length_bytes,
        }
    }

    pub(super) const fn stopped(stop: Stop) -> Self {
        Self::Stopped {
            stop: stop.name(),
            meaning: stop.meaning(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_word_and_the_latest_event_counts() {
        for bits in 0..=u8::MAX {
            assert!(STATES.contains(&state(FlowState(bits))));
        }
        let closed = FlowState::CLIENT_CLOSED.with(FlowState::TARGET_CLOSED);
        let established = FlowState::ANSWERED.with(FlowState::ESTABLISHED);
        assert_eq!(state(FlowState::NEW), "new");
        assert_eq!(state(established), "established");
        assert_eq!(state(established.with(FlowState::TARGET_CLOSED)), "closing");
        assert_eq!(state(established.with(closed)), "closed");
        assert_eq!(state(established.with(FlowState::RESET)), "reset");
    }
}
