//! The live table: it follows the kernel, reports changes, and finds the next hop to an address.

use std::{
    collections::BTreeSet,
    fmt,
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout_at},
};

use super::{
    Change, Link, Neighbour, NextHopError, Route, Table, Unroutable, Vlan,
    monitor::{Monitor, Notice, OwnedTask},
    request::{AttachedXdp, Requests},
};

/// Changes that follow the first within this time are reported with it: what belongs together (a
/// link that goes down with its neighbours) comes within microseconds.
const TOGETHER: Duration = Duration::from_millis(1);

/// Waits between attempts to follow the kernel again after a failure: doubled from the first to the
/// last.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// Where packets to an address go, down to the frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextHop {
    /// Index of the interface packets leave by.
    pub interface: u32,
    /// The neighbour on that interface: the address itself, or the router.
    pub neighbour: IpAddr,
    /// MAC address of the neighbour.
    pub destination_mac: [u8; 6],
    /// MAC address of the interface.
    pub source_mac: [u8; 6],
    /// Largest IP packet in bytes: the link's MTU, or the route's if that is smaller.
    pub mtu: u32,
}

/// The answer of [`Watch::resolve`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// Packets can be sent.
    Resolved(NextHop),
    /// They cannot now.
    Unresolved {
        /// Why not, and what to wait for.
        reason: Unresolved,
    },
}

/// Why an address has no next hop at the moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// No unicast route leads there. [`Change::Routes`] may mend it. A link that the administrator
    /// set down shows so too, because the kernel takes its routes away.
    #[error(transparent)]
    NoRoute(Unroutable),
    /// The address is this host's own.
    #[error("{0} is an address of this host")]
    Local(IpAddr),
    /// The route's link is down: its name.
    #[error("link {0} is down or has no carrier")]
    LinkDown(String),
    /// The route's link is not known yet: its index. A [`Change::Link`] follows.
    #[error("interface {0} is not known yet")]
    LinkUnknown(u32),
    /// The kernel knows no MAC address for the neighbour and was asked to resolve it.
    /// [`Change::Neighbour`] with the same interface and address follows when it is found.
    #[error("no MAC address for {neighbour} on interface {interface} yet")]
    NeighbourUnknown {
        /// Interface index.
        interface: u32,
        /// The address itself, or the router's.
        neighbour: IpAddr,
    },
    /// The address is behind a router, but had to be on the link (a DSR target reached by MAC).
    #[error("not on a directly attached network, but behind the router {gateway}")]
    NotOnLink {
        /// The router.
        gateway: IpAddr,
    },
    /// The route's link has no MAC addresses (a tunnel, loopback): its name.
    #[error("link {0} has no MAC address; nlb needs an Ethernet link")]
    NoMac(String),
    /// The route's link is a VLAN in a VLAN, or a provider's (802.1ad): its name.
    #[error(
        "link {0} is a VLAN inside of another or a provider's; nlb sends frames with one 802.1Q tag"
    )]
    StackedVlan(String),
}

/// Links and neighbours as they are now, and questions about routes.
///
/// Clones are cheap and share one table, which is kept up to date until the last of them is
/// dropped, also after the receiver of changes is gone. The table holds a change before the
/// receiver hears of it.
#[derive(Clone)]
pub struct Watch {
    shared: Arc<Shared>,
    _follower: Arc<OwnedTask>,
}

struct Shared {
    table: RwLock<Table>,
    requests: Requests,
}

impl Shared {
    fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn table_mut(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("table", &*self.shared.table())
            .finish_non_exhaustive()
    }
}

impl Watch {
    /// Subscribes to changes, lists links and neighbours, and follows from there, in the network
    /// namespace of the calling thread.
    ///
    /// Each item received is what changed since the one before, each change once; a receiver that
    /// is slow gets fewer and longer ones, and nothing is lost. What is there at the start is not
    /// reported. After a loss of notifications (reported in the log) everything counts as changed.
    pub async fn start() -> Result<(Self, mpsc::Receiver<Vec<Change>>), NextHopError> {
        let monitor = Monitor::subscribe()?;
        let requests = Requests::open()?;
        let table = RwLock::new(requests.table().await?);
        let shared = Arc::new(Shared { table, requests });
        // One place: while it is taken, further changes gather in the follower's set.
        let (changes, receiver) = mpsc::channel(1);
        let follower = OwnedTask::spawn(follow(Arc::clone(&shared), monitor, changes));
        Ok((
            Self {
                shared,
                _follower: Arc::new(follower),
            },
            receiver,
        ))
    }

    /// All links, by index.
    pub fn links(&self) -> Vec<Link> {
        self.shared.table().links().cloned().collect()
    }

    /// The link with this index.
    pub fn link(&self, index: u32) -> Option<Link> {
        self.shared.table().link(index).cloned()
    }

    /// Where XDP runs on a link, as the kernel says now: `driver`, `generic` or `hardware`.
    pub async fn xdp_mode(&self, index: u32) -> Option<&'static str> {
        Some(self.attached_xdp(index).await?.mode)
    }

    /// The XDP program on a link, as the kernel says now.
    pub async fn attached_xdp(&self, index: u32) -> Option<AttachedXdp> {
        let attached = self.shared.requests.attached_xdp(index).await;
        attached.ok().flatten()
    }

    /// The link with this name.
    pub fn link_named(&self, name: &str) -> Option<Link> {
        self.shared.table().link_named(name).cloned()
    }

    /// All neighbours, by interface and address.
    pub fn neighbours(&self) -> Vec<Neighbour> {
        self.shared.table().neighbours().cloned().collect()
    }

    /// The neighbour with this address on this interface.
    pub fn neighbour(&self, interface: u32, address: IpAddr) -> Option<Neighbour> {
        self.shared.table().neighbour(interface, address).cloned()
    }

    /// Asks the kernel how it routes packets to `address`, so that policy rules are honoured (those
    /// that match on the destination: no source address, mark or interface is given). Of several
    /// equal paths the kernel picks one.
    pub async fn route_to(&self, address: IpAddr) -> Result<Route, NextHopError> {
        self.shared.requests.route_to(address).await
    }

    /// Makes the kernel resolve a neighbour and keep it resolved (`NTF_EXT_MANAGED`, Linux 5.16; an
    /// older kernel resolves it once, and a later call again).
    ///
    /// May be called any number of times. A permanent entry is left as it is: a request would take
    /// its permanence away (`__neigh_update` in `net/core/neighbour.c`), so the kernel is asked
    /// first and the table, which may be behind, is not trusted.
    pub async fn request_neighbour(
        &self,
        interface: u32,
        address: IpAddr,
    ) -> Result<(), NextHopError> {
        let known = self.shared.requests.neighbour(interface, address).await?;
        if known.is_some_and(|known| known.permanent || (known.usable && known.kept)) {
            return Ok(());
        }
        self.shared.requests.resolve(interface, address).await
    }

    /// Finds the next hop to `address`; with `on_link_only`, only if no router is in between.
    ///
    /// As a side effect the kernel is asked to keep the neighbour resolved, since packets that XDP
    /// sends do not show the kernel that the entry is in use.
    pub async fn resolve(
        &self,
        address: IpAddr,
        on_link_only: bool,
    ) -> Result<Resolution, NextHopError> {
        match self.next_hop(address, on_link_only).await? {
            Ok(next_hop) => Ok(Resolution::Resolved(next_hop)),
            Err(reason) => Ok(Resolution::Unresolved { reason }),
        }
    }

    async fn next_hop(
        &self,
        address: IpAddr,
        on_link_only: bool,
    ) -> Result<Result<NextHop, Unresolved>, NextHopError> {
        let route = match self.route_to(address).await {
            Ok(route) => route,
            Err(NextHopError::Unroutable(Unroutable::Local(address))) => {
                return Ok(Err(Unresolved::Local(address)));
            }
            Err(NextHopError::Unroutable(why)) => return Ok(Err(Unresolved::NoRoute(why))),
            Err(error) => return Err(error),
        };
        let interface = route.interface;
        if let (Some(gateway), true) = (route.gateway, on_link_only) {
            return Ok(Err(Unresolved::NotOnLink { gateway }));
        }
        let Some(link) = self.link(interface) else {
            return Ok(Err(Unresolved::LinkUnknown(interface)));
        };
        if !link.up {
            return Ok(Err(Unresolved::LinkDown(link.name)));
        }
        if !link.has_mac() {
            return Ok(Err(Unresolved::NoMac(link.name)));
        }
        let is_plain = |vlan: Vlan| {
            vlan.is_customer
                && self
                    .link(vlan.carrier)
                    .is_some_and(|link| link.vlan.is_none())
        };
        if link.vlan.is_some_and(|vlan| !is_plain(vlan)) {
            return Ok(Err(Unresolved::StackedVlan(link.name)));
        }
        let neighbour = route.gateway.unwrap_or(address);
        let known = self.neighbour(interface, neighbour);
        let Some(destination_mac) = known.as_ref().and_then(Neighbour::usable_mac) else {
            self.request_neighbour(interface, neighbour).await?;
            return Ok(Err(Unresolved::NeighbourUnknown {
                interface,
                neighbour,
            }));
        };
        if !known.is_some_and(|known| known.kept)
            && let Err(error) = self.request_neighbour(interface, neighbour).await
        {
            // It is usable now; that it may go stale is no reason to withhold it.
            tracing::warn!(%error, interface, %neighbour, "the kernel does not keep a neighbour");
        }
        Ok(Ok(NextHop {
            interface,
            neighbour,
            destination_mac,
            source_mac: link.mac,
            mtu: route.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu)),
        }))
    }
}

async fn follow(shared: Arc<Shared>, mut monitor: Monitor, changes: mpsc::Sender<Vec<Change>>) {
    let mut unreported = BTreeSet::new();
    loop {
        tokio::select! {
            first = monitor.next() => {
                let whole = take_in(&shared, &mut monitor, first, &mut unreported).await;
                if !whole {
                    tracing::warn!(
                        "notifications of the kernel were lost; listing links and neighbours again"
                    );
                    monitor = catch_up(&shared, &mut unreported).await;
                }
                if changes.is_closed() {
                    unreported.clear();
                }
            }
            permit = changes.reserve(), if !unreported.is_empty() => match permit {
                Ok(permit) => permit.send(std::mem::take(&mut unreported).into_iter().collect()),
                Err(_) => unreported.clear(),
            },
        }
    }
}

/// Takes in `first` and what comes together with it; `false` if some notifications were lost.
async fn take_in(
    shared: &Shared,
    monitor: &mut Monitor,
    first: Notice,
    unreported: &mut BTreeSet<Change>,
) -> bool {
    let until = Instant::now() + TOGETHER;
    let mut notice = first;
    loop {
        match notice {
            Notice::Message(message) => unreported.extend(shared.table_mut().apply(&message)),
            Notice::Lost => return false,
        }
        // What changes nothing (most neighbour state transitions) has nothing to wait with.
        if unreported.is_empty() {
            return true;
        }
        match timeout_at(until, monitor.next()).await {
            Ok(next) => notice = next,
            Err(_) => return true,
        }
    }
}

/// Subscribes anew and lists everything. The old subscription's remaining notices are left unread:
/// they are older than the list, and what undid them may be among the lost.
async fn catch_up(shared: &Shared, unreported: &mut BTreeSet<Change>) -> Monitor {
    let mut wait = RETRY.0;
    loop {
        let attempt = async {
            let monitor = Monitor::subscribe()?;
            let newer = shared.requests.table().await?;
            Ok::<_, NextHopError>((monitor, newer))
        };
        match attempt.await {
            Ok((monitor, newer)) => {
                unreported.extend(shared.table_mut().replace(newer));
                return monitor;
            }
            Err(error) => {
                tracing::error!(%error, "cannot follow the kernel's next hops; trying again");
                sleep(wait).await;
                wait = (wait * 2).min(RETRY.1);
            }
        }
    }
}
