//! 5. Steps become map writes.
//!
//! A plan is a list of [`Step`]s; whoever is a [`Dataplane`] can take them. There are two bodies:
//! the kernel's maps ([`kernel::KernelMaps`]), and the packet library's tables in memory, where
//! tests run packets through every prefix of a plan.
//!
//! * [`load`]: load, adopt, attach, replace, pin, detach.
//! * [`kernel`]: the maps; with [`load`] the only place that knows aya.
//! * [`decap`]: the same two for the program that runs on targets.
//! * [`events`]: what the packet program tells; [`early`]: what it asks to be kept for a moment.
//! * [`shared`]: the maps' memory, mapped into ours; `batch`: many entries in one system call.
//! * [`running`]: the maps of a program that runs, looked at from outside; [`snapshot`]: what a packet that
//!   nobody sends asks of them, [`routes`]: of the kernel, and [`rehearsal`]: the program on that packet.
//! * [`capture`]: a program in the running one's place, that copies packets.

mod batch;
pub mod capture;
pub mod decap;
pub mod early;
pub mod error;
pub mod events;
pub mod kernel;
pub mod load;
mod log;
mod memory;
pub mod present;
pub mod rehearsal;
pub mod routes;
pub mod running;
pub mod shared;
pub mod snapshot;
pub mod spills;
pub mod stages;
pub mod sweep;

use std::{collections::BTreeSet, sync::Arc};

use nlb_common::{
    address::Address,
    admission::AdmissionPolicy,
    listener::{ListenerId, ListenerKey, ListenerPolicy},
    next_hop::{NeighbourKey, NextHop, NextHopId, VlanLink},
    quic::{CidLayout, ServerIdKey},
    ring::Slot,
    source::SourceId,
    target::{TargetControl, TargetId, TargetIdentity},
    tunnel::Tunnel,
};

pub use self::error::DataplaneError;
use crate::source_rules::SourceRules;

/// The load balancer's kernel program and its maps: an ELF object.
pub static XDP_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/nlb-xdp"));

/// The kernel program at the targets' end of the tunnelled modes: an ELF object.
pub static DECAP_OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/nlb-xdp-decap"));

/// A kernel program that passes every frame, for the far ends of veth pairs: an ELF object.
pub static PASS_OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/nlb-xdp-pass"));

/// A kernel program that stands in the load balancer's place and copies packets: an ELF object.
pub static CAPTURE_OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/nlb-xdp-capture"));

/// A kernel program that asks the kernel's routes: an ELF object.
static ASK_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/nlb-xdp-ask"));

/// The slots of a ring: as many [`nlb_common::ring::Slot`]s as [`nlb_common::ring::SLOTS`] says.
#[derive(Clone, PartialEq, Eq)]
pub struct RingSlots(pub Arc<[u32]>);

impl std::fmt::Debug for RingSlots {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let slots = self.0.iter().map(|slot| Slot(*slot));
        let changed = slots.clone().filter(|slot| !slot.is_settled()).count();
        let targets: BTreeSet<u32> = slots.filter_map(|slot| Some(slot.target()?.0)).collect();
        write!(
            formatter,
            "RingSlots(of targets {targets:?}, {changed} changed)"
        )
    }
}

/// One change of the data plane. Each is atomic for packets.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Fills an unused next hop's record, or changes where one leads.
    WriteNextHop {
        /// Which.
        id: NextHopId,
        /// Where it leads.
        next_hop: NextHop,
    },
    /// Makes packets ask the kernel's routes instead.
    InvalidateNextHop {
        /// Which.
        id: NextHopId,
    },
    /// Makes flows that remember a next hop ask the kernel's routes once more.
    RenewNextHop {
        /// Which.
        id: NextHopId,
    },
    /// Lets flows find a next hop by its neighbour.
    IndexNextHop {
        /// The neighbour.
        neighbour: NeighbourKey,
        /// Its next hop.
        id: NextHopId,
    },
    /// Takes a neighbour out of the index.
    UnindexNextHop {
        /// The neighbour.
        neighbour: NeighbourKey,
    },
    /// Says what is behind a VLAN interface.
    WriteVlanLink {
        /// The VLAN interface's index.
        interface: u32,
        /// What is behind it; carrier 0 if packets cannot be sent that way.
        link: VlanLink,
    },
    /// A VLAN interface is gone.
    RemoveVlanLink {
        /// Its index.
        interface: u32,
    },
    /// Fills an unused target's record.
    WriteTarget {
        /// Which.
        id: TargetId,
        /// What it stands for from now on.
        identity: TargetIdentity,
        /// How packets get there.
        control: TargetControl,
    },
    /// Changes how packets get to a target.
    ControlTarget {
        /// Which.
        id: TargetId,
        /// How packets get there.
        control: TargetControl,
    },
    /// Takes a target's record out of use; no flow and no ring names it.
    ClearTarget {
        /// Which.
        id: TargetId,
    },
    /// Says what the outer headers of a target group's packets are.
    WriteTunnel {
        /// The target group.
        group: u16,
        /// The headers.
        tunnel: Tunnel,
    },
    /// Gives a target group, or a listener, a new ring.
    ReplaceRing {
        /// Whose.
        group: u16,
        /// Its slots.
        slots: RingSlots,
        /// For a listener that pins flows on change: what flows without an entry are with. Packets
        /// see it no later than the slots.
        bases: Option<RingSlots>,
    },
    /// Says which listener packets find by the number of their prefilter's bit, or that they find
    /// none (id 0).
    Hint {
        /// The number.
        number: u16,
        /// The listener.
        id: ListenerId,
    },
    /// Fills an unused listener's record.
    WriteListener {
        /// Which.
        id: ListenerId,
        /// What it stands for from now on.
        key: ListenerKey,
        /// What it does with its flows.
        policy: ListenerPolicy,
    },
    /// Changes what a listener does with its flows.
    ChangeListener {
        /// Which.
        id: ListenerId,
        /// What it does with its flows.
        policy: ListenerPolicy,
    },
    /// Takes a listener's record out of use; no flow names it.
    ClearListener {
        /// Which.
        id: ListenerId,
    },
    /// Gives a listener other source rules.
    ReplaceRules {
        /// Which listener.
        id: ListenerId,
        /// All of them.
        rules: SourceRules,
    },
    /// Takes a listener's source rules away; it no longer asks for them.
    RemoveRules {
        /// Which listener.
        id: ListenerId,
    },
    /// Changes whether a listener's rules are asked, and its limits.
    SetAdmission {
        /// Which listener.
        id: ListenerId,
        /// Rules and limits.
        policy: AdmissionPolicy,
    },
    /// Lets new flows find a listener; also for VIPs as such.
    IndexListener {
        /// What packets are addressed to.
        key: ListenerKey,
        /// Its listener.
        id: ListenerId,
    },
    /// Lets no new flow find a listener.
    UnindexListener {
        /// What packets are addressed to.
        key: ListenerKey,
    },
    /// Fills an unused number of the pool.
    WriteSource {
        /// Which.
        id: SourceId,
        /// An address of ours.
        address: Address,
    },
    /// Says which addresses of one IP version new flows get.
    TakeTurns {
        /// Whether it is IPv4.
        is_v4: bool,
        /// The addresses.
        ids: Vec<SourceId>,
    },
    /// Takes an address out of the pool; no flow has it.
    ClearSource {
        /// Which.
        id: SourceId,
    },
    /// Says how a listener reads QUIC connection IDs; its policy says whether it does.
    LayOutCids {
        /// Which listener.
        id: ListenerId,
        /// How.
        layout: CidLayout,
    },
    /// Lets packets find a QUIC server by its number.
    IndexServer {
        /// The number, and the ring that it is looked for under.
        key: ServerIdKey,
        /// The server.
        target: TargetId,
    },
    /// Takes a QUIC server's number away.
    UnindexServer {
        /// The number, and the ring that it was looked for under.
        key: ServerIdKey,
    },
    /// Replaces a word of the prefilter's bitmap.
    Prefilter {
        /// Which word.
        index: usize,
        /// Its bits.
        bits: u64,
    },
    /// Says that everything up to here is live.
    Publish {
        /// The generation of the configuration.
        generation: u64,
    },
}

/// Takes the steps of a plan.
pub trait Dataplane {
    /// Takes one step. After an error nothing of it has happened.
    fn take(&mut self, step: &Step) -> Result<(), DataplaneError>;
}
