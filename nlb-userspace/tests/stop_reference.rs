//! That the table of stop reasons in `docs/operations.md` is the one in the code.
//!
//! `NLB_BLESS=1 cargo test -p nlb-userspace --test stop_reference` writes it anew.

use std::{env, fmt::Write as _, fs, path::Path};

use nlb_common::stop::{Stop, StopVerdict};

const OPEN: &str = "<!-- stops -->\n";

fn table() -> String {
    let mut text = String::from("| Name | Verdict | Meaning |\n|---|---|---|\n");
    for stop in Stop::ALL {
        let verdict = match stop.verdict() {
            StopVerdict::Pass => "pass",
            StopVerdict::Drop => "drop",
            StopVerdict::Answer => "answer",
        };
        let meaning = stop.meaning().trim();
        writeln!(text, "| `{}` | {verdict} | {meaning} |", stop.name()).unwrap();
    }
    text
}

#[test]
fn the_operators_table_lists_every_stop_reason() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let written = fs::read_to_string(&path).unwrap();
    let (before, rest) = written.split_once(OPEN).unwrap();
    let (_, after) = rest.split_once("<!-- end -->").unwrap();
    let text = format!("{before}{OPEN}{}<!-- end -->{after}", table());
    if env::var_os("NLB_BLESS").is_some() {
        fs::write(&path, text).unwrap();
    } else {
        assert_eq!(written, text, "write it anew with NLB_BLESS=1");
    }
}
