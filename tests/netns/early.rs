//! Fragments that overtake their datagram's first one.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::OwnedFd,
};

use anyhow::{Context as _, Result, bail, ensure};
use nlb_tests::{
    lab::{
        Lab,
        addresses::{NAT_UDP_PORT, client_for, target_v4, target_v6},
        daemon::Daemon,
        host::Host,
        wait::wait_until,
    },
    packet::{eth, fragments::split},
};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};

use super::{PATIENCE, SOON, configuration, udp_vips, with_configuration, with_nlb, with_pool};

/// Where datagrams are cut, in bytes behind the IP header.
const CUTS: [usize; 2] = [1280, 2560];
/// How often a datagram is tried: neighbours may have to be resolved, and a machine may be slow.
const TRIES: u16 = 5;

/// Sends IP packets of its own making.
struct Raw(OwnedFd);

impl Raw {
    /// On this host, to receivers of this IP version.
    fn new(host: &Host, version_of: IpAddr) -> Result<Self> {
        let family = match version_of {
            IpAddr::V4(_) => AddressFamily::INET,
            IpAddr::V6(_) => AddressFamily::INET6,
        };
        let raw = host.enter(|| socket(family, SocketType::RAW, Some(ipproto::RAW)))?;
        Ok(Self(raw.context("a raw socket")?))
    }

    fn send(&self, piece: &[u8], to: IpAddr) -> Result<()> {
        // A raw socket has no port.
        let to = SocketAddr::new(to, 0);
        sendto(&self.0, piece, SendFlags::empty(), &to).context("sending a piece")?;
        Ok(())
    }
}

/// The pieces of a datagram, without Ethernet's header.
fn pieces(from: SocketAddr, to: SocketAddr, number: u16, content: &[u8]) -> Vec<Vec<u8>> {
    let datagram = eth()
        .ip(from.ip(), to.ip())
        .udp(from.port(), to.port())
        .payload(content);
    let pieces = split(&datagram.build(), &CUTS, number);
    pieces.iter().map(|piece| piece[14..].to_vec()).collect()
}

/// A client that sends IP packets of its own making, and gets what is answered.
struct Sender {
    vip: SocketAddr,
    answers: UdpSocket,
    raw: Raw,
}

impl Sender {
    fn new(lab: &Lab, vip: SocketAddr) -> Result<Self> {
        let answers = lab.client().enter(|| -> io::Result<UdpSocket> {
            let answers = UdpSocket::bind((client_for(vip.ip()), 0))?;
            answers.set_read_timeout(Some(PATIENCE))?;
            Ok(answers)
        })?;
        Ok(Self {
            vip,
            answers: answers?,
            raw: Raw::new(lab.client(), vip.ip())?,
        })
    }

    fn pieces(&self, number: u16, content: &[u8]) -> Result<Vec<Vec<u8>>> {
        let own = self.answers.local_addr()?;
        Ok(pieces(own, self.vip, number, content))
    }

    fn send(&self, piece: &[u8]) -> Result<()> {
        self.raw.send(piece, self.vip.ip())
    }

    /// Begins a flow; which target has it, and what that sees of the client.
    fn begin(&self) -> Result<(usize, SocketAddr)> {
        let mut buffer = [0; 256];
        for _ in 0..TRIES {
            self.answers.send_to(b"who", self.vip)?;
            let Ok((length, _)) = self.answers.recv_from(&mut buffer) else {
                continue;
            };
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let mut words = text.split(' ');
            let name = words.next().and_then(|name| name.strip_prefix("target"));
            let number: usize = name.with_context(|| text.clone())?.parse()?;
            let address: IpAddr = words.next().context("an address")?.parse()?;
            let port: u16 = words.next().context("a port")?.parse()?;
            return Ok((number - 1, (address, port).into()));
        }
        bail!("{} answers nothing", self.vip)
    }

    /// Whether an answer comes that repeats this.
    fn is_answered(&self, content: &[u8]) -> bool {
        let mut buffer = vec![0; 1 << 16];
        while let Ok((length, from)) = self.answers.recv_from(&mut buffer) {
            if from == self.vip && buffer[..length].ends_with(content) {
                return true;
            }
        }
        false
    }
}

fn early(daemon: &Daemon, name: &str) -> Result<u64> {
    let status = daemon.status()?;
    let count = status["early_fragments"][name].as_u64();
    count.with_context(|| format!("no {name} in {status}"))
}

/// In every wrong order of three pieces a datagram with this number and content, as `send` sends it,
/// brings the client what ends with its content.
fn in_every_order(
    daemon: &Daemon,
    sender: &Sender,
    send: impl Fn(u16, &[u8], [usize; 3]) -> Result<()>,
) -> Result<()> {
    for (nth, order) in (0..).zip([[1, 0, 2], [1, 2, 0], [2, 1, 0]]) {
        // No number of an earlier datagram, whose record would still be there.
        let numbers = nth * TRIES..(nth + 1) * TRIES;
        let before = early(daemon, "sent_on")?;
        let mut tries = numbers.map(|number| -> Result<bool> {
            let content: Vec<u8> = format!("{order:?} {number} ").repeat(300).into_bytes();
            send(number, &content, order)?;
            Ok(sender.is_answered(&content))
        });
        let is_answered = tries.any(|answered| answered.is_ok_and(|is| is));
        ensure!(is_answered, "{}: {order:?}", sender.vip);
        ensure!(
            early(daemon, "sent_on")? > before,
            "{}: {order:?}",
            sender.vip
        );
    }
    Ok(())
}

/// Datagrams whose first piece comes last arrive as a whole, and their answers, too.
fn arrive(lab: &Lab, daemon: &Daemon, vip: SocketAddr) -> Result<()> {
    let sender = Sender::new(lab, vip)?;
    in_every_order(daemon, &sender, |number, content, order| {
        let pieces = sender.pieces(number, content)?;
        order
            .iter()
            .try_for_each(|piece| sender.send(&pieces[*piece]))
    })
}

/// So do a target's.
fn return_whole(lab: &Lab, daemon: &Daemon, vip: SocketAddr) -> Result<()> {
    let sender = Sender::new(lab, vip)?;
    let (index, seen) = sender.begin()?;
    let own: IpAddr = match seen {
        SocketAddr::V4(_) => target_v4(index).into(),
        SocketAddr::V6(_) => target_v6(index).into(),
    };
    let raw = Raw::new(&lab.target(index).host, own)?;
    in_every_order(daemon, &sender, |number, content, order| {
        let pieces = pieces((own, NAT_UDP_PORT).into(), seen, number, content);
        order
            .iter()
            .try_for_each(|piece| raw.send(&pieces[*piece], seen.ip()))
    })
}

#[test]
fn a_datagram_whose_first_fragment_comes_last_arrives_in_every_mode() -> Result<()> {
    with_nlb("early", |lab, daemon| {
        for vip in udp_vips() {
            arrive(lab, daemon, vip)?;
        }
        Ok(())
    })
}

#[test]
fn a_datagram_whose_first_fragment_comes_last_arrives_behind_a_source_of_ours() -> Result<()> {
    let text = with_pool(&configuration()).replace("mode = \"nat\"", "mode = \"full-nat\"");
    with_configuration("early_snat", &text, |lab, daemon| {
        for vip in &udp_vips()[..2] {
            arrive(lab, daemon, *vip)?;
            return_whole(lab, daemon, *vip)?;
        }
        Ok(())
    })
}

#[test]
fn an_answer_whose_first_fragment_comes_last_returns_from_the_vip() -> Result<()> {
    with_nlb("early_back", |lab, daemon| {
        for vip in &udp_vips()[..2] {
            return_whole(lab, daemon, *vip)?;
        }
        Ok(())
    })
}

#[test]
fn in_generic_mode_too_late_first_fragments_lose_nothing() -> Result<()> {
    let generic = "[node]\nxdp_mode = \"generic\"\n";
    let text = configuration().replacen("[node]\n", generic, 1);
    with_configuration("early_skb", &text, |lab, daemon| {
        let status = daemon.status()?;
        let interfaces = status["interfaces"].as_array().into_iter().flatten();
        for interface in interfaces {
            ensure!(interface["xdp_mode"] == "generic", "{interface}");
        }
        for vip in udp_vips() {
            arrive(lab, daemon, vip)?;
        }
        for vip in &udp_vips()[..2] {
            return_whole(lab, daemon, *vip)?;
        }
        Ok(())
    })
}

#[test]
fn a_fragment_whose_first_one_never_comes_is_given_up() -> Result<()> {
    with_nlb("early_alone", |lab, daemon| {
        for (number, vip) in (1..).zip(udp_vips()) {
            let sender = Sender::new(lab, vip)?;
            let pieces = sender.pieces(1, &[7; 3000])?;
            sender.send(&pieces[1])?;
            wait_until("it is given up", SOON, || {
                early(daemon, "given_up").is_ok_and(|count| count >= number)
            })?;
        }
        assert_eq!(early(daemon, "sent_on")?, 0);
        Ok(())
    })
}
