//! Targets that fail leave, targets that return come back, and when all fail nobody is shut out.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use nlb_tests::lab::addresses::TARGETS;

use super::{
    EXAMPLE, ask_http, ask_udp, connection_to, http_vips, udp_vips, wait_for_states,
    wait_until_one_fails, who_answers, with_nlb,
};

#[test]
fn a_failed_target_gets_no_new_flow_and_comes_back_when_it_passes() -> Result<()> {
    with_nlb("fail_return", |lab, daemon| {
        let mut kept = Vec::new();
        for vip in http_vips() {
            kept.push((vip, connection_to(lab, vip, "target1")?));
        }
        lab.kill_nginx(1)?;
        wait_until_one_fails(daemon, 1)?;
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

/// Behind `dsr-l2` nobody sees the dead target's refusal, so its flow looks half open for a while.
#[test]
fn a_client_port_that_was_refused_by_a_dead_target_gets_another_once_that_is_known() -> Result<()> {
    with_nlb("refused_port", |lab, daemon| {
        // At the example's own pace there is time to be refused.
        lab.write_config(EXAMPLE)?;
        ensure!(daemon.reload()?.status.success(), "the example is reloaded");
        let client = lab.client().clone();
        let is_refused = |vip: SocketAddr, port: u16| -> Result<bool> {
            let line = format!("curl -sS -g --max-time 3 --local-port {port} http://{vip}/");
            let output = client.output(&line)?;
            // curl's "failed to connect to host".
            let is_refused = output.status.code() == Some(7);
            ensure!(is_refused || output.status.success(), "{line}: {output:?}");
            Ok(is_refused)
        };
        lab.kill_nginx(1)?;
        let mut refused = Vec::new();
        // A port of its own for each, since those that were answered linger.
        for (port, vip) in (30_001..30_041).zip(http_vips().into_iter().cycle()) {
            if is_refused(vip, port)? {
                refused.push((vip, port));
            }
        }
        ensure!(
            !refused.is_empty(),
            "nothing was refused, so nothing was shown"
        );
        wait_until_one_fails(daemon, 1)?;
        let mut again = Vec::new();
        for (vip, port) in refused {
            if is_refused(vip, port)? {
                again.push((vip, port));
            }
        }
        ensure!(again.is_empty(), "refused again: {again:?}");
        Ok(())
    })
}
