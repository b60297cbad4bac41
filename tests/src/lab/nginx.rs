//! The targets' web server: nginx, as Debian has it.
//!
//! Every answer has the target's name in a header, `X-Target`, and small ones are nothing else but
//! that name. `/large` is a file of 20 MiB, `/slow` the same at 2 MiB/s; `/health` is not logged.

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use super::{addresses, host::Host, wait::wait_until};

/// Size of `/large` and `/slow`.
pub const LARGE_BYTES: usize = 20 << 20;

/// Writes the file behind `/large` and `/slow`.
pub(super) fn write_large_file(file: &Path) -> Result<()> {
    let block: Vec<u8> = (0..LARGE_BYTES >> 10)
        .flat_map(|number| u32::try_from(number).unwrap_or_default().to_be_bytes())
        .collect();
    let content = block.repeat(LARGE_BYTES / block.len());
    fs::write(file, content).with_context(|| format!("writing {}", file.display()))
}

/// One line of the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Who asked, as the target sees it.
    pub client: SocketAddr,
    /// Where the target was asked.
    pub server: SocketAddr,
    /// HTTP's status.
    pub status: u16,
    /// Path and query.
    pub uri: String,
}

/// A running server: a master and its worker, in a process group of their own.
#[derive(Debug)]
pub(super) struct Nginx {
    master: Child,
}

impl Nginx {
    pub(super) fn start(host: &Host, directory: &Path, large_file: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let file = directory.join("nginx.conf");
        fs::write(&file, configuration(host.name(), directory, large_file))?;
        let log = fs::File::create(directory.join("stderr.log"))?;
        let master = host
            .command("nginx")
            .arg("-p")
            .arg(directory)
            .arg("-e")
            .arg(directory.join("error.log"))
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("starting nginx (Debian's package nginx)")?;
        let nginx = Self { master };
        let serves = |port| {
            let at = SocketAddr::from(([127, 0, 0, 1], port));
            host.enter(|| TcpStream::connect_timeout(&at, Duration::from_secs(1)).is_ok())
                .unwrap_or(false)
        };
        wait_until(
            &format!("nginx serves on {}", host.name()),
            Duration::from_secs(10),
            || serves(addresses::HTTP_PORT) && serves(addresses::NAT_HTTP_PORT),
        )
        .with_context(|| format!("its messages are in {}", directory.display()))?;
        Ok(nginx)
    }

    /// Kills master and worker at once. The kernel ends their connections.
    pub(super) fn kill(mut self) -> Result<()> {
        self.kill_group()
    }

    fn kill_group(&mut self) -> Result<()> {
        let pid = i32::try_from(self.master.id()).ok().and_then(Pid::from_raw);
        kill_process_group(pid.context("nginx has no pid")?, Signal::KILL)
            .context("killing nginx")?;
        self.master.wait()?;
        Ok(())
    }

    /// Lets it run on without this process.
    pub(super) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if matches!(self.master.try_wait(), Ok(None)) {
            // The lab's end kills what is left.
            self.kill_group().ok();
        }
    }
}

fn configuration(name: &str, directory: &Path, large_file: &Path) -> String {
    let (directory, large_file) = (directory.display(), large_file.display());
    let (http, nat_http) = (addresses::HTTP_PORT, addresses::NAT_HTTP_PORT);
    format!(
        "daemon off;
user root;
pid {directory}/nginx.pid;
worker_processes 1;
events {{ worker_connections 4096; }}
http {{
  log_format lab '$remote_addr $remote_port $server_addr $server_port $status $request_uri';
  access_log {directory}/access.log lab;
  client_body_temp_path {directory}/tmp-body;
  proxy_temp_path {directory}/tmp-proxy;
  fastcgi_temp_path {directory}/tmp-fastcgi;
  uwsgi_temp_path {directory}/tmp-uwsgi;
  scgi_temp_path {directory}/tmp-scgi;
  default_type text/plain;
  keepalive_requests 1000000;
  keepalive_timeout 300s;
  server_tokens off;
  server {{
    listen {http};
    listen [::]:{http};
    listen {nat_http};
    listen [::]:{nat_http};
    add_header X-Target {name};
    location / {{ return 200 '{name}\\n'; }}
    location = /health {{ access_log off; return 200 '{name}\\n'; }}
    location = /large {{ alias {large_file}; }}
    location = /slow {{ alias {large_file}; limit_rate 2m; }}
  }}
}}
"
    )
}

pub(super) fn access_log(directory: &Path) -> Result<Vec<Access>> {
    let file = directory.join("access.log");
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    text.lines()
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            ensure!(words.len() == 6, "not a line of the lab's log: {line}");
            let socket = |address: &str, port: &str| -> Result<SocketAddr> {
                Ok((address.parse::<IpAddr>()?, port.parse()?).into())
            };
            Ok(Access {
                client: socket(words[0], words[1])?,
                server: socket(words[2], words[3])?,
                status: words[4].parse()?,
                uri: words[5].to_owned(),
            })
        })
        .collect()
}

/// Whether the programs that the lab needs are there; those that are not.
pub fn missing_programs() -> Vec<&'static str> {
    ["nginx", "curl", "ip", "nsenter", "ethtool", "ping", "mount"]
        .into_iter()
        .filter(|program| {
            let found = Command::new("sh")
                .args(["-c", &format!("command -v {program}")])
                .stdout(Stdio::null())
                .status();
            !found.is_ok_and(|status| status.success())
        })
        .collect()
}
