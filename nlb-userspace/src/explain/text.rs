//! An explanation for people, and as JSON: numbers of the maps get the names that the daemon has for them.

use std::fmt::Write as _;

use nlb_common::{
    stage::Stage,
    stop::{Stop, StopVerdict},
};
use nlb_ebpf::{Verdict, memory::MemoryFrame, parse::parse};
use serde_json::{Value, json};

use super::{Chapter, Explanation, fact::Fact, picture};
use crate::names::Names;

/// An explanation and what it is shown with.
#[derive(Clone, Copy)]
pub struct Shown<'e> {
    /// What is shown.
    pub explanation: &'e Explanation,
    /// What things are called.
    pub names: &'e Names,
    /// What interfaces are called, by index.
    pub interface: &'e dyn Fn(u32) -> String,
}

impl Shown<'_> {
    /// For people.
    pub fn to_text(self) -> String {
        let Explanation {
            chapters,
            before,
            after,
            interface,
            ..
        } = self.explanation;
        let mut text = String::new();
        let frame = MemoryFrame::new(before.clone(), *interface);
        let summary = parse(&frame).map_or_else(
            |_| format!("{} bytes without an IP header", before.len()),
            |packet| picture::summary(&packet),
        );
        let _infallible = writeln!(
            text,
            "{summary}, in through {}",
            (self.interface)(*interface)
        );
        for line in picture::headers(before) {
            let _infallible = writeln!(text, "    {line}");
        }
        for chapter in chapters {
            let _infallible = writeln!(text, "\n{}", title(chapter));
            for fact in &chapter.facts {
                let _infallible = writeln!(text, "  - {}", self.fact(fact));
            }
        }
        let _infallible = writeln!(text, "\n=> {}", self.outcome());
        if before != after {
            for line in picture::headers(after) {
                let _infallible = writeln!(text, "    {line}");
            }
            let is_same_length = before.len() == after.len();
            let _infallible = writeln!(
                text,
                "\nbytes before ({}){}\n{}\nbytes after ({}){}\n{}",
                before.len(),
                if is_same_length {
                    ", lines that change"
                } else {
                    ""
                },
                picture::dump(before, Some(after)),
                after.len(),
                if is_same_length {
                    ", lines that changed"
                } else {
                    ""
                },
                picture::dump(after, Some(before)),
            );
        }
        text
    }

    /// For programs.
    pub fn to_json(self) -> Value {
        let Explanation {
            chapters,
            verdict,
            stops,
            before,
            after,
            interface,
        } = self.explanation;
        let hex = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
        };
        let (verdict, leaves_by) = match verdict {
            Verdict::Pass => ("pass", None),
            Verdict::Drop => ("drop", None),
            Verdict::Transmit => ("transmit", Some((self.interface)(*interface))),
            Verdict::Redirect(index) => ("redirect", Some((self.interface)(*index))),
        };
        let told = |chapter: &Chapter| {
            let facts: Vec<Value> = (chapter.facts.iter())
                .map(|fact| {
                    let mut value = json!(fact);
                    value["text"] = self.fact(fact).into();
                    value
                })
                .collect();
            json!({ "stage": stage(chapter), "meaning": title(chapter), "facts": facts })
        };
        json!({
            "interface": (self.interface)(*interface),
            "stages": chapters.iter().map(told).collect::<Vec<_>>(),
            "verdict": verdict,
            "leaves_by": leaves_by,
            "outcome": self.outcome(),
            "stops": stops.iter().map(|stop| json!({
                "name": stop.name(),
                "meaning": stop.meaning(),
            })).collect::<Vec<_>>(),
            "headers_before": picture::headers(before),
            "headers_after": picture::headers(after),
            "bytes_before": hex(before),
            "bytes_after": hex(after),
        })
    }

    /// What becomes of the packet, in a sentence.
    fn outcome(self) -> String {
        let Explanation {
            verdict,
            stops,
            interface,
            ..
        } = self.explanation;
        if let Some(text) = stopped(*verdict == Verdict::Drop, stops) {
            return text;
        }
        let index = match verdict {
            Verdict::Pass => {
                return "left to this host's own stack, untouched: it is not for a listener, and of no \
                        flow that nlb knows"
                    .to_owned();
            }
            Verdict::Drop => return "dropped".to_owned(),
            Verdict::Transmit => *interface,
            Verdict::Redirect(index) => *index,
        };
        let name = (self.interface)(index);
        let counted = self.explanation.facts().find_map(|fact| match fact {
            Fact::Counted { target, flow, .. } => Some((*target, *flow)),
            _ => None,
        });
        match counted {
            Some((target, "return")) => {
                format!(
                    "sent on through {name}, to the client: the answer of {}",
                    self.target(target)
                )
            }
            Some((target, flow)) => {
                let remembered = match flow {
                    "new" if self.pins() => "; the flow is new, and would be remembered",
                    "new" => {
                        "; the flow is new, and needs no entry: the ring alone says where it goes"
                    }
                    "unpinned" => "; the flow is not remembered: the ring alone says where it goes",
                    _ => "",
                };
                format!(
                    "sent on through {name}, to {}{remembered}",
                    self.target(target)
                )
            }
            None => format!("sent on through {name}"),
        }
    }

    fn pins(self) -> bool {
        self.explanation.facts().any(|fact| *fact == Fact::Pinned)
    }
}

/// What becomes of a packet that was stopped for these reasons, the first of which is why it ended.
pub(crate) fn stopped(is_dropped: bool, stops: &[Stop]) -> Option<String> {
    let (stop, others) = stops.split_first()?;
    let becomes = match stop.verdict() {
        StopVerdict::Pass => "left to this host's own stack",
        StopVerdict::Drop if is_dropped => "dropped",
        StopVerdict::Drop | StopVerdict::Answer => {
            "answered from here, to the neighbour it came from"
        }
    };
    let mut text = format!("{becomes}: {}: {}", stop.name(), stop.meaning());
    for other in others {
        let _infallible = write!(text, " And {}: {}", other.name(), other.meaning());
    }
    Some(text)
}

/// What a stage is for.
fn title(chapter: &Chapter) -> &'static str {
    match chapter.stage {
        None => "front: a plain packet of a known flow?",
        Some(Stage::Classify) => "classify: what kind of packet, and whose?",
        Some(Stage::Begin) => "begin: does a flow begin, and with which target?",
        Some(Stage::First) => "first: a flow begins; with which target?",
        Some(Stage::Back) => "back: the way of a target's answer to its client",
        Some(Stage::Icmp) => "icmp: an echo request, or an error about a flow?",
        Some(Stage::Fragment) => "fragment: where did the datagram's first one go?",
        Some(Stage::Answer) => "answer: its sender is told",
        Some(Stage::Depart) => "depart: off to the target, and remembered",
        Some(Stage::Quic) => "quic: whose connection ID does it carry?",
        Some(Stage::SnatKnown) => "snat_known: a known flow whose source is translated",
        Some(Stage::SnatBegin) => "snat_begin: a new flow gets a source of ours",
        Some(Stage::SnatBack) => "snat_back: an answer to a source of ours?",
        Some(Stage::SnatIcmp) => "snat_icmp: an error about a flow with a source of ours?",
        Some(Stage::SnatFirst) => "snat_first: a first fragment with its new source",
        Some(Stage::OuterError) => "outer_error: an error about a packet that a tunnel carried?",
        Some(Stage::Cookie) => "cookie: a SYN is answered with a cookie",
        Some(Stage::CookieReturn) => "cookie_return: does it bring a cookie back?",
        Some(Stage::CookieBegin) => "cookie_begin: a flow begins, its target gets the SYN",
        Some(Stage::SequenceKnown) => "sequence_known: a known flow whose numbers are translated",
        Some(Stage::SequenceBack) => "sequence_back: an answer whose numbers are translated",
        Some(Stage::SequenceIcmp) => "sequence_icmp: an error that quotes numbers of ours",
        Some(Stage::Fault) => "fault: the daemon's log is told",
    }
}

/// The name of a stage.
fn stage(chapter: &Chapter) -> &'static str {
    let title = title(chapter);
    title.split_once(':').map_or(title, |(name, _)| name)
}
