//! What `nlb explain --pcap` would say of each frame of a row, held against what the loaded program does
//! with it: the frame goes through a capture file, and the tables are the program's own maps, read from
//! outside as the command reads them.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use nlb_common::stop::Stop;
use nlb_ebpf::memory::MemoryFrame;
use nlb_tests::{
    kernel::{Answer, Kernel},
    packet::facts,
};
use nlb_userspace::{
    dataplane::{routes::Routes, running::Running, snapshot::Snapshot},
    explain::{explain, fact::Fact, frames},
};

/// The loaded program, looked at from outside.
pub(crate) struct Explainer {
    running: Running,
    routes: Routes,
    file: PathBuf,
}

/// What was said about a frame.
pub(crate) struct Said {
    verdict: Answer,
    out: Vec<u8>,
    stops: Vec<Stop>,
    /// Whether it was about a SYN cookie, which only the kernel can make and tell.
    is_of_cookies: bool,
}

impl Explainer {
    pub(crate) fn of(kernel: &Kernel) -> Result<Self> {
        let name = format!("nlb-explained-{}.pcap", std::process::id());
        Ok(Self {
            running: Running::of_program(kernel.program_id()?)?,
            routes: Routes::load()?,
            file: std::env::temp_dir().join(name),
        })
    }

    /// Explains a frame that comes in through this interface.
    pub(crate) fn say(&self, bytes: &[u8], interface: u32) -> Result<Said> {
        fs::write(&self.file, capture(bytes))?;
        let read = frames::read(&self.file)?;
        let captured = read.into_iter().next().context("the file holds a frame")?;
        let snapshot = Snapshot::of(&self.running, &self.routes)?;
        let said = explain(MemoryFrame::new(captured.bytes, interface), &snapshot);
        drop(snapshot.end()?);
        let of_cookies = |fact: &Fact| matches!(fact, Fact::CookieMade | Fact::CookieBelieved);
        let is_of_cookies = said.facts().any(of_cookies);
        Ok(Said {
            is_of_cookies,
            verdict: said.verdict.into(),
            out: said.after,
            stops: said.stops,
        })
    }
}

impl Drop for Explainer {
    fn drop(&mut self) {
        // In a folder for what is forgotten anyway.
        drop(fs::remove_file(&self.file));
    }
}

impl Said {
    /// What differs from what the program did and counted, if anything does.
    pub(crate) fn difference(
        &self,
        answer: Answer,
        out: &[u8],
        counted: impl Fn(Stop) -> u64,
    ) -> Option<String> {
        if self.is_of_cookies {
            return None;
        }
        if self.verdict != answer {
            return Some(format!("explained {:?}, done {answer:?}", self.verdict));
        }
        if let Some(difference) = facts::difference(out, &self.out) {
            return Some(difference);
        }
        // Whether there is room to keep a fragment, only the packet program knows.
        let told = |stop: Stop| u64::from(self.stops.contains(&stop));
        let other = Stop::ALL.iter().filter(|stop| **stop != Stop::EarlyLimit);
        let wrong = other.copied().find(|stop| told(*stop) != counted(*stop));
        wrong.map(|stop| {
            format!(
                "explained {:?}; {} was counted otherwise",
                self.stops,
                stop.name()
            )
        })
    }
}

/// A pcap file with one frame of Ethernet, as tcpdump writes it.
fn capture(frame: &[u8]) -> Vec<u8> {
    let length = u32::try_from(frame.len()).expect("a frame");
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut file: Vec<u8> = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1]);
    let record: Vec<u8> = words(&[0, 0, length, length]);
    file.extend(record);
    file.extend(frame);
    file
}
