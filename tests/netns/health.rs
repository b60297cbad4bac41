//! Targets that fail leave, targets that return come back, and when all fail nobody is shut out.

use anyhow::{Result, ensure};
use nlb_tests::lab::addresses::TARGETS;

use super::{
    ask_http, ask_udp, connection_to, http_vips, is_host, udp_vips, wait_for_states, who_answers,
    with_nlb,
};

#[test]
fn a_failed_target_gets_no_new_flow_and_comes_back_when_it_passes() -> Result<()> {
    with_nlb("fail_return", |lab, daemon| {
        let mut kept = Vec::new();
        for vip in http_vips() {
            kept.push((vip, connection_to(lab, vip, "target1")?));
        }
        lab.kill_nginx(1)?;
        wait_for_states(daemon, |address, state| {
            state
                == if is_host(address, 1) {
                    "unhealthy"
                } else {
                    "healthy"
                }
        })?;
        for vip in http_vips() {
            let who = who_answers(|| ask_http(lab, vip))?;
            ensure!(!who.contains("target2") && who.len() == 2, "{vip}: {who:?}");
        }
        lab.start_nginx(1)?;
        wait_for_states(daemon, |_, state| state == "healthy")?;
        for vip in http_vips() {
            let who = who_answers(|| ask_http(lab, vip))?;
            ensure!(who.contains("target2"), "{vip}: {who:?}");
        }
        for (vip, connection) in &mut kept {
            assert_eq!(connection.get("/")?.target, "target1", "{vip}");
        }
        Ok(())
    })
}

#[test]
fn when_all_targets_fail_all_get_traffic() -> Result<()> {
    with_nlb("fail_open", |lab, daemon| {
        // The datagram servers live on: what their groups get is seen from their answers.
        for index in 0..TARGETS {
            lab.kill_nginx(index)?;
        }
        wait_for_states(daemon, |_, state| state == "unhealthy")?;
        let status = daemon.status()?;
        for group in status["target_groups"].as_array().into_iter().flatten() {
            assert_eq!(group["fail_open"], true, "{group}");
        }
        for vip in udp_vips() {
            let who = who_answers(|| ask_udp(lab, vip))?;
            assert_eq!(who.len(), TARGETS, "{vip}: {who:?}");
        }
        Ok(())
    })
}
