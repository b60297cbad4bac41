//! Real connections between real hosts, through the real daemon and the loaded program.
//!
//! The configuration is the demonstration's, `docs/examples/demo.toml`, with quicker health checks.
//! Each test has a lab of its own, so they may run beside each other.

mod access;
mod admission;
mod api;
mod api_tcp;
mod authority;
mod captured;
mod changes;
mod cookies;
mod daemon_life;
mod data_path;
mod decap;
mod doctor;
mod early;
mod events;
mod explained;
mod flow_life;
mod forwarding;
mod health;
mod health_tls;
mod icmp;
mod log;
mod metrics;
mod next_hops;
mod package;
mod pinning;
mod privileges;
mod quic;
mod reaction;
mod selection;
mod service;
mod snat;
mod survival;
mod tools;
mod top;
mod tunnels;
mod tutorial;
mod upgrade;

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nlb_tests::lab::{
    Lab,
    addresses::{
        DSR_VIP_V4, DSR_VIP_V6, HTTP_PORT, NAT_VIP_V4, NAT_VIP_V6, UDP_PORT, target_v4, target_v6,
    },
    daemon::Daemon,
    http::HttpConnection,
    udp::UdpClient,
    wait::wait_until,
};
use serde_json::Value;

const EXAMPLE: &str = include_str!("../../docs/examples/demo.toml");
/// The pool of sources, where there is one.
const POOL_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 50);
const POOL_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x50);
/// For what takes a few health checks, or the daemon's start, on a busy machine.
const SOON: Duration = Duration::from_secs(15);
/// What a client allows an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Enough flows that each of three targets gets one, but for one run in 10^17.
const MANY: usize = 100;

/// The example, its health checks five times as quick.
fn configuration() -> String {
    EXAMPLE
        .replace("interval_seconds = 1\n", "interval_seconds = 0.2\n")
        .replace("timeout_seconds = 0.5\n", "timeout_seconds = 0.2\n")
}

/// Runs a claim in a lab with a daemon and healthy targets.
fn with_nlb(name: &str, claim: impl FnOnce(&mut Lab, &mut Daemon) -> Result<()>) -> Result<()> {
    with_configuration(name, &configuration(), claim)
}

/// The same with another configuration.
fn with_configuration(
    name: &str,
    text: &str,
    claim: impl FnOnce(&mut Lab, &mut Daemon) -> Result<()>,
) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED {name}: not root");
        return Ok(());
    }
    let mut lab = Lab::new(&name[..name.len().min(12)])?;
    lab.write_config(text)?;
    let mut daemon = lab.start_nlb()?;
    wait_for_states(&daemon, |_, state| state == "healthy")
        .and_then(|()| claim(&mut lab, &mut daemon))
        .with_context(|| format!("nlb said:\n{}", daemon.log().unwrap_or_default()))
}

/// A configuration with a pool of sources.
fn with_pool(configuration: &str) -> String {
    let pool = format!("[node]\nsnat_addresses = [\"{POOL_V4}\", \"{POOL_V6}\"]\n");
    configuration.replacen("[node]\n", &pool, 1)
}

/// The configuration without the target that has this address.
fn without(configuration: &str, address: &str) -> String {
    let target = format!("  [[target_group.target]]\n  address = \"{address}\"\n");
    configuration.replace(&target, "")
}

/// Waits until every target of every group is in a state that is right for its address.
fn wait_for_states(daemon: &Daemon, is_right: impl Fn(&str, &str) -> bool) -> Result<()> {
    let mut found = Vec::new();
    wait_until("the targets are in the right states", SOON, || {
        let Ok(status) = daemon.status() else {
            return false;
        };
        found = targets(&status)
            .map(|target| (text(&target["address"]), text(&target["state"])))
            .collect();
        !found.is_empty()
            && found
                .iter()
                .all(|(address, state)| is_right(address, state))
    })
    .with_context(|| format!("{found:?}"))?;
    Ok(())
}

/// Waits until that host's targets are unhealthy, and all others healthy.
fn wait_until_one_fails(daemon: &Daemon, index: usize) -> Result<()> {
    wait_for_states(daemon, |address, state| {
        let is_failed = is_host(address, index);
        state == if is_failed { "unhealthy" } else { "healthy" }
    })
}

/// All targets of all groups.
fn targets(status: &Value) -> impl Iterator<Item = &Value> {
    let groups = status["target_groups"].as_array().into_iter().flatten();
    groups.flat_map(|group| group["targets"].as_array().into_iter().flatten())
}

/// All listeners, with their load balancer's name.
fn listeners(status: &Value) -> impl Iterator<Item = (String, &Value)> {
    let balancers = status["load_balancers"].as_array().into_iter().flatten();
    balancers.flat_map(|balancer| {
        let listeners = balancer["listeners"].as_array().into_iter().flatten();
        listeners.map(|listener| (text(&balancer["name"]), listener))
    })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Whether an address, as `status` prints it, is one of that host's.
fn is_host(address: &str, index: usize) -> bool {
    address == target_v4(index).to_string() || address == target_v6(index).to_string()
}

fn http_vips() -> [SocketAddr; 4] {
    vips(HTTP_PORT)
}

fn udp_vips() -> [SocketAddr; 4] {
    vips(UDP_PORT)
}

fn vips(port: u16) -> [SocketAddr; 4] {
    [
        (NAT_VIP_V4, port).into(),
        (NAT_VIP_V6, port).into(),
        (DSR_VIP_V4, port).into(),
        (DSR_VIP_V6, port).into(),
    ]
}

/// One request on a new connection; who answered.
fn ask_http(lab: &Lab, vip: SocketAddr) -> Result<String> {
    let mut connection = HttpConnection::from(lab.client(), vip, PATIENCE)?;
    let answer = connection
        .get("/")
        .with_context(|| format!("a request to {vip}"))?;
    ensure!(answer.status == 200, "{vip}: {answer:?}");
    Ok(answer.target)
}

/// One datagram from a new socket; who answered. A datagram may be lost while a neighbour is being
/// resolved, so there is a second one.
fn ask_udp(lab: &Lab, vip: SocketAddr) -> Result<String> {
    let mut socket = UdpClient::new(lab.client(), vip, PATIENCE)?;
    let answer = socket.ask().or_else(|_| socket.ask());
    let answer = answer.with_context(|| format!("a datagram to {vip}"))?;
    ensure!(answer.client == socket.local()?, "{vip}: {answer:?}");
    Ok(answer.target)
}

/// One datagram of so many bytes from a new socket, and an answer of as many; who answered. One may be
/// lost, as with [`ask_udp`].
fn ask_udp_at_length(lab: &Lab, vip: SocketAddr, bytes: usize) -> Result<String> {
    let mut socket = UdpClient::new(lab.client(), vip, PATIENCE)?;
    let answer = socket.ask_at_length(bytes);
    let answer = answer.or_else(|_| socket.ask_at_length(bytes));
    let answer = answer.with_context(|| format!("a datagram of {bytes} bytes to {vip}"))?;
    ensure!(answer.client == socket.local()?, "{vip}: {answer:?}");
    Ok(answer.target)
}

/// Who answers on many new flows; none may fail.
fn who_answers(mut ask: impl FnMut() -> Result<String>) -> Result<BTreeSet<String>> {
    (0..MANY).map(|_| ask()).collect()
}

/// A connection to that target, kept open.
fn connection_to(lab: &Lab, vip: SocketAddr, target: &str) -> Result<HttpConnection> {
    for _ in 0..MANY {
        let mut connection = HttpConnection::from(lab.client(), vip, PATIENCE)?;
        if connection.get("/")?.target == target {
            return Ok(connection);
        }
    }
    bail!("{vip}: none of {MANY} connections went to {target}")
}
