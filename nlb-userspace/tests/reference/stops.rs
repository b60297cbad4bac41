//! That the tables of stop reasons in `docs/operations.md` and `docs/decap.md` are those in the code.

use std::{fmt::Write as _, fs};

use nlb_common::{
    decap::DecapStop,
    stop::{Stop, StopVerdict},
};

use crate::document;

fn line(name: &str, verdict: StopVerdict, meaning: &str) -> String {
    let verdict = match verdict {
        StopVerdict::Pass => "pass",
        StopVerdict::Drop => "drop",
        StopVerdict::Answer => "answer",
    };
    format!("| `{name}` | {verdict} | {} |\n", meaning.trim())
}

fn compare(document: &str, open: &str, lines: impl Iterator<Item = String>) {
    let mut table = String::from("| Name | Verdict | Meaning |\n|---|---|---|\n");
    for line in lines {
        table.write_str(&line).unwrap();
    }
    let written = fs::read_to_string(document::path(document)).unwrap();
    document::must_be(document, &document::with_block(&written, open, &table));
}

#[test]
fn the_operators_table_lists_every_stop_reason() {
    let stops = Stop::ALL.iter();
    compare(
        "operations.md",
        "<!-- stops -->\n",
        stops.map(|stop| line(stop.name(), stop.verdict(), stop.meaning())),
    );
}

#[test]
fn the_targets_table_lists_every_stop_reason() {
    let stops = DecapStop::ALL.iter();
    compare(
        "decap.md",
        "<!-- decap stops -->\n",
        stops.map(|stop| line(stop.name(), stop.verdict(), stop.meaning())),
    );
}
