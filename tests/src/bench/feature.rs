//! What a listener may have and need not: each must cost nothing where it is not wanted.

use nlb_common::{
    listener::{HashInput, Stranded},
    quic::CidLayout,
    target::Mode,
    wire::protocol::{TCP, UDP},
};
use nlb_userspace::plan::{WishedGroup, WishedListener, WishedQuic};

use super::{admission::Question, kind::Kind};

/// An optional feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Rules about sources, of which none holds the client.
    SourceRules,
    /// Rules about sources, which forbid every client.
    Refusal,
    /// Limits of the listener's flows.
    Limits,
    /// Limits of each source's flows.
    SourceLimits,
    /// Connection IDs of QUIC.
    Quic,
    /// A bound for TCP's segment size.
    SegmentSize,
    /// Resets for segments of no flow.
    StrayResets,
    /// Resets for flows whose idle time has run out.
    IdleResets,
    /// Echo requests that are not answered.
    NoEcho,
    /// A hash of the source alone, which sticks to a target.
    Stickiness,
    /// Pinning on change; the ring has settled.
    PinningOnChange,
    /// The end of a removed target's flows.
    Termination,
    /// A pool of sources, for listeners of another mode.
    Pool,
}

impl Feature {
    /// All features that a flow can begin with.
    pub const ALL: [Self; 12] = [
        Self::SourceRules,
        Self::Limits,
        Self::SourceLimits,
        Self::Quic,
        Self::SegmentSize,
        Self::StrayResets,
        Self::IdleResets,
        Self::NoEcho,
        Self::Stickiness,
        Self::PinningOnChange,
        Self::Termination,
        Self::Pool,
    ];

    /// What the configuration calls it, or what its table does.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SourceRules => "source rules",
            Self::Refusal => "a rule for everybody",
            Self::Limits => "limits of a listener",
            Self::SourceLimits => "limits of sources",
            Self::Quic => "QUIC connection IDs",
            Self::SegmentSize => "TCP segment size",
            Self::StrayResets => "resets of stray segments",
            Self::IdleResets => "resets at idle expiry",
            Self::NoEcho => "echo not answered",
            Self::Stickiness => "stickiness by source",
            Self::PinningOnChange => "pinning on change",
            Self::Termination => "connection termination",
            Self::Pool => "pool of sources",
        }
    }

    /// A kind of listener that may have it.
    pub const fn kind(self) -> Kind {
        Kind {
            mode: match self {
                Self::PinningOnChange => Mode::DSR_L2,
                _ => Mode::NAT,
            },
            is_v6: false,
            protocol: match self {
                Self::Quic => UDP,
                _ => TCP,
            },
        }
    }

    /// Gives it to a listener and its group.
    pub fn give(self, kind: Kind, listener: &mut WishedListener, group: &mut WishedGroup) {
        match self {
            Self::SourceRules => listener.admission = Question::Rules.admission(kind),
            Self::Refusal => listener.admission = Question::Refusal.admission(kind),
            Self::Limits => listener.admission = Question::Limits.admission(kind),
            Self::SourceLimits => listener.admission = Question::SourceLimits.admission(kind),
            Self::Quic => {
                group.quic = Some(WishedQuic {
                    layout: CidLayout::NLB,
                    server_ids: vec![Some(0x5a5a_5a5a_5a5a_5a5a)],
                });
            }
            Self::SegmentSize => listener.mss_clamp_bytes = 1_400,
            Self::StrayResets => listener.stray = Stranded::RESET,
            Self::IdleResets => listener.expired = Stranded::RESET_AT_EXPIRY,
            Self::NoEcho => listener.answers_echo = false,
            Self::Stickiness => listener.hash_input = HashInput::Source,
            Self::Termination => group.terminates_removed = true,
            // The wish as a whole has these.
            Self::PinningOnChange | Self::Pool => {}
        }
    }
}
