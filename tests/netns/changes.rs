//! What operators change while traffic flows, and what they cannot break by mistake.

use anyhow::{Context as _, Result, ensure};
use nlb_tests::lab::wait::wait_until;

use super::{
    SOON, ask_http, configuration, connection_to, daemon_life::attached, http_vips, is_host,
    targets, text, who_answers, with_nlb, without,
};

#[test]
fn a_target_that_is_taken_out_keeps_its_connections_and_gets_no_new_ones() -> Result<()> {
    with_nlb("deregister", |lab, daemon| {
        let [vip, ..] = http_vips();
        let mut old = connection_to(lab, vip, "target1")?;
        let before = daemon.status()?["generation"].as_u64();
        let changed = without(&configuration(), "10.2.0.11");
        ensure!(
            changed != configuration(),
            "the example has a target 10.2.0.11"
        );
        lab.write_config(&changed)?;
        let reload = daemon.reload()?;
        ensure!(reload.status.success(), "{reload:?}");
        let status = daemon.status()?;
        ensure!(status["generation"].as_u64() > before, "{status}");
        let draining = targets(&status)
            .filter(|target| target["state"] == "draining")
            .map(|target| text(&target["address"]))
            .collect::<Vec<_>>();
        ensure!(!draining.is_empty() && draining.iter().all(|address| is_host(address, 0)));
        let answers = who_answers(|| ask_http(lab, vip))?;
        ensure!(
            !answers.contains("target1") && answers.len() == 2,
            "{answers:?}"
        );
        ensure!(
            old.get("/")?.target == "target1",
            "the old connection goes on"
        );

        // Back again, it takes new flows at once: it was healthy a moment ago.
        lab.write_config(&configuration())?;
        ensure!(daemon.reload()?.status.success(), "the target is back");
        wait_until("target1 gets new connections", SOON, || {
            who_answers(|| ask_http(lab, vip)).is_ok_and(|answers| answers.len() == 3)
        })?;
        Ok(())
    })
}

#[test]
fn a_second_daemon_and_detach_are_refused_while_one_runs() -> Result<()> {
    with_nlb("second", |lab, daemon| {
        let program = attached(lab.gateway(), "eth0")?;
        let binary = nlb_tests::lab::daemon::binary()?;
        let config = lab.write_config(&configuration())?;
        let line = format!("{} run --config {}", binary.display(), config.display());
        let second = lab.gateway().output(&line)?;
        ensure!(!second.status.success(), "a second daemon ran");
        let said = String::from_utf8_lossy(&second.stderr).into_owned();
        ensure!(said.contains("node.socket: another nlb answers"), "{said}");

        // With a socket of its own it still meets the first one over the maps.
        let other = configuration().replace("nlb.sock", "other.sock");
        let config = lab.write_config(&other)?;
        let line = format!("{} run --config {}", binary.display(), config.display());
        let second = lab.gateway().output(&line)?;
        let said = String::from_utf8_lossy(&second.stderr).into_owned();
        ensure!(
            !second.status.success() && said.contains("another nlb daemon uses"),
            "{said}"
        );

        let line = format!(
            "{} detach --bpffs {}",
            binary.display(),
            lab.bpffs().display()
        );
        let detach = lab.gateway().output(&line)?;
        let said = String::from_utf8_lossy(&detach.stderr).into_owned();
        ensure!(
            !detach.status.success() && said.contains("stop it first"),
            "{said}"
        );

        ensure!(
            attached(lab.gateway(), "eth0")? == program,
            "the program was replaced"
        );
        daemon.status()?;
        for vip in http_vips() {
            ask_http(lab, vip)?;
        }
        Ok(())
    })
}

#[test]
fn an_interface_that_was_deleted_gets_its_program_again_when_it_is_back() -> Result<()> {
    with_nlb("interface", |lab, daemon| {
        let add = "ip link add eth2 numrxqueues 2 numtxqueues 2 type veth peer name far2 \
                   numrxqueues 2 numtxqueues 2";
        lab.gateway().run(add)?;
        let three = configuration().replace(
            r#"interfaces = ["eth0", "eth1"]"#,
            r#"interfaces = ["eth0", "eth1", "eth2"]"#,
        );
        lab.write_config(&three)?;
        let reload = daemon.reload()?;
        ensure!(reload.status.success(), "{reload:?}");
        ensure!(
            attached(lab.gateway(), "eth2")?.is_some(),
            "eth2 got no program"
        );

        lab.gateway().run("ip link del eth2")?;
        lab.gateway().run(add)?;
        wait_until("eth2 has its program again", SOON, || {
            attached(lab.gateway(), "eth2").is_ok_and(|program| program.is_some())
        })?;

        // Out of the configuration, it loses it.
        lab.write_config(&configuration())?;
        ensure!(daemon.reload()?.status.success(), "two interfaces again");
        ensure!(
            attached(lab.gateway(), "eth2")?.is_none(),
            "eth2 kept its program"
        );
        for vip in http_vips() {
            ask_http(lab, vip)?;
        }
        Ok(())
    })
}

#[test]
fn a_listener_that_is_taken_out_takes_no_new_connections_and_cuts_none() -> Result<()> {
    with_nlb("listener", |lab, daemon| {
        let [vip, other, ..] = http_vips();
        let mut old = connection_to(lab, vip, "target2")?;
        let all = configuration();
        let first = "  [[load_balancer.listener]]\n  protocol = \"TCP\"\n  port = 80\n  \
                     target_group = \"nat-web-v4\"\n";
        ensure!(all.contains(first), "the example has that listener");
        lab.write_config(&all.replace(first, ""))?;
        let reload = daemon.reload()?;
        ensure!(reload.status.success(), "{reload:?}");
        ensure!(ask_http(lab, vip).is_err(), "a new connection was taken");
        ensure!(
            old.get("/")?.target == "target2",
            "the old connection goes on"
        );
        ask_http(lab, other).context("the other listeners go on")?;
        Ok(())
    })
}
