//! `nlb explain`: what would become of a packet now, step by step, and why.
//!
//! The packet is judged by the text that judges packets ([`nlb_ebpf`]), over tables that write down what
//! they are asked and what they say: [`told`]. What is written down is [`fact`]s. [`frames`] makes the
//! packet, or reads it from a file; [`picture`] shows its bytes before and after; [`text`] tells it all,
//! with facts in [`sentence`]s.
//!
//! Nothing here knows where the tables come from: the command gives a snapshot of the maps that packets
//! use ([`crate::dataplane::snapshot`]), tests give tables in memory.

pub mod fact;
pub mod frames;
mod picture;
mod sentence;
mod text;
mod told;

use nlb_common::{stage::Stage, stop::Stop};
use nlb_ebpf::{Verdict, follow, front, memory::MemoryFrame, tables::Tables};
use serde::Serialize;

pub use self::text::Shown;
pub(crate) use self::text::stopped;
use self::{fact::Fact, told::Told};

/// What became of a packet, and how it came to that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The stages that the packet went through, with what each asked.
    pub chapters: Vec<Chapter>,
    /// What becomes of it.
    pub verdict: Verdict,
    /// Why it is stopped, if it is; more than one reason where one is beside another.
    pub stops: Vec<Stop>,
    /// The frame as it came in.
    pub before: Vec<u8>,
    /// The frame as it leaves, or goes to the host's stack, or would be dropped.
    pub after: Vec<u8>,
    /// The index of the interface that it came in through.
    pub interface: u32,
}

/// What one stage asked and was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Chapter {
    /// The stage; none is the front stage.
    #[serde(serialize_with = "program")]
    pub stage: Option<Stage>,
    /// In the order of asking; what an earlier stage was told already is left out.
    pub facts: Vec<Fact>,
}

#[expect(
    clippy::ref_option,
    clippy::trivially_copy_pass_by_ref,
    reason = "serde wants it so"
)]
fn program<S: serde::Serializer>(stage: &Option<Stage>, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(stage.map_or(Stage::FRONT_PROGRAM, Stage::program))
}

/// Judges a frame and tells how. The tables change as the packet would change them.
pub fn explain<T: Tables>(mut frame: MemoryFrame, tables: &T) -> Explanation {
    let before = frame.bytes.clone();
    let interface = frame.interface;
    let told = Told::about(&frame, tables);
    let verdict = follow(&mut frame, &told, front::front, |stage| told.enter(stage));
    let (chapters, stops) = told.end();
    Explanation {
        chapters,
        verdict,
        stops,
        before,
        after: frame.bytes,
        interface,
    }
}

impl Explanation {
    /// Whether nlb has nothing to do with the packet.
    pub fn is_not_ours(&self) -> bool {
        self.verdict == Verdict::Pass && self.stops.is_empty()
    }

    /// All facts, of all stages.
    pub fn facts(&self) -> impl Iterator<Item = &Fact> {
        self.chapters.iter().flat_map(|chapter| &chapter.facts)
    }
}
