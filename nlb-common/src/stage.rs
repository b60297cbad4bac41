//! The stages of a packet's story: programs of their own in the kernel, reached by tail calls.

/// Where the story goes on. The number is the index in the kernel's array of programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Stage {
    /// What kind of packet is it, and whose?
    Classify,
    /// It may be addressed to a listener, and its flow is not simply forwarded.
    Begin,
    /// It may be addressed to a listener, and no flow of its client to that is remembered.
    First,
    /// It may be a target's answer, and its way to the client is not remembered.
    Back,
    /// ICMP that is addressed to a VIP, or an ICMP error that may be about a target.
    Icmp,
    /// It is a fragment without ports; its datagram's first one has been here, perhaps.
    Fragment,
    /// Its sender is told something; what, the stage before hands over as an
    /// [`Answer`](crate::answer::Answer).
    Answer,
    /// It goes to a target, and its flow is to be remembered; which target, the stage before hands
    /// over.
    Depart,
    /// It is for a QUIC listener: whose connection ID does it carry?
    Quic,
    /// It is addressed to a listener, and of a flow whose source is translated.
    SnatKnown,
    /// It begins a flow whose source must be translated; to which target, the stage before hands
    /// over.
    SnatBegin,
    /// It comes from a target, may be addressed to the pool, and answers no flow that is known by
    /// its client.
    SnatBack,
    /// It is an ICMP error that may be about a flow whose source is translated.
    SnatIcmp,
    /// It is the first fragment of a flow that has just been given its source.
    SnatFirst,
    /// It is an ICMP error about a packet that a tunnel carried.
    OuterError,
    /// It is a SYN that is answered with a cookie.
    Cookie,
    /// It is an acknowledgement of no flow: does it bring a cookie back?
    CookieReturn,
    /// It brought a cookie back: its flow begins, and its target gets a SYN; which target, the stage
    /// before hands over.
    CookieBegin,
    /// It is addressed to a listener, and of a flow that began with a SYN cookie.
    SequenceKnown,
    /// It comes from a target, and is of a flow that began with a SYN cookie.
    SequenceBack,
    /// It is an ICMP error to a VIP about a flow that began with a SYN cookie.
    SequenceIcmp,
    /// The packet was stopped by a fault of the daemon, which is to be logged; which, the stage
    /// before hands over as a [`Stop`](crate::stop::Stop).
    Fault,
}

impl Stage {
    /// All stages, in the order of their numbers.
    pub const ALL: &[Self] = &[
        Self::Classify,
        Self::Begin,
        Self::First,
        Self::Back,
        Self::Icmp,
        Self::Fragment,
        Self::Answer,
        Self::Depart,
        Self::Quic,
        Self::SnatKnown,
        Self::SnatBegin,
        Self::SnatBack,
        Self::SnatIcmp,
        Self::SnatFirst,
        Self::OuterError,
        Self::Cookie,
        Self::CookieReturn,
        Self::CookieBegin,
        Self::SequenceKnown,
        Self::SequenceBack,
        Self::SequenceIcmp,
        Self::Fault,
    ];

    /// The program that interfaces run: the front stage.
    pub const FRONT_PROGRAM: &str = "nlb";

    /// Where that program is in the kernel's array of programs, behind the stages: for whoever stands in its
    /// place for a while.
    #[expect(clippy::cast_possible_truncation, reason = "stages are few")]
    pub const FRONT_INDEX: u32 = Self::ALL.len() as u32;

    /// How many programs that array has.
    pub const PROGRAMS: usize = Self::ALL.len() + 1;

    /// How far the story has come when this stage is reached.
    ///
    /// A stage goes on to deeper ones only, so every story ends. The one exception goes on to itself,
    /// a bounded number of times: [`Self::SnatBegin`] counts its rounds in what it hands over.
    pub const fn depth(self) -> u8 {
        match self {
            Self::Classify => 1,
            Self::Begin | Self::First | Self::Icmp | Self::Fragment => 2,
            Self::Back | Self::Quic | Self::OuterError => 3,
            Self::Depart
            | Self::SnatKnown
            | Self::SnatBack
            | Self::SnatIcmp
            | Self::CookieReturn
            | Self::SequenceKnown
            | Self::SequenceBack
            | Self::SequenceIcmp => 4,
            Self::SnatBegin | Self::Cookie | Self::CookieBegin => 5,
            Self::SnatFirst => 6,
            Self::Answer => 7,
            Self::Fault => 8,
        }
    }

    /// Whether a story that has come to a depth may go on with this stage.
    pub const fn may_follow(self, depth: u8) -> bool {
        self.depth() > depth || matches!(self, Self::SnatBegin) && depth == Self::SnatBegin.depth()
    }

    /// The name of the stage's program in the kernel object.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Classify => "nlb_classify",
            Self::Begin => "nlb_begin",
            Self::First => "nlb_first",
            Self::Back => "nlb_back",
            Self::Icmp => "nlb_icmp",
            Self::Fragment => "nlb_fragment",
            Self::Answer => "nlb_answer",
            Self::Depart => "nlb_depart",
            Self::Quic => "nlb_quic",
            Self::SnatKnown => "nlb_snat_known",
            Self::SnatBegin => "nlb_snat_begin",
            Self::SnatBack => "nlb_snat_back",
            Self::SnatIcmp => "nlb_snat_icmp",
            Self::SnatFirst => "nlb_snat_first",
            Self::OuterError => "nlb_outer_error",
            Self::Cookie => "nlb_cookie",
            Self::CookieReturn => "nlb_cookie_return",
            Self::CookieBegin => "nlb_cookie_begin",
            Self::SequenceKnown => "nlb_sequence_known",
            Self::SequenceBack => "nlb_sequence_back",
            Self::SequenceIcmp => "nlb_sequence_icmp",
            Self::Fault => "nlb_fault",
        }
    }
}
