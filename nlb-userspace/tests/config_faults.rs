//! The catalogue of configuration faults: one file for each mistake in `config_faults/`, whose last
//! lines say, as comments, every message that a user must see for it.
//!
//! `NLB_BLESS=1 cargo test -p nlb-userspace --test config_faults` writes those lines anew; read them
//! before committing, for they are what users read.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use nlb_userspace::config::{self, Faults};

const MARK: &str = "#> ";

fn catalogue() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config_faults");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

/// The configuration and the expected messages of a case.
fn read(path: &Path) -> (String, Vec<String>) {
    let text = fs::read_to_string(path).unwrap();
    let expected = text
        .lines()
        .filter_map(|line| line.strip_prefix(MARK))
        .map(str::to_owned);
    let input = text.split("\n#> ").next().unwrap();
    (format!("{}\n", input.trim_end()), expected.collect())
}

fn messages(faults: &Faults) -> Vec<String> {
    faults.iter().map(ToString::to_string).collect()
}

#[test]
fn every_mistake_of_the_catalogue_gets_exactly_its_messages() {
    let mut wrong = Vec::new();
    for path in catalogue() {
        let (input, expected) = read(&path);
        let got = match config::parse("nlb.toml", &input) {
            Ok(_) => vec!["no fault".to_owned()],
            Err(faults) => messages(&faults),
        };
        if env::var_os("NLB_BLESS").is_some() {
            let lines: Vec<_> = got.iter().map(|line| format!("{MARK}{line}\n")).collect();
            fs::write(&path, format!("{input}\n{}", lines.concat())).unwrap();
        } else if got != expected {
            wrong.push(format!(
                "{}:\n got {got:#?}\n want {expected:#?}\n",
                path.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
}

#[test]
fn the_catalogue_has_no_case_without_a_fault_and_no_two_alike() {
    let mut seen = BTreeSet::new();
    for path in catalogue() {
        let (input, expected) = read(&path);
        assert!(
            !expected.is_empty() && expected[0] != "no fault",
            "{}",
            path.display()
        );
        assert!(seen.insert(input), "{} repeats another", path.display());
    }
    assert!(seen.len() >= 100);
}

#[test]
fn a_fault_carries_place_field_value_problem_and_remedy_as_json() {
    let text = "[node]\ninterfaces = [\"eth0\"]\ncapacity.flows = 1000\n";
    let faults = config::parse("nlb.toml", text).unwrap_err();
    let json = serde_json::to_value(&faults).unwrap();
    let fault = &json["faults"][0];
    assert_eq!(faults.len(), 1);
    assert_eq!(fault["file"], "nlb.toml");
    assert_eq!(fault["line"], 3);
    assert_eq!(fault["column"], 18);
    assert_eq!(fault["field"], "node.capacity.flows");
    assert_eq!(fault["value"], "1000");
    assert_eq!(fault["problem"], "is out of range");
    assert_eq!(
        fault["remedy"],
        "write a whole number from 1024 to 268435456"
    );
    assert_eq!(fault["message"], faults.iter().next().unwrap().to_string());
}

#[test]
fn the_error_lists_all_faults_and_counts_them() {
    let faults = config::parse("nlb.toml", "[node]\nxdp_mode = 1\n").unwrap_err();
    let text = faults.to_string();
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.ends_with("\n2 faults in nlb.toml"), "{text}");
}

#[test]
fn a_secret_is_in_no_message() {
    for path in catalogue() {
        let (input, _) = read(&path);
        if let Err(faults) = config::parse("nlb.toml", &input) {
            let json = serde_json::to_string(&faults).unwrap();
            for shown in [faults.to_string(), format!("{faults:?}"), json] {
                assert!(
                    !shown.contains("5ec7e7") && !shown.contains("537337"),
                    "{shown}"
                );
            }
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_one_fault_without_a_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("absent.toml");
    let faults = config::load(&path).unwrap_err();
    assert_eq!(
        messages(&faults),
        [format!(
            "{}: cannot be read: entity not found; give the path of a TOML file that this user \
             may read",
            path.display()
        )]
    );
}

#[test]
fn a_file_that_is_not_utf8_is_a_fault_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latin1.toml");
    fs::write(&path, b"[node]\n# caf\xe9\n").unwrap();
    let faults = config::load(&path).unwrap_err();
    assert_eq!(
        messages(&faults),
        [format!(
            "{}:2:6: is not UTF-8 text from here on; save the file as UTF-8",
            path.display()
        )]
    );
}
