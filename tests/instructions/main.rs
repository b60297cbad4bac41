//! Budgets of the packet path, in instructions: what each kind of packet takes, counted by a machine
//! that executes the kernel's program ([`nlb_tests::machine`]). No clock is read, so a change that makes
//! a path longer is seen on any machine, however busy.
//!
//! `budget.toml` says how many each path took when it was written, and a test holds the program to
//! that, with a fiftieth for another compiler's taste. `NLB_BLESS=1` writes it anew, and with it the
//! tables of `docs/benchmarks.md`.

mod features;
mod paths;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use nlb_tests::{bench::document::Document, machine::Work};
use serde::{Deserialize, Serialize};

const BUDGET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions/budget.toml");
const DOCUMENT: &str = "benchmarks.md";

/// What a packet may take, or took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    instructions: u64,
    helper_calls: u64,
    tail_calls: u64,
}

impl From<Work> for Budget {
    fn from(work: Work) -> Self {
        Self {
            instructions: work.instructions,
            helper_calls: work.helper_calls,
            tail_calls: work.tail_calls,
        }
    }
}

impl Budget {
    /// What is over this budget.
    fn exceeded_by(&self, name: &str, used: &Self) -> Option<String> {
        let over = used.instructions > self.instructions + self.instructions / 50
            || used.helper_calls > self.helper_calls
            || used.tail_calls > self.tail_calls;
        over.then(|| format!("{name}: {used:?}, granted {self:?}"))
    }
}

fn is_blessed() -> bool {
    std::env::var_os("NLB_BLESS").is_some()
}

#[test]
fn no_packet_takes_more_instructions_than_its_path_is_granted() -> Result<()> {
    let used: BTreeMap<&str, Budget> = paths::counted()
        .iter()
        .map(|(name, work)| (name.as_str(), Budget::from(*work)))
        .collect();
    if is_blessed() {
        let text = format!(
            "# What each path took; see main.rs. Written by NLB_BLESS=1.\n\n{}",
            toml::to_string(&used)?
        );
        return std::fs::write(BUDGET, text).context("writing the budget");
    }
    let text = std::fs::read_to_string(BUDGET).context("reading the budget")?;
    let granted: BTreeMap<String, Budget> = toml::from_str(&text).context("budget.toml")?;
    let mut over = Vec::new();
    for (name, used) in &used {
        let granted = granted
            .get(*name)
            .with_context(|| format!("budget.toml has no path `{name}`"))?;
        over.extend(granted.exceeded_by(name, used));
    }
    ensure!(
        over.is_empty(),
        "paths became longer; if that is meant, NLB_BLESS=1 writes budget.toml anew:\n{}",
        over.join("\n")
    );
    let gone: Vec<_> = granted
        .keys()
        .filter(|name| !used.contains_key(name.as_str()))
        .collect();
    ensure!(
        gone.is_empty(),
        "budget.toml names paths that are gone: {gone:?}"
    );
    Ok(())
}

#[test]
fn an_optional_feature_of_another_listener_costs_a_packet_one_instruction_at_most() -> Result<()> {
    for row in features::counted() {
        for costs in [row.known, row.new] {
            ensure!(
                costs.other.abs_diff(costs.nobody) <= features::granted(row.feature),
                "{}: {costs:?}",
                row.feature.name()
            );
        }
    }
    Ok(())
}

#[test]
fn the_documentation_has_what_was_counted() -> Result<()> {
    let mut document = Document::read(DOCUMENT)?;
    let blocks = [
        ("instructions", paths::table(paths::counted())),
        ("features", features::table(features::counted())),
    ];
    if is_blessed() {
        for (name, table) in &blocks {
            document.set_block(name, table)?;
        }
        return document.write();
    }
    // The figures are those of the compiler that wrote them; the rows are everybody's.
    let rows = |table: &str| -> Vec<String> {
        let cells = table.lines().filter_map(|line| line.split('|').nth(1));
        cells.map(|cell| cell.trim().to_owned()).collect()
    };
    for (name, table) in &blocks {
        let written = rows(document.block(name)?);
        ensure!(
            written == rows(table),
            "docs/{DOCUMENT} has other rows in `{name}`; NLB_BLESS=1 writes it anew"
        );
    }
    Ok(())
}
