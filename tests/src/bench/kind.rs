//! Kinds of listeners, and what the daemon would be asked for to have them: one target each, and one
//! next hop, which leads to everybody.

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, ensure};
use nlb_common::{
    address::Address,
    listener::{HashInput, ListenerKey, Stranded},
    next_hop::{MacPair, NextHop, NextHopId, VlanId},
    target::Mode,
    tick::Tick,
    tunnel::Tunnel,
    wire::{
        ethernet::MacAddress,
        protocol::{TCP, UDP},
    },
};
use nlb_userspace::{
    dataplane::Step,
    plan::{WishedAdmission, WishedGroup, WishedListener, WishedRing, WishedTarget},
    settling::{Exceptions, Settling},
};
use zerocopy::big_endian::U16;

/// The loopback interface, which test packets come in through: always the namespace's first.
pub const LOOPBACK: u32 = 1;
/// The one next hop: to every target and to every client.
pub const NEXT_HOP: NextHopId = NextHopId(1);
/// Where targets listen.
pub const TARGET_PORT: u16 = 8080;
/// Where listeners listen.
pub const LISTENER_PORT: u16 = 443;

/// Where those listen that answer SYNs with cookies.
pub const COOKIE_PORT: u16 = 8_006;

/// Where those listen that pin flows on change.
pub const SETTLED_PORT: u16 = 8_005;

/// The modes that are measured.
const MODES: [Mode; 6] = [
    Mode::FULL_NAT,
    Mode::NAT,
    Mode::DSR_L2,
    Mode::DSR_IPIP,
    Mode::DSR_GUE,
    Mode::DSR_GENEVE,
];

/// A kind of listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// How packets get to targets.
    pub mode: Mode,
    /// Whether the VIP is an IPv6 address.
    pub is_v6: bool,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
}

impl Kind {
    /// All kinds, in the order of their listeners.
    pub fn all() -> impl Iterator<Item = Self> {
        MODES.into_iter().flat_map(|mode| {
            [false, true].into_iter().flat_map(move |is_v6| {
                [TCP, UDP].into_iter().map(move |protocol| Self {
                    mode,
                    is_v6,
                    protocol,
                })
            })
        })
    }

    /// Whether its connections begin with us, so that SYNs may be answered with cookies.
    pub fn begins_with_us(self) -> bool {
        self.mode == Mode::NAT && self.protocol == TCP
    }

    /// Whether it has a listener that pins flows on change.
    pub fn may_settle(self) -> bool {
        !self.mode.is_translated()
    }

    /// The IP version.
    pub const fn version(self) -> &'static str {
        if self.is_v6 { "v6" } else { "v4" }
    }

    /// A row's title: the mode, what is done, version and protocol.
    pub fn title(self, what: &str) -> String {
        let mode = match self.mode {
            Mode::NAT => "nat",
            Mode::DSR_IPIP => "dsr-ipip",
            Mode::DSR_GUE => "dsr-gue",
            Mode::DSR_GENEVE => "dsr-geneve",
            Mode::FULL_NAT => "full-nat",
            _ => "dsr-l2",
        };
        let protocol = if self.protocol == TCP { "tcp" } else { "udp" };
        format!("{mode} {what}, {} {protocol}", self.version())
    }

    /// The VIP.
    pub const fn vip(self) -> &'static str {
        match (self.mode, self.is_v6) {
            (Mode::NAT, false) => "192.0.2.10",
            (Mode::NAT, true) => "2001:db8::10",
            (Mode::DSR_IPIP, false) => "192.0.2.30",
            (Mode::DSR_IPIP, true) => "2001:db8::30",
            (Mode::DSR_GUE, false) => "192.0.2.40",
            (Mode::DSR_GUE, true) => "2001:db8::40",
            (Mode::DSR_GENEVE, false) => "192.0.2.50",
            (Mode::DSR_GENEVE, true) => "2001:db8::50",
            (Mode::FULL_NAT, false) => "192.0.2.60",
            (Mode::FULL_NAT, true) => "2001:db8::60",
            (_, false) => "192.0.2.20",
            (_, true) => "2001:db8::20",
        }
    }

    /// The target.
    pub const fn target(self) -> &'static str {
        if self.is_v6 {
            "fd00::11"
        } else {
            "192.168.0.11"
        }
    }

    /// What packets are addressed to.
    pub fn key(self) -> Result<ListenerKey> {
        self.key_of(LISTENER_PORT)
    }

    /// What packets to another port are addressed to.
    pub fn key_of(self, port: u16) -> Result<ListenerKey> {
        let address = Address::from(self.vip().parse::<IpAddr>()?);
        Ok(ListenerKey::new(address, self.protocol, U16::new(port)))
    }
}

/// The step that makes the next hop known.
pub const fn to_everybody() -> Step {
    Step::WriteNextHop {
        id: NEXT_HOP,
        next_hop: NextHop {
            macs: MacPair::new(
                MacAddress([2, 0, 0, 0, 1, 11]),
                MacAddress([2, 0, 0, 0, 0, 1]),
            ),
            interface: LOOPBACK,
            mtu_bytes: 1500,
            vlan: VlanId::NONE,
        },
    }
}

/// Our addresses that sources are translated to.
pub fn pool() -> Result<Vec<IpAddr>> {
    let mut sources = Vec::new();
    for last in 70..74 {
        sources.push(format!("192.0.2.{last}").parse()?);
        sources.push(format!("2001:db8::{last}").parse()?);
    }
    Ok(sources)
}

/// A group with one target.
pub fn wished_group(kind: Kind, fingerprint: u32) -> Result<WishedGroup> {
    Ok(WishedGroup {
        terminates_removed: false,
        fingerprint,
        mode: kind.mode,
        tunnel: kind.mode.is_tunnel().then_some(Tunnel {
            source_v4: Address::from_v4_bytes([192, 168, 0, 1]),
            source_v6: Address::from("fd00::1".parse::<IpAddr>()?),
            spread_v4: [0; 4],
            spread_v6: [0; 8],
            port: U16::new(6080),
            network: [0; 3],
            has_entropy: true,
        }),
        targets: vec![WishedTarget {
            resets_flows: false,
            address: kind.target().parse()?,
            port: TARGET_PORT,
            weight: 1,
            next_hop: NEXT_HOP,
        }],
        quic: None,
    })
}

/// A listener that asks nothing.
pub fn wished_listener(kind: Kind, port: u16, ring: WishedRing) -> Result<WishedListener> {
    Ok(WishedListener {
        // The bench sends data without an opening.
        stray: Stranded::FORWARD,
        expired: Stranded::FORWARD,
        mss_clamp_bytes: 0,
        syn_cookies: false,
        key: kind.key_of(port)?,
        ring,
        idle_ticks: Tick::at_least_seconds(350),
        hash_input: HashInput::FiveTuple,
        admission: WishedAdmission::default(),
        answers_echo: true,
    })
}

/// The ring when it has settled, as the daemon lets it when nothing has changed for a while.
pub fn settled(group: u16, mut ring: Settling) -> Result<Step> {
    let exceptions = Exceptions::new();
    for seconds in [0, 1] {
        ring = ring.settled(Duration::from_secs(seconds), Duration::ZERO, &exceptions);
    }
    ensure!(ring.is_settled(), "a ring without flows settles");
    let (slots, bases) = ring.maps();
    Ok(Step::ReplaceRing {
        group,
        slots,
        bases: Some(bases),
    })
}
