//! HTTPS checks against TLS servers in the same process, with certificates of every kind.

use std::{net::SocketAddr, sync::Arc};

use rustls::{
    ServerConfig,
    version::{TLS12, TLS13},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use super::{
    super::{
        probe,
        tests::{LONG, SHORT, V4, V6, assert_passed, check, failed, garbage_server, listen},
    },
    *,
};
use crate::{
    authority::{Authority, Identity},
    health::{CheckProtocol, ProbeOutcome},
};

/// A server with that certificate that answers every request with 204 and tells, in a channel, the
/// name that it was asked for and the request's head.
async fn https_server(
    ip: IpAddr,
    identity: Identity,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> (
    SocketAddr,
    tokio::sync::mpsc::UnboundedReceiver<(Option<String>, String)>,
) {
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(identity.0, identity.1)
        .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (listener, address) = listen(ip).await;
    let (seen, requests) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let name = stream.get_ref().1.server_name().map(str::to_owned);
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.expect("a byte of the request"));
            }
            let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
            stream.write_all(answer).await.expect("the answer");
            stream.shutdown().await.expect("the end");
            let head = String::from_utf8(head).expect("ASCII").to_ascii_lowercase();
            seen.send((name, head)).expect("somebody asks");
        }
    });
    (address, requests)
}

async fn https(
    address: SocketAddr,
    server_name: Option<&str>,
    ca_file: Option<&Path>,
) -> ProbeOutcome {
    let protocol = CheckProtocol::Http {
        path: "/healthz".to_owned(),
        codes: vec![200..=299],
        tls: Some(Client::new(server_name, ca_file, None)),
    };
    probe(&check(protocol, LONG), address).await
}

fn assert_certificate_refused(outcome: &ProbeOutcome) {
    assert!(
        matches!(
            outcome,
            ProbeOutcome::Failed {
                reason: ProbeFailure::Certificate(_)
            }
        ),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn any_certificate_passes_without_a_ca_file_over_tls_1_2_and_1_3() {
    for (ip, version) in [(V4, &TLS12), (V6, &TLS13)] {
        // For another name, expired, and of an authority that nobody knows.
        let identity = Authority::new().certificate(&["other.example"], 2001..2002);
        let (address, mut requests) = https_server(ip, identity, &[version]).await;
        assert_passed(&https(address, None, None).await);
        let (name, head) = requests.recv().await.expect("a request");
        assert_eq!(name, None);
        assert!(head.starts_with("get /healthz http/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("\r\nhost: {address}\r\n")), "{head}");
    }
}

#[tokio::test]
async fn the_server_name_is_what_the_target_is_asked_for() {
    let identity = Authority::new().certificate(&["other.example"], 2001..2002);
    let (address, mut requests) = https_server(V4, identity, &[&TLS13]).await;
    assert_passed(&https(address, Some("web.example"), None).await);
    let (name, head) = requests.recv().await.expect("a request");
    assert_eq!(name.as_deref(), Some("web.example"));
    let host = format!("\r\nhost: web.example:{}\r\n", address.port());
    assert!(head.contains(&host), "{head}");
}

#[tokio::test]
async fn with_a_ca_file_the_certificate_must_be_the_authoritys_and_for_the_name() {
    let (authority, other) = (Authority::new(), Authority::new());
    let identity = authority.certificate(&["web.example", "127.0.0.1"], 2001..2999);
    let (address, _requests) = https_server(V4, identity, &[&TLS12, &TLS13]).await;
    let file = authority.file();
    let file = Some(file.as_path());
    assert_passed(&https(address, Some("web.example"), file).await);
    // Without a name it must be for the target's address.
    assert_passed(&https(address, None, file).await);
    assert_certificate_refused(&https(address, Some("other.example"), file).await);
    assert_certificate_refused(&https(address, None, Some(&other.file())).await);
    let identity = authority.certificate(&["127.0.0.1"], 2001..2002);
    let (address, _requests) = https_server(V4, identity, &[&TLS13]).await;
    assert_certificate_refused(&https(address, None, file).await);
}

#[tokio::test]
async fn a_ca_file_that_cannot_be_used_is_told_by_every_probe() {
    let (_listener, address) = listen(V4).await;
    let empty = tempfile::NamedTempFile::new().expect("a file");
    for file in [Path::new("/nonexistent/ca.pem"), empty.path()] {
        let outcome = https(address, None, Some(file)).await;
        let ProbeOutcome::Failed {
            reason: ProbeFailure::CaFile(why),
        } = outcome
        else {
            panic!("{outcome:?}");
        };
        assert!(why.starts_with(&format!("`{}`", file.display())), "{why}");
    }
}

#[tokio::test]
async fn what_is_not_tls_is_told_as_such() {
    let outcome = https(garbage_server().await, None, None).await;
    assert!(
        matches!(
            outcome,
            ProbeOutcome::Failed {
                reason: ProbeFailure::Tls(_)
            }
        ),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_handshake_that_is_closed_or_never_answered_is_told_apart() {
    let (listener, address) = listen(V4).await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut hello = [0; 4096];
        let _length = stream.read(&mut hello).await.expect("a client's hello");
        drop(stream);
        listener
    });
    assert_eq!(
        https(address, None, None).await,
        failed(ProbeFailure::Closed)
    );
    let _listener = server.await.expect("no panic");
    let protocol = CheckProtocol::Http {
        path: "/".to_owned(),
        codes: vec![200..=299],
        tls: Some(Client::new(None, None, None)),
    };
    let outcome = probe(&check(protocol, SHORT), address).await;
    assert_eq!(outcome, failed(ProbeFailure::TimedOut));
}
