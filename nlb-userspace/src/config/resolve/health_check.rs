//! The rules of a target group's health check.

use std::{path::Path, time::Duration};

use rustls::pki_types::DnsName;

use super::super::{
    desired::{HealthCheck, HealthCheckPort, HealthCheckProtocol, HealthCheckTls, HttpCodes, Mode},
    error::{Problem, Remedy},
    raw::RawHealthCheck,
    reader::{Field, PortChoice},
    report::{At, Report, Spot},
};

/// NLB's default timeout of HTTP checks.
const HTTP_TIMEOUT: Duration = Duration::from_secs(6);
/// NLB's default timeout of all others.
const TIMEOUT: Duration = Duration::from_secs(10);
/// NLB's limit of `HealthCheckPath`, in characters.
const PATH_LENGTH: usize = 1_024;
/// The largest payload of a UDP check: it fits any link.
const PAYLOAD_BYTES: usize = 1_024;

pub(super) fn resolve(raw: &RawHealthCheck, report: &mut Report<'_>) -> HealthCheck {
    refuse_keys_of_others(raw, report);
    let word = raw.protocol.value().map_or("", |at| at.value.as_str());
    let interval = raw.interval.copied();
    let timeout = if let Some(At { value, spot, .. }) = raw.timeout.value() {
        if let Some(interval) = interval.filter(|interval| value > interval) {
            let interval_millis = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
            let problem = Problem::TimeoutAboveInterval { interval_millis };
            report.fault(spot, problem, Remedy::AtMostInterval(interval_millis));
        }
        *value
    } else {
        let default = if word == "HTTP" {
            HTTP_TIMEOUT
        } else {
            TIMEOUT
        };
        interval.map_or(default, |interval| default.min(interval))
    };
    let threshold = |count: Option<u64>| count.and_then(|count| count.try_into().ok()).unwrap_or(2);
    HealthCheck {
        enabled: raw.enabled.copied().unwrap_or(true),
        protocol: protocol(word, raw, report),
        through_data_path: is_through_data_path(raw),
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

fn is_through_data_path(raw: &RawHealthCheck) -> bool {
    (raw.through.value()).is_some_and(|at| at.value == "data_path")
}

/// The data path is another one than the kernel's where packets keep the VIP.
pub(super) fn check_mode(raw: &RawHealthCheck, mode: Option<Mode>, report: &mut Report<'_>) {
    if let (Some(at), Some(mode)) = (raw.through.value(), mode)
        && at.value == "data_path"
        && !mode.is_dsr()
    {
        report.fault(&at.spot, Problem::DataPathOfMode(mode), Remedy::Remove);
    }
}

/// Keys that mean something with some protocols only.
fn refuse_keys_of_others(raw: &RawHealthCheck, report: &mut Report<'_>) {
    let Some(protocol) = raw.protocol.value() else {
        return;
    };
    let spot_of = |field: &Field<String>| field.value().map(|at| at.spot.clone());
    let silence = raw.udp_silence.value().filter(|at| at.written);
    let port = raw.port.value().filter(|at| at.written);
    let through = raw.through.value().filter(|_| is_through_data_path(raw));
    if let (Some(_), Some(port)) = (through, port) {
        report.fault(&port.spot, Problem::PortOfDataPath, Remedy::Remove);
    }
    let keys: [(Option<Spot>, &[&'static str]); 11] = [
        (through.map(|at| at.spot.clone()), &["TCP", "UDP"]),
        (spot_of(&raw.path), &["HTTP", "HTTPS"]),
        (spot_of(&raw.http_code), &["HTTP", "HTTPS"]),
        (spot_of(&raw.tls_server_name), &["HTTPS", "GRPCS"]),
        (spot_of(&raw.tls_ca_file), &["HTTPS", "GRPCS"]),
        (spot_of(&raw.udp_send), &["UDP"]),
        (spot_of(&raw.udp_expect), &["UDP"]),
        (silence.map(|at| at.spot.clone()), &["UDP"]),
        (spot_of(&raw.grpc_service), &["GRPC", "GRPCS"]),
        (raw.command.value().map(|at| at.spot.clone()), &["COMMAND"]),
        (
            port.map(|at| at.spot.clone()),
            &["TCP", "HTTP", "HTTPS", "UDP", "GRPC", "GRPCS", "COMMAND"],
        ),
    ];
    for (spot, protocols) in keys {
        if let Some(spot) = spot.filter(|_| !protocols.contains(&protocol.value.as_str())) {
            let problem = Problem::KeyOfOtherCheck(protocol.value.clone());
            report.fault(&spot, problem, Remedy::RemoveOrProtocol(protocols.to_vec()));
        }
    }
}

fn protocol(word: &str, raw: &RawHealthCheck, report: &mut Report<'_>) -> HealthCheckProtocol {
    match word {
        "HTTP" | "HTTPS" => HealthCheckProtocol::Http {
            path: path(raw, report),
            matcher: matcher(raw, report),
            tls: (word == "HTTPS").then(|| tls(raw, report)),
        },
        "UDP" => HealthCheckProtocol::Udp {
            send: payload(&raw.udp_send, report),
            expect: payload(&raw.udp_expect, report),
            silence_passes: (raw.udp_silence.value()).is_some_and(|at| at.value == "pass"),
        },
        "GRPC" | "GRPCS" => HealthCheckProtocol::Grpc {
            service: raw
                .grpc_service
                .value()
                .map_or_else(String::new, |at| at.value.clone()),
            tls: (word == "GRPCS").then(|| tls(raw, report)),
        },
        "ICMP" => HealthCheckProtocol::Icmp,
        "COMMAND" => HealthCheckProtocol::Command(command(raw, report)),
        _ => HealthCheckProtocol::Tcp,
    }
}

fn tls(raw: &RawHealthCheck, report: &mut Report<'_>) -> HealthCheckTls {
    if let Some(At { value, spot, .. }) = raw.tls_server_name.value()
        && DnsName::try_from(value.as_str()).is_err()
    {
        report.fault(spot, Problem::NotHostName, Remedy::WriteHostName);
    }
    if let Some(At { value, spot, .. }) = raw.tls_ca_file.value() {
        refuse_relative(value, spot, report);
    }
    HealthCheckTls {
        server_name: raw.tls_server_name.value().map(|at| at.value.clone()),
        ca_file: raw.tls_ca_file.value().map(|at| at.value.clone().into()),
    }
}

/// The bytes that a text stands for.
fn payload(field: &Field<String>, report: &mut Report<'_>) -> Vec<u8> {
    let Some(At { value, spot, .. }) = field.value() else {
        return Vec::new();
    };
    let bytes = match value.strip_prefix("0x") {
        None => value.clone().into_bytes(),
        Some(digits) => hexadecimal(digits).unwrap_or_else(|| {
            report.fault(spot, Problem::NotHexadecimal, Remedy::WritePayload);
            Vec::new()
        }),
    };
    if bytes.len() > PAYLOAD_BYTES {
        let problem = Problem::PayloadLength(bytes.len());
        report.fault(spot, problem, Remedy::AtMostBytes(PAYLOAD_BYTES));
    }
    bytes
}

fn hexadecimal(digits: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let bytes = pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect();
    if rest.is_empty() { bytes } else { None }
}

fn command(raw: &RawHealthCheck, report: &mut Report<'_>) -> Vec<String> {
    let Some(line) = raw.command.value() else {
        if let (Field::Absent, Some(protocol)) = (&raw.command, raw.protocol.value()) {
            let example = "command = [\"/usr/local/bin/check\"]".to_owned();
            report.fault(&protocol.spot, Problem::NoCommand, Remedy::Write(example));
        }
        return Vec::new();
    };
    if let Some(program) = line.value.first() {
        refuse_relative(&program.value, &program.spot, report);
    }
    line.value.iter().map(|word| word.value.clone()).collect()
}

fn refuse_relative(path: &str, spot: &Spot, report: &mut Report<'_>) {
    if !Path::new(path).is_absolute() {
        report.fault(spot, Problem::RelativePath, Remedy::WriteAbsolute);
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
