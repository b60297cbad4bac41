//! `scale-bench [--listeners N] [--groups N] [--targets N] [--rounds N]`: what a large configuration
//! costs: time, memory, and the processor while nothing happens.
//!
//! In the lab of the tests, with the real daemon. One host stands for all targets: a whole network
//! is local to it, and one server accepts connections to any address of it. The first group has
//! 1,000 targets and is checked every second; its first target, the victim, is checked at a
//! port of its own, whose server comes and goes. All other groups share the rest of the targets; they
//! are not checked in the first half of the benchmark, and every 10 s in the second. Needs root.
//!
//! `cargo build --release -p nlb-userspace && cargo run --release -p nlb-tests --bin scale-bench`

use std::{
    collections::BTreeSet,
    env,
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::loaded_maps;
use nlb_tests::lab::{
    Lab,
    addresses::target_v4,
    daemon::Daemon,
    wait::{pause, wait_until},
};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_mins(5);
/// How long the daemon is left alone while its processor time is taken.
const CALM: Duration = Duration::from_secs(20);
/// Targets of the group that one flips in.
const LARGE: u32 = 1_000;
/// Where all targets listen, and where the victim is checked; the lab has servers at others.
const PORT: u16 = 7070;
const VICTIM_PORT: u16 = 9090;
/// The network of all targets: /10.
const NETWORK: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 0);

/// What is asked for.
#[derive(Clone, Copy)]
struct Size {
    listeners: u32,
    groups: u32,
    targets: u32,
    rounds: u32,
}

impl Size {
    fn of_arguments() -> Result<Self> {
        let mut size = Self {
            listeners: 1_000,
            groups: 1_000,
            targets: 100_000,
            rounds: 10,
        };
        let mut arguments = env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let number = arguments
                .next()
                .with_context(|| format!("`{argument}` needs a number"))?
                .parse()?;
            match argument.as_str() {
                "--listeners" => size.listeners = number,
                "--groups" => size.groups = number,
                "--targets" => size.targets = number,
                "--rounds" => size.rounds = number,
                other => bail!("`scale-bench` does not take `{other}`"),
            }
        }
        ensure!(
            size.groups > 1 && size.listeners >= 1 && size.targets > LARGE && size.rounds > 0,
            "at least two groups, a listener, a round and {LARGE} targets"
        );
        ensure!(size.targets < 1 << 22, "{NETWORK}/10 has fewer addresses");
        Ok(size)
    }

    /// The configuration; `weight` is that of the last target.
    fn configuration(self, checks: bool, weight: u16) -> Result<String> {
        let mut text = format!(
            "[node]\ninterfaces = [\"eth0\", \"eth1\"]\nbpffs = \"/run/nlb-demo/bpf\"\n\
             socket = \"/run/nlb-demo/nlb.sock\"\nstate_directory = \"/run/nlb-demo/state\"\n\
             [node.capacity]\nflows = 65536\ntargets = {}\nlisteners = {}\ntarget_groups = {}\n\
             [[load_balancer]]\nname = \"all\"\naddresses = [\"192.0.2.10\"]\n",
            self.targets + self.targets / 4,
            self.listeners + 16,
            self.groups + 16
        );
        for number in 0..self.listeners {
            let (port, group) = (1_000 + number, number % self.groups);
            write!(
                text,
                "[[load_balancer.listener]]\nprotocol = \"TCP\"\nport = {port}\n\
                 target_group = \"group-{group}\"\n"
            )?;
        }
        let mut next = 0;
        for group in 0..self.groups {
            let (members, check) = if group == 0 {
                (LARGE, "interval_seconds = 1\nhealthy_threshold_count = 2\n")
            } else {
                let rest = self.targets - LARGE;
                let share = rest / (self.groups - 1);
                let more = u32::from(group <= rest % (self.groups - 1));
                let check = if checks {
                    "interval_seconds = 10\n"
                } else {
                    "enabled = false\n"
                };
                (share + more, check)
            };
            write!(
                text,
                "[[target_group]]\nname = \"group-{group}\"\nprotocol = \"TCP\"\nport = {PORT}\n\
                 [target_group.health_check]\nprotocol = \"TCP\"\n{check}"
            )?;
            for _ in 0..members {
                let address = address(next);
                write!(text, "[[target_group.target]]\naddress = \"{address}\"\n")?;
                if next == 0 {
                    writeln!(text, "health_check_port = {VICTIM_PORT}")?;
                }
                next += 1;
            }
        }
        writeln!(text, "weight = {weight}")?;
        Ok(text)
    }
}

/// The address of a target.
fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(NETWORK.to_bits() + 1 + number)
}

/// A server that accepts and forgets, until it is dropped.
struct Server {
    end: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<Result<()>>>,
    at: SocketAddr,
    lab: nlb_tests::lab::host::Host,
}

impl Server {
    fn start(lab: &Lab, address: Ipv4Addr, port: u16) -> Result<Self> {
        let at = SocketAddr::from((address, port));
        let host = lab.target(0).host.clone();
        let listener = host.enter(|| TcpListener::bind(at))??;
        let end = Arc::<AtomicBool>::default();
        let ended = Arc::clone(&end);
        let thread = thread::spawn(move || {
            for connection in listener.incoming() {
                drop(connection);
                if ended.load(Ordering::Relaxed) {
                    break;
                }
            }
            Ok(())
        });
        Ok(Self {
            end,
            thread: Some(thread),
            at,
            lab: host,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        // The last connection is ours.
        let at = self.at;
        let called = self.lab.enter(|| std::net::TcpStream::connect(at));
        if let (Ok(Ok(_)), Some(thread)) = (called, self.thread.take()) {
            thread.join().ok();
        }
    }
}

/// What was measured, in milliseconds, by what it is.
#[derive(Default)]
struct Rows(Vec<(String, Vec<f64>)>);

impl Rows {
    fn note(&mut self, name: &str, value: f64) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, values)) => values.push(value),
            None => self.0.push((name.to_owned(), vec![value])),
        }
    }

    fn print(&mut self) {
        println!("| | median | least | most |\n|---|---:|---:|---:|");
        for (name, values) in &mut self.0 {
            values.sort_by(f64::total_cmp);
            let (least, most) = (values[0], values[values.len() - 1]);
            println!(
                "| {name} | {:.1} | {least:.1} | {most:.1} |",
                values[values.len() / 2]
            );
        }
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

fn main() -> Result<()> {
    let size = Size::of_arguments()?;
    ensure!(
        rustix::process::geteuid().is_root(),
        "network namespaces need root"
    );
    let lab = Lab::new("scale")?;
    lab.target(0)
        .host
        .ip(&format!("route add local {NETWORK}/10 dev lo\n"))?;
    lab.gateway()
        .ip(&format!("route add {NETWORK}/10 via {}\n", target_v4(0)))?;
    let _everybody = Server::start(&lab, Ipv4Addr::UNSPECIFIED, PORT)?;
    let mut rows = Rows::default();
    for (checks, what) in [(false, "without checks"), (true, "with checks")] {
        measure(&lab, size, checks, what, &mut rows)?;
    }
    rows.print();
    Ok(())
}

fn measure(lab: &Lab, size: Size, checks: bool, what: &str, rows: &mut Rows) -> Result<()> {
    let maps_before = maps();
    let victim = Server::start(lab, address(0), VICTIM_PORT)?;
    lab.write_config(&size.configuration(checks, 1)?)?;
    let daemon = start(lab, rows, &format!("start, {what}"))?;
    await_log(&daemon, 0, "to=\"healthy\"", LARGE as usize)?;
    if checks {
        pause(CALM)?;
    }
    let idle = Processor::of(&daemon)?;
    pause(CALM)?;
    let busy = Processor::of(&daemon)?;
    let share = |after: Duration, before: Duration| {
        100.0 * after.saturating_sub(before).as_secs_f64() / CALM.as_secs_f64()
    };
    rows.note(
        &format!("processor of the loop, {what}, % of a core"),
        share(busy.others, idle.others),
    );
    rows.note(
        &format!("processor of health checks, {what}, % of a core"),
        share(busy.health, idle.health),
    );
    rows.note(&format!("resident memory, {what}, MiB"), resident(&daemon)?);
    rows.note(&format!("maps, {what}, MiB"), maps_memory(&maps_before)?);
    drop(victim);
    for round in 0..size.rounds {
        eprintln!("{what}: round {} of {}", round + 1, size.rounds);
        let from = daemon.log()?.len();
        let victim = Server::start(lab, address(0), VICTIM_PORT)?;
        rows.note(&format!("flip to live, {what}, ms"), live(&daemon, from)?);
        let from = daemon.log()?.len();
        drop(victim);
        rows.note(&format!("flip to live, {what}, ms"), live(&daemon, from)?);
        if round < 3 {
            let weight = 2 + u16::try_from(round)?;
            lab.write_config(&size.configuration(checks, weight)?)?;
            let event = Instant::now();
            let output = daemon.reload()?;
            ensure!(output.status.success(), "{output:?}");
            rows.note(&format!("reload, {what}, ms"), millis(event.elapsed()));
        }
    }
    rows.note(
        &format!("resident memory after all that, {what}, MiB"),
        resident(&daemon)?,
    );
    drop(daemon);
    let daemon = start(lab, rows, &format!("restart, {what}"))?;
    daemon.detach(lab)
}

fn start(lab: &Lab, rows: &mut Rows, name: &str) -> Result<Daemon> {
    let log = lab.directory().join("nlb.log");
    let from = fs::metadata(&log).map_or(0, |data| data.len());
    let event = Instant::now();
    let daemon = lab.spawn_nlb_with(|command| {
        command.env("NLB_LOG", "info,nlb_userspace::daemon::live=debug");
    })?;
    await_log(&daemon, usize::try_from(from)?, "ready", 1)?;
    rows.note(&format!("{name}, ms"), millis(event.elapsed()));
    Ok(daemon)
}

/// Waits until so many lines of the log have this in them.
fn await_log(daemon: &Daemon, from: usize, words: &str, count: usize) -> Result<()> {
    wait_until(words, PATIENCE, || {
        daemon
            .log()
            .is_ok_and(|log| log.get(from..).unwrap_or_default().matches(words).count() >= count)
    })
    .with_context(|| daemon.log().unwrap_or_default())?;
    Ok(())
}

/// How long it took from a check's outcome until the maps said it, as the daemon's log has it.
fn live(daemon: &Daemon, from: usize) -> Result<f64> {
    let mut took = None;
    wait_until("the flip is live", PATIENCE, || {
        let log = daemon.log().unwrap_or_default();
        let log = log.get(from..).unwrap_or_default();
        let Some(flip) = log.find("target health") else {
            return false;
        };
        took = log[flip..]
            .lines()
            .find_map(|line| line.split_once("after_us="))
            .and_then(|(_, rest)| rest.split(' ').next()?.parse::<f64>().ok());
        took.is_some()
    })?;
    Ok(took.context("no time")? / 1_000.0)
}

/// Processor time of the threads that check, and of all others.
struct Processor {
    health: Duration,
    others: Duration,
}

impl Processor {
    fn of(daemon: &Daemon) -> Result<Self> {
        let pid = daemon.pid().context("the daemon runs")?;
        let mut time = Self {
            health: Duration::ZERO,
            others: Duration::ZERO,
        };
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // Nanoseconds on a processor, then those of waiting for one.
            let task = task?.path();
            let (Ok(name), Ok(spent)) = (
                fs::read_to_string(task.join("comm")),
                fs::read_to_string(task.join("schedstat")),
            ) else {
                continue;
            };
            let spent = spent.split(' ').next().context("schedstat")?.parse()?;
            let of = if name.trim() == "health" {
                &mut time.health
            } else {
                &mut time.others
            };
            *of += Duration::from_nanos(spent);
        }
        Ok(time)
    }
}

fn resident(daemon: &Daemon) -> Result<f64> {
    let pid = daemon.pid().context("the daemon runs")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    Ok(kib.context("RssAnon")?.parse::<f64>()? / 1024.0)
}

/// The ids of all maps that there are.
fn maps() -> BTreeSet<u32> {
    loaded_maps().flatten().map(|map| map.id()).collect()
}

/// What maps take that are not among these.
fn maps_memory(others: &BTreeSet<u32>) -> Result<f64> {
    let mut bytes = 0.0;
    for map in loaded_maps()
        .flatten()
        .filter(|map| !others.contains(&map.id()))
    {
        // One that is replaced just now is gone.
        let Ok(fd) = map.fd() else { continue };
        let raw = std::os::fd::AsFd::as_fd(&fd).as_raw_fd();
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{raw}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
        bytes += line
            .context("no memlock in fdinfo")?
            .trim()
            .parse::<f64>()?;
    }
    Ok(bytes / f64::from(1 << 20))
}
