//! The rules of a target group's health check.

use std::time::Duration;

use super::super::{
    desired::{HealthCheck, HealthCheckPort, HealthCheckProtocol, HttpCodes},
    error::{Problem, Remedy},
    raw::RawHealthCheck,
    reader::PortChoice,
    report::{At, Report},
};

/// NLB's default timeout of TCP checks.
const TCP_TIMEOUT: Duration = Duration::from_secs(10);
/// NLB's default timeout of HTTP checks.
const HTTP_TIMEOUT: Duration = Duration::from_secs(6);
/// NLB's limit of `HealthCheckPath`, in characters.
const PATH_LENGTH: usize = 1_024;

pub(super) fn resolve(raw: &RawHealthCheck, report: &mut Report<'_>) -> HealthCheck {
    let is_http = raw.protocol.value().is_some_and(|at| at.value == "HTTP");
    let protocol = if is_http {
        HealthCheckProtocol::Http {
            path: path(raw, report),
            matcher: matcher(raw, report),
        }
    } else {
        if !raw.protocol.is_wrong() {
            for at in [raw.path.value(), raw.http_code.value()]
                .into_iter()
                .flatten()
            {
                report.fault(&at.spot, Problem::HttpOnly, Remedy::RemoveOrHttp);
            }
        }
        HealthCheckProtocol::Tcp
    };
    let interval = raw.interval.copied();
    let timeout = if let Some(At { value, spot, .. }) = raw.timeout.value() {
        if let Some(interval) = interval.filter(|interval| value > interval) {
            let interval_millis = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
            let problem = Problem::TimeoutAboveInterval { interval_millis };
            report.fault(spot, problem, Remedy::AtMostInterval(interval_millis));
        }
        *value
    } else {
        let default = if is_http { HTTP_TIMEOUT } else { TCP_TIMEOUT };
        interval.map_or(default, |interval| default.min(interval))
    };
    let threshold = |count: Option<u64>| count.and_then(|count| count.try_into().ok()).unwrap_or(2);
    HealthCheck {
        enabled: raw.enabled.copied().unwrap_or(true),
        protocol,
        port: match raw.port.copied() {
            Some(PortChoice::Number(port)) => {
                HealthCheckPort::Port(port.try_into().unwrap_or(u16::MAX))
            }
            _ => HealthCheckPort::TrafficPort,
        },
        interval: interval.unwrap_or(timeout),
        timeout,
        healthy_threshold: threshold(raw.healthy_threshold.copied()),
        unhealthy_threshold: threshold(raw.unhealthy_threshold.copied()),
    }
}

fn path(raw: &RawHealthCheck, report: &mut Report<'_>) -> String {
    let Some(At { value, spot, .. }) = raw.path.value() else {
        return "/".to_owned();
    };
    let length = value.chars().count();
    let strange = value.chars().find(|c| !c.is_ascii_graphic());
    let problem = if !value.starts_with('/') {
        Some(Problem::PathStart)
    } else if let Some(strange) = strange {
        Some(Problem::PathCharacter(strange))
    } else {
        (length > PATH_LENGTH).then_some(Problem::PathLength(length))
    };
    if let Some(problem) = problem {
        report.fault(spot, problem, Remedy::WriteRequestPath);
    }
    value.clone()
}

fn matcher(raw: &RawHealthCheck, report: &mut Report<'_>) -> HttpCodes {
    let Some(At { value, spot, .. }) = raw.http_code.value() else {
        return HttpCodes::default();
    };
    HttpCodes::from_text(value).unwrap_or_else(|problem| {
        report.fault(spot, problem, Remedy::WriteMatcher);
        HttpCodes::default()
    })
}
