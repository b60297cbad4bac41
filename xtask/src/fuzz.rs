//! `cargo xtask fuzz`: runs each target of `tests/fuzz` for a while.
//!
//! libFuzzer is started through cargo-fuzz, which wants a nightly compiler. What the fuzzer learns
//! stays below the target folder and serves the next run; the seeds in `tests/fuzz/corpus` are only
//! read. `cargo test --test properties` goes through those without either.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use anyhow::{Context as _, Result, bail};
use xtask::{
    environment::outside_cargo,
    toolchain::{look, search_path},
    workspace_root,
};

use crate::{
    packages,
    run::{listen, shown},
    tally::Tally,
};

/// How long each target runs unless `--seconds` says otherwise.
const SECONDS: u64 = 20;

/// An input that takes longer than this is a finding.
const SLOWEST_SECONDS: u64 = 10;

/// The cargo-fuzz package, relative to the workspace root.
const PACKAGE: &str = "tests/fuzz";

/// One fuzz target.
struct Target {
    name: &'static str,
    /// The longest input.
    longest_bytes: usize,
    /// Folders with inputs beside the target's own seeds, relative to the workspace root.
    more_seeds: &'static [&'static str],
}

const TARGETS: [Target; 2] = [
    Target {
        name: "packet",
        // A full Ethernet frame with two tags, and something over.
        longest_bytes: 1600,
        more_seeds: &[],
    },
    Target {
        name: "config",
        longest_bytes: 4096,
        more_seeds: &["docs/examples", "nlb-userspace/tests/config_faults"],
    },
];

/// What libFuzzer says about a run at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Figures {
    runs: u64,
    runs_per_second: u64,
    /// Edges of the program's control flow that were taken.
    edges: u64,
    /// Edges, told apart by how often they were taken, and values that were compared.
    features: u64,
    /// Inputs kept because each reaches something that the others do not.
    inputs: u64,
}

impl Figures {
    /// Reads `#1048576 DONE cov: 33 ft: 70 corp: 12/97b lim: 4096 exec/s: 65536 rss: 60Mb`.
    fn of(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = |name: &str| {
            let at = words.iter().position(|word| *word == name)?;
            words.get(at + 1)?.split('/').next()?.parse().ok()
        };
        if words.get(1) != Some(&"DONE") {
            return None;
        }
        Some(Self {
            runs: words.first()?.strip_prefix('#')?.parse().ok()?,
            runs_per_second: after("exec/s:")?,
            edges: after("cov:")?,
            features: after("ft:")?,
            inputs: after("corp:")?,
        })
    }
}

/// Where cargo-fuzz is.
pub(crate) fn find_cargo_fuzz() -> Option<PathBuf> {
    search_path()
        .into_iter()
        .map(|folder| folder.join("cargo-fuzz"))
        .find(|program| program.is_file())
}

/// Why there can be no fuzzing here, if so, and what would help.
fn obstacle() -> Result<Option<&'static str>> {
    Ok(if look()?.nightly.is_none() {
        Some("rustup has no nightly toolchain; `rustup toolchain install nightly` installs one")
    } else if find_cargo_fuzz().is_none() {
        Some("cargo-fuzz is not installed; `cargo xtask setup` does it")
    } else if !packages::missing(&[packages::CXX]).is_empty() {
        Some("there is no C++ compiler for libFuzzer; `cargo xtask setup` installs one")
    } else {
        None
    })
}

/// The subcommand: `false` when a target failed.
pub(crate) fn fuzz(arguments: &[String]) -> Result<bool> {
    let seconds = seconds(arguments)?;
    if let Some(obstacle) = obstacle()? {
        bail!("{obstacle}");
    }
    run_all(seconds, &mut Tally::default())
}

fn seconds(arguments: &[String]) -> Result<u64> {
    match arguments {
        [] => Ok(SECONDS),
        [option, number] if option == "--seconds" => number
            .parse()
            .ok()
            // libFuzzer takes 0 for no end.
            .filter(|seconds| *seconds > 0)
            .with_context(|| format!("`--seconds {number}` is not a number of seconds from 1 on")),
        _ => bail!("`cargo xtask fuzz` takes `--seconds N` and nothing else"),
    }
}

/// The step of `cargo xtask test`: skipped where something is missing that nothing else needs.
pub(crate) fn step(seconds: u64, tally: &mut Tally) -> Result<bool> {
    if let Some(obstacle) = obstacle()? {
        skip(obstacle, tally);
        return Ok(true);
    }
    run_all(seconds, tally)
}

fn skip(obstacle: &str, tally: &mut Tally) {
    let line = format!("SKIPPED fuzz: {obstacle}");
    println!("{line}");
    tally.read(&line);
}

/// Builds the targets and runs each, even after one failed.
fn run_all(seconds: u64, tally: &mut Tally) -> Result<bool> {
    let root = workspace_root();
    share_lock(&root)?;
    let is_built = listen(&mut cargo_fuzz(&root, "build"), |line| println!("{line}"))?;
    if !is_built {
        println!("fuzz: the targets do not build; see above");
        return Ok(false);
    }
    let mut is_ok = true;
    for target in &TARGETS {
        if target.run(&root, seconds)? {
            tally.passed += 1;
        } else {
            tally.failed += 1;
            is_ok = false;
        }
    }
    Ok(is_ok)
}

/// The targets are a workspace of their own, but what they test is built from the same versions as
/// everywhere else: their lock file begins as a copy of the workspace's, and is not kept in git.
fn share_lock(root: &Path) -> Result<()> {
    let (from, to) = (
        root.join("Cargo.lock"),
        root.join(PACKAGE).join("Cargo.lock"),
    );
    let written = |path: &Path| fs::metadata(path).and_then(|entry| entry.modified()).ok();
    if written(&to).is_none_or(|copied| written(&from).is_some_and(|changed| changed > copied)) {
        fs::copy(&from, &to)
            .with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

/// Beside the other builds, which have other flags.
fn target_dir(root: &Path) -> PathBuf {
    env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root.join("target"), |folder| root.join(folder))
        .join("fuzz")
}

fn cargo_fuzz(root: &Path, what: &str) -> Command {
    // Not `cargo +nightly`: the `cargo` on PATH need not be rustup's.
    let mut command = outside_cargo(Path::new("rustup"));
    command
        .current_dir(root)
        .args(["run", "nightly", "cargo", "fuzz", what])
        .args(["--fuzz-dir", PACKAGE, "--target-dir"])
        .arg(target_dir(root));
    command
}

impl Target {
    /// Runs it and says what came of it; `false` for a finding.
    fn run(&self, root: &Path, seconds: u64) -> Result<bool> {
        let learned = target_dir(root).join("corpus").join(self.name);
        fs::create_dir_all(&learned)
            .with_context(|| format!("making the folder {}", learned.display()))?;
        let mut command = cargo_fuzz(root, "run");
        command
            .arg(self.name)
            // libFuzzer writes to the first folder only.
            .arg(&learned)
            .arg(Path::new(PACKAGE).join("corpus").join(self.name))
            .args(self.more_seeds)
            .arg("--")
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={}", self.longest_bytes))
            .arg(format!("-timeout={SLOWEST_SECONDS}"));
        let heard = Mutex::new(Vec::new());
        let has_ended_well = listen(&mut command, |line| {
            if let Ok(mut heard) = heard.lock() {
                heard.push(line.to_owned());
            }
        })?;
        let heard = heard.into_inner().unwrap_or_default();
        if let Some(figures) = heard.iter().find_map(|line| Figures::of(line))
            && has_ended_well
        {
            let Figures {
                runs,
                runs_per_second,
                edges,
                features,
                inputs,
            } = figures;
            println!(
                "fuzz: {}: ok, {runs} runs ({runs_per_second}/s), {edges} edges, {features} \
                 features, {inputs} inputs kept",
                self.name
            );
            return Ok(true);
        }
        for line in heard.iter().filter(|line| !is_progress(line)) {
            println!("{line}");
        }
        match heard.iter().find_map(|line| artifact(line)) {
            Some(artifact) => println!("{}", self.finding(root, artifact)),
            None => println!("fuzz: {}: FAILED without an input; see above", self.name),
        }
        Ok(false)
    }

    /// What to do about an input that broke something.
    fn finding(&self, root: &Path, artifact: &str) -> String {
        let name = self.name;
        let artifact = Path::new(artifact);
        let artifact = artifact.strip_prefix(root).unwrap_or(artifact).display();
        let mut replay = cargo_fuzz(root, "run");
        replay.arg(name).arg(artifact.to_string());
        format!(
            "fuzz: {name}: FAILED by the input {artifact}\n\
             fuzz: once more:  {}\n\
             fuzz: smaller:    the same with `tmin` for `run`\n\
             fuzz: for good:   move it to {PACKAGE}/corpus/{name} under a name that says what it is, \
             and write its sentence into {PACKAGE}/corpus/README.md",
            shown(&replay)
        )
    }
}

/// Whether libFuzzer only says how far it is: `#4096 pulse …`; stack traces are indented.
fn is_progress(line: &str) -> bool {
    line.strip_prefix('#')
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Where libFuzzer wrote an input that broke something.
fn artifact(line: &str) -> Option<&str> {
    line.split_once("Test unit written to ")
        .map(|(_, path)| path.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_that_is_written_is_run() {
        let folder = workspace_root().join(PACKAGE).join("fuzz_targets");
        let mut written: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        written.sort();
        let mut run = TARGETS.map(|target| target.name);
        run.sort_unstable();
        assert_eq!(written, run);
    }

    #[test]
    fn figures_are_read_from_the_last_line_and_from_no_other() {
        let line = "#1048576\tDONE   cov: 33 ft: 70 corp: 12/97b lim: 4096 exec/s: 65536 rss: 60Mb";
        let figures = Figures {
            runs: 1_048_576,
            runs_per_second: 65_536,
            edges: 33,
            features: 70,
            inputs: 12,
        };
        assert_eq!(Figures::of(line), Some(figures));
        assert_eq!(Figures::of(&line.replace("DONE", "pulse")), None);
        assert_eq!(Figures::of("Done 1048576 runs in 16 second(s)"), None);
    }

    #[test]
    fn a_finding_names_its_input_and_how_to_replay_it() {
        let line = "artifact_prefix='/r/tests/fuzz/artifacts/packet/'; Test unit written to \
                    /r/tests/fuzz/artifacts/packet/crash-0a";
        let text = TARGETS[0].finding(Path::new("/r"), artifact(line).unwrap());
        assert!(text.contains("by the input tests/fuzz/artifacts/packet/crash-0a\n"));
        assert!(text.contains("rustup run nightly cargo fuzz run --fuzz-dir tests/fuzz"));
        assert!(text.contains(" packet tests/fuzz/artifacts/packet/crash-0a\n"));
    }

    #[test]
    fn a_missing_fuzzer_counts_as_one_skipped_test() {
        let mut tally = Tally::default();
        skip("cargo-fuzz is not installed", &mut tally);
        assert_eq!((tally.passed, tally.failed, tally.skipped()), (0, 0, 1));
    }

    #[test]
    fn progress_is_hidden_and_stack_traces_are_not() {
        assert!(is_progress("#4096\tpulse  cov: 33 ft: 70"));
        assert!(!is_progress("    #0 0x55d0 in handle"));
        assert!(!is_progress("thread panicked"));
    }

    #[test]
    fn a_time_without_end_is_refused() {
        let seconds = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            seconds(&words)
        };
        assert_eq!(seconds(&[]).unwrap(), SECONDS);
        assert_eq!(seconds(&["--seconds", "3"]).unwrap(), 3);
        seconds(&["--seconds", "0"]).unwrap_err();
        seconds(&["3"]).unwrap_err();
    }
}
