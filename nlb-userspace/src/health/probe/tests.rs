//! Probes against real sockets on loopback: every way a target can answer, or not. HTTP and gRPC
//! have files of their own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket},
};

use super::*;

/// For checks whose target answers: never reached, however slow the machine.
pub(super) const LONG: Duration = Duration::from_secs(30);
/// For checks whose target never answers.
pub(super) const SHORT: Duration = Duration::from_millis(100);

pub(super) const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub(super) const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

pub(super) async fn listen(ip: IpAddr) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((ip, 0))
        .await
        .expect("a listener on loopback");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

pub(super) const fn check(protocol: CheckProtocol, timeout: Duration) -> Check {
    Check {
        protocol,
        through: None,
        timeout,
    }
}

pub(super) fn failed(reason: ProbeFailure) -> ProbeOutcome {
    ProbeOutcome::Failed { reason }
}

pub(super) fn assert_passed(outcome: &ProbeOutcome) {
    assert!(
        matches!(outcome, ProbeOutcome::Passed { .. }),
        "{outcome:?}"
    );
}

/// Bound but not listening: closed, and nobody else's for as long as the socket lives.
pub(super) fn closed_port(ip: IpAddr) -> (TcpSocket, SocketAddr) {
    let socket = socket_for((ip, 0).into()).expect("a socket");
    socket.bind((ip, 0).into()).expect("a free port");
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

#[tokio::test]
async fn a_target_that_accepts_passes_a_tcp_check() {
    for ip in [V4, V6] {
        let (_listener, address) = listen(ip).await;
        assert_passed(&probe(&check(CheckProtocol::Tcp, LONG), address).await);
    }
}

#[tokio::test]
async fn a_tcp_check_ends_with_a_reset_and_leaves_nothing_behind() {
    let (listener, address) = listen(V4).await;
    assert_passed(&probe(&check(CheckProtocol::Tcp, LONG), address).await);
    let (mut stream, _) = listener.accept().await.expect("a connection");
    let error = stream.read_u8().await.expect_err("no byte");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_closed_port_refuses_whatever_is_asked_over_tcp() {
    for ip in [V4, V6] {
        let (_socket, address) = closed_port(ip);
        for protocol in [
            CheckProtocol::Tcp,
            CheckProtocol::Http {
                path: "/".to_owned(),
                codes: vec![200..=200],
                tls: Some(tls::Client::new(None, None, None)),
            },
            CheckProtocol::Grpc {
                tls: None,
                service: String::new(),
            },
        ] {
            let outcome = probe(&check(protocol, LONG), address).await;
            assert_eq!(outcome, failed(ProbeFailure::Refused));
        }
    }
}

/// A UDP server that answers each datagram so, or not at all; its address.
async fn udp_server(
    ip: IpAddr,
    answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static,
) -> SocketAddr {
    let socket = UdpSocket::bind((ip, 0)).await.expect("a socket");
    let address = socket.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut received = [0; 4096];
        loop {
            let (length, client) = socket.recv_from(&mut received).await.expect("a datagram");
            if let Some(answer) = answer(&received[..length]) {
                socket.send_to(&answer, client).await.expect("an answer");
            }
        }
    });
    address
}

fn udp(send: &[u8], expect: &[u8], silence_passes: bool) -> CheckProtocol {
    CheckProtocol::Udp {
        send: send.to_vec(),
        expect: expect.to_vec(),
        silence_passes,
    }
}

#[tokio::test]
async fn a_datagram_is_answered_as_expected_or_the_check_says_that_it_is_not() {
    for ip in [V4, V6] {
        let address = udp_server(ip, |asked| Some([b"pong ", asked].concat())).await;
        for (expect, outcome) in [
            (&b""[..], None),
            (b"pong", None),
            (b"pong ping", None),
            (b"pong ping!", Some(ProbeFailure::AnswerMismatch)),
            (b"ping", Some(ProbeFailure::AnswerMismatch)),
        ] {
            let got = probe(&check(udp(b"ping", expect, false), LONG), address).await;
            match outcome {
                None => assert_passed(&got),
                Some(reason) => assert_eq!(got, failed(reason)),
            }
        }
        // An empty datagram is one, too.
        assert_passed(&probe(&check(udp(b"", b"pong ", false), LONG), address).await);
    }
}

#[tokio::test]
async fn a_closed_udp_port_fails_also_where_silence_passes() {
    for ip in [V4, V6] {
        for silence_passes in [false, true] {
            let socket = UdpSocket::bind((ip, 0)).await.expect("a socket");
            let address = socket.local_addr().expect("an address");
            drop(socket);
            let got = probe(&check(udp(b"ping", b"", silence_passes), LONG), address).await;
            assert_eq!(got, failed(ProbeFailure::Refused));
        }
    }
}

#[tokio::test]
async fn silence_is_what_the_check_says_that_it_is() {
    let address = udp_server(V4, |_| None).await;
    let got = probe(&check(udp(b"ping", b"", false), SHORT), address).await;
    assert_eq!(got, failed(ProbeFailure::TimedOut));
    assert_passed(&probe(&check(udp(b"ping", b"", true), SHORT), address).await);
    // An answer that is wrong is not silence.
    let address = udp_server(V4, |_| Some(b"go away".to_vec())).await;
    let got = probe(&check(udp(b"ping", b"pong", true), LONG), address).await;
    assert_eq!(got, failed(ProbeFailure::AnswerMismatch));
}

/// As root, and where root may: a raw socket it takes.
fn may_ping() -> bool {
    let may = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::RAW,
        Some(rustix::net::ipproto::ICMP),
    )
    .is_ok();
    if !may {
        println!("SKIPPED: no raw sockets for this user");
    }
    may
}

#[tokio::test]
async fn a_host_that_answers_echo_requests_passes_an_icmp_check() {
    if may_ping() {
        for ip in [V4, V6] {
            let outcome = probe(&check(CheckProtocol::Icmp, LONG), (ip, 0).into()).await;
            assert_passed(&outcome);
        }
    }
}

#[tokio::test]
async fn many_hosts_are_pinged_at_once_and_each_answers_for_itself() {
    if may_ping() {
        let probes = (1..=50_u8).map(|last| {
            let target = SocketAddr::from(([127, 0, 7, last], 0));
            tokio::spawn(async move { probe(&check(CheckProtocol::Icmp, LONG), target).await })
        });
        for probe in probes.collect::<Vec<_>>() {
            assert_passed(&probe.await.expect("no panic"));
        }
    }
}

fn shell(script: &str) -> CheckProtocol {
    let line = ["/bin/sh", "-c", script].map(str::to_owned);
    CheckProtocol::Command { line: line.into() }
}

const TARGET: SocketAddr = SocketAddr::new(V4, 8080);

#[tokio::test]
async fn a_commands_exit_code_is_the_answer_and_its_first_line_the_reason() {
    assert_passed(&probe(&check(shell("exit 0"), LONG), TARGET).await);
    for (script, how) in [
        ("exit 3", "exit code 3"),
        (
            "echo; echo no database; echo more; exit 1",
            "exit code 1: no database",
        ),
        ("echo on stderr >&2; exit 1", "exit code 1: on stderr"),
        ("printf 'a\\033[31m\\tb'; exit 1", "exit code 1: a [31m b"),
        ("kill -9 $$", "signal 9"),
    ] {
        let outcome = probe(&check(shell(script), LONG), TARGET).await;
        let reason = ProbeFailure::CommandFailed(how.to_owned());
        assert_eq!(outcome, failed(reason), "{script}");
    }
}

#[tokio::test]
async fn a_command_is_told_whom_to_ask_and_nothing_else_of_the_daemon() {
    let script = "test \"$NLB_TARGET_ADDRESS:$NLB_TARGET_PORT\" = 127.0.0.1:8080 &&
                  test -z \"$CARGO\" && test -n \"$PATH\" && ! read line";
    assert_passed(&probe(&check(shell(script), LONG), TARGET).await);
}

#[tokio::test]
async fn a_command_that_is_not_there_is_told_as_such() {
    let line = vec!["/nonexistent/check".to_owned()];
    let outcome = probe(&check(CheckProtocol::Command { line }, LONG), TARGET).await;
    assert_eq!(
        outcome,
        failed(ProbeFailure::CommandNotRun(ErrorKind::NotFound))
    );
}

#[tokio::test]
async fn a_command_that_writes_without_end_fails_by_its_exit_code_only() {
    let script = "head -c 1000000 /dev/zero | tr '\\0' x; exit 4";
    let outcome = probe(&check(shell(script), LONG), TARGET).await;
    let reason = format!("exit code 4: {}", "x".repeat(200));
    assert_eq!(outcome, failed(ProbeFailure::CommandFailed(reason)));
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_killed_with_all_that_it_started() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pid");
    // The shell and a child of it, which would go on for long.
    let script = format!(
        "sleep 1000 & echo $! $$ > {0}.new; mv {0}.new {0}; wait",
        file.display()
    );
    let outcome = probe(&check(shell(&script), SHORT * 5), TARGET).await;
    assert_eq!(outcome, failed(ProbeFailure::TimedOut));
    let pids = std::fs::read_to_string(&file).expect("the script ran");
    for pid in pids.split_whitespace() {
        let proc = std::path::PathBuf::from(format!("/proc/{pid}/stat"));
        let is_over = || {
            // The orphan is a zombie until its new parent looks.
            std::fs::read_to_string(&proc).map_or(true, |stat| stat.contains(") Z "))
        };
        let over = async {
            while !is_over() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, over).await.expect("it was killed");
    }
}

/// Writes something that is neither TLS nor HTTP/2 to whoever connects.
pub(super) async fn garbage_server() -> SocketAddr {
    let (listener, address) = listen(V4).await;
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            // The probe may close first, which is its right.
            drop(stream.write_all(b"220 mail.example.com ESMTP\r\n").await);
            let mut rest = Vec::new();
            drop(stream.read_to_end(&mut rest).await);
        }
    });
    address
}
