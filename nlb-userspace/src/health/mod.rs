//! Health checks: from a socket to a verdict on a target.
//!
//! [`probe`] asks a target once, [`schedule`] asks it again and again, and [`state`] makes a
//! verdict of the answers. The first two do I/O; the third is a pure state machine. What stands
//! here is what they hand to each other, so that neither half needs the other.

use std::{io, ops::RangeInclusive, time::Duration};

use serde::{Serialize, Serializer};

pub mod probe;
pub mod schedule;
pub mod state;

/// How to ask a target whether it is well. (The interval belongs to the schedule, thresholds to
/// [`state`], and the address, with the health check port, is the caller's.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What to ask.
    pub protocol: CheckProtocol,
    /// How long the whole exchange may take, from the first SYN to the last byte of the answer
    /// (`HealthCheckTimeoutSeconds`).
    pub timeout: Duration,
}

/// What a health check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckProtocol {
    /// The target accepts a connection.
    Tcp,
    /// The target answers `GET path` over HTTP/1.1 with one of the status codes.
    Http {
        /// Path and query, starting with `/` (`HealthCheckPath`).
        path: String,
        /// Status codes that pass (`Matcher.HttpCode`). An empty list passes none.
        codes: Vec<RangeInclusive<u16>>,
    },
}

/// What came of one probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The target is well.
    Passed {
        /// From the first SYN to the connection (TCP) or to the head of the response (HTTP).
        latency: Duration,
    },
    /// It is not, or cannot be asked.
    Failed {
        /// What went wrong.
        reason: ProbeFailure,
    },
}

/// Why a probe failed. Its text is for operators, who read it next to the target's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ProbeFailure {
    /// RST in answer to SYN.
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
    /// Any other error of this node's own network stack, such as no free descriptors.
    #[error("this node could not probe the target: {0}")]
    Local(io::ErrorKind),
}

impl Serialize for ProbeFailure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
