//! What a person types.
//!
//! `run`, `check`, `detach` and `decap` do something themselves; the others are clients of the API
//! and nothing more: [`endpoint`] says where it is, [`resources`] what of, [`assignments`] reads `KEY=VALUE`, [`print`] shows
//! answers, [`declare`] applies files, [`generated`] writes what is made from this very description.
//! [`explain`], [`flows`] and [`stops`] look at maps, with or without a daemon.

mod assignments;
pub mod capture;
mod cells;
pub mod check;
pub mod declare;
pub mod doctor;
pub mod endpoint;
pub mod events;
pub mod explain;
pub mod flows;
mod generated;
pub mod print;
pub mod resources;
pub mod stops;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

use self::endpoint::Reach;
use crate::{
    access::audit, client, config, daemon::Written, dataplane::load, decap, run, status::Status,
    top,
};

/// Where a bpffs is mounted on most hosts.
const DEFAULT_BPFFS: &str = "/sys/fs/bpf";

/// A layer-4 load balancer in XDP, with the semantics of AWS Network Load Balancer.
///
/// First steps: write a configuration (docs/examples/minimal.toml is a start), look it over with
/// `nlb check FILE`, start the daemon with `nlb run --config FILE`, and watch it with `nlb status`.
#[derive(Debug, Parser)]
#[command(
    name = "nlb",
    version,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon in the foreground
    ///
    /// Loads the XDP program, or takes over the one that an earlier daemon left running, makes the
    /// configuration live, checks targets and follows the network. SIGHUP reads the configuration
    /// again. When the daemon ends, traffic goes on as it was, and `nlb detach` ends it; with
    /// `node.on_exit = "detach"` it ends with the daemon.
    ///
    /// The log goes to standard error; `NLB_LOG` sets what is logged (error, warn, info, debug, or
    /// for instance `nlb_userspace::health=debug`).
    Run {
        /// The configuration file
        #[arg(long, short, value_name = "FILE")]
        config: PathBuf,
    },
    /// Look a configuration file over without touching anything
    ///
    /// Lists every fault with file, line, field, value, and what would be right. Exits with 0 if
    /// there is none, with 1 otherwise. Warnings do not count as faults.
    Check(check::Check),
    /// Show listeners, targets, their health, and what was counted
    Status {
        /// Where the daemon is
        #[command(flatten)]
        reach: Reach,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Have the daemon read its configuration file again
    ///
    /// Returns when the new configuration is live on the wire. If the file has faults they are
    /// listed, and nothing changes.
    Reload {
        /// Where the daemon is
        #[command(flatten)]
        reach: Reach,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List, show and change load balancers
    #[command(subcommand, visible_alias = "load-balancer")]
    Lb(resources::Lb),
    /// List, show and change the listeners of load balancers
    #[command(subcommand)]
    Listener(resources::Listener),
    /// List, show and change the source rules of load balancers
    #[command(subcommand)]
    Rule(resources::Rule),
    /// List, show and change target groups
    #[command(subcommand, visible_alias = "tg")]
    TargetGroup(resources::TargetGroup),
    /// List, show, register, change, drain and deregister targets
    #[command(subcommand)]
    Target(resources::Target),
    /// Show how targets are, with NLB's states and reasons
    Health(resources::Health),
    /// Watch listeners, targets, health, rates and stops in a terminal
    ///
    /// Looks once a second. Keys: `s` sorts by the next column, `/` filters, up and down select a
    /// target, `d` and then `y` drains it, `q` ends.
    Top {
        /// Where the daemon is
        #[command(flatten)]
        reach: Reach,
    },
    /// Look for what keeps nlb from working on this host, or from working well
    ///
    /// Looks at the kernel, permissions, the configuration's interfaces and the ways to its targets,
    /// with and without a running daemon, and changes nothing. Each finding says what it breaks and
    /// the command that mends it. Exits with 0 if there is no problem, with 1 if there is one, and
    /// with 2 if nothing could be looked at.
    Doctor(doctor::Doctor),
    /// Show what happened: health, generations, changes and who made them, warnings
    ///
    /// The daemon keeps the last 4096 events since it started; under systemd all of them are in the
    /// journal, with their fields (`journalctl -u nlb NLB_EVENT=target_health`).
    Events(events::Events),
    /// Make the configuration exactly what a file says
    ///
    /// Prints the plan, and then carries it out, unless something changed in between. What was
    /// changed over the API before is discarded; the plan names it. The file counts until the
    /// daemon's own configuration file is edited and read again; to make that one count at once,
    /// apply it.
    Apply(declare::Apply),
    /// Print what `nlb apply FILE` would change, and change nothing
    Diff(declare::Diff),
    /// Say what would become of a packet now, step by step, and why
    ///
    /// Judges a packet by the very logic that judges packets, over copies of what the running program
    /// would look up, and shows each question and answer, the verdict, and the bytes before and after.
    /// Nothing is sent, and nothing changes: no flow is remembered, nothing is counted. Each packet of a
    /// file is judged as if none of the others had come before it.
    ///
    /// Needs root, but no daemon: without one, targets and listeners are shown without names.
    Explain(Box<explain::Explain>),
    /// List, count, follow and kill the flows that are remembered
    ///
    /// Reads the flow table where it is, with all processors; packets notice nothing. An entry counts
    /// neither packets nor bytes and does not know when its flow began: what there is is how far the flow
    /// has come and when a packet of it was seen last. Packets and bytes are counted for each listener
    /// and each target, and `nlb status` shows them.
    ///
    /// Listing needs root, but no daemon; filters by names need one. Killing goes over the API, as the
    /// action `flows:kill`.
    Flows(Box<flows::Flows>),
    /// Say why packets were dropped or left early: how often, how fast, and what it means
    ///
    /// Reads the packet program's counters twice, so that each reason has a rate. Those that are counted
    /// fastest come first. Needs root, but no daemon.
    Stops(stops::Stops),
    /// Write packets to a file, as they came in and as they left, each with what became of it and why
    ///
    /// The file is of the format pcapng, which Wireshark reads: interface and direction of each frame, and
    /// as a comment what became of the packet, with listener and target. A packet that left is there twice;
    /// one that was dropped, or left to this host, once. To watch: `nlb capture -w - | wireshark -k -i -`.
    ///
    /// While this command runs, a program stands in the packet program's place and calls it for each packet.
    /// While nobody captures, packets pay nothing; while somebody does, each packet pays, also those that the
    /// filter does not mean. What is copied is bounded by --rate-limit and --buffer. If this command is
    /// killed, packets go straight on after 5 seconds, and the daemon takes away what is left.
    ///
    /// Needs root, but no daemon; filters by names need one.
    Capture(Box<capture::Capture>),
    /// Print a script that completes these commands in a shell
    ///
    /// For bash: `nlb completions bash > /etc/bash_completion.d/nlb`.
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages, one for each command
    Man {
        /// Where to; made if it is not there
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Take the XDP program off all interfaces and remove its maps
    ///
    /// Ends all forwarding at once, and forgets all flows. Refused while a daemon runs: stop it
    /// first.
    Detach {
        /// The bpffs of the configuration's node.bpffs
        #[arg(long, value_name = "DIR", default_value = DEFAULT_BPFFS)]
        bpffs: PathBuf,
        /// The configuration file, whose node.bpffs is meant
        #[arg(long, value_name = "FILE", conflicts_with = "bpffs")]
        config: Option<PathBuf>,
    },
    /// Take tunnels' headers off on a target
    ///
    /// Runs on a target of the modes dsr-ipip, dsr-gue and dsr-geneve, in the foreground, until
    /// SIGINT or SIGTERM; needs neither a daemon nor a configuration file. An XDP program takes the
    /// outer headers off packets that are for an address of this host and have a packet for a VIP
    /// inside, and hands that to the host's own stack. Everything else passes untouched.
    ///
    /// SIGUSR1 prints the counters. docs/decap.md says what else a target needs.
    Decap(decap::Options),
    /// Look after the audit log
    Audit {
        /// What to do with it
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Print the version
    Version {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What to do with an audit log.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Say whether an audit log is as it was written
    ///
    /// Follows the chain of hashes from the first line to the last. Exits with 0 and prints the last
    /// hash if it is whole, with 1 and the line where it breaks otherwise. That lines are missing at
    /// the end shows only against a last hash that was kept elsewhere.
    Verify {
        /// The log, the configuration's `node.audit_log`
        file: PathBuf,
    },
}

/// Where the running program's maps and links are pinned.
#[derive(Debug, Args)]
pub struct Pins {
    /// The bpffs of the configuration's node.bpffs
    #[arg(long, value_name = "DIR", default_value = DEFAULT_BPFFS)]
    pub bpffs: PathBuf,
}

impl Pins {
    /// The folder of the pins.
    pub fn directory(&self) -> PathBuf {
        self.bpffs.join("nlb")
    }
}

/// Does what was typed.
pub async fn run(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Run { config } => run_daemon(&config).await,
        Command::Check(check) => return check.run(),
        Command::Status { reach, json } => status(&reach, json).await,
        Command::Reload { reach, json } => reload(&reach, json).await,
        Command::Lb(lb) => lb.run().await,
        Command::Listener(listener) => listener.run().await,
        Command::Rule(rule) => rule.run().await,
        Command::TargetGroup(group) => group.run().await,
        Command::Target(target) => target.run().await,
        Command::Health(health) => health.run().await,
        Command::Top { reach } => watch(&reach).await,
        Command::Doctor(doctor) => return doctor.run().await,
        Command::Events(events) => events.run().await,
        Command::Apply(apply) => apply.run().await,
        Command::Diff(diff) => diff.run().await,
        Command::Explain(explain) => explain.run().await,
        Command::Flows(flows) => flows.run().await,
        Command::Capture(capture) => capture.run().await,
        Command::Stops(stops) => stops.run().await,
        Command::Completions { shell } => Ok(generated::completions(shell)),
        Command::Man { directory } => generated::manual(&directory),
        Command::Detach { bpffs, config } => detach(bpffs, config.as_deref()),
        Command::Decap(options) => decapsulate(&options).await,
        Command::Audit {
            command: AuditCommand::Verify { file },
        } => verify(&file),
        Command::Version { json } => version(json),
    };
    match result {
        Ok(text) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("nlb: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes to standard output; a reader that has gone away (`nlb status | head`) is no error.
fn say(text: &str) {
    let _gone = write(text);
}

/// The same, for those that end when nobody reads any more.
fn write(text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Any error on the way to the operator.
type Failure = Box<dyn std::error::Error>;

async fn run_daemon(config: &Path) -> Result<String, Failure> {
    // It is large, and made once.
    Box::pin(run::run(config)).await?;
    Ok(String::new())
}

/// `1 listener`, `2 listeners`.
fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

async fn status(reach: &Reach, json: bool) -> Result<String, Failure> {
    let status: Status = client::call(&reach.endpoint()?, hyper::Method::GET, "/v1/status").await?;
    if json {
        return Ok(format!("{}\n", serde_json::to_string_pretty(&status)?));
    }
    Ok(status.to_text())
}

async fn watch(reach: &Reach) -> Result<String, Failure> {
    top::run(&reach.endpoint()?).await?;
    Ok(String::new())
}

async fn reload(reach: &Reach, json: bool) -> Result<String, Failure> {
    let reloaded: Written =
        client::call(&reach.endpoint()?, hyper::Method::POST, "/v1/reload").await?;
    if json {
        return Ok(format!("{}\n", serde_json::to_string_pretty(&reloaded)?));
    }
    let mut text = String::new();
    for warning in &reloaded.warnings {
        let _ = writeln!(text, "{warning}");
    }
    text += &print::discarded(&reloaded);
    if reloaded.steps == 0 {
        let _ = writeln!(
            text,
            "nothing differs; generation {} is live",
            reloaded.generation
        );
    } else {
        let _ = writeln!(text, "generation {} is live", reloaded.generation);
    }
    Ok(text)
}

fn detach(bpffs: PathBuf, config: Option<&Path>) -> Result<String, Failure> {
    let bpffs = match config {
        Some(file) => config::load(file)?.node.bpffs,
        None => bpffs,
    };
    let detached = load::detach(&bpffs, &bpffs.join("nlb"))?;
    if detached.pins == 0 {
        return Ok("nothing is attached\n".to_owned());
    }
    Ok(format!(
        "detached from {}, removed {}\n",
        count(detached.links, "interface"),
        count(detached.pins - detached.links, "map")
    ))
}

fn verify(file: &Path) -> Result<String, Failure> {
    let head = audit::verify(file)?;
    Ok(format!(
        "{}: {}, each as it was written; the last has hash {}\n",
        file.display(),
        count(usize::try_from(head.lines)?, "line"),
        head.hash
    ))
}

async fn decapsulate(options: &decap::Options) -> Result<String, Failure> {
    decap::run(options).await?;
    Ok(String::new())
}

fn version(json: bool) -> Result<String, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let layout = nlb_common::maps::LAYOUT_VERSION;
    if json {
        let answer = serde_json::json!({ "version": version, "layout_version": layout });
        return Ok(format!("{}\n", serde_json::to_string_pretty(&answer)?));
    }
    Ok(format!("nlb {version} (map layout {layout})\n"))
}
