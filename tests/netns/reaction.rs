//! What traffic says about targets is acted on before their next check is due.
//!
//! The checks of these tests come every five minutes, so that no target can fail twice by them while
//! a test runs: what turns unhealthy was checked before its time.

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Result, ensure};
use nlb_tests::lab::{Lab, addresses::target_v4, daemon::Daemon, wait::wait_until};

use super::{
    EXAMPLE, SOON, ask_http, configuration, http_vips, is_host, pinning::pinning_on_change,
    targets, text, wait_for_states, wait_until_one_fails, who_answers, with_configuration,
};

/// The example, checked every five minutes.
fn seldom_checked() -> String {
    EXAMPLE.replace("interval_seconds = 1\n", "interval_seconds = 300\n")
}

/// A client that opens connections to a VIP and does not wait long.
fn connect(lab: &Lab, vip: SocketAddr) -> Result<()> {
    let opened = lab
        .client()
        .enter(|| TcpStream::connect_timeout(&vip, Duration::from_millis(20)))?;
    drop(opened);
    Ok(())
}

/// The states of one host's targets in the web group behind a VIP.
fn states(daemon: &Daemon, vip: SocketAddr, index: usize) -> Vec<String> {
    let status = daemon.status().unwrap_or_default();
    let is_nat = vip.ip().to_string().ends_with("10");
    let group = format!(
        "{}-web-{}",
        if is_nat { "nat" } else { "dsr" },
        if vip.is_ipv4() { "v4" } else { "v6" }
    );
    let groups = status["target_groups"].as_array().into_iter().flatten();
    groups
        .filter(|found| text(&found["name"]) == group)
        .flat_map(|found| found["targets"].as_array().into_iter().flatten())
        .filter(|target| is_host(&text(&target["address"]), index))
        .map(|target| text(&target["state"]))
        .collect()
}

/// Connects to a VIP until that host's target behind it is unhealthy.
fn until_unhealthy(lab: &Lab, daemon: &Daemon, vip: SocketAddr, index: usize) -> Result<()> {
    wait_until(
        &format!("{vip}: the dead target is unhealthy"),
        SOON,
        || {
            for _ in 0..10 {
                if connect(lab, vip).is_err() {
                    return false;
                }
            }
            states(daemon, vip, index) == ["unhealthy"]
        },
    )?;
    Ok(())
}

#[test]
fn a_check_follows_refused_connections_before_its_time() -> Result<()> {
    with_configuration("refused_syn", &seldom_checked(), |lab, daemon| {
        lab.kill_nginx(1)?;
        for vip in http_vips() {
            // Nobody asked for it yet through this VIP, so nothing is known.
            ensure!(states(daemon, vip, 1) == ["healthy"], "{vip}");
            until_unhealthy(lab, daemon, vip, 1)?;
            let who = who_answers(|| ask_http(lab, vip))?;
            ensure!(!who.contains("target2") && who.len() == 2, "{vip}: {who:?}");
        }
        let status = daemon.status()?;
        for target in targets(&status).filter(|target| target["state"] == "unhealthy") {
            let why = text(&target["last_failure"]);
            ensure!(why.contains("refused"), "{target}");
        }
        Ok(())
    })
}

#[test]
fn connections_without_entries_say_the_same() -> Result<()> {
    let seldom = pinning_on_change(&seldom_checked());
    with_configuration("refused_ring", &seldom, |lab, daemon| {
        lab.kill_nginx(1)?;
        let [_, _, v4, v6] = http_vips();
        for vip in [v4, v6] {
            ensure!(states(daemon, vip, 1) == ["healthy"], "{vip}");
            until_unhealthy(lab, daemon, vip, 1)?;
            let who = who_answers(|| ask_http(lab, vip))?;
            ensure!(!who.contains("target2") && who.len() == 2, "{vip}: {who:?}");
        }
        Ok(())
    })
}

#[test]
fn a_check_follows_connections_that_nobody_answers() -> Result<()> {
    with_configuration("silent_syn", &seldom_checked(), |lab, daemon| {
        // As when its power is cut: its neighbours believe in it for seconds.
        lab.switch().run("ip link set target2 down")?;
        for vip in http_vips() {
            ensure!(states(daemon, vip, 1) == ["healthy"], "{vip}");
            until_unhealthy(lab, daemon, vip, 1)?;
        }
        let status = daemon.status()?;
        for target in targets(&status).filter(|target| target["state"] == "unhealthy") {
            let why = text(&target["last_failure"]);
            ensure!(
                why.contains("timed out") || why.contains("unreachable"),
                "{target}"
            );
        }
        Ok(())
    })
}

#[test]
fn targets_that_are_well_stay_in_whatever_their_clients_do() -> Result<()> {
    with_configuration("false_alarm", &seldom_checked(), |lab, daemon| {
        for vip in http_vips() {
            for _ in 0..20 {
                // Opened, and nothing said: RST by the client at once, or nothing for long.
                connect(lab, vip)?;
            }
        }
        wait_for_states(daemon, |_, state| state == "healthy")?;
        for vip in http_vips() {
            let who = who_answers(|| ask_http(lab, vip))?;
            ensure!(who.len() == 3, "{vip}: {who:?}");
        }
        Ok(())
    })
}

/// The example with that kind of check in all its groups, instead of HTTP.
fn with_checks(check: &str) -> String {
    configuration()
        .replace(
            "  protocol = \"HTTP\"\n  port = 8080\n",
            "  protocol = \"HTTP\"\n",
        )
        .replace(
            "  protocol = \"HTTP\"\n  port = 80\n",
            "  protocol = \"HTTP\"\n",
        )
        .replace("  protocol = \"HTTP\"\n  path = \"/health\"\n", check)
}

#[test]
fn hosts_that_answer_pings_are_healthy_until_they_do_not() -> Result<()> {
    with_configuration(
        "icmp_check",
        &with_checks("  protocol = \"ICMP\"\n"),
        |lab, daemon| {
            let target = &lab.target(1).host;
            target.sysctl(&["ipv4/icmp_echo_ignore_all=1"])?;
            // IPv6 answers on.
            wait_for_states(daemon, |address, state| {
                let address: Option<IpAddr> = address.parse().ok();
                let is_deaf = address == Some(target_v4(1).into());
                state == if is_deaf { "unhealthy" } else { "healthy" }
            })?;
            target.sysctl(&["ipv4/icmp_echo_ignore_all=0"])?;
            wait_for_states(daemon, |_, state| state == "healthy")
        },
    )
}

#[test]
fn a_command_decides_for_each_target_by_itself() -> Result<()> {
    let check = "  protocol = \"COMMAND\"\n  command = [\"/bin/sh\", \"-c\", \
                 \"case $NLB_TARGET_ADDRESS in *12) echo down for repair; exit 1;; esac\"]\n";
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED a_command_decides_for_each_target_by_itself: not root");
        return Ok(());
    }
    let lab = Lab::new("command")?;
    lab.write_config(&with_checks(check))?;
    let daemon = lab.start_nlb()?;
    wait_until_one_fails(&daemon, 1)?;
    let status = daemon.status()?;
    for target in targets(&status).filter(|target| target["state"] == "unhealthy") {
        let why = text(&target["last_failure"]);
        ensure!(
            why == "the command ended with exit code 1: down for repair",
            "{target}"
        );
    }
    for vip in http_vips() {
        let who = who_answers(|| ask_http(&lab, vip))?;
        ensure!(!who.contains("target2") && who.len() == 2, "{vip}: {who:?}");
    }
    Ok(())
}
