//! An authority for certificates, for tests of both ends of TLS.

use std::{
    fs,
    ops::Range,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate and its key.
pub(crate) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// An authority, and its certificate in a file.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

/// A certificate and its key in files.
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Self { issuer, folder };
        fs::write(authority.file(), authority.issuer.as_ref().pem()).expect("written");
        authority
    }

    /// Its certificate in PEM.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A server's certificate for these names and addresses, and its key.
    pub(crate) fn certificate(&self, names: &[&str], years: Range<i32>) -> Identity {
        let (certificate, key) = self.issue("server", names, years);
        (
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
        )
    }

    /// A certificate in files: for a common name, and for names and addresses, those with `://` as
    /// URIs.
    pub(crate) fn files(&self, common: &str, names: &[&str], years: Range<i32>) -> Files {
        let (certificate, key) = self.issue(common, names, years);
        let file = |ending: &str| self.folder.path().join(format!("{common}.{ending}"));
        let files = Files {
            certificate: file("pem"),
            key: file("key"),
        };
        fs::write(&files.certificate, certificate.pem()).expect("written");
        fs::write(&files.key, key.serialize_pem()).expect("written");
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(&files.key, private).expect("private");
        files
    }

    fn issue(
        &self,
        common: &str,
        names: &[&str],
        years: Range<i32>,
    ) -> (rcgen::Certificate, KeyPair) {
        let (uris, names): (Vec<&str>, Vec<&str>) =
            names.iter().partition(|name| name.contains("://"));
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        let mut params = CertificateParams::new(names).expect("names");
        for uri in uris {
            let uri = uri.try_into().expect("a URI");
            params.subject_alt_names.push(SanType::URI(uri));
        }
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common);
        params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate, key)
    }
}

/// Makes a file readable by everybody.
pub(crate) fn expose(file: &Path) {
    fs::set_permissions(file, fs::Permissions::from_mode(0o644)).expect("exposed");
}
