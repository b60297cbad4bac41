//! gRPC health checks against an HTTP/2 server in the same process, and against what is none.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http_body_util::{StreamBody, combinators::BoxBody};
use hyper::{body::Frame, server::conn::http2 as server, service::service_fn};
use tokio_rustls::TlsAcceptor;

use super::{
    super::{
        probe,
        tests::{LONG, SHORT, V4, V6, assert_passed, check, failed, garbage_server, listen},
    },
    *,
};
use crate::{
    authority::Authority,
    health::{CheckProtocol, ProbeOutcome},
};

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// What a gRPC server answers: a message in its frame, and trailers.
fn answer(message: &[u8], status: &str) -> Answer {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().expect("a value"));
    let frames = [
        Ok(Frame::data(Bytes::from(framed(message)))),
        Ok(Frame::trailers(trailers)),
    ];
    let body = StreamBody::new(futures_util::stream::iter(frames));
    Response::builder()
        .header(header::CONTENT_TYPE, "application/grpc+proto")
        .body(BoxBody::new(body))
        .expect("a response")
}

/// What it answers when a call fails at once.
fn refusal(status: &str) -> Answer {
    Response::builder()
        .header(header::CONTENT_TYPE, "application/grpc")
        .header("grpc-status", status)
        .body(BoxBody::new(Full::new(Bytes::new())))
        .expect("a response")
}

/// Asks a server on that address that answers so; what came of it, and the request's message.
async fn asked(
    ip: std::net::IpAddr,
    service: &str,
    answer: impl Fn() -> Answer + Send + Sync + 'static,
) -> (ProbeOutcome, Vec<u8>) {
    let (listener, address) = listen(ip).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        serve(stream, "http", noted, answer).await;
    });
    let protocol = CheckProtocol::Grpc {
        service: service.to_owned(),
        tls: None,
    };
    let outcome = probe(&check(protocol, LONG), address).await;
    server.abort();
    let seen = seen.lock().expect("no panic").clone();
    (outcome, seen)
}

/// Answers so on a connection, and notes the messages of requests.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    scheme: &'static str,
    noted: Arc<Mutex<Vec<u8>>>,
    answer: impl Fn() -> Answer + Send + Sync + 'static,
) {
    let answer = Arc::new(answer);
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let (noted, answer) = (Arc::clone(&noted), Arc::clone(&answer));
        async move {
            assert_eq!(request.uri().path(), METHOD);
            assert_eq!(request.uri().scheme_str(), Some(scheme));
            assert_eq!(request.headers()[header::CONTENT_TYPE], "application/grpc");
            assert_eq!(request.headers()[header::TE], "trailers");
            let body = request.into_body().collect().await.expect("a body");
            *noted.lock().expect("no panic") = body.to_bytes().to_vec();
            Ok::<_, Infallible>(answer())
        }
    });
    // The probe closes the connection as it likes.
    drop(
        server::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await,
    );
}

/// Asks a server over TLS, whose certificate is for this name, until it has answered.
async fn asked_over_tls(
    authority: &Authority,
    certified: &str,
    client: tls::Client,
    message: &'static [u8],
) -> ProbeOutcome {
    let (chain, key) = authority.certificate(&[certified], 2001..2999);
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .expect("versions")
    .with_no_client_auth()
    .with_single_cert(chain, key)
    .expect("a certificate");
    // Whoever does not offer HTTP/2 is turned away, as by servers of gRPC.
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (listener, address) = listen(V4).await;
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let Ok(stream) = acceptor.accept(stream).await else {
            return;
        };
        let spoken = stream.get_ref().1.alpn_protocol();
        assert_eq!(spoken, Some(&b"h2"[..]));
        serve(stream, "https", Arc::default(), move || {
            answer(message, "0")
        })
        .await;
    });
    let protocol = CheckProtocol::Grpc {
        service: String::new(),
        tls: Some(client),
    };
    let outcome = probe(&check(protocol, LONG), address).await;
    server.abort();
    outcome
}

#[tokio::test]
async fn a_service_is_asked_over_tls_with_any_certificate_or_only_the_right_one() {
    let authority = Authority::new();
    let file = authority.file();
    let ask = async |name, ca: Option<&std::path::Path>, message| {
        let client = tls::Client::new(name, ca, Some("h2"));
        asked_over_tls(&authority, "shop.example", client, message).await
    };
    assert_passed(&ask(None, None, &[8, 1]).await);
    assert_passed(&ask(Some("shop.example"), Some(&file), &[8, 1]).await);
    let outcome = ask(Some("shop.example"), Some(&file), &[8, 2]).await;
    assert_eq!(outcome, failed(ProbeFailure::NotServing("NOT_SERVING")));
    let outcome = ask(Some("other.example"), Some(&file), &[8, 1]).await;
    let ProbeOutcome::Failed { reason } = outcome else {
        panic!("{outcome:?}");
    };
    assert!(matches!(reason, ProbeFailure::Certificate(_)), "{reason:?}");
}

#[tokio::test]
async fn a_service_that_serves_passes_and_was_asked_for_by_name() {
    for ip in [V4, V6] {
        let (outcome, request) = asked(ip, "", || answer(&[8, 1], "0")).await;
        assert_passed(&outcome);
        assert_eq!(request, [0, 0, 0, 0, 0]);
        let (outcome, request) = asked(ip, "shop.Cart", || answer(&[8, 1], "0")).await;
        assert_passed(&outcome);
        assert_eq!(request, b"\0\0\0\0\x0b\x0a\x09shop.Cart");
    }
}

#[tokio::test]
async fn a_service_that_does_not_serve_fails_with_its_state() {
    for (message, state) in [
        (&[][..], "UNKNOWN"),
        (&[8, 0], "UNKNOWN"),
        (&[8, 2], "NOT_SERVING"),
        (&[8, 3], "SERVICE_UNKNOWN"),
        (&[8, 9], "in a state that nlb does not know"),
    ] {
        let (outcome, _) = asked(V4, "", || answer(message, "0")).await;
        assert_eq!(outcome, failed(ProbeFailure::NotServing(state)));
    }
}

#[tokio::test]
async fn a_call_that_fails_is_told_by_its_status() {
    let (outcome, _) = asked(V4, "", || refusal("12")).await;
    let reason = ProbeFailure::GrpcStatus(12, "UNIMPLEMENTED");
    assert_eq!(outcome, failed(reason));
    let (outcome, _) = asked(V4, "", || answer(&[], "5")).await;
    assert_eq!(outcome, failed(ProbeFailure::GrpcStatus(5, "NOT_FOUND")));
}

#[tokio::test]
async fn what_is_not_grpc_is_told_as_such() {
    let web_page = || {
        Response::builder()
            .header(header::CONTENT_TYPE, "text/html")
            .body(BoxBody::new(Full::from("<html>")))
            .expect("a response")
    };
    let (outcome, _) = asked(V4, "", web_page).await;
    assert_eq!(outcome, failed(ProbeFailure::NotGrpc));
    let error_page = || {
        Response::builder()
            .status(503)
            .body(BoxBody::new(Full::from("")))
            .expect("a response")
    };
    let (outcome, _) = asked(V4, "", error_page).await;
    assert_eq!(outcome, failed(ProbeFailure::NotGrpc));
    let endless = || answer(&[0; BODY_BYTES], "0");
    let (outcome, _) = asked(V4, "", endless).await;
    assert_eq!(outcome, failed(ProbeFailure::NotGrpc));
    let protocol = CheckProtocol::Grpc {
        service: String::new(),
        tls: None,
    };
    let address = garbage_server().await;
    let outcome = probe(&check(protocol, LONG), address).await;
    assert_eq!(outcome, failed(ProbeFailure::NotGrpc));
}

#[tokio::test]
async fn a_server_that_never_answers_times_out() {
    let (listener, address) = listen(V4).await;
    let protocol = CheckProtocol::Grpc {
        service: String::new(),
        tls: None,
    };
    let outcome = probe(&check(protocol, SHORT), address).await;
    assert_eq!(outcome, failed(ProbeFailure::TimedOut));
    drop(listener);
}

#[test]
fn a_message_is_read_past_fields_that_are_not_known() {
    for (message, expected) in [
        (&[8, 1][..], Some(1)),
        (&[8, 0x81, 0x01], Some(129)),
        (&[0x12, 2, 7, 7, 8, 1], Some(1)),
        (&[0x11, 0, 0, 0, 0, 0, 0, 0, 0, 8, 2], Some(2)),
        (&[0x15, 0, 0, 0, 0, 8, 2], Some(2)),
        (&[0x18, 0x80, 1, 8, 1], Some(1)),
        (&[8], None),
        (&[8, 0x80], None),
        (&[0x12, 9, 7], None),
        (&[0x0b], None),
        (
            &[
                8, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1,
            ],
            None,
        ),
    ] {
        assert_eq!(status(message), expected, "{message:?}");
    }
}

#[test]
fn a_long_name_has_a_length_of_two_bytes() {
    let message = asking_for(&"x".repeat(300));
    assert_eq!(message[..3], [0x0a, 0xac, 0x02]);
    assert_eq!(message.len(), 303);
}
