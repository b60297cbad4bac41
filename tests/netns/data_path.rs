//! Health checks through the data path: the VIP is asked by way of the target.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use nlb_tests::lab::{
    Lab,
    addresses::{DSR_VIP_V4, DSR_VIP_V6, HTTP_PORT, UDP_PORT},
    daemon::Daemon,
    wait::wait_until,
};

use super::{
    SOON, configuration,
    decap::{ALL, Decap, FROM},
    is_host, targets, text, tunnels, wait_for_states,
};

/// Lets targets answer the gateway from a VIP, too, and not only the client.
fn with_way_back(lab: &Lab) -> Result<()> {
    for target in lab.targets() {
        target.host.ip("route add 10.2.0.0/24 dev eth0 table 100\n\
                        route add fd00:2::/64 dev eth0 table 100\n")?;
    }
    Ok(())
}

/// Waits until exactly these targets are unhealthy, each with this in its reason.
fn wait_for_failures(
    daemon: &Daemon,
    fails: impl Fn(&str) -> bool,
    reason: impl Fn(&str) -> String,
) -> Result<()> {
    let mut found = String::new();
    wait_until("the right targets fail for the right reason", SOON, || {
        let Ok(status) = daemon.status() else {
            return false;
        };
        found = status["target_groups"].to_string();
        targets(&status).all(|target| {
            let address = text(&target["address"]);
            let why = text(&target["last_failure"]);
            match text(&target["state"]).as_str() {
                "healthy" => !fails(&address),
                "unhealthy" => fails(&address) && why.contains(&reason(&address)),
                _ => false,
            }
        })
    })
    .with_context(|| found.clone())?;
    Ok(())
}

/// The example's `dsr-l2` groups and load balancer alone, checked through the data path.
fn dsr_only() -> Result<String> {
    let text = configuration();
    let at = |word: &str| text.find(word).with_context(|| word.to_owned());
    let node = &text[..at("[[load_balancer]]\nname = \"nat\"")?];
    let balancer = &text[at("[[load_balancer]]\nname = \"dsr\"")?..at("[[target_group]]")?];
    let mut whole = format!("{node}{balancer}");
    for (name, protocol, port, addresses) in [
        ("dsr-web-v4", "TCP", HTTP_PORT, ["10.2.0.11", "10.2.0.12"]),
        ("dsr-web-v6", "TCP", HTTP_PORT, ["fd00:2::11", "fd00:2::12"]),
        ("dsr-dns-v4", "UDP", UDP_PORT, ["10.2.0.11", "10.2.0.12"]),
        ("dsr-dns-v6", "UDP", UDP_PORT, ["fd00:2::11", "fd00:2::12"]),
    ] {
        let [first, second] = addresses;
        write!(
            whole,
            "[[target_group]]\nname = \"{name}\"\nprotocol = \"{protocol}\"\nport = {port}\n\
             mode = \"dsr-l2\"\n[target_group.health_check]\nprotocol = \"{protocol}\"\n\
             through = \"data_path\"\ninterval_seconds = 0.2\ntimeout_seconds = 0.2\n\
             [[target_group.target]]\naddress = \"{first}\"\n\
             [[target_group.target]]\naddress = \"{second}\"\n"
        )
        .unwrap();
    }
    Ok(whole)
}

#[test]
fn a_target_without_the_vip_is_unhealthy_until_it_has_it() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED a_target_without_the_vip_is_unhealthy_until_it_has_it: not root");
        return Ok(());
    }
    let mut lab = Lab::new("data_path")?;
    with_way_back(&lab)?;
    lab.write_config(&dsr_only()?)?;
    let daemon = lab.start_nlb()?;
    let explain = || format!("nlb said:\n{}", daemon.log().unwrap_or_default());
    wait_for_states(&daemon, |_, state| state == "healthy").with_context(explain)?;

    let target = lab.target(1).host.clone();
    target.ip("addr del 192.0.2.20/32 dev lo\n")?;
    let is_v4_of_it = |address: &str| is_host(address, 1) && address.contains('.');
    wait_for_failures(&daemon, is_v4_of_it, |_| {
        format!("no answer from the VIP {DSR_VIP_V4}:")
    })?;
    target.ip("addr add 192.0.2.20/32 dev lo\naddr del 2001:db8::20/128 dev lo\n")?;
    let is_v6_of_it = |address: &str| is_host(address, 1) && address.contains(':');
    wait_for_failures(&daemon, is_v6_of_it, |_| {
        format!("no answer from the VIP [{DSR_VIP_V6}]:")
    })?;
    target.ip("addr add 2001:db8::20/128 dev lo nodad\n")?;
    wait_for_states(&daemon, |_, state| state == "healthy").with_context(explain)?;

    // The VIP is there, and nobody listens.
    lab.kill_nginx(1)?;
    let status = || daemon.status().unwrap_or_default();
    wait_until("connections are refused", SOON, || {
        let status = status();
        let failed: Vec<String> = targets(&status)
            .filter(|target| target["state"] == "unhealthy")
            .map(|target| text(&target["last_failure"]))
            .collect();
        failed.len() == 2
            && failed
                .iter()
                .all(|why| why.contains("refuses connections to the VIP"))
    })
    .with_context(|| status().to_string())?;
    lab.start_nginx(1)?;
    wait_for_states(&daemon, |_, state| state == "healthy").with_context(explain)
}

#[test]
fn a_target_that_unwraps_nothing_is_unhealthy_until_it_does() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED a_target_that_unwraps_nothing_is_unhealthy_until_it_does: not root");
        return Ok(());
    }
    let lab = Lab::new("data_tunnel")?;
    with_way_back(&lab)?;
    for (mode, address, vip) in [
        ("dsr-gue", "10.2.0.11", format!("{DSR_VIP_V4}:")),
        ("dsr-ipip", "fd00:2::11", format!("[{DSR_VIP_V6}]:")),
        ("dsr-geneve", "10.2.0.11", format!("{DSR_VIP_V4}:")),
    ] {
        let check = "health_check.through = \"data_path\"\n\
                     health_check.interval_seconds = 0.2\nhealth_check.timeout_seconds = 0.2\n\
                     health_check.protocol = ";
        let mut configuration = tunnels::configuration(mode, address);
        for protocol in ["\"TCP\"", "\"UDP\""] {
            let checked = format!("{check}{protocol}");
            configuration = configuration.replacen("health_check.enabled = false", &checked, 1);
        }
        lab.write_config(&configuration)?;
        let mut daemon = lab.start_nlb()?;
        wait_for_failures(
            &daemon,
            |_| true,
            |_| format!("no answer from the VIP {vip}"),
        )
        .with_context(|| mode.to_owned())?;
        let decap = Decap::start(&lab, &format!("{ALL} {FROM}"))?;
        wait_for_states(&daemon, |_, state| state == "healthy")
            .with_context(|| format!("{mode}: {}", daemon.log().unwrap_or_default()))?;
        let (host, vip) = (
            &lab.target(0).host,
            if address.contains(':') {
                format!("{DSR_VIP_V6}/128 dev lo")
            } else {
                format!("{DSR_VIP_V4}/32 dev lo")
            },
        );
        host.run(&format!("ip addr del {vip}"))?;
        wait_for_states(&daemon, |_, state| state == "unhealthy")?;
        host.run(&format!("ip addr add {vip}"))?;
        wait_for_states(&daemon, |_, state| state == "healthy")?;
        decap.end()?;
        daemon.terminate()?;
        daemon.detach(&lab)?;
    }
    Ok(())
}
