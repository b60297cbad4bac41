//! `nlb decap` on a target, against a load balancer made of sockets: the gateway wraps what clients
//! send to the VIP, the target's own stack answers ping, datagrams and web requests directly.
//!
//! The outer headers are those of the gateway's kernel.

use std::{
    fs,
    io::{self, Read as _},
    net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket},
    num::NonZeroU32,
    os::fd::OwnedFd,
    path::PathBuf,
    process::{Child, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nlb_tests::lab::{
    Lab,
    addresses::{DSR_VIP_V4, DSR_VIP_V6, GATEWAY_V4, HTTP_PORT, UDP_PORT, target_v4, target_v6},
    daemon,
    host::Host,
    http::HttpConnection,
    nginx::LARGE_BYTES,
    wait::wait_until,
};
use rustix::{
    net::{
        AddressFamily, Protocol, SendFlags, SocketFlags, SocketType, sendto, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
    process::{Pid, Signal, kill_process},
};

use super::{PATIENCE, SOON, ask_http, ask_udp};

/// How packets are wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrapping {
    Ipip,
    Gue,
    GueDirect,
    Geneve,
}

const WRAPPINGS: [Wrapping; 4] = [
    Wrapping::Ipip,
    Wrapping::Gue,
    Wrapping::GueDirect,
    Wrapping::Geneve,
];

/// Class, type, length in words, and four bytes of no meaning.
const GENEVE_OPTION: [u8; 8] = [1, 2, 3, 1, 4, 5, 6, 7];

/// What the wrapper does with the next packet: how, and where it sends it.
type Way = (Wrapping, IpAddr);

/// Wraps everything that reaches the gateway for a VIP; ended on drop.
struct Wrapper {
    way: Arc<Mutex<Way>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<io::Result<()>>>>,
}

impl Wrapper {
    fn start(gateway: &Host, way: Way) -> Result<Self> {
        // The gateway itself must not say that it knows no such network.
        gateway.ip(&format!(
            "route add blackhole {DSR_VIP_V4}/32\nroute add blackhole {DSR_VIP_V6}/128\n"
        ))?;
        let way = Arc::new(Mutex::new(way));
        let end = Arc::new(AtomicBool::new(false));
        let thread = gateway.thread({
            let (way, end) = (Arc::clone(&way), Arc::clone(&end));
            move || wrap(&way, &end)
        });
        Ok(Self {
            way,
            end,
            thread: Some(thread),
        })
    }

    fn take(&self, way: Way) {
        *self.way.lock().expect("a wrapper that lives") = way;
    }
}

impl Drop for Wrapper {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            match thread.join() {
                Ok(Ok(Ok(()))) => {}
                other => eprintln!("the wrapper ended with {other:?}"),
            }
        }
    }
}

fn raw(family: AddressFamily, protocol: u32) -> io::Result<OwnedFd> {
    let protocol = NonZeroU32::new(protocol).map(Protocol::from_raw);
    Ok(socket_with(
        family,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        protocol,
    )?)
}

fn wrap(way: &Mutex<Way>, end: &AtomicBool) -> io::Result<()> {
    // `ETH_P_ALL`, in network order as `packet(7)` wants it.
    let frames = raw(AddressFamily::PACKET, u32::from(3u16.to_be()))?;
    set_socket_timeout(&frames, Timeout::Recv, Some(Duration::from_millis(100)))?;
    let mut frames = fs::File::from(frames);
    let sockets = [(4, 4), (4, 41), (6, 4), (6, 41)]
        .into_iter()
        .map(|(outer, inner)| {
            let family = if outer == 4 {
                AddressFamily::INET
            } else {
                AddressFamily::INET6
            };
            Ok(((outer, inner), raw(family, inner)?))
        })
        .collect::<io::Result<std::collections::BTreeMap<_, _>>>()?;
    let udp_v4 = UdpSocket::bind("0.0.0.0:0")?;
    let udp_v6 = UdpSocket::bind("[::]:0")?;
    let mut buffer = [0; 4096];
    while !end.load(Ordering::Relaxed) {
        // Time-outs, and errors that an earlier packet brought about, are no reason to stop.
        let Ok(length) = frames.read(&mut buffer) else {
            continue;
        };
        let frame = &buffer[..length];
        let Some(packet) = for_a_vip(frame) else {
            continue;
        };
        let is_v4 = packet[0] >> 4 == 4;
        let (wrapping, to) = *way.lock().map_err(|_| io::Error::other("poisoned"))?;
        let protocol = if is_v4 { 4u8 } else { 41 };
        let ether_type: [u8; 2] = if is_v4 { [8, 0] } else { [0x86, 0xdd] };
        let (port, header) = match wrapping {
            Wrapping::Ipip => (0, vec![]),
            Wrapping::Gue => (6080, vec![0, protocol, 0, 0]),
            Wrapping::GueDirect => (6080, vec![]),
            // With an option of four bytes that nobody needs to know.
            Wrapping::Geneve => (
                6081,
                [&[2, 0], &ether_type[..], &[0, 0, 7, 0], &GENEVE_OPTION].concat(),
            ),
        };
        let payload = [&header, packet].concat();
        let sent = match (wrapping, to) {
            (Wrapping::Ipip, IpAddr::V4(v4)) => sendto(
                &sockets[&(4, u32::from(protocol))],
                &payload,
                SendFlags::empty(),
                &SocketAddrV4::new(v4, 0),
            )
            .map_err(io::Error::from),
            (Wrapping::Ipip, IpAddr::V6(v6)) => sendto(
                &sockets[&(6, u32::from(protocol))],
                &payload,
                SendFlags::empty(),
                &SocketAddrV6::new(v6, 0, 0, 0),
            )
            .map_err(io::Error::from),
            (_, IpAddr::V4(_)) => udp_v4.send_to(&payload, (to, port)),
            (_, IpAddr::V6(_)) => udp_v6.send_to(&payload, (to, port)),
        };
        if let Err(error) = sent {
            eprintln!("the wrapper cannot send to {to}: {error}");
        }
    }
    Ok(())
}

/// The IP packet of a frame, if it is for one of the VIPs.
fn for_a_vip(frame: &[u8]) -> Option<&[u8]> {
    let packet = frame.get(14..)?;
    let (to, length) = match frame.get(12..14)? {
        [0x08, 0x00] => (
            IpAddr::from(<[u8; 4]>::try_from(packet.get(16..20)?).ok()?),
            usize::from(u16::from_be_bytes([packet[2], packet[3]])),
        ),
        [0x86, 0xdd] => (
            IpAddr::from(<[u8; 16]>::try_from(packet.get(24..40)?).ok()?),
            40 + usize::from(u16::from_be_bytes([packet[4], packet[5]])),
        ),
        _ => return None,
    };
    let is_vip = to == IpAddr::V4(DSR_VIP_V4) || to == IpAddr::V6(DSR_VIP_V6);
    if is_vip { packet.get(..length) } else { None }
}

/// A running `nlb decap`; ended on drop.
pub(crate) struct Decap {
    child: Child,
    out: PathBuf,
    log: PathBuf,
}

impl Decap {
    pub(crate) fn start(lab: &Lab, more: &str) -> Result<Self> {
        Self::start_on(
            lab,
            &lab.target(0).host,
            &[DSR_VIP_V4.into(), DSR_VIP_V6.into()],
            more,
        )
    }

    /// The same on another host, for other VIPs.
    pub(crate) fn start_on(lab: &Lab, host: &Host, vips: &[IpAddr], more: &str) -> Result<Self> {
        let (out, log) = (
            lab.directory().join("decap.out"),
            lab.directory().join("decap.log"),
        );
        let child = host
            .command(daemon::binary()?)
            .args(["decap", "--interface", "eth0"])
            .args(
                vips.iter()
                    .flat_map(|vip| ["--vip".to_owned(), vip.to_string()]),
            )
            .args(more.split_whitespace())
            .stdout(fs::File::create(&out)?)
            .stderr(Stdio::from(fs::File::create(&log)?))
            .spawn()?;
        let mut decap = Self { child, out, log };
        decap.wait_for_log("decapsulating")?;
        Ok(decap)
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn wait_for_log(&mut self, words: &str) -> Result<()> {
        let mut has_ended = false;
        wait_until(&format!("nlb decap says `{words}`"), SOON, || {
            has_ended = matches!(self.child.try_wait(), Ok(Some(_)));
            has_ended || self.said().contains(words)
        })
        .with_context(|| self.said())?;
        ensure!(!has_ended, "nlb decap ended: {}", self.said());
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        Ok(kill_process(pid.context("no pid")?, signal)?)
    }

    /// The counters that SIGUSR1 asks for: what the last line that begins so counts.
    pub(crate) fn count(&self, line: &str) -> Result<u64> {
        fs::write(&self.out, "")?;
        self.signal(Signal::USR1)?;
        let mut text = String::new();
        wait_until("nlb decap prints its counters", SOON, || {
            text = fs::read_to_string(&self.out)
                .unwrap_or_default()
                .replace('\0', "");
            text.contains("decapsulated geneve: ") && text.ends_with('\n')
        })?;
        let number = text
            .lines()
            .find_map(|found| found.strip_prefix(line)?.split_whitespace().next())
            .unwrap_or("0");
        number.parse().with_context(|| format!("{line} in {text}"))
    }

    pub(crate) fn end(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "nlb decap: {status}: {}", self.said());
        Ok(())
    }
}

impl Drop for Decap {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

fn with_wrapper(name: &str, claim: impl FnOnce(&Lab, &Wrapper) -> Result<()>) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED {name}: not root");
        return Ok(());
    }
    let lab = Lab::new(&name[..name.len().min(12)])?;
    let wrapper = Wrapper::start(lab.gateway(), (Wrapping::Gue, target_v4(0).into()))?;
    claim(&lab, &wrapper)
}

fn vips() -> [IpAddr; 2] {
    [DSR_VIP_V4.into(), DSR_VIP_V6.into()]
}

/// Ping, a datagram, a web page and a large one, through every tunnel.
fn everything_answers(lab: &Lab, wrapper: &Wrapper) -> Result<()> {
    for wrapping in WRAPPINGS {
        for to in [target_v4(0).into(), target_v6(0).into()] {
            wrapper.take((wrapping, to));
            for vip in vips() {
                let way = || format!("{vip} through {wrapping:?} to {to}");
                lab.client()
                    .run(&format!("ping -n -q -c 2 -i 0.2 -W 2 -s 1200 {vip}"))
                    .with_context(way)?;
                let udp: SocketAddr = (vip, UDP_PORT).into();
                ensure!(ask_udp(lab, udp).with_context(way)? == "target1");
                let http: SocketAddr = (vip, HTTP_PORT).into();
                ensure!(ask_http(lab, http).with_context(way)? == "target1");
                let mut connection = HttpConnection::from(lab.client(), http, PATIENCE)?;
                let answer = connection.get("/large").with_context(way)?;
                ensure!(answer.body_bytes == LARGE_BYTES as u64, "{}", way());
            }
        }
    }
    Ok(())
}

pub(crate) const ALL: &str = "--ipip --gue-port --geneve-port";
/// Where the gateway's kernel sends from.
pub(crate) const FROM: &str = "--from 10.2.0.1 --from fd00:2::/120";

#[test]
fn a_target_without_tunnel_devices_answers_through_every_tunnel() -> Result<()> {
    with_wrapper("decap_all", |lab, wrapper| {
        let decap = Decap::start(lab, &format!("{ALL} {FROM}"))?;
        ensure!(decap.said().contains("driver"), "{}", decap.said());
        everything_answers(lab, wrapper)?;
        for encapsulation in ["ipip", "gue", "geneve"] {
            // Two versions outside and inside, and in each of these at least two echo requests, a
            // datagram and two connections.
            let count = decap.count(&format!("decapsulated {encapsulation}: "))?;
            ensure!(count > 4 * 10, "{encapsulation}: {count}");
        }
        // What is not a tunnel's is as it was.
        for own in [target_v4(0).to_string(), target_v6(0).to_string()] {
            lab.client()
                .run(&format!("ping -n -q -c 2 -i 0.2 -W 2 {own}"))?;
        }
        let host = &lab.target(0).host;
        ensure!(host.run("ip link show dev eth0")?.contains("xdp"));
        decap.end()?;
        ensure!(!host.run("ip link show dev eth0")?.contains("xdp"));
        Ok(())
    })
}

#[test]
fn the_generic_mode_answers_through_every_tunnel_too() -> Result<()> {
    with_wrapper("decap_generic", |lab, wrapper| {
        let decap = Decap::start(lab, &format!("{ALL} {FROM} --xdp-mode generic"))?;
        everything_answers(lab, wrapper)?;
        decap.end()
    })
}

#[test]
fn strangers_get_nothing_into_a_target_and_are_counted() -> Result<()> {
    with_wrapper("decap_from", |lab, _| {
        let decap = Decap::start(lab, &format!("{ALL} --from {GATEWAY_V4}/32"))?;
        let ping = format!("ping -n -q -c 2 -i 0.2 -W 1 {DSR_VIP_V4}");
        if lab.client().run(&ping).is_ok() {
            bail!("the target answered what came from a stranger");
        }
        let mut count = 0;
        wait_until("both echo requests are counted", SOON, || {
            count = decap.count("dropped foreign_source: ").unwrap_or(0);
            count == 2
        })
        .with_context(|| format!("{count} counted"))?;
        ensure!(decap.count("decapsulated gue: ")? == 0);
        decap.end()
    })
}

#[test]
fn an_address_that_the_interface_gets_later_is_a_tunnels_end_too() -> Result<()> {
    with_wrapper("decap_addr", |lab, wrapper| {
        let mut decap = Decap::start(lab, &format!("--gue-port 6080 {FROM}"))?;
        let host = &lab.target(0).host;
        host.ip("addr add 10.2.0.77/24 dev eth0\n")?;
        decap.wait_for_log("10.2.0.77")?;
        wrapper.take((Wrapping::Gue, "10.2.0.77".parse()?));
        ensure!(ask_udp(lab, (DSR_VIP_V4, UDP_PORT).into())? == "target1");
        decap.end()
    })
}
