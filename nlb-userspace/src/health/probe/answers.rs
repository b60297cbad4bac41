//! Answers of VIPs to this node, taken off the wire.
//!
//! They come from an address that the kernel may take for its own, or expect from elsewhere, and
//! would then throw away; so packet sockets hear them before it looks. Those hear everything that the
//! packet program leaves to the kernel, which is why all probes share two of them, and why there are
//! none while no check goes through the data path.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use etherparse::{
    Icmpv4Type, Icmpv6Type, LaxNetSlice, LaxSlicedPacket, TransportSlice, icmpv4, icmpv6,
};
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with};
use tokio::{
    net::UdpSocket,
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    task::AbortHandle,
};

/// `ETH_P_IP` and `ETH_P_IPV6` of `linux/if_ether.h`.
const ETHER_TYPES: [u16; 2] = [0x0800, 0x86dd];
/// More than any expectation is long.
const PACKET_BYTES: usize = 2048;

/// Who asked whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Conversation {
    /// Who answers.
    pub(super) vip: SocketAddr,
    /// Our end.
    pub(super) client: SocketAddr,
}

/// What a VIP answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// SYN and ACK.
    Accepted {
        /// The acknowledgement number.
        acknowledged: u32,
    },
    /// RST, or an ICMP error that says that the port is closed.
    Refused,
    /// A datagram's payload.
    Datagram(Vec<u8>),
}

/// Everybody who waits for an answer.
#[derive(Debug, Default)]
pub struct Answers {
    waiting: Arc<Waiting>,
    listeners: Mutex<Vec<AbortHandle>>,
}

type Waiting = Mutex<HashMap<Conversation, UnboundedSender<Answer>>>;

impl Answers {
    /// The one of this process, as long as somebody has it.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Answers>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let answers = Arc::<Self>::default();
            *shared = Arc::downgrade(&answers);
            answers
        })
    }

    /// Hears what is answered from now on, until what this gives is dropped.
    pub(super) fn wait_for(self: &Arc<Self>, conversation: Conversation) -> io::Result<Waiter> {
        self.listen()?;
        let (sender, answers) = mpsc::unbounded_channel();
        lock(&self.waiting).insert(conversation, sender);
        Ok(Waiter {
            of: Arc::clone(self),
            conversation,
            answers,
        })
    }

    /// Opens the sockets, in the network namespace of this thread, unless they are open.
    fn listen(&self) -> io::Result<()> {
        let mut listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !listeners.is_empty() {
            return Ok(());
        }
        for ether_type in ETHER_TYPES {
            let protocol = NonZeroU32::new(ether_type.to_be().into()).map(Protocol::from_raw);
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, protocol)?;
            // To tokio, a datagram socket is what has `recv`.
            let socket = UdpSocket::from_std(socket.into())?;
            let hearing = hear(socket, Arc::clone(&self.waiting));
            listeners.push(tokio::spawn(hearing).abort_handle());
        }
        Ok(())
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        let listeners = self.listeners.get_mut();
        for listener in listeners.unwrap_or_else(PoisonError::into_inner) {
            listener.abort();
        }
    }
}

/// One who waits.
#[derive(Debug)]
pub(super) struct Waiter {
    of: Arc<Answers>,
    conversation: Conversation,
    answers: UnboundedReceiver<Answer>,
}

impl Waiter {
    /// The next answer; waits without end.
    pub(super) async fn next(&mut self) -> Answer {
        match self.answers.recv().await {
            Some(answer) => answer,
            // The sender is there as long as this is.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        lock(&self.of.waiting).remove(&self.conversation);
    }
}

fn lock(waiting: &Waiting) -> MutexGuard<'_, HashMap<Conversation, UnboundedSender<Answer>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn hear(socket: UdpSocket, waiting: Arc<Waiting>) {
    let mut packet = [0; PACKET_BYTES];
    loop {
        // An error is a link's that went down; the others go on.
        let Ok(length) = socket.recv(&mut packet).await else {
            tokio::task::yield_now().await;
            continue;
        };
        let heard = packet.get(..length).and_then(answer);
        if let Some((conversation, answer)) = heard
            && let Some(sender) = lock(&waiting).get(&conversation)
        {
            // Whoever has enough does not listen any more.
            let _enough = sender.send(answer);
        }
    }
}

/// What a packet answers, and whom.
fn answer(packet: &[u8]) -> Option<(Conversation, Answer)> {
    let read = LaxSlicedPacket::from_ip(packet).ok()?;
    let (from, to) = ends(&read)?;
    let between = |from_port, to_port| Conversation {
        vip: SocketAddr::new(from, from_port),
        client: SocketAddr::new(to, to_port),
    };
    match read.transport.as_ref()? {
        TransportSlice::Tcp(tcp) => {
            let answer = match (tcp.rst(), tcp.syn() && tcp.ack()) {
                (true, _) => Answer::Refused,
                (false, true) => Answer::Accepted {
                    acknowledged: tcp.acknowledgment_number(),
                },
                (false, false) => return None,
            };
            Some((between(tcp.source_port(), tcp.destination_port()), answer))
        }
        TransportSlice::Udp(udp) => Some((
            between(udp.source_port(), udp.destination_port()),
            Answer::Datagram(udp.payload().to_vec()),
        )),
        TransportSlice::Icmpv4(message) => match message.icmp_type() {
            Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Port) => {
                quoted(message.payload())
            }
            _ => None,
        },
        TransportSlice::Icmpv6(message) => match message.icmp_type() {
            Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port) => {
                quoted(message.payload())
            }
            _ => None,
        },
        TransportSlice::Igmp(_) => None,
    }
}

/// Our own packet in an error.
fn quoted(packet: &[u8]) -> Option<(Conversation, Answer)> {
    let read = LaxSlicedPacket::from_ip(packet).ok()?;
    let (from, to) = ends(&read)?;
    let Some(TransportSlice::Udp(udp)) = &read.transport else {
        return None;
    };
    let conversation = Conversation {
        vip: SocketAddr::new(to, udp.destination_port()),
        client: SocketAddr::new(from, udp.source_port()),
    };
    Some((conversation, Answer::Refused))
}

fn ends(packet: &LaxSlicedPacket<'_>) -> Option<(std::net::IpAddr, std::net::IpAddr)> {
    match packet.net.as_ref()? {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            Some((
                header.source_addr().into(),
                header.destination_addr().into(),
            ))
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            Some((
                header.source_addr().into(),
                header.destination_addr().into(),
            ))
        }
        LaxNetSlice::Arp(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    const VIP: [u8; 4] = [192, 0, 2, 20];
    const US: [u8; 4] = [10, 2, 0, 1];

    fn conversation() -> Conversation {
        Conversation {
            vip: (VIP, 80).into(),
            client: (US, 40_000).into(),
        }
    }

    #[test]
    fn what_a_vip_answers_is_read() {
        let tcp = || PacketBuilder::ipv4(VIP, US, 64).tcp(80, 40_000, 1, 1);
        let mut accepted = Vec::new();
        tcp().syn().ack(8).write(&mut accepted, &[]).unwrap();
        let mut refused = Vec::new();
        tcp().rst().write(&mut refused, &[]).unwrap();
        let mut goes_on = Vec::new();
        tcp().ack(8).write(&mut goes_on, b"late").unwrap();
        let mut datagram = Vec::new();
        let udp = PacketBuilder::ipv4(VIP, US, 64).udp(80, 40_000);
        udp.write(&mut datagram, b"pong").unwrap();
        let found = |packet: &[u8]| answer(packet);
        let of_us = |answer| Some((conversation(), answer));
        assert_eq!(
            found(&accepted),
            of_us(Answer::Accepted { acknowledged: 8 })
        );
        assert_eq!(found(&refused), of_us(Answer::Refused));
        assert_eq!(found(&datagram), of_us(Answer::Datagram(b"pong".to_vec())));
        assert_eq!(found(&goes_on), None);
        for length in 0..accepted.len() {
            assert!(found(&accepted[..length]).is_none(), "{length} bytes");
        }
    }

    #[test]
    fn a_closed_port_is_told_by_an_error_that_quotes_our_datagram() {
        let mut ours = Vec::new();
        let udp = PacketBuilder::ipv4(US, VIP, 64).udp(40_000, 80);
        udp.write(&mut ours, b"ping").unwrap();
        let mut error = Vec::new();
        let icmp = PacketBuilder::ipv4(VIP, US, 64).icmpv4(Icmpv4Type::DestinationUnreachable(
            icmpv4::DestUnreachableHeader::Port,
        ));
        // As much of it as RFC 792 asks for.
        icmp.write(&mut error, &ours[..28]).unwrap();
        assert_eq!(answer(&error), Some((conversation(), Answer::Refused)));
    }
}
