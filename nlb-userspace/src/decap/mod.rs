//! `nlb decap`: the targets' end of the tunnelled modes.
//!
//! Runs on a target, needs no daemon and no configuration file: what it must know is on the command
//! line, or, where it is the host's own addresses, asked from the kernel and followed.
//!
//! * [`options`]: what is typed, and what is wrong about it.
//! * [`addresses`]: the host's own addresses.
//! * [`report`]: the counters as text.

pub mod addresses;
pub mod error;
pub mod options;
pub mod prefix;
pub mod report;

use std::{collections::BTreeSet, io::Write as _, net::IpAddr, time::Duration};

use nlb_common::decap::DecapSettings;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice::name_to_index, socket_with};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval_at},
};
use zerocopy::big_endian::U16;

use self::{addresses::Addresses, report::report};
pub use self::{error::DecapError, options::Options};
use crate::dataplane::decap::DecapProgram;

/// Decapsulates until SIGINT or SIGTERM.
pub async fn run(options: &Options) -> Result<(), DecapError> {
    options.check()?;
    let mut terminate = signal(SignalKind::terminate()).map_err(DecapError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DecapError::Signals)?;
    let mut tell = signal(SignalKind::user_defined1()).map_err(DecapError::Signals)?;
    let indexes = indexes(&options.interface)?;
    let mut addresses = Addresses::follow()?;
    let vips = options.vips();
    let present = addresses.of_all().await?;
    for vip in vips.iter().filter(|vip| !present.contains(vip)) {
        tracing::warn!(%vip, "no interface of this host has the VIP: what comes out will not be answered; `ip addr add {vip} dev lo` adds it");
    }
    if options.from.is_empty() {
        tracing::warn!(
            "without --from, whoever reaches this host can send packets in any client's name"
        );
    }
    let settings = DecapSettings {
        gue_port: U16::new(options.gue_port.unwrap_or(0)),
        geneve_port: U16::new(options.geneve_port.unwrap_or(0)),
        takes_ipip: options.ipip.into(),
        restricts_sources: (!options.from.is_empty()).into(),
    };
    let mut program = DecapProgram::load(settings, &vips, &options.sources())?;
    let mut own = own(options, &addresses, &indexes).await?;
    if own.is_empty() {
        tracing::warn!(
            "the interfaces have no addresses yet: nothing is decapsulated until they do"
        );
    }
    program.set_own(&own)?;
    for (name, index) in options.interface.iter().zip(&indexes) {
        let attached = program.attach(name, *index, options.xdp_mode.into())?;
        tracing::info!(interface = %name, mode = attached.name(), "attached");
    }
    tracing::info!(addresses = ?own, vips = ?vips, "decapsulating");

    let every = options
        .stats_interval
        .map_or(Duration::MAX, |seconds| Duration::from_secs(seconds.into()));
    let first = Instant::now().checked_add(every);
    let mut ticks = interval_at(first.unwrap_or_else(Instant::now), every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = tell.recv() => print(&report(&program.counts()?)),
            _ = ticks.tick(), if first.is_some() => print(&report(&program.counts()?)),
            () = addresses.changed(), if options.address.is_empty() => {
                let now = self::own(options, &addresses, &indexes).await?;
                if now != own {
                    program.set_own(&now)?;
                    tracing::info!(addresses = ?now, "the interfaces' addresses changed");
                    own = now;
                }
            }
        }
    }
    print(&report(&program.counts()?));
    drop(program);
    tracing::info!("detached");
    Ok(())
}

/// The addresses that tunnels may end at.
async fn own(
    options: &Options,
    addresses: &Addresses,
    indexes: &[u32],
) -> Result<BTreeSet<IpAddr>, DecapError> {
    if !options.address.is_empty() {
        return Ok(options.addresses());
    }
    let mut own = addresses.of(indexes).await?;
    // A VIP on the interface itself is still no tunnel's end.
    for vip in options.vips() {
        own.remove(&vip);
    }
    Ok(own)
}

fn indexes(interfaces: &[String]) -> Result<Vec<u32>, DecapError> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|error| DecapError::Interfaces(error.into()))?;
    interfaces
        .iter()
        .map(|name| name_to_index(&socket, name).map_err(|_| DecapError::NoInterface(name.clone())))
        .collect()
}

/// Writes to standard output; a reader that has gone away is no error.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _gone = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
