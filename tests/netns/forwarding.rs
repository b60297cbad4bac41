//! What goes where, and what is left alone.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Result, ensure};
use nlb_tests::lab::{
    addresses::{
        GATEWAY_V4, GATEWAY_V6, HTTP_PORT, NAT_HTTP_PORT, NAT_UDP_PORT, TARGETS, target_v4,
        target_v6,
    },
    host::Host,
    http::HttpConnection,
    nginx::LARGE_BYTES,
    wait::wait_until,
};

use super::{
    PATIENCE, POOL_V4, SOON, ask_http, ask_udp, ask_udp_at_length, configuration, http_vips,
    listeners, text, udp_vips, who_answers, with_configuration, with_nlb, with_pool,
};

fn all_targets() -> BTreeSet<String> {
    ["target1", "target2", "target3"].map(String::from).into()
}

#[test]
fn new_connections_reach_every_target_through_every_vip() -> Result<()> {
    with_nlb("tcp_spread", |lab, _| {
        for vip in http_vips() {
            assert_eq!(who_answers(|| ask_http(lab, vip))?, all_targets(), "{vip}");
        }
        Ok(())
    })
}

#[test]
fn datagrams_reach_every_target_which_sees_the_clients_own_address() -> Result<()> {
    with_nlb("udp_spread", |lab, _| {
        for vip in udp_vips() {
            assert_eq!(who_answers(|| ask_udp(lab, vip))?, all_targets(), "{vip}");
        }
        Ok(())
    })
}

#[test]
fn large_datagrams_arrive_in_fragments_both_ways_in_every_mode() -> Result<()> {
    with_nlb("fragments", |lab, daemon| {
        for vip in udp_vips() {
            // The servers' answers repeat the question: two fragments each way, three, and many.
            for bytes in [1_600, 3_000, 8_000, 60_000] {
                let answer = || ask_udp_at_length(lab, vip, bytes);
                for _ in 0..5 {
                    ensure!(all_targets().contains(&answer()?), "{vip}");
                }
            }
        }
        let status = daemon.status()?;
        // Each fragment is a packet, and only a flow's first one begins it.
        let fragments = 5 * (2 + 3 + 6 + 41);
        for (balancer, listener) in listeners(&status) {
            if listener["protocol"] == "UDP" {
                let count = |name: &str| listener[name].as_u64().unwrap_or_default();
                ensure!(count("packets") >= fragments, "{listener}");
                ensure!(count("new_flows") <= 2 * 5 * 4, "{listener}");
                let is_seen = count("return_packets") >= fragments;
                ensure!(is_seen == (balancer == "nat"), "{listener}");
            }
        }
        Ok(())
    })
}

#[test]
fn servers_log_the_clients_own_address_and_the_address_of_their_mode() -> Result<()> {
    with_nlb("client_addr", |lab, _| {
        for vip in http_vips() {
            let mut connection = HttpConnection::from(lab.client(), vip, PATIENCE)?;
            let answer = connection.get("/who")?;
            let (client, is_nat) = (connection.local()?, vip.ip().to_string().ends_with("10"));
            let index = (0..TARGETS)
                .find(|index| lab.target(*index).name() == answer.target)
                .expect("a target of the lab answered");
            let own: IpAddr = if vip.is_ipv4() {
                target_v4(index).into()
            } else {
                target_v6(index).into()
            };
            let server = if is_nat {
                (own, NAT_HTTP_PORT).into()
            } else {
                vip
            };
            wait_until(&format!("{client} to {server} is logged"), SOON, || {
                lab.target(index).access_log().is_ok_and(|log| {
                    log.iter()
                        .any(|access| access.client == client && access.server == server)
                })
            })?;
        }
        Ok(())
    })
}

#[test]
fn large_transfers_arrive_whole_in_every_mode() -> Result<()> {
    with_nlb("large", |lab, _| {
        for vip in http_vips() {
            let mut connection = HttpConnection::from(lab.client(), vip, PATIENCE)?;
            let answer = connection.get("/large")?;
            ensure!(answer.body_bytes == LARGE_BYTES as u64, "{vip}: {answer:?}");
        }
        Ok(())
    })
}

/// The client is on the targets' link, and so is the only interface that nlb has: what comes in by it
/// leaves by it. In `full-nat` answers return through nlb all the same, in `dsr-l2` they never do.
/// The client's routes, where it reaches the gateway by the targets' side.
pub(crate) const TO_ONE_ARM: &str = "route replace 10.2.0.0/24 dev eth1\n\
     route del fd00:2::/64 via fd00:1::1\n\
     route add fd00:2::/64 dev eth1\n\
     route replace 192.0.2.0/24 via 10.2.0.1 src 10.2.0.100\n\
     route replace 2001:db8::/64 via fd00:2::1 src fd00:2::100\n";

#[test]
fn one_interface_is_enough() -> Result<()> {
    let one_arm = with_pool(&configuration())
        .replace("mode = \"nat\"", "mode = \"full-nat\"")
        .replace(
            "interfaces = [\"eth0\", \"eth1\"]",
            "interfaces = [\"eth1\"]",
        );
    with_configuration("one_arm", &one_arm, |lab, daemon| {
        lab.client().ip(TO_ONE_ARM)?;
        for target in lab.targets() {
            target
                .host
                .ip(&format!("route add {POOL_V4} via 10.2.0.1\n"))?;
        }
        for vip in http_vips() {
            let line = format!(
                "curl -sS -g --max-time 5 -o /dev/null -w %{{size_download}} http://{vip}/large"
            );
            for _ in 0..10 {
                let size = lab.client().run(&line)?;
                ensure!(size.trim() == LARGE_BYTES.to_string(), "{vip}: {size}");
            }
        }
        let status = daemon.status()?;
        let interfaces = status["interfaces"].as_array().map(Vec::len);
        ensure!(interfaces == Some(1), "{status}");
        for (name, listener) in listeners(&status) {
            let answers = listener["return_packets"].as_u64();
            let is_web = text(&listener["name"]).contains("TCP");
            if is_web {
                ensure!((answers > Some(0)) == (name == "nat"), "{name}: {listener}");
            }
        }
        Ok(())
    })
}

/// Links of 9,000 bytes, and nothing on them is ever cut into fragments.
#[test]
fn large_frames_arrive_whole_where_the_links_take_them() -> Result<()> {
    with_nlb("jumbo", |lab, _| {
        let widen = |host: &Host, links: &[&str]| -> Result<()> {
            for link in links {
                host.run(&format!("ip link set {link} mtu 9000"))?;
            }
            Ok(())
        };
        widen(lab.client(), &["eth0", "eth1"])?;
        widen(lab.gateway(), &["eth0", "eth1"])?;
        let ports = ["gateway", "client", "target1", "target2", "target3"];
        widen(lab.switch(), &ports)?;
        widen(lab.switch(), &["bridge"])?;
        for target in lab.targets() {
            widen(&target.host, &["eth0"])?;
        }
        let fragments = || lab.client().run("cat /proc/net/snmp /proc/net/snmp6");
        let made = |text: String| -> Vec<String> {
            let of_fragments =
                |line: &&str| line.contains("FragCreates") || line.contains("ReasmReqds");
            let v6 = text.lines().filter(|line| line.starts_with("Ip6"));
            let v4 = text.lines().filter(|line| line.starts_with("Ip: "));
            // Of the IPv4 line only the last numbers are about fragments: ReasmReqds is the 14th.
            let v4 = v4
                .skip(1)
                .filter_map(|line| line.split_whitespace().nth(14));
            v6.filter(of_fragments)
                .chain(v4)
                .map(String::from)
                .collect()
        };
        let before = made(fragments()?);
        for vip in udp_vips() {
            wait_until(&format!("the way to {vip} is wide"), SOON, || {
                ask_udp_at_length(lab, vip, 8900).is_ok()
            })?;
            for _ in 0..10 {
                ask_udp_at_length(lab, vip, 8900)?;
            }
        }
        assert_eq!(made(fragments()?), before);
        for vip in http_vips() {
            let mut connection = HttpConnection::from(lab.client(), vip, PATIENCE)?;
            assert_eq!(connection.get("/large")?.body_bytes, LARGE_BYTES as u64);
        }
        Ok(())
    })
}

#[test]
fn answers_pass_the_gateway_behind_nat_and_never_behind_dsr() -> Result<()> {
    with_nlb("way_back", |lab, daemon| {
        for (web, datagrams) in http_vips().into_iter().zip(udp_vips()) {
            ask_http(lab, web)?;
            ask_udp(lab, datagrams)?;
        }
        let status = daemon.status()?;
        let mut seen = 0;
        for (balancer, listener) in listeners(&status) {
            let count = |name: &str| listener[name].as_u64().expect("a count");
            let name = text(&listener["name"]);
            assert!(count("packets") > 0, "{name}: {listener}");
            assert!(count("new_flows") > 0, "{name}: {listener}");
            assert_eq!(count("return_packets") > 0, balancer == "nat", "{listener}");
            seen += 1;
        }
        assert_eq!(seen, 8, "{status}");
        Ok(())
    })
}

#[test]
fn what_is_not_ours_passes_untouched() -> Result<()> {
    with_nlb("not_ours", |lab, _| {
        let client = lab.client();
        for address in [
            GATEWAY_V4.to_string(),
            GATEWAY_V6.to_string(),
            "10.2.0.1".to_owned(),
            "fd00:2::1".to_owned(),
        ] {
            client.run(&format!("ping -n -q -c 2 -i 0.2 -W 2 {address}"))?;
        }
        for index in 0..TARGETS {
            let name = lab.target(index).name();
            for address in [target_v4(index).into(), target_v6(index).into()] {
                let address: IpAddr = address;
                client.run(&format!("ping -n -q -c 2 -i 0.2 -W 2 -s 1400 {address}"))?;
                for port in [HTTP_PORT, NAT_HTTP_PORT] {
                    // Straight to the target, also where it serves a listener.
                    assert_eq!(ask_http(lab, (address, port).into())?, name);
                }
                assert_eq!(ask_udp(lab, (address, NAT_UDP_PORT).into())?, name);
            }
        }
        let straight = (target_v4(0), NAT_HTTP_PORT).into();
        let mut connection = HttpConnection::from(client, straight, PATIENCE)?;
        assert_eq!(connection.get("/large")?.body_bytes, LARGE_BYTES as u64);
        Ok(())
    })
}
