//! The demonstration: real clients, the real daemon, real servers, one of which dies.
//!
//! `cargo xtask demo` builds and runs this. The story is in [`show`]; [`spread`] and [`failover`]
//! (with [`traffic`]) are its two acts, [`report`] what is said at the end.

mod failover;
mod report;
mod service;
mod spread;
mod traffic;

use std::{
    env, fs,
    net::SocketAddr,
    path::PathBuf,
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use nlb_tests::lab::{
    Lab,
    daemon::{self, Daemon},
    host::Host,
    interrupt, nginx, udp,
    wait::wait_until,
};

use crate::report::Report;

/// The lab's name; the example's paths have it, too.
const NAME: &str = "nlb-demo";
const EXAMPLE: &str = include_str!("../../../docs/examples/demo.toml");
const EXAMPLE_PATH: &str = "docs/examples/demo.toml";

/// Shows nlb at work between a client and three targets, in network namespaces of this machine.
#[derive(Debug, Parser)]
#[command(name = "demo", args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Also write all figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Leave the lab up at the end, and say how to play with it
    #[arg(long)]
    keep: bool,
    /// Remove a lab that --keep left up
    #[arg(long, conflicts_with_all = ["keep", "json"])]
    stop: bool,
    /// The nlb to show, instead of the one beside this program
    #[arg(long, value_name = "PATH")]
    nlb: Option<PathBuf>,
    #[command(subcommand)]
    server: Option<Server>,
}

/// What a kept lab goes on with when this process has ended.
#[derive(Debug, Subcommand)]
enum Server {
    /// Answers datagrams.
    #[command(hide = true)]
    UdpEcho { name: String, at: Vec<SocketAddr> },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all was as it should be.
fn run(arguments: Arguments) -> Result<bool> {
    if let Some(Server::UdpEcho { name, at }) = arguments.server {
        udp::serve_here(&name, &at)?;
        return Ok(true);
    }
    if !rustix::process::geteuid().is_root() {
        bail!("network namespaces and XDP take root: run `sudo cargo xtask demo`");
    }
    if arguments.stop {
        let removed = Lab::remove(NAME)?;
        println!(
            "demo: {}",
            if removed {
                "the lab is removed"
            } else {
                "there is no lab"
            }
        );
        return Ok(true);
    }
    let missing = nginx::missing_programs();
    if !missing.is_empty() {
        bail!(
            "not found: {}. On Debian: apt install nginx-light curl iproute2 ethtool util-linux \
             iputils-ping",
            missing.join(", ")
        );
    }
    let binary = match arguments.nlb {
        Some(path) => fs::canonicalize(&path).with_context(|| format!("{}", path.display()))?,
        None => daemon::binary()?,
    };
    interrupt::watch()?;

    let start = Instant::now();
    say(
        start,
        "building the lab: client, gateway, switch, three targets, each a namespace",
    );
    let mut lab = Lab::named(NAME)?;
    say(
        start,
        &format!("starting nlb on the gateway with {EXAMPLE_PATH}"),
    );
    lab.write_config(EXAMPLE)?;
    let daemon = lab.start_nlb_binary(&binary)?;
    let mut report = Report::default();
    if let Err(error) = show(&mut lab, &daemon, start, &mut report) {
        interrupt::check()?;
        // What was found until then is told all the same.
        report.problems.push(format!("{error:#}"));
    }

    println!("\n{report}");
    if let Some(file) = arguments.json {
        let text = serde_json::to_string_pretty(&report.figures())?;
        fs::write(&file, text + "\n").with_context(|| format!("writing {}", file.display()))?;
    }
    let well = report.problems.is_empty();
    if arguments.keep {
        let directory = lab.directory().to_owned();
        daemon.keep();
        lab.keep(serve_on)?;
        let (nlb, directory) = (binary.display(), directory.display());
        println!(
            "\nThe lab is up:
  {nlb} status --socket {directory}/nlb.sock
  nsenter --net=/run/netns/{NAME}-client -- curl http://192.0.2.10/
  nsenter --net=/run/netns/{NAME}-client -- curl 'http://[2001:db8::20]/'
  {directory}/nlb.toml is its configuration; after a change:
  {nlb} reload --socket {directory}/nlb.sock
To remove it: cargo xtask demo --stop"
        );
    }
    Ok(well)
}

fn show(lab: &mut Lab, daemon: &Daemon, start: Instant, report: &mut Report) -> Result<()> {
    let services = service::all();
    say(start, "waiting for the health checks");
    wait_until("all targets are healthy", Duration::from_secs(20), || {
        daemon
            .status()
            .is_ok_and(|status| service::targets(&status).all(|target| target.state == "healthy"))
    })
    .with_context(|| format!("nlb said:\n{}", daemon.log().unwrap_or_default()))?;

    say(
        start,
        "requests with curl and datagrams, a new flow each, to all VIPs",
    );
    spread::run(lab, daemon, &services, report)?;
    failover::run(lab, daemon, &services, report, |what| say(start, what))?;
    report.seconds = start.elapsed().as_secs_f64();
    Ok(())
}

fn say(start: Instant, what: &str) {
    println!("demo: {:5.1} s  {what}", start.elapsed().as_secs_f64());
}

/// Datagram servers that outlive this process.
fn serve_on(host: &Host, at: &[SocketAddr]) -> Result<()> {
    host.command(env::current_exe()?)
        .args(["udp-echo", host.name()])
        .args(at.iter().map(SocketAddr::to_string))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("starting a datagram server on {}", host.name()))?;
    Ok(())
}
