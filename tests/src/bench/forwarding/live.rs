//! Live frames: made in the kernel (`BPF_F_TEST_XDP_LIVE_FRAMES`), sent over the client's cable, and
//! counted where they come out behind the gateway. No socket and no clock of a client is in it.

use std::{fs, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nlb_common::bench::Order;

use crate::{
    bench::{
        designs,
        harness::{ClientEnd, Harness, Stream},
    },
    lab::{Lab, addresses::CLIENT_V4, host::Host, wait::wait_until},
    packet::eth,
};

/// Enough for every flow to have begun.
const BEFORE: u32 = 10_000;
/// Where the checksum is of UDP over IPv4.
const CHECKSUM: std::ops::Range<usize> = 40..42;
/// Of a frame's payload: a frame of 106 bytes.
const PAYLOAD: [u8; 64] = [0; 64];

/// Frames per second that come out behind the gateway on their way to a server.
pub fn forwarded(lab: &Lab, to: SocketAddr, frames: u32) -> Result<f64> {
    let packet = eth()
        .to([2, 0, 0, 0, 0, 0x01])
        .from([2, 0, 0, 0, 0, 0x10])
        .ip(CLIENT_V4.into(), to.ip())
        .payload(&PAYLOAD)
        .udp(40_000, to.port());
    let mut frame = packet.build();
    // None: connection tracking would look at it, and it would not hold for all ports.
    frame[CHECKSUM].fill(0);
    let stream = Stream {
        frame,
        is_v6: false,
        client: ClientEnd::SourcePort,
        order: Order::Random,
        flows: u32::MAX,
    };
    // An interface takes frames of another's XDP only if it polls: with a program, or with GRO.
    lab.gateway().run("ethtool -K eth0 gro on")?;
    // The bridge would ask every server to answer.
    let switch = lab.switch();
    switch.run("ip link set gateway nomaster")?;
    let measured = send(lab, &stream, frames);
    switch.run("ip link set gateway master bridge")?;
    lab.gateway().run("ethtool -K eth0 gro off")?;
    measured
}

fn send(lab: &Lab, stream: &Stream, frames: u32) -> Result<f64> {
    let mut harness = Harness::load(designs::NO_TABLES, &[])?;
    let client = lab.client();
    let interface = index(client, "eth0")?;
    let mut send = |count| client.enter(|| harness.send(stream, interface, count))?;
    // Once over, so that flows and neighbours are known.
    send(BEFORE)?;
    let before = received(lab.switch())?;
    let took = send(frames)?;
    let mut after = received(lab.switch())?;
    // What is still queued belongs to it.
    let mut calm = 0;
    wait_until("no more frames come", Duration::from_secs(5), || {
        let now = received(lab.switch()).unwrap_or(after);
        calm = if now == after { calm + 1 } else { 0 };
        after = now;
        calm > 2
    })?;
    let count = u32::try_from(after - before)?;
    ensure!(count > frames / 100, "{count} of {frames} frames came out");
    Ok(f64::from(count) / took.as_secs_f64())
}

/// Frames that the switch got from the gateway.
fn received(switch: &Host) -> Result<u64> {
    // `/sys` is another network namespace's; this is the thread's own.
    let text = switch.enter(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("gateway:"))
        .context("the switch has no interface `gateway`")?;
    let packets = line.split_whitespace().nth(1).context("no count")?;
    Ok(packets.parse()?)
}

fn index(host: &Host, interface: &str) -> Result<u32> {
    let text = host.run(&format!("ip -o link show {interface}"))?;
    let (index, _) = text.split_once(':').context("ip shows no index")?;
    Ok(index.trim().parse()?)
}
