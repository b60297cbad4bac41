//! What the API shows and asks for over TCP: TLS 1.3 with a certificate of this node's, for clients
//! with a certificate of theirs.
//!
//! Read from files at the start and with each reload. What is wrong with one of them is a fault of the
//! configuration: it is told, and nothing changes.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::CertificateDer,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _, time::ASN1Time};

use crate::{
    config::TcpApi,
    pem::{self, PemError},
};

/// The server's end of every TLS session of the API.
#[derive(Clone)]
pub struct Terms(pub(super) Arc<ServerConfig>);

impl fmt::Debug for Terms {
    /// It holds the private key.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Terms(..)")
    }
}

/// A file of `node.api.tcp` that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It does not hold what it is to hold.
    #[error("node.api.tcp.{field}: {source} (the daemon reads it as node.user, if that is set)")]
    Pem {
        /// The key of the configuration.
        field: &'static str,
        /// What is wrong.
        source: PemError,
    },
    /// The certificate's time is over, or has not come.
    #[error(
        "node.api.tcp.certificate_file: the certificate in `{}` is {word} (it is valid from {from} \
         to {to}); renew it, or set the clock", path.display()
    )]
    OutOfDate {
        /// The file.
        path: PathBuf,
        /// `expired` or `not valid yet`.
        word: &'static str,
        /// Its first second.
        from: String,
        /// Its last.
        to: String,
    },
    /// TLS has no use for it.
    #[error("node.api.tcp.{field}: `{}` cannot be used: {why}", path.display())]
    Unusable {
        /// The key of the configuration.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

/// Reads what the configuration names.
pub fn load(api: &TcpApi) -> Result<Terms, TlsError> {
    let of_pem = |field| move |source| TlsError::Pem { field, source };
    let chain = pem::certificates(&api.certificate_file).map_err(of_pem("certificate_file"))?;
    if let Some(own) = chain.first() {
        in_date(own, &api.certificate_file)?;
    }
    let key = pem::private_key(&api.key_file).map_err(of_pem("key_file"))?;
    let roots = pem::roots(&api.client_ca_file).map_err(of_pem("client_ca_file"))?;
    let provider = Arc::new(ring::default_provider());
    // Whoever shows no certificate, or one that nobody vouches for, does not get past the handshake.
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|why| unusable("client_ca_file", &api.client_ca_file, &why))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|why| unusable("certificate_file", &api.certificate_file, &why))?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .map_err(|why| unusable("key_file", &api.key_file, &why))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A session that is resumed would show a certificate of before the last reload.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Terms(Arc::new(config)))
}

fn unusable(field: &'static str, path: &Path, why: &dyn fmt::Display) -> TlsError {
    TlsError::Unusable {
        field,
        path: path.to_owned(),
        why: why.to_string(),
    }
}

fn in_date(der: &CertificateDer<'_>, path: &Path) -> Result<(), TlsError> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|why| unusable("certificate_file", path, &why))?;
    let validity = certificate.validity();
    if validity.is_valid() {
        return Ok(());
    }
    Err(TlsError::OutOfDate {
        path: path.to_owned(),
        word: if validity.not_after < ASN1Time::now() {
            "expired"
        } else {
            "not valid yet"
        },
        from: validity.not_before.to_string(),
        to: validity.not_after.to_string(),
    })
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
