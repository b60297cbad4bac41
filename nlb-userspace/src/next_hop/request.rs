//! Questions and orders to the kernel, one at a time, each with a bounded wait for the answer.

use std::{
    io,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::StreamExt;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached},
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
    },
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia},
};
use rtnetlink::{
    Handle, new_connection,
    packet_core::{
        NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    },
};

use super::{
    Neighbour, NextHopError, Request, Table, Unroutable, monitor::OwnedTask, table::neighbour,
};

/// The kernel answers within microseconds; this bounds the wait for an answer that got lost.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// `NLM_F_DUMP_INTR` of `linux/netlink.h`: the list changed while the kernel wrote it.
const DUMP_INTERRUPTED: u16 = 0x10;

/// How often an interrupted list is asked for again before it is taken as it is.
const DUMP_ATTEMPTS: u32 = 8;

/// How the kernel routes packets to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Index of the interface packets leave by.
    pub interface: u32,
    /// The router they go to; `None` if the destination is on the link. It may be an IPv6 address
    /// for an IPv4 destination (RFC 5549).
    pub gateway: Option<IpAddr>,
    /// The source address the kernel would choose.
    pub preferred_source: Option<IpAddr>,
    /// Largest packet in bytes, if the route sets it or path MTU discovery found it.
    pub mtu: Option<u32>,
}

/// The XDP program on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachedXdp {
    /// `driver`, `generic` or `hardware`.
    pub mode: &'static str,
    /// The kernel's number for it.
    pub program: Option<u32>,
}

/// The socket for requests. It opens another when the kernel closed it.
#[derive(Debug)]
pub(super) struct Requests {
    connection: Mutex<(Handle, OwnedTask)>,
}

impl Requests {
    pub(super) fn open() -> Result<Self, NextHopError> {
        Ok(Self {
            connection: Mutex::new(connect()?),
        })
    }

    /// All links and neighbours there are.
    pub(super) async fn table(&self) -> Result<Table, NextHopError> {
        let mut table = Table::default();
        let links = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let neighbours = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        for (request, message) in [(Request::Links, links), (Request::Neighbours, neighbours)] {
            for message in self.list(request, message).await? {
                table.apply(&message);
            }
        }
        Ok(table)
    }

    /// The XDP program on a link, if there is one.
    pub(super) async fn attached_xdp(
        &self,
        index: u32,
    ) -> Result<Option<AttachedXdp>, NextHopError> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let messages = self.list(Request::Links, request).await?;
        let attached: Vec<&LinkXdp> = messages
            .iter()
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewLink(link) if link.header.index == index => Some(link),
                _ => None,
            })
            .flat_map(|link| &link.attributes)
            .filter_map(|attribute| match attribute {
                LinkAttribute::Xdp(xdp) => Some(xdp),
                _ => None,
            })
            .flatten()
            .collect();
        let mode = attached.iter().find_map(|xdp| match xdp {
            LinkXdp::Attached(XdpAttached::Driver) => Some("driver"),
            LinkXdp::Attached(XdpAttached::SocketBuffer) => Some("generic"),
            LinkXdp::Attached(XdpAttached::Hardware) => Some("hardware"),
            _ => None,
        });
        let program = attached.iter().find_map(|xdp| match xdp {
            LinkXdp::ProgId(id) => Some(*id),
            _ => None,
        });
        Ok(mode.map(|mode| AttachedXdp { mode, program }))
    }

    /// How the kernel routes packets to `address`, policy rules included.
    pub(super) async fn route_to(&self, address: IpAddr) -> Result<Route, NextHopError> {
        let request = Request::Route(address);
        let mut message = RouteMessage::default();
        message.header.address_family = family(address);
        message.header.destination_prefix_length = if address.is_ipv4() { 32 } else { 128 };
        message
            .attributes
            .push(RouteAttribute::Destination(address.into()));
        let answers = self
            .exchange(request, RouteNetlinkMessage::GetRoute(message), NLM_F_ACK)
            .await
            .map_err(|error| match error {
                NextHopError::Refused { request, source } => match refusal(address, &source) {
                    Some(unroutable) => unroutable.into(),
                    None => NextHopError::Refused { request, source },
                },
                other => other,
            })?;
        answers
            .messages
            .iter()
            .find_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(message) => Some(route(address, message)),
                _ => None,
            })
            .ok_or(NextHopError::Incomplete {
                request,
                missing: "route",
            })?
    }

    /// What the kernel knows of one neighbour at this moment.
    pub(super) async fn neighbour(
        &self,
        interface: u32,
        address: IpAddr,
    ) -> Result<Option<Neighbour>, NextHopError> {
        let message = neighbour_message(interface, address);
        let request = Request::Neighbour(interface, address);
        let answers = self
            .exchange(
                request,
                RouteNetlinkMessage::GetNeighbour(message),
                NLM_F_ACK,
            )
            .await;
        match answers {
            Ok(answers) => Ok(answers.messages.iter().find_map(|answer| match answer {
                RouteNetlinkMessage::NewNeighbour(message) => neighbour(message),
                _ => None,
            })),
            Err(NextHopError::Refused { source, .. })
                if source.raw_os_error() == Some(libc::ENOENT) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes the kernel resolve a neighbour, and keep it resolved where it can.
    ///
    /// `NTF_USE` resolves once. `NTF_EXT_MANAGED` (Linux 5.16) does so again for ever; an older
    /// kernel ignores the attribute, so one message serves both. Neither sets a MAC address.
    pub(super) async fn resolve(
        &self,
        interface: u32,
        address: IpAddr,
    ) -> Result<(), NextHopError> {
        let request = Request::Resolve(interface, address);
        let mut message = neighbour_message(interface, address);
        message.header.flags = NeighbourFlags::Use;
        let once = RouteNetlinkMessage::NewNeighbour(message.clone());
        message
            .attributes
            .push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
        let kept = RouteNetlinkMessage::NewNeighbour(message);
        let flags = NLM_F_ACK | NLM_F_CREATE;
        match self.exchange(request, kept, flags).await {
            Err(NextHopError::Refused { source, .. })
                if matches!(source.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) =>
            {
                self.exchange(request, once, flags).await?;
            }
            answer => {
                answer?;
            }
        }
        Ok(())
    }

    async fn list(
        &self,
        request: Request,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NextHopError> {
        let mut answers = self.exchange(request, message.clone(), NLM_F_DUMP).await?;
        for _ in 1..DUMP_ATTEMPTS {
            if !answers.interrupted {
                return Ok(answers.messages);
            }
            answers = self.exchange(request, message.clone(), NLM_F_DUMP).await?;
        }
        if answers.interrupted {
            tracing::warn!("a request to {request} is interrupted by changes again and again");
        }
        Ok(answers.messages)
    }

    async fn exchange(
        &self,
        request: Request,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Answers, NextHopError> {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        let mut stream = self
            .handle()?
            .request(message)
            .map_err(|_| NextHopError::Closed { request })?;
        let mut answers = Answers {
            messages: Vec::new(),
            interrupted: false,
        };
        let complete = async {
            while let Some(answer) = stream.next().await {
                answers.interrupted |= answer.header.flags & DUMP_INTERRUPTED != 0;
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => answers.messages.push(message),
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        let source = io::Error::from_raw_os_error(-done.code);
                        return Err(NextHopError::Refused { request, source });
                    }
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(NextHopError::Refused {
                            request,
                            source: error.to_io(),
                        });
                    }
                    // The end of a list, and the acknowledgement of anything else.
                    NetlinkPayload::Done(_) | NetlinkPayload::Error(_) => return Ok(()),
                    _ => {}
                }
            }
            Err(NextHopError::Closed { request })
        };
        match tokio::time::timeout(ANSWER_WITHIN, complete).await {
            Ok(result) => result.map(|()| answers),
            Err(_) => Err(NextHopError::TimedOut { request }),
        }
    }

    fn handle(&self) -> Result<Handle, NextHopError> {
        let mut connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if connection.1.is_finished() {
            tracing::warn!("the netlink socket for requests closed; opening another");
            *connection = connect()?;
        }
        Ok(connection.0.clone())
    }
}

struct Answers {
    messages: Vec<RouteNetlinkMessage>,
    interrupted: bool,
}

fn connect() -> Result<(Handle, OwnedTask), NextHopError> {
    let (mut connection, handle, _) =
        new_connection().map_err(|source| NextHopError::Open { source })?;
    // Without these the end of an answer looks like a closed socket.
    connection.set_forward_done(true);
    connection.set_forward_ack(true);
    Ok((handle, OwnedTask::spawn(connection)))
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

fn neighbour_message(interface: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = interface;
    message
        .attributes
        .push(NeighbourAttribute::Destination(match address {
            IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
            IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
        }));
    message
}

/// The kernel answers a request for a route with the error that a packet would meet:
/// `fib_props` in `net/ipv4/fib_semantics.c`, `ip6_rt_type_to_error` in `net/ipv6/route.c`.
fn refusal(address: IpAddr, source: &io::Error) -> Option<Unroutable> {
    match source.raw_os_error()? {
        libc::ENETUNREACH | libc::EAGAIN => Some(Unroutable::NoRoute(address)),
        libc::EHOSTUNREACH => Some(Unroutable::Unreachable(address)),
        libc::EINVAL => Some(Unroutable::Blackhole(address)),
        libc::EACCES => Some(Unroutable::Prohibited(address)),
        _ => None,
    }
}

fn route(address: IpAddr, message: &RouteMessage) -> Result<Route, NextHopError> {
    match message.header.kind {
        RouteType::Unicast => {}
        RouteType::Local => return Err(Unroutable::Local(address).into()),
        RouteType::Unreachable => return Err(Unroutable::Unreachable(address).into()),
        RouteType::BlackHole => return Err(Unroutable::Blackhole(address).into()),
        RouteType::Prohibit => return Err(Unroutable::Prohibited(address).into()),
        RouteType::Broadcast | RouteType::Anycast | RouteType::Multicast => {
            return Err(Unroutable::NotUnicast(address).into());
        }
        _ => return Err(Unroutable::NoRoute(address).into()),
    }
    let mut interface = None;
    let mut route = Route {
        interface: 0,
        gateway: None,
        preferred_source: None,
        mtu: None,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(gateway) => route.gateway = ip(gateway),
            RouteAttribute::Via(RouteVia::Inet(gateway)) => route.gateway = Some((*gateway).into()),
            RouteAttribute::Via(RouteVia::Inet6(gateway)) => {
                route.gateway = Some((*gateway).into());
            }
            RouteAttribute::PrefSource(source) => route.preferred_source = ip(source),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) if *mtu != 0 => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    route.interface = interface.ok_or(NextHopError::Incomplete {
        request: Request::Route(address),
        missing: "interface",
    })?;
    Ok(route)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}
