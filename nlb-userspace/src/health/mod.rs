//! Health checks: from a socket to a verdict on a target.
//!
//! [`probe`] asks a target once, [`schedule`] asks it again and again, and [`state`] makes a
//! verdict of the answers; [`passive`] has it asked before its time when its traffic looks wrong.
//! The first two do I/O; the others are pure. What stands here is what they hand to each other, so
//! that neither half needs the other.

use std::{io, net::SocketAddr, ops::RangeInclusive, time::Duration};

use serde::{Serialize, Serializer};

use self::probe::data_path::Through;

pub mod passive;
pub mod probe;
pub mod schedule;
pub mod state;

/// How to ask a target whether it is well. (The interval belongs to the schedule, thresholds to
/// [`state`], and the address, with the health check port, is the caller's.)
#[derive(Debug, Clone)]
pub struct Check {
    /// What to ask.
    pub protocol: CheckProtocol,
    /// If set, VIPs are asked through the target, and not the target itself.
    pub through: Option<Through>,
    /// How long the whole exchange may take, from the first SYN to the last byte of the answer
    /// (`HealthCheckTimeoutSeconds`).
    pub timeout: Duration,
}

/// What a health check asks.
#[derive(Debug, Clone)]
pub enum CheckProtocol {
    /// The target accepts a connection.
    Tcp,
    /// The target answers `GET path` over HTTP/1.1 with one of the status codes.
    Http {
        /// Path and query, starting with `/` (`HealthCheckPath`).
        path: String,
        /// Status codes that pass (`Matcher.HttpCode`). An empty list passes none.
        codes: Vec<RangeInclusive<u16>>,
        /// The same over TLS (`HTTPS`).
        tls: Option<probe::tls::Client>,
    },
    /// The target answers a datagram, or at least nobody says that its port is closed.
    Udp {
        /// The datagram's payload.
        send: Vec<u8>,
        /// What an answer begins with.
        expect: Vec<u8>,
        /// No answer within the timeout passes, too.
        silence_passes: bool,
    },
    /// The target serves, says its `grpc.health.v1.Health/Check` over HTTP/2.
    Grpc {
        /// Which service is asked about; empty for the server as a whole.
        service: String,
        /// The same over TLS (`GRPCS`).
        tls: Option<probe::tls::Client>,
    },
    /// The target answers an ICMP echo request.
    Icmp,
    /// A program of the operator's ends with exit code 0.
    Command {
        /// The program's absolute path, and its arguments.
        line: Vec<String>,
    },
}

/// What came of one probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The target is well.
    Passed {
        /// From the beginning to what shows it: the connection (TCP), the head of the response
        /// (HTTP), the answer (UDP, gRPC, ICMP), the program's end.
        latency: Duration,
    },
    /// It is not, or cannot be asked.
    Failed {
        /// What went wrong.
        reason: ProbeFailure,
    },
}

/// Why a probe failed. Its text is for operators, who read it next to the target's address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ProbeFailure {
    /// RST in answer to SYN, or ICMP port unreachable in answer to a datagram.
    #[error("connection refused: nothing listens on the health check port")]
    Refused,
    /// The exchange was not complete within the timeout.
    #[error("timed out: no complete answer within the health check timeout")]
    TimedOut,
    /// No route, or an ICMP error on the way.
    #[error("unreachable: no path to the target, look at routes and neighbours")]
    Unreachable,
    /// The connection was reset after it was made.
    #[error("connection reset by the target before its answer was complete")]
    Reset,
    /// The connection was closed, in order, before a complete answer.
    #[error("connection closed by the target before its answer was complete")]
    Closed,
    /// An HTTP response whose status code the matcher does not list.
    #[error("status code {0} is not among the codes that the health check expects")]
    ResponseCodeMismatch(u16),
    /// Something that is not an HTTP/1.1 response, or one with an unreasonably large head.
    #[error("the answer is not an HTTP/1.1 response, is this the right port and protocol?")]
    BadResponse,
    /// The check's path cannot stand in a request, so that nothing was asked.
    #[error("the health check path is not a valid path of an HTTP request")]
    InvalidPath,
    /// No TLS session came about: rustls's words.
    #[error("no TLS session: {0}; is this the right port and protocol?")]
    Tls(String),
    /// The target's certificate does not pass `tls.ca_file` and `tls.server_name`: rustls's words.
    #[error("the target's certificate is refused: {0}")]
    Certificate(String),
    /// `tls.ca_file` cannot be used, so that nothing was asked.
    #[error("health_check.tls.ca_file cannot be used: {0}")]
    CaFile(String),
    /// A datagram that does not begin as `udp.expect` says.
    #[error("the answer does not begin with what the health check expects")]
    AnswerMismatch,
    /// Nothing came back from a VIP through the target.
    #[error(
        "no answer from the VIP {0} through this target: it must have the VIP on its loopback \
         interface, unwrap what comes in the group's tunnel, and have a way back to this node"
    )]
    SilentVip(SocketAddr),
    /// The target has the VIP, and nothing listens there.
    #[error("the target refuses connections to the VIP {0}: nothing listens on that port")]
    RefusedVip(SocketAddr),
    /// There is no VIP to ask through the target.
    #[error(
        "there is no VIP of the target's IP version to ask: no listener of the health check's \
         protocol forwards to the group"
    )]
    NoVip,
    /// Something that is not a gRPC response.
    #[error("the answer is not gRPC over HTTP/2, is this the right port and protocol?")]
    NotGrpc,
    /// The call failed with this gRPC status: its number and name.
    #[error("the gRPC health check was answered with status {0} ({1})")]
    GrpcStatus(u16, &'static str),
    /// The call succeeded, and the service does not serve: its state's name.
    #[error("the gRPC service is {0}, not SERVING")]
    NotServing(&'static str),
    /// The program ended otherwise than with exit code 0: how, and the first line that it wrote.
    #[error("the command ended with {0}")]
    CommandFailed(String),
    /// The program cannot be run.
    #[error("the command cannot be run: {0}")]
    CommandNotRun(io::ErrorKind),
    /// Any other error of this node's own network stack, such as no free descriptors.
    #[error("this node could not probe the target: {0}")]
    Local(io::ErrorKind),
}

impl Serialize for ProbeFailure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
