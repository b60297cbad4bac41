//! `cargo xtask test`: every check, the cheap ones first, to the end even after a failure.

use std::{fmt::Write as _, process::Command, sync::Mutex, thread, time::Instant};

use anyhow::{Result, bail};
use xtask::workspace_root;

use crate::{
    book, deb, fuzz, lint, roots,
    run::{Privilege, cargo, listen},
    setup,
    suites::{Suite, suites},
    tally::Tally,
};

/// Suites that load programs into the kernel and so need root; without it they skip what they must.
const WITH_KERNEL: [&str; 4] = ["packets", "verifier", "differential", "netns"];

/// Suites that have nothing to show without the kernel, which a quick run leaves out.
const KERNEL_ONLY: [&str; 3] = ["verifier", "differential", "netns"];

/// The suite that goes through the bodies of the fuzz targets without a fuzzer.
const BEFORE_FUZZING: &str = "properties";

/// The suite that installs the Debian package.
const WITH_PACKAGE: &str = "netns";

/// How long each fuzz target runs: enough to go through its corpus and some hundred thousand inputs.
const FUZZ_SECONDS: u64 = 15;

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
    Book,
    Fuzz,
    Package,
    Cargo(String, Vec<String>),
}

impl Step {
    fn name(&self) -> &str {
        match self {
            Self::Setup => "setup",
            Self::Lint => "lint",
            Self::Book => "book",
            Self::Fuzz => "fuzz",
            Self::Package => "package",
            Self::Cargo(name, _) => name,
        }
    }
}

/// Clean Debian roots on their way: that is waiting for a mirror, which need not keep the other steps.
type Roots = thread::JoinHandle<Result<()>>;

/// Runs every step; `false` when one failed.
pub(crate) fn test(is_quick: bool) -> Result<bool> {
    let begin = Instant::now();
    let steps = steps(
        &suites(&workspace_root().join("tests"))?,
        is_quick,
        Privilege::look(),
    );
    let mut outcomes = Vec::new();
    let mut roots = None;
    for (index, step) in steps.iter().enumerate() {
        let place = format!("[{}/{}]", index + 1, steps.len());
        outcomes.push(perform(step, &place, &mut roots));
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
    ]);
    if !is_quick {
        steps.push(Step::Book);
    }
    steps.extend([
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
        if is_quick && KERNEL_ONLY.contains(&suite.name.as_str()) {
            continue;
        }
        if suite.name == WITH_PACKAGE {
            steps.push(Step::Package);
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
        // Too long for every save.
        if suite.name == BEFORE_FUZZING && !is_quick {
            steps.push(Step::Fuzz);
        }
    }
    steps
}

fn perform(step: &Step, place: &str, roots: &mut Option<Roots>) -> Outcome {
    let name = step.name();
    println!("\n{place} {name}");
    let begin = Instant::now();
    let mut tally = Tally::default();
    let result = match step {
        Step::Setup => setup::everything().map(|()| {
            *roots = Some(thread::spawn(|| roots::make(&deb::folder()?)));
            true
        }),
        Step::Lint => lint::lint(),
        Step::Book => book::book().map(|()| true),
        Step::Fuzz => fuzz::step(FUZZ_SECONDS, &mut tally),
        Step::Package => package(roots.take()).map(|()| true),
        Step::Cargo(_, words) => {
            let mut heard = Tally::default();
            let result = counted(
                cargo().current_dir(workspace_root()).args(words),
                &mut heard,
            );
            // A difference that rustfmt shows may well hold the words looked for.
            if words.first().is_some_and(|word| word == "test") {
                tally = heard;
            }
            result
        }
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

/// Makes the Debian package, and waits for the roots to install it in.
fn package(roots: Option<Roots>) -> Result<()> {
    deb::judged()?;
    match roots.map(thread::JoinHandle::join) {
        None => Ok(()),
        Some(Ok(made)) => made,
        Some(Err(_)) => bail!("making Debian's roots panicked"),
    }
}

/// Runs a command, shows what it prints as it comes, and counts.
fn counted(command: &mut Command, tally: &mut Tally) -> Result<bool> {
    let heard = Mutex::new(tally);
    listen(command, |line| {
        println!("{line}");
        if let Ok(mut tally) = heard.lock() {
            tally.read(line);
        }
    })
}

/// The table and the closing line.
fn summary(outcomes: &[Outcome], seconds: f64) -> String {
    let mut text = format!(
        "\n{:<16}{:<8}{:>9}{:>9}{:>9}{:>9}\n",
        "step", "", "time", "passed", "failed", "skipped"
    );
    let mut total = (0, 0, 0);
    let mut reasons = String::new();
    for Outcome {
        name,
        is_ok,
        seconds,
        tally,
    } in outcomes
    {
        // A test that skipped itself says `ok` to libtest.
        let passed = tally.passed.saturating_sub(tally.skipped.len() as u64);
        // What fails without a failed test (formatting, a build) counts as one.
        let failed = tally.failed.max(u64::from(!is_ok));
        let skipped = tally.skipped();
        let verdict = if *is_ok { "ok" } else { "FAILED" };
        let _ = writeln!(
            text,
            "{name:<16}{verdict:<8}{seconds:>7.1} s{passed:>9}{failed:>9}{skipped:>9}"
        );
        total = (total.0 + passed, total.1 + failed, total.2 + skipped);
        for skipped in &tally.skipped {
            let _ = writeln!(reasons, "  {name}: {skipped}");
        }
    }
    if !reasons.is_empty() {
        let _ = write!(text, "\nskipped:\n{reasons}");
    }
    let (passed, failed, skipped) = total;
    let _ = writeln!(
        text,
        "\n{seconds:.0} s\n{passed} passed, {failed} failed, {skipped} skipped"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_tests_are_not_counted_as_passed() {
        let outcome = Outcome {
            name: "netns".into(),
            is_ok: true,
            seconds: 1.0,
            tally: Tally {
                passed: 3,
                ignored: 1,
                skipped: ["a: not root".into()].into(),
                failed: 0,
            },
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
    fn fuzzing_follows_the_properties_the_package_comes_before_its_test_and_a_quick_run_has_neither()
     {
        let suites = ["packets", "properties", "netns"].map(|name| Suite {
            name: name.into(),
            has_harness: true,
        });
        let names = |is_quick| {
            let steps = steps(&suites, is_quick, Privilege::Root);
            let names = steps.iter().map(|step| step.name().to_owned());
            names.collect::<Vec<_>>().join(" ")
        };
        assert!(names(false).ends_with("packets properties fuzz package netns"));
        assert!(!names(true).contains("fuzz") && !names(true).contains("package"));
    }

    #[test]
    fn only_suites_with_the_kernel_run_through_sudo_and_a_quick_run_leaves_them_out() {
        let suites = ["properties", "packets", "netns"].map(|name| Suite {
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
        assert!(uses_sudo("netns") && uses_sudo("packets") && !uses_sudo("properties"));
        let quick = steps(&suites, true, Privilege::Sudo);
        assert!(
            quick
                .iter()
                .all(|step| step.name() != "netns" && step.name() != "setup")
        );
        assert!(quick.iter().any(|step| step.name() == "packets"));
    }
}
