//! Secrets: the key that all nodes of a deployment share, and random ones of this node.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::config::{HashKey, HashKeyError, HashKeySource};

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// A key file could not be used.
    #[error("cannot {action} the hash key file `{path}`: {source}")]
    File {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A key file holds something else.
    #[error("the hash key file `{path}` holds no key: {source}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: HashKeyError,
    },
    /// The kernel gave no random bytes.
    #[error("cannot get random bytes: {0}")]
    Random(io::Error),
}

/// 32 random bytes.
pub fn random() -> Result<[u8; 32], SecretError> {
    let mut bytes = [0; 32];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..)
        && !rest.is_empty()
    {
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| SecretError::Random(error.into()))?;
    }
    Ok(bytes)
}

/// The deployment's key. If the configuration names none, one is made once and kept as `hash.key`
/// in `folder`, readable by its owner only.
pub fn deployment_key(source: &HashKeySource, folder: &Path) -> Result<HashKey, SecretError> {
    match source {
        HashKeySource::Written(key) => Ok(key.clone()),
        HashKeySource::File(path) => read(path),
        HashKeySource::Kept => {
            let path = folder.join("hash.key");
            match read(&path) {
                Err(SecretError::File { source, .. })
                    if source.kind() == io::ErrorKind::NotFound =>
                {
                    let key = HashKey::new(random()?);
                    write(&path, &key)?;
                    Ok(key)
                }
                other => other,
            }
        }
    }
}

fn read(path: &Path) -> Result<HashKey, SecretError> {
    let text = fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|source| SecretError::File {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
    HashKey::from_hex(text.trim()).map_err(|source| SecretError::Content {
        path: path.to_owned(),
        source,
    })
}

fn write(path: &Path, key: &HashKey) -> Result<(), SecretError> {
    let error = |source| SecretError::File {
        action: "write",
        path: path.to_owned(),
        source,
    };
    // Long enough from the start: a string that grows leaves a copy behind.
    let mut text = Zeroizing::new(String::with_capacity(2 * HashKey::LENGTH + 1));
    for byte in key.bytes() {
        let _infallible = write!(text, "{byte:02x}");
    }
    text.push('\n');
    // Under another name until it is complete: half a key is worse than none.
    let unfinished = path.with_extension("unfinished");
    let write = || {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    };
    write().map_err(|source| {
        // What is left is overwritten by the next attempt.
        drop(fs::remove_file(&unfinished));
        error(source)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_nobody_named_is_made_once_and_kept_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let first = deployment_key(&HashKeySource::Kept, folder.path()).unwrap();
        assert_eq!(
            deployment_key(&HashKeySource::Kept, folder.path()).unwrap(),
            first
        );
        let mode = fs::metadata(folder.path().join("hash.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_ne!(random().unwrap(), random().unwrap());
    }

    #[test]
    fn a_key_file_that_is_missing_or_holds_no_key_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let source = HashKeySource::File(path.clone());
        let message = deployment_key(&source, folder.path())
            .unwrap_err()
            .to_string();
        assert!(message.contains(&path.display().to_string()), "{message}");
        fs::write(&path, "abc").unwrap();
        let message = deployment_key(&source, folder.path())
            .unwrap_err()
            .to_string();
        assert!(message.contains("holds no key"), "{message}");
    }
}
