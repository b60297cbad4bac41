//! How connections of real hosts end, and what the balancer tells them itself.

use std::io::ErrorKind;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use nlb_common::flow::{Bucket, Choice, Progress, WAYS};
use nlb_tests::lab::{Lab, udp::UdpClient, wait::wait_until};

use super::{
    PATIENCE, SOON, ask_http, configuration, connection_to, http_vips, is_host, udp_vips,
    wait_for_states, wait_until_one_fails, with_nlb,
};

/// The configuration with a line more in every target group.
fn with_line(configuration: &str, line: &str) -> String {
    configuration.replace("[[target_group]]\n", &format!("[[target_group]]\n{line}\n"))
}

/// A socket whose flow is at that target.
fn datagrams_to(lab: &Lab, vip: std::net::SocketAddr, target: &str) -> Result<UdpClient> {
    for _ in 0..super::MANY {
        let mut socket = UdpClient::new(lab.client(), vip, PATIENCE)?;
        if socket.ask().or_else(|_| socket.ask())?.target == target {
            return Ok(socket);
        }
    }
    anyhow::bail!("{vip}: no flow went to {target}")
}

#[test]
fn connections_of_a_deregistered_target_end_with_its_delay_where_that_is_wished() -> Result<()> {
    with_nlb("terminated", |lab, daemon| {
        let lines = "deregistration_delay.timeout_seconds = 1\n\
                     deregistration_delay.connection_termination.enabled = true";
        let all = with_line(&configuration(), lines);
        lab.write_config(&all)?;
        ensure!(daemon.reload()?.status.success(), "termination is on");
        let mut web = Vec::new();
        for vip in http_vips() {
            web.push((vip, connection_to(lab, vip, "target1")?));
        }
        let mut datagrams = Vec::new();
        for vip in udp_vips() {
            datagrams.push((vip, datagrams_to(lab, vip, "target1")?));
        }
        for at in ["10.2.0.11", "fd00:2::11"] {
            let target = format!("  [[target_group.target]]\n  address = \"{at}\"\n");
            ensure!(all.contains(&target), "the example has {at}");
        }
        let mut without = all.clone();
        for at in ["10.2.0.11", "fd00:2::11"] {
            let target = format!("  [[target_group.target]]\n  address = \"{at}\"\n");
            without = without.replace(&target, "");
        }
        lab.write_config(&without)?;
        ensure!(daemon.reload()?.status.success(), "target1 is gone");
        wait_for_states(daemon, |address, state| {
            !is_host(address, 0) && state == "healthy"
        })?;
        for (vip, connection) in &mut web {
            let ended = connection.get("/").expect_err("the connection ended");
            assert_eq!(ended.kind(), ErrorKind::ConnectionReset, "{vip}: {ended}");
            ensure!(ask_http(lab, *vip)? != "target1", "{vip}: a new connection");
        }
        for (vip, socket) in &mut datagrams {
            let answer = socket.ask().or_else(|_| socket.ask())?;
            ensure!(answer.target != "target1", "{vip}: {answer:?}");
        }
        Ok(())
    })
}

#[test]
fn datagrams_of_an_unhealthy_target_move_to_another_with_the_same_socket() -> Result<()> {
    with_nlb("udp_moves", |lab, daemon| {
        let mut sockets = Vec::new();
        for vip in udp_vips() {
            sockets.push((vip, datagrams_to(lab, vip, "target2")?));
        }
        // The checks fail; the datagram server lives on, and would answer.
        lab.kill_nginx(1)?;
        wait_until_one_fails(daemon, 1)?;
        for (vip, socket) in &mut sockets {
            let answer = socket.ask().or_else(|_| socket.ask())?;
            ensure!(answer.target != "target2", "{vip}: {answer:?}");
            let again = socket.ask()?;
            ensure!(again.target == answer.target, "{vip}: it moved on");
        }
        Ok(())
    })
}

#[test]
fn a_client_learns_the_mtu_of_the_link_to_the_targets() -> Result<()> {
    with_nlb("path_mtu", |lab, _| {
        lab.gateway().run("ip link set eth1 mtu 1300")?;
        let client = lab.client();
        // More than one segment of what the client takes for the path's MTU.
        let path = format!("/{}", "a".repeat(4000));
        for vip in http_vips() {
            let ip = vip.ip();
            wait_until(&format!("the client knows the mtu to {ip}"), SOON, || {
                let line = format!("curl -sS -g -o /dev/null --max-time 3 http://{vip}{path}");
                let is_sent = client.run(&line).is_ok();
                let route = client.run(&format!("ip route get {ip}"));
                is_sent && route.is_ok_and(|route| route.contains("mtu 1300"))
            })?;
        }
        Ok(())
    })
}

/// An entry's words: choice, client, client, progress.
const _: () = assert!(size_of::<Bucket>() == WAYS * 32);

/// Makes all flows silent for as long as a tick can tell.
fn age_flows(lab: &Lab) -> Result<()> {
    let pin = lab.bpffs().join("nlb/FLOWS");
    let map = Map::Array(MapData::from_pin(&pin).with_context(|| pin.display().to_string())?);
    let mut flows = Array::<_, [[u64; 4]; WAYS]>::try_from(map)?;
    for index in 0..flows.len() {
        let mut bucket = flows.get(&index, 0)?;
        let mut is_empty = true;
        for [choice, .., word] in &mut bucket {
            if *choice == Choice::EMPTY || *choice == Choice::BUSY {
                continue;
            }
            is_empty = false;
            let mut progress = Progress::of_word(*word);
            progress.last_seen.0 = progress.last_seen.0.wrapping_sub(u16::MAX / 2);
            *word = progress.to_word();
        }
        if !is_empty {
            flows.set(index, bucket, 0)?;
        }
    }
    Ok(())
}

#[test]
fn both_ends_of_an_idle_connection_are_told_when_its_time_runs_out() -> Result<()> {
    with_nlb("expiry", |lab, daemon| {
        let listener = "  protocol = \"TCP\"\n  port = 80\n";
        let told = format!("{listener}  tcp.idle_timeout.action = \"reset_at_expiry\"\n");
        // The first two are those of `nat`.
        lab.write_config(&configuration().replacen(listener, &told, 2))?;
        ensure!(daemon.reload()?.status.success(), "both ends are told");
        let vips = http_vips().into_iter().take(2);
        let connections = vips
            .map(|vip| connection_to(lab, vip, "target1"))
            .collect::<Result<Vec<_>>>()?;
        age_flows(lab)?;
        for mut connection in connections {
            let port = connection.local()?.port();
            let hosts = [lab.client(), &lab.target(0).host];
            let line = format!("ss -tnH state established ( sport = :{port} or dport = :{port} )");
            wait_until("both ends are closed", SOON, || {
                hosts.iter().all(|host| {
                    host.run(&line)
                        .is_ok_and(|connections| connections.trim().is_empty())
                })
            })?;
            let ended = connection.get("/").expect_err("the connection ended");
            assert_eq!(ended.kind(), ErrorKind::ConnectionReset, "{ended}");
        }
        Ok(())
    })
}

#[test]
fn segment_sizes_are_lowered_on_the_way_to_both_ends() -> Result<()> {
    with_nlb("mss_clamp", |lab, daemon| {
        let clamped = configuration().replace(
            "  protocol = \"TCP\"\n  port = 80\n",
            "  protocol = \"TCP\"\n  port = 80\n  tcp.mss_clamp_bytes = 1000\n",
        );
        lab.write_config(&clamped)?;
        ensure!(daemon.reload()?.status.success(), "the clamp is on");
        for vip in http_vips() {
            let connection = connection_to(lab, vip, "target1")?;
            let port = connection.local()?.port();
            // What each end may send, in its own view of the connection.
            let is_small = |text: &str| {
                text.split_whitespace()
                    .filter_map(|word| word.strip_prefix("mss:"))
                    .any(|mss| mss.parse::<u32>().is_ok_and(|mss| mss <= 1000))
            };
            let target = lab
                .target(0)
                .host
                .run(&format!("ss -tinH dport = :{port}"))?;
            ensure!(is_small(&target), "{vip}: {target}");
            if vip.ip().to_string().ends_with("10") {
                let client = lab.client().run(&format!("ss -tinH sport = :{port}"))?;
                ensure!(is_small(&client), "{vip}: {client}");
            }
        }
        Ok(())
    })
}
