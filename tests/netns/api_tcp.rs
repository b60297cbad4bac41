//! The API over TCP with mutual TLS, asked from the client's namespace by curl and by `nlb` itself.

use std::{fs, process::Output};

use anyhow::{Result, ensure};
use nlb_tests::lab::{
    Lab,
    addresses::{CLIENT_V4, GATEWAY_V4},
    daemon,
};

use super::{authority::Authority, configuration, privileges::has_given_up, with_configuration};

const PORT: u16 = 8443;
const TARGET: &str = "/v1/target-groups/nat-web-v4/targets/10.2.0.11:8080";
/// A year that is not over.
const LASTS: i32 = 2999;

fn configured(authority: &Authority) -> String {
    let file = |name: &str| authority.file(name).display().to_string();
    let node = format!(
        "[node]\naudit_log = \"/run/nlb-demo/audit.log\"\n\
         api.tcp.address = \"{GATEWAY_V4}:{PORT}\"\n\
         api.tcp.certificate_file = \"{}\"\napi.tcp.key_file = \"{}\"\n\
         api.tcp.client_ca_file = \"{}\"\n",
        file("node.pem"),
        file("node.key"),
        file("ca.pem")
    );
    let access = "[[access_role]]\nrole = \"read-only\"\ncertificates = [\"CN:alice\"]\n\
         [[access_role]]\nrole = \"operator\"\n\
         certificates = [\"URI:spiffe://example.org/ops\"]\n";
    format!(
        "{}\n{access}",
        configuration().replacen("[node]\n", &node, 1)
    )
}

/// curl on the client, as somebody with these files of an authority; the status of the answer.
fn curl(lab: &Lab, authority: &Authority, who: Option<&str>, words: &[&str]) -> Result<String> {
    let mut command = lab.client().command("curl");
    command.args([
        "-sS",
        "--max-time",
        "20",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
    ]);
    command.arg("--cacert").arg(authority.file("ca.pem"));
    if let Some(who) = who {
        command
            .arg("--cert")
            .arg(authority.file(&format!("{who}.pem")));
        command
            .arg("--key")
            .arg(authority.file(&format!("{who}.key")));
    }
    let (path, options) = words.split_last().unwrap_or((&TARGET, &[]));
    let output = command
        .args(options)
        .arg(format!("https://{GATEWAY_V4}:{PORT}{path}"))
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// `nlb` on the client, as somebody who is told by the environment.
fn nlb(lab: &Lab, authority: &Authority, who: &str, words: &[&str]) -> Result<Output> {
    Ok(lab
        .client()
        .command(daemon::binary()?)
        .args(words)
        .env("NLB_API", format!("https://{GATEWAY_V4}:{PORT}"))
        .env("NLB_CERT", authority.file(&format!("{who}.pem")))
        .env("NLB_KEY", authority.file(&format!("{who}.key")))
        .env("NLB_CA", authority.file("ca.pem"))
        .output()?)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_client_with_a_certificate_does_what_its_role_says_and_nobody_else_gets_in() -> Result<()> {
    let authority = Authority::new()?;
    let address = GATEWAY_V4.to_string();
    authority.sign("node", &[&address], LASTS)?;
    authority.sign("alice", &[], LASTS)?;
    authority.sign("ops", &["spiffe://example.org/ops"], LASTS)?;
    authority.sign("mallory", &[], LASTS)?;
    authority.sign("late", &["spiffe://example.org/ops"], 2002)?;
    let elsewhere = Authority::new()?;
    elsewhere.sign("alice", &[], LASTS)?;
    with_configuration("api_tcp", &configured(&authority), |lab, daemon| {
        has_given_up(daemon)?;
        let ask = |who, words: &[&str]| curl(lab, &authority, who, words);
        let weigh = ["-X", "PATCH", "-d", "{\"weight\": 2}", TARGET];
        assert_eq!(ask(Some("alice"), &[TARGET])?, "200");
        assert_eq!(ask(Some("alice"), &weigh)?, "403");
        assert_eq!(ask(Some("ops"), &weigh)?, "200");
        assert_eq!(ask(Some("mallory"), &[TARGET])?, "403");
        // Nobody without a certificate of that authority that is in date, and nobody with TLS 1.2.
        for (who, words) in [
            (None, &[TARGET][..]),
            (Some("late"), &[TARGET][..]),
            (Some("ops"), &["--tls-max", "1.2", TARGET][..]),
        ] {
            let refused = ask(who, words).expect_err("a refusal").to_string();
            ensure!(refused.contains("alert"), "{who:?} {words:?}: {refused}");
        }
        fs::copy(authority.file("ca.pem"), elsewhere.file("ca.pem"))?;
        let refused = curl(lab, &elsewhere, Some("alice"), &[TARGET]).expect_err("a refusal");
        ensure!(refused.to_string().contains("alert"), "{refused}");

        let drained = nlb(
            lab,
            &authority,
            "ops",
            &["target", "drain", "nat-web-v4", "10.2.0.11"],
        )?;
        ensure!(drained.status.success(), "{}", said(&drained));
        let shown = nlb(
            lab,
            &authority,
            "alice",
            &["target", "show", "nat-web-v4", "10.2.0.11", "--json"],
        )?;
        let shown: serde_json::Value = serde_json::from_slice(&shown.stdout)?;
        assert_eq!(shown["document"]["weight"], 0);
        let refused = nlb(lab, &authority, "alice", &["reload"])?;
        ensure!(
            said(&refused).contains("certificate CN:alice may not daemon:reload"),
            "{}",
            said(&refused)
        );

        let log = fs::read_to_string(lab.directory().join("audit.log"))?;
        let mut entries = Vec::new();
        for line in log.lines() {
            let line: serde_json::Value = serde_json::from_str(line)?;
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let from = text(&line["from"]);
            ensure!(from.starts_with(&format!("{CLIENT_V4}:")), "{line}");
            let subject = text(&line["certificate"]["subject"]);
            entries.push((subject, text(&line["action"]), text(&line["outcome"])));
        }
        let entry = |who: &str, action: &str, outcome: &str| {
            (format!("CN={who}"), action.to_owned(), outcome.to_owned())
        };
        assert_eq!(
            entries,
            [
                entry("alice", "targets:update", "refused"),
                entry("ops", "targets:update", "done"),
                entry("mallory", "targets:read", "refused"),
                entry("ops", "targets:drain", "done"),
                entry("alice", "daemon:reload", "refused"),
            ]
        );
        let key = fs::read_to_string(authority.file("node.key"))?;
        let secret = key.lines().nth(1).unwrap_or_default();
        ensure!(
            !daemon.log()?.contains(secret) && secret.len() > 32,
            "the key is in the log"
        );
        Ok(())
    })
}

#[test]
fn certificates_are_read_anew_at_a_reload_and_a_wrong_one_changes_nothing() -> Result<()> {
    let authority = Authority::new()?;
    let address = GATEWAY_V4.to_string();
    authority.sign("node", &[&address], LASTS)?;
    authority.sign("alice", &[], LASTS)?;
    with_configuration("api_tcp_new", &configured(&authority), |lab, daemon| {
        let ask = || curl(lab, &authority, Some("alice"), &[TARGET]);
        assert_eq!(ask()?, "200");
        authority.sign("node", &[&address], 2002)?;
        let refused = said(&daemon.reload()?);
        ensure!(
            refused.contains("node.api.tcp.certificate_file: the certificate in")
                && refused.contains("is expired"),
            "{refused}"
        );
        // The one that was read before is shown.
        assert_eq!(ask()?, "200");
        // A certificate for another address, so that it is seen that it is another one.
        authority.sign("node", &["192.0.2.99"], LASTS)?;
        ensure!(daemon.reload()?.status.success());
        let refused = ask().expect_err("another certificate").to_string();
        ensure!(refused.contains(&address), "{refused}");
        authority.sign("node", &[&address], LASTS)?;
        ensure!(daemon.reload()?.status.success());
        assert_eq!(ask()?, "200");
        Ok(())
    })
}
