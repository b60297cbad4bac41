//! `health-bench [--targets N] [--interval-ms N] [--seconds N]`: what it costs to check many targets.
//!
//! The daemon's own prober asks N addresses of 127.0.0.0/8, on which one server listens, by TCP. Told
//! are the processor time of the probing thread, how late probes began, and the descriptors that
//! were open. `cargo run --release -p nlb-tests --bin health-bench`; needs no privilege.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nlb_userspace::health::{
    Check, CheckProtocol, ProbeOutcome,
    schedule::{Observation, Prober},
};
use tokio::sync::mpsc;

/// What is asked for.
struct Plan {
    targets: u32,
    interval: Duration,
    time: Duration,
}

impl Plan {
    fn of_arguments() -> Result<Self> {
        let mut plan = Self {
            targets: 10_000,
            interval: Duration::from_secs(1),
            time: Duration::from_secs(10),
        };
        let mut arguments = env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let number = arguments
                .next()
                .with_context(|| format!("`{argument}` needs a number"))?;
            match argument.as_str() {
                "--targets" => plan.targets = number.parse()?,
                "--interval-ms" => plan.interval = Duration::from_millis(number.parse()?),
                "--seconds" => plan.time = Duration::from_secs(number.parse()?),
                other => bail!("`health-bench` does not take `{other}`"),
            }
        }
        ensure!(plan.targets < 1 << 24, "127.0.0.0/8 has fewer addresses");
        Ok(plan)
    }
}

fn main() -> Result<()> {
    let plan = Plan::of_arguments()?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let port = listener.local_addr()?.port();
    // The prober resets what it opens; the server has only to take it off the queue.
    thread::spawn(move || listener.incoming().for_each(drop));

    let (outcomes, mut observations) = mpsc::channel(4096);
    let mut prober = Prober::new(outcomes)?;
    prober.begin()?;
    let check = Arc::new(Check {
        protocol: CheckProtocol::Tcp,
        through: None,
        timeout: plan.interval,
    });
    let start = Instant::now();
    let _probes: Vec<_> = (1..=plan.targets)
        .map(|number| {
            let address = Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + number);
            let target = SocketAddr::from((address, port));
            prober.spawn(number, Arc::clone(&check), target, plan.interval)
        })
        .collect();
    let mut told = vec![false; plan.targets as usize + 1];
    let mut missing = plan.targets;
    while missing > 0 {
        let one = observations.blocking_recv().context("the prober ended")?;
        if !std::mem::replace(&mut told[one.key as usize], true) {
            missing -= 1;
        }
    }
    println!(
        "first check of all {} targets: {:?}",
        plan.targets,
        start.elapsed()
    );
    measure(&plan, &mut observations)
}

fn measure(plan: &Plan, observations: &mut mpsc::Receiver<Observation<u32>>) -> Result<()> {
    let cpu_before = cpu_of_prober()?;
    let start = Instant::now();
    let (mut late, mut failed, mut descriptors) = (Vec::new(), 0_u64, 0);
    while start.elapsed() < plan.time {
        let one = observations.blocking_recv().context("the prober ended")?;
        late.push(one.lateness);
        failed += u64::from(!matches!(one.outcome, ProbeOutcome::Passed { .. }));
        if late.len() % 1_000 == 0 {
            descriptors = descriptors.max(fs::read_dir("/proc/self/fd")?.count());
        }
    }
    let elapsed = start.elapsed();
    let cpu = cpu_of_prober()?.saturating_sub(cpu_before);
    late.sort_unstable();
    let at = |percent: usize| late[(late.len() - 1) * percent / 100];
    let probes = u32::try_from(late.len())?;
    println!("probes: {probes} in {elapsed:?}, {failed} failed");
    println!(
        "planned: {} in that time",
        elapsed.as_millis() * u128::from(plan.targets) / plan.interval.as_millis()
    );
    println!(
        "processor: {:.1} % of a core, {:?} a probe",
        100.0 * cpu.as_secs_f64() / elapsed.as_secs_f64(),
        cpu / probes
    );
    println!(
        "lateness: p50 {:?}, p99 {:?}, most {:?}",
        at(50),
        at(99),
        at(100)
    );
    println!("descriptors: at most {descriptors}");
    println!("sockets in TIME_WAIT: {}", time_waits()?);
    Ok(())
}

/// The processor time of the probing thread, in ticks of 10 ms.
fn cpu_of_prober() -> Result<Duration> {
    for task in fs::read_dir("/proc/self/task")? {
        let stat = fs::read_to_string(task?.path().join("stat"))?;
        if let Some((_, fields)) = stat.split_once("(health) ") {
            let field = |index: usize| -> Result<u64> {
                let text = fields.split(' ').nth(index).context("a short line")?;
                Ok(text.parse()?)
            };
            // utime and stime, fields 14 and 15 of proc_pid_stat(5); two stand in front.
            return Ok(Duration::from_millis(10 * (field(11)? + field(12)?)));
        }
    }
    bail!("there is no thread `health`")
}

fn time_waits() -> Result<u64> {
    let text = fs::read_to_string("/proc/net/sockstat")?;
    let words: Vec<&str> = text.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "tw");
    let number = at.and_then(|at| words.get(at + 1));
    Ok(number.context("no `tw` in /proc/net/sockstat")?.parse()?)
}
