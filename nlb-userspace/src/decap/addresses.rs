//! The host's own addresses, as the kernel has them at each time.

use std::{collections::BTreeSet, net::IpAddr, pin::Pin};

use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::{Handle, MulticastGroup, new_connection, new_multicast_connection};
use tokio::task::JoinHandle;

use super::DecapError;

/// Asks for addresses, and hears of changes.
pub struct Addresses {
    handle: Handle,
    /// Nothing once the socket is gone.
    changes: Option<Pin<Box<dyn Stream<Item = ()> + Send>>>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Addresses {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// An address message's own end; the other one may be a peer's.
fn own_end(message: &AddressMessage) -> Option<IpAddr> {
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(local) => return Some(*local),
            AddressAttribute::Address(one) => address = Some(*one),
            _ => {}
        }
    }
    address
}

impl Addresses {
    /// Begins to listen; every change from here on will be heard.
    pub fn follow() -> Result<Self, DecapError> {
        let groups = [MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let (listening, _, messages) =
            new_multicast_connection(&groups).map_err(DecapError::Netlink)?;
        // A socket of their own for questions: an answer must not be lost among notifications.
        let (asking, handle, _) = new_connection().map_err(DecapError::Netlink)?;
        Ok(Self {
            handle,
            changes: Some(Box::pin(messages.map(|_| ()))),
            tasks: [tokio::spawn(listening), tokio::spawn(asking)],
        })
    }

    /// Returns when something may have changed.
    pub async fn changed(&mut self) {
        if let Some(changes) = &mut self.changes {
            if changes.next().await.is_some() {
                return;
            }
            self.changes = None;
            tracing::warn!("the netlink socket closed: changes of addresses are no longer seen");
        }
        std::future::pending::<()>().await;
    }

    async fn list(&self) -> Result<Vec<(u32, IpAddr)>, DecapError> {
        let messages: Vec<AddressMessage> = self
            .handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|error| DecapError::Addresses(Box::new(error)))?;
        Ok(messages
            .iter()
            .filter_map(|message| Some((message.header.index, own_end(message)?)))
            .collect())
    }

    /// The addresses of these interfaces.
    pub async fn of(&self, indexes: &[u32]) -> Result<BTreeSet<IpAddr>, DecapError> {
        let all = self.list().await?.into_iter();
        Ok(all
            .filter(|(index, _)| indexes.contains(index))
            .map(|(_, address)| address)
            .collect())
    }

    /// The addresses of all interfaces.
    pub async fn of_all(&self) -> Result<BTreeSet<IpAddr>, DecapError> {
        let all = self.list().await?.into_iter();
        Ok(all.map(|(_, address)| address).collect())
    }
}
