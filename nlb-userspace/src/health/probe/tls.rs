//! TLS of health checks: any certificate passes, as with NLB, unless a CA file says which do.

use std::{net::IpAddr, path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::of_io;
use crate::{health::ProbeFailure, pem};

/// The client's end of every TLS session with the targets of a group.
#[derive(Debug, Clone)]
pub struct Client {
    config: Result<Arc<ClientConfig>, ProbeFailure>,
    server_name: Option<String>,
}

impl Client {
    /// `server_name` is what the target is asked for by SNI, and what its certificate must be for;
    /// without, no name is sent, and the certificate must be for the target's address. Without a
    /// `ca_file` any certificate passes, expired and self-signed ones, too.
    ///
    /// `protocol` is what is to be spoken inside, offered by ALPN: servers of HTTP/2 insist on it.
    ///
    /// A file that cannot be used makes every probe fail with the reason.
    pub fn new(server_name: Option<&str>, ca_file: Option<&Path>, protocol: Option<&str>) -> Self {
        Self {
            config: config(ca_file, protocol).map(Arc::new),
            server_name: server_name.map(str::to_owned),
        }
    }

    /// The name that targets are asked for.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    pub(super) async fn handshake(
        &self,
        stream: TcpStream,
        target: IpAddr,
    ) -> Result<TlsStream<TcpStream>, ProbeFailure> {
        let config = self.config.clone()?;
        let name = match &self.server_name {
            None => ServerName::from(target),
            Some(name) => ServerName::try_from(name.clone())
                .map_err(|error| ProbeFailure::Tls(error.to_string()))?,
        };
        let session = TlsConnector::from(config).connect(name, stream).await;
        session.map_err(|error| {
            match error
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<rustls::Error>())
            {
                Some(rustls::Error::InvalidCertificate(why)) => {
                    ProbeFailure::Certificate(why.to_string())
                }
                Some(why) => ProbeFailure::Tls(why.to_string()),
                None => of_io(&error),
            }
        })
    }
}

fn config(ca_file: Option<&Path>, protocol: Option<&str>) -> Result<ClientConfig, ProbeFailure> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| ProbeFailure::Tls(error.to_string()))?;
    let mut config = match ca_file {
        Some(file) => builder
            .with_root_certificates(
                pem::roots(file).map_err(|error| ProbeFailure::CaFile(error.to_string()))?,
            )
            .with_no_client_auth(),
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth(),
    };
    config.alpn_protocols = protocol.map(|name| name.into()).into_iter().collect();
    // A resumed session would show that the target was well once.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Takes any certificate for what it says. Signatures are not looked at, either: they would prove
/// the possession of a key that nobody vouches for.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
