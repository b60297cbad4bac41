//! `change-bench [--listeners N] [--targets N] [--rounds N]`: what one change over the API costs in a
//! large document, before it reaches the data plane.
//!
//! A target is registered and deregistered in turn; every change is judged, kept on disk and made the
//! document, as the daemon does it. Each listener has a target group of its own, which share the
//! targets. `cargo run --release -p nlb-tests --bin change-bench`; needs no privilege.

use std::{
    env,
    fmt::Write as _,
    fs,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nlb_userspace::{
    desk::{Condition, Desk, Intent},
    document::edit::{Edit, Kind, Named},
};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

/// What is asked for.
struct Size {
    listeners: u32,
    targets: u32,
    rounds: usize,
}

impl Size {
    fn of_arguments() -> Result<Self> {
        let mut size = Self {
            listeners: 1_000,
            targets: 100_000,
            rounds: 10,
        };
        let mut arguments = env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let number = arguments
                .next()
                .with_context(|| format!("`{argument}` needs a number"))?;
            match argument.as_str() {
                "--listeners" => size.listeners = number.parse()?,
                "--targets" => size.targets = number.parse()?,
                "--rounds" => size.rounds = number.parse()?,
                other => bail!("`change-bench` does not take `{other}`"),
            }
        }
        Ok(size)
    }

    fn configuration(&self, state: &str) -> String {
        let mut text = format!(
            "[node]\ninterfaces = [\"eth0\"]\nstate_directory = \"{state}\"\n\
             capacity = {{ targets = 1000000, listeners = 65533, target_groups = 65535 }}\n\
             [[load_balancer]]\nname = \"edge\"\naddresses = [\"192.0.2.10\"]\n"
        );
        let each = self.targets / self.listeners;
        let mut groups = String::new();
        for number in 0..self.listeners {
            let _infallible = writeln!(
                text,
                "[[load_balancer.listener]]\nprotocol = \"TCP\"\nport = {}\ntarget_group = \"g{number}\"",
                1 + number
            );
            let _infallible = writeln!(
                groups,
                "[[target_group]]\nname = \"g{number}\"\nprotocol = \"TCP\"\nport = 80"
            );
            for target in 0..each {
                let address = Ipv4Addr::from(0x0a00_0001 + number * each + target);
                let _infallible =
                    writeln!(groups, "[[target_group.target]]\naddress = \"{address}\"");
            }
        }
        text + &groups
    }
}

fn main() -> Result<()> {
    let size = Size::of_arguments()?;
    let folder = std::env::temp_dir().join(format!("nlb-change-bench-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let file = folder.join("nlb.toml");
    let text = size.configuration(&folder.join("state").display().to_string());
    fs::write(&file, &text)?;
    let result = measure(&size, &file, text.len());
    fs::remove_dir_all(&folder)?;
    result
}

fn measure(size: &Size, file: &std::path::Path, bytes: usize) -> Result<()> {
    println!(
        "{} listeners, {} targets, {} KiB of TOML",
        size.listeners,
        size.targets,
        bytes >> 10
    );
    let begin = Moment::now();
    let (mut desk, ..) = Desk::open(file)?;
    tell("read the file", &[begin.until(&Moment::now())])?;
    let steps = ["judge", "keep on disk", "make it the document", "all of it"];
    let mut times = vec![Vec::new(); steps.len()];
    let registered = Named::child(Kind::Target, "g0", "10.255.0.1:80");
    let register = Intent::Edit(Edit::Add {
        kind: Kind::Target,
        into: Some("g0".to_owned()),
        table: json!({ "address": "10.255.0.1" }),
    });
    let deregister = Intent::Edit(Edit::Remove { named: registered });
    for round in 0..size.rounds {
        let intent = if round % 2 == 0 {
            &register
        } else {
            &deregister
        };
        let begin = Moment::now();
        let proposal = desk.propose(intent, &Condition::default())?;
        let judged = Moment::now();
        desk.keep(&proposal)?;
        let kept = Moment::now();
        drop(desk.adopt(proposal));
        let end = Moment::now();
        for (times, time) in times.iter_mut().zip([
            begin.until(&judged),
            judged.until(&kept),
            kept.until(&end),
            begin.until(&end),
        ]) {
            times.push(time);
        }
    }
    for (step, times) in steps.into_iter().zip(times) {
        tell(step, &times)?;
    }
    Ok(())
}

/// A moment by both clocks.
struct Moment {
    wall: Instant,
    processor: Duration,
}

impl Moment {
    fn now() -> Self {
        let spent = clock_gettime(ClockId::ProcessCPUTime);
        let part = |value: i64| u64::try_from(value).unwrap_or(0);
        Self {
            wall: Instant::now(),
            processor: Duration::from_secs(part(spent.tv_sec))
                + Duration::from_nanos(part(spent.tv_nsec)),
        }
    }

    /// Elapsed time, and how much of it the processor worked on this.
    fn until(&self, later: &Self) -> [Duration; 2] {
        [
            later.wall - self.wall,
            later.processor.saturating_sub(self.processor),
        ]
    }
}

/// The medians of what a step took.
fn tell(step: &str, times: &[[Duration; 2]]) -> Result<()> {
    let median = |which: usize| {
        let mut times: Vec<Duration> = times.iter().map(|both| both[which]).collect();
        times.sort_unstable();
        let median = times.get(times.len() / 2).context("at least one round")?;
        anyhow::Ok(median.as_secs_f64() * 1e3)
    };
    let (wall, processor) = (median(0)?, median(1)?);
    println!("{step:<24}{wall:>9.1} ms, of which the processor {processor:>9.1} ms");
    Ok(())
}
