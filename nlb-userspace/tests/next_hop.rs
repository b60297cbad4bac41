//! Next hops against the real kernel: two network namespaces joined by a veth pair.
//!
//! `near` is the daemon's side, where the test's thread lives; `far` plays target and routers. Every
//! wait is for a condition, and bounded.

use std::{
    fs::File,
    net::IpAddr,
    os::fd::AsFd,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use nlb_userspace::next_hop::{
    Change, NextHop, NextHopError, Resolution, Unresolved, Unroutable, Watch, forwarding,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, timeout_at},
};

const WITHIN: Duration = Duration::from_secs(5);
const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x22];
const NEAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x11];

fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {stderr}");
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The refusal expected for an address.
type Why = fn(IpAddr) -> Unroutable;

/// Two namespaces, deleted on drop; interfaces `near.0` (a dot on purpose) and `far0`.
struct Lab {
    near: String,
    far: String,
}

impl Lab {
    fn build() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!(
            "{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let lab = Self {
            near: format!("nlb-near-{id}"),
            far: format!("nlb-far-{id}"),
        };
        let (near, far) = (&lab.near, &lab.far);
        ip(&format!("netns add {near}"));
        ip(&format!("netns add {far}"));
        ip(&format!(
            "-n {near} link add near.0 address 02:00:00:00:00:11 mtu 1400 type veth \
             peer name far0 address 02:00:00:00:00:22 netns {far}"
        ));
        lab.near("link set lo up");
        lab.near("addr add 198.51.100.1/24 broadcast 198.51.100.255 dev near.0");
        lab.near("addr add 2001:db8::1/64 dev near.0 nodad");
        lab.near("link set near.0 up");
        for own in ["198.51.100.2/24", "198.51.100.3/24"] {
            lab.far(&format!("addr add {own} dev far0"));
        }
        lab.far("addr add 2001:db8::2/64 dev far0 nodad");
        lab.far("link set far0 up");
        lab
    }

    fn near(&self, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.near));
    }

    fn far(&self, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.far));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in [&self.near, &self.far] {
            drop(
                Command::new("ip")
                    .args(["netns", "del", namespace])
                    .output(),
            );
        }
    }
}

/// The daemon's view, and the changes it is told of.
struct View {
    watch: Watch,
    receiver: Receiver<Vec<Change>>,
}

impl View {
    async fn hears(&mut self, what: &str, wanted: impl Fn(&Change) -> bool) {
        let deadline = Instant::now() + WITHIN;
        loop {
            let batch = timeout_at(deadline, self.receiver.recv())
                .await
                .unwrap_or_else(|_| panic!("no change of {what} within {WITHIN:?}"))
                .expect("the watch ended");
            if batch.iter().any(&wanted) {
                return;
            }
        }
    }

    /// Resolves again upon every change until the answer is as wanted, as the daemon does.
    async fn until(&mut self, to: &str, wanted: impl Fn(&Resolution) -> bool) -> Resolution {
        let deadline = Instant::now() + WITHIN;
        loop {
            let resolution = self.watch.resolve(address(to), false).await.unwrap();
            if wanted(&resolution) {
                return resolution;
            }
            timeout_at(deadline, self.receiver.recv())
                .await
                .unwrap_or_else(|_| panic!("{to} stays {resolution:?} for {WITHIN:?}"));
        }
    }

    async fn next_hop(&mut self, to: &str) -> NextHop {
        match self
            .until(to, |now| matches!(now, Resolution::Resolved(_)))
            .await
        {
            Resolution::Resolved(next_hop) => next_hop,
            Resolution::Unresolved { reason } => panic!("{reason}"),
        }
    }

    async fn reason(&self, to: &str, on_link_only: bool) -> Unresolved {
        match self.watch.resolve(address(to), on_link_only).await.unwrap() {
            Resolution::Unresolved { reason } => reason,
            Resolution::Resolved(next_hop) => panic!("{next_hop:?}"),
        }
    }

    fn interface(&self) -> u32 {
        self.watch.link_named("near.0").unwrap().index
    }
}

/// Runs a claim inside the near namespace, on a thread of its own since a namespace is a thread's.
fn in_lab(claim: impl AsyncFnOnce(&Lab, View) + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED next_hop: not root");
        return;
    }
    let lab = Lab::build();
    let inside = move || {
        let namespace = File::open(format!("/run/netns/{}", lab.near)).unwrap();
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (watch, receiver) = Watch::start().await.unwrap();
            claim(&lab, View { watch, receiver }).await;
        });
    };
    if let Err(panic) = std::thread::spawn(inside).join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn an_on_link_address_is_resolved_by_arp_and_ndp() {
    in_lab(async |_, mut view| {
        for target in ["198.51.100.2", "2001:db8::2"] {
            let expected = NextHop {
                interface: view.interface(),
                neighbour: address(target),
                destination_mac: FAR_MAC,
                source_mac: NEAR_MAC,
                mtu: 1400,
            };
            assert_eq!(view.next_hop(target).await, expected);
            let on_link = view.watch.resolve(address(target), true).await.unwrap();
            assert_eq!(on_link, Resolution::Resolved(expected));
            let neighbour = view
                .watch
                .neighbour(expected.interface, address(target))
                .unwrap();
            assert!(
                neighbour.usable && neighbour.kept && !neighbour.permanent,
                "{neighbour:?}"
            );
        }
        let route = view.watch.route_to(address("198.51.100.2")).await.unwrap();
        assert_eq!(route.preferred_source, Some(address("198.51.100.1")));
        assert_eq!((route.gateway, route.mtu), (None, None));
    });
}

#[test]
fn a_routed_address_takes_the_routers_mac_and_a_replaced_route_leads_to_another_router() {
    in_lab(async |lab, mut view| {
        lab.near("route add 203.0.113.0/24 via 198.51.100.2 mtu 1300");
        let next_hop = view.next_hop("203.0.113.7").await;
        assert_eq!(next_hop.neighbour, address("198.51.100.2"));
        assert_eq!((next_hop.destination_mac, next_hop.mtu), (FAR_MAC, 1300));
        let gateway = address("198.51.100.2");
        assert_eq!(
            view.reason("203.0.113.7", true).await,
            Unresolved::NotOnLink { gateway }
        );

        lab.near("route replace 203.0.113.0/24 via 198.51.100.3");
        view.hears("routes", |change| *change == Change::Routes)
            .await;
        let other = |now: &Resolution| match now {
            Resolution::Resolved(hop) => hop.neighbour == address("198.51.100.3"),
            Resolution::Unresolved { .. } => false,
        };
        let Resolution::Resolved(next_hop) = view.until("203.0.113.7", other).await else {
            unreachable!("`other` takes only resolved ones");
        };
        assert_eq!((next_hop.destination_mac, next_hop.mtu), (FAR_MAC, 1400));
    });
}

#[test]
fn a_policy_rule_decides_and_its_change_is_heard() {
    in_lab(async |lab, mut view| {
        lab.near("route add 203.0.113.0/24 via 198.51.100.2");
        lab.near("route add 203.0.113.0/24 via 198.51.100.3 table 100");
        let gateway = view
            .watch
            .route_to(address("203.0.113.7"))
            .await
            .unwrap()
            .gateway;
        assert_eq!(gateway, Some(address("198.51.100.2")));
        view.hears("routes", |change| *change == Change::Routes)
            .await;
        lab.near("rule add to 203.0.113.0/24 lookup 100");
        view.hears("rules", |change| *change == Change::Routes)
            .await;
        let gateway = view
            .watch
            .route_to(address("203.0.113.7"))
            .await
            .unwrap()
            .gateway;
        assert_eq!(gateway, Some(address("198.51.100.3")));
    });
}

#[test]
fn a_neighbours_new_mac_is_heard_and_used() {
    in_lab(async |lab, mut view| {
        let target = address("198.51.100.2");
        assert_eq!(view.next_hop("198.51.100.2").await.destination_mac, FAR_MAC);
        let interface = view.interface();
        // The far side announces its new MAC by a gratuitous ARP, as after a failover.
        ip(&format!(
            "netns exec {} sysctl -qw net.ipv4.conf.far0.arp_notify=1",
            lab.far
        ));
        lab.far("link set far0 address 02:00:00:00:00:33");
        view.hears("the neighbour", |change| {
            *change == Change::Neighbour(interface, target)
        })
        .await;
        let renewed = [2, 0, 0, 0, 0, 0x33];
        let new = |now: &Resolution| match now {
            Resolution::Resolved(hop) => hop.destination_mac == renewed,
            Resolution::Unresolved { .. } => false,
        };
        view.until("198.51.100.2", new).await;
    });
}

#[test]
fn a_lost_carrier_is_link_down_and_its_return_resolves_again() {
    in_lab(async |lab, mut view| {
        view.next_hop("198.51.100.2").await;
        let interface = view.interface();
        lab.far("link set far0 down");
        view.hears("the link", |change| *change == Change::Link(interface))
            .await;
        let reason = Unresolved::LinkDown("near.0".to_owned());
        view.until("198.51.100.2", |now| {
            *now == Resolution::Unresolved {
                reason: reason.clone(),
            }
        })
        .await;
        lab.far("link set far0 up");
        view.next_hop("198.51.100.2").await;
    });
}

#[test]
fn a_link_set_down_takes_its_routes_and_says_so() {
    in_lab(async |lab, mut view| {
        view.next_hop("198.51.100.2").await;
        lab.near("link set near.0 down");
        view.hears("routes", |change| *change == Change::Routes)
            .await;
        let reason = Unresolved::NoRoute(Unroutable::NoRoute(address("198.51.100.2")));
        view.until("198.51.100.2", |now| {
            *now == Resolution::Unresolved {
                reason: reason.clone(),
            }
        })
        .await;
        assert!(!view.watch.link_named("near.0").unwrap().enabled);
    });
}

#[test]
fn destinations_without_a_next_hop_say_why() {
    in_lab(async |lab, view| {
        for (kind, v4, v6) in [
            ("unreachable", "203.0.113.0/24", "2001:db8:1::/64"),
            ("blackhole", "192.0.2.0/24", "2001:db8:2::/64"),
            ("prohibit", "10.0.0.0/8", "2001:db8:3::/64"),
        ] {
            lab.near(&format!("route add {kind} {v4}"));
            lab.near(&format!("route add {kind} {v6}"));
        }
        let refused: [(&str, Why); 11] = [
            ("203.0.113.1", Unroutable::Unreachable),
            ("2001:db8:1::1", Unroutable::Unreachable),
            ("192.0.2.1", Unroutable::Blackhole),
            ("2001:db8:2::1", Unroutable::Blackhole),
            ("10.0.0.1", Unroutable::Prohibited),
            ("2001:db8:3::1", Unroutable::Prohibited),
            ("172.16.0.1", Unroutable::NoRoute),
            ("2001:db9::1", Unroutable::NoRoute),
            ("198.51.100.1", Unroutable::Local),
            ("2001:db8::1", Unroutable::Local),
            ("198.51.100.255", Unroutable::NotUnicast),
        ];
        for (to, why) in refused {
            match view.watch.route_to(address(to)).await {
                Err(NextHopError::Unroutable(unroutable)) => {
                    assert_eq!(unroutable, why(address(to)), "{to}");
                }
                other => panic!("{to}: {other:?}"),
            }
        }
        let local = address("198.51.100.1");
        assert_eq!(
            view.reason("198.51.100.1", false).await,
            Unresolved::Local(local)
        );
    });
}

#[test]
fn a_permanent_neighbour_stays_permanent() {
    in_lab(async |lab, mut view| {
        let (interface, target) = (view.interface(), address("198.51.100.9"));
        lab.near("neigh add 198.51.100.9 lladdr 02:00:00:00:00:99 dev near.0 nud permanent");
        for _ in 0..3 {
            view.watch
                .request_neighbour(interface, target)
                .await
                .unwrap();
        }
        assert_eq!(
            view.next_hop("198.51.100.9").await.destination_mac,
            [2, 0, 0, 0, 0, 0x99]
        );
        let (fresh, _) = Watch::start().await.unwrap();
        assert!(fresh.neighbour(interface, target).unwrap().permanent);
    });
}

#[test]
fn a_neighbour_that_does_not_answer_is_unknown() {
    in_lab(async |_, mut view| {
        view.next_hop("198.51.100.2").await;
        let (interface, neighbour) = (view.interface(), address("198.51.100.77"));
        let unknown = Unresolved::NeighbourUnknown {
            interface,
            neighbour,
        };
        assert_eq!(view.reason("198.51.100.77", false).await, unknown);
        assert_eq!(view.reason("198.51.100.77", false).await, unknown);
    });
}

#[test]
fn after_a_storm_that_loses_notifications_the_table_is_as_the_kernel_has_it() {
    // About twice what the receive buffer takes while nobody reads it.
    const ROUNDS: u8 = 80;
    const HOSTS: u16 = 500;
    let host = |index: u16| format!("10.9.{}.{}", index / 250, index % 250);
    in_lab(async move |lab, mut view| {
        let interface = view.interface();
        let replace = |round, index| {
            let target = host(index);
            format!(
                "neigh replace {target} lladdr 02:00:00:{round:02x}:00:01 dev near.0 nud permanent"
            )
        };
        let mut batch: Vec<String> = (0..ROUNDS)
            .flat_map(|round| (0..HOSTS).map(move |index| replace(round, index)))
            .collect();
        // What a lost deletion leaves behind must go, too.
        batch.push(format!("neigh del {} dev near.0", host(0)));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("batch");
        std::fs::write(&file, batch.join("\n") + "\n").unwrap();
        lab.near(&format!("-batch {}", file.display()));
        let right = |watch: &Watch| {
            let mac = |index| watch.neighbour(interface, address(&host(index)))?.mac;
            let last = Some([2, 0, 0, ROUNDS - 1, 0, 1]);
            mac(0).is_none() && (1..HOSTS).all(|index| mac(index) == last)
        };
        // Nothing happens to the loopback link, so only a loss reports it as changed.
        let loopback = Change::Link(view.watch.link_named("lo").unwrap().index);
        let mut lost = false;
        let deadline = Instant::now() + WITHIN;
        while !(lost && right(&view.watch)) {
            let batch = timeout_at(deadline, view.receiver.recv())
                .await
                .unwrap_or_else(|_| panic!("the table stays behind; loss seen: {lost}"));
            lost |= batch.unwrap().contains(&loopback);
        }
    });
}

#[test]
fn forwarding_is_read_per_interface_and_family() {
    in_lab(async |_, _| {
        for (family, value) in [("ipv4", "1"), ("ipv6", "0")] {
            let file = format!("/proc/sys/net/{family}/conf/near.0/forwarding");
            std::fs::write(file, value).unwrap();
        }
        assert_eq!(forwarding("near.0", false), Some(true));
        assert_eq!(forwarding("near.0", true), Some(false));
        assert_eq!(forwarding("absent", false), None);
    });
}
