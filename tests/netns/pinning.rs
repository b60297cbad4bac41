//! Listeners that pin flows on change, between real hosts: nothing is remembered while nothing
//! changes, and connections stay where they are when something does.

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use nlb_common::flow::{Choice, WAYS};
use nlb_tests::lab::{Lab, wait::wait_until};

use super::{
    SOON, ask_http, configuration, connection_to, http_vips, is_host, wait_for_states, who_answers,
    with_configuration, without,
};

/// The same configuration, where listeners of the `dsr` load balancer pin on change.
pub(crate) fn pinning_on_change(configuration: &str) -> String {
    configuration.replace(
        "  target_group = \"dsr-",
        "  pinning = \"on_change\"\n  target_group = \"dsr-",
    )
}

/// That with health checks that are patient: a target that fails on a busy machine is a change, too.
fn on_change() -> String {
    pinning_on_change(&configuration())
        .replace("interval_seconds = 0.2\n", "interval_seconds = 1\n")
        .replace("timeout_seconds = 0.2\n", "timeout_seconds = 1\n")
}

/// How many flows are remembered.
fn remembered(lab: &Lab) -> Result<usize> {
    let pin = lab.bpffs().join("nlb/FLOWS");
    let map = Map::Array(MapData::from_pin(&pin).with_context(|| pin.display().to_string())?);
    let flows = Array::<_, [[u64; 4]; WAYS]>::try_from(map)?;
    let mut count = 0;
    for index in 0..flows.len() {
        let bucket = flows.get(&index, 0)?;
        count += bucket
            .iter()
            .filter(|[choice, ..]| *choice != Choice::EMPTY)
            .count();
    }
    Ok(count)
}

/// A new ring is looked at until the flows from before, which there are none of, are known.
fn wait_until_settled(lab: &Lab) -> Result<()> {
    let [_, _, v4, v6] = http_vips();
    wait_until("new connections take no entries", SOON, || {
        let before = remembered(lab).ok();
        let asked = [v4, v6, v4, v6].map(|vip| ask_http(lab, vip).is_ok());
        asked.iter().all(|is_answered| *is_answered) && remembered(lab).ok() == before
    })?;
    Ok(())
}

#[test]
fn connections_that_nobody_remembers_survive_a_change_made_while_no_daemon_ran() -> Result<()> {
    with_configuration("on-change-3", &on_change(), |lab, daemon| {
        let [_, _, v4, v6] = http_vips();
        wait_until_settled(lab)?;
        let entries = remembered(lab)?;
        let mut old = [v4, v6]
            .map(|vip| connection_to(lab, vip, "target1"))
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        ensure!(remembered(lab)? == entries, "nothing has changed");
        daemon.kill_9()?;
        lab.write_config(&without(&without(&on_change(), "10.2.0.11"), "fd00:2::11"))?;
        *daemon = lab.start_nlb()?;
        for connection in &mut old {
            ensure!(
                connection.get("/")?.target == "target1",
                "by the rings that the other daemon left"
            );
        }
        Ok(())
    })
}

#[test]
fn connections_that_nobody_remembers_survive_changes_and_a_killed_daemon() -> Result<()> {
    with_configuration("on-change", &on_change(), |lab, daemon| {
        let [_, _, v4, v6] = http_vips();
        wait_until_settled(lab)?;
        let entries = remembered(lab)?;
        let mut old = [v4, v6]
            .map(|vip| connection_to(lab, vip, "target1"))
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        ensure!(remembered(lab)? == entries, "nothing has changed");

        let changed = without(&without(&on_change(), "10.2.0.11"), "fd00:2::11");
        lab.write_config(&changed)?;
        let reload = daemon.reload()?;
        ensure!(reload.status.success(), "{reload:?}");
        for connection in &mut old {
            ensure!(connection.get("/")?.target == "target1", "it goes on");
        }
        ensure!(
            remembered(lab)? >= entries + old.len(),
            "they are remembered now"
        );
        for vip in [v4, v6] {
            let answers = who_answers(|| ask_http(lab, vip))?;
            ensure!(
                !answers.contains("target1") && answers.len() == 2,
                "{answers:?}"
            );
        }

        daemon.kill_9()?;
        for connection in &mut old {
            ensure!(connection.get("/")?.target == "target1", "without a daemon");
        }
        *daemon = lab.start_nlb()?;
        wait_for_states(daemon, |address, state| {
            is_host(address, 0) || state == "healthy"
        })?;
        for connection in &mut old {
            ensure!(connection.get("/")?.target == "target1", "with a new one");
        }

        lab.write_config(&on_change())?;
        ensure!(daemon.reload()?.status.success(), "the target is back");
        wait_for_states(daemon, |_, state| state == "healthy")?;
        for connection in &mut old {
            ensure!(
                connection.get("/")?.target == "target1",
                "and it is still there"
            );
        }
        Ok(())
    })
}

#[test]
fn the_first_listener_that_pins_on_change_takes_a_restart_which_breaks_nothing() -> Result<()> {
    with_configuration("on-change-2", &configuration(), |lab, daemon| {
        let [_, _, v4, _] = http_vips();
        let mut old = connection_to(lab, v4, "target1")?;
        lab.write_config(&on_change())?;
        let reload = daemon.reload()?;
        let said = String::from_utf8_lossy(&reload.stderr).into_owned();
        ensure!(
            !reload.status.success() && said.contains("load_balancer.listener.pinning"),
            "{said}"
        );
        ensure!(old.get("/")?.target == "target1", "nothing has changed");
        daemon.kill_9()?;
        *daemon = lab.start_nlb()?;
        wait_for_states(daemon, |_, state| state == "healthy")?;
        ensure!(old.get("/")?.target == "target1", "its entry is kept to");
        lab.write_config(&without(&on_change(), "10.2.0.11"))?;
        ensure!(daemon.reload()?.status.success(), "the target is gone");
        ensure!(old.get("/")?.target == "target1", "its entry is kept to");
        Ok(())
    })
}
