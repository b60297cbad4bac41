//! Finding the suites of nlb-tests, so that a new one is run without being listed here.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

/// The suites of nlb-tests from the cheapest rung to the dearest; others come last.
const RUNGS: [&str; 7] = [
    "packets",
    "instructions",
    "properties",
    "config",
    "verifier",
    "differential",
    "netns",
];

/// One test program of nlb-tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Suite {
    pub(crate) name: String,
    /// Whether it is made of `#[test]`s and takes libtest's options.
    pub(crate) has_harness: bool,
}

/// The test programs of nlb-tests, in the order of [`RUNGS`]: those its manifest lists, and those
/// that cargo finds by itself.
pub(crate) fn suites(package: &Path) -> Result<Vec<Suite>> {
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
}
