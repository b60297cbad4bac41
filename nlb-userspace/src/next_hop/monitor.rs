//! The socket that hears of changes: a stream of the kernel's notifications, and when some are lost.
//!
//! It carries no requests: a reply lost in a full receive buffer would leave a request waiting, and
//! a large dump would crowd notifications out.

use std::{future::Future, pin::Pin};

use futures_util::{Stream, StreamExt};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::{
    MulticastGroup, new_multicast_connection, packet_core::NetlinkPayload, sys::AsyncSocket,
};
use tokio::task::JoinHandle;

use super::NextHopError;

/// Receive buffer asked for. A notification takes about 1 KiB of it with the kernel's bookkeeping,
/// so this holds some eight thousand.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;

const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

/// A task that ends with its owner.
#[derive(Debug)]
pub(super) struct OwnedTask(JoinHandle<()>);

impl OwnedTask {
    pub(super) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(future))
    }

    pub(super) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl Drop for OwnedTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the monitor hears.
#[derive(Debug)]
pub(super) enum Notice {
    /// Something is as the message says now.
    Message(Box<RouteNetlinkMessage>),
    /// Notifications were lost, or the socket failed: subscribe anew, then list everything.
    Lost,
}

/// A subscription to links, neighbours, addresses, routes and rules.
pub(super) struct Monitor {
    notices: Pin<Box<dyn Stream<Item = Notice> + Send>>,
    _connection: OwnedTask,
}

impl Monitor {
    /// Subscribes. Every change from here on will be heard, so list what exists afterwards.
    pub(super) fn subscribe() -> Result<Self, NextHopError> {
        let (mut connection, _, messages) =
            new_multicast_connection(&GROUPS).map_err(|source| NextHopError::Open { source })?;
        widen(connection.socket_mut().socket_mut());
        let notices = messages.filter_map(|(message, _)| async move {
            match message.payload {
                NetlinkPayload::InnerMessage(message) => Some(Notice::Message(Box::new(message))),
                NetlinkPayload::Overrun(_) => Some(Notice::Lost),
                _ => None,
            }
        });
        Ok(Self {
            notices: Box::pin(notices),
            _connection: OwnedTask::spawn(connection),
        })
    }

    /// The next notice. Dropping the future loses none.
    pub(super) async fn next(&mut self) -> Notice {
        self.notices.next().await.unwrap_or(Notice::Lost)
    }
}

/// Past `net.core.rmem_max` if the daemon has `CAP_NET_ADMIN`, up to it otherwise. A small buffer
/// costs only more lists after bursts, so failure is not an error.
fn widen(socket: &rtnetlink::sys::Socket) {
    use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
    let set = set_socket_recv_buffer_size_force(socket, RECEIVE_BUFFER_BYTES)
        .or_else(|_| set_socket_recv_buffer_size(socket, RECEIVE_BUFFER_BYTES));
    if let Err(error) = set {
        tracing::debug!(%error, "the netlink receive buffer keeps its default size");
    }
}
