//! What is written in `docs` from the code: one way to compare it, and to write it anew, for all
//! tests that watch a reference.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// Where a document of `docs` is.
pub(crate) fn path(document: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(document)
}

/// `text` with what stands between the line `open` and the next `<!-- end -->` replaced.
pub(crate) fn with_block(text: &str, open: &str, block: &str) -> String {
    let (before, rest) = text
        .split_once(open)
        .unwrap_or_else(|| panic!("no block `{}`", open.trim()));
    let (_, after) = rest.split_once("<!-- end -->").unwrap();
    format!("{before}{open}{block}<!-- end -->{after}")
}

/// That `document` is `text`; with `NLB_BLESS` set it becomes that.
pub(crate) fn must_be(document: &str, text: &str) {
    let path = path(document);
    if env::var_os("NLB_BLESS").is_some() {
        return fs::write(&path, text).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let (mut old, mut new) = (written.lines(), text.lines());
    for line in 1.. {
        match (old.next(), new.next()) {
            (None, None) => break,
            (old, new) => assert_eq!(
                old, new,
                "docs/{document}:{line} is not what the code says (right); NLB_BLESS=1 writes it anew"
            ),
        }
    }
}
