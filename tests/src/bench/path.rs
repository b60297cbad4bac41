//! The rows of the packet path.

mod cookies;

use anyhow::{Result, ensure};
use nlb_common::{
    bench::Order,
    stop::{Stop, StopVerdict},
    target::Mode,
    wire::protocol::{TCP, UDP},
};

use super::{
    Effort,
    admission::Question,
    frames,
    harness::{ClientEnd, Harness, Stream, TRANSMIT},
    kind::{Kind, LISTENER_PORT, SETTLED_PORT},
    report::{Row, Title},
    short,
    subject::{Counts, Subject},
};
use crate::packet::Sentence;

/// The row that others are told as multiples of.
pub const ENCAPSULATION_FLOOR: &str = "floor: outer headers of constants";

/// Entries of the flow table.
pub const TABLE_ENTRIES: u32 = 4 << 20;

/// Flows that live through a flood.
const LIVE: u32 = 10_000;

/// `XDP_DROP` and `XDP_PASS`.
const DROP: u32 = 1;
const PASS: u32 = 2;

/// Packets from clients to a listener; of TCP those that open a connection, or those that go on.
fn to_listener(kind: Kind, opens: bool, flows: u32) -> Result<Stream> {
    to_port(kind, LISTENER_PORT, opens, flows)
}

fn to_port(kind: Kind, port: u16, opens: bool, flows: u32) -> Result<Stream> {
    let packet = frames::to_port(kind, port, opens)?;
    Ok(stream(&packet, kind.is_v6, ClientEnd::Source, flows))
}

/// Answers of the target.
fn to_clients(kind: Kind, flows: u32) -> Result<Stream> {
    let packet = frames::to_client(kind)?;
    Ok(stream(&packet, kind.is_v6, ClientEnd::Destination, flows))
}

fn stream(packet: &Sentence, is_v6: bool, client: ClientEnd, flows: u32) -> Stream {
    let order = if flows == 1 {
        Order::Fixed
    } else {
        Order::Random
    };
    Stream {
        frame: packet.build(),
        is_v6,
        client,
        order,
        flows,
    }
}

/// What every packet of a row must turn out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// Sent to a target, by a remembered flow.
    Known,
    /// Sent to a client.
    Return,
    /// Sent to a target, as a new flow.
    New,
    /// Sent to a target, by the ring.
    Unpinned,
    /// Counted as stopped.
    Stopped(Stop),
    /// Passed, and counted nowhere.
    NotOurs,
}

/// How many of the packets between two readings were what they should be.
fn as_expected(before: &Counts, after: &Counts, expected: Expected, packets: u32) -> u64 {
    let (old, new) = (&before.traffic, &after.traffic);
    let sent = new.packets - old.packets;
    let begun = new.new_flows - old.new_flows;
    let unpinned = new.unpinned_packets - old.unpinned_packets;
    match expected {
        Expected::Known => sent - begun - unpinned,
        Expected::Return => new.return_packets - old.return_packets,
        Expected::New => begun,
        Expected::Unpinned => unpinned,
        Expected::Stopped(stop) => after.stops[stop as usize] - before.stops[stop as usize],
        Expected::NotOurs if before == after => packets.into(),
        Expected::NotOurs => 0,
    }
}

const fn verdict(expected: Expected) -> u32 {
    match expected {
        Expected::NotOurs => PASS,
        Expected::Stopped(stop) => match stop.verdict() {
            StopVerdict::Pass => PASS,
            StopVerdict::Drop => DROP,
            StopVerdict::Answer => TRANSMIT,
        },
        _ => TRANSMIT,
    }
}

/// Of a million packets, how many may take another path: flows whose two buckets were full when
/// they began are live in no entry, and there are a few of them in a table that is a quarter full.
const STRAYS_PER_MILLION: u64 = 1_000;

struct Bench<'b> {
    harness: &'b mut Harness,
    subject: &'b Subject,
    effort: Effort,
    rows: Vec<Row>,
    /// Where the next row's clients begin, where every packet must be a new one.
    next: u64,
}

impl Bench<'_> {
    fn row(
        &mut self,
        title: impl Into<Title>,
        stream: &Stream,
        expected: Expected,
        goal_ns: Option<f64>,
    ) -> Result<()> {
        self.row_between(title, stream, expected, goal_ns, |_| Ok(()))
    }

    /// A row whose rounds are each followed by something else.
    fn row_between(
        &mut self,
        title: impl Into<Title>,
        stream: &Stream,
        expected: Expected,
        goal_ns: Option<f64>,
        mut between: impl FnMut(&mut Harness) -> Result<()>,
    ) -> Result<()> {
        let name = title.into();
        let program = self.subject.program()?;
        let mut before = self.subject.counts()?;
        let (mut strays, mut total) = (0, 0);
        let subject = self.subject;
        let check = |harness: &mut Harness, said: u32, packets: u32| {
            let after = subject.counts()?;
            let right = as_expected(&before, &after, expected, packets);
            let missing = u64::from(packets) - right;
            let allowed = if stream.flows < 100_000 {
                0
            } else {
                STRAYS_PER_MILLION * u64::from(packets) / 1_000_000
            };
            ensure!(
                missing <= allowed,
                "`{name}`: {missing} of {packets} packets were not {expected:?}: \
                 before {before:?}, after {after:?}"
            );
            // With strays among the packets, the last one says nothing about the others.
            ensure!(
                missing > 0 || said == verdict(expected),
                "`{name}`: the program said {said}"
            );
            strays += missing;
            total += u64::from(packets);
            between(harness)?;
            before = subject.counts()?;
            Ok(())
        };
        let cost = self
            .harness
            .measure(&program, stream, self.next, self.effort, check)?;
        if stream.order == Order::Sequential {
            self.next += total;
        }
        self.rows.push(Row::new(name, cost, goal_ns, strays, total));
        Ok(())
    }

    /// The kinds whose flows are measured.
    fn kinds(&self) -> impl Iterator<Item = Kind> + use<> {
        let all_udp = self.effort.all_udp;
        Kind::all().filter(move |kind| all_udp || kind.protocol == TCP || kind.mode == Mode::NAT)
    }

    /// Begins this many flows and lets them be established.
    fn preload(&mut self, kind: Kind, flows: u32) -> Result<()> {
        self.subject.forget_flows();
        let opening = to_listener(kind, true, flows)?.sequential();
        let program = self.subject.program()?;
        self.harness.run(&program, &opening, 0, flows.max(2) - 1)?;
        let count = self.subject.establish()?;
        ensure!(
            u64::from(count) * 1_000_000 >= u64::from(flows) * (1_000_000 - STRAYS_PER_MILLION),
            "only {count} of {flows} flows found a place"
        );
        Ok(())
    }

    fn hits(&mut self) -> Result<()> {
        for kind in self.kinds() {
            for flows in self.effort.flows.iter().copied() {
                // There are 258,048 ports in the pool.
                if kind.mode == Mode::FULL_NAT && flows > 100_000 {
                    continue;
                }
                self.preload(kind, flows)?;
                let goal = goal_of_hit(kind, flows);
                let onward = to_listener(kind, false, flows)?;
                self.row(named(kind, "hit", flows), &onward, Expected::Known, goal)?;
                if kind.mode == Mode::NAT {
                    let back = to_clients(kind, flows)?;
                    self.row(named(kind, "return", flows), &back, Expected::Return, goal)?;
                }
            }
        }
        Ok(())
    }

    /// Established flows while others come by the million: each round of theirs is followed by its
    /// share of a flood of SYNs, each from another client. Not one of them may be lost.
    fn flood(&mut self) -> Result<()> {
        for kind in Kind::all().filter(|kind| kind.begins_with_us()) {
            self.preload(kind, LIVE)?;
            self.flooded(kind, LISTENER_PORT, "")?;
        }
        Ok(())
    }

    /// One row of it: the flood comes to this port.
    fn flooded(&mut self, kind: Kind, port: u16, how: &str) -> Result<()> {
        let onward = to_listener(kind, false, LIVE)?;
        let opening = to_port(kind, port, true, 1)?.sequential();
        let rounds = u32::try_from(self.effort.rounds)?;
        let (share, mut next) = (self.effort.flood / rounds + 1, self.next);
        let program = self.subject.program()?;
        let met = |counts: &Counts| {
            let stops = [Stop::FlowTableFull, Stop::SynCookie];
            let stops = stops.map(|stop| counts.stops[stop as usize]);
            counts.traffic.new_flows + stops.iter().sum::<u64>()
        };
        let before = met(&self.subject.counts()?);
        let flood = |harness: &mut Harness| {
            next += u64::from(share);
            harness.run(&program, &opening, next, share - 1)?;
            Ok(())
        };
        let what = format!("hit under {} syns{how}", short(self.effort.flood));
        let name = named(kind, &what, LIVE);
        self.row_between(name, &onward, Expected::Known, None, flood)?;
        self.next = next + u64::from(share);
        let syns = met(&self.subject.counts()?) - before;
        ensure!(
            syns == u64::from(share * rounds),
            "of {} SYNs {syns} were what a flood's are",
            share * rounds
        );
        Ok(())
    }

    /// Listeners that pin flows on change, on rings that have settled.
    fn settled(&mut self) -> Result<()> {
        for kind in self.kinds().filter(|kind| kind.may_settle()) {
            self.subject.forget_flows();
            for flows in self.effort.flows.iter().copied().chain([10_000_000]) {
                let stream = to_port(kind, SETTLED_PORT, false, flows)?;
                let name = named(kind, "by the ring", flows);
                self.row(name, &stream, Expected::Known, Some(18.0))?;
            }
            let stream = to_port(kind, SETTLED_PORT, true, 1)?.sequential();
            if kind.protocol == TCP {
                let name = named(kind, "new by the ring", 0);
                self.row(name, &stream, Expected::New, Some(18.0))?;
            }
        }
        Ok(())
    }

    fn new_flows(&mut self) -> Result<()> {
        for kind in self.kinds().filter(|kind| kind.mode != Mode::FULL_NAT) {
            self.subject.forget_flows();
            let stream = to_listener(kind, true, 1)?.sequential();
            // Once over, so that a new flow takes the place of an older one.
            let program = self.subject.program()?;
            let mut left = TABLE_ENTRIES;
            while left > 0 {
                let some = left.min(1 << 20);
                self.harness.run(&program, &stream, self.next, some)?;
                self.next += u64::from(some) + 1;
                left -= some;
            }
            self.row(named(kind, "new", 0), &stream, Expected::New, Some(150.0))?;
            if Question::kinds().any(|other| other == kind) {
                self.asked(kind)?;
            }
        }
        for kind in Kind::all().filter(|kind| kind.protocol == TCP && kind.mode != Mode::FULL_NAT) {
            self.subject.fill_up(kind)?;
            let stream = to_listener(kind, true, 1)?.sequential();
            let expected = if kind.mode == Mode::NAT {
                Expected::Stopped(Stop::FlowTableFull)
            } else {
                Expected::Unpinned
            };
            let name = named(kind, "table full", 0);
            self.row(name, &stream, expected, Some(40.0))?;
        }
        Ok(())
    }

    /// New flows of listeners that ask about them, in the table as it is.
    fn asked(&mut self, kind: Kind) -> Result<()> {
        for question in Question::ALL {
            let stream = to_port(kind, question.port(), true, 1)?.sequential();
            let expected = if question == Question::Refusal {
                Expected::Stopped(Stop::BlockedTcp)
            } else {
                Expected::New
            };
            self.row(named(kind, question.name(), 0), &stream, expected, None)?;
        }
        Ok(())
    }

    fn others(&mut self) -> Result<()> {
        self.subject.forget_flows();
        for is_v6 in [false, true] {
            let version = if is_v6 { "v6" } else { "v4" };
            let packet = frames::to_nobody(is_v6)?;
            for flows in [1, 1_000_000] {
                let stream = stream(&packet, is_v6, ClientEnd::Source, flows);
                let name = format!("not ours, {version} tcp, {} addresses", short(flows));
                self.row(name, &stream, Expected::NotOurs, Some(3.0))?;
            }
        }
        let arp = stream(&frames::arp(), false, ClientEnd::Source, 1);
        self.row(
            "not ours, arp".to_owned(),
            &arp,
            Expected::NotOurs,
            Some(3.0),
        )?;
        for kind in Kind::all().filter(|kind| kind.mode == Mode::NAT && kind.protocol == UDP) {
            self.preload(kind, 1)?;
            // In this order: the first one leaves the record that the later one follows.
            let names = ["first fragment", "later fragment"];
            for (name, fragment) in names.into_iter().zip(frames::fragments(kind)?) {
                let stream = stream(&fragment, kind.is_v6, ClientEnd::Source, 1);
                let name = format!("{name}, {}", kind.version());
                self.row(name, &stream, Expected::Known, None)?;
            }
        }
        Ok(())
    }

    /// Pings, and errors about what a target of a remembered flow has sent.
    fn icmp(&mut self) -> Result<()> {
        for kind in Kind::all().filter(|kind| kind.mode == Mode::NAT && kind.protocol == TCP) {
            let ping = frames::echo(kind)?;
            let stream = stream(&ping, kind.is_v6, ClientEnd::Source, 1);
            let name = format!("echo answered, {}", kind.version());
            self.row(name, &stream, Expected::Stopped(Stop::IcmpEcho), None)?;
        }
        for kind in Kind::all().filter(|kind| kind.protocol == TCP) {
            // The trampoline restores no more of an IPv6 frame than what dsr-l2 changes.
            if kind.is_v6 && kind.mode.is_translated() {
                continue;
            }
            self.preload(kind, 1)?;
            let error = frames::error_about(kind)?;
            let stream = stream(&error, kind.is_v6, ClientEnd::Source, 1);
            let name = named(kind, "icmp error", 0);
            self.row(name, &stream, Expected::Known, Some(50.0))?;
        }
        Ok(())
    }

    fn floors(&mut self) -> Result<()> {
        let kind = Kind {
            mode: Mode::NAT,
            is_v6: false,
            protocol: TCP,
        };
        let stream = to_listener(kind, false, 1)?;
        for (program, name) in [
            ("transmit", "floor: return only"),
            ("swap_macs", "floor: swap MACs"),
            ("encapsulate", ENCAPSULATION_FLOOR),
        ] {
            let program = self.harness.program(program)?;
            let cost = self
                .harness
                .measure(&program, &stream, 0, self.effort, |_, said, _| {
                    ensure!(said == TRANSMIT, "`{name}`: the program said {said}");
                    Ok(())
                })?;
            self.rows.push(Row::new(name.to_owned(), cost, None, 0, 0));
        }
        Ok(())
    }
}

fn named(kind: Kind, what: &str, flows: u32) -> Title {
    Title {
        what: kind.title(what),
        flows,
    }
}

/// What we want to reach, where that was written down.
fn goal_of_hit(kind: Kind, flows: u32) -> Option<f64> {
    match (kind.is_v6, flows) {
        (_, 1) if kind.mode == Mode::NAT => Some(16.0),
        (_, 1) if kind.mode == Mode::FULL_NAT => Some(25.0),
        _ if kind.mode == Mode::FULL_NAT => None,
        (false, 1) => Some(12.0),
        (true, 1) => Some(14.0),
        (false, 10_000) => Some(28.0),
        (false, 100_000) => Some(50.0),
        (true, 100_000) => Some(60.0),
        (false, 1_000_000) => Some(130.0),
        _ => None,
    }
}

/// Measures every row.
pub fn measure(harness: &mut Harness, effort: Effort) -> Result<Vec<Row>> {
    let subject = Subject::load(TABLE_ENTRIES)?;
    let mut bench = Bench {
        harness,
        subject: &subject,
        effort,
        rows: Vec::new(),
        next: 1 << 24,
    };
    bench.floors()?;
    bench.others()?;
    bench.icmp()?;
    bench.hits()?;
    bench.flood()?;
    bench.cookies()?;
    bench.settled()?;
    bench.new_flows()?;
    Ok(bench.rows)
}
