//! That the documents lead somewhere: relative links to files and headings that exist, and names of
//! source files that exist.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn markdown_in(folder: &Path, documents: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            documents.push(path);
        }
    }
}

/// The documents of the repository: beside its manifest, and below `docs`.
fn documents() -> Vec<PathBuf> {
    let mut documents = Vec::new();
    for folder in ["", "docs", "docs/adr"] {
        markdown_in(&root().join(folder), &mut documents);
    }
    documents.sort();
    documents
}

/// Without what stands in code blocks, where brackets mean other things.
fn prose(text: &str) -> String {
    let mut is_code = false;
    text.lines()
        .filter(|line| {
            let is_fence = line.trim_start().starts_with("```");
            is_code ^= is_fence;
            !is_code && !is_fence
        })
        .flat_map(|line| [line, "\n"])
        .collect()
}

/// Targets of `[text](target)`.
fn links(prose: &str) -> Vec<&str> {
    prose
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target)
        .collect()
}

/// The anchor that a heading gets where Markdown is shown.
fn anchor(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

fn has_heading(document: &Path, wanted: &str) -> bool {
    let text = fs::read_to_string(document).unwrap();
    prose(&text)
        .lines()
        .any(|line| line.starts_with('#') && anchor(line) == wanted)
}

#[test]
fn every_relative_link_leads_to_a_file_and_a_heading_that_exist() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = prose(&fs::read_to_string(&document).unwrap());
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                document.clone()
            } else {
                document.parent().unwrap().join(file)
            };
            let leads = target.exists()
                && (heading.is_empty() || target.is_dir() || has_heading(&target, heading));
            if !leads {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_source_file_that_a_document_names_exists() {
    let mut missing = Vec::new();
    for document in documents() {
        let text = prose(&fs::read_to_string(&document).unwrap());
        let is_path = |word: &&str| {
            ["nlb-common/", "nlb-ebpf/", "nlb-userspace/", "xtask/"]
                .iter()
                .any(|crate_name| word.starts_with(crate_name))
                && word
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "/_-.".contains(c))
        };
        for path in text.split('`').skip(1).step_by(2).filter(is_path) {
            if !root().join(path).exists() {
                missing.push(format!("{}: {path}", document.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}
