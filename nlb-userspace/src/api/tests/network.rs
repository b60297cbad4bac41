//! The API over TCP: who gets in, and what strangers cannot do to those who are.

use std::{path::Path, time::Duration};

use hyper::Method;
use rustls::{ClientConfig, crypto::ring, pki_types::ServerName, version::TLS12};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
};

use super::{
    super::{
        network::Network,
        shapes::Item,
        tls::{self, Terms},
    },
    *,
};
use crate::{
    access::{Grant, Principals, Role},
    authority::{Authority, Files},
    client::{self, Call, ClientError, Endpoint},
    config::TcpApi,
    pem,
};

/// The API of a daemon, over TCP, and whoever vouches for both ends.
struct Remote {
    server: Server,
    authority: Authority,
    address: std::net::SocketAddr,
    node: Files,
    terms: watch::Sender<Option<Terms>>,
}

const YEARS: std::ops::Range<i32> = 2001..2999;

impl Remote {
    /// Alice reads, the operators' service works with targets.
    fn start() -> Self {
        let grant = |role, name: &str| Grant {
            role,
            principals: Principals {
                certificates: vec![name.parse().unwrap()],
                ..Principals::default()
            },
        };
        let server = Server::start_behind(Policy {
            owners: vec![rustix::process::geteuid().as_raw()],
            grants: vec![
                grant(Role::ReadOnly, "CN:alice"),
                grant(Role::Operator, "URI:spiffe://example.org/ops"),
            ],
            ..Policy::default()
        });
        let authority = Authority::new();
        let node = authority.files("node", &["127.0.0.1"], YEARS);
        let terms = tls::load(&terms_of(&node, &authority.file())).unwrap();
        let terms = watch::Sender::new(Some(terms));
        let network = Network::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = network.address().unwrap();
        let api = server.api.clone();
        api.serve_network(network, terms.subscribe()).unwrap();
        Self {
            server,
            authority,
            address,
            node,
            terms,
        }
    }

    fn endpoint(&self, files: &Files, ca: &Path) -> Endpoint {
        let url = format!("https://{}", self.address);
        let network = client::network::Network::new(&url, &files.certificate, &files.key, ca);
        Endpoint::Network(Box::new(network.unwrap()))
    }

    fn as_somebody(&self, common: &str, names: &[&str]) -> Endpoint {
        let files = self.authority.files(common, names, YEARS);
        self.endpoint(&files, &self.authority.file())
    }

    async fn audited(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.server.home.path().join("audit.log")).unwrap();
        (text.lines())
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn terms_of(node: &Files, ca: &Path) -> TcpApi {
    TcpApi {
        address: "127.0.0.1:0".parse().unwrap(),
        certificate_file: node.certificate.clone(),
        key_file: node.key.clone(),
        client_ca_file: ca.to_owned(),
    }
}

async fn read(endpoint: &Endpoint) -> Result<Item, ClientError> {
    client::call(endpoint, Method::GET, FIRST).await
}

async fn weigh(endpoint: &Endpoint) -> Result<Written, ClientError> {
    let call = Call::new(Method::PATCH, FIRST).with_json(&json!({"weight": 3}));
    client::send(endpoint, call).await
}

#[tokio::test]
async fn a_client_may_do_what_the_names_in_its_certificate_may() {
    let remote = Remote::start();
    let alice = remote.as_somebody("alice", &[]);
    assert_eq!(read(&alice).await.unwrap().id, "10.0.0.11:8080");
    let said = weigh(&alice).await.unwrap_err().to_string();
    assert!(
        said.starts_with("certificate CN:alice may not targets:update"),
        "{said}"
    );
    let ops = remote.as_somebody("service", &["ops.example.org", "spiffe://example.org/ops"]);
    assert!(weigh(&ops).await.unwrap().live);
    // Somebody for whom the authority vouches, and whom nobody has named.
    let mallory = remote.as_somebody("mallory", &["spiffe://example.org/ops/not"]);
    let refused = read(&mallory).await.unwrap_err();
    assert!(matches!(refused, ClientError::Refused(problem) if problem.status == 403));

    let audited = remote.audited().await;
    let said = |index: usize, key: &str| audited[index][key].as_str().unwrap_or_default();
    let outcomes: Vec<&str> = (0..audited.len())
        .map(|index| said(index, "outcome"))
        .collect();
    assert_eq!(outcomes, ["refused", "done", "refused"]);
    for (line, subject) in audited.iter().zip(["CN=alice", "CN=service", "CN=mallory"]) {
        assert_eq!(line["certificate"]["subject"], subject);
        let from: std::net::SocketAddr = line["from"].as_str().unwrap().parse().unwrap();
        assert!(from.ip().is_loopback());
        assert_eq!(line["uid"], Value::Null);
    }
    assert_eq!(
        audited[1]["certificate"]["names"],
        json!([
            "DNS:ops.example.org",
            "URI:spiffe://example.org/ops",
            "CN:service"
        ])
    );
}

#[tokio::test]
async fn nobody_gets_in_without_a_certificate_of_the_authority_that_is_in_date() {
    let remote = Remote::start();
    let ca = remote.authority.file();
    let elsewhere = Authority::new();
    let stranger = elsewhere.files("alice", &[], YEARS);
    let late = remote.authority.files("alice", &[], 2001..2002);
    for files in [stranger, late] {
        let error = read(&remote.endpoint(&files, &ca)).await.unwrap_err();
        let said = error.to_string();
        assert!(
            matches!(
                error,
                ClientError::Http { .. } | ClientError::Network { .. }
            ) && said.contains("received fatal alert"),
            "{said}"
        );
    }
    // The other way round: a client does not talk to a daemon that it has no reason to trust.
    let alice = remote.authority.files("alice", &[], YEARS);
    let error = read(&remote.endpoint(&alice, &elsewhere.file())).await;
    assert!(
        matches!(error, Err(ClientError::Network { .. })),
        "{error:?}"
    );
    assert_eq!(remote.audited().await.len(), 0);
    assert!(read(&remote.endpoint(&alice, &ca)).await.is_ok());
}

#[tokio::test]
async fn tls_1_2_is_not_spoken_and_no_certificate_is_refused() {
    let remote = Remote::start();
    let provider = Arc::new(ring::default_provider());
    let shake_hands = async |config: ClientConfig| {
        let stream = TcpStream::connect(remote.address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(name, stream).await?;
        // With TLS 1.3 a client learns only now that it is refused.
        stream.write_all(b"GET /v1/status HTTP/1.1\r\n\r\n").await?;
        stream.read_u8().await
    };
    let roots = || pem::roots(&remote.authority.file()).unwrap();
    let alice = remote.authority.files("alice", &[], YEARS);
    let old = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_root_certificates(roots())
        .with_client_auth_cert(
            pem::certificates(&alice.certificate).unwrap(),
            pem::private_key(&alice.key).unwrap(),
        )
        .unwrap();
    let said = shake_hands(old).await.unwrap_err().to_string();
    assert!(said.contains("ProtocolVersion"), "{said}");
    let bare = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots())
        .with_no_client_auth();
    let said = shake_hands(bare).await.unwrap_err().to_string();
    assert!(said.contains("CertificateRequired"), "{said}");
}

#[tokio::test]
async fn a_certificate_that_is_read_anew_is_shown_at_once_on_the_same_listener() {
    let remote = Remote::start();
    let alice = remote.as_somebody("alice", &[]);
    assert!(read(&alice).await.is_ok());
    // Another authority for everything.
    let next = Authority::new();
    let node = next.files("node", &["127.0.0.1"], YEARS);
    let terms = tls::load(&terms_of(&node, &next.file())).unwrap();
    remote.terms.send_replace(Some(terms));
    assert!(read(&alice).await.is_err());
    let alice = next.files("alice", &[], YEARS);
    assert!(read(&remote.endpoint(&alice, &next.file())).await.is_ok());
    assert!(remote.node.key.exists());
}

#[tokio::test]
async fn whoever_connects_and_says_nothing_keeps_nobody_from_the_control_socket() {
    let remote = Remote::start();
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(remote.address).await.unwrap());
    }
    assert_eq!(remote.server.get(FIRST).await.status, 200);
    // And when they have gone, or their time is up, those over the network get in again.
    drop(silent);
    let alice = remote.as_somebody("alice", &[]);
    let patience = Duration::from_mins(1);
    let answer = tokio::time::timeout(patience, read(&alice)).await.unwrap();
    assert!(answer.is_ok(), "{answer:?}");
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused() {
    let remote = Remote::start();
    let ops = remote.as_somebody("ops", &["spiffe://example.org/ops"]);
    let body = vec![b' '; (16 << 20) + 1];
    let call = Call::new(Method::PATCH, FIRST).with_body("application/json", body);
    let error = client::send::<Written>(&ops, call).await.unwrap_err();
    assert!(
        error.to_string().contains("16777216 bytes at most"),
        "{error}"
    );
    let call = Call::new(Method::GET, FIRST).with_header("x-long", "x".repeat(64 << 10));
    assert!(client::send::<Item>(&ops, call).await.is_err());
    assert!(read(&ops).await.is_ok());
}
