//! `cargo xtask book`: the documents as a site, by mdBook, without a warning.
//!
//! `docs` is a book as it is, but for the two documents that belong beside the manifest. So mdBook is
//! given a copy in which they stand beside the others and links lead there. That links lead to
//! something is a test's to say (`nlb-userspace/tests/reference/links.rs`).

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};
use xtask::workspace_root;

use crate::setup;

/// Documents beside the manifest, and what they are called in the book.
const BESIDE_THE_MANIFEST: [(&str, &str); 2] = [
    ("CHANGELOG.md", "changelog.md"),
    ("CONTRIBUTING.md", "contributing.md"),
];

/// Installs mdBook if it is missing, builds, and says where the site begins.
pub(crate) fn book() -> Result<()> {
    let mdbook = setup::mdbook()?;
    let target = workspace_root().join("target");
    let (source, site) = (target.join("book-source"), target.join("book"));
    for old in [&source, &site] {
        if old.exists() {
            fs::remove_dir_all(old).with_context(|| format!("removing {}", old.display()))?;
        }
    }
    copy(&workspace_root().join("docs"), &source)?;
    for (document, name) in BESIDE_THE_MANIFEST {
        let path = workspace_root().join(document);
        let text =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let path = source.join(name);
        fs::write(&path, from_beside_the_manifest(&text))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    build(&mdbook, &source, &site)?;
    println!("book: {}", site.join("index.html").display());
    Ok(())
}

/// Copies a folder; Markdown with its links changed.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    let entries = fs::read_dir(from).with_context(|| format!("listing {}", from.display()))?;
    for entry in entries {
        let path = entry?.path();
        let copy_of_it = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy(&path, &copy_of_it)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            fs::read_to_string(&path)
                .and_then(|text| fs::write(&copy_of_it, to_beside_the_manifest(&text)))
                .with_context(|| format!("copying {}", path.display()))?;
        } else {
            fs::copy(&path, &copy_of_it).with_context(|| format!("copying {}", path.display()))?;
        }
    }
    Ok(())
}

/// A document of `docs`, whose links lead to where the book has the documents beside the manifest.
fn to_beside_the_manifest(text: &str) -> String {
    let mut text = text.to_owned();
    for (document, name) in BESIDE_THE_MANIFEST {
        text = text.replace(&format!("../{document}"), name);
    }
    text
}

/// A document from beside the manifest, whose links lead into `docs`.
fn from_beside_the_manifest(text: &str) -> String {
    text.replace("](docs/", "](")
}

/// mdBook says its warnings and goes on; here they are faults.
fn build(mdbook: &Path, source: &Path, site: &Path) -> Result<()> {
    let output = Command::new(mdbook)
        .arg("build")
        .arg(source)
        .arg("--dest-dir")
        .arg(site)
        // Nothing below matters, and colours would hide the words looked for.
        .env("MDBOOK_LOG", "warn")
        .env("NO_COLOR", "1")
        .output()
        .with_context(|| format!("starting {}", mdbook.display()))?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    print!("{said}");
    if !output.status.success() || has_warning(&said) {
        bail!(
            "mdBook is not content with docs ({}); what it read is in {}",
            output.status,
            source.display()
        );
    }
    Ok(())
}

fn has_warning(said: &str) -> bool {
    said.split_whitespace()
        .any(|word| matches!(word.trim_matches(['[', ']']), "WARN" | "ERROR"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_between_docs_and_the_documents_beside_the_manifest_lead_on_in_the_book() {
        assert_eq!(
            to_beside_the_manifest("[a](../CHANGELOG.md#b) [c](api.md) [d](../../CONTRIBUTING.md)"),
            "[a](changelog.md#b) [c](api.md) [d](../contributing.md)"
        );
        assert_eq!(
            from_beside_the_manifest("[a](docs/api.md#b) and docs/api.md"),
            "[a](api.md#b) and docs/api.md"
        );
    }

    #[test]
    fn warnings_of_mdbook_are_heard_and_headings_of_ours_are_not() {
        assert!(has_warning("2026-11-22 [WARN] (mdbook): unclosed HTML tag"));
        assert!(has_warning(" WARN unclosed HTML tag `<x>`"));
        assert!(has_warning("ERROR chapter not found"));
        assert!(!has_warning(" INFO Running the html backend\n"));
    }
}
