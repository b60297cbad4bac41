//! Client certificates: the names by which a policy knows whom an authority has vouched for.
//!
//! ```text
//!  subject alternative name, URI       URI:spiffe://example.org/ops
//!  subject alternative name, DNS name  DNS:ops.example.org
//!  subject, common name                CN:alice
//! ```
//!
//! A policy names them exactly as they stand in the certificate (but DNS names in any case); there
//! are no wildcards, so that no authority can make a name that somebody did not write down. Of
//! subjects with several common names none counts.

use std::{fmt, str::FromStr};

use sha2::{Digest as _, Sha256};
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, oid_registry::OID_X509_COMMON_NAME,
    prelude::FromDer as _,
};

use super::audit;

/// A name in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CertificateName {
    /// A subject alternative name that is a URI, such as a SPIFFE ID.
    Uri(String),
    /// A subject alternative name that is a DNS name, in small letters.
    Dns(String),
    /// The subject's common name.
    Common(String),
}

/// A text that is no name of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAName;

impl FromStr for CertificateName {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        match text.split_once(':') {
            Some((_, "")) | None => Err(NotAName),
            Some(("URI", name)) => Ok(Self::Uri(name.to_owned())),
            Some(("DNS", name)) => Ok(Self::Dns(name.to_ascii_lowercase())),
            Some(("CN", name)) => Ok(Self::Common(name.to_owned())),
            Some(_) => Err(NotAName),
        }
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uri(name) => write!(out, "URI:{name}"),
            Self::Dns(name) => write!(out, "DNS:{name}"),
            Self::Common(name) => write!(out, "CN:{name}"),
        }
    }
}

/// What is known of whoever showed a certificate and has its key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Certificate {
    /// Its subject, for people.
    pub subject: String,
    /// Its names, for policies.
    pub names: Vec<CertificateName>,
    /// SHA-256 of the certificate, in hexadecimal digits: which one it was.
    pub sha256: String,
}

impl Certificate {
    /// Reads a certificate in DER. Whether anybody vouches for it was looked at before.
    pub fn parse(der: &[u8]) -> Result<Self, Unreadable> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|error| Unreadable(error.to_string()))?;
        let mut names = Vec::new();
        let alternative = certificate
            .subject_alternative_name()
            .map_err(|error| Unreadable(error.to_string()))?;
        for name in alternative
            .iter()
            .flat_map(|names| &names.value.general_names)
        {
            match name {
                GeneralName::URI(uri) => names.push(CertificateName::Uri((*uri).to_owned())),
                GeneralName::DNSName(name) => {
                    names.push(CertificateName::Dns(name.to_ascii_lowercase()));
                }
                _ => {}
            }
        }
        let mut common = certificate.subject().iter_by_oid(&OID_X509_COMMON_NAME);
        if let (Some(name), None) = (common.next(), common.next())
            && let Ok(name) = name.as_str()
        {
            names.push(CertificateName::Common(name.to_owned()));
        }
        Ok(Self {
            subject: certificate.subject().to_string(),
            names,
            sha256: audit::hex(&Sha256::digest(der)),
        })
    }

    /// Its first name, or its subject if it has none.
    pub fn name(&self) -> String {
        let first = self.names.first();
        first.map_or_else(|| self.subject.clone(), ToString::to_string)
    }
}

/// A certificate that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the client's certificate cannot be read: {0}")]
pub struct Unreadable(String);

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(common_names: &[&str], alternative: Vec<SanType>) -> Certificate {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Example");
        for name in common_names {
            // rcgen keeps one of each kind; a second one comes under its number.
            let kind = match *name {
                "second" => DnType::CustomDnType(vec![2, 5, 4, 3]),
                _ => DnType::CommonName,
            };
            params.distinguished_name.push(kind, *name);
        }
        params.subject_alt_names = alternative;
        let key = KeyPair::generate().unwrap();
        Certificate::parse(params.self_signed(&key).unwrap().der()).unwrap()
    }

    #[test]
    fn a_certificate_has_the_names_that_stand_in_it() {
        let found = certificate(
            &["alice"],
            vec![
                SanType::DnsName("Ops.Example.org".try_into().unwrap()),
                SanType::URI("spiffe://example.org/Ops".try_into().unwrap()),
                SanType::IpAddress([192, 0, 2, 1].into()),
            ],
        );
        let names: Vec<String> = found.names.iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            [
                "DNS:ops.example.org",
                "URI:spiffe://example.org/Ops",
                "CN:alice"
            ]
        );
        assert_eq!(found.subject, "O=Example, CN=alice");
        assert_eq!(found.sha256.len(), 64);
        for name in &names {
            let read: CertificateName = name.parse().unwrap();
            assert!(found.names.contains(&read));
        }
        assert_eq!(certificate(&[], Vec::new()).names, []);
        assert_eq!(
            certificate(&["first", "second"], Vec::new()).names,
            [],
            "which of two is meant nobody can say"
        );
        assert!(Certificate::parse(b"no certificate").is_err());
    }

    #[test]
    fn a_name_says_what_kind_of_name_it_is() {
        for text in ["alice", "CN:", "cn:alice", "IP:192.0.2.1", ""] {
            assert_eq!(text.parse::<CertificateName>(), Err(NotAName), "{text}");
        }
        assert_eq!(
            "DNS:OPS.example.org".parse(),
            Ok(CertificateName::Dns("ops.example.org".to_owned()))
        );
    }
}
