//! `cargo xtask lint`: the rules of the layout that no compiler checks.
//!
//! aya and aya-ebpf each stay behind one door, so that everything else runs and is tested without a
//! kernel; and whoever looks for `unsafe` has a short list of files to read.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use xtask::workspace_root;

/// Where each rule looks.
const FOLDERS: [&str; 5] = ["nlb-common", "nlb-ebpf", "nlb-userspace", "tests", "xtask"];

/// A word of Rust that may stand only in some places.
struct Rule {
    words: &'static [&'static str],
    /// Files, or folders with a slash at the end.
    places: &'static [&'static str],
    why: &'static str,
}

const RULES: [Rule; 3] = [
    Rule {
        words: &["aya", "aya_log", "aya_obj"],
        // `plain.rs` says that the shared types may be values of maps.
        places: &["nlb-userspace/src/dataplane/", "tests/", PLAIN],
        why: "maps and programs are reached through the dataplane module",
    },
    Rule {
        words: &["aya_ebpf", "aya_log_ebpf"],
        places: KERNEL,
        why: "the packet logic runs without a kernel, too",
    },
    Rule {
        words: &["unsafe"],
        places: &[
            "nlb-ebpf/src/main.rs",
            "nlb-ebpf/src/pass.rs",
            "nlb-ebpf/src/bench/",
            "nlb-ebpf/src/kernel/",
            PLAIN,
            "nlb-common/src/word.rs",
            "nlb-userspace/src/dataplane/batch.rs",
            "nlb-userspace/src/dataplane/capture/syscall.rs",
            "nlb-userspace/src/dataplane/events.rs",
            "nlb-userspace/src/dataplane/log.rs",
            "nlb-userspace/src/dataplane/shared.rs",
        ],
        why: "unsafe code is kept in files that are read for it",
    },
];

const KERNEL: &[&str] = &[
    "nlb-ebpf/src/main.rs",
    "nlb-ebpf/src/pass.rs",
    "nlb-ebpf/src/bench/",
    "nlb-ebpf/src/kernel/",
];

const PLAIN: &str = "nlb-common/src/plain.rs";

/// Crate roots that promise to hold no unsafe code at all, which `forbid` makes impossible to
/// take back further down.
const FORBIDDING: [&str; 3] = [
    "nlb-ebpf/src/lib.rs",
    "xtask/src/lib.rs",
    "xtask/src/main.rs",
];

/// Prints each breach; `false` if there is one.
pub(crate) fn lint() -> Result<bool> {
    let root = workspace_root();
    let mut breaches = Vec::new();
    let mut files = Vec::new();
    for folder in FOLDERS {
        files.extend(sources(&root.join(folder))?);
    }
    for file in &files {
        let text =
            fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let name = file.strip_prefix(&root).unwrap_or(file).to_string_lossy();
        breaches.extend(breaches_in(&name, &text));
    }
    for breach in &breaches {
        println!("lint: {breach}");
    }
    if breaches.is_empty() {
        println!("lint: {} files keep the rules", files.len());
    }
    Ok(breaches.is_empty())
}

fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn breaches_in(name: &str, text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    if FORBIDDING.contains(&name) && !text.contains("#![forbid(unsafe_code)]") {
        breaches.push(format!("{name}:1: `#![forbid(unsafe_code)]` is missing"));
    }
    let rules = RULES.iter().filter(|rule| {
        !rule.places.iter().any(|place| {
            if place.ends_with('/') {
                name.starts_with(place)
            } else {
                name == *place
            }
        })
    });
    let code = code_of(text);
    for rule in rules {
        for (index, line) in code.lines().enumerate() {
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            if let Some(word) = words.find(|word| rule.words.contains(word)) {
                let (line, why) = (index + 1, rule.why);
                let places = rule.places.join(", ");
                breaches.push(format!(
                    "{name}:{line}: `{word}` may stand only in {places}: {why}"
                ));
            }
        }
    }
    breaches
}

/// A file without its comments and without what stands in its string literals; lines stay lines.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let length = match character {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => end_of(rest, "*/"),
            '"' => string_length(rest),
            'r' if rest.starts_with("r\"") => end_of(rest, "\""),
            'r' if rest.starts_with("r#\"") => end_of(rest, "\"#"),
            // A quotation mark as a character begins no string.
            '\'' if rest.starts_with("'\"'") => 3,
            '\'' if rest.starts_with("'\\\"'") => 4,
            _ => {
                code.push(character);
                rest = &rest[character.len_utf8()..];
                continue;
            }
        };
        let (dropped, after) = rest.split_at(length);
        code.extend(dropped.chars().filter(|character| *character == '\n'));
        code.push(' ');
        rest = after;
    }
    code
}

/// The length up to and with the mark that ends what begins here.
fn end_of(text: &str, mark: &str) -> usize {
    text.get(2..)
        .and_then(|body| body.find(mark))
        .map_or(text.len(), |at| 2 + at + mark.len())
}

fn string_length(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aya_outside_the_dataplane_is_a_breach_with_its_line() {
        let text = "//! Plans.\n\nuse aya::maps::Array;\n";
        let breaches = breaches_in("nlb-userspace/src/plan.rs", text);
        assert_eq!(breaches.len(), 1);
        assert!(breaches[0].starts_with("nlb-userspace/src/plan.rs:3: `aya`"));
        assert!(breaches_in("nlb-userspace/src/dataplane/load.rs", text).is_empty());
        assert!(breaches_in("tests/src/kernel.rs", text).is_empty());
    }

    #[test]
    fn aya_ebpf_is_for_the_kernel_programs_alone() {
        let text = "use aya_ebpf::programs::XdpContext;";
        assert!(breaches_in("nlb-ebpf/src/kernel/frame.rs", text).is_empty());
        assert!(breaches_in("nlb-ebpf/src/pass.rs", text).is_empty());
        assert_eq!(breaches_in("nlb-ebpf/src/parse.rs", text).len(), 1);
    }

    #[test]
    fn words_in_comments_strings_and_longer_names_are_no_breach() {
        let text = "// aya is elsewhere\nlet x = \"aya \\\" unsafe\"; // unsafe\nlet ayah = maya;\n\
                    #![deny(unsafe_code)]\nlet url = \"http://aya\";";
        assert!(breaches_in("nlb-userspace/src/plan.rs", text).is_empty());
    }

    #[test]
    fn strings_may_go_over_lines_and_hold_quotation_marks() {
        let text = "let a = '\"';\nlet b = \"\n unsafe aya\n\";\nlet c = r#\"a \"aya\" b\"#;\n\
                    /* unsafe\n */ let d = r\"\\\";\nunsafe {}\n";
        let breaches = breaches_in("nlb-userspace/src/plan.rs", text);
        assert_eq!(breaches.len(), 1);
        assert!(
            breaches[0].starts_with("nlb-userspace/src/plan.rs:8: "),
            "{breaches:?}"
        );
    }

    #[test]
    fn the_packet_library_must_forbid_unsafe_code() {
        assert_eq!(breaches_in("nlb-ebpf/src/lib.rs", "#![no_std]").len(), 1);
        assert!(breaches_in("nlb-ebpf/src/lib.rs", "#![forbid(unsafe_code)]").is_empty());
    }
}
