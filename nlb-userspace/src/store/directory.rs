//! The state directory: files in it that are made, read and replaced such that a crash leaves the old
//! one or the new one, and errors that name the file.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::{StoreError, journal::Medium as _};

/// A directory, which need not be there yet.
#[derive(Debug)]
pub(super) struct Directory(PathBuf);

impl Directory {
    pub(super) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Makes it, readable by its owner alone.
    pub(super) fn make(&self) -> Result<(), StoreError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .map_err(self.error("make", ""))
    }

    /// Opens it itself.
    pub(super) fn open(&self) -> Result<File, StoreError> {
        File::open(&self.0).map_err(self.error("open", ""))
    }

    /// Lets what was made or renamed in it reach the disk.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.open()?.sync_all().map_err(self.error("sync", ""))
    }

    /// Opens a file for reading and writing; makes it if it is missing.
    pub(super) fn file(&self, name: &str) -> Result<File, StoreError> {
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.path(name))
            .map_err(self.error("open", name))
    }

    /// What a file holds, if it is there.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match fs::read(self.path(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.error("read", name)(source)),
        }
    }

    /// Puts a file with these bytes in another's place; it has reached the disk when this returns.
    pub(super) fn replace(&self, name: &str, bytes: &[u8]) -> Result<File, StoreError> {
        let beside = format!("{name}.new");
        let file = self.file(&beside)?;
        file.set_len(0)
            .and_then(|()| file.write_at_all(bytes, 0))
            .and_then(|()| file.sync_all())
            .map_err(self.error("write", &beside))?;
        fs::rename(self.path(&beside), self.path(name)).map_err(self.error("replace", name))?;
        self.sync()?;
        Ok(file)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() {
            self.0.clone()
        } else {
            self.0.join(name)
        }
    }

    /// An error about a file, or with an empty name about the directory.
    pub(super) fn error(
        &self,
        action: &'static str,
        name: &str,
    ) -> impl FnOnce(io::Error) -> StoreError + use<> {
        let path = self.path(name);
        move |source| StoreError::Io {
            action,
            path,
            source,
        }
    }
}
