//! Which target a client gets: by the weights of a listener's groups, by stickiness, and when all
//! health checks fail although the servers serve.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Result, ensure};
use nlb_tests::lab::addresses::{NAT_HTTP_PORT, NAT_VIP_V4, TARGETS, target_v4};

use super::{ask_http, text, wait_for_states, who_answers, with_nlb};

/// Connections that are counted.
const CONNECTIONS: usize = 400;
/// A port of the lab's targets that nobody listens on.
const DEAD_PORT: u16 = 9;

/// A group of the lab's targets with these numbers; `more` are further keys of it.
fn group(name: &str, targets: &[usize], more: &str) -> String {
    let targets: Vec<String> = targets
        .iter()
        .map(|index| {
            format!(
                "[[target_group.target]]\naddress = \"{}\"\n",
                target_v4(*index)
            )
        })
        .collect();
    format!(
        "[[target_group]]\nname = \"{name}\"\nprotocol = \"TCP\"\nport = {NAT_HTTP_PORT}\n{more}\n\
         health_check.interval_seconds = 0.2\nhealth_check.timeout_seconds = 0.2\n\
         health_check.healthy_threshold_count = 2\n{}",
        targets.concat()
    )
}

/// A file with the node of `example`, these listeners on the VIP of `nat`, and these groups.
fn file(example: &str, listeners: &[(u16, &str)], groups: &[String]) -> String {
    let node = example
        .split("[[load_balancer]]")
        .next()
        .unwrap_or_default();
    let listeners: Vec<String> = listeners
        .iter()
        .map(|(port, forward)| {
            format!("[[load_balancer.listener]]\nprotocol = \"TCP\"\nport = {port}\n{forward}\n")
        })
        .collect();
    format!(
        "{node}\n[[load_balancer]]\nname = \"edge\"\naddresses = [\"{NAT_VIP_V4}\"]\n{}{}",
        listeners.concat(),
        groups.concat()
    )
}

fn vip(port: u16) -> SocketAddr {
    (NAT_VIP_V4, port).into()
}

#[test]
fn groups_share_a_listener_by_weight_and_a_weight_of_0_ends_a_share() -> Result<()> {
    with_nlb("weights", |lab, daemon| {
        let groups = [group("web", &[0, 1], ""), group("canary", &[2], "")];
        let forward = |web: u16, canary: u16| {
            format!(
                "target_groups = [{{ name = \"web\", weight = {web} }}, \
                 {{ name = \"canary\", weight = {canary} }}]"
            )
        };
        let example = super::configuration();
        lab.write_config(&file(&example, &[(80, &forward(3, 1))], &groups))?;
        ensure!(daemon.reload()?.status.success(), "weighted groups");
        wait_for_states(daemon, |_, state| state == "healthy")?;
        let mut answers: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..CONNECTIONS {
            *answers.entry(ask_http(lab, vip(80))?).or_default() += 1;
        }
        // A quarter of them, give or take five times the deviation of chance, which is 8.7.
        let canaries = answers.get("target3").copied().unwrap_or(0);
        ensure!(canaries.abs_diff(CONNECTIONS / 4) <= 45, "{answers:?}");
        ensure!(answers.len() == TARGETS, "{answers:?}");

        let status = daemon.status()?;
        let listener = &status["load_balancers"][0]["listeners"][0];
        ensure!(
            text(&listener["target_groups"][1]["name"]) == "canary"
                && listener["target_groups"][1]["weight"] == 1,
            "{listener}"
        );
        lab.write_config(&file(&example, &[(80, &forward(3, 0))], &groups))?;
        ensure!(daemon.reload()?.status.success(), "a weight of 0");
        let who = who_answers(|| ask_http(lab, vip(80)))?;
        ensure!(!who.contains("target3") && who.len() == 2, "{who:?}");
        Ok(())
    })
}

#[test]
fn a_sticky_client_gets_one_target_on_every_listener_of_the_group() -> Result<()> {
    with_nlb("sticky", |lab, daemon| {
        let sticky = "stickiness.enabled = true";
        let groups = [group("web", &[0, 1, 2], sticky)];
        let forward = "target_group = \"web\"";
        let listeners = [(80, forward), (81, forward)];
        lab.write_config(&file(&super::configuration(), &listeners, &groups))?;
        ensure!(daemon.reload()?.status.success(), "stickiness");
        wait_for_states(daemon, |_, state| state == "healthy")?;
        let mut who = who_answers(|| ask_http(lab, vip(80)))?;
        who.extend(who_answers(|| ask_http(lab, vip(81)))?);
        ensure!(who.len() == 1, "{who:?}");
        Ok(())
    })
}

#[test]
fn servers_whose_checks_all_fail_still_serve_and_the_group_says_so() -> Result<()> {
    with_nlb("checks_fail", |lab, daemon| {
        let groups = [group(
            "web",
            &[0, 1, 2],
            &format!("health_check.port = {DEAD_PORT}"),
        )];
        let listeners = [(80, "target_group = \"web\"")];
        lab.write_config(&file(&super::configuration(), &listeners, &groups))?;
        ensure!(daemon.reload()?.status.success(), "a wrong health check");
        wait_for_states(daemon, |_, state| state == "unhealthy")?;
        let who = who_answers(|| ask_http(lab, vip(80)))?;
        ensure!(who.len() == TARGETS, "{who:?}");
        let group = &daemon.status()?["target_groups"][0];
        ensure!(
            group["fail_open"] == true && group["available"] == false,
            "{group}"
        );
        Ok(())
    })
}
