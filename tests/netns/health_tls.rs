//! HTTPS checks against nginx, which tells apart by SNI whom it knows and whom it does not.

use std::{
    fs,
    process::{Child, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nlb_tests::lab::{Lab, addresses::TARGETS, wait::wait_until};

use super::{SOON, authority::Authority, configuration, targets, text, with_nlb};

const PORT: u16 = 9443;
const NAME: &str = "web.example";
const GROUP: &str = "nat-web-v4";

/// The example, one group of which is checked by HTTPS with these keys besides.
fn checked_by_https(more: &str) -> Result<String> {
    let all = configuration();
    let group = format!("name = \"{GROUP}\"\n");
    let (before, after) = all
        .split_once(&group)
        .context("the example has the group")?;
    let check = format!("  protocol = \"HTTPS\"\n  port = {PORT}\n{more}");
    let after = after.replacen("  protocol = \"HTTP\"\n", &check, 1);
    Ok(format!("{before}{group}{after}"))
}

/// nginx on every target, with a certificate that it shows to those only who ask for the name.
struct Servers(Vec<Child>);

impl Servers {
    fn start(lab: &Lab, authority: &Authority) -> Result<Self> {
        let mut servers = Self(Vec::new());
        for target in lab.targets() {
            let folder = lab.directory().join(format!("tls-{}", target.name()));
            fs::create_dir_all(&folder)?;
            let file = folder.join("nginx.conf");
            let at = folder.display();
            fs::write(
                &file,
                format!(
                    "daemon off;\nuser root;\npid {at}/pid;\nworker_processes 1;\nevents {{}}\n\
                     http {{\n  access_log off;\n  client_body_temp_path {at}/body;\n  \
                     server {{ listen {PORT} ssl default_server; ssl_reject_handshake on; }}\n  \
                     server {{\n    listen {PORT} ssl;\n    server_name {NAME};\n    \
                     ssl_certificate {cert};\n    ssl_certificate_key {key};\n    \
                     location / {{ return 200 'well'; }}\n  }}\n}}\n",
                    cert = authority.file(&format!("{NAME}.pem")).display(),
                    key = authority.file(&format!("{NAME}.key")).display(),
                ),
            )?;
            let mut command = target.host.command("nginx");
            command.arg("-e").arg(folder.join("error.log"));
            command.arg("-p").arg(&folder).arg("-c").arg(&file);
            let log = fs::File::create(folder.join("stderr.log"))?;
            servers
                .0
                .push(command.stdout(Stdio::null()).stderr(log).spawn()?);
        }
        Ok(servers)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for server in &mut self.0 {
            // A master that is killed takes no worker along; those end with the lab.
            drop(server.kill());
            drop(server.wait());
        }
    }
}

#[test]
fn an_https_check_asks_by_name_and_takes_any_certificate_or_only_a_vouched_for_one() -> Result<()> {
    with_nlb("https", |lab, daemon| {
        let authority = Authority::new()?;
        authority.sign(NAME, &[NAME], 2999)?;
        let elsewhere = Authority::new()?;
        let _servers = Servers::start(lab, &authority)?;
        let ca = |authority: &Authority| {
            let file = authority.file("ca.pem");
            format!(
                "  tls.server_name = \"{NAME}\"\n  tls.ca_file = \"{}\"\n",
                file.display()
            )
        };
        let name = format!("  tls.server_name = \"{NAME}\"\n");
        let other = "  tls.server_name = \"other.example\"\n".to_owned();
        for (keys, state, why) in [
            // Any certificate will do, but nginx shows none to whom it does not know.
            (String::new(), "unhealthy", "no TLS session"),
            (name, "healthy", ""),
            (ca(&elsewhere), "unhealthy", "certificate is refused"),
            (ca(&authority), "healthy", ""),
            (other, "unhealthy", "no TLS session"),
        ] {
            lab.write_config(&checked_by_https(&keys)?)?;
            let reload = daemon.reload()?;
            ensure!(reload.status.success(), "{reload:?}");
            let mut found = Vec::new();
            wait_until(&format!("targets are {state} with {keys:?}"), SOON, || {
                let Ok(status) = daemon.status() else {
                    return false;
                };
                let groups = status["target_groups"].as_array().into_iter().flatten();
                let group = groups.filter(|group| group["name"] == GROUP).cloned();
                let group = serde_json::json!({"target_groups": group.collect::<Vec<_>>()});
                found = targets(&group)
                    .map(|it| (text(&it["state"]), text(&it["last_failure"])))
                    .collect();
                found.len() == TARGETS
                    && (found.iter()).all(|(is, said)| is == state && said.contains(why))
            })
            .with_context(|| format!("{found:?}"))?;
        }
        Ok(())
    })
}
