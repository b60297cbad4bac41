//! Who may open connections, and how many: what clients see of source rules and limits.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nlb_tests::lab::{Lab, daemon::Daemon, http::HttpConnection, nginx::LARGE_BYTES};

use super::{PATIENCE, ask_http, configuration, connection_to, http_vips, with_nlb};

/// A second address of the client, for somebody else.
const OTHER: &str = "10.1.0.66";
/// Its counterpart, which the client itself never chooses.
const OTHER_V6: &str = "fd00:1::66";

/// The client's own address.
const LOCAL: &str = "10.1.0.10";
/// Far longer than a flow that is over is remembered, and a sweep is waited for.
const SEEN_BY_A_SWEEP: Duration = Duration::from_mins(2);

/// The configuration with more keys of the load balancer that translates.
fn with_rules(rules: &str) -> String {
    let addresses = "addresses = [\"192.0.2.10\", \"2001:db8::10\"]\n";
    let configuration = configuration();
    assert!(configuration.contains(addresses), "the example has those");
    configuration.replace(addresses, &format!("{addresses}\n{rules}\n"))
}

fn rule(action: &str, sources: &[&str]) -> String {
    format!("  [[load_balancer.rule]]\n  action = \"{action}\"\n  sources = {sources:?}\n")
}

fn reload(lab: &Lab, daemon: &Daemon, configuration: &str) -> Result<()> {
    lab.write_config(configuration)?;
    let reload = daemon.reload()?;
    ensure!(reload.status.success(), "{reload:?}");
    Ok(())
}

/// Whether a request from this address of the client is answered.
fn curl(lab: &Lab, from: &str, vip: SocketAddr) -> Result<bool> {
    let line =
        format!("curl -sS -g -o /dev/null --connect-timeout 2 --interface {from} http://{vip}/");
    Ok(lab.client().output(&line)?.status.success())
}

fn stopped(daemon: &Daemon, name: &str) -> Result<u64> {
    let status = daemon.status()?;
    let stops = status["stops"].as_array().context("a list of stops")?;
    let stop = stops.iter().find(|stop| stop["name"] == name);
    Ok(stop.and_then(|stop| stop["count"].as_u64()).unwrap_or(0))
}

#[test]
fn rules_block_one_address_and_not_another_and_a_reload_moves_the_border() -> Result<()> {
    with_nlb("rules", |lab, daemon| {
        lab.client().ip(&format!(
            "addr add {OTHER}/24 dev eth0\naddr add {OTHER_V6}/64 dev eth0 nodad preferred_lft 0\n"
        ))?;
        let [v4, v6, dsr, ..] = http_vips();
        reload(lab, daemon, &with_rules(&rule("deny", &[OTHER, OTHER_V6])))?;
        for (vip, other) in [(v4, OTHER), (v6, OTHER_V6)] {
            ask_http(lab, vip)?;
            ensure!(!curl(lab, other, vip)?, "{other} was let in to {vip}");
        }
        ensure!(stopped(daemon, "blocked_tcp")? > 0, "nothing was counted");
        ensure!(curl(lab, OTHER, dsr)?, "another load balancer has no rules");

        // Only the other one, now.
        let rules = rule("allow", &["10.1.0.64/26", "fd00:1::66"]);
        reload(lab, daemon, &with_rules(&rules))?;
        for (vip, other) in [(v4, OTHER), (v6, OTHER_V6)] {
            ensure!(curl(lab, other, vip)?, "{other} was kept out of {vip}");
            ensure!(ask_http(lab, vip).is_err(), "somebody was let in to {vip}");
        }
        reload(lab, daemon, &configuration())?;
        ask_http(lab, v4)?;
        ensure!(curl(lab, OTHER_V6, v6)?, "there are no rules any more");
        Ok(())
    })
}

#[test]
fn a_transfer_goes_on_when_its_client_is_denied_and_another_does_not_begin() -> Result<()> {
    with_nlb("rules_live", |lab, daemon| {
        for vip in http_vips().into_iter().take(2) {
            let mut connection = connection_to(lab, vip, "target1")?;
            let denied = with_rules(&rule("deny", &["0.0.0.0/0", "::/0"]));
            let mut reloaded = None;
            // Far more than the sockets of both ends take in.
            let answer = connection.get_with("/large", |_| {
                if reloaded.is_none() {
                    reloaded = Some(reload(lab, daemon, &denied));
                }
            })?;
            reloaded.context("nothing of the file came")??;
            ensure!(answer.body_bytes == LARGE_BYTES as u64, "{answer:?}");
            ensure!(connection.get("/")?.status == 200, "the connection is cut");
            ensure!(ask_http(lab, vip).is_err(), "a new connection was taken");
            reload(lab, daemon, &configuration())?;
            ask_http(lab, vip)?;
        }
        Ok(())
    })
}

#[test]
fn connections_over_the_limit_are_not_opened_and_those_below_it_go_on() -> Result<()> {
    with_nlb("limit", |lab, daemon| {
        let listener = "  target_group = \"nat-web-v4\"\n";
        let limited = configuration().replacen(
            listener,
            &format!("{listener}  limits.active_flows = 3\n"),
            1,
        );
        reload(lab, daemon, &limited)?;
        let [vip, other, ..] = http_vips();
        let open = || HttpConnection::from(lab.client(), vip, PATIENCE);
        let mut connections = [open()?, open()?, open()?];
        ensure!(open().is_err(), "a fourth connection was opened");
        ensure!(
            stopped(daemon, "active_flow_limit")? > 0,
            "it was not counted"
        );
        for connection in &mut connections {
            ensure!(connection.get("/")?.status == 200);
        }
        ask_http(lab, other).context("the limit is the listener's own")?;
        reload(lab, daemon, &configuration())?;
        open()?.get("/")?;
        Ok(())
    })
}

#[test]
fn a_source_with_as_many_connections_as_it_may_have_opens_no_more_and_another_does() -> Result<()> {
    with_nlb("source_limit", |lab, daemon| {
        lab.client()
            .ip(&format!("addr add {OTHER}/24 dev eth0\n"))?;
        let listener = "  target_group = \"nat-web-v4\"\n";
        let limited = configuration().replacen(
            listener,
            &format!("{listener}  limits.source.active_flows = 2\n"),
            1,
        );
        reload(lab, daemon, &limited)?;
        let [vip, ..] = http_vips();
        let open = || HttpConnection::from(lab.client(), vip, PATIENCE);
        let mut connections = [open()?, open()?];
        ensure!(open().is_err(), "a third connection was opened");
        ensure!(
            stopped(daemon, "source_active_limit")? > 0,
            "it was not counted"
        );
        ensure!(curl(lab, OTHER, vip)?, "another source is kept out");
        for connection in &mut connections {
            ensure!(connection.get("/")?.status == 200);
        }

        // Both end; the daemon sees it when their entries' time has run out.
        drop(connections);
        let patient = Instant::now() + SEEN_BY_A_SWEEP;
        while !curl(lab, LOCAL, vip)? {
            ensure!(Instant::now() < patient, "flows that ended are never seen");
        }
        Ok(())
    })
}

#[test]
fn a_hundred_thousand_prefixes_are_live_after_a_reload_that_nobody_else_notices() -> Result<()> {
    with_nlb("rules_many", |lab, daemon| {
        let [vip, ..] = http_vips();
        // Far from the client, and then the client itself.
        let mut sources: Vec<String> = (0..99_999u32)
            .map(|number| format!("{}/32", Ipv4Addr::from(0x0b00_0000 + 3 * number)))
            .collect();
        let mut old = connection_to(lab, vip, "target1")?;
        for (last, is_taken) in [("12.0.0.0/8", true), ("10.1.0.0/24", false)] {
            sources.push(last.to_owned());
            let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
            let denied = with_rules(&rule("deny", &sources));
            let start = Instant::now();
            reload(lab, daemon, &denied)?;
            println!("{} prefixes: {:.0?}", sources.len(), start.elapsed());
            ensure!(ask_http(lab, vip).is_ok() == is_taken, "{last}");
            ensure!(old.get("/")?.status == 200, "an old connection is cut");
        }
        Ok(())
    })
}
