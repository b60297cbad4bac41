//! Tunnel modes, both ends ours: the daemon's gateway wraps, `nlb decap` on a target unwraps, and the
//! target answers the client directly.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use nlb_tests::lab::{
    Lab,
    addresses::{DSR_VIP_V4, DSR_VIP_V6, HTTP_PORT, UDP_PORT, target_v4, target_v6},
    http::HttpConnection,
    nginx::LARGE_BYTES,
};

use super::{
    PATIENCE, ask_http, ask_udp,
    decap::{ALL, Decap, FROM},
    listeners, text,
};

/// Both VIPs, and targets of one version behind them.
pub(crate) fn configuration(mode: &str, target: &str) -> String {
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
addresses = ["{DSR_VIP_V4}", "{DSR_VIP_V6}"]

  [[load_balancer.listener]]
  protocol = "TCP"
  port = {HTTP_PORT}
  target_group = "web"

  [[load_balancer.listener]]
  protocol = "UDP"
  port = {UDP_PORT}
  target_group = "dns"
{}{}"#,
        group("web", "TCP", HTTP_PORT),
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
