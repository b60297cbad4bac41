//! A row of the packet table: a claim and the steps that show it, run through the memory body and,
//! where there is one, through the loaded kernel program, with the same expectations.

use std::{collections::BTreeMap, fmt::Write as _, process::Command};

use anyhow::{Context as _, Result};
use nlb_common::{
    counter::Traffic,
    early::EarlyFragment,
    flow::Choice,
    fragment::FragmentKey,
    listener::ListenerId,
    next_hop::MacPair,
    stop::{Stop, StopVerdict},
    target::TargetId,
    tick::Tick,
};
use nlb_ebpf::{
    Verdict, handle,
    memory::{MemoryFrame, MemoryTables, occupied},
    tables::PassageKind,
};
use nlb_tests::{
    kernel::{Answer, Kernel, SHORTEST_FRAME_BYTES, set_forwarding},
    packet::{Sentence, facts},
    world::{self, ETH0, ETH1, MAC0, MAC1, neighbour_of},
};

use crate::explained::Explainer;

/// What is counted; what is not named was not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    stops: BTreeMap<&'static str, u64>,
    listeners: BTreeMap<u16, Traffic>,
    targets: BTreeMap<u32, Traffic>,
}

enum Step {
    Frame {
        bytes: Vec<u8>,
        verdict: Verdict,
        out: Vec<u8>,
        counts: Counts,
    },
    /// A frame that passes, and of which a copy is kept.
    Copied(Vec<u8>),
    Cookie {
        make: Box<dyn Fn(Row, u32) -> Row>,
        is_made: bool,
    },
    NoRoom(Vec<u8>),
    Change(Box<dyn Fn(&mut MemoryTables)>),
    Silence(u16),
    Remembered(usize),
    Forwarding(bool),
    Mac(&'static str, u8),
}

/// A claim and the steps that show it.
pub(crate) struct Row {
    pub(crate) claim: &'static str,
    steps: Vec<Step>,
}

/// Begins a row.
pub(crate) fn row(claim: &'static str) -> Row {
    Row {
        claim,
        steps: Vec::new(),
    }
}

fn traffic(kind: PassageKind, bytes: u64) -> Traffic {
    match kind {
        PassageKind::Return => Traffic {
            return_packets: 1,
            return_bytes: bytes,
            ..Traffic::default()
        },
        kind => Traffic {
            packets: 1,
            bytes,
            new_flows: u64::from(kind == PassageKind::New),
            unpinned_packets: u64::from(kind == PassageKind::Unpinned),
            ..Traffic::default()
        },
    }
}

impl Row {
    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// The frame goes to the host's stack, untouched and uncounted.
    pub(crate) fn passes(self, frame: &Sentence) -> Self {
        self.passes_bytes(frame.build())
    }

    /// The same for bytes that are no sentence.
    pub(crate) fn passes_bytes(self, bytes: Vec<u8>) -> Self {
        self.step(Step::Frame {
            out: bytes.clone(),
            bytes,
            verdict: Verdict::Pass,
            counts: Counts::default(),
        })
    }

    /// The same, and a copy of the frame is to be kept.
    pub(crate) fn passes_and_is_copied(self, bytes: Vec<u8>) -> Self {
        self.step(Step::Copied(bytes))
    }

    /// The frame is stopped, untouched.
    pub(crate) fn stops(self, frame: &Sentence, stop: Stop) -> Self {
        self.stops_bytes(frame.build(), stop)
    }

    /// The same for bytes that are no sentence.
    pub(crate) fn stops_bytes(self, bytes: Vec<u8>, stop: Stop) -> Self {
        self.step(Step::Frame {
            out: bytes.clone(),
            bytes,
            verdict: match stop.verdict() {
                StopVerdict::Pass => Verdict::Pass,
                StopVerdict::Drop => Verdict::Drop,
                StopVerdict::Answer => panic!("{stop:?} changes the frame: `answers` says how"),
            },
            counts: Counts {
                stops: BTreeMap::from([(stop.name(), 1)]),
                ..Counts::default()
            },
        })
    }

    /// The frame is sent on as `out`, and counted for this listener and this target.
    pub(crate) fn sends(
        self,
        frame: &Sentence,
        out: &Sentence,
        (listener, target): (u16, u32),
        kind: PassageKind,
    ) -> Self {
        self.sends_bytes(frame.build(), out.build(), (listener, target), kind)
    }

    /// The same for bytes that are no sentence.
    pub(crate) fn sends_bytes(
        self,
        bytes: Vec<u8>,
        out: Vec<u8>,
        (listener, target): (u16, u32),
        kind: PassageKind,
    ) -> Self {
        let leaves = if out[6..12] == MAC0 { ETH0 } else { ETH1 };
        let verdict = if leaves == interface(&bytes) {
            Verdict::Transmit
        } else {
            Verdict::Redirect(leaves)
        };
        // The sender's packet is counted, whatever is put around it.
        let length = facts::length_bytes(&bytes).expect("an IP packet");
        let traffic = traffic(kind, u64::try_from(length).expect("a length"));
        self.step(Step::Frame {
            bytes,
            verdict,
            out,
            counts: Counts {
                listeners: BTreeMap::from([(listener, traffic)]),
                targets: BTreeMap::from([(target, traffic)]),
                ..Counts::default()
            },
        })
    }

    /// The frame is stopped, and `answer` goes back to its sender; counted as `stop` alone.
    pub(crate) fn answers(self, frame: &Sentence, answer: &Sentence, stop: Stop) -> Self {
        self.answers_bytes(frame.build(), answer.build(), stop)
    }

    /// The same for bytes that are no sentence.
    pub(crate) fn answers_bytes(self, bytes: Vec<u8>, out: Vec<u8>, stop: Stop) -> Self {
        self.step(Step::Frame {
            bytes,
            verdict: Verdict::Transmit,
            out,
            counts: Counts {
                stops: BTreeMap::from([(stop.name(), 1)]),
                ..Counts::default()
            },
        })
    }

    /// A SYN is answered with a cookie: a step that is told the number, which each body makes for
    /// itself.
    pub(crate) fn makes_cookie(self, make: impl Fn(Self, u32) -> Self + 'static) -> Self {
        self.step(Step::Cookie {
            make: Box::new(make),
            is_made: true,
        })
    }

    /// A step with the number of the cookie that was made last.
    pub(crate) fn with_cookie(self, make: impl Fn(Self, u32) -> Self + 'static) -> Self {
        self.step(Step::Cookie {
            make: Box::new(make),
            is_made: false,
        })
    }

    /// The frame is stopped for two reasons: one of its own, one for which nobody is told.
    pub(crate) fn stops_twice(self, frame: &Sentence, stops: [Stop; 2]) -> Self {
        self.stops_twice_bytes(frame.build(), stops)
    }

    /// The same for bytes that are no sentence.
    pub(crate) fn stops_twice_bytes(mut self, bytes: Vec<u8>, stops: [Stop; 2]) -> Self {
        self = self.stops_bytes(bytes, stops[0]);
        if let Some(Step::Frame { counts, .. }) = self.steps.last_mut() {
            counts.stops.insert(stops[1].name(), 1);
        }
        self
    }

    /// The frame is stopped, untouched, because the driver leaves too little in front of it. In
    /// memory only: no driver here does.
    pub(crate) fn has_no_room(self, frame: &Sentence) -> Self {
        self.step(Step::NoRoom(frame.build()))
    }

    /// Changes the tables.
    pub(crate) fn change(self, change: impl Fn(&mut MemoryTables) + 'static) -> Self {
        self.step(Step::Change(Box::new(change)))
    }

    /// Changes the tables before all else.
    pub(crate) fn first(mut self, change: impl Fn(&mut MemoryTables) + 'static) -> Self {
        self.steps.insert(0, Step::Change(Box::new(change)));
        self
    }

    /// Gives a target group another ring.
    pub(crate) fn ring(self, group: u16, targets: &'static [u32]) -> Self {
        self.change(move |tables| tables.set_ring(group, &world::ring(targets)))
    }

    /// Nothing happens for so many ticks.
    pub(crate) fn silence(self, ticks: u16) -> Self {
        self.step(Step::Silence(ticks))
    }

    /// So many flows are remembered now.
    pub(crate) fn remembers(self, flows: usize) -> Self {
        self.step(Step::Remembered(flows))
    }

    /// IP forwarding is switched off.
    pub(crate) fn forwarding_off(self) -> Self {
        self.step(Step::Forwarding(false))
    }

    /// The kernel learns that a neighbour has another MAC address; nobody tells the daemon.
    pub(crate) fn mac(self, neighbour: &'static str, last_byte: u8) -> Self {
        self.step(Step::Mac(neighbour, last_byte))
    }
}

/// The interface that a frame came in through: the one whose MAC address it is sent to.
fn interface(frame: &[u8]) -> u32 {
    if frame.starts_with(&MAC1) { ETH1 } else { ETH0 }
}

fn counts(
    stops: &[u64; Stop::COUNT],
    listener: impl FnMut(u16) -> Result<Traffic>,
    target: impl FnMut(u32) -> Result<Traffic>,
) -> Result<Counts> {
    fn gather<I: Copy + Ord>(
        ids: impl Iterator<Item = I>,
        mut get: impl FnMut(I) -> Result<Traffic>,
    ) -> Result<BTreeMap<I, Traffic>> {
        ids.map(|id| Ok((id, get(id)?))).collect()
    }
    Ok(Counts {
        stops: Stop::ALL
            .iter()
            .zip(stops)
            .map(|(stop, count)| (stop.name(), *count))
            .collect(),
        listeners: gather(1..128, listener)?,
        targets: gather(1..128, target)?,
    })
}

impl Counts {
    fn of_memory(tables: &MemoryTables) -> Result<Self> {
        let (listeners, targets) = (
            tables.listener_counters.borrow(),
            tables.target_counters.borrow(),
        );
        counts(
            &tables.stop_counters.borrow(),
            |id| Ok(listeners.get(&ListenerId(id)).copied().unwrap_or_default()),
            |id| Ok(targets.get(&TargetId(id)).copied().unwrap_or_default()),
        )
    }

    fn of_kernel(kernel: &mut Kernel) -> Result<Self> {
        let stops = kernel.stops()?;
        let listeners: Vec<Traffic> = (0..128)
            .map(|id| kernel.listener(id))
            .collect::<Result<_>>()?;
        let targets: Vec<Traffic> = (0..128)
            .map(|id| kernel.target(id))
            .collect::<Result<_>>()?;
        counts(
            &stops,
            |id| Ok(listeners[usize::from(id)]),
            |id| Ok(targets[usize::try_from(id)?]),
        )
    }

    /// What was counted since `before`.
    fn since(self, before: &Self) -> Self {
        fn less(after: Traffic, before: &Traffic) -> Traffic {
            Traffic {
                packets: after.packets - before.packets,
                bytes: after.bytes - before.bytes,
                return_packets: after.return_packets - before.return_packets,
                return_bytes: after.return_bytes - before.return_bytes,
                new_flows: after.new_flows - before.new_flows,
                unpinned_packets: after.unpinned_packets - before.unpinned_packets,
                ..Traffic::default()
            }
        }
        let traffic = |traffic: &Traffic| *traffic != Traffic::default();
        Self {
            stops: self
                .stops
                .into_iter()
                .map(|(name, count)| (name, count - before.stops[name]))
                .filter(|(_, count)| *count > 0)
                .collect(),
            listeners: self
                .listeners
                .into_iter()
                .map(|(id, after)| (id, less(after, &before.listeners[&id])))
                .filter(|(_, left)| traffic(left))
                .collect(),
            targets: self
                .targets
                .into_iter()
                .map(|(id, after)| (id, less(after, &before.targets[&id])))
                .filter(|(_, left)| traffic(left))
                .collect(),
        }
    }
}

/// What is wrong about an outcome, if anything.
fn judge(
    expected: (Answer, &[u8], &Counts),
    (answer, out, counts): (Answer, &[u8], &Counts),
) -> Option<String> {
    let mut wrong = String::new();
    if answer != expected.0 {
        let _ = writeln!(wrong, "  expected {:?}, found {answer:?}", expected.0);
    }
    if let Some(difference) = facts::difference(expected.1, out) {
        let _ = writeln!(wrong, "  {difference}");
    }
    if counts != expected.2 {
        let _ = writeln!(wrong, "  expected {:?}\n  counted  {counts:?}", expected.2);
    }
    (!wrong.is_empty()).then_some(wrong)
}

/// Runs a row; what went wrong, step by step.
pub(crate) fn run(
    row: &Row,
    kernel: Option<&mut Kernel>,
    explainer: Option<&Explainer>,
) -> Result<Vec<String>> {
    let mut run = Run {
        tables: world::tables(),
        kernel,
        explainer,
        faults: Vec::new(),
        is_forwarding_off: false,
        changed_macs: Vec::new(),
        cookies: (0, 0),
    };
    run.write()?;
    for (number, step) in row.steps.iter().enumerate() {
        run.step(number + 1, step)
            .with_context(|| format!("step {}", number + 1))?;
    }
    if let Some(kernel) = &mut run.kernel {
        if let Some(difference) = kernel.flow_difference(&mut run.tables)? {
            run.faults.push(format!("flow tables differ: {difference}"));
        }
        if run.is_forwarding_off {
            set_forwarding(true)?;
        }
        for neighbour in run.changed_macs {
            set_mac(neighbour, neighbour_of(neighbour).mac)?;
        }
    }
    Ok(run.faults)
}

struct Run<'k> {
    tables: MemoryTables,
    kernel: Option<&'k mut Kernel>,
    explainer: Option<&'k Explainer>,
    faults: Vec<String>,
    is_forwarding_off: bool,
    changed_macs: Vec<&'static str>,
    /// The cookie that was made last: in memory, and by the kernel.
    cookies: (u32, u32),
}

/// The sequence number of a TCP segment behind plain headers.
fn sequence(frame: &[u8]) -> u32 {
    let at = if frame[14] >> 4 == 4 { 38 } else { 58 };
    u32::from_be_bytes(frame[at..at + 4].try_into().expect("four bytes"))
}

/// What became of a frame.
type Outcome = (Answer, Vec<u8>, Counts);

impl Run<'_> {
    fn write(&mut self) -> Result<()> {
        if let Some(kernel) = &mut self.kernel {
            self.tables.now.set(Kernel::NOW.0);
            kernel.write(&mut self.tables)?;
            kernel.write_flows(&mut self.tables)?;
        }
        Ok(())
    }

    fn step(&mut self, number: usize, step: &Step) -> Result<()> {
        match step {
            Step::Frame {
                bytes,
                verdict,
                out,
                counts,
            } => {
                let is_early = counts.stops.contains_key(Stop::NoFirstFragment.name());
                return self.frame(number, bytes, (*verdict, out), counts, is_early);
            }
            Step::Copied(bytes) => {
                let passes = (Verdict::Pass, &bytes[..]);
                return self.frame(number, bytes, passes, &Counts::default(), true);
            }
            Step::Cookie { make, is_made } => return self.cookie(number, make, *is_made),
            Step::NoRoom(bytes) => {
                let mut frame = MemoryFrame::new(bytes.clone(), interface(bytes));
                frame.headroom_bytes = 19;
                let untouched = frame.clone();
                let before = Counts::of_memory(&self.tables)?;
                let verdict = handle(&mut frame, &self.tables);
                let counted = Counts::of_memory(&self.tables)?.since(&before);
                let stops = BTreeMap::from([(Stop::NoRoom.name(), 1)]);
                let expected = Counts {
                    stops,
                    ..Counts::default()
                };
                if verdict != Verdict::Drop || frame != untouched || counted != expected {
                    self.faults
                        .push(format!("step {number}: {verdict:?}, {counted:?}"));
                }
                return Ok(());
            }
            Step::Change(change) => change(&mut self.tables),
            Step::Silence(ticks) => silence(&self.tables, *ticks),
            Step::Remembered(expected) => {
                let found = occupied(&self.tables.buckets);
                if found != *expected {
                    self.faults
                        .push(format!("step {number}: {found} flows, not {expected}"));
                }
            }
            Step::Forwarding(is_on) => {
                for answer in self.tables.routes.values_mut() {
                    *answer = Err(Stop::ForwardingOff);
                }
                if self.kernel.is_some() {
                    set_forwarding(*is_on)?;
                    self.is_forwarding_off = true;
                }
            }
            Step::Mac(neighbour, last_byte) => {
                let route = self.tables.routes.get_mut(&world::address(neighbour));
                let route = route.context("no such neighbour")?.as_mut();
                let route = route.map_err(|stop| anyhow::anyhow!("unknown: {stop:?}"))?;
                let macs = &mut route.next_hop.macs;
                let mut destination = macs.destination();
                destination.0[5] = *last_byte;
                *macs = MacPair::new(destination, macs.source());
                if self.kernel.is_some() {
                    set_mac(neighbour, *last_byte)?;
                    self.changed_macs.push(neighbour);
                }
            }
        }
        self.write()
    }

    fn frame(
        &mut self,
        number: usize,
        bytes: &[u8],
        (verdict, out): (Verdict, &[u8]),
        counts: &Counts,
        is_early: bool,
    ) -> Result<()> {
        let (found, told) = self.in_memory(bytes)?;
        let early = self.tables.early.take();
        self.judge_early((number, bytes), counts, is_early, &early);
        if found != verdict {
            self.faults.push(format!(
                "step {number}: memory: expected {verdict:?}, found {found:?}"
            ));
        }
        let expected = (Answer::from(verdict), out, counts);
        self.judge(number, "memory", expected, &told);
        let said = self
            .explainer
            .filter(|_| bytes.len() >= SHORTEST_FRAME_BYTES)
            .map(|it| it.say(bytes, interface(bytes)));
        let Some(told) = self.in_kernel(bytes)? else {
            return Ok(());
        };
        if let Some(said) = said.transpose()? {
            let counted = |stop: Stop| told.2.stops.get(stop.name()).copied().unwrap_or(0);
            if let Some(wrong) = said.difference(told.0, &told.1, counted) {
                self.faults
                    .push(format!("step {number}: explained: {wrong}"));
            }
        }
        let found = self.kernel.as_mut().map(|kernel| kernel.take_early());
        self.judge(number, "kernel", expected, &told);
        let kept = |of: &[EarlyFragment]| -> Vec<(FragmentKey, u32, Vec<u8>)> {
            let kept = of.iter();
            kept.map(|it| (it.key, it.interface, it.frame().to_vec()))
                .collect()
        };
        if found.is_some_and(|found| kept(&found) != kept(&early)) {
            self.faults
                .push(format!("step {number}: kernel: others are kept"));
        }
        Ok(())
    }

    /// A step that each body runs with its own cookie.
    fn cookie(
        &mut self,
        number: usize,
        make: &dyn Fn(Row, u32) -> Row,
        is_made: bool,
    ) -> Result<()> {
        let step = |cookie| match make(row(""), cookie).steps.pop() {
            Some(Step::Frame {
                bytes,
                verdict,
                out,
                counts,
            }) => Ok((bytes, Answer::from(verdict), out, counts)),
            _ => anyhow::bail!("no frame"),
        };
        let (bytes, ..) = step(self.cookies.0)?;
        let (_, told) = self.in_memory(&bytes)?;
        if is_made {
            self.cookies.0 = sequence(&told.1);
        }
        let (_, verdict, out, counts) = step(self.cookies.0)?;
        self.judge(number, "memory", (verdict, &out, &counts), &told);
        let (bytes, ..) = step(self.cookies.1)?;
        let Some(told) = self.in_kernel(&bytes)? else {
            return Ok(());
        };
        if is_made {
            self.cookies.1 = sequence(&told.1);
        }
        let (_, verdict, out, counts) = step(self.cookies.1)?;
        self.judge(number, "kernel", (verdict, &out, &counts), &told);
        Ok(())
    }

    fn judge(
        &mut self,
        number: usize,
        body: &str,
        expected: (Answer, &[u8], &Counts),
        (answer, out, counts): &Outcome,
    ) {
        if let Some(wrong) = judge(expected, (*answer, out, counts)) {
            self.faults.push(format!("step {number}: {body}:\n{wrong}"));
        }
    }

    fn in_memory(&mut self, bytes: &[u8]) -> Result<(Verdict, Outcome)> {
        let mut frame = MemoryFrame::new(bytes.to_vec(), interface(bytes));
        if self.kernel.is_some() {
            self.tables.now.set(Kernel::NOW.0);
        }
        let before = Counts::of_memory(&self.tables)?;
        let found = handle(&mut frame, &self.tables);
        let counted = Counts::of_memory(&self.tables)?.since(&before);
        Ok((found, (Answer::from(found), frame.bytes, counted)))
    }

    /// What the kernel makes of a frame; nothing without a kernel, or of a frame that is shorter than
    /// it takes.
    fn in_kernel(&mut self, bytes: &[u8]) -> Result<Option<Outcome>> {
        let Some(kernel) = &mut self.kernel else {
            return Ok(None);
        };
        if bytes.len() < SHORTEST_FRAME_BYTES {
            return Ok(None);
        }
        let before = Counts::of_kernel(kernel)?;
        let (answer, out) = kernel.run(bytes, interface(bytes))?;
        let counted = Counts::of_kernel(kernel)?.since(&before);
        Ok(Some((answer, out, counted)))
    }

    /// A fragment without its first one, and nothing else, is to be kept as it came.
    fn judge_early(
        &mut self,
        (number, bytes): (usize, &[u8]),
        counts: &Counts,
        is_early: bool,
        early: &[EarlyFragment],
    ) {
        let is_kept = match early {
            [] => !is_early || counts.stops.contains_key(Stop::EarlyLimit.name()),
            [one] => is_early && one.frame() == bytes && one.interface == interface(bytes),
            _ => false,
        };
        if !is_kept {
            self.faults
                .push(format!("step {number}: memory: kept {}", early.len()));
        }
    }
}

/// Makes everything that is remembered so much older.
fn silence(tables: &MemoryTables, ticks: u16) {
    for entry in tables.buckets.iter().flat_map(|bucket| &bucket.entries) {
        if entry.choice.load() != Choice::EMPTY {
            let mut progress = entry.progress();
            progress.last_seen.0 = progress.last_seen.0.wrapping_sub(ticks);
            entry.progress.store(progress.to_word());
        }
    }
    for record in tables.fragments.borrow_mut().values_mut() {
        *record = record.seen_at(Tick(record.seen().0.wrapping_sub(ticks)));
    }
}

fn set_mac(neighbour: &str, last_byte: u8) -> Result<()> {
    let interface = neighbour_of(neighbour).interface;
    let device = if interface == ETH0 { "eth0" } else { "eth1" };
    let mac = format!("02:00:00:00:01:{last_byte:02x}");
    let arguments = [
        "neigh", "replace", neighbour, "lladdr", &mac, "dev", device, "nud",
    ];
    let status = Command::new("ip")
        .args(arguments)
        .arg("permanent")
        .status()?;
    anyhow::ensure!(status.success(), "`ip neigh replace {neighbour}` failed");
    Ok(())
}
