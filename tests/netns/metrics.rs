//! Metrics as monitoring reads them: scraped by Debian's Prometheus, and asked for over its API.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    process::{Child, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nlb_tests::lab::{Lab, wait::wait_until};
use nlb_userspace::metrics::catalogue::{ALL, Kind, Metric};
use serde_json::Value;

use super::{MANY, SOON, ask_http, configuration, http_vips, listeners, text, with_configuration};

const ENDPOINT: &str = "127.0.0.1:9118";
const API: &str = "http://127.0.0.1:9090/api/v1";

/// The example with an endpoint.
fn with_metrics(endpoint: &str) -> String {
    let node = format!("[node]\nmetrics = \"{endpoint}\"\n");
    configuration().replacen("[node]\n", &node, 1)
}

/// A Prometheus on the gateway; it ends with the test.
struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Prometheus {
    fn start(lab: &Lab) -> Result<Self> {
        let home = lab.directory().join("prometheus");
        fs::create_dir(&home)?;
        let file = home.join("prometheus.yml");
        let targets = format!("- targets: [\"{ENDPOINT}\"]");
        fs::write(
            &file,
            format!(
                "global:\n  scrape_interval: 1s\nscrape_configs:\n- job_name: nlb\n  \
                 static_configs:\n  {targets}\n"
            ),
        )?;
        let log = File::create(home.join("log"))?;
        let child = lab
            .gateway()
            .command("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                home.join("data").display()
            ))
            .arg("--web.listen-address=127.0.0.1:9090")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("starting prometheus (Debian's package of that name)")?;
        Ok(Self(child))
    }
}

/// What Prometheus answers.
fn api(lab: &Lab, path: &str, query: &str) -> Result<Value> {
    let output = lab
        .gateway()
        .command("curl")
        .args(["-sS", "-G", "--data-urlencode"])
        .arg(format!("query={query}"))
        .arg(format!("{API}/{path}"))
        .output()?;
    let answer: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    ensure!(answer["status"] == "success", "{query}: {answer}");
    Ok(answer["data"].clone())
}

/// The newest sample of the only series that the query finds.
fn sample(lab: &Lab, query: &str) -> Result<f64> {
    let data = api(lab, "query", query)?;
    let series = data["result"].as_array().context("a list of series")?;
    ensure!(series.len() == 1, "{query}: {data}");
    Ok(text(&series[0]["value"][1]).parse()?)
}

/// Waits until the query's sample is right.
fn wait_for_sample(lab: &Lab, query: &str, is_right: impl Fn(f64) -> bool) -> Result<()> {
    let mut last = None;
    wait_until(query, SOON, || {
        let found = sample(lab, query);
        let is_it = found.as_ref().is_ok_and(|value| is_right(*value));
        last = Some(found);
        is_it
    })
    .with_context(|| format!("{last:?}"))?;
    Ok(())
}

/// What the series of a metric are called.
fn series(metric: &Metric) -> Vec<String> {
    let ends: &[&str] = match metric.kind {
        Kind::Counter => &["_total"],
        Kind::Gauge => &[""],
        Kind::Histogram => &["_bucket", "_count", "_sum"],
        Kind::Info => &["_info"],
    };
    ends.iter()
        .map(|end| format!("{}{end}", metric.name))
        .collect()
}

#[expect(clippy::float_cmp, reason = "what is compared are counts")]
#[test]
fn prometheus_scrapes_every_metric_and_sees_flows_failures_and_changes() -> Result<()> {
    with_configuration("metrics", &with_metrics(ENDPOINT), |lab, daemon| {
        let _prometheus = Prometheus::start(lab)?;
        wait_for_sample(lab, "up{job=\"nlb\"}", |up| up == 1.0)?;

        let names = api(lab, "label/__name__/values", "")?;
        let known: BTreeSet<String> = names.as_array().into_iter().flatten().map(text).collect();
        for name in ALL.iter().flat_map(series) {
            ensure!(known.contains(&name), "{name} is not in {known:?}");
        }

        // Flows, as the status has them.
        let [vip, ..] = http_vips();
        for _ in 0..MANY {
            ask_http(lab, vip)?;
        }
        let status = daemon.status()?;
        let (balancer, listener) = listeners(&status)
            .find(|(_, listener)| listener["new_flows"].as_u64() == Some(MANY as u64))
            .context("the listener that was asked")?;
        let name = text(&listener["name"]);
        let labels = format!("load_balancer=\"{balancer}\", listener=\"{name}\"");
        let query = format!("nlb_listener_new_flows_total{{{labels}}}");
        wait_for_sample(lab, &query, |flows| flows == 100.0)?;
        let way = format!("{labels}, direction=\"to_client\"");
        for (metric, key) in [
            ("nlb_listener_packets_total", "return_packets"),
            ("nlb_listener_bytes_total", "return_bytes"),
        ] {
            let query = format!("{metric}{{{way}}}");
            let least = listener[key].as_f64().context("a counter")?;
            wait_for_sample(lab, &query, |counted| counted >= least && counted > 0.0)?;
        }

        // A target that fails, and what its group is then.
        lab.kill_nginx(0)?;
        let group = "{target_group=\"nat-web-v4\"}";
        for (metric, value) in [("unhealthy", 1.0), ("healthy", 2.0)] {
            let query = format!("nlb_target_group_{metric}_targets{group}");
            wait_for_sample(lab, &query, |targets| targets == value)?;
        }
        let query = format!("nlb_target_group_probe_failures_total{group}");
        wait_for_sample(lab, &query, |failures| failures >= 2.0)?;
        let query = format!(
            "histogram_quantile(0.5, nlb_target_group_probe_latency_seconds_bucket{group})"
        );
        wait_for_sample(lab, &query, |median| median > 0.0 && median < 0.5)?;

        // Changes: one that is made, one that is refused.
        ensure!(
            daemon
                .nlb(&["target", "drain", "nat-web-v4", "10.2.0.12"])?
                .status
                .success()
        );
        lab.write_config("nonsense")?;
        ensure!(!daemon.reload()?.status.success());
        for result in ["done", "refused"] {
            let query = format!("nlb_configuration_changes_total{{result=\"{result}\"}}");
            wait_for_sample(lab, &query, |changes| changes == 1.0)?;
        }
        let target = "{target_group=\"nat-web-v4\", target=\"10.2.0.12:8080\"}";
        let query = format!("nlb_target_effective_weight{target}");
        wait_for_sample(lab, &query, |weight| weight == 0.0)?;
        let generation = daemon.status()?["generation"]
            .as_f64()
            .context("a number")?;
        wait_for_sample(lab, "nlb_generation", |live| live >= generation)
    })
}

#[test]
fn metrics_on_a_socket_are_anybodys_to_read_and_go_with_the_daemon() -> Result<()> {
    let text = with_metrics("/run/nlb-demo/metrics.sock");
    with_configuration("metrics_unix", &text, |lab, daemon| {
        let socket = lab.directory().join("metrics.sock");
        let read = || -> Result<String> {
            let output = std::process::Command::new("setpriv")
                .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
                .args(["curl", "-sS", "--unix-socket"])
                .arg(&socket)
                .arg("http://nlb/metrics")
                .output()?;
            Ok(String::from_utf8(output.stdout)?)
        };
        let answer = read()?;
        ensure!(answer.ends_with("# EOF\n"), "{answer}");
        // Another daemon takes over from one that had no time to clean up.
        daemon.kill_9()?;
        ensure!(socket.exists());
        *daemon = lab.start_nlb()?;
        let answer = read()?;
        ensure!(answer.contains("nlb_data_plane_adopted 1.0\n"), "{answer}");
        daemon.terminate()?;
        ensure!(!socket.exists(), "it is left behind");
        Ok(())
    })
}
