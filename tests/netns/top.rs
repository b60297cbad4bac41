//! `nlb top` in a terminal: what a person reads there, and what keys do.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use anyhow::{Context as _, Result, ensure};
use nlb_tests::lab::{Lab, daemon, wait::wait_until};

use super::{SOON, ask_http, http_vips, targets, with_nlb};

/// A terminal of 110 columns and 40 lines; it ends with the test.
struct Terminal(PathBuf);

impl Terminal {
    fn start(lab: &Lab) -> Result<Self> {
        let terminal = Self(lab.directory().join("tmux"));
        let nlb = daemon::binary()?;
        let line = format!("{} top --socket {}", nlb.display(), lab.socket().display());
        let words = ["new-session", "-d", "-x", "110", "-y", "40", &line];
        let started = terminal.tmux(&words)?;
        ensure!(started.status.success(), "{started:?}");
        Ok(terminal)
    }

    fn tmux(&self, words: &[&str]) -> Result<Output> {
        let mut tmux = Command::new("tmux");
        let tmux = tmux
            .args(["-f", "/dev/null", "-S"])
            .arg(&self.0)
            .args(words);
        tmux.output()
            .context("running tmux (Debian's package of that name)")
    }

    /// What is on the screen.
    fn screen(&self) -> Result<String> {
        let screen = self.tmux(&["capture-pane", "-p"])?;
        Ok(String::from_utf8(screen.stdout)?)
    }

    /// Types, letter by letter or by the names of keys.
    fn types(&self, keys: &[&str]) -> Result<()> {
        let typed = self.tmux(&[&["send-keys"], keys].concat())?;
        ensure!(typed.status.success(), "{typed:?}");
        Ok(())
    }

    /// Waits until the screen is right.
    fn shows(&self, what: &str, is_right: impl Fn(&str) -> bool) -> Result<()> {
        let mut screen = String::new();
        wait_until(what, SOON, || {
            screen = self.screen().unwrap_or_default();
            is_right(&screen)
        })
        .with_context(|| screen)?;
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]).ok();
    }
}

#[test]
fn a_person_watches_rates_and_health_and_drains_a_target_by_keys() -> Result<()> {
    with_nlb("top", |lab, daemon| {
        let terminal = Terminal::start(lab)?;
        terminal.shows("targets and their health", |screen| {
            let mut lines = screen.lines();
            screen.contains(" listeners ")
                && lines.any(|line| line.contains("10.2.0.11:53 ") && line.contains(" healthy "))
        })?;
        // Traffic, until a look has seen some; latencies of checks.
        terminal.shows("packets in a second", |screen| {
            let [vip, ..] = http_vips();
            let is_asked = (0..20).all(|_| ask_http(lab, vip).is_ok());
            let most = screen.split_once(" most ").map(|(_, rest)| rest);
            is_asked && most.is_some_and(|most| !most.starts_with("0 ")) && screen.contains("ms")
        })?;

        terminal.types(&["/", "nat-web-v4", "Enter"])?;
        terminal.shows("one group", |screen| {
            screen.contains("/ filter: nat-web-v4") && !screen.contains("nat-web-v6")
        })?;
        terminal.types(&["s", "s", "s", "s"])?;
        terminal.shows("names", |screen| screen.contains("s sort: name"))?;
        terminal.types(&["d"])?;
        let question = "drain 10.2.0.11:8080 of nat-web-v4? y: yes";
        terminal.shows("a question", |screen| screen.contains(question))?;
        terminal.types(&["y"])?;
        terminal.shows("the answer", |screen| {
            screen.contains("10.2.0.11:8080 drains, generation ")
        })?;
        let status = daemon.status()?;
        let drained = targets(&status)
            .find(|target| target["address"] == "10.2.0.11" && target["port"] == 8080)
            .context("the target")?;
        ensure!(drained["weight"] == 0, "{drained}");

        terminal.types(&["q"])?;
        wait_until("it ends", SOON, || {
            let session = terminal.tmux(&["has-session"]);
            session.is_ok_and(|session| !session.status.success())
        })?;
        Ok(())
    })
}
