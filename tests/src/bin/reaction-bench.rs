//! `reaction-bench [--rounds N]`: how long nlb takes to react, in milliseconds, as clients see it.
//!
//! In the lab of the tests, with health checks every second. Clients open connections to a `nat` and
//! a `dsr-l2` VIP all the time, a new one every two milliseconds, and note when each began and what
//! became of it. Against that stream: a server's processes are killed; its host's link is cut; a
//! target is deregistered, and registered again, by a reload. Needs root.
//!
//! `cargo build --release -p nlb-userspace && cargo run --release -p nlb-tests --bin reaction-bench`

use std::{
    env,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nlb_tests::lab::{
    Lab,
    addresses::{DSR_VIP_V4, HTTP_PORT, NAT_VIP_V4, target_v4},
    daemon::Daemon,
    http::HttpConnection,
    wait::{pause, wait_until},
};

const EXAMPLE: &str = include_str!("../../../docs/examples/demo.toml");
/// What a client allows a server.
const PATIENCE: Duration = Duration::from_millis(250);
/// So many that a new connection comes every two milliseconds while others wait for the dead.
const CLIENTS: u32 = 96;
/// Between the connections of one client.
const PAUSE: Duration = Duration::from_millis(192);
/// Traffic before and after each event.
const CALM: Duration = Duration::from_secs(2);
/// The target that all of it is about: `target2`.
const VICTIM: usize = 1;

/// What became of a connection: when it began, and who answered, if anybody.
type Attempt = (Instant, Option<String>);

/// Clients that never rest.
struct Stream {
    attempts: Arc<Mutex<Vec<Attempt>>>,
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Stream {
    fn start(lab: &Lab, vip: SocketAddr) -> Self {
        let attempts = Arc::<Mutex<Vec<Attempt>>>::default();
        let end = Arc::<AtomicBool>::default();
        let threads = (0..CLIENTS)
            .map(|number| {
                let (attempts, end) = (Arc::clone(&attempts), Arc::clone(&end));
                lab.client().thread(move || {
                    thread::sleep(PAUSE / CLIENTS * number);
                    while !end.load(Ordering::Relaxed) {
                        let start = Instant::now();
                        let answer = HttpConnection::here(vip, PATIENCE)
                            .and_then(|mut connection| connection.get("/"))
                            .map(|answer| answer.target);
                        let mut attempts = attempts.lock().unwrap_or_else(PoisonError::into_inner);
                        attempts.push((start, answer.ok()));
                        drop(attempts);
                        thread::sleep(PAUSE);
                    }
                })
            })
            .collect();
        Self {
            attempts,
            end,
            threads,
        }
    }

    /// Ends it; all attempts that began after `event`, in order.
    fn since(self, event: Instant) -> Result<Vec<Attempt>> {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        let mut attempts = self
            .attempts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        attempts.retain(|(start, _)| *start >= event);
        attempts.sort_by_key(|(start, _)| *start);
        Ok(attempts)
    }
}

fn millis(duration: Duration) -> String {
    format!("{:.0} ms", duration.as_secs_f64() * 1_000.0)
}

/// Which row of the report, in which mode, and what was measured in each round.
struct Row {
    name: String,
    values: Vec<Duration>,
}

impl Row {
    fn note(rows: &mut Vec<Self>, name: String, value: Duration) {
        match rows.iter_mut().find(|row| row.name == name) {
            Some(row) => row.values.push(value),
            None => rows.push(Self {
                name,
                values: vec![value],
            }),
        }
    }
}

fn main() -> Result<()> {
    let rounds = match env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => 5,
        [name, number] if name == "--rounds" => number.parse()?,
        _ => bail!("`reaction-bench` takes `--rounds N` only"),
    };
    ensure!(
        rustix::process::geteuid().is_root(),
        "network namespaces need root"
    );
    let mut lab = Lab::new("react")?;
    lab.write_config(EXAMPLE)?;
    let daemon = lab.start_nlb()?;
    all_healthy(&daemon)?;
    let mut rows = Vec::new();
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        for (mode, vip) in [("nat", NAT_VIP_V4), ("dsr-l2", DSR_VIP_V4)] {
            let vip = SocketAddr::from((vip, HTTP_PORT));
            killed(&mut lab, &daemon, mode, vip, &mut rows)?;
            cut(&lab, &daemon, mode, vip, &mut rows)?;
            reloaded(&lab, &daemon, mode, vip, &mut rows)?;
        }
    }
    println!("| Event | median | least | most |\n|---|---|---|---|");
    for row in &mut rows {
        row.values.sort_unstable();
        let [least, .., most] = row.values.as_slice() else {
            println!("| {} | {} | | |", row.name, millis(row.values[0]));
            continue;
        };
        let median = row.values[row.values.len() / 2];
        println!(
            "| {} | {} | {} | {} |",
            row.name,
            millis(median),
            millis(*least),
            millis(*most)
        );
    }
    Ok(())
}

fn all_healthy(daemon: &Daemon) -> Result<()> {
    wait_until("all targets are healthy", Duration::from_secs(20), || {
        states(daemon).is_ok_and(|states| states.iter().all(|(_, state)| state == "healthy"))
    })?;
    Ok(())
}

fn states(daemon: &Daemon) -> Result<Vec<(String, String)>> {
    let status = daemon.status()?;
    let groups = status["target_groups"].as_array().context("no groups")?;
    let targets = groups
        .iter()
        .flat_map(|group| group["targets"].as_array().into_iter().flatten());
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    Ok(targets
        .map(|target| (text(&target["address"]), text(&target["state"])))
        .collect())
}

/// The start of the last connection that came to nothing.
fn last_failure(attempts: &[Attempt], event: Instant) -> Duration {
    let failed = attempts.iter().rev().find(|(_, answer)| answer.is_none());
    failed.map_or(Duration::ZERO, |(start, _)| *start - event)
}

/// No connection should fail; on a busy machine some clients lose their patience.
fn tell_failures(attempts: &[Attempt], event: &str) {
    let failed = attempts
        .iter()
        .filter(|(_, answer)| answer.is_none())
        .count();
    if failed > 0 {
        eprintln!("{event}: {failed} of {} connections failed", attempts.len());
    }
}

/// A server's processes end: SYNs are refused.
fn killed(
    lab: &mut Lab,
    daemon: &Daemon,
    mode: &str,
    vip: SocketAddr,
    rows: &mut Vec<Row>,
) -> Result<()> {
    let stream = Stream::start(lab, vip);
    pause(CALM)?;
    let event = Instant::now();
    lab.kill_nginx(VICTIM)?;
    pause(CALM)?;
    let attempts = stream.since(event)?;
    let name = format!("server killed, last new flow to it, {mode}");
    Row::note(rows, name, last_failure(&attempts, event));
    lab.start_nginx(VICTIM)?;
    all_healthy(daemon)
}

/// A host is gone: nobody answers.
fn cut(lab: &Lab, daemon: &Daemon, mode: &str, vip: SocketAddr, rows: &mut Vec<Row>) -> Result<()> {
    let stream = Stream::start(lab, vip);
    pause(CALM)?;
    let switch_port = format!("target{}", VICTIM + 1);
    let event = Instant::now();
    lab.switch()
        .run(&format!("ip link set {switch_port} down"))?;
    pause(CALM)?;
    let attempts = stream.since(event)?;
    let name = format!("host cut off, last new flow to it, {mode}");
    Row::note(rows, name, last_failure(&attempts, event));
    lab.switch().run(&format!("ip link set {switch_port} up"))?;
    all_healthy(daemon)
}

/// A target leaves the file, and comes back.
fn reloaded(
    lab: &Lab,
    daemon: &Daemon,
    mode: &str,
    vip: SocketAddr,
    rows: &mut Vec<Row>,
) -> Result<()> {
    let victim = lab.target(VICTIM).name().to_owned();
    let address = IpAddr::from(target_v4(VICTIM));
    let block = format!("  [[target_group.target]]\n  address = \"{address}\"\n");
    let without = EXAMPLE.replace(&block, "");
    ensure!(without != EXAMPLE, "the example has {address}");
    let reload = |text: &str| -> Result<(Instant, Duration)> {
        lab.write_config(text)?;
        let event = Instant::now();
        let output = daemon.reload()?;
        ensure!(output.status.success(), "{output:?}");
        Ok((event, event.elapsed()))
    };
    let stream = Stream::start(lab, vip);
    pause(CALM)?;
    let (left, took) = reload(&without)?;
    Row::note(rows, "`nlb reload`, start to answer".to_owned(), took);
    pause(CALM)?;
    let attempts = stream.since(left)?;
    let last = attempts
        .iter()
        .rev()
        .find(|(_, answer)| answer.as_ref() == Some(&victim));
    let last = last.map_or(Duration::ZERO, |(start, _)| *start - left);
    Row::note(rows, format!("deregistered, last new flow, {mode}"), last);
    tell_failures(&attempts, "deregistering");

    let stream = Stream::start(lab, vip);
    pause(CALM)?;
    let (came, took) = reload(EXAMPLE)?;
    Row::note(rows, "`nlb reload`, start to answer".to_owned(), took);
    pause(CALM)?;
    let attempts = stream.since(came)?;
    let first = attempts
        .iter()
        .find(|(_, answer)| answer.as_ref() == Some(&victim));
    let (start, _) = first.context("the new target got no flow")?;
    Row::note(
        rows,
        format!("registered, first new flow, {mode}"),
        *start - came,
    );
    tell_failures(&attempts, "registering");
    all_healthy(daemon)
}
