//! Sources of ours: targets that know no way to the client, and a target that asks its own VIP.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use nlb_tests::lab::{
    Lab,
    addresses::{HTTP_PORT, NAT_VIP_V4, NAT_VIP_V6, TARGETS, UDP_PORT},
    daemon::Daemon,
    http::HttpConnection,
    udp::UdpClient,
    wait::wait_until,
};

use super::{
    MANY, PATIENCE, POOL_V4, POOL_V6, SOON, configuration, is_host, wait_for_states,
    with_configuration, with_pool,
};

const fn pool_for(vip: IpAddr) -> IpAddr {
    match vip {
        IpAddr::V4(_) => IpAddr::V4(POOL_V4),
        IpAddr::V6(_) => IpAddr::V6(POOL_V6),
    }
}

/// Runs a claim with a pool, and with the groups of mode `nat` in this mode.
fn in_mode(
    name: &str,
    mode: &str,
    claim: impl FnOnce(&mut Lab, &mut Daemon) -> Result<()>,
) -> Result<()> {
    let text = with_pool(&configuration());
    let text = text.replace("mode = \"nat\"", &format!("mode = \"{mode}\""));
    with_configuration(name, &text, claim)
}

/// Whether a target's log has a request from this address.
fn is_logged(lab: &Lab, target: &str, from: IpAddr) -> Result<bool> {
    let index = (0..TARGETS).find(|index| lab.target(*index).name() == target);
    let target = lab.target(index.context("a target of the lab answered")?);
    let log = target.access_log()?;
    Ok(log.iter().any(|access| access.client.ip() == from))
}

#[test]
fn targets_that_know_no_way_to_the_client_answer_the_pool() -> Result<()> {
    in_mode("full_nat", "full-nat", |lab, daemon| {
        for target in lab.targets() {
            target.host.ip(&format!(
                "route del default\n\
                 route del default via fd00:2::1\n\
                 route add {POOL_V4} via 10.2.0.1\n\
                 route add {POOL_V6} via fd00:2::1\n"
            ))?;
        }
        for vip in [IpAddr::from(NAT_VIP_V4), NAT_VIP_V6.into()] {
            let mut targets = std::collections::BTreeSet::new();
            for _ in 0..MANY {
                let mut web =
                    HttpConnection::from(lab.client(), (vip, HTTP_PORT).into(), PATIENCE)?;
                targets.insert(web.get("/")?.target);
            }
            ensure!(targets.len() == TARGETS, "{targets:?}");
            for target in &targets {
                wait_until("the log names the pool", SOON, || {
                    is_logged(lab, target, pool_for(vip)).is_ok_and(|is| is)
                })?;
            }
            let mut web = HttpConnection::from(lab.client(), (vip, HTTP_PORT).into(), PATIENCE)?;
            web.get("/large")?;
            let mut datagrams = UdpClient::new(lab.client(), (vip, UDP_PORT).into(), PATIENCE)?;
            let answer = datagrams.ask().or_else(|_| datagrams.ask())?;
            ensure!(answer.client.ip() == pool_for(vip), "{answer:?}");
        }
        let status = daemon.status()?;
        let ports = super::targets(&status)
            .filter_map(|target| target["snat_ports_in_use"].as_u64())
            .sum::<u64>();
        ensure!(ports > 0, "{status}");
        Ok(())
    })
}

#[test]
fn large_datagrams_arrive_in_fragments_both_ways_behind_a_source_of_ours() -> Result<()> {
    in_mode("snat_fragments", "full-nat", |lab, daemon| {
        for vip in [IpAddr::from(NAT_VIP_V4), NAT_VIP_V6.into()] {
            let to = (vip, UDP_PORT).into();
            let sockets = (0..4).map(|_| UdpClient::new(lab.client(), to, PATIENCE));
            let mut sockets: Vec<UdpClient> = sockets.collect::<Result<_>>()?;
            for bytes in [1_600, 3_000, 8_000, 60_000] {
                for socket in &mut sockets {
                    let answer = socket.ask_at_length(bytes);
                    let answer = answer.or_else(|_| socket.ask_at_length(bytes));
                    let answer = answer.with_context(|| format!("{bytes} bytes to {vip}"))?;
                    ensure!(answer.client.ip() == pool_for(vip), "{answer:?}");
                }
            }
        }
        let status = daemon.status()?;
        let fragments = 4 * (2 + 3 + 6 + 41);
        for (balancer, listener) in super::listeners(&status) {
            if listener["protocol"] == "UDP" && balancer == "nat" {
                for direction in ["packets", "return_packets"] {
                    let count = listener[direction].as_u64().unwrap_or_default();
                    ensure!(count >= fragments, "{listener}");
                }
            }
        }
        Ok(())
    })
}

#[test]
fn a_target_reaches_itself_through_its_own_vip() -> Result<()> {
    in_mode("hairpin", "nat", |lab, daemon| {
        // Other targets of this link would answer it directly, and not through the gateway.
        for other in 1..TARGETS {
            lab.kill_nginx(other)?;
        }
        wait_for_states(daemon, |address, state| {
            is_host(address, 0) == (state == "healthy")
        })?;
        for vip in [IpAddr::from(NAT_VIP_V4), NAT_VIP_V6.into()] {
            let target = lab.target(0);
            for _ in 0..MANY {
                let to = (vip, HTTP_PORT).into();
                let mut web = HttpConnection::from(&target.host, to, PATIENCE)?;
                let answer = web.get("/")?;
                ensure!(answer.target == target.name(), "{vip}: {answer:?}");
            }
            wait_until("the log names the pool", SOON, || {
                is_logged(lab, target.name(), pool_for(vip)).is_ok_and(|is| is)
            })?;
        }
        Ok(())
    })
}
