//! Certificates and private keys in PEM files: this node's and its clients' ends of the API, and the
//! authorities of health checks.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use zeroize::Zeroizing;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("`{}` {problem}", path.display())]
pub struct PemError {
    path: PathBuf,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    #[error("holds no {wanted} in PEM: {why}")]
    Content { wanted: &'static str, why: String },
    #[error("may be read by everybody (mode {0:o}); take that away with `chmod o= FILE`")]
    Exposed(u32),
    #[error("has a certificate that cannot vouch for others: {0}")]
    Authority(rustls::Error),
}

fn of(path: &Path) -> impl Fn(Problem) -> PemError {
    move |problem| PemError {
        path: path.to_owned(),
        problem,
    }
}

/// All certificates in a file, one at least.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let wanted = "certificate";
    let error = of(path);
    let text = fs::read(path).map_err(|source| error(Problem::Unreadable(source)))?;
    let content = |why| error(Problem::Content { wanted, why });
    let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|why| content(why.to_string()))?;
    if found.is_empty() {
        return Err(content("there is nothing like that in it".to_owned()));
    }
    Ok(found)
}

/// All certificates in a file, as those that vouch for others.
pub fn roots(path: &Path) -> Result<RootCertStore, PemError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        let added = roots.add(certificate);
        added.map_err(|why| of(path)(Problem::Authority(why)))?;
    }
    Ok(roots)
}

/// The private key in a file, which must not be everybody's to read.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    let error = of(path);
    let unreadable = |source| error(Problem::Unreadable(source));
    let mode = fs::metadata(path).map_err(unreadable)?.mode();
    if mode & 0o004 != 0 {
        return Err(error(Problem::Exposed(mode & 0o777)));
    }
    let text = fs::read(path).map(Zeroizing::new).map_err(unreadable)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|why| {
        error(Problem::Content {
            wanted: "private key",
            why: why.to_string(),
        })
    })
}
