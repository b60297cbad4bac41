//! First act: new flows spread over the targets, which see the client's own address; direct answers
//! do not pass the gateway.

use std::{
    collections::HashSet,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nlb_tests::lab::{
    Lab,
    addresses::{TARGETS, client_for},
    daemon::Daemon,
    interrupt,
    udp::UdpClient,
    wait::wait_until,
};

use crate::{
    report::{Report, Spread},
    service::{self, Service},
};

/// New flows per VIP and protocol.
const FLOWS: usize = 60;

pub(crate) fn run(
    lab: &Lab,
    daemon: &Daemon,
    services: &[Service],
    report: &mut Report,
) -> Result<()> {
    for service in services {
        let requests = curl(lab, service.http())?;
        let seen = seen_by_targets(lab, client_for(service.http().ip()), &requests);
        report.preserved.tcp += seen;
        report
            .spread
            .push(tally(lab, format!("{} TCP", service.name), &requests));
        interrupt::check()?;
        let datagrams = datagrams(lab, service.udp());
        report.preserved.udp += datagrams
            .iter()
            .flatten()
            .filter(|flow| flow.preserved)
            .count();
        report
            .spread
            .push(tally(lab, format!("{} UDP", service.name), &datagrams));
        interrupt::check()?;
    }
    let expected = FLOWS * services.len();
    report.preserved.of = expected;
    for spread in report.spread.clone() {
        report.check(spread.failed == 0, || {
            format!(
                "{}: {} of {FLOWS} flows without an answer",
                spread.name, spread.failed
            )
        });
        report.check(spread.per_target.iter().all(|count| *count > 0), || {
            format!("{}: a target got none of {FLOWS} flows", spread.name)
        });
    }
    let preserved = report.preserved.clone();
    report.check(preserved.tcp == expected && preserved.udp == expected, || {
        format!(
            "targets saw the client's own address and port in {} of {expected} requests and {} of \
             {expected} datagrams",
            preserved.tcp, preserved.udp
        )
    });
    gateway_saw(&daemon.status()?, report);
    Ok(())
}

/// Answers pass the gateway behind `nat`, and do not behind `dsr-l2`.
pub(crate) fn gateway_saw(status: &serde_json::Value, report: &mut Report) {
    let sum = |load_balancer, counter| service::listeners_sum(status, load_balancer, counter);
    report.nat_return_packets = sum("nat", "return_packets");
    report.dsr_return_packets = sum("dsr", "return_packets");
    report.dsr_packets = sum("dsr", "packets");
    let (nat, direct, forward) = (
        report.nat_return_packets,
        report.dsr_return_packets,
        report.dsr_packets,
    );
    report.check(nat > 0, || "no answer behind nat was counted".into());
    report.check(forward > 0, || "no packet to dsr was counted".into());
    report.check(direct == 0, || {
        format!("{direct} answers behind dsr came through the gateway")
    });
}

/// A flow that was answered.
#[derive(Debug)]
struct Flow {
    target: String,
    port: u16,
    /// The server said that it saw the client's address and port. A web server does not say.
    preserved: bool,
}

fn tally(lab: &Lab, name: String, flows: &[Option<Flow>]) -> Spread {
    let of = |target: &str| {
        let answered = flows.iter().flatten();
        answered.filter(|flow| flow.target == target).count()
    };
    let per_target: Vec<usize> = lab
        .targets()
        .iter()
        .map(|target| of(target.name()))
        .collect();
    Spread {
        name,
        failed: flows.len() - per_target.iter().sum::<usize>(),
        per_target,
    }
}

/// Requests with curl, each on a connection of its own.
fn curl(lab: &Lab, to: SocketAddr) -> Result<Vec<Option<Flow>>> {
    let mut child = lab
        .client()
        .command("curl")
        .args(["--silent", "--globoff", "--no-keepalive", "--max-time", "5"])
        .args(["--header", "Connection: close", "--config", "-"])
        .args(["--write-out", "%{local_port} %{http_code}\\n"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("starting curl")?;
    let mut stdin = child.stdin.take().context("curl's standard input")?;
    for number in 0..FLOWS {
        writeln!(stdin, "url = \"http://{to}/spread/{number}\"")?;
    }
    drop(stdin);
    // How many failed is seen from the answers.
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    // `target1` and then `40000 200`, or after a failure only `0 000`.
    let mut flows = Vec::new();
    let mut target = "";
    for line in text.lines() {
        match line.split_once(' ') {
            None => target = line,
            Some((port, "200")) => flows.push(Some(Flow {
                target: target.to_owned(),
                port: port.parse()?,
                preserved: false,
            })),
            Some(_) => flows.push(None),
        }
    }
    flows.resize_with(FLOWS, || None);
    Ok(flows)
}

/// How many of the requests stand in their target's log with the client's address and port.
fn seen_by_targets(lab: &Lab, client: IpAddr, requests: &[Option<Flow>]) -> usize {
    let mut seen = 0;
    // A server writes its log a little after its answer. That it never does is a finding.
    let all = wait_until("requests are logged", Duration::from_secs(2), || {
        seen = (0..TARGETS)
            .map(|index| {
                let target = lab.target(index);
                let logged: HashSet<SocketAddr> = target
                    .access_log()
                    .unwrap_or_default()
                    .into_iter()
                    .map(|access| access.client)
                    .collect();
                let of_target = requests
                    .iter()
                    .flatten()
                    .filter(|flow| flow.target == target.name());
                of_target
                    .filter(|flow| logged.contains(&SocketAddr::new(client, flow.port)))
                    .count()
            })
            .sum();
        seen == requests.len()
    });
    drop(all);
    seen
}

fn datagrams(lab: &Lab, to: SocketAddr) -> Vec<Option<Flow>> {
    (0..FLOWS)
        .map(|_| {
            let mut client = UdpClient::new(lab.client(), to, Duration::from_secs(2)).ok()?;
            let answer = client.ask().ok()?;
            let local = client.local().ok()?;
            Some(Flow {
                target: answer.target,
                port: local.port(),
                preserved: answer.client == local,
            })
        })
        .collect()
}
