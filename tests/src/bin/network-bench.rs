//! `network-bench [--rounds N]`: how long until a change of the network is in the kernel's maps, in
//! milliseconds.
//!
//! In the lab of the tests. A line is given to an `ip` that waits for it, on the gateway; from then on
//! the maps are read without a pause until they say something else: next hops where a neighbour or a
//! link changes, the generation where a route or an address does. Needs root.
//!
//! `cargo build --release -p nlb-userspace && cargo run --release -p nlb-tests --bin network-bench`

use std::{
    env,
    io::Write as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Array, Map, MapData};
use nlb_common::next_hop::NextHopSlot;
use nlb_tests::lab::{
    Lab,
    daemon::Daemon,
    wait::{pause, wait_until},
};

const EXAMPLE: &str = include_str!("../../../docs/examples/demo.toml");
const PATIENCE: Duration = Duration::from_secs(20);
/// As many next hops as the lab has, and more.
const NEXT_HOPS: u32 = 32;
const SLOT_WORDS: usize = size_of::<NextHopSlot>() / 8;

/// Where a change shows.
#[derive(Clone, Copy)]
enum Shows {
    NextHops,
    Generation,
}

/// What is done, the line of `ip`, and where it shows; each undoes the one before, or is undone by the
/// next.
const EVENTS: [(&str, &str, Shows); 10] = [
    (
        "neighbour has another MAC address",
        "neigh replace 10.2.0.11 dev eth1 lladdr 02:00:00:00:00:99 nud permanent",
        Shows::NextHops,
    ),
    (
        "neighbour is lost",
        "neigh del 10.2.0.11 dev eth1",
        Shows::NextHops,
    ),
    (
        "route leads nowhere",
        "route add unreachable 10.2.0.12/32",
        Shows::Generation,
    ),
    (
        "route leads there again",
        "route del unreachable 10.2.0.12/32",
        Shows::Generation,
    ),
    (
        "address is removed",
        "addr del 10.2.0.1/24 dev eth1",
        Shows::Generation,
    ),
    (
        "address is added",
        "addr add 10.2.0.1/24 dev eth1",
        Shows::Generation,
    ),
    ("MTU is smaller", "link set eth1 mtu 1400", Shows::NextHops),
    ("MTU is larger", "link set eth1 mtu 1500", Shows::NextHops),
    ("link is down", "link set eth1 down", Shows::NextHops),
    ("link is up", "link set eth1 up", Shows::Generation),
];

/// The daemon's maps.
struct Maps {
    header: Array<MapData, [u64; 8]>,
    next_hops: Array<MapData, [u64; SLOT_WORDS]>,
}

impl Maps {
    fn open(pins: &Path) -> Result<Self> {
        let open = |name: &str| -> Result<Map> {
            Ok(Map::Array(
                MapData::from_pin(pins.join(name)).context(name.to_owned())?,
            ))
        };
        Ok(Self {
            header: open("HEADER")?.try_into()?,
            next_hops: open("NEXT_HOPS")?.try_into()?,
        })
    }

    fn read(&self, what: Shows) -> Result<Vec<u64>> {
        match what {
            Shows::Generation => Ok(vec![self.header.get(&0, 0)?[1]]),
            Shows::NextHops => {
                let mut words = Vec::new();
                for id in 0..NEXT_HOPS {
                    words.extend(self.next_hops.get(&id, 0)?);
                }
                Ok(words)
            }
        }
    }
}

/// An `ip` that waits for a line.
fn waiting_ip(lab: &Lab) -> Result<Child> {
    let child = Command::new("ip")
        .args(["-n", lab.gateway().namespace(), "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("running ip")?;
    pause(Duration::from_millis(200))?;
    Ok(child)
}

fn all_well(daemon: &Daemon) -> Result<()> {
    wait_until("all targets are healthy and reached", PATIENCE, || {
        daemon.status().is_ok_and(|status| {
            let groups = status["target_groups"].as_array().into_iter().flatten();
            let mut targets =
                groups.flat_map(|group| group["targets"].as_array().into_iter().flatten());
            targets.all(|target| {
                target["state"] == "healthy" && target["next_hop"]["state"] == "resolved"
            })
        })
    })?;
    // What the network does by itself after a change is over.
    pause(Duration::from_millis(500))
}

fn main() -> Result<()> {
    let rounds: usize = match env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => 10,
        [name, number] if name == "--rounds" => number.parse()?,
        _ => bail!("`network-bench` takes `--rounds N` only"),
    };
    ensure!(
        rustix::process::geteuid().is_root(),
        "network namespaces need root"
    );
    let lab = Lab::new("network")?;
    lab.write_config(EXAMPLE)?;
    let daemon = lab.start_nlb()?;
    let maps = Maps::open(&lab.bpffs().join("nlb"))?;
    let mut found = vec![Vec::new(); EVENTS.len()];
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        all_well(&daemon)?;
        for ((name, line, shows), values) in EVENTS.iter().zip(&mut found) {
            let mut ip = waiting_ip(&lab)?;
            let before = maps.read(*shows)?;
            let mut lines = ip.stdin.take().context("ip's standard input")?;
            let start = Instant::now();
            writeln!(lines, "{line}")?;
            while maps.read(*shows)? == before {
                ensure!(start.elapsed() < PATIENCE, "{name}: never seen");
            }
            values.push(start.elapsed().as_secs_f64() * 1_000.0);
            drop(lines);
            ensure!(ip.wait()?.success(), "{line}");
            if line.ends_with("eth1 up") {
                lab.gateway()
                    .ip("addr replace fd00:2::1/64 dev eth1 nodad\n")?;
            }
            pause(Duration::from_millis(500))?;
        }
    }
    println!("| Change | median | least | most |\n|---|---:|---:|---:|");
    for ((name, ..), values) in EVENTS.iter().zip(&mut found) {
        values.sort_by(f64::total_cmp);
        let (least, most) = (values[0], values[values.len() - 1]);
        println!(
            "| {name} | {:.1} ms | {least:.1} ms | {most:.1} ms |",
            values[values.len() / 2]
        );
    }
    Ok(())
}
