//! That the reference of the configuration and the examples keep to what is read.

use std::{env, fs};

use nlb_userspace::config::{self, Problem, schema};

use crate::document;

#[test]
fn every_example_is_valid_without_a_warning() {
    let mut names: Vec<_> = fs::read_dir(document::path("examples"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    names.sort();
    for path in &names {
        match config::load(path) {
            Ok(desired) => assert_eq!(desired.warnings, [], "{}", path.display()),
            Err(faults) => panic!("{faults}"),
        }
    }
    assert!(names.len() >= 3);
}

/// The blocks of TOML in a document that are whole configurations, each with the number of its line.
fn configurations(document: &str) -> Vec<(usize, String)> {
    let mut lines = document.lines().zip(1..);
    let mut found = Vec::new();
    while let Some((text, line)) = lines.next() {
        if text == "```toml" {
            let block = lines.by_ref().map(|(text, _)| text);
            let block: Vec<&str> = block.take_while(|text| *text != "```").collect();
            found.push((line, block.join("\n")));
        }
    }
    found.retain(|(_, text)| text.contains("[node]") && text.contains("[[load_balancer]]"));
    found
}

#[test]
fn every_whole_configuration_in_a_document_is_valid_without_a_warning() {
    let mut documents = Vec::new();
    for document in crate::links::documents() {
        let text = fs::read_to_string(&document).unwrap();
        for (line, text) in configurations(&text) {
            let name = format!("{}:{line}", document.display());
            match config::parse(&name, &text) {
                Ok(desired) => assert_eq!(desired.warnings, [], "{name}"),
                Err(faults) => panic!("{faults}"),
            }
            documents.push(document.file_name().unwrap().to_owned());
        }
    }
    for migration in ["ipvs.md", "haproxy.md", "aws-nlb.md"] {
        assert!(
            documents.iter().any(|name| name == migration),
            "{migration}"
        );
    }
}

#[test]
fn the_nat_example_serves_both_protocols_on_both_ip_versions() {
    let desired = config::load(&document::path("examples/nat.toml")).unwrap();
    let names: Vec<_> = desired.load_balancers[0]
        .listeners
        .iter()
        .map(|listener| listener.name.clone())
        .collect();
    assert_eq!(
        names,
        [
            "edge/TCP/80/ipv4",
            "edge/TCP/80/ipv6",
            "edge/UDP/53/ipv4",
            "edge/UDP/53/ipv6"
        ]
    );
}

#[test]
fn the_reference_lists_exactly_the_keys_there_are() {
    let written = fs::read_to_string(document::path("configuration.md")).unwrap();
    let mut text = written.clone();
    for section in [
        "node",
        "load_balancer",
        "target_group",
        "access_role",
        "access_statement",
    ] {
        let open = format!("<!-- keys: {section} -->\n");
        text = document::with_block(&text, &open, &schema::reference(section));
    }
    document::must_be("configuration.md", &text);
    let rows = written
        .lines()
        .filter(|line| line.starts_with("| `"))
        .count();
    assert!(env::var_os("NLB_BLESS").is_some() || rows == schema::KEYS.len());
}

#[test]
fn every_key_of_the_table_is_read() {
    for key in schema::KEYS {
        let (mut text, mut table) = (String::new(), String::new());
        let mut rest = key.path;
        while let Some((name, below)) = rest.split_once('.') {
            let path = if table.is_empty() {
                name.to_owned()
            } else {
                format!("{table}.{name}")
            };
            let repeats = schema::KEYS.iter().any(|key| key.path == path);
            if !repeats && path != "node" {
                break;
            }
            text += if repeats { "[[" } else { "[" };
            text += &path;
            text += if repeats { "]]\n" } else { "]\n" };
            (table, rest) = (path, below);
        }
        // A date belongs nowhere.
        text += rest;
        text += " = 2026-01-01\n";
        let faults = config::parse("nlb.toml", &text).unwrap_err();
        let place = Some(text.lines().count());
        assert!(
            faults.iter().any(|fault| fault.field.ends_with(rest)
                && fault.position.map(|position| position.line) == place
                && fault.problem != Problem::UnknownKey),
            "{} is not read: {faults}",
            key.path
        );
    }
}
