//! That the documents lead somewhere: relative links to files and headings that exist, and names of
//! source files that exist; and that they do so as a book, too (`docs/SUMMARY.md`, `cargo xtask book`).

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The Markdown of a folder, and of the folders in it if `is_deep`.
fn markdown_in(folder: &Path, is_deep: bool) -> Vec<PathBuf> {
    let mut documents = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && is_deep {
            documents.extend(markdown_in(&path, true));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            documents.push(path);
        }
    }
    documents.sort();
    documents
}

/// The documents of the repository: beside its manifest, and below `docs`.
pub(crate) fn documents() -> Vec<PathBuf> {
    let mut documents = markdown_in(&root(), false);
    documents.extend(markdown_in(&root().join("docs"), true));
    documents
}

/// Links of a document that lead to files: each as written, the file, and the heading if one is named.
fn relative_links(document: &Path) -> Vec<(String, PathBuf, String)> {
    let text = prose(&fs::read_to_string(document).unwrap());
    links(&text)
        .into_iter()
        .filter(|link| !link.contains("://") && !link.starts_with("mailto:"))
        .map(|link| {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                document.to_owned()
            } else {
                document.parent().unwrap().join(file)
            };
            (link.to_owned(), target, heading.to_owned())
        })
        .collect()
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
        for (link, target, heading) in relative_links(&document) {
            let leads = target.exists()
                && (heading.is_empty() || target.is_dir() || has_heading(&target, &heading));
            if !leads {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Documents beside the manifest that are in the book, as `xtask/src/book.rs` puts them there.
const BESIDE_THE_MANIFEST: [&str; 2] = ["CHANGELOG.md", "CONTRIBUTING.md"];

/// The documents of the book: what `docs` has, and two from beside the manifest.
fn of_the_book() -> BTreeSet<PathBuf> {
    let docs = markdown_in(&root().join("docs"), true).into_iter();
    docs.chain(BESIDE_THE_MANIFEST.map(|document| root().join(document)))
        .map(|document| document.canonicalize().unwrap())
        .collect()
}

#[test]
fn the_books_summary_names_every_document_once() {
    let summary = root().join("docs/SUMMARY.md");
    let mut missing = of_the_book();
    assert!(missing.remove(&summary.canonicalize().unwrap()));
    for (link, target, _) in relative_links(&summary) {
        let document = target.canonicalize().unwrap();
        assert!(
            missing.remove(&document),
            "{link} is there twice, or is no document"
        );
    }
    assert!(missing.is_empty(), "docs/SUMMARY.md lacks {missing:#?}");
}

/// mdBook makes `index.html` of a `README.md`, and leaves links to it as they are.
#[test]
fn no_link_leads_out_of_the_book_or_to_a_folder_or_to_a_readme() {
    let docs = root().join("docs").canonicalize().unwrap();
    let book = of_the_book();
    let mut astray = Vec::new();
    for document in book.iter().filter(|it| !it.ends_with("SUMMARY.md")) {
        for (link, target, _) in relative_links(document) {
            let is_in_it = target.canonicalize().is_ok_and(|target| {
                target.is_file()
                    && !target.ends_with("README.md")
                    && (target.starts_with(&docs) || book.contains(&target))
            });
            if !is_in_it {
                astray.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(astray.is_empty(), "{astray:#?}");
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
