//! The way to a daemon elsewhere: TLS 1.3, with a certificate on both ends.

use std::{io, path::Path, sync::Arc, time::Duration};

use hyper::Uri;
use rustls::{
    ClientConfig,
    crypto::ring,
    pki_types::{InvalidDnsNameError, ServerName},
    version::TLS13,
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::pem::{self, PemError};

/// How long a connection and its handshake may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The port of an address that names none.
const HTTPS: u16 = 443;

/// A daemon elsewhere, and what it is shown and judged by.
#[derive(Clone)]
pub struct Network {
    host: String,
    port: u16,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

/// Why a daemon elsewhere cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The address is none.
    #[error("`{0}` is not `https://HOST:PORT`, such as https://lb1.example.org:8443")]
    Url(String),
    /// The host is neither a name nor an address.
    #[error("`{0}` cannot be the name of a host: {1}")]
    Host(String, InvalidDnsNameError),
    /// A file of certificates or keys cannot be used.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// Certificate and key do not go together, or TLS has no use for them.
    #[error("the certificate and the key cannot be used: {0}")]
    Tls(#[from] rustls::Error),
}

impl std::fmt::Debug for Network {
    /// Without the key.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Network({}:{})", self.host, self.port)
    }
}

impl Network {
    /// The daemon at a URL, which is shown that certificate, and whose own one of these authorities
    /// must vouch for.
    pub fn new(url: &str, cert: &Path, key: &Path, ca: &Path) -> Result<Self, NetworkError> {
        let wrong = || NetworkError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let host = uri.host().ok_or_else(wrong)?;
        let written = match uri.port_u16() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let is_bare = uri.path_and_query().is_none_or(|rest| rest.as_str() == "/")
            && uri
                .authority()
                .is_some_and(|authority| authority == written.as_str());
        if uri.scheme_str() != Some("https") || !is_bare {
            return Err(wrong());
        }
        // IPv6 addresses stand in brackets in a URL, and nowhere else.
        let host = host.trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| NetworkError::Host(host.to_owned(), error))?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(pem::roots(ca)?)
            .with_client_auth_cert(pem::certificates(cert)?, pem::private_key(key)?)?;
        Ok(Self {
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(HTTPS),
            name,
            config: Arc::new(config),
        })
    }

    /// As it is told to people.
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    pub(super) async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        let connect = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            let connector = TlsConnector::from(Arc::clone(&self.config));
            connector.connect(self.name.clone(), stream).await
        };
        timeout(PATIENCE, connect).await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_none_is_told() {
        let nothing = Path::new("/nonexistent");
        for url in [
            "lb1:8443",
            "http://lb1:8443",
            "https://",
            "https://lb1:8443/v1",
            "https://lb1:port",
            "https://alice@lb1:8443",
            "",
        ] {
            let error = Network::new(url, nothing, nothing, nothing).unwrap_err();
            assert!(matches!(error, NetworkError::Url(_)), "{url}: {error}");
        }
        for url in [
            "https://lb1:8443",
            "https://[2001:db8::5]:8443/",
            "https://192.0.2.5",
        ] {
            let error = Network::new(url, nothing, nothing, nothing).unwrap_err();
            assert!(matches!(error, NetworkError::Pem(_)), "{url}: {error}");
        }
    }
}
