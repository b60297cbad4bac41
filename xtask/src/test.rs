//! `cargo xtask test`: every check, the cheap ones first, to the end even after a failure.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::{self, BufRead, BufReader, IsTerminal as _},
    path::Path,
    process::{Command, Stdio},
    sync::Mutex,
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result};
use xtask::workspace_root;

use crate::{
    lint,
    run::{Privilege, cargo, shown},
    setup,
};

/// The suites of nlb-tests from the cheapest rung to the dearest; others come last.
const RUNGS: [&str; 6] = [
    "packets",
    "properties",
    "config",
    "verifier",
    "differential",
    "netns",
];

/// Suites that load programs into the kernel and so need root.
const WITH_KERNEL: [&str; 3] = ["verifier", "differential", "netns"];

/// What the output of test programs adds up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// `name: reason`; a set, since captured output can be shown twice.
    skipped: BTreeSet<String>,
}

impl Tally {
    /// Takes in one line of output.
    fn read(&mut self, line: &str) {
        if let Some((_, result)) = line.split_once("test result: ") {
            for part in result.split(['.', ';']) {
                let (count, kind) = part.trim().split_once(' ').unwrap_or_default();
                let count = count.parse().unwrap_or(0);
                match kind {
                    "passed" => self.passed += count,
                    "failed" => self.failed += count,
                    "ignored" => self.ignored += count,
                    _ => {}
                }
            }
        } else if let Some((before, skipped)) = line.split_once("SKIPPED ") {
            // libtest may have begun the line: `test name ... SKIPPED name: reason`.
            let stands_alone = before.is_empty() || before.ends_with(' ');
            if stands_alone && skipped.contains(": ") {
                self.skipped.insert(skipped.trim_end().into());
            }
        }
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.skipped.extend(other.skipped);
    }

    fn skipped(&self) -> u64 {
        self.ignored + self.skipped.len() as u64
    }
}

/// One line of the summary.
struct Outcome {
    name: String,
    is_ok: bool,
    seconds: f64,
    tally: Tally,
}

/// Something to do, told by its name and its command.
enum Step {
    Setup,
    Lint,
    Cargo(String, Vec<String>),
}

impl Step {
    fn name(&self) -> &str {
        match self {
            Self::Setup => "setup",
            Self::Lint => "lint",
            Self::Cargo(name, _) => name,
        }
    }
}

/// Runs every step; `false` when one failed.
pub(crate) fn test(is_quick: bool) -> Result<bool> {
    let begin = Instant::now();
    let steps = steps(
        &suites(&workspace_root().join("tests"))?,
        is_quick,
        Privilege::look(),
    );
    let mut outcomes = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        outcomes.push(perform(step, &format!("[{}/{}]", index + 1, steps.len())));
    }
    print!("{}", summary(&outcomes, begin.elapsed().as_secs_f64()));
    Ok(outcomes.iter().all(|outcome| outcome.is_ok))
}

fn steps(suites: &[Suite], is_quick: bool, privilege: Privilege) -> Vec<Step> {
    let step = |name: &str, line: &str| {
        Step::Cargo(name.into(), line.split(' ').map(String::from).collect())
    };
    let mut steps = if is_quick {
        Vec::new()
    } else {
        vec![Step::Setup]
    };
    steps.extend([
        step("fmt", "fmt --all --check"),
        step("clippy", "clippy --workspace --all-targets -- -D warnings"),
        Step::Lint,
        step(
            "unit",
            "test --workspace --exclude nlb-tests --no-fail-fast",
        ),
        step(
            "unit nlb-tests",
            "test --package nlb-tests --lib --bins --no-fail-fast",
        ),
        // The suites start the daemon, and cargo builds binaries only for tests of their package.
        step(
            "build",
            "build --package nlb-userspace --package nlb-tests --bins",
        ),
    ]);
    for suite in suites {
        let has_kernel = WITH_KERNEL.contains(&suite.name.as_str());
        if is_quick && has_kernel {
            continue;
        }
        let line = format!(
            "test --package nlb-tests --test {} --no-fail-fast",
            suite.name
        );
        let mut words: Vec<String> = line.split(' ').map(String::from).collect();
        if has_kernel {
            words.extend(privilege.cargo_runner().iter().map(ToString::to_string));
        }
        if suite.has_harness {
            // Captured output holds the reason why a test skipped itself.
            words.extend(["--".into(), "--show-output".into()]);
        }
        steps.push(Step::Cargo(suite.name.clone(), words));
    }
    steps
}

fn perform(step: &Step, place: &str) -> Outcome {
    let name = step.name();
    println!("\n{place} {name}");
    let begin = Instant::now();
    let mut tally = Tally::default();
    let result = match step {
        Step::Setup => setup::setup().map(|()| true),
        Step::Lint => lint::lint(),
        Step::Cargo(_, words) => listen(
            cargo().current_dir(workspace_root()).args(words),
            &mut tally,
        ),
    };
    let is_ok = result.unwrap_or_else(|error| {
        println!("error: {error:#}");
        false
    });
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{place} {name}: {}, {seconds:.1} s",
        if is_ok { "ok" } else { "FAILED" }
    );
    Outcome {
        name: name.into(),
        is_ok,
        seconds,
        tally,
    }
}

/// Runs a command, shows what it prints as it comes, and counts.
fn listen(command: &mut Command, tally: &mut Tally) -> Result<bool> {
    let line = shown(command);
    println!("  $ {line}");
    // A pipe would turn cargo's colours off.
    if io::stdout().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting `{line}`"))?;
    let heard = Mutex::new(tally);
    let hear = |line: &str| {
        println!("{line}");
        if let Ok(mut tally) = heard.lock() {
            tally.read(line);
        }
    };
    thread::scope(|scope| {
        if let Some(errors) = child.stderr.take() {
            scope.spawn(|| each_line(BufReader::new(errors), hear));
        }
        if let Some(output) = child.stdout.take() {
            each_line(BufReader::new(output), hear);
        }
    });
    Ok(child
        .wait()
        .with_context(|| format!("waiting for `{line}`"))?
        .success())
}

/// Lines of a stream that need not be UTF-8: tests may print packets.
fn each_line(mut stream: impl BufRead, hear: impl Fn(&str)) {
    let mut line = Vec::new();
    while stream
        .read_until(b'\n', &mut line)
        .is_ok_and(|length| length > 0)
    {
        hear(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
        line.clear();
    }
}

/// The table and the closing line.
fn summary(outcomes: &[Outcome], seconds: f64) -> String {
    let mut text = format!(
        "\n{:<16}{:<8}{:>9}{:>9}{:>9}{:>9}\n",
        "step", "", "time", "passed", "failed", "skipped"
    );
    let mut total = Tally::default();
    for Outcome {
        name,
        is_ok,
        seconds,
        tally,
    } in outcomes
    {
        let mut tally = tally.clone();
        // A test that skipped itself says `ok` to libtest.
        tally.passed = tally.passed.saturating_sub(tally.skipped.len() as u64);
        // What fails without a failed test (formatting, a build) counts as one.
        tally.failed = tally.failed.max(u64::from(!is_ok));
        let verdict = if *is_ok { "ok" } else { "FAILED" };
        let (passed, failed, skipped) = (tally.passed, tally.failed, tally.skipped());
        let _ = writeln!(
            text,
            "{name:<16}{verdict:<8}{seconds:>7.1} s{passed:>9}{failed:>9}{skipped:>9}"
        );
        total.add(tally);
    }
    if !total.skipped.is_empty() {
        text.push_str("\nskipped:\n");
        for skipped in &total.skipped {
            let _ = writeln!(text, "  {skipped}");
        }
    }
    let (passed, failed, skipped) = (total.passed, total.failed, total.skipped());
    let _ = writeln!(
        text,
        "\n{seconds:.0} s\n{passed} passed, {failed} failed, {skipped} skipped"
    );
    text
}

/// One test program of nlb-tests.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Suite {
    name: String,
    has_harness: bool,
}

/// The test programs of nlb-tests, in the order of [`RUNGS`]: those its manifest lists, and those
/// that cargo finds by itself.
fn suites(package: &Path) -> Result<Vec<Suite>> {
    let manifest = package.join("Cargo.toml");
    let text =
        fs::read_to_string(&manifest).with_context(|| format!("reading {}", manifest.display()))?;
    let mut suites = listed(&text);
    for entry in fs::read_dir(package.join("tests"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let path = entry.path();
        let is_suite = path.extension().is_some_and(|extension| extension == "rs")
            || path.join("main.rs").is_file();
        let name = path
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned());
        if let Some(name) = name.filter(|_| is_suite)
            && suites.iter().all(|suite| suite.name != name)
        {
            suites.push(Suite {
                name,
                has_harness: true,
            });
        }
    }
    let rung = |suite: &Suite| {
        RUNGS
            .iter()
            .position(|name| *name == suite.name)
            .unwrap_or(RUNGS.len())
    };
    suites.sort_by_key(|suite| (rung(suite), suite.name.clone()));
    Ok(suites)
}

/// The `[[test]]` tables of a manifest.
fn listed(manifest: &str) -> Vec<Suite> {
    let mut suites: Vec<Suite> = Vec::new();
    let mut is_test = false;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            is_test = line == "[[test]]";
            if is_test {
                suites.push(Suite {
                    name: String::new(),
                    has_harness: true,
                });
            }
        } else if let (true, Some((key, value)), Some(suite)) =
            (is_test, line.split_once('='), suites.last_mut())
        {
            match (key.trim(), value.trim()) {
                ("name", value) => suite.name = value.trim_matches('"').into(),
                ("harness", value) => suite.has_harness = value != "false",
                _ => {}
            }
        }
    }
    suites.retain(|suite| !suite.name.is_empty());
    suites
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(text: &str) -> Tally {
        let mut tally = Tally::default();
        text.lines().for_each(|line| tally.read(line));
        tally
    }

    #[test]
    fn results_of_several_programs_are_summed() {
        let tally = tally(
            "running 8 tests\n\
             test result: ok. 8 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
             test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 4 filtered out; finished in 1.20s",
        );
        assert_eq!((tally.passed, tally.failed, tally.ignored), (10, 3, 1));
    }

    #[test]
    fn a_skipped_test_is_counted_once_however_it_is_printed() {
        let tally = tally(
            "SKIPPED kernel_agrees: no CAP_BPF\n\
             test kernel_agrees ... SKIPPED kernel_agrees: no CAP_BPF\n\
             SKIPPED netns_echo: not root\n\
             nothing is SKIPPED here",
        );
        assert_eq!(tally.skipped.len(), 2);
    }

    #[test]
    fn skipped_tests_are_not_counted_as_passed() {
        let outcome = Outcome {
            name: "netns".into(),
            is_ok: true,
            seconds: 1.0,
            tally: tally(
                "SKIPPED a: not root\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured",
            ),
        };
        let text = summary(&[outcome], 1.0);
        assert!(
            text.ends_with("\n2 passed, 0 failed, 2 skipped\n"),
            "{text}"
        );
        assert!(text.contains("a: not root"));
    }

    #[test]
    fn a_step_that_fails_without_a_failed_test_counts() {
        let tally = Tally::default();
        let outcome = Outcome {
            name: "fmt".into(),
            is_ok: false,
            seconds: 1.0,
            tally,
        };
        assert!(summary(&[outcome], 1.0).ends_with("\n0 passed, 1 failed, 0 skipped\n"));
    }

    #[test]
    fn suites_are_read_from_the_manifest() {
        let manifest = "[package]\nname = \"nlb-tests\"\n\n[[test]]\nname = \"netns\"\n\
                        path = \"netns/main.rs\"\nharness = false\n\n[[test]]\nname = \"packets\"\n\
                        [[bin]]\nname = \"demo\"\n";
        let suite = |name: &str, has_harness| Suite {
            name: name.into(),
            has_harness,
        };
        assert_eq!(
            listed(manifest),
            [suite("netns", false), suite("packets", true)]
        );
    }

    #[test]
    fn only_suites_with_the_kernel_run_through_sudo_and_a_quick_run_leaves_them_out() {
        let suites = ["packets", "netns"].map(|name| Suite {
            name: name.into(),
            has_harness: true,
        });
        let full = steps(&suites, false, Privilege::Sudo);
        let uses_sudo = |name: &str| {
            full.iter().any(|step| {
                matches!(step, Step::Cargo(n, words) if n == name
                    && words.iter().any(|word| word.contains("sudo")))
            })
        };
        assert!(uses_sudo("netns") && !uses_sudo("packets"));
        let quick = steps(&suites, true, Privilege::Sudo);
        assert!(
            quick
                .iter()
                .all(|step| step.name() != "netns" && step.name() != "setup")
        );
    }
}
