//! What is changed over the API, by its command line: it reaches the wire at once, it outlives the
//! daemon, and what is refused changes nothing.

use std::{fs, process::Output};

use anyhow::{Context as _, Result, ensure};
use nlb_tests::lab::{daemon::Daemon, wait::wait_until};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    SOON, ask_http, configuration, connection_to, http_vips, wait_for_states, who_answers,
    with_configuration, with_nlb,
};

const GROUP: &str = "nat-web-v4";
const FIRST: &str = "10.2.0.11:8080";

/// `nlb` with these words, which must succeed; what it printed.
fn nlb(daemon: &Daemon, words: &[&str]) -> Result<String> {
    let output = daemon.nlb(words)?;
    ensure!(output.status.success(), "nlb {words:?}: {}", said(&output));
    Ok(String::from_utf8(output.stdout)?)
}

/// The same, which must be refused; what it said.
fn refused(daemon: &Daemon, words: &[&str]) -> Result<String> {
    let output = daemon.nlb(words)?;
    ensure!(!output.status.success(), "nlb {words:?} was not refused");
    Ok(said(&output))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The example without the first target of the group.
fn without_the_first() -> Result<String> {
    let target = "  [[target_group.target]]\n  address = \"10.2.0.11\"\n";
    let all = configuration();
    let group = format!("name = \"{GROUP}\"\n");
    let (before, rest) = all
        .split_once(&group)
        .context("the example has the group")?;
    ensure!(rest.contains(target), "the example has the target");
    Ok(format!("{before}{group}{}", rest.replacen(target, "", 1)))
}

#[test]
fn a_target_that_is_registered_serves_and_outlives_kill_9_until_it_is_deregistered() -> Result<()> {
    with_configuration("api", &without_the_first()?, |lab, daemon| {
        let [vip, ..] = http_vips();
        let answers = who_answers(|| ask_http(lab, vip))?;
        ensure!(!answers.contains("target1"), "{answers:?}");

        let text = nlb(daemon, &["target", "add", GROUP, FIRST, "--wait=healthy"])?;
        ensure!(
            text.contains("+ target-group/nat-web-v4/target/10.2.0.11:8080"),
            "{text}"
        );
        let answers = who_answers(|| ask_http(lab, vip))?;
        ensure!(answers.contains("target1"), "{answers:?}");

        // Nobody says goodbye; the next daemon knows all the same.
        daemon.kill_9()?;
        *daemon = lab.start_nlb()?;
        wait_for_states(daemon, |_, state| state == "healthy")?;
        let list = nlb(daemon, &["target", "list", GROUP])?;
        let line = list.lines().find(|line| line.starts_with(FIRST));
        ensure!(line.is_some_and(|line| line.ends_with("api")), "{list}");
        let mut old = connection_to(lab, vip, "target1")?;

        nlb(daemon, &["target", "rm", GROUP, FIRST])?;
        let answers = who_answers(|| ask_http(lab, vip))?;
        ensure!(!answers.contains("target1"), "{answers:?}");
        ensure!(old.get("/")?.target == "target1", "its connection goes on");
        let list = nlb(daemon, &["target", "list", GROUP])?;
        ensure!(list.contains("draining"), "{list}");
        Ok(())
    })
}

#[test]
fn a_target_that_is_drained_keeps_its_connections_and_takes_no_new_ones() -> Result<()> {
    with_nlb("drain", |lab, daemon| {
        let [vip, ..] = http_vips();
        let mut old = connection_to(lab, vip, "target1")?;
        nlb(daemon, &["target", "drain", GROUP, "10.2.0.11"])?;
        let answers = who_answers(|| ask_http(lab, vip))?;
        ensure!(!answers.contains("target1"), "{answers:?}");
        ensure!(old.get("/")?.target == "target1", "its connection goes on");
        let list = nlb(daemon, &["health", GROUP])?;
        ensure!(!list.contains("draining"), "it is registered still: {list}");
        nlb(
            daemon,
            &["target", "set", GROUP, FIRST, "weight=1", "--wait"],
        )?;
        let answers = who_answers(|| ask_http(lab, vip))?;
        ensure!(answers.contains("target1"), "{answers:?}");
        Ok(())
    })
}

#[test]
fn a_load_balancer_is_built_changed_and_taken_down_by_typing() -> Result<()> {
    with_nlb("typing", |lab, daemon| {
        let vip = "192.0.2.77:8080".parse()?;
        let (group, address) = ("typed", "addresses=192.0.2.77");
        let plan = nlb(daemon, &["lb", "add", "typed", address, "--dry-run"])?;
        ensure!(plan.ends_with("1 change; nothing was done\n"), "{plan}");
        nlb(daemon, &["lb", "add", "typed", address, "tags.team=test"])?;
        let words = ["target-group", "add", group, "protocol=TCP", "port=80"];
        nlb(
            daemon,
            &[&words[..], &["health_check.interval_seconds=0.2"]].concat(),
        )?;
        let words = ["listener", "add", "typed", "TCP:8080", "target_group=typed"];
        nlb(daemon, &words)?;
        nlb(
            daemon,
            &["target", "add", group, "10.2.0.12", "--wait=healthy"],
        )?;
        ensure!(ask_http(lab, vip)? == "target2", "the listener forwards");

        // A rule blocks the client, and is taken back.
        nlb(
            daemon,
            &["rule", "add", "typed", "deny", "10.1.0.0/16", "--wait"],
        )?;
        ensure!(ask_http(lab, vip).is_err(), "the rule blocks");
        let rules = nlb(daemon, &["rule", "list", "typed"])?;
        let id = rules.lines().nth(1).and_then(|line| line.split(' ').next());
        nlb(daemon, &["rule", "rm", "typed", id.context("a rule")?])?;
        ask_http(lab, vip)?;

        let used = refused(daemon, &["target-group", "rm", group])?;
        ensure!(
            used.contains("listener \"TCP/8080\".target_group"),
            "{used}"
        );
        nlb(daemon, &["lb", "rm", "typed"])?;
        nlb(daemon, &["target-group", "rm", group])?;
        let file = lab.directory().join("nlb.toml");
        let diff = nlb(daemon, &["diff", &file.display().to_string()])?;
        ensure!(diff == "nothing differs\n", "{diff}");
        Ok(())
    })
}

#[test]
fn what_is_refused_changes_nothing_and_says_what_to_do() -> Result<()> {
    with_nlb("refused", |lab, daemon| {
        nlb(daemon, &["target", "set", GROUP, FIRST, "weight=2"])?;
        let before = nlb(daemon, &["target-group", "show", GROUP])?;
        let generation = daemon.status()?["generation"].as_u64();
        for (words, told) in [
            (
                &["target", "add", GROUP, "10.2.0.11:0"][..],
                "value `0` is out of range; write a whole number from 1 to 65535",
            ),
            (
                &["target", "add", GROUP, FIRST],
                "exists already; change it with `set`",
            ),
            (
                &["target", "set", "nat-web", FIRST, "weight=3"],
                "`nlb target-group list` shows what there is",
            ),
            (
                &["target-group", "set", GROUP, "prot=TCP"],
                "is not a known key; did you mean `protocol`?",
            ),
        ] {
            let message = refused(daemon, words)?;
            ensure!(message.contains(told), "nlb {words:?}: {message}");
        }
        // A bad file, by SIGHUP and by `apply`.
        let file = lab.write_config(&configuration().replace("port = 80\n", "port = 0\n"))?;
        let file = file.display().to_string();
        let pid = daemon.pid().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.and_then(Pid::from_raw).context("nlb has a pid")?;
        kill_process(pid, Signal::HUP)?;
        wait_until("the log tells of the bad file", SOON, || {
            daemon
                .log()
                .is_ok_and(|log| log.contains("the reload failed"))
        })?;
        let message = refused(daemon, &["apply", &file])?;
        ensure!(message.contains(&format!("{file}:")), "{message}");

        ensure!(nlb(daemon, &["target-group", "show", GROUP])? == before);
        ensure!(daemon.status()?["generation"].as_u64() == generation);
        // A good file that was not touched by this: the change lies over it, until it is applied.
        lab.write_config(&configuration())?;
        ensure!(daemon.reload()?.status.success(), "the file is good again");
        ensure!(nlb(daemon, &["target-group", "show", GROUP])? == before);
        let applied = nlb(daemon, &["apply", &file])?;
        ensure!(
            applied.contains("set over the API, is discarded"),
            "{applied}"
        );
        ensure!(nlb(daemon, &["target-group", "show", GROUP])? != before);
        for vip in http_vips() {
            ask_http(lab, vip)?;
        }
        Ok(())
    })
}

#[test]
fn a_full_disk_refuses_changes_and_nothing_else() -> Result<()> {
    with_nlb("full", |lab, daemon| {
        let state = lab.directory().join("state");
        fs::create_dir_all(&state)?;
        let mount = format!("mount -t tmpfs -o size=64k none {}", state.display());
        lab.gateway().run(&mount)?;
        let result = (|| {
            nlb(daemon, &["target", "set", GROUP, FIRST, "weight=2"])?;
            let filler = state.join("filler");
            // Whole pages until there is none.
            let full = (0..64).try_for_each(|number| {
                fs::write(filler.with_extension(number.to_string()), [0; 4096])
            });
            ensure!(full.is_err(), "64 KiB hold no 256 KiB");
            // Records that fit into the journal's last page are taken; soon one does not.
            let mut told = String::new();
            let mut taken = 2;
            while told.is_empty() && taken < 100 {
                let weight = format!("weight={}", taken + 1);
                let output = daemon.nlb(&["target", "set", GROUP, FIRST, &weight])?;
                if output.status.success() {
                    taken += 1;
                } else {
                    told = said(&output);
                }
            }
            ensure!(
                told.contains("node.state_directory") && told.contains("nothing has changed"),
                "{told}"
            );
            let shown = nlb(daemon, &["target", "show", GROUP, FIRST])?;
            ensure!(shown.contains(&format!("weight: {taken}\n")), "{shown}");
            for vip in http_vips() {
                ask_http(lab, vip)?;
            }
            fs::remove_file(filler.with_extension("0"))?;
            nlb(daemon, &["target", "set", GROUP, FIRST, "weight=500"])?;
            daemon.kill_9()?;
            *daemon = lab.start_nlb()?;
            let shown = nlb(daemon, &["target", "show", GROUP, FIRST])?;
            ensure!(shown.contains("weight: 500\n"), "{shown}");
            daemon.terminate()
        })();
        lab.gateway().run(&format!("umount {}", state.display()))?;
        result
    })
}

#[test]
fn what_has_changed_is_not_written_over_and_what_is_sent_again_is_done_once() -> Result<()> {
    with_nlb("conditions", |lab, daemon| {
        let shown: serde_json::Value =
            serde_json::from_str(&nlb(daemon, &["target", "show", GROUP, FIRST, "--json"])?)?;
        let tag = shown["etag"].as_str().context("a tag")?;
        // Shells take the quotes away.
        let bare = tag.trim_matches('"');
        let set = |weight: &str, tag: &str| {
            let words = ["target", "set", GROUP, FIRST, weight, "--if-match", tag];
            words.map(str::to_owned)
        };
        let words = set("weight=2", bare);
        nlb(daemon, &words.each_ref().map(String::as_str))?;
        let words = set("weight=3", tag);
        let said = refused(daemon, &words.each_ref().map(String::as_str))?;
        ensure!(said.contains("has changed since it was read"), "{said}");

        let again = ["--idempotency-key", "drain-1", "--json"];
        let words = [&["target", "drain", GROUP, FIRST][..], &again].concat();
        let first = nlb(daemon, &words)?;
        nlb(daemon, &["target", "set", GROUP, FIRST, "weight=5"])?;
        daemon.kill_9()?;
        *daemon = lab.start_nlb()?;
        assert_eq!(nlb(daemon, &words)?, first, "answered as it was");
        let shown = nlb(daemon, &["target", "show", GROUP, FIRST])?;
        ensure!(shown.contains("weight: 5"), "drained once: {shown}");
        Ok(())
    })
}
