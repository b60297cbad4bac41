//! That the tables of stop reasons in `docs/operations.md` and `docs/decap.md` are those in the code.
//!
//! `NLB_BLESS=1 cargo test -p nlb-userspace --test stop_reference` writes it anew.

use std::{env, fmt::Write as _, fs, path::Path};

use nlb_common::{
    decap::DecapStop,
    stop::{Stop, StopVerdict},
};

fn line(name: &str, verdict: StopVerdict, meaning: &str) -> String {
    let verdict = match verdict {
        StopVerdict::Pass => "pass",
        StopVerdict::Drop => "drop",
    };
    format!("| `{name}` | {verdict} | {} |\n", meaning.trim())
}

fn compare(document: &str, open: &str, lines: impl Iterator<Item = String>) {
    let mut table = String::from("| Name | Verdict | Meaning |\n|---|---|---|\n");
    for line in lines {
        table.write_str(&line).unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let written = fs::read_to_string(&path).unwrap();
    let (before, rest) = written.split_once(open).unwrap();
    let (_, after) = rest.split_once("<!-- end -->").unwrap();
    let text = format!("{before}{open}{table}<!-- end -->{after}");
    if env::var_os("NLB_BLESS").is_some() {
        fs::write(&path, text).unwrap();
    } else {
        assert_eq!(written, text, "write it anew with NLB_BLESS=1");
    }
}

#[test]
fn the_operators_table_lists_every_stop_reason() {
    let stops = Stop::ALL.iter();
    compare(
        "../docs/operations.md",
        "<!-- stops -->\n",
        stops.map(|stop| line(stop.name(), stop.verdict(), stop.meaning())),
    );
}

#[test]
fn the_targets_table_lists_every_stop_reason() {
    let stops = DecapStop::ALL.iter();
    compare(
        "../docs/decap.md",
        "<!-- decap stops -->\n",
        stops.map(|stop| line(stop.name(), stop.verdict(), stop.meaning())),
    );
}
