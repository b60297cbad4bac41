//! `bench [--quick] [--json FILE]`: measures what a packet costs. `cargo xtask bench` starts it.

use std::{env, fs, process::ExitCode, time::Instant};

use anyhow::{Context as _, Result, bail};
use nlb_tests::bench::{
    Effort, designs,
    harness::{self, Harness},
    path,
    report::{Row, Table},
};
use serde_json::json;

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    let mut effort = Effort::FULL;
    let mut file = None;
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => effort = Effort::QUICK,
            "--json" => file = Some(arguments.next().context("`--json` needs a file's name")?),
            other => bail!("`bench` does not take `{other}`"),
        }
    }
    let start = Instant::now();
    println!("{}", machine());
    println!(
        "{}; {} rounds of {} packets; net nanoseconds per packet\n",
        harness::settle()?,
        effort.rounds,
        effort.packets
    );
    let mut harness = Harness::load(designs::NO_TABLES, &[])?;
    let path = path::measure(&mut harness, effort)?;
    drop(harness);
    let title = format!("packet path, {}M-entry table", path::TABLE_ENTRIES >> 20);
    println!(
        "{}",
        Table {
            title: &title,
            rows: &path
        }
    );
    let designs = designs::measure(effort)?;
    println!(
        "{}",
        Table {
            title: "flow table designs, lookup only",
            rows: &designs
        }
    );
    println!("{} s", start.elapsed().as_secs());
    if let Some(file) = file {
        let rows = |rows: &[Row]| rows.iter().map(Row::to_json).collect::<Vec<_>>();
        let value = json!({
            "machine": machine(),
            "rounds": effort.rounds,
            "packets_per_round": effort.packets,
            "path": rows(&path),
            "designs": rows(&designs),
        });
        let text = serde_json::to_string_pretty(&value)?;
        fs::write(&file, text + "\n").with_context(|| format!("writing {file}"))?;
    }
    Ok(())
}

/// Processor, cores, kernel.
fn machine() -> String {
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
