//! Counting what test programs print.

use std::collections::BTreeSet;

/// What the output of test programs adds up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
    /// `name: reason`; a set, since captured output can be shown twice.
    pub(crate) skipped: BTreeSet<String>,
}

impl Tally {
    /// Takes in one line of output.
    pub(crate) fn read(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
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

    pub(crate) fn skipped(&self) -> u64 {
        self.ignored + self.skipped.len() as u64
    }
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
}
