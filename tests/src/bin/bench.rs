//! `bench [PART] [--quick] [--json FILE]`: measures, and writes the report. `cargo xtask bench` starts
//! it.

use std::{
    fs,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use clap::{Parser, ValueEnum};
use nlb_tests::bench::{
    Effort, change, designs, disruption, forwarding,
    harness::{self, Harness},
    path,
    publish::{self, Origin, Part},
    report::{Row, Table},
    scale,
};
use serde_json::{Value, json};

/// Measures nlb. Without `--quick` it also writes docs/benchmarks.md, docs/benchmarks.json and
/// docs/plots.
#[derive(Parser)]
#[command(name = "bench")]
struct Arguments {
    /// What to measure; everything if nothing is named, but quickly no designs.
    #[arg(value_enum)]
    parts: Vec<What>,
    /// Fewer rows and rounds, and nothing is written.
    #[arg(long)]
    quick: bool,
    /// Also write what was measured to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// What a packet costs.
    Cost,
    /// Flow tables of other designs.
    Designs,
    /// Real connections and live frames, beside other gateways.
    Forwarding,
    /// Connections that changes break.
    Change,
    /// Large flow tables and rings.
    Scale,
}

impl Arguments {
    fn wants(&self, what: What) -> bool {
        if self.parts.is_empty() {
            // They change with none of the program's changes.
            !self.quick || what != What::Designs
        } else {
            self.parts.contains(&what)
        }
    }
}

fn main() -> ExitCode {
    match bench(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(arguments: &Arguments) -> Result<()> {
    let start = Instant::now();
    println!("{}\n", publish::machine());
    let origin = Origin::here();
    let mut all = json!({ "machine": publish::machine() });
    for what in What::value_variants() {
        if !arguments.wants(*what) {
            continue;
        }
        let begin = Instant::now();
        let part = measure(*what, arguments.quick)?;
        println!("{}: {}\n", part.name, seconds(begin.elapsed()));
        if !arguments.quick {
            publish::publish(&origin, &part)?;
        }
        all[part.name] = part.json;
    }
    println!("{}", seconds(start.elapsed()));
    if let Some(file) = &arguments.json {
        let text = serde_json::to_string_pretty(&all)? + "\n";
        fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs())
}

fn measure(what: What, is_quick: bool) -> Result<Part> {
    match what {
        What::Cost => cost(is_quick),
        What::Designs => designs(is_quick),
        What::Forwarding => forwarding(is_quick),
        What::Change => change(is_quick),
        What::Scale => scale(is_quick),
    }
}

/// Measures on a thread of its own: what it asks for (one CPU, ahead of everybody) is not for the
/// clients of other parts.
fn settled<T: Send>(effort: Effort, measure: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            println!(
                "{}; {} rounds of {} packets; net nanoseconds per packet\n",
                harness::settle()?,
                effort.rounds,
                effort.packets
            );
            measure()
        });
        thread
            .join()
            .map_err(|_| anyhow!("a measurement panicked"))?
    })
}

const fn effort(is_quick: bool) -> Effort {
    if is_quick {
        Effort::QUICK
    } else {
        Effort::FULL
    }
}

fn rows_as_json(rows: &[Row]) -> Value {
    rows.iter().map(Row::to_json).collect()
}

fn cost(is_quick: bool) -> Result<Part> {
    let effort = effort(is_quick);
    let rows = settled(effort, || {
        let mut harness = Harness::load(designs::NO_TABLES, &[])?;
        path::measure(&mut harness, effort)
    })?;
    let title = format!("packet path, {}M-entry table", path::TABLE_ENTRIES >> 20);
    let table = Table {
        title: &title,
        rows: &rows,
    };
    println!("{table}");
    if !is_quick {
        publish::plot_cost(&rows)?;
    }
    Ok(Part {
        name: "cost",
        blocks: vec![("cost", table.to_markdown())],
        json: rows_as_json(&rows),
    })
}

fn designs(is_quick: bool) -> Result<Part> {
    let effort = effort(is_quick);
    let rows = settled(effort, || designs::measure(effort))?;
    let table = Table {
        title: "flow table designs, lookup only",
        rows: &rows,
    };
    println!("{table}");
    Ok(Part {
        name: "designs",
        blocks: vec![("designs", table.to_markdown())],
        json: rows_as_json(&rows),
    })
}

fn forwarding(is_quick: bool) -> Result<Part> {
    let effort = if is_quick {
        forwarding::Effort::QUICK
    } else {
        forwarding::Effort::FULL
    };
    let rows = forwarding::measure(effort)?;
    let table = forwarding::table(&rows);
    println!("{table}");
    if !is_quick {
        publish::plot_forwarding(&rows)?;
    }
    Ok(Part {
        name: "forwarding",
        blocks: vec![("forwarding", table)],
        json: forwarding::json(&rows),
    })
}

fn change(is_quick: bool) -> Result<Part> {
    let rings = disruption::measure();
    let rows = change::measure(is_quick)?;
    let (broken, moved) = (change::table(&rows), disruption::table(&rings));
    println!("{broken}{moved}");
    if !is_quick {
        publish::plot_change(&rows)?;
    }
    Ok(Part {
        name: "change",
        blocks: vec![("change", broken), ("disruption", moved)],
        json: json!({ "connections": change::json(&rows), "rings": disruption::json(&rings) }),
    })
}

fn scale(is_quick: bool) -> Result<Part> {
    let report = scale::measure(is_quick)?;
    let tables = report.tables();
    println!("{tables}");
    Ok(Part {
        name: "scale",
        blocks: vec![("scale", tables)],
        json: report.json(),
    })
}
