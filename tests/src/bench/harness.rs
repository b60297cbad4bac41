//! Runs a program on fresh packets through the reset trampoline, and reads the clock.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData, ProgramArray},
    programs::{ProgramFd, TestRun as _, TestRunAttrs, TestRunOptions, Xdp},
};
use nlb_common::{
    bench::{BASE_V4, BASE_V6, Order, Setup, State, WORDS},
    flow::near_buckets,
    hash::Key,
    listener::{Listener, ListenerKey, ListenerPolicy},
    plain::Plain,
};
use rustix::thread::{CpuSet, sched_setaffinity};
use zerocopy::IntoBytes as _;

use super::Effort;

/// The benchmark's kernel programs: an ELF object.
static BENCH_OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/nlb-xdp-bench"));

/// `XDP_TX`.
pub const TRANSMIT: u32 = 3;

/// Which end of a packet is the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientEnd {
    /// On the way to a target.
    Source,
    /// On the way back.
    Destination,
    /// On the way to a target, where clients differ in the port only: 256 of them, and the header's
    /// checksum holds for all.
    SourcePort,
}

/// A kind of packets.
#[derive(Clone, Debug)]
pub struct Stream {
    /// The frame of client 0.
    pub frame: Vec<u8>,
    /// Whether it carries IPv6.
    pub is_v6: bool,
    /// Where the client stands.
    pub client: ClientEnd,
    /// In which order clients send.
    pub order: Order,
    /// How many there are.
    pub flows: u32,
}

impl Stream {
    /// The same packets, each of the next client.
    #[must_use]
    pub fn sequential(&self) -> Self {
        Self {
            order: Order::Sequential,
            ..self.clone()
        }
    }

    fn setup(&self, packets: u32) -> Result<Setup> {
        let (base, words) = if self.is_v6 {
            (BASE_V6, WORDS - 1)
        } else {
            (BASE_V4, WORDS)
        };
        ensure!(
            self.frame.len() >= base + 8 * words,
            "a frame of {} bytes is too short for the trampoline",
            self.frame.len()
        );
        let mut head = [0; 8];
        head[..base].copy_from_slice(&self.frame[..base]);
        let mut setup = Setup {
            frame_bytes: self.frame.len() as u64,
            order: self.order as u64,
            flows: self.flows.into(),
            begin: 0,
            end: packets.into(),
            head: u64::from_ne_bytes(head),
            port_shift: 8,
            ..Setup::default()
        };
        setup
            .words
            .as_mut_bytes()
            .iter_mut()
            .zip(&self.frame[base..base + 8 * words])
            .for_each(|(word, byte)| *word = *byte);
        match (self.is_v6, self.client) {
            (false, ClientEnd::Source) => (setup.address_shift, setup.source_mask) = (8, u64::MAX),
            (false, ClientEnd::Destination) => {
                (setup.address_shift, setup.source_mask) = (40, u64::MAX);
            }
            (true, ClientEnd::Source) => (setup.address_shift, setup.source_mask) = (40, u64::MAX),
            (true, ClientEnd::Destination) => {
                (setup.address_shift, setup.destination_mask) = (40, u64::MAX);
            }
            (_, ClientEnd::SourcePort) => {}
        }
        if self.client == ClientEnd::Destination {
            setup.port_shift = 24;
        }
        Ok(setup)
    }
}

/// Sizes of the flow tables that are compared.
#[derive(Clone, Copy, Debug)]
pub struct Tables {
    /// Entries of the load balancer's own table.
    pub exact: u32,
    /// Entries of the table of short entries.
    pub tags: u32,
    /// Entries of the kernel's table.
    pub lru: u32,
}

/// The loaded trampoline.
pub struct Harness {
    ebpf: Ebpf,
    setup: Array<MapData, Plain<Setup>>,
    state: Array<MapData, Plain<State>>,
    subject: ProgramArray<MapData>,
    found: Array<MapData, u64>,
    baseline: ProgramFd,
}

/// Nanoseconds per packet, gross and net.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Least round less the baseline's least.
    pub min_ns: f64,
    /// Median round less the baseline's median.
    pub median_ns: f64,
    /// The trampoline alone.
    pub baseline_ns: f64,
}

impl Harness {
    /// Loads the benchmark's programs, with flow tables of these sizes, for this listener.
    pub fn load(tables: Tables, listeners: &[ListenerKey]) -> Result<Self> {
        let key = Plain(Key::derive(&[0x5a; 32], 2));
        let masks = [tables.exact / 4 - 1, tables.tags / 4 - 1];
        let mut ebpf = EbpfLoader::new()
            .override_global("BENCH_KEY", &key, true)
            .override_global("BENCH_MASKS", &masks, true)
            .map_max_entries("EXACT", masks[0] + 1)
            .map_max_entries("SPILLS", near_buckets(masks[0] + 1))
            .map_max_entries("TAGS", masks[1] + 1)
            .map_max_entries("LRU", tables.lru)
            .load(BENCH_OBJECT)
            .context("loading the benchmark's programs")?;
        for (name, program) in ebpf.programs_mut() {
            let name = name.to_owned();
            let program: &mut Xdp = program.try_into()?;
            program
                .load()
                .with_context(|| format!("the verifier, of `{name}`"))?;
        }
        // All flows of these tables belong to listener 1, whatever their VIP's version.
        let mut records: Array<_, [u8; 64]> = Array::try_from(
            ebpf.take_map("BENCH_LISTENERS")
                .context("no BENCH_LISTENERS")?,
        )?;
        for (id, key) in (1..).zip(listeners) {
            let mut record = Listener::default();
            let policy = ListenerPolicy {
                group: 1,
                idle_ticks: 350,
                ..ListenerPolicy::default()
            };
            record.write(key, policy);
            records.set(id, <[u8; 64]>::try_from(record.as_mut_bytes())?, 0)?;
        }
        let mut take = |name: &str| {
            ebpf.take_map(name)
                .with_context(|| format!("no map {name}"))
        };
        let (setup, state) = (
            Array::try_from(take("SETUP")?)?,
            Array::try_from(take("STATE")?)?,
        );
        let found = Array::try_from(take("FOUND")?)?;
        let subject = ProgramArray::try_from(take("SUBJECT")?)?;
        let baseline = fd_of(&ebpf, "transmit")?;
        Ok(Self {
            ebpf,
            setup,
            state,
            subject,
            found,
            baseline,
        })
    }

    /// One of the benchmark's own programs.
    pub fn program(&self, name: &str) -> Result<ProgramFd> {
        fd_of(&self.ebpf, name)
    }

    /// Bytes of memory that the kernel accounts to one of the flow tables.
    pub fn memory_bytes(&self, map: &str) -> Result<u64> {
        use aya::maps::Map;
        let map = self
            .ebpf
            .map(map)
            .with_context(|| format!("no map {map}"))?;
        let (Map::Array(data) | Map::LruHashMap(data)) = map else {
            anyhow::bail!("not a flow table");
        };
        accounted(data)
    }

    /// How many packets found their flow since the last call.
    pub fn take_found(&mut self) -> Result<u64> {
        let found = self.found.get(&0, 0)?;
        self.found.set(0, 0, 0)?;
        Ok(found)
    }

    /// Sends `packets` packets, and one more, through a program; `from` is the first one's number.
    /// Returns nanoseconds per packet, and what the program said to the last.
    ///
    /// The clock is read inside, when the first and when the last packet begin: the kernel's own
    /// `duration` is cut to whole nanoseconds per packet.
    pub fn run(
        &mut self,
        program: &ProgramFd,
        stream: &Stream,
        from: u64,
        packets: u32,
    ) -> Result<(f64, u32)> {
        self.subject.set(0, program, 0)?;
        self.setup.set(0, Plain(stream.setup(packets)?), 0)?;
        let state = State {
            next: from,
            ..State::default()
        };
        self.state.set(0, Plain(state), 0)?;
        let mut options = TestRunOptions::new();
        options.data_in = Some(&stream.frame);
        options.repeat = packets + 1;
        let result = self
            .trampoline(stream)?
            .test_run(options)
            .context("BPF_PROG_TEST_RUN of the trampoline")?;
        let Plain(state) = self.state.get(&0, 0)?;
        ensure!(
            state.count == u64::from(packets) + 1,
            "the trampoline ran {} times instead of {}",
            state.count,
            packets + 1
        );
        let elapsed = u32::try_from(state.end_ns - state.begin_ns).context("a round above 4 s")?;
        Ok((f64::from(elapsed) / f64::from(packets), result.return_value))
    }

    /// Sends live frames out through an interface of this thread's network namespace, as fast as they
    /// go; how long that took.
    pub fn send(&mut self, stream: &Stream, interface: u32, packets: u32) -> Result<Duration> {
        /// At most what a driver's poll takes.
        const BATCH: u32 = 64;
        let program = self.program("send")?;
        self.subject.set(0, &program, 0)?;
        let setup = Setup {
            interface: interface.into(),
            ..stream.setup(packets)?
        };
        self.setup.set(0, Plain(setup), 0)?;
        self.state.set(0, Plain(State::default()), 0)?;
        let mut options = TestRunOptions::new();
        options.data_in = Some(&stream.frame);
        options.repeat = packets;
        options.attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
        let begin = Instant::now();
        self.trampoline(stream)?
            .test_run(options)
            .context("BPF_PROG_TEST_RUN with live frames")?;
        Ok(begin.elapsed())
    }

    /// The trampoline for packets of a stream.
    fn trampoline(&mut self, stream: &Stream) -> Result<&mut Xdp> {
        let name = if stream.is_v6 { "reset_v6" } else { "reset_v4" };
        let program = self.ebpf.program_mut(name);
        Ok(program
            .with_context(|| format!("no program {name}"))?
            .try_into()?)
    }

    /// Measures a program: rounds of it and of the baseline take turns. `check` sees the last
    /// verdict of each round, and how many packets it had.
    pub fn measure(
        &mut self,
        program: &ProgramFd,
        stream: &Stream,
        first: u64,
        effort: Effort,
        mut check: impl FnMut(&mut Self, u32, u32) -> Result<()>,
    ) -> Result<Cost> {
        let baseline = self.baseline.try_clone()?;
        let (mut empty, mut full) = (Vec::new(), Vec::new());
        let mut from = first;
        for _ in 0..effort.rounds {
            empty.push(self.run(&baseline, stream, from, effort.packets)?.0);
            let (ns, verdict) = self.run(program, stream, from, effort.packets)?;
            full.push(ns);
            check(self, verdict, effort.packets + 1)?;
            from += u64::from(effort.packets) + 1;
        }
        empty.sort_by(f64::total_cmp);
        full.sort_by(f64::total_cmp);
        let middle = effort.rounds / 2;
        Ok(Cost {
            min_ns: full[0] - empty[0],
            median_ns: full[middle] - empty[middle],
            baseline_ns: empty[0],
        })
    }
}

/// Bytes of memory that the kernel accounts to a map.
pub fn accounted(map: &MapData) -> Result<u64> {
    let descriptor = map.fd().as_fd().as_raw_fd();
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    Ok(line.context("no memlock in fdinfo")?.trim().parse()?)
}

fn fd_of(ebpf: &Ebpf, name: &str) -> Result<ProgramFd> {
    let program: &Xdp = ebpf
        .program(name)
        .with_context(|| format!("no program {name}"))?
        .try_into()?;
    Ok(program.fd()?.try_clone()?)
}

/// Pins this thread to the last CPU and asks for a real-time scheduler; says what it got.
pub fn settle() -> Result<String> {
    let cpu = std::thread::available_parallelism()?.get() - 1;
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).context("pinning to a CPU")?;
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let fifo = Command::new("chrt")
        .args(["--fifo", "--pid", "1", &thread])
        .output();
    Ok(match fifo {
        Ok(output) if output.status.success() => format!("pinned to CPU {cpu}, SCHED_FIFO"),
        _ => format!("pinned to CPU {cpu}, ordinary scheduler (`chrt` failed)"),
    })
}
