//! Targets that move, and a network that changes.

use anyhow::{Context as _, Result, ensure};
use nlb_tests::lab::{
    Lab, addresses::target_v4, daemon::Daemon, http::HttpConnection, nginx::LARGE_BYTES,
    wait::wait_until,
};
use serde_json::Value;

use super::{
    PATIENCE, SOON, ask_http, connection_to, http_vips, is_host, targets, text, wait_for_states,
    who_answers, with_nlb,
};

#[test]
fn a_targets_new_mac_address_is_followed() -> Result<()> {
    with_nlb("new_mac", |lab, daemon| {
        let mut kept = Vec::new();
        for vip in http_vips() {
            kept.push((vip, connection_to(lab, vip, "target1")?));
        }
        let target = &lab.target(0).host;
        // As after a failover: the host announces its new address.
        target.sysctl(&[
            "ipv4/conf/eth0/arp_notify=1",
            "ipv6/conf/eth0/ndisc_notify=1",
        ])?;
        let mac = "02:00:00:00:00:99";
        target.run(&format!("ip link set eth0 address {mac}"))?;
        wait_until("status shows the new MAC", SOON, || {
            daemon.status().is_ok_and(|status| {
                targets(&status)
                    .filter(|target| is_host(&text(&target["address"]), 0))
                    .all(|target| target["next_hop"]["mac"] == mac)
            })
        })?;
        for (vip, connection) in &mut kept {
            assert_eq!(connection.get("/")?.target, "target1", "{vip}");
            let who = who_answers(|| ask_http(lab, *vip))?;
            assert!(who.contains("target1"), "{vip}: {who:?}");
        }
        Ok(())
    })
}

/// What `nlb status` says of the way to the targets with an IPv4 address on that host.
fn ways(daemon: &Daemon, index: usize) -> Vec<Value> {
    let status = daemon.status().unwrap_or_default();
    targets(&status)
        .filter(|target| text(&target["address"]) == target_v4(index).to_string())
        .map(|target| target["next_hop"].clone())
        .collect()
}

/// Runs lines of `ip` on the gateway, and tells how long it took until all ways to the first
/// target's IPv4 address were right.
fn followed(lab: &Lab, daemon: &Daemon, lines: &str, is_right: fn(&Value) -> bool) -> Result<()> {
    lab.gateway().ip(lines)?;
    let took = wait_until(&format!("nlb follows {lines}"), SOON, || {
        let ways = ways(daemon, 0);
        !ways.is_empty() && ways.iter().all(is_right)
    })?;
    println!("seen by `nlb status` after {took:?}: {}", lines.trim());
    Ok(())
}

fn is_resolved(way: &Value) -> bool {
    way["state"] == "resolved"
}

fn is_unresolved(way: &Value) -> bool {
    way["state"] == "unresolved"
}

#[test]
fn every_change_of_the_network_is_followed_and_traffic_goes_on_after_it() -> Result<()> {
    with_nlb("network", |lab, daemon| {
        let all_answer = |what: &str| -> Result<()> {
            for vip in http_vips() {
                let who = who_answers(|| ask_http(lab, vip)).context(what.to_owned())?;
                ensure!(who.len() == 3, "{what}: {vip}: {who:?}");
            }
            Ok(())
        };
        let follow = |lines: &str, is_right| followed(lab, daemon, lines, is_right);

        // A neighbour that moves to where nobody is, and comes back.
        let nobody = "neigh replace 10.2.0.11 dev eth1 lladdr 02:00:00:00:00:99 nud permanent\n";
        follow(nobody, |way| way["mac"] == "02:00:00:00:00:99")?;
        follow("neigh del 10.2.0.11 dev eth1\n", |way| {
            is_resolved(way) && way["mac"] != "02:00:00:00:00:99"
        })?;
        wait_for_states(daemon, |_, state| state == "healthy")?;
        all_answer("a neighbour was replaced and deleted")?;

        // A route that leads nowhere, and one that leads there again.
        follow("route add unreachable 10.2.0.11/32\n", is_unresolved)?;
        follow("route del unreachable 10.2.0.11/32\n", is_resolved)?;
        // The address that the network's route comes with.
        follow("addr del 10.2.0.1/24 dev eth1\n", is_unresolved)?;
        follow("addr add 10.2.0.1/24 dev eth1\n", is_resolved)?;
        // The link itself, with which IPv6 addresses go.
        follow("link set eth1 down\n", is_unresolved)?;
        follow(
            "link set eth1 up\naddr replace fd00:2::1/64 dev eth1 nodad\n",
            is_resolved,
        )?;
        wait_for_states(daemon, |_, state| state == "healthy")?;
        all_answer("routes, addresses and the link went and came")?;
        Ok(())
    })
}

#[test]
fn a_smaller_mtu_holds_for_the_next_packet() -> Result<()> {
    with_nlb("new_mtu", |lab, daemon| {
        let [vip, ..] = http_vips();
        let ask = || {
            HttpConnection::from(lab.client(), vip, PATIENCE)?
                .get("/large")
                .map_err(Into::into)
        };
        let told = |daemon: &Daemon| -> Result<u64> {
            let status = daemon.status()?;
            let stops = status["stops"].as_array().into_iter().flatten();
            let too_big = stops.filter(|stop| text(&stop["name"]) == "too_big");
            Ok(too_big.filter_map(|stop| stop["count"].as_u64()).sum())
        };
        let answer: anyhow::Result<_> = ask();
        ensure!(answer?.body_bytes == LARGE_BYTES as u64, "before");
        let before = told(daemon)?;
        lab.gateway().run("ip link set eth0 mtu 1300")?;
        wait_until("answers are too big for the client's link", SOON, || {
            let answer: anyhow::Result<_> = ask();
            answer.is_ok_and(|answer| answer.body_bytes == LARGE_BYTES as u64)
                && told(daemon).is_ok_and(|now| now > before)
        })?;
        Ok(())
    })
}
