//! A small network on one machine: for the tests that need real hosts, and for the demo.
//!
//! ```text
//!   client ── eth0 ───── eth0 ─ gateway ─ eth1 ── switch ─┬─ eth0 ── target1
//!   10.1.0.10      10.1.0.1      10.2.0.1   (a bridge)    ├─ eth0 ── target2   10.2.0.11 …
//!     │                                                   ├─ eth0 ── target3
//!     └───────────── eth1 (10.2.0.100) ───────────────────┘
//! ```
//!
//! Each box is a network namespace. `nlb` runs on the gateway. Targets answer `nat` through the
//! gateway, their default route; answers of `dsr-l2` leave from the VIP, which a policy rule sends
//! straight to the client's `eth1`, so that they never pass the gateway. Nothing but those answers
//! uses the client's `eth1`.
//!
//! Only the network namespace is entered, never `ip netns exec`, whose fresh `/sys` would hide the
//! lab's bpffs. Everything carries the lab's name, so what a crashed run left can be removed by it.

pub mod addresses;
mod beyond;
pub mod bpf;
pub mod cgroup;
pub mod daemon;
pub mod host;
pub mod http;
pub mod interrupt;
mod leftovers;
pub mod nginx;
mod topology;
pub mod udp;
pub mod wait;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result};

use self::{
    addresses::TARGETS, bpf::Bpffs, daemon::Daemon, host::Host, nginx::Nginx, udp::UdpEcho,
};

/// The network, with its servers. Dropping it removes everything.
#[derive(Debug)]
pub struct Lab {
    name: String,
    directory: PathBuf,
    client: Host,
    gateway: Host,
    switch: Host,
    targets: Vec<Target>,
    kept: bool,
}

/// A host with servers on it.
#[derive(Debug)]
pub struct Target {
    /// The host.
    pub host: Host,
    /// Its web server; `None` after [`Target::kill_nginx`].
    nginx: Option<Nginx>,
    /// Its datagram server.
    udp: Option<UdpEcho>,
    directory: PathBuf,
}

impl Lab {
    /// A lab of one's own, named for a test. What test processes that are gone left is removed.
    pub fn new(tag: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        leftovers::remove_of_the_dead()?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self::named(&format!("nlb-{tag}{number}-{}", std::process::id()))
    }

    /// The lab of that name, built afresh: one that is left from an earlier run is removed.
    pub fn named(name: &str) -> Result<Self> {
        Self::remove(name)?;
        let directory = directory_of(name);
        let host = |role: &str| Host::new(role, &format!("{name}-{role}"));
        let mut lab = Self {
            name: name.to_owned(),
            client: host("client"),
            gateway: host("gateway"),
            switch: host("switch"),
            targets: (1..=TARGETS)
                .map(|number| {
                    let host = host(&format!("target{number}"));
                    let directory = directory.join(host.name());
                    Target {
                        host,
                        nginx: None,
                        udp: None,
                        directory,
                    }
                })
                .collect(),
            directory,
            kept: false,
        };
        // From here on the half-built lab is removed by its `Drop`.
        lab.build()
            .with_context(|| format!("building the lab {name}"))?;
        Ok(lab)
    }

    fn build(&mut self) -> Result<()> {
        fs::create_dir_all(&self.directory)?;
        Bpffs::mount(&self.bpffs())?;
        topology::build(self)?;
        nginx::write_large_file(&self.large_file())?;
        for target in 0..TARGETS {
            self.start_nginx(target)?;
            self.start_udp(target)?;
        }
        Ok(())
    }

    /// Removes the lab of that name; `false` if there was none.
    pub fn remove(name: &str) -> Result<bool> {
        leftovers::remove(name)
    }

    /// The lab's name, with which all its namespaces begin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the lab keeps its files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The bpffs for the daemon's pins.
    pub fn bpffs(&self) -> PathBuf {
        self.directory.join("bpf")
    }

    /// The daemon's control socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("nlb.sock")
    }

    /// The file behind `/large` and `/slow`, the same on all targets.
    pub fn large_file(&self) -> PathBuf {
        self.directory.join("large")
    }

    /// Where the clients are.
    pub const fn client(&self) -> &Host {
        &self.client
    }

    /// Where `nlb` runs.
    pub const fn gateway(&self) -> &Host {
        &self.gateway
    }

    /// The bridge in front of the targets.
    pub const fn switch(&self) -> &Host {
        &self.switch
    }

    /// Target number `index`, from 0; its name and addresses count from 1.
    pub fn target(&self, index: usize) -> &Target {
        &self.targets[index]
    }

    /// All targets.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Starts a target's web server, and waits until it serves.
    pub fn start_nginx(&mut self, index: usize) -> Result<()> {
        let large_file = self.large_file();
        let target = &mut self.targets[index];
        target.nginx = Some(Nginx::start(&target.host, &target.directory, &large_file)?);
        Ok(())
    }

    fn start_udp(&mut self, index: usize) -> Result<()> {
        let target = &mut self.targets[index];
        let addresses = addresses::udp_servers(index);
        target.udp = Some(UdpEcho::start(&target.host, &addresses)?);
        Ok(())
    }

    /// Kills a target's web server, all its processes at once.
    pub fn kill_nginx(&mut self, index: usize) -> Result<()> {
        match self.targets[index].nginx.take() {
            Some(nginx) => nginx.kill(),
            None => Ok(()),
        }
    }

    /// Adds a host behind the client: 10.3.0.10 and `fd00:3::10`. The link to it takes packets of
    /// `mtu_bytes` only, which the client tells whoever sends larger ones, and nobody else knows.
    pub fn add_behind_client(&self, mtu_bytes: u16) -> Result<Host> {
        beyond::behind_client(self, mtu_bytes)
    }

    /// Adds such a host behind the first target: 10.4.0.10 and `fd00:4::10`.
    pub fn add_behind_target(&self, mtu_bytes: u16) -> Result<Host> {
        beyond::behind_target(self, mtu_bytes)
    }

    /// Writes the daemon's configuration. In `text`, `/run/nlb-demo` stands for the lab's directory,
    /// as it does in the examples of the documentation.
    pub fn write_config(&self, text: &str) -> Result<PathBuf> {
        let file = self.directory.join("nlb.toml");
        let directory = self.directory.to_string_lossy();
        fs::write(&file, text.replace("/run/nlb-demo", &directory))
            .with_context(|| format!("writing {}", file.display()))?;
        Ok(file)
    }

    /// Starts the daemon on the gateway with what [`Lab::write_config`] wrote, and waits until it is
    /// ready. Dropping the guard ends the daemon; the data plane stays until [`Daemon::detach`].
    pub fn start_nlb(&self) -> Result<Daemon> {
        self.start_nlb_binary(&daemon::binary()?)
    }

    /// [`Lab::start_nlb`] with this program.
    pub fn start_nlb_binary(&self, binary: &Path) -> Result<Daemon> {
        Daemon::start(self, binary, |_| {})
    }

    /// [`Lab::start_nlb`] with another environment, or other limits.
    pub fn start_nlb_with(
        &self,
        prepare: impl FnOnce(&mut std::process::Command),
    ) -> Result<Daemon> {
        Daemon::start(self, &daemon::binary()?, prepare)
    }

    /// Starts a daemon that may well not come up: waits for nothing.
    pub fn spawn_nlb(&self) -> Result<Daemon> {
        self.spawn_nlb_with(|_| {})
    }

    /// [`Lab::spawn_nlb`] with this program.
    pub fn spawn_nlb_binary(&self, binary: &Path) -> Result<Daemon> {
        Daemon::spawn(self, binary, |_| {})
    }

    /// [`Lab::spawn_nlb`] with another environment, or other limits.
    pub fn spawn_nlb_with(
        &self,
        prepare: impl FnOnce(&mut std::process::Command),
    ) -> Result<Daemon> {
        Daemon::spawn(self, &daemon::binary()?, prepare)
    }

    /// Leaves the lab and its web servers running when this process ends. Datagram servers, which
    /// are threads of this process, stop; `replace` starts others on a host with these addresses.
    pub fn keep(
        mut self,
        replace: impl Fn(&Host, &[std::net::SocketAddr]) -> Result<()>,
    ) -> Result<()> {
        for (index, target) in self.targets.iter_mut().enumerate() {
            drop(target.udp.take());
            replace(&target.host, &addresses::udp_servers(index))?;
        }
        for target in &mut self.targets {
            if let Some(nginx) = target.nginx.take() {
                nginx.keep();
            }
        }
        self.kept = true;
        Ok(())
    }
}

impl Target {
    /// The host's name, which its servers answer with.
    pub fn name(&self) -> &str {
        self.host.name()
    }

    /// The lines of the web server's access log.
    pub fn access_log(&self) -> Result<Vec<nginx::Access>> {
        nginx::access_log(&self.directory)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        for target in &mut self.targets {
            drop(target.udp.take());
            drop(target.nginx.take());
        }
        if let Err(error) = Self::remove(&self.name) {
            eprintln!("the lab {} could not be removed: {error:#}", self.name);
        }
    }
}

/// Where a lab of that name keeps its files: in `/run`, where only root writes.
fn directory_of(name: &str) -> PathBuf {
    Path::new("/run").join(name)
}
