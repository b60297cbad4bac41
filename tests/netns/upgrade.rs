//! Other daemons over the same pins: of another build, of another layout, and one that ran out of
//! memory.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use nlb_common::maps::LAYOUT_VERSION;
use nlb_tests::lab::{Lab, cgroup::MemoryLimit, daemon, wait::wait_until};

use super::{
    SOON, ask_http, configuration,
    daemon_life::{Transfer, attached},
    http_vips, text, wait_for_states, who_answers, with_nlb,
};

/// What stands for another release's version: as long as ours.
pub(crate) fn another_version(ours: &str) -> String {
    let (rest, last) = ours.split_at(ours.len() - 1);
    format!("{rest}{}", if last == "9" { "8" } else { "9" })
}

/// A program that says another version of itself, wherever it does.
pub(crate) fn patched(mut program: Vec<u8>, ours: &str, theirs: &str) -> Vec<u8> {
    let places: Vec<usize> = program
        .windows(ours.len())
        .enumerate()
        .filter(|(_, bytes)| *bytes == ours.as_bytes())
        .map(|(place, _)| place)
        .collect();
    for place in places {
        program[place..place + theirs.len()].copy_from_slice(theirs.as_bytes());
    }
    program
}

/// A copy of our program, patched so.
fn another_build(lab: &Lab, ours: &str, theirs: &str) -> Result<std::path::PathBuf> {
    let program = patched(fs::read(daemon::binary()?)?, ours, theirs);
    let file = lab.directory().join("nlb-of-another-build");
    fs::write(&file, program)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    Ok(file)
}

#[test]
fn another_build_takes_over_while_transfers_run_and_says_what_it_is() -> Result<()> {
    with_nlb("upgrade", |lab, daemon| {
        let ours = text(&daemon.status()?["version"]);
        let theirs = another_version(&ours);
        let other = another_build(lab, &ours, &theirs)?;
        // There, and back again.
        for (binary, version) in [(&other, &theirs), (&daemon::binary()?, &ours)] {
            let transfers = http_vips()
                .into_iter()
                .map(|vip| Transfer::start(lab, vip))
                .collect::<Result<Vec<_>>>()?;
            transfers.iter().try_for_each(Transfer::goes_on)?;
            let program = attached(lab.gateway(), "eth0")?;
            daemon.terminate()?;
            *daemon = lab.start_nlb_binary(binary)?;
            let status = daemon.status()?;
            ensure!(text(&status["version"]) == *version, "{status}");
            ensure!(status["adopted"] == true, "{status}");
            let replaced = attached(lab.gateway(), "eth0")?;
            ensure!(replaced.is_some() && replaced != program, "{program:?}");
            transfers.into_iter().try_for_each(Transfer::finishes)?;
        }
        Ok(())
    })
}

#[test]
fn maps_of_another_layout_are_left_alone_and_the_way_out_is_told() -> Result<()> {
    with_nlb("layout", |lab, daemon| {
        daemon.terminate()?;
        let header = lab.bpffs().join("nlb/HEADER");
        let open = || -> Result<Array<MapData, [u64; 8]>> {
            Ok(Array::try_from(Map::Array(MapData::from_pin(&header)?))?)
        };
        let ours = open()?.get(&0, 0)?;
        ensure!(ours[0] == LAYOUT_VERSION, "{ours:?}");
        let mut theirs = ours;
        theirs[0] += 1;
        open()?.set(0, theirs, 0)?;
        let mut refused = lab.spawn_nlb()?;
        ensure!(!refused.ends()?, "a daemon that cannot read the maps");
        let log = refused.log()?;
        let told = format!(
            "have layout {} and this release has layout {LAYOUT_VERSION}; `nlb detach` removes them",
            theirs[0]
        );
        ensure!(log.contains(&told), "{log}");
        // As an upgrade asks before it restarts the daemon.
        let can_take_over = || {
            Command::new(daemon::binary()?)
                .args(["check", "--running"])
                .arg(lab.directory().join("nlb.toml"))
                .output()
                .context("nlb check --running")
        };
        let answer = can_take_over()?;
        let said = String::from_utf8_lossy(&answer.stderr);
        ensure!(
            !answer.status.success() && said.contains("layout"),
            "{said}"
        );
        for vip in http_vips() {
            ask_http(lab, vip).context("by the maps that nobody touched")?;
        }
        open()?.set(0, ours, 0)?;
        ensure!(can_take_over()?.status.success());
        *daemon = lab.start_nlb()?;
        ensure!(daemon.status()?["adopted"] == true);
        Ok(())
    })
}

#[test]
fn a_daemon_that_runs_out_of_memory_breaks_no_transfer_and_comes_back() -> Result<()> {
    with_nlb("oom", |lab, daemon| {
        let Some(limit) = MemoryLimit::new(lab) else {
            println!("SKIPPED a_daemon_that_runs_out_of_memory: no memory control group here");
            return Ok(());
        };
        let pins = || Ok::<_, anyhow::Error>(fs::read_dir(lab.bpffs().join("nlb"))?.count());
        let pins_before = pins()?;
        let transfers = http_vips()
            .into_iter()
            .map(|vip| Transfer::start(lab, vip))
            .collect::<Result<Vec<_>>>()?;
        // What it asks for from now on is more than it gets.
        limit.set(256 << 10)?;
        limit.take_in(daemon.pid().context("a running daemon")?)?;
        let text =
            configuration() + &"# A line among more than there is room for.\n".repeat(1 << 20);
        wait_until("the kernel ends the daemon", SOON, || {
            let reloaded = lab.write_config(&text).and_then(|_| daemon.reload());
            drop(reloaded);
            !daemon.is_running()
        })?;
        for vip in http_vips() {
            ask_http(lab, vip).context("without a daemon")?;
        }
        lab.write_config(&configuration())?;
        *daemon = lab.start_nlb()?;
        let status = daemon.status()?;
        ensure!(status["adopted"] == true, "{status}");
        wait_for_states(daemon, |_, state| state == "healthy")?;
        for vip in http_vips() {
            who_answers(|| ask_http(lab, vip))?;
        }
        transfers.into_iter().try_for_each(Transfer::finishes)?;
        ensure!(pins()? == pins_before, "{} pins", pins()?);
        Ok(())
    })
}

#[test]
fn maps_that_there_is_no_memory_for_are_told_by_their_key() -> Result<()> {
    with_nlb("large", |lab, daemon| {
        let Some(limit) = MemoryLimit::new(lab) else {
            println!("SKIPPED maps_that_there_is_no_memory_for: no memory control group here");
            return Ok(());
        };
        daemon.terminate()?;
        daemon.detach(lab)?;
        limit.set(96 << 20)?;
        let flows = configuration().replacen("flows = 65536", "flows = 16777216", 1);
        ensure!(flows != configuration());
        lab.write_config(&flows)?;
        let small = lab.directory().join("nlb-with-little-memory");
        let (processes, binary) = (limit.processes(), daemon::binary()?);
        let script = format!(
            "#!/bin/sh\necho $$ > {}\nexec {} \"$@\"\n",
            processes.display(),
            binary.display()
        );
        fs::write(&small, script)?;
        fs::set_permissions(&small, fs::Permissions::from_mode(0o755))?;
        let mut refused = lab.spawn_nlb_binary(&small)?;
        ensure!(!refused.ends()?, "there is no room");
        let log = refused.log()?;
        ensure!(
            log.contains("node.capacity.flows") && log.contains("MemoryMax"),
            "{log}"
        );
        // And what was made by then is no hindrance.
        lab.write_config(&configuration())?;
        *daemon = lab.start_nlb()?;
        wait_for_states(daemon, |_, state| state == "healthy")
    })
}
