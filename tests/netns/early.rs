//! Fragments that overtake their datagram's first one.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::OwnedFd,
};

use anyhow::{Context as _, Result, ensure};
use nlb_tests::{
    lab::{Lab, addresses::client_for, daemon::Daemon, wait::wait_until},
    packet::{eth, fragments::split},
};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};

use super::{PATIENCE, SOON, configuration, udp_vips, with_configuration, with_nlb, with_pool};

/// Where datagrams are cut, in bytes behind the IP header.
const CUTS: [usize; 2] = [1280, 2560];
/// How often a datagram is tried: neighbours may have to be resolved, and a machine may be slow.
const TRIES: u16 = 5;

/// A client that sends IP packets of its own making, and gets what is answered.
struct Sender {
    vip: SocketAddr,
    answers: UdpSocket,
    raw: OwnedFd,
}

impl Sender {
    fn new(lab: &Lab, vip: SocketAddr) -> Result<Self> {
        lab.client().enter(|| {
            let answers = UdpSocket::bind((client_for(vip.ip()), 0))?;
            answers.set_read_timeout(Some(PATIENCE))?;
            let family = match vip.ip() {
                IpAddr::V4(_) => AddressFamily::INET,
                IpAddr::V6(_) => AddressFamily::INET6,
            };
            let raw = socket(family, SocketType::RAW, Some(ipproto::RAW))?;
            Ok(Self { vip, answers, raw })
        })?
    }

    /// The pieces of a datagram, without Ethernet's header.
    fn pieces(&self, number: u16, content: &[u8]) -> Result<Vec<Vec<u8>>> {
        let own = self.answers.local_addr()?;
        let datagram = eth()
            .ip(own.ip(), self.vip.ip())
            .udp(own.port(), self.vip.port())
            .payload(content);
        let pieces = split(&datagram.build(), &CUTS, number);
        Ok(pieces.iter().map(|piece| piece[14..].to_vec()).collect())
    }

    fn send(&self, piece: &[u8]) -> Result<()> {
        // A raw socket has no port.
        let to = SocketAddr::new(self.vip.ip(), 0);
        sendto(&self.raw, piece, SendFlags::empty(), &to).context("sending a piece")?;
        Ok(())
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

/// Datagrams whose first piece comes last arrive as a whole, and their answers, too.
fn arrive(lab: &Lab, daemon: &Daemon, vip: SocketAddr) -> Result<()> {
    let sender = Sender::new(lab, vip)?;
    for (nth, order) in (0..).zip([[1, 0, 2], [1, 2, 0], [2, 1, 0]]) {
        // No number of an earlier datagram, whose record would still be there.
        let numbers = nth * TRIES..(nth + 1) * TRIES;
        let before = early(daemon, "sent_on")?;
        let mut tries = numbers.map(|number| -> Result<bool> {
            let content: Vec<u8> = format!("{order:?} {number} ").repeat(300).into_bytes();
            let pieces = sender.pieces(number, &content)?;
            for piece in order {
                sender.send(&pieces[piece])?;
            }
            Ok(sender.is_answered(&content))
        });
        let is_answered = tries.any(|answered| answered.is_ok_and(|is| is));
        ensure!(is_answered, "{vip}: {order:?}");
        ensure!(early(daemon, "sent_on")? > before, "{vip}: {order:?}");
    }
    Ok(())
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
