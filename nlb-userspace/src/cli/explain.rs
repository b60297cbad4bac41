//! `nlb explain`: finds the packet and the program that it would meet, and shows what would become of it.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};
use nlb_common::{address::Address, wire::protocol};
use nlb_ebpf::{
    Verdict,
    memory::MemoryFrame,
    tables::{Route, RouteQuery},
};
use serde::Serialize;
use serde_json::json;

use super::{Failure, Pins, endpoint::Reach};
use crate::{
    dataplane::{
        rehearsal::Rehearsal,
        routes::Routes,
        running::Running,
        snapshot::{Questions, Snapshot},
    },
    explain::{
        Explanation, Shown, explain,
        frames::{self, Captured, Wanted},
    },
    interfaces::Interfaces,
    names::Names,
};

/// A protocol of listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Proto {
    /// TCP
    Tcp,
    /// UDP, and QUIC
    Udp,
}

impl Proto {
    /// Its number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => protocol::TCP,
            Self::Udp => protocol::UDP,
        }
    }
}

/// What is to be explained.
#[derive(Debug, Args)]
pub struct Explain {
    /// Where the packet comes from
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        requires = "to",
        required_unless_present = "pcap"
    )]
    from: Option<SocketAddr>,
    /// Where it goes; a VIP and its listener's port, as a rule
    #[arg(long, value_name = "ADDRESS:PORT", requires = "from")]
    to: Option<SocketAddr>,
    /// What it is a packet of
    #[arg(long, value_enum, default_value = "tcp")]
    proto: Proto,
    /// Explain a TCP segment that opens a connection, and not one within a connection
    #[arg(long)]
    syn: bool,
    /// The TCP segment's sequence number; where a listener's choice depends on it, another number may
    /// lead to another target
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    sequence: u32,
    /// How many bytes follow the TCP or UDP header
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    payload: u16,
    /// Explain the packets of a pcap or pcapng file instead
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to"])]
    pcap: Option<PathBuf>,
    /// The interface that packets come in through; without it, the one that the file names, or that
    /// the route to where they come from leaves by
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// The pins of the running program
    #[command(flatten)]
    pins: Pins,
    /// The daemon, asked for names; numbers and addresses are shown without one
    #[command(flatten)]
    reach: Reach,
    /// Have the kernel run the packet program on the packet, too, and say whether it decides the same
    ///
    /// A second instance of the program is loaded for that, over maps of its own with copies of what the
    /// packet asks for, so that nothing changes in those that packets use. It takes some seconds, and as
    /// much memory as the flow table.
    #[arg(long)]
    live: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Stands in a frame for a MAC address that nobody knows.
const SOME_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

impl Explain {
    /// Does it.
    pub async fn run(self) -> Result<String, Failure> {
        let interfaces = Interfaces::open()?;
        let wanted = self.wanted_interface(&interfaces)?;
        let running = Running::attached(&self.pins.bpffs, &self.pins.directory(), wanted)?;
        let generation = Running::generation(&self.pins.directory())?;
        let routes = Routes::load()?;
        let names = Names::ask(&self.reach.endpoint()?).await;
        let mut rehearsal = self.live.then(|| Rehearsal::of(&running)).transpose()?;
        let interface = |index| interfaces.name(index);
        let mut texts = Vec::new();
        let mut values = Vec::new();
        for (frame, note) in self.frames(&interfaces, &running, &routes, wanted)? {
            let (explanation, live) = judged(&running, &routes, rehearsal.as_mut(), &frame)?;
            let shown = Shown {
                explanation: &explanation,
                names: &names,
                interface: &interface,
            };
            if self.json {
                let mut value = shown.to_json();
                if let Some(live) = live {
                    value["live"] = json!(live);
                }
                values.push(value);
            } else {
                let live = live.map(|live| format!("\n{live}\n")).unwrap_or_default();
                texts.push(format!("{note}{}{live}", shown.to_text()));
            }
        }
        if self.json {
            let all = json!({ "generation": generation, "packets": values });
            return Ok(format!("{all:#}\n"));
        }
        let rule = format!("\n{}\n", "-".repeat(72));
        Ok(format!(
            "generation {generation} is live\n\n{}",
            texts.join(&rule)
        ))
    }

    fn wanted_interface(&self, interfaces: &Interfaces) -> Result<Option<u32>, Failure> {
        let Some(name) = &self.interface else {
            return Ok(None);
        };
        Ok(Some(interfaces.wanted(name)?))
    }

    /// The frames, each with a remark that comes before its explanation.
    fn frames(
        &self,
        interfaces: &Interfaces,
        running: &Running,
        routes: &Routes,
        wanted: Option<u32>,
    ) -> Result<Vec<(MemoryFrame, String)>, Failure> {
        let first = wanted.or(running.interfaces.first().copied()).unwrap_or(0);
        if let Some(path) = &self.pcap {
            let captured = frames::read(path)?;
            let count = captured.len();
            let frames = captured.into_iter().zip(1..);
            return Ok(frames
                .map(|(captured, number)| {
                    let named = captured.interface.as_deref();
                    let named = named.and_then(|name| interfaces.index(name));
                    let named = named.filter(|index| running.interfaces.contains(index));
                    let note = format!("packet {number} of {count}{}\n", cut(&captured));
                    let interface = wanted.or(named).unwrap_or(first);
                    (MemoryFrame::new(captured.bytes, interface), note)
                })
                .collect());
        }
        let (Some(from), Some(to)) = (self.from, self.to) else {
            return Err("--from and --to, or --pcap, say which packet".into());
        };
        let packet = Wanted {
            from,
            to,
            protocol: self.proto.number(),
            is_syn: self.syn,
            sequence: self.sequence,
            payload_bytes: self.payload,
        };
        let route = way_back(routes, &packet, first)?;
        let (interface, source, destination) = match route {
            Some(route) => {
                let macs = route.next_hop.macs;
                let leaves_by = route.next_hop.interface;
                let is_attached = running.interfaces.contains(&leaves_by);
                let interface = wanted.or(is_attached.then_some(leaves_by));
                (
                    interface.unwrap_or(first),
                    macs.destination().0,
                    macs.source().0,
                )
            }
            None => (first, SOME_MAC, SOME_MAC),
        };
        let bytes = frames::make(&packet, source, destination)?;
        Ok(vec![(MemoryFrame::new(bytes, interface), String::new())])
    }
}

/// The kernel's way to where the packet comes from: through there it comes in, as a rule.
fn way_back(routes: &Routes, packet: &Wanted, interface: u32) -> Result<Option<Route>, Failure> {
    let query = RouteQuery {
        destination: Address::from(packet.from.ip()),
        source: Address::from(packet.to.ip()),
        interface,
        traffic_class: 0,
        protocol: packet.protocol,
    };
    Ok(routes.ask(&query, |_| None)?.ok())
}

/// What would become of a frame, and, if that is asked, whether the kernel agrees.
fn judged(
    running: &Running,
    routes: &Routes,
    rehearsal: Option<&mut Rehearsal>,
    frame: &MemoryFrame,
) -> Result<(Explanation, Option<Live>), Failure> {
    let (explanation, questions) = judge(running, routes, frame.clone())?;
    let Some(rehearsal) = rehearsal else {
        return Ok((explanation, None));
    };
    let tried = rehearsal.run(running, &questions, &frame.bytes, frame.interface)?;
    let live = Live {
        is_same_program: rehearsal.is_same_program,
        is_same_verdict: tried.action == action(explanation.verdict),
        is_same_frame: tried.frame == explanation.after,
    };
    Ok((explanation, Some(live)))
}

/// What a verdict is to the kernel: `enum xdp_action` of `linux/bpf.h`.
const fn action(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Drop => 1,
        Verdict::Pass => 2,
        Verdict::Transmit => 3,
        Verdict::Redirect(_) => 4,
    }
}

/// What the kernel's run of the program came to.
#[derive(Clone, Copy, Debug, Serialize)]
struct Live {
    /// Whether the instance that was run has the instructions of the one that packets meet.
    is_same_program: bool,
    /// Whether the verdict is the explained one.
    is_same_verdict: bool,
    /// Whether every byte of the frame is.
    is_same_frame: bool,
}

impl std::fmt::Display for Live {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let program = if self.is_same_program {
            "the program that is loaded"
        } else {
            "the program of this nlb, which is another build than the one that is loaded,"
        };
        match (self.is_same_verdict, self.is_same_frame) {
            (true, true) => write!(
                out,
                "live: {program} comes to the same verdict and the same bytes, run by the kernel over \
                 copies of these records"
            ),
            (true, false) => write!(
                out,
                "live: {program} comes to the same verdict, but other bytes"
            ),
            (false, _) => write!(
                out,
                "live: {program} comes to another verdict; did a record change in between? ask again"
            ),
        }
    }
}

/// What would become of a frame now, and what was asked for to say so.
fn judge(
    running: &Running,
    routes: &Routes,
    frame: MemoryFrame,
) -> Result<(Explanation, Questions), Failure> {
    let snapshot = Snapshot::of(running, routes)?;
    let explanation = explain(frame, &snapshot);
    let questions = snapshot.end()?;
    Ok((explanation, questions))
}

/// Says it if the file does not hold the whole frame.
fn cut(captured: &Captured) -> String {
    let there = captured.bytes.len();
    if there < usize::try_from(captured.wire_bytes).unwrap_or(usize::MAX) {
        format!(
            " (the file holds {there} of its {} bytes, and it is judged as if that were all)",
            captured.wire_bytes
        )
    } else {
        String::new()
    }
}
