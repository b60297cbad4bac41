//! What should be in the maps.

use std::net::IpAddr;

use nlb_common::{
    listener::{HashInput, ListenerKey, Stranded},
    next_hop::NextHopId,
    target::Mode,
    tunnel::Tunnel,
};

use super::{WishedAdmission, WishedQuic};

/// What should be, resolved down to what the maps hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// One for each address, protocol and port.
    pub listeners: Vec<WishedListener>,
    /// The target groups.
    pub groups: Vec<WishedGroup>,
    /// Addresses of ours that sources are translated to.
    pub sources: Vec<IpAddr>,
    /// What listeners forward to that have several groups.
    pub forwards: Vec<WishedForward>,
}

/// Several target groups by weight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WishedForward {
    /// Indexes into [`Wish::groups`], and each one's share of new flows; 0 for none.
    pub shares: Vec<(usize, u16)>,
    /// Whether the listeners, which no others share the ring with, pin flows on change only.
    pub settles: bool,
}

/// Where a listener's new flows choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WishedRing {
    /// A target group: an index into [`Wish::groups`].
    Group(usize),
    /// Several: an index into [`Wish::forwards`].
    Forward(usize),
}

/// A listener that should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WishedListener {
    /// What packets are addressed to.
    pub key: ListenerKey,
    /// Where its new flows choose from.
    pub ring: WishedRing,
    /// How long an established flow may be silent.
    pub idle_ticks: u16,
    /// What becomes of TCP segments of no known flow.
    pub stray: Stranded,
    /// What becomes of TCP segments of a flow whose idle time has run out.
    pub expired: Stranded,
    /// The largest TCP segment size that a SYN may name; 0 for any.
    pub mss_clamp_bytes: u16,
    /// Whether SYNs are answered with cookies.
    pub syn_cookies: bool,
    /// What a new flow's choice depends on.
    pub hash_input: HashInput,
    /// Who may begin flows, and how many.
    pub admission: WishedAdmission,
    /// Whether echo requests to the VIP are answered; the same for all listeners of a VIP.
    pub answers_echo: bool,
}

/// A target group that should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WishedGroup {
    /// Of its name; see [`fingerprint`].
    pub fingerprint: u32,
    /// How packets get to its targets.
    pub mode: Mode,
    /// Whether the flows of a target that was removed end when its delay is over.
    pub terminates_removed: bool,
    /// What the outer headers say, where the mode has them.
    pub tunnel: Option<Tunnel>,
    /// Its targets, also those that take no new flows.
    pub targets: Vec<WishedTarget>,
    /// If they are QUIC servers that put their number into connection IDs.
    pub quic: Option<WishedQuic>,
}

/// A target that should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WishedTarget {
    /// Where it is.
    pub address: IpAddr,
    /// Where it listens.
    pub port: u16,
    /// Its share of new flows; 0 for none.
    pub weight: u16,
    /// Whether the flows it has end with their next packet; only if it takes no new ones.
    pub resets_flows: bool,
    /// The way there.
    pub next_hop: NextHopId,
}
