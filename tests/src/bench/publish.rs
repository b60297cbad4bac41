//! What a full run leaves in the repository: blocks of `docs/benchmarks.md`, `docs/benchmarks.json`,
//! and the plots. A quick run leaves nothing.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{
    change,
    document::{Document, docs},
    forwarding,
    plot::{self, Bars, Line},
    report::Row,
};

/// Where the figures come from: the day, the commit and the machine.
#[derive(Clone, Debug)]
pub struct Origin(String);

impl Origin {
    /// Here and now.
    pub fn here() -> Self {
        let ask = |program: &str, words: &[&str]| {
            let output = Command::new(program).args(words).output().ok();
            let output = output.filter(|output| output.status.success());
            output.map_or_else(String::new, |output| {
                String::from_utf8_lossy(&output.stdout).trim().to_owned()
            })
        };
        let changes = if ask("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty() {
            ""
        } else {
            ", with changes"
        };
        Self(format!(
            "{}, commit {}{changes}; {}",
            ask("date", &["-u", "+%F"]),
            ask("git", &["rev-parse", "--short=10", "HEAD"]),
            machine()
        ))
    }
}

/// Processor, cores, kernel.
pub fn machine() -> String {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        processor
            .lines()
            .filter(|line| line.starts_with(name))
            .find_map(|line| line.split_once(':'))
            .map_or("unknown", |(_, value)| value.trim())
            .to_owned()
    };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kind = if processor.contains(" hypervisor") {
        "virtual machine"
    } else {
        "machine"
    };
    format!(
        "{} (family {}, model {}), {kind} with {cores} cores, Linux {}",
        field("model name"),
        field("cpu family"),
        field("model\t"),
        kernel.trim()
    )
}

/// One part of the report.
#[derive(Clone, Debug)]
pub struct Part {
    /// The part's name: the word of the command line.
    pub name: &'static str,
    /// Its blocks in the document, with their tables.
    pub blocks: Vec<(&'static str, String)>,
    /// For machines.
    pub json: Value,
}

/// Writes a part's figures.
pub fn publish(origin: &Origin, part: &Part) -> Result<()> {
    let mut document = Document::read("benchmarks.md")?;
    for (block, table) in &part.blocks {
        let head = format!("\n`cargo xtask bench {}`: {}.\n", part.name, origin.0);
        document.set_block(block, &(head + table))?;
    }
    document.write()?;
    let file = docs().join("benchmarks.json");
    let text = fs::read_to_string(&file).unwrap_or_else(|_| "{}".into());
    let mut all: Value =
        serde_json::from_str(&text).with_context(|| format!("{} is no JSON", file.display()))?;
    all[part.name] = json!({ "origin": origin.0, "figures": part.json });
    let text = serde_json::to_string_pretty(&all)? + "\n";
    fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
}

fn plot_file(name: &str) -> Result<PathBuf> {
    let folder = docs().join("plots");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder.join(name))
}

/// What a packet costs over the number of flows: IPv4, TCP, every mode, with the goals.
pub fn plot_cost(rows: &[Row]) -> Result<()> {
    let mut lines: Vec<Line> = Vec::new();
    let mut goals: Vec<(f64, f64)> = Vec::new();
    for row in rows {
        let title = row.title();
        let is_plotted =
            title.what.ends_with(" hit, v4 tcp") || title.what == "dsr-l2 by the ring, v4 tcp";
        if title.flows == 0 || !is_plotted {
            continue;
        }
        let name = title.what.trim_end_matches(", v4 tcp");
        let flows = f64::from(title.flows);
        let point = (flows, row.cost().median_ns);
        match lines.iter_mut().find(|line| line.name == name) {
            Some(line) => line.points.push(point),
            None => lines.push(Line {
                name: name.to_owned(),
                points: vec![point],
                is_goal: false,
            }),
        }
        if name == "dsr-ipip hit" {
            goals.extend(row.goal_ns().map(|goal| (flows, goal)));
        }
    }
    lines.push(Line {
        name: "goal, dsr-ipip".into(),
        points: goals,
        is_goal: true,
    });
    let title = "Cost of a packet of an established flow (v4, TCP, median)";
    plot::lines(&plot_file("cost.svg")?, title, "ns", &lines)
}

/// What gateways do, as multiples of plain routing.
pub fn plot_forwarding(rows: &[forwarding::Row]) -> Result<()> {
    let routing = &rows[0];
    let bars = |name: &str, of: &dyn Fn(&forwarding::Row) -> Option<f64>| Bars {
        name: name.into(),
        heights: rows
            .iter()
            .map(|row| Some(of(row)? / of(routing)?))
            .collect(),
    };
    let all = [
        bars("connections/s", &|row| Some(row.connections_per_second)),
        bars("bytes/s", &|row| Some(row.bytes_per_second)),
        bars("frames/s", &|row| row.frames_per_second),
    ];
    let groups: Vec<String> = rows.iter().map(|row| row.rival.name().into()).collect();
    let title = "Forwarding, as multiples of plain routing";
    plot::bars(
        &plot_file("forwarding.svg")?,
        title,
        "× routing",
        &groups,
        &all,
    )
}

/// Connections that broke.
pub fn plot_change(rows: &[change::Row]) -> Result<()> {
    let count = |count: usize| u32::try_from(count).ok().map(f64::from);
    let bars = |name: &str, mode: &str, of: fn(&change::Row) -> usize| Bars {
        name: name.into(),
        heights: rows
            .iter()
            .filter(|row| row.mode == mode)
            .map(|row| count(of(row)))
            .collect(),
    };
    let all = [
        bars("nat: broken", "nat", |row| row.broken),
        bars("nat: lost with their server", "nat", |row| {
            row.lost_with_server
        }),
        bars("dsr-l2: broken", "dsr-l2", |row| row.broken),
        bars("dsr-l2: lost with their server", "dsr-l2", |row| {
            row.lost_with_server
        }),
    ];
    let groups: Vec<String> = rows
        .iter()
        .filter(|row| row.mode == "nat")
        .map(|row| row.event.short_name().into())
        .collect();
    let title = format!(
        "Connections broken by a change, of {} open ones",
        change::HELD
    );
    plot::bars(
        &plot_file("change.svg")?,
        &title,
        "connections",
        &groups,
        &all,
    )
}
