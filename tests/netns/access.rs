//! Who may use the control socket, and what is kept of it.

use std::{fs, os::unix::process::CommandExt as _, process::Command};

use anyhow::{Result, ensure};
use nlb_tests::lab::{Lab, daemon, wait::wait_until};

use super::{SOON, configuration, with_configuration};

/// `nobody` and `nogroup` of Debian.
const NOBODY: u32 = 65_534;

/// What `nlb` says to a user who is not root, and whether it did what was asked.
fn as_nobody(lab: &Lab, command: &str) -> Result<(bool, String)> {
    let output = Command::new(daemon::binary()?)
        .args(command.split(' '))
        .arg("--socket")
        .arg(lab.socket())
        .uid(NOBODY)
        .gid(NOBODY)
        .output()?;
    let said = String::from_utf8(output.stdout)? + &String::from_utf8(output.stderr)?;
    Ok((output.status.success(), said))
}

#[test]
fn a_user_may_do_what_a_role_says_unless_a_statement_denies_it_and_all_is_written_down()
-> Result<()> {
    let text = configuration().replacen(
        "[node]\n",
        "[node]\naudit_log = \"/run/nlb-demo/audit.log\"\n",
        1,
    );
    with_configuration("access", &text, |lab, daemon| {
        let configure = |more: &str| -> Result<()> {
            lab.write_config(&format!("{text}\n{more}"))?;
            let reload = daemon.reload()?;
            ensure!(reload.status.success(), "{reload:?}");
            Ok(())
        };
        let (done, said) = as_nobody(lab, "status")?;
        ensure!(!done && said.contains("ermission denied"), "{said}");

        let read_only = "[[access_role]]\nrole = \"read-only\"\nusers = [\"nobody\"]\n";
        configure(read_only)?;
        wait_until("the socket is open to others", SOON, || {
            as_nobody(lab, "status").is_ok_and(|(done, _)| done)
        })?;
        let (done, said) = as_nobody(lab, "reload")?;
        ensure!(!done && said.contains("may not daemon:reload"), "{said}");

        let operator = "[[access_role]]\nrole = \"admin\"\ngroups = [\"nogroup\"]\n";
        configure(operator)?;
        ensure!(as_nobody(lab, "reload")?.0, "the group's role");
        let deny = "[[access_statement]]\neffect = \"deny\"\nactions = [\"daemon:*\"]\n";
        configure(&format!("{operator}{deny}"))?;
        let (done, said) = as_nobody(lab, "reload")?;
        ensure!(!done && said.contains("statement 1"), "{said}");
        // A host does not know everybody whom a file names.
        lab.write_config(&format!(
            "{text}\n{}",
            read_only.replace("nobody", "no-such-user")
        ))?;
        let refused = String::from_utf8(daemon.reload()?.stderr)?;
        ensure!(refused.contains("no user `no-such-user`"), "{refused}");

        let log = lab.directory().join("audit.log");
        let lines = fs::read_to_string(&log)?;
        let entries: Vec<(u64, String, String)> = lines
            .lines()
            .map(|line| {
                let line: serde_json::Value = serde_json::from_str(line)?;
                let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
                Ok((
                    line["uid"].as_u64().unwrap_or_default(),
                    text("action"),
                    text("outcome"),
                ))
            })
            .collect::<Result<_>>()?;
        let reload = |uid: u32, outcome: &str| {
            (
                u64::from(uid),
                "daemon:reload".to_owned(),
                outcome.to_owned(),
            )
        };
        assert_eq!(
            entries,
            [
                reload(0, "done"),
                reload(NOBODY, "refused"),
                reload(0, "done"),
                reload(NOBODY, "done"),
                reload(0, "done"),
                reload(NOBODY, "refused"),
                reload(0, "failed"),
            ]
        );
        let verify = || {
            Command::new(daemon::binary()?)
                .args(["audit", "verify"])
                .arg(&log)
                .output()
                .map_err(anyhow::Error::from)
        };
        let sound = verify()?;
        ensure!(sound.status.success(), "{sound:?}");
        fs::write(&log, lines.replacen("refused", "done", 1))?;
        let broken = verify()?;
        let said = String::from_utf8(broken.stderr)?;
        ensure!(
            !broken.status.success() && said.contains("line 2"),
            "{said}"
        );
        Ok(())
    })
}
