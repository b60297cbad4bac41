//! Facts, and what must be found in them.

use super::*;
use crate::{bond::Bond, doctor::facts::Offloads};

/// What makes a fact that is well one that is not.
type Change<'c, Fact> = &'c dyn Fn(&mut Fact);

fn host() -> Host {
    Host {
        kernel: "6.18.4".to_owned(),
        machine: "x86_64".to_owned(),
        missing_options: Vec::new(),
        processors: 4,
        jit: Some(1),
        missing_capabilities: Vec::new(),
        memlock_bytes: None,
        bpffs: "/sys/fs/bpf".to_owned(),
        has_bpffs: true,
    }
}

fn link() -> Link {
    Link {
        is_up: true,
        mtu_bytes: 1500,
        xdp: Some(Xdp {
            mode: "driver".to_owned(),
            id: Some(7),
            name: Some("nlb".to_owned()),
            link_id: Some(3),
        }),
        forwards_v4: Some(true),
        forwards_v6: Some(true),
        rp_filter: Some(0),
        offloads: Offloads {
            gro: Some(true),
            lro: Some(false),
            rx_checksum: Some(true),
            rx_vlan: Some(true),
            queues: Some(4),
            most_queues: Some(8),
            queues_are_combined: true,
            ..Offloads::default()
        },
        ..Link::default()
    }
}

fn bond(mode: &str, hash_policy: &str) -> Bond {
    Bond {
        mode: mode.to_owned(),
        hash_policy: hash_policy.to_owned(),
        members: vec!["eth1".to_owned(), "eth2".to_owned()],
    }
}

fn target() -> Target {
    Target {
        group: "web".to_owned(),
        mode: "nat".to_owned(),
        address: "10.0.0.11:80".parse().unwrap(),
        overhead_bytes: 0,
        way: Way::Known {
            interface: "eth1".to_owned(),
            mtu_bytes: 1500,
        },
    }
}

/// What is found when one thing is otherwise than it should be: check, subject and command.
fn found(host: Host, link: Link, target: Target) -> Vec<(&'static str, String, Option<String>)> {
    let facts = Facts {
        daemon_answers: true,
        host,
        interfaces: vec![Interface {
            name: "eth0".to_owned(),
            link: Some(link),
        }],
        targets: vec![target],
    };
    judge(&facts)
        .into_iter()
        .map(|finding| (finding.check, finding.subject, finding.mend))
        .collect()
}

#[test]
fn a_host_where_all_is_well_has_no_finding() {
    assert_eq!(found(host(), link(), target()), []);
}

#[test]
fn each_thing_that_is_wrong_with_the_host_is_one_finding() {
    let wrongs: [(Change<'_, Host>, &str, Option<&str>); 8] = [
        (
            &|it| "5.10.0-30-amd64".clone_into(&mut it.kernel),
            "kernel",
            Some("linux-image-amd64"),
        ),
        (
            &|it| "6.0.1".clone_into(&mut it.kernel),
            "kernel",
            Some("apt-get"),
        ),
        (
            &|it| "aarch64".clone_into(&mut it.machine),
            "processor",
            None,
        ),
        (
            &|it| it.missing_options = vec!["CONFIG_BPF_JIT"],
            "kernel_options",
            Some("apt-get"),
        ),
        (
            &|it| it.jit = Some(0),
            "jit",
            Some("net.core.bpf_jit_enable=1"),
        ),
        (
            &|it| it.missing_capabilities = vec!["CAP_BPF"],
            "capabilities",
            Some("sudo"),
        ),
        (
            &|it| it.has_bpffs = false,
            "bpffs",
            Some("mount -t bpf bpf /sys/fs/bpf"),
        ),
        (&|it| it.jit = None, "", None),
    ];
    for (change, check, mend) in wrongs {
        let mut changed = host();
        change(&mut changed);
        let found = found(changed, link(), target());
        let checks: Vec<_> = found.iter().map(|(check, ..)| *check).collect();
        let wanted = if check.is_empty() {
            vec![]
        } else {
            vec![check]
        };
        assert_eq!(checks, wanted);
        if let Some((.., command)) = found.first() {
            assert_eq!(command.is_some(), mend.is_some(), "{check}");
            assert!(
                mend.is_none_or(|part| command.as_ref().unwrap().contains(part)),
                "{found:?}"
            );
        }
    }
    // Locked memory matters where the kernel counts maps as such.
    let mut old = host();
    old.memlock_bytes = Some(65536);
    assert_eq!(found(old.clone(), link(), target()), []);
    "5.10.0".clone_into(&mut old.kernel);
    let found = found(old, link(), target());
    assert!(
        found.iter().any(|(check, ..)| *check == "memlock"),
        "{found:?}"
    );
}

#[test]
fn each_thing_that_is_wrong_with_an_interface_is_one_finding_with_a_command() {
    let generic = |it: &mut Link| {
        if let Some(xdp) = &mut it.xdp {
            "generic".clone_into(&mut xdp.mode);
        }
        it.offloads.gro = Some(false);
    };
    let wrongs: [(Change<'_, Link>, &str, &str); 13] = [
        (
            &|it| it.is_up = false,
            "interface",
            "ip link set dev eth0 up",
        ),
        (
            &|it| it.forwards_v4 = Some(false),
            "forwarding",
            "sysctl -w net.ipv4.ip_forward=1",
        ),
        (
            &|it| it.forwards_v6 = Some(false),
            "forwarding",
            "sysctl -w net.ipv6.conf.all.forwarding=1",
        ),
        (
            &|it| it.rp_filter = Some(1),
            "rp_filter",
            "sysctl -w net.ipv4.conf.all.rp_filter=2",
        ),
        (
            &|it| it.offloads.lro = Some(true),
            "lro",
            "ethtool -K eth0 lro off",
        ),
        (
            &|it| it.has_vlans = true,
            "vlan_offload",
            "ethtool -K eth0 rxvlan off txvlan off",
        ),
        (
            &|it| it.offloads.rx_checksum = Some(false),
            "rx_checksum",
            "ethtool -K eth0 rx on",
        ),
        (
            &|it| it.offloads.queues = Some(1),
            "queues",
            "ethtool -L eth0 combined 4",
        ),
        (
            &|it| {
                generic(it);
                it.offloads.gro = Some(true);
            },
            "gro",
            "ethtool -K eth0 gro off",
        ),
        (
            &|it| it.xdp.as_mut().unwrap().name = Some("other".to_owned()),
            "other_xdp",
            "bpftool link detach id 3",
        ),
        (
            &|it| {
                let xdp = it.xdp.as_mut().unwrap();
                xdp.name = Some("other".to_owned());
                xdp.link_id = None;
            },
            "other_xdp",
            "ip link set dev eth0 xdp off",
        ),
        (
            &|it| it.bond = Some(bond("802.3ad", "vlan+srcmac")),
            "bond",
            "ip link set dev eth0 type bond xmit_hash_policy layer3+4",
        ),
        (
            &|it| {
                generic(it);
                it.mtu_bytes = 9000;
            },
            "xdp_mode",
            "ip link set dev eth0 mtu 3498",
        ),
    ];
    for (change, check, mend) in wrongs {
        let mut changed = link();
        change(&mut changed);
        let found = found(host(), changed, target());
        let it = found.iter().find(|(found, ..)| *found == check);
        let (_, subject, command) = it.unwrap_or_else(|| panic!("no {check} in {found:?}"));
        assert_eq!((subject.as_str(), command.as_deref()), ("eth0", Some(mend)));
        // Generic mode is itself worth a word, and a wider interface makes the others narrow.
        let others = ["xdp_mode", "mtu"];
        assert!(
            found
                .iter()
                .all(|(it, ..)| *it == check || others.contains(it)),
            "{found:?}"
        );
    }
}

#[test]
fn nlb_belongs_on_a_bond_and_not_on_its_members() {
    let of = |link| {
        let found = judge(&Facts {
            daemon_answers: true,
            host: host(),
            interfaces: vec![Interface {
                name: "eth0".to_owned(),
                link: Some(link),
            }],
            targets: vec![target()],
        });
        let told = found.into_iter();
        told.map(|it| (it.severity, it.check, it.found))
            .collect::<Vec<_>>()
    };
    let is_bond = |bond| Link {
        bond: Some(bond),
        ..link()
    };
    assert_eq!(of(is_bond(bond("802.3ad", "layer3+4"))), []);
    assert_eq!(
        of(is_bond(bond("broadcast", "layer2"))),
        [(
            Severity::Advice,
            "bond",
            "mode broadcast: the bonding driver runs no XDP program there".to_owned()
        )]
    );
    assert_eq!(
        of(Link {
            member_of: Some("bond0".to_owned()),
            ..link()
        }),
        [(
            Severity::Problem,
            "bond",
            "it is a member of bond0: name bond0 in node.interfaces instead".to_owned()
        )]
    );
}

#[test]
fn ways_that_are_not_there_or_too_narrow_are_findings() {
    let neighbour = "10.0.0.11".parse().unwrap();
    let eth1 = || "eth1".to_owned();
    for (way, check, mend) in [
        (
            Way::NoNeighbour {
                interface: eth1(),
                neighbour,
            },
            "neighbour",
            Some("ip neigh replace 10.0.0.11 lladdr MAC dev eth1"),
        ),
        (
            Way::Down { interface: eth1() },
            "route",
            Some("ip link set dev eth1 up"),
        ),
        (Way::Routed { gateway: neighbour }, "route", None),
        (
            Way::None {
                reason: "no route".to_owned(),
            },
            "route",
            Some("ip -4 route add 10.0.0.11 via GATEWAY"),
        ),
        (
            Way::Known {
                interface: eth1(),
                mtu_bytes: 1499,
            },
            "mtu",
            Some("ip link set dev eth1 mtu 1500"),
        ),
    ] {
        let found = found(host(), link(), Target { way, ..target() });
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].0, found[0].2.as_deref()), (check, mend));
    }
    // A tunnel's headers need room, too.
    let tunnelled = Target {
        overhead_bytes: 20,
        ..target()
    };
    let found = found(host(), link(), tunnelled);
    assert_eq!(found[0].2.as_deref(), Some("ip link set dev eth1 mtu 1520"));
}

#[test]
fn problems_come_first() {
    let facts = Facts {
        daemon_answers: false,
        host: Host {
            has_bpffs: false,
            ..host()
        },
        interfaces: vec![Interface {
            name: "eth9".to_owned(),
            link: None,
        }],
        targets: Vec::new(),
    };
    let findings = judge(&facts);
    let checks: Vec<_> = findings.iter().map(|finding| finding.check).collect();
    assert_eq!(checks, ["bpffs", "interface", "daemon"]);
    assert!(findings.iter().all(|finding| !finding.breaks.is_empty()));
}
