//! The parts of the documentation that the benchmark writes itself.
//!
//! A block stands between `<!-- NAME -->` and `<!-- end -->`; what is around it is written by people.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

/// A document of the repository's `docs`.
#[derive(Clone, Debug)]
pub struct Document {
    path: PathBuf,
    text: String,
}

impl Document {
    /// Reads `docs/NAME`.
    pub fn read(name: &str) -> Result<Self> {
        let path = docs().join(name);
        let text =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(Self { path, text })
    }

    /// What stands in a block.
    pub fn block(&self, name: &str) -> Result<&str> {
        let (start, end) = self.place(name)?;
        Ok(&self.text[start..end])
    }

    /// Replaces what stands in a block.
    pub fn set_block(&mut self, name: &str, content: &str) -> Result<()> {
        let (start, end) = self.place(name)?;
        self.text.replace_range(start..end, content);
        Ok(())
    }

    /// Writes the document back.
    pub fn write(&self) -> Result<()> {
        fs::write(&self.path, &self.text)
            .with_context(|| format!("writing {}", self.path.display()))
    }

    fn place(&self, name: &str) -> Result<(usize, usize)> {
        let file = self.path.display();
        let head = format!("<!-- {name} -->\n");
        let start = self.text.find(&head);
        let start = start.with_context(|| format!("{file} has no block `{name}`"))? + head.len();
        let length = self.text[start..].find("<!-- end -->");
        let length = length.with_context(|| format!("the block `{name}` of {file} has no end"))?;
        Ok((start, start + length))
    }
}

/// The repository's `docs`.
pub fn docs() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"))
}
