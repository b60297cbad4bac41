//! HTTP over real sockets on loopback: every way a server can answer, or not.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    time::Instant,
};

use super::{
    super::{
        probe,
        tests::{LONG, SHORT, V4, V6, assert_passed, check, closed_port, failed, listen},
    },
    *,
};
use crate::health::{Check, CheckProtocol, ProbeOutcome};

fn http(timeout: Duration) -> Check {
    let protocol = CheckProtocol::Http {
        path: "/health?deep=1".into(),
        codes: vec![200..=399],
        tls: None,
    };
    check(protocol, timeout)
}

async fn request_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a byte of the request"));
    }
    String::from_utf8(head).expect("an ASCII request")
}

/// A server that takes one request, writes `answer` and closes; then the probe's outcome.
async fn probe_of_server_that_writes(answer: Vec<u8>) -> ProbeOutcome {
    let (listener, address) = listen(V4).await;
    let server = async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        request_head(&mut stream).await;
        // The probe may close first, which is its right.
        drop(stream.write_all(&answer).await);
    };
    let server = tokio::spawn(server);
    let outcome = probe(&http(LONG), address).await;
    server.await.expect("the server does not panic");
    outcome
}

/// A server that takes one connection and keeps it, silent; then the probe's outcome.
async fn probe_of_silent_server(check: Check, answer: &'static [u8]) -> ProbeOutcome {
    let (listener, address) = listen(V4).await;
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream
            .write_all(answer)
            .await
            .expect("the answer's beginning");
        drop(stopped.await);
    });
    let outcome = probe(&check, address).await;
    drop(stop);
    server.await.expect("the server does not panic");
    outcome
}

#[tokio::test]
async fn a_closed_port_refuses() {
    for ip in [V4, V6] {
        let (_socket, address) = closed_port(ip);
        let outcome = probe(&http(LONG), address).await;
        assert_eq!(outcome, failed(ProbeFailure::Refused));
    }
}

#[tokio::test]
async fn a_good_answer_passes_and_the_request_says_who_asks_for_what() {
    for ip in [V4, V6] {
        let (listener, address) = listen(ip).await;
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let head = request_head(&mut stream).await;
            let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
            stream.write_all(answer).await.expect("the answer");
            head
        });
        assert_passed(&probe(&http(LONG), address).await);
        let head = server
            .await
            .expect("the server does not panic")
            .to_ascii_lowercase();
        assert!(
            head.starts_with("get /health?deep=1 http/1.1\r\n"),
            "{head}"
        );
        assert!(head.contains(&format!("\r\nhost: {address}\r\n")), "{head}");
        assert!(head.contains("\r\nuser-agent: nlb-health-check/"), "{head}");
    }
}

#[tokio::test]
async fn the_matcher_decides_on_the_status_code() {
    let head = |code: u16| format!("HTTP/1.1 {code} X\r\ncontent-length: 2\r\n\r\nok").into_bytes();
    for code in [200, 399] {
        assert_passed(&probe_of_server_that_writes(head(code)).await);
    }
    for code in [404, 500] {
        let outcome = probe_of_server_that_writes(head(code)).await;
        assert_eq!(outcome, failed(ProbeFailure::ResponseCodeMismatch(code)));
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let answer = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    assert_passed(&probe_of_server_that_writes(answer.into()).await);
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_a_bad_response() {
    for answer in [
        "SSH-2.0-OpenSSH_9.6\r\n",
        "220 mail ESMTP\r\n\r\n",
        "\u{0}\u{1}\u{2}\u{3}",
    ] {
        let outcome = probe_of_server_that_writes(answer.into()).await;
        assert_eq!(outcome, failed(ProbeFailure::BadResponse), "{answer:?}");
    }
}

#[tokio::test]
async fn an_endless_head_is_a_bad_response() {
    let mut answer = b"HTTP/1.1 200 OK\r\nx: ".to_vec();
    answer.resize(4 * HEAD_BYTES, b'x');
    let outcome = probe_of_server_that_writes(answer).await;
    assert!(matches!(
        outcome,
        ProbeOutcome::Failed {
            reason: ProbeFailure::BadResponse | ProbeFailure::Reset
        }
    ));
}

#[tokio::test]
async fn a_connection_closed_before_the_answer_is_complete_fails() {
    for answer in [
        "",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort",
    ] {
        let outcome = probe_of_server_that_writes(answer.into()).await;
        assert_eq!(outcome, failed(ProbeFailure::Closed), "{answer:?}");
    }
}

#[tokio::test]
async fn a_reset_connection_is_told_as_one() {
    let (listener, address) = listen(V4).await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        // Closing with a byte of the request read and the rest unread resets the connection.
        stream.read_u8().await.expect("a byte of the request");
    });
    assert_eq!(
        probe(&http(LONG), address).await,
        failed(ProbeFailure::Reset)
    );
    server.await.expect("the server does not panic");
}

#[tokio::test]
async fn a_target_that_accepts_and_never_answers_times_out() {
    let start = Instant::now();
    let outcome = probe_of_silent_server(http(SHORT), b"").await;
    assert_eq!(outcome, failed(ProbeFailure::TimedOut));
    assert!(start.elapsed() >= SHORT && start.elapsed() < LONG);
}

#[tokio::test]
async fn an_answer_that_stops_half_way_times_out() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\n"[..],
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ] {
        assert_eq!(
            probe_of_silent_server(http(SHORT), answer).await,
            failed(ProbeFailure::TimedOut)
        );
    }
}

#[tokio::test]
async fn headers_that_drip_do_not_hold_the_probe_beyond_the_timeout() {
    let (listener, address) = listen(V4).await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut written = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await;
        while written.is_ok() {
            tokio::time::sleep(SHORT / 20).await;
            written = stream.write_all(b"x").await;
        }
    });
    assert_eq!(
        probe(&http(SHORT), address).await,
        failed(ProbeFailure::TimedOut)
    );
    // The probe is gone, so that the drip ends.
    server.await.expect("the server does not panic");
}

#[tokio::test]
async fn an_endless_body_is_left_unread() {
    let (listener, address) = listen(V4).await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        request_head(&mut stream).await;
        let mut written = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while written.is_ok() {
            written = stream.write_all(&[b'x'; 4096]).await;
        }
    });
    assert_passed(&probe(&http(LONG), address).await);
    server.await.expect("the server does not panic");
}

#[tokio::test]
async fn a_path_that_cannot_be_asked_for_is_told_without_asking() {
    let (_listener, address) = listen(V4).await;
    for path in [
        "",
        "health",
        "http://elsewhere/",
        "/with space",
        "/\r\nx: y",
    ] {
        let protocol = CheckProtocol::Http {
            path: path.into(),
            codes: vec![200..=200],
            tls: None,
        };
        let outcome = probe(&check(protocol, SHORT), address).await;
        assert_eq!(outcome, failed(ProbeFailure::InvalidPath), "{path:?}");
    }
}
