//! A log that nobody reads.

use std::{
    io::{self, Read as _},
    process::Command,
    thread,
};

use anyhow::{Context as _, Result, ensure};
use nlb_tests::lab::{Lab, wait::wait_until};

use super::{SOON, ask_http, configuration, http_vips, wait_until_one_fails, with_configuration};

/// What is told of itself and its log by a daemon with these metrics.
fn lost(lab: &Lab) -> Result<u64> {
    let output = Command::new("curl")
        .args(["-sS", "--unix-socket"])
        .arg(lab.directory().join("metrics.sock"))
        .arg("http://nlb/metrics")
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("nlb_log_messages_lost_total "));
    Ok(line.with_context(|| text.clone())?.parse()?)
}

#[test]
fn a_log_that_nobody_reads_stops_nothing_and_what_was_lost_is_told() -> Result<()> {
    let node = "[node]\nmetrics = \"/run/nlb-demo/metrics.sock\"\n";
    let text = configuration().replacen("[node]\n", node, 1);
    with_configuration("log", &text, |lab, daemon| {
        daemon.terminate()?;
        let (mut reader, writer) = io::pipe()?;
        // All that it and its libraries have to say, far more than a pipe takes.
        *daemon = lab.start_nlb_with(|command| {
            command.env("NLB_LOG", "trace").stderr(writer);
        })?;
        wait_until("more was logged than there is room for", SOON, || {
            daemon.status().is_ok() && lost(lab).is_ok_and(|lost| lost > 0)
        })?;
        // Checks go on, and so do changes.
        lab.kill_nginx(0)?;
        wait_until_one_fails(daemon, 0)?;
        ensure!(daemon.reload()?.status.success());
        for vip in http_vips() {
            ask_http(lab, vip)?;
        }
        let read = thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        wait_until("what was lost is told", SOON, || {
            lost(lab).is_ok_and(|before| {
                daemon.status().is_ok() && lost(lab).is_ok_and(|after| after == before)
            })
        })?;
        daemon.terminate()?;
        let text = read.join().expect("the reader's thread")?;
        ensure!(
            text.contains("messages were lost: nobody read the log"),
            "{} bytes",
            text.len()
        );
        ensure!(text.ends_with('\n'), "the last line is whole");
        Ok(())
    })
}
