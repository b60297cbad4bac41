//! A row: a claim, a frame, and what becomes of it; and the words to write rows with.

use nlb_common::{
    decap::{DecapStop, Decapsulated, Encapsulation},
    stop::StopVerdict,
};
use nlb_tests::packet::{Sentence, eth};

use super::target::{
    CLIENT_V4, CLIENT_V6, LB_V4, LB_V6, OWN_V4, OWN_V6, Outcome, Setup, VIP_V4, VIP_V6,
};

/// What must become of a frame.
enum Fate {
    /// To the stack, untouched and uncounted.
    Passes,
    /// Stopped, untouched.
    Stops(DecapStop),
    /// To the stack without its outer headers.
    ComesOut(Encapsulation, Vec<u8>),
}

/// A claim and what shows it.
pub(super) struct Row {
    pub(super) claim: String,
    pub(super) setup: Setup,
    pub(super) frame: Vec<u8>,
    fate: Fate,
}

impl Row {
    fn new(claim: impl Into<String>, frame: &Sentence, fate: Fate) -> Self {
        Self {
            claim: claim.into(),
            setup: Setup::Restricted,
            frame: frame.build(),
            fate,
        }
    }

    pub(super) fn passes(claim: impl Into<String>, frame: &Sentence) -> Self {
        Self::new(claim, frame, Fate::Passes)
    }

    pub(super) fn stops(claim: impl Into<String>, frame: &Sentence, stop: DecapStop) -> Self {
        Self::new(claim, frame, Fate::Stops(stop))
    }

    pub(super) fn comes_out(
        claim: impl Into<String>,
        (encapsulation, frame): (Encapsulation, &Sentence),
        out: &Sentence,
    ) -> Self {
        Self::new(claim, frame, Fate::ComesOut(encapsulation, out.build()))
    }

    pub(super) const fn with(mut self, setup: Setup) -> Self {
        self.setup = setup;
        self
    }

    /// As if the frame were cut off.
    pub(super) fn cut(mut self, bytes: usize) -> Self {
        self.frame.truncate(bytes);
        self
    }

    pub(super) fn expected(&self) -> Outcome {
        let mut outcome = Outcome {
            passed: true,
            bytes: self.frame.clone(),
            stops: [0; DecapStop::COUNT],
            decapsulated: [Decapsulated::default(); Encapsulation::ALL.len()],
        };
        match &self.fate {
            Fate::Passes => {}
            Fate::Stops(stop) => {
                outcome.passed = stop.verdict() == StopVerdict::Pass;
                outcome.stops[*stop as usize] = 1;
            }
            Fate::ComesOut(encapsulation, out) => {
                outcome.bytes.clone_from(out);
                outcome.decapsulated[*encapsulation as usize] = Decapsulated {
                    packets: 1,
                    bytes: ip_length(out),
                };
            }
        }
        outcome
    }
}

/// What the IP header of a frame says of its length.
fn ip_length(frame: &[u8]) -> u64 {
    let mut at = 12;
    while matches!(frame[at..at + 2], [0x81, 0x00] | [0x88, 0xa8]) {
        at += 4;
    }
    let packet = &frame[at + 2..];
    let word = |at: usize| u64::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    if packet[0] >> 4 == 4 {
        word(2)
    } else {
        40 + word(4)
    }
}

/// The ways to be wrapped, with what stands between the IP headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrapping {
    Ipip,
    Gue,
    GuePrivate,
    GueDirect,
    Geneve,
    GeneveOptions,
}

impl Wrapping {
    pub(super) const ALL: [Self; 6] = [
        Self::Ipip,
        Self::Gue,
        Self::GuePrivate,
        Self::GueDirect,
        Self::Geneve,
        Self::GeneveOptions,
    ];

    pub(super) const fn encapsulation(self) -> Encapsulation {
        match self {
            Self::Ipip => Encapsulation::Ipip,
            Self::Gue | Self::GuePrivate | Self::GueDirect => Encapsulation::Gue,
            Self::Geneve | Self::GeneveOptions => Encapsulation::Geneve,
        }
    }

    /// The tunnel's header.
    fn header(self, is_v4: bool) -> Vec<u8> {
        let protocol = if is_v4 { 4 } else { 41 };
        let ether_type: [u8; 2] = if is_v4 { [0x08, 0x00] } else { [0x86, 0xdd] };
        let [a, b] = ether_type;
        match self {
            Self::Ipip | Self::GueDirect => vec![],
            Self::Gue => vec![0, protocol, 0, 0],
            Self::GuePrivate => vec![2, protocol, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8],
            Self::Geneve => vec![0, 0, a, b, 0, 0, 7, 0],
            Self::GeneveOptions => [
                &[3, 0, a, b, 0, 0, 7, 0][..],
                &[0x01, 0x02, 0x03, 0x02, 9, 9, 9, 9, 8, 8, 8, 8],
            ]
            .concat(),
        }
    }
}

/// A client's packet for the VIP.
pub(super) fn inner(is_v4: bool) -> Sentence {
    let sentence = eth().udp(40_000, 53).payload(b"question");
    if is_v4 {
        sentence.ipv4(CLIENT_V4, VIP_V4)
    } else {
        sentence.ipv6(CLIENT_V6, VIP_V6)
    }
}

/// The load balancer's outer packet, as yet without what it carries.
pub(super) fn outer(is_v4: bool) -> Sentence {
    if is_v4 {
        eth().ipv4(LB_V4, OWN_V4)
    } else {
        eth().ipv6(LB_V6, OWN_V6)
    }
}

/// The IP packet of a frame without tags.
pub(super) fn packet(frame: &Sentence) -> Vec<u8> {
    frame.build().split_off(14)
}

/// Wraps these bytes, said to be a packet of that version.
pub(super) fn wrap_bytes(
    wrapping: Wrapping,
    outer: Sentence,
    is_v4: bool,
    content: &[u8],
) -> Sentence {
    let payload = [&wrapping.header(is_v4), content].concat();
    match wrapping.encapsulation() {
        Encapsulation::Ipip => outer.protocol(if is_v4 { 4 } else { 41 }),
        Encapsulation::Gue => outer.udp(50_000, 6080),
        Encapsulation::Geneve => outer.udp(50_000, 6081),
    }
    .payload(&payload)
}

/// Wraps a packet.
pub(super) fn wrap(wrapping: Wrapping, outer: Sentence, is_v4: bool, inner: &Sentence) -> Sentence {
    wrap_bytes(wrapping, outer, is_v4, &packet(inner))
}

/// For claims.
pub(super) fn version(is_v4: bool) -> &'static str {
    if is_v4 { "IPv4" } else { "IPv6" }
}

/// Each way to be wrapped, with each outer and inner version.
pub(super) fn ways() -> impl Iterator<Item = (Wrapping, bool, bool)> {
    Wrapping::ALL.into_iter().flat_map(|wrapping| {
        [(true, true), (true, false), (false, true), (false, false)]
            .map(|(outer, inner)| (wrapping, outer, inner))
    })
}
