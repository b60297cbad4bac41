//! The rules of `[node]`.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
};

use super::tunnel;
use super::{
    super::{
        address,
        desired::{
            Capacity, Endpoint, HashKey, HashKeyError, HashKeySource, IpVersion, Node, OnExit,
            Seccomp, TcpApi, TunnelSources, XdpMode,
        },
        error::{Problem, Remedy, Suspicion},
        raw::{RawNode, RawTcpApi},
        reader::Field,
        report::{At, Report, Spot},
    },
    Vips,
};

/// `sun_path` of `sockaddr_un` has 108 bytes, one of them for the terminating zero.
const SOCKET_PATH: usize = 107;
/// `IFNAMSIZ` less the terminating zero.
const INTERFACE_NAME: usize = 15;
/// Half of what the packet program numbers, so that all may be replaced in one reload.
const MOST_SOURCES: usize = 31;

pub(super) fn resolve(raw: Option<&RawNode>, vips: &Vips, report: &mut Report<'_>) -> Node {
    let Some(raw) = raw else {
        return Node {
            interfaces: Vec::new(),
            xdp_mode: XdpMode::Auto,
            hash_key: HashKeySource::Kept,
            bpffs: PathBuf::new(),
            socket: PathBuf::new(),
            tcp_api: None,
            audit_log: None,
            metrics: None,
            on_exit: OnExit::Keep,
            user: None,
            seccomp: Seccomp::Enforce,
            state_directory: PathBuf::new(),
            tunnel_sources: TunnelSources::default(),
            capacity: Capacity {
                flows: NonZeroU32::MIN,
                targets: NonZeroU32::MIN,
                listeners: NonZeroU32::MIN,
                target_groups: NonZeroU32::MIN,
            },
            snat_addresses: Vec::new(),
        };
    };
    Node {
        interfaces: interfaces(raw, report),
        xdp_mode: match raw.xdp_mode.value().map(|at| at.value.as_str()) {
            Some("driver") => XdpMode::Driver,
            Some("generic") => XdpMode::Generic,
            _ => XdpMode::Auto,
        },
        hash_key: hash_key(raw, report),
        bpffs: absolute(&raw.bpffs, report),
        socket: socket(&raw.socket, report),
        tcp_api: tcp_api(&raw.tcp_api, report),
        audit_log: (raw.audit_log.value()).map(|_| absolute(&raw.audit_log, report)),
        metrics: endpoint(&raw.metrics, report),
        on_exit: match raw.on_exit.value().map(|at| at.value.as_str()) {
            Some("detach") => OnExit::Detach,
            _ => OnExit::Keep,
        },
        user: user(raw, report),
        seccomp: match raw.seccomp.value().map(|at| at.value.as_str()) {
            Some("log") => Seccomp::Log,
            Some("off") => Seccomp::Off,
            _ => Seccomp::Enforce,
        },
        state_directory: absolute(&raw.state_directory, report),
        tunnel_sources: tunnel::sources(raw, report),
        capacity: Capacity {
            flows: flows(&raw.flows, report),
            targets: size(&raw.targets),
            listeners: size(&raw.listeners),
            target_groups: size(&raw.target_groups),
        },
        snat_addresses: snat_addresses(raw, vips, report),
    }
}

/// All of its keys or none: what would listen without one of them must not.
fn tcp_api(raw: &RawTcpApi, report: &mut Report<'_>) -> Option<TcpApi> {
    let keys = [
        ("address", &raw.address, "192.0.2.5:8443"),
        (
            "certificate_file",
            &raw.certificate_file,
            "/etc/nlb/node.pem",
        ),
        ("key_file", &raw.key_file, "/etc/nlb/node.key"),
        (
            "client_ca_file",
            &raw.client_ca_file,
            "/etc/nlb/clients.pem",
        ),
    ];
    let written = (keys.iter()).find_map(|(_, field, _)| Some(field.value()?.spot.clone()))?;
    for (name, field, example) in keys {
        if matches!(field, Field::Absent) {
            let spot = Spot {
                field: format!("node.api.tcp.{name}"),
                shown: false,
                ..written.clone()
            };
            let remedy = Remedy::Write(format!("{name} = \"{example}\""));
            report.fault(&spot, Problem::Missing, remedy);
        }
    }
    let [certificate_file, key_file, client_ca_file] =
        [&raw.certificate_file, &raw.key_file, &raw.client_ca_file]
            .map(|field| absolute(field, report));
    let at = raw.address.value()?;
    let address = at.value.parse::<SocketAddr>();
    let Some(address) = address.ok().filter(|address| address.port() != 0) else {
        report.fault(
            &at.spot,
            Problem::NotSocketAddress,
            Remedy::WriteSocketAddress,
        );
        return None;
    };
    Some(TcpApi {
        address,
        certificate_file,
        key_file,
        client_ca_file,
    })
}

fn interfaces(raw: &RawNode, report: &mut Report<'_>) -> Vec<String> {
    let mut lines: HashMap<&str, usize> = HashMap::new();
    let mut interfaces = Vec::new();
    let Some(listed) = raw.interfaces.value() else {
        return interfaces;
    };
    if listed.value.is_empty() {
        report.warn(&listed.spot, Suspicion::NoInterface);
    }
    for at in &listed.value {
        let name = at.value.as_str();
        // The rule of the kernel's `dev_valid_name`.
        if name.is_empty()
            || name.len() > INTERFACE_NAME
            || name == "."
            || name == ".."
            || name.contains(|c: char| matches!(c, '/' | ':' | '\0') || c.is_whitespace())
        {
            report.fault(&at.spot, Problem::InterfaceName, Remedy::WriteInterface);
        } else if let Some(&line) = lines.get(name) {
            report.fault(&at.spot, Problem::ListedTwice { line }, Remedy::Once);
        } else {
            lines.insert(name, report.line(&at.spot));
            interfaces.push(name.to_owned());
        }
    }
    interfaces
}

/// Whether there is such a user is this host's matter, and asked at the start.
fn user(raw: &RawNode, report: &mut Report<'_>) -> Option<String> {
    let at = raw.user.value()?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '$');
    if at.value.is_empty() || !at.value.chars().all(is_plain) || at.value.starts_with('-') {
        report.fault(&at.spot, Problem::UserName, Remedy::WriteUser);
    }
    Some(at.value.clone())
}

fn snat_addresses(raw: &RawNode, vips: &Vips, report: &mut Report<'_>) -> Vec<IpAddr> {
    let mut lines: HashMap<IpAddr, usize> = HashMap::new();
    let mut addresses = Vec::new();
    for at in raw
        .snat_addresses
        .value()
        .map_or(&[][..], |at| at.value.as_slice())
    {
        let Some(address) = address::source(report, at) else {
            continue;
        };
        let of_version = |other: &&IpAddr| IpVersion::of(**other) == IpVersion::of(address);
        if let Some((owner, line)) = vips.get(&address) {
            let problem = Problem::AddressTaken {
                owner: owner.clone(),
                line: *line,
            };
            report.fault(&at.spot, problem, Remedy::WriteSource);
        } else if let Some(&line) = lines.get(&address) {
            report.fault(&at.spot, Problem::ListedTwice { line }, Remedy::Once);
        } else if addresses.iter().filter(of_version).count() == MOST_SOURCES {
            report.fault(&at.spot, Problem::TooManySources, Remedy::Remove);
        } else {
            lines.insert(address, report.line(&at.spot));
            addresses.push(address);
        }
    }
    addresses
}

fn hash_key(raw: &RawNode, report: &mut Report<'_>) -> HashKeySource {
    let file = raw
        .hash_key_file
        .value()
        .map(|at| (at, absolute(&raw.hash_key_file, report)));
    let Some(At { value, spot, .. }) = raw.hash_key.value() else {
        return file.map_or(HashKeySource::Kept, |(_, path)| HashKeySource::File(path));
    };
    if file.is_some() {
        report.fault(spot, Problem::TwoHashKeys, Remedy::KeepOne);
    }
    match HashKey::from_hex(value) {
        Ok(key) => HashKeySource::Written(key),
        Err(error) => {
            let problem = match error {
                HashKeyError::Length(length) => Problem::HashKeyLength(length),
                HashKeyError::Digit => Problem::HashKeyDigit,
            };
            report.fault(spot, problem, Remedy::WriteHashKey);
            HashKeySource::Kept
        }
    }
}

fn absolute(field: &Field<String>, report: &mut Report<'_>) -> PathBuf {
    let Some(at) = field.value() else {
        return PathBuf::new();
    };
    // A daemon's working directory is not the one its file was written in.
    if !at.value.starts_with('/') || at.value.contains('\0') {
        report.fault(&at.spot, Problem::RelativePath, Remedy::WriteAbsolute);
    }
    PathBuf::from(&at.value)
}

fn socket(field: &Field<String>, report: &mut Report<'_>) -> PathBuf {
    let socket = absolute(field, report);
    let length = socket.as_os_str().len();
    if let Some(at) = field.value()
        && length > SOCKET_PATH
    {
        let problem = Problem::SocketPathLength(length);
        report.fault(&at.spot, problem, Remedy::WriteShorterPath);
    }
    socket
}

/// An absolute path, or an address with a port.
fn endpoint(field: &Field<String>, report: &mut Report<'_>) -> Option<Endpoint> {
    let at = field.value()?;
    if at.value.starts_with('/') {
        return Some(Endpoint::Socket(socket(field, report)));
    }
    match at.value.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Some(Endpoint::Address(address)),
        _ => {
            report.fault(&at.spot, Problem::NoEndpoint, Remedy::WriteEndpoint);
            None
        }
    }
}

fn flows(field: &Field<u64>, report: &mut Report<'_>) -> NonZeroU32 {
    if let Some(at) = field.value()
        && !at.value.is_power_of_two()
    {
        let next = at.value.next_power_of_two();
        report.fault(
            &at.spot,
            Problem::NotPowerOfTwo,
            Remedy::WritePowerOfTwo(next),
        );
    }
    size(field)
}

fn size(field: &Field<u64>) -> NonZeroU32 {
    field
        .copied()
        .and_then(|size| u32::try_from(size).ok())
        .and_then(NonZeroU32::new)
        .unwrap_or(NonZeroU32::MIN)
}
