//! Listeners that ask about a flow before it begins, so that what it costs stands beside listeners
//! that do not.

use nlb_common::{admission::AdmissionPolicy, wire::protocol::TCP};
use nlb_userspace::{
    config::{IpVersion, SourceRule},
    plan::WishedAdmission,
    source_rules::Compiler,
};

use super::kind::Kind;

/// Prefixes of the rules that are asked.
const PREFIXES: u32 = 1_000;

/// What a listener asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Its rules, which admit everybody who comes.
    Rules,
    /// Its rules, which block everybody.
    Refusal,
    /// How many flows it has, and how many have begun.
    Limits,
    /// How many its source has, and how many have begun; each flow comes from another source.
    SourceLimits,
}

impl Question {
    /// All questions.
    pub const ALL: [Self; 4] = [Self::Rules, Self::Refusal, Self::Limits, Self::SourceLimits];

    /// The port of its listeners.
    pub const fn port(self) -> u16 {
        match self {
            Self::Rules => 8_001,
            Self::Refusal => 8_002,
            Self::Limits => 8_003,
            Self::SourceLimits => 8_004,
        }
    }

    /// What its rows say.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rules => "new, rules asked",
            Self::Refusal => "blocked by a rule",
            Self::Limits => "new, limits asked",
            Self::SourceLimits => "new, limits of sources asked",
        }
    }

    /// Kinds that have such listeners.
    pub fn kinds() -> impl Iterator<Item = Kind> {
        Kind::all().filter(|kind| kind.protocol == TCP && !kind.mode.is_tunnel())
    }

    /// What the daemon would be asked for.
    pub fn admission(self, kind: Kind) -> WishedAdmission {
        let rules = match self {
            Self::Rules => deny((0..PREFIXES).map(|number| elsewhere(kind, number))),
            Self::Refusal => deny(["0.0.0.0/0".to_owned(), "::/0".to_owned()]),
            Self::Limits | Self::SourceLimits => Vec::new(),
        };
        let version = if kind.is_v6 {
            IpVersion::Ipv6
        } else {
            IpVersion::Ipv4
        };
        // Limits that nobody comes near.
        let of_listener = if self == Self::Limits { u32::MAX } else { 0 };
        let of_source = if self == Self::SourceLimits {
            u32::MAX
        } else {
            0
        };
        WishedAdmission {
            rules: Compiler::new(&rules).compile(TCP, self.port(), version),
            limits: AdmissionPolicy {
                has_rules: false,
                forwards_unpinned: false,
                source_bits: 128,
                flows_per_tick: of_listener,
                source_flows_per_tick: of_source,
                active_flows: of_listener,
                source_active_flows: of_source,
                usual_syns_per_tick: 0,
            },
        }
    }
}

fn deny(sources: impl IntoIterator<Item = String>) -> Vec<SourceRule> {
    let sources = sources.into_iter().map(|source| source.parse());
    let sources = sources.collect::<Result<Vec<_>, _>>();
    vec![SourceRule {
        allows: false,
        sources: sources.expect("prefixes"),
        protocol: None,
        ports: 1..=u16::MAX,
    }]
}

/// A prefix that holds nobody who comes.
fn elsewhere(kind: Kind, number: u32) -> String {
    if kind.is_v6 {
        format!("2001:db8:e:{number:x}::/64")
    } else {
        format!("172.16.{}.{}/30", number >> 6, (number & 0x3f) << 2)
    }
}
