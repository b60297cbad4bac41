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
        places: &[
            "nlb-userspace/src/dataplane.rs",
            "nlb-userspace/src/dataplane/",
            "tests/",
            PLAIN,
        ],
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
            "nlb-ebpf/src/kernel/",
            PLAIN,
            "nlb-userspace/src/sys.rs",
            "tests/src/sys.rs",
        ],
        why: "unsafe code is kept in files that are read for it",
    },
];

const KERNEL: &[&str] = &[
    "nlb-ebpf/src/main.rs",
    "nlb-ebpf/src/pass.rs",
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
    let mut count = 0;
    for file in FOLDERS
        .iter()
        .map(|folder| sources(&root.join(folder)))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
    {
        let text =
            fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let name = file.strip_prefix(&root).unwrap_or(&file).to_string_lossy();
        breaches.extend(breaches_in(&name, &text));
        count += 1;
    }
    for breach in &breaches {
        println!("lint: {breach}");
    }
    if breaches.is_empty() {
        println!("lint: {count} files keep the rules");
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
    for rule in rules {
        for (index, line) in text.lines().enumerate() {
            let code = code_of(line);
            let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
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

/// A line without its comment and without what stands in its string literals.
///
/// Line by line is enough: rustfmt puts no code on the lines of a long string, and the words
/// looked for do not occur in one.
fn code_of(line: &str) -> String {
    let mut code = String::new();
    let mut characters = line.chars().peekable();
    let mut quoted = false;
    while let Some(character) = characters.next() {
        match character {
            '\\' if quoted => {
                characters.next();
            }
            '"' => quoted = !quoted,
            '/' if !quoted && characters.peek() == Some(&'/') => break,
            _ if !quoted => code.push(character),
            _ => {}
        }
    }
    code
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
    fn the_packet_library_must_forbid_unsafe_code() {
        assert_eq!(breaches_in("nlb-ebpf/src/lib.rs", "#![no_std]").len(), 1);
        assert!(breaches_in("nlb-ebpf/src/lib.rs", "#![forbid(unsafe_code)]").is_empty());
    }
}
