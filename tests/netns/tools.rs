//! What an engineer tries first: `tracepath`, `iperf3` and `nc`, as Debian has them.

use std::{
    io::Write as _,
    net::SocketAddr,
    process::{Child, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nlb_tests::lab::{
    Lab,
    addresses::{NAT_HTTP_PORT, target_v4, target_v6},
    daemon::Daemon,
    host::Host,
    wait::wait_until,
};
use serde_json::Value;

use super::{
    SOON, configuration, udp_vips, wait_for_states, with_configuration, with_nlb, with_pool,
};

/// `iperf3`'s own.
const IPERF_PORT: u16 = 5201;
/// Each probe of `tracepath` goes to the next port; it sends a few more than there are hops.
const PROBES: std::ops::Range<u16> = 44_444..44_460;
/// Where nobody serves datagrams.
const CLOSED_PORT: u16 = 44_000;
/// Less than any other link takes.
const NARROW_BYTES: u16 = 1300;

/// A process that is ended with its test.
struct Server(Child);

impl Server {
    fn start(host: &Host, line: &str) -> Result<Self> {
        let child = host.spawn(line)?;
        Ok(Self(child))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// One VIP of each IP version.
struct Tools {
    mode: &'static str,
    vips: [&'static str; 2],
    targets: [String; 2],
}

impl Tools {
    fn at_the_first_target(mode: &'static str, vips: [&'static str; 2]) -> Self {
        Self {
            mode,
            vips,
            targets: [target_v4(0).to_string(), target_v6(0).to_string()],
        }
    }

    /// The example, and a load balancer for these tools. Checks ask the web server.
    fn configuration(&self, protocol: &str, ports: impl Iterator<Item = u16>, to: u16) -> String {
        let mut text = vec![configuration()];
        text.push(format!(
            "\n[[load_balancer]]\nname = \"tools\"\naddresses = {:?}\n",
            self.vips
        ));
        for port in ports {
            for version in ["v4", "v6"] {
                text.push(format!(
                    "[[load_balancer.listener]]\nprotocol = \"{protocol}\"\nport = {port}\n\
                     target_group = \"tools-{version}\"\n"
                ));
            }
        }
        for (version, target) in ["v4", "v6"].into_iter().zip(&self.targets) {
            text.push(format!(
                "[[target_group]]\nname = \"tools-{version}\"\nprotocol = \"{protocol}\"\n\
                 port = {to}\nmode = \"{}\"\nhealth_check.port = {NAT_HTTP_PORT}\n\
                 health_check.interval_seconds = 0.2\nhealth_check.timeout_seconds = 0.2\n\
                 health_check.healthy_threshold_count = 2\n\
                 [[target_group.target]]\naddress = \"{target}\"\n",
                self.mode
            ));
        }
        text.concat()
    }

    fn load(lab: &Lab, daemon: &Daemon, configuration: &str) -> Result<()> {
        lab.write_config(configuration)?;
        let output = daemon.reload()?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "the tools' configuration: {told}");
        wait_until("the tools' targets are healthy", SOON, || {
            wait_for_states(daemon, |_, state| state == "healthy").is_ok()
        })?;
        Ok(())
    }
}

#[test]
fn tracepath_sees_the_hops_and_the_mtu_behind_a_vip() -> Result<()> {
    with_configuration("tracepath", &with_pool(&configuration()), |lab, daemon| {
        let far = lab.add_behind_target(NARROW_BYTES)?;
        // For the health checks.
        let _web = [
            Server::start(&far, &format!("nc -4 -l -k {NAT_HTTP_PORT}"))?,
            Server::start(&far, &format!("nc -6 -l -k {NAT_HTTP_PORT}"))?,
        ];
        let tools = Tools {
            mode: "nat",
            vips: ["192.0.2.30", "2001:db8::30"],
            targets: ["10.4.0.10".to_owned(), "fd00:4::10".to_owned()],
        };
        // All probes come from one port, and go to one port of the target through as many listeners as
        // there are probes: all but the first need a source of their own.
        let text = with_pool(&tools.configuration("UDP", PROBES, CLOSED_PORT));
        Tools::load(lab, daemon, &text)?;
        let routers = [target_v4(0).to_string(), target_v6(0).to_string()];
        for (vip, router) in tools.vips.into_iter().zip(&routers) {
            let line = format!("tracepath -n -p {} {vip}", PROBES.start);
            let told = lab.client().run(&line)?;
            let hop = |number: u8, what: &str| {
                told.lines().any(|line| {
                    line.trim_start().starts_with(&format!("{number}:")) && line.contains(what)
                })
            };
            // We are a hop, and answer with the only address of ours that clients know.
            ensure!(hop(1, vip), "{told}");
            // A router behind us is itself; the target is the VIP.
            ensure!(hop(2, router) && hop(3, vip), "{told}");
            ensure!(told.contains("reached"), "{told}");
            ensure!(told.contains(&format!("pmtu {NARROW_BYTES}")), "{told}");
        }
        Ok(())
    })
}

/// What `iperf3` moved between a client that asks `vip` and a server that is bound to `at`, in bytes.
///
/// Each test has a server of its own: one that serves several does not listen between two of them.
fn iperf3(lab: &Lab, vip: &str, at: &str, options: &str) -> Result<u64> {
    let (client, target) = (lab.client(), &lab.target(0).host);
    let _server = Server::start(target, &format!("iperf3 -s -1 -B {at} -p {IPERF_PORT}"))?;
    let listening = format!("ss -ltnH sport = :{IPERF_PORT}");
    wait_until("the server listens", SOON, || {
        target
            .run(&listening)
            .is_ok_and(|told| !told.trim().is_empty())
    })?;
    let line = format!("iperf3 -J -c {vip} {options}");
    let output = client.output(&line)?;
    let told: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{line}: {}", String::from_utf8_lossy(&output.stdout)))?;
    ensure!(told["error"].is_null(), "{line}: {}", told["error"]);
    let end = &told["end"];
    let sum = if end["sum_received"].is_null() {
        &end["sum"]
    } else {
        &end["sum_received"]
    };
    sum["bytes"]
        .as_u64()
        .with_context(|| format!("{line}: {told}"))
}

fn iperf3_moves(tools: &Tools) -> Result<()> {
    with_nlb(&format!("iperf_{}", tools.mode), |lab, daemon| {
        let text = tools.configuration("TCP_UDP", [IPERF_PORT].into_iter(), IPERF_PORT);
        let target = &lab.target(0).host;
        Tools::load(lab, daemon, &text)?;
        for (vip, at) in tools.vips.into_iter().zip(&tools.targets) {
            // Bound, because its datagrams would not leave from the address that was asked.
            let at = if tools.mode == "dsr-l2" {
                target.ip(&format!("addr add {vip} dev lo\n"))?;
                vip
            } else {
                at
            };
            for options in ["-n 20M", "-n 20M -R", "-n 20M -P 4"] {
                let bytes = iperf3(lab, vip, at, options)
                    .with_context(|| format!("{} {vip} {options}", tools.mode))?;
                // What had arrived by the time that the last of it was written.
                ensure!(bytes > 1 << 20, "{vip} {options}: {bytes} bytes");
            }
            // Datagrams of 4,000 bytes are three fragments each. Some may be lost, not all.
            let bytes = iperf3(lab, vip, at, "-u -b 20M -l 4000 -t 1")?;
            ensure!(bytes > 1 << 20, "{vip}: {bytes} bytes of datagrams");
        }
        Ok(())
    })
}

#[test]
fn iperf3_moves_streams_and_datagrams_through_nat() -> Result<()> {
    iperf3_moves(&Tools::at_the_first_target(
        "nat",
        ["192.0.2.30", "2001:db8::30"],
    ))
}

#[test]
fn iperf3_moves_streams_and_datagrams_through_dsr() -> Result<()> {
    iperf3_moves(&Tools::at_the_first_target(
        "dsr-l2",
        ["192.0.2.30", "2001:db8::30"],
    ))
}

#[test]
fn nc_gets_its_datagrams_answered() -> Result<()> {
    with_nlb("nc", |lab, _| {
        for vip in udp_vips() {
            let told = ask_with_nc(lab.client(), vip, "hello")?;
            ensure!(
                told.starts_with("target") && told.ends_with("hello"),
                "{vip}: {told}"
            );
            // A datagram in three fragments, both ways.
            let long = "x".repeat(4000);
            let told = ask_with_nc(lab.client(), vip, &long)?;
            ensure!(told.ends_with(&long), "{vip}: {} bytes", told.len());
        }
        Ok(())
    })
}

/// What `nc -u` prints; a datagram may be lost while a neighbour is being resolved.
fn ask_with_nc(client: &Host, vip: SocketAddr, what: &str) -> Result<String> {
    for _ in 0..3 {
        let mut nc = client.command("nc");
        nc.args(["-u", "-w", "1"])
            .arg(vip.ip().to_string())
            .arg(vip.port().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = nc.spawn().context("starting nc")?;
        let mut stdin = child.stdin.take().context("nc's input")?;
        stdin.write_all(what.as_bytes())?;
        drop(stdin);
        let output = child.wait_with_output()?;
        if !output.stdout.is_empty() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
    }
    anyhow::bail!("{vip}: nc got no answer")
}
