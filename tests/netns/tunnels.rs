//! Tunnel modes, both ends ours: the daemon's gateway wraps, `nlb decap` on a target unwraps, and the
//! target answers the client directly.

use std::{
    io,
    net::{IpAddr, TcpStream},
};

use anyhow::{Context as _, Result, ensure};
use nlb_tests::lab::{
    Lab,
    addresses::{DSR_VIP_V4, DSR_VIP_V6, HTTP_PORT, UDP_PORT, target_v4, target_v6},
    daemon::Daemon,
    http::HttpConnection,
    nginx::LARGE_BYTES,
};

use super::{
    PATIENCE, ask_http, ask_udp,
    decap::{ALL, Decap, FROM},
    icmp::{COUNTER_PORT, FAR_VIPS, UPLOAD_BYTES, serve_counts, upload},
    listeners, text,
};

/// Both VIPs, and targets of one version behind them.
pub(crate) fn configuration(mode: &str, target: &str) -> String {
    behind(
        [DSR_VIP_V4.into(), DSR_VIP_V6.into()],
        HTTP_PORT,
        mode,
        target,
    )
}

/// The same with other VIPs, and another port of the connections' listener.
fn behind([vip_v4, vip_v6]: [IpAddr; 2], web_port: u16, mode: &str, target: &str) -> String {
    let group = |name: &str, protocol: &str, port: u16| {
        format!(
            r#"
[[target_group]]
name = "{name}"
protocol = "{protocol}"
port = {port}
mode = "{mode}"
health_check.enabled = false

  [[target_group.target]]
  address = "{target}"
"#
        )
    };
    format!(
        r#"
[node]
interfaces = ["eth0", "eth1"]
bpffs = "/run/nlb-demo/bpf"
socket = "/run/nlb-demo/nlb.sock"
tunnel.source_ipv4 = "10.2.0.1"
tunnel.source_ipv6 = "fd00:2::1"
capacity.flows = 65536

[[load_balancer]]
name = "tunnel"
addresses = ["{vip_v4}", "{vip_v6}"]

  [[load_balancer.listener]]
  protocol = "TCP"
  port = {web_port}
  target_group = "web"

  [[load_balancer.listener]]
  protocol = "UDP"
  port = {UDP_PORT}
  target_group = "dns"
{}{}"#,
        group("web", "TCP", web_port),
        group("dns", "UDP", UDP_PORT),
    )
}

fn through(mode: &str, encapsulation: &str) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED {mode}: not root");
        return Ok(());
    }
    let lab = Lab::new(&format!("tun_{encapsulation}"))?;
    let target = [target_v4(0).to_string(), target_v6(0).to_string()];
    lab.write_config(&configuration(mode, &target[0]))?;
    let daemon = lab.start_nlb()?;
    let decap = Decap::start(&lab, &format!("{ALL} {FROM}"))?;
    let everything = |target: &str| -> Result<()> {
        for vip in [IpAddr::V4(DSR_VIP_V4), IpAddr::V6(DSR_VIP_V6)] {
            let way = || {
                let log = daemon.log().unwrap_or_default();
                format!("{vip} by {mode} to {target}; nlb said:\n{log}")
            };
            let before = decap.count(&format!("decapsulated {encapsulation}: "))?;
            // First, because one of its two datagrams may meet a neighbour that is being resolved.
            ensure!(ask_udp(&lab, (vip, UDP_PORT).into()).with_context(way)? == "target1");
            ensure!(ask_http(&lab, (vip, HTTP_PORT).into()).with_context(way)? == "target1");
            let mut connection =
                HttpConnection::from(lab.client(), (vip, HTTP_PORT).into(), PATIENCE)?;
            let answer = connection.get("/large").with_context(way)?;
            ensure!(answer.body_bytes == LARGE_BYTES as u64, "{}", way());
            // A datagram and, of each of two connections, at least SYN, ACK and request.
            let after = decap.count(&format!("decapsulated {encapsulation}: "))?;
            ensure!(after >= before + 7, "{before}, {after}: {}", way());
        }
        Ok(())
    };
    everything(&target[0])?;
    // The other version of the outer packets: other targets, by a reload.
    lab.write_config(&configuration(mode, &target[1]))?;
    let reloaded = daemon.reload()?;
    ensure!(reloaded.status.success(), "{reloaded:?}");
    everything(&target[1])?;

    let status = daemon.status()?;
    for (_, listener) in listeners(&status) {
        ensure!(
            listener["packets"].as_u64() > Some(0),
            "{}: {listener}",
            text(&listener["name"])
        );
        ensure!(listener["return_packets"] == 0, "{listener}");
    }
    ensure!(status["target_groups"][0]["mode"] == mode, "{status}");
    decap.end()
}

#[test]
fn ipip_carries_both_versions_in_both_versions() -> Result<()> {
    through("dsr-ipip", "ipip")
}

#[test]
fn gue_carries_both_versions_in_both_versions() -> Result<()> {
    through("dsr-gue", "gue")
}

#[test]
fn geneve_carries_both_versions_in_both_versions() -> Result<()> {
    through("dsr-geneve", "geneve")
}

/// Answers of no target in these modes, and so errors that were told to clients.
fn told(daemon: &Daemon) -> Result<u64> {
    Ok(listeners(&daemon.status()?)
        .filter_map(|(_, listener)| listener["return_packets"].as_u64())
        .sum())
}

/// What the far link takes: with any headers around a packet, no less than IPv6 asks of every link.
const NARROW_BYTES: u16 = 1400;

#[test]
fn a_client_learns_what_happens_to_its_packets_inside_of_a_tunnel() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED tunnel_told: not root");
        return Ok(());
    }
    let lab = Lab::new("tunnel_told")?;
    // The target is behind a router, over a link that takes less than all others.
    let far = lab.add_behind_target(NARROW_BYTES)?;
    for vip in FAR_VIPS {
        far.ip(&format!("addr add {vip} dev lo\n"))?;
    }
    serve_counts(&far)?;
    let ways = ["dsr-ipip", "dsr-gue", "dsr-geneve"]
        .into_iter()
        .flat_map(|mode| ["10.4.0.10", "fd00:4::10"].map(|target| (mode, target)));
    let configure =
        |(mode, target)| lab.write_config(&behind(FAR_VIPS, COUNTER_PORT, mode, target));
    configure(("dsr-ipip", "10.4.0.10"))?;
    let daemon = lab.start_nlb()?;
    let decap = Decap::start_on(&lab, &far, &FAR_VIPS, &format!("{ALL} {FROM}"))?;
    for way in ways {
        let context = || format!("{way:?}; nlb said:\n{}", daemon.log().unwrap_or_default());
        configure(way)?;
        let reloaded = daemon.reload()?;
        ensure!(reloaded.status.success(), "{reloaded:?}");
        for vip in FAR_VIPS {
            // Of what it learnt on the last way.
            lab.client().run("ip -4 route flush cache")?;
            lab.client().run("ip -6 route flush cache")?;
            let before = told(&daemon)?;
            let received = upload(lab.client(), (vip, COUNTER_PORT).into())
                .with_context(|| format!("an upload to {vip} by {}", context()))?;
            ensure!(received == UPLOAD_BYTES, "{vip}: {}", context());
            ensure!(told(&daemon)? > before, "{vip}: {}", context());
        }
    }
    decap.end()?;

    // Nobody knows a way to the target any more.
    let router = &lab.target(0).host;
    router.ip("route add unreachable 10.4.0.10/32\nroute add unreachable fd00:4::10/128\n")?;
    for way in [("dsr-ipip", "10.4.0.10"), ("dsr-gue", "fd00:4::10")] {
        configure(way)?;
        ensure!(daemon.reload()?.status.success(), "{way:?}");
        for vip in FAR_VIPS {
            let to = (vip, COUNTER_PORT).into();
            let connected = lab
                .client()
                .enter(|| TcpStream::connect_timeout(&to, PATIENCE))?;
            let kind = connected.err().map(|error| error.kind());
            assert_eq!(kind, Some(io::ErrorKind::HostUnreachable), "{vip} {way:?}");
        }
    }
    Ok(())
}
