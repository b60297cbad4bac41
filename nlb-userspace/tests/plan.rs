//! Plans, proved by packets: every prefix of every plan leaves traffic flowing, and what is live in
//! the end is what was wished.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use nlb_common::{
    address::Address,
    admission::AdmissionPolicy,
    hash::Key,
    listener::{HashInput, ListenerId, ListenerKey, Stranded},
    maps::Side,
    next_hop::{MacPair, NextHop, NextHopId, VlanId},
    stop::Stop,
    target::{Mode, TargetId},
    tunnel::Tunnel,
    wire::{ethernet::MacAddress, protocol},
    word::Word,
};
use nlb_ebpf::{
    Verdict, handle,
    memory::{MemoryFrame, MemoryTables},
};
use nlb_userspace::{
    config::{IpVersion, SourceRule},
    dataplane::{Dataplane as _, Step, sweep::Sweep},
    plan::{
        Actual, Limits, PlanError, Planned, Wish, WishedAdmission, WishedForward, WishedGroup,
        WishedListener, WishedRing, WishedTarget, fingerprint, fits, is_tidy, plan, plan_groups,
        retire,
    },
    source_rules::Compiler,
};
use proptest::prelude::*;
use zerocopy::big_endian::U16;

const LIMITS: Limits = Limits {
    listeners: 64,
    targets: 64,
    groups: 8,
};
/// For several wishes one after the other: nothing is retired in between, so that ids are used up.
const ROOM: Limits = Limits {
    groups: 32,
    ..LIMITS
};
const HOP: NextHopId = NextHopId(1);

fn vip(last: u8) -> ListenerKey {
    let address = Address::from(IpAddr::from([192, 0, 2, last]));
    ListenerKey::new(address, protocol::TCP, U16::new(80))
}

fn target(last: u8) -> WishedTarget {
    WishedTarget {
        address: IpAddr::from([10, 0, 0, last]),
        port: 8080,
        weight: 1,
        resets_flows: false,
        next_hop: HOP,
    }
}

fn group(name: &str, targets: &[u8]) -> WishedGroup {
    WishedGroup {
        fingerprint: fingerprint(name),
        mode: Mode::NAT,
        terminates_removed: false,
        tunnel: None,
        targets: targets.iter().copied().map(target).collect(),
        quic: None,
    }
}

fn tunnel(port: u16) -> Tunnel {
    Tunnel {
        source_v4: Address::from(IpAddr::from([10, 0, 0, 1])),
        source_v6: Address::UNSPECIFIED,
        spread_v4: [0; 4],
        spread_v6: [0; 8],
        port: U16::new(port),
        network: [0; 3],
        has_entropy: true,
    }
}

fn listener(last: u8, group: usize) -> WishedListener {
    WishedListener {
        key: vip(last),
        ring: WishedRing::Group(group),
        idle_ticks: 100,
        stray: Stranded::RESET,
        expired: Stranded::RESET,
        mss_clamp_bytes: 0,
        hash_input: HashInput::FiveTuple,
        admission: WishedAdmission::default(),
        answers_echo: true,
    }
}

/// A SYN from a client's port to a VIP, with enough of a header to be read.
fn syn(port: u16, vip: u8) -> MemoryFrame {
    let mut bytes = vec![0xa5; 14 + 20 + 20];
    bytes[12..14].copy_from_slice(&[0x08, 0x00]);
    bytes[14..18].copy_from_slice(&[0x45, 0, 0, 40]);
    bytes[20..24].copy_from_slice(&[0, 0, 64, protocol::TCP]);
    bytes[26..30].copy_from_slice(&[198, 51, 100, 7]);
    bytes[30..34].copy_from_slice(&[192, 0, 2, vip]);
    bytes[34..36].copy_from_slice(&port.to_be_bytes());
    bytes[36..38].copy_from_slice(&80u16.to_be_bytes());
    bytes[46] = 5 << 4;
    bytes[47] = 2;
    MemoryFrame::new(bytes, 1)
}

fn tables() -> MemoryTables {
    let key = |purpose| Key::derive(&[7; 32], purpose);
    let tables = MemoryTables::new(key(1), key(2), 1024);
    tables.next_hops[usize::from(HOP.0)].write(&NextHop {
        macs: MacPair::new(
            MacAddress([2, 0, 0, 0, 0, 1]),
            MacAddress([2, 0, 0, 0, 0, 2]),
        ),
        interface: 2,
        mtu_bytes: 1500,
        vlan: VlanId::NONE,
    });
    tables
}

/// Where a new flow to a VIP goes.
fn destination(tables: &MemoryTables, port: u16, vip: u8) -> Option<Ipv4Addr> {
    let mut frame = syn(port, vip);
    let verdict = handle(&mut frame, tables);
    (verdict == Verdict::Redirect(2)).then(|| {
        let [a, b, c, d] = [
            frame.bytes[30],
            frame.bytes[31],
            frame.bytes[32],
            frame.bytes[33],
        ];
        Ipv4Addr::new(a, b, c, d)
    })
}

fn take(tables: &mut MemoryTables, actual: &mut Actual, planned: &Planned) {
    tables.take(&planned.step).unwrap();
    actual.note(&planned.step);
    if let Some(ring) = &planned.ring {
        actual.note_ring(ring.clone());
    }
}

fn apply(tables: &mut MemoryTables, actual: &mut Actual, wish: &Wish) -> usize {
    apply_within(LIMITS, tables, actual, wish)
}

fn apply_within(
    limits: Limits,
    tables: &mut MemoryTables,
    actual: &mut Actual,
    wish: &Wish,
) -> usize {
    let steps = plan(actual, wish, limits).unwrap();
    for planned in &steps {
        take(tables, actual, planned);
    }
    steps.len()
}

fn broken(tables: &MemoryTables) -> u64 {
    [
        Stop::UnwrittenListener,
        Stop::UnwrittenTarget,
        Stop::UnwrittenTunnel,
    ]
    .map(|stop| tables.stops(stop))
    .iter()
    .sum()
}

#[test]
fn the_same_wish_again_takes_no_step() {
    let (mut tables, mut actual) = (tables(), Actual::default());
    let wish = Wish {
        listeners: vec![listener(1, 0)],
        groups: vec![group("web", &[1, 2])],
        ..Wish::default()
    };
    assert!(apply(&mut tables, &mut actual, &wish) > 0);
    assert_eq!(actual.generation, 1);
    assert_eq!(apply(&mut tables, &mut actual, &wish), 0);
    assert_eq!(actual.generation, 1);
}

#[test]
fn a_target_that_takes_no_new_flows_leaves_the_ring_and_keeps_its_id() {
    let (mut tables, mut actual) = (tables(), Actual::default());
    let mut wish = Wish {
        listeners: vec![listener(1, 0)],
        groups: vec![group("web", &[1, 2])],
        ..Wish::default()
    };
    apply(&mut tables, &mut actual, &wish);
    let before = actual.target_id(&wish.groups[0], IpAddr::from([10, 0, 0, 2]), 8080);
    wish.groups[0].targets[1].weight = 0;
    let steps = plan(&actual, &wish, LIMITS).unwrap();
    assert!(
        matches!(
            steps.as_slice(),
            [
                Planned {
                    step: Step::ControlTarget { .. },
                    ..
                },
                Planned {
                    step: Step::ReplaceRing { .. },
                    ..
                },
                Planned {
                    step: Step::Publish { generation: 2 },
                    ..
                }
            ]
        ),
        "{:?}",
        steps.len()
    );
    for planned in &steps {
        take(&mut tables, &mut actual, planned);
    }
    for port in 0..200 {
        assert_eq!(
            destination(&tables, port, 1),
            Some(Ipv4Addr::new(10, 0, 0, 1))
        );
    }
    let after = actual.target_id(&wish.groups[0], IpAddr::from([10, 0, 0, 2]), 8080);
    assert_eq!(before, after);
}

#[test]
fn a_removed_listener_keeps_its_record_until_no_flow_needs_it() {
    let (mut tables, mut actual) = (tables(), Actual::default());
    let both = Wish {
        listeners: vec![listener(1, 0), listener(2, 0)],
        groups: vec![group("web", &[1])],
        ..Wish::default()
    };
    apply(&mut tables, &mut actual, &both);
    assert!(destination(&tables, 7, 2).is_some());
    let one = Wish {
        listeners: vec![listener(1, 0)],
        groups: both.groups.clone(),
        ..Wish::default()
    };
    apply(&mut tables, &mut actual, &one);
    // New flows find nothing and pass on; the old one goes on.
    assert_eq!(handle(&mut syn(8, 2), &tables), Verdict::Pass);
    assert!(destination(&tables, 7, 2).is_some());

    let id = actual.listener_id(&vip(2)).unwrap();
    let idle = Sweep {
        by_listener: vec![0; 64],
        by_target: vec![0; 64],
        ..Sweep::default()
    };
    let mut busy = idle.clone();
    busy.by_listener[usize::from(id.0)] = 1;
    busy.by_target[1] = 1;
    assert_eq!(retire(&actual, &one, [&busy, &idle]), vec![]);
    assert_eq!(
        retire(&actual, &one, [&Sweep::default(), &idle]),
        vec![],
        "nothing was swept yet"
    );
    let steps = retire(&actual, &one, [&idle, &idle]);
    assert!(steps.contains(&Step::ClearListener { id }));
    assert!(
        !steps
            .iter()
            .any(|step| matches!(step, Step::ClearTarget { .. }))
    );
    for step in &steps {
        tables.take(step).unwrap();
        actual.note(step);
    }
    assert_eq!(actual.listener_id(&vip(2)), None);
    // The bits of what is left are all still there.
    assert!(destination(&tables, 9, 1).is_some());
}

#[test]
fn a_group_that_changes_its_mode_gets_new_targets_and_old_flows_keep_theirs() {
    let (mut tables, mut actual) = (tables(), Actual::default());
    let mut wish = Wish {
        listeners: vec![listener(1, 0)],
        groups: vec![group("web", &[1])],
        ..Wish::default()
    };
    apply(&mut tables, &mut actual, &wish);
    assert!(destination(&tables, 7, 1).is_some());
    wish.groups[0].mode = Mode::DSR_L2;
    apply(&mut tables, &mut actual, &wish);
    let mut later = syn(7, 1);
    later.bytes[47] = 16;
    assert_eq!(handle(&mut later, &tables), Verdict::Redirect(2));
    assert_eq!(later.bytes[30..34], [10, 0, 0, 1], "old flow");
    assert_eq!(
        destination(&tables, 8, 1),
        Some(Ipv4Addr::new(192, 0, 2, 1)),
        "new flow"
    );
}

#[test]
fn a_client_that_opens_its_flow_anew_leaves_a_target_that_was_taken_out() {
    let (mut tables, mut actual) = (tables(), Actual::default());
    let mut wish = Wish {
        listeners: vec![listener(1, 0)],
        groups: vec![group("web", &[1, 2])],
        ..Wish::default()
    };
    apply(&mut tables, &mut actual, &wish);
    let first = destination(&tables, 7, 1);
    let gone = first.unwrap().octets()[3];
    wish.groups[0]
        .targets
        .retain(|target| target.address != IpAddr::from([10, 0, 0, gone]));
    apply(&mut tables, &mut actual, &wish);
    let second = destination(&tables, 7, 1);
    assert!(
        second.is_some() && second != first,
        "{first:?} then {second:?}"
    );
    assert_eq!(apply(&mut tables, &mut actual, &wish), 0);
}

/// What a segment without SYN meets.
fn later(tables: &MemoryTables, port: u16, vip: u8) -> Verdict {
    let mut frame = syn(port, vip);
    frame.bytes[47] = 16;
    // To one host, or nobody would be answered.
    frame.bytes[0] = 2;
    handle(&mut frame, tables)
}

#[test]
fn flows_of_a_removed_target_end_where_its_group_says_so_and_not_before_the_ring_changed() {
    let (mut tables, mut actual) = (tables(), Actual::default());
    let mut wish = Wish {
        sources: Vec::new(),
        listeners: vec![listener(1, 0)],
        groups: vec![group("web", &[1])],
        forwards: Vec::new(),
    };
    wish.groups[0].terminates_removed = true;
    apply(&mut tables, &mut actual, &wish);
    assert!(destination(&tables, 7, 1).is_some());
    // In another mode it is still there.
    wish.groups[0].mode = Mode::DSR_L2;
    apply(&mut tables, &mut actual, &wish);
    assert_eq!(later(&tables, 7, 1), Verdict::Redirect(2));
    wish.groups[0] = WishedGroup {
        terminates_removed: true,
        ..group("web", &[2])
    };
    let steps = plan(&actual, &wish, LIMITS).unwrap();
    let at = |what: fn(&Step) -> bool| steps.iter().position(|planned| what(&planned.step));
    let ring = at(|step| matches!(step, Step::ReplaceRing { .. })).unwrap();
    let end =
        at(|step| matches!(step, Step::ControlTarget { control, .. } if control.resets_flows));
    assert!(end.unwrap() > ring);
    apply(&mut tables, &mut actual, &wish);
    assert_eq!(later(&tables, 7, 1), Verdict::Transmit, "a reset");
    // Registered again, it keeps what it has.
    wish.groups[0] = group("web", &[1, 2]);
    apply(&mut tables, &mut actual, &wish);
    assert_eq!(later(&tables, 7, 1), Verdict::Redirect(2));
}

#[test]
fn flows_of_an_unfit_target_end_unless_it_takes_new_ones() {
    let (mut tables, mut actual) = (tables(), Actual::default());
    let mut wish = Wish {
        sources: Vec::new(),
        listeners: vec![listener(1, 0)],
        groups: vec![group("web", &[1])],
        forwards: Vec::new(),
    };
    apply(&mut tables, &mut actual, &wish);
    assert!(destination(&tables, 7, 1).is_some());
    // As in fail-open.
    wish.groups[0].targets[0].resets_flows = true;
    assert_eq!(apply(&mut tables, &mut actual, &wish), 0);
    assert_eq!(later(&tables, 7, 1), Verdict::Redirect(2));
    wish.groups[0].targets[0].weight = 0;
    apply(&mut tables, &mut actual, &wish);
    assert_eq!(later(&tables, 7, 1), Verdict::Transmit, "a reset");
}

#[test]
fn a_group_without_targets_keeps_its_id() {
    let (mut tables, mut actual) = (tables(), Actual::default());
    let wish = Wish {
        listeners: vec![listener(1, 0)],
        groups: vec![group("web", &[])],
        ..Wish::default()
    };
    assert!(apply(&mut tables, &mut actual, &wish) > 0);
    assert_eq!(apply(&mut tables, &mut actual, &wish), 0);
    assert_eq!(handle(&mut syn(7, 1), &tables), Verdict::Drop);
    assert_eq!(tables.stops(Stop::NoTarget), 1);
}

#[test]
fn ids_of_groups_that_nothing_names_are_given_again() {
    let (mut tables, mut actual) = (tables(), Actual::default());
    for round in 0..20 {
        let wish = Wish {
            groups: vec![group(&format!("round-{round}"), &[])],
            ..Wish::default()
        };
        apply(&mut tables, &mut actual, &wish);
        actual.forget_groups(&wish);
    }
}

#[test]
fn what_does_not_fit_is_refused_whole() {
    let actual = Actual::default();
    let many: Vec<u8> = (1..=64).collect();
    let wish = Wish {
        listeners: vec![],
        groups: vec![group("web", &many)],
        ..Wish::default()
    };
    assert_eq!(plan(&actual, &wish, LIMITS), Err(PlanError::Targets(63)));
    assert_eq!(fits(&actual, &wish, LIMITS), Err(PlanError::Targets(63)));
    let groups = (0..8)
        .map(|index| group(&format!("group-{index}"), &[]))
        .collect();
    let wish = Wish {
        groups,
        ..Wish::default()
    };
    assert_eq!(plan(&actual, &wish, LIMITS), Err(PlanError::Groups(7)));
    assert_eq!(fits(&actual, &wish, LIMITS), Err(PlanError::Groups(7)));
    let listeners = (1..=64).map(|last| listener(last, 0)).collect();
    let wish = Wish {
        listeners,
        groups: vec![group("web", &[1])],
        ..Wish::default()
    };
    assert_eq!(plan(&actual, &wish, LIMITS), Err(PlanError::Listeners(63)));
    assert_eq!(fits(&actual, &wish, LIMITS), Err(PlanError::Listeners(63)));
}

#[test]
fn an_address_of_the_pool_takes_turns_at_once_and_goes_when_its_flows_have_gone() {
    let (mut tables, mut actual) = (tables(), Actual::default());
    let [one, other] = [50, 51].map(|last| IpAddr::from([192, 0, 2, last]));
    let mut wish = Wish {
        sources: vec![one, other],
        ..Wish::default()
    };
    assert!(apply(&mut tables, &mut actual, &wish) > 0);
    assert_eq!(apply(&mut tables, &mut actual, &wish), 0);
    let turns = |tables: &MemoryTables| {
        let ids = (0..64).filter_map(|number| tables.pool.turn(true, number));
        ids.map(|id| IpAddr::from(tables.pool.address(id)))
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(turns(&tables), [one, other].into());

    wish.sources.remove(0);
    apply(&mut tables, &mut actual, &wish);
    assert_eq!(turns(&tables), [other].into());
    let idle = Sweep {
        by_pool_address: vec![0; 128],
        ..Sweep::default()
    };
    let mut busy = idle.clone();
    busy.by_pool_address[1] = 1;
    assert_eq!(retire(&actual, &wish, [&busy, &idle]), vec![]);
    for step in retire(&actual, &wish, [&idle, &idle]) {
        tables.take(&step).unwrap();
        actual.note(&step);
    }
    assert_eq!(tables.pool.all().count(), 1);
}

#[test]
fn adopted_maps_need_their_rings_only() {
    let (mut tables, mut actual) = (tables(), Actual::default());
    let wish = Wish {
        listeners: vec![listener(1, 0)],
        groups: vec![group("web", &[1, 2])],
        ..Wish::default()
    };
    apply(&mut tables, &mut actual, &wish);
    let steps = plan(&Actual::adopt(&found(&tables)), &wish, LIMITS).unwrap();
    let kinds: Vec<bool> = steps
        .iter()
        .map(|planned| matches!(planned.step, Step::ReplaceRing { .. }))
        .collect();
    assert_eq!(kinds, [true, false]);
    assert_eq!(steps.last().unwrap().step, Step::Publish { generation: 6 });
}

fn forward(shares: &[(usize, u16)]) -> WishedForward {
    WishedForward {
        shares: shares.to_vec(),
        settles: false,
    }
}

/// What a daemon finds that starts over these tables.
fn found(tables: &MemoryTables) -> nlb_userspace::dataplane::kernel::Found {
    nlb_userspace::dataplane::kernel::Found {
        generation: 5,
        listeners: tables
            .listeners
            .iter()
            .zip(0u16..)
            .filter_map(|(record, id)| Some((ListenerId(id), record.key()?, record.policy())))
            .collect(),
        listener_index: tables
            .listener_index
            .iter()
            .map(|(key, id)| (*key, *id))
            .collect(),
        targets: tables
            .targets
            .iter()
            .zip(0u32..)
            .filter_map(|(record, id)| Some((TargetId(id), record.identity(), record.control()?)))
            .collect(),
        prefilter: tables.prefilter.words.iter().map(Word::load).collect(),
        ..Default::default()
    }
}

#[test]
fn errors_about_outer_packets_are_looked_at_where_a_tunnel_ends() {
    let (mut tables, mut actual) = (tables(), Actual::default());
    let mut wish = Wish {
        groups: vec![WishedGroup {
            mode: Mode::DSR_GUE,
            tunnel: Some(tunnel(6080)),
            ..group("web", &[11])
        }],
        ..Wish::default()
    };
    let is_admitted = |tables: &MemoryTables, last: u8, protocol: u8, port: u16| {
        let address = Address::from(IpAddr::from([10, 0, 0, last]));
        let port = U16::new(port);
        tables
            .prefilter
            .admits(Side::Tunnel, address, protocol, port)
    };
    apply(&mut tables, &mut actual, &wish);
    assert!(is_admitted(&tables, 11, protocol::UDP, 6080));
    assert!(!is_admitted(&tables, 12, protocol::UDP, 6080));
    wish.groups[0].tunnel = Some(tunnel(7));
    apply(&mut tables, &mut actual, &wish);
    assert!(is_admitted(&tables, 11, protocol::UDP, 7));
    assert!(!is_admitted(&tables, 11, protocol::UDP, 6080));
    wish.groups[0].mode = Mode::DSR_IPIP;
    apply(&mut tables, &mut actual, &wish);
    for number in [protocol::IPV4, protocol::IPV6] {
        assert!(is_admitted(&tables, 11, number, 0));
        assert!(!is_admitted(&tables, 12, number, 0));
    }
}

#[test]
fn a_tunnel_is_written_before_its_first_target_and_again_only_when_it_changes() {
    let mut wish = Wish {
        sources: Vec::new(),
        listeners: vec![listener(1, 0)],
        forwards: Vec::new(),
        groups: vec![WishedGroup {
            mode: Mode::DSR_GENEVE,
            tunnel: Some(tunnel(6081)),
            ..group("red", &[1])
        }],
    };
    let (mut tables, mut actual) = (tables(), Actual::default());
    let steps = plan(&actual, &wish, LIMITS).unwrap();
    assert!(matches!(steps[0].step, Step::WriteTunnel { .. }));
    assert!(matches!(steps[1].step, Step::WriteTarget { .. }));
    for planned in &steps {
        take(&mut tables, &mut actual, planned);
    }
    assert_eq!(plan(&actual, &wish, LIMITS).unwrap(), []);
    wish.groups[0].tunnel = Some(tunnel(7));
    let steps = plan(&actual, &wish, LIMITS).unwrap();
    assert!(matches!(steps[0].step, Step::WriteTunnel { .. }));
    let is_bits = |planned: &&Planned| matches!(planned.step, Step::Prefilter { .. });
    assert_eq!(steps.iter().filter(|step| !is_bits(step)).count(), 2);
}

/// Two listeners on one forward ring, and a third on a group of it.
fn canary(weights: [u16; 2]) -> Wish {
    let on = |last, ring| WishedListener {
        ring,
        ..listener(last, 0)
    };
    Wish {
        sources: Vec::new(),
        listeners: vec![
            on(1, WishedRing::Forward(0)),
            on(2, WishedRing::Forward(0)),
            listener(3, 0),
        ],
        groups: vec![group("web", &[1, 2]), group("canary", &[3])],
        forwards: vec![forward(&[(0, weights[0]), (1, weights[1])])],
    }
}

fn rings(steps: &[Planned]) -> Vec<u16> {
    steps
        .iter()
        .filter_map(|planned| match planned.step {
            Step::ReplaceRing { group, .. } => Some(group),
            _ => None,
        })
        .collect()
}

#[test]
fn a_listener_with_two_groups_reads_one_ring_and_a_weight_changes_that_ring_alone() {
    let (mut tables, mut actual) = (tables(), Actual::default());
    apply(&mut tables, &mut actual, &canary([1, 1]));
    assert_eq!(apply(&mut tables, &mut actual, &canary([1, 1])), 0);
    let to = |tables: &MemoryTables, vip| -> BTreeSet<u8> {
        (1000..1200)
            .filter_map(|port| destination(tables, port, vip))
            .map(|address| address.octets()[3])
            .collect()
    };
    for vip in [1, 2] {
        assert_eq!(to(&tables, vip), BTreeSet::from([1, 2, 3]));
    }
    assert_eq!(to(&tables, 3), BTreeSet::from([1, 2]));
    let steps = plan(&actual, &canary([9, 1]), LIMITS).unwrap();
    assert_eq!(rings(&steps), [3]);
    assert_eq!(steps.len(), 2, "and publishing");
    // A failing target changes its group's ring and the forward ring, and nothing else.
    let mut failed = canary([1, 1]);
    failed.groups[0].targets[1].weight = 0;
    let steps = plan(&actual, &failed, LIMITS).unwrap();
    assert_eq!(rings(&steps), [1, 3]);
}

#[test]
fn a_group_of_weight_0_takes_no_new_flows_and_keeps_those_it_has() {
    let (mut tables, mut actual) = (tables(), Actual::default());
    apply(&mut tables, &mut actual, &canary([0, 1]));
    let canaries = Ipv4Addr::new(10, 0, 0, 3);
    assert_eq!(destination(&tables, 7, 1), Some(canaries));
    apply(&mut tables, &mut actual, &canary([1, 0]));
    let mut later = syn(7, 1);
    later.bytes[47] = 16;
    assert_eq!(handle(&mut later, &tables), Verdict::Redirect(2));
    assert_eq!(later.bytes[30..34], canaries.octets(), "old flow");
    for port in 1000..1200 {
        assert_ne!(destination(&tables, port, 1), Some(canaries));
    }
}

#[test]
fn adopted_forward_rings_keep_their_ids() {
    let (mut tables, mut actual) = (tables(), Actual::default());
    apply(&mut tables, &mut actual, &canary([3, 1]));
    let exact = Limits {
        groups: 4,
        ..LIMITS
    };
    let steps = plan(&Actual::adopt(&found(&tables)), &canary([3, 1]), exact).unwrap();
    assert_eq!(rings(&steps), [1, 2, 3]);
    assert_eq!(steps.len(), 4, "rings and publishing only");
}

#[test]
fn a_forward_ring_that_another_listener_still_names_is_left_alone() {
    let (mut tables, mut actual) = (tables(), Actual::default());
    apply(&mut tables, &mut actual, &canary([1, 1]));
    let mut parted = canary([1, 1]);
    parted.forwards.push(forward(&[(0, 1), (1, 5)]));
    parted.listeners[1].ring = WishedRing::Forward(1);
    let steps = plan(&actual, &parted, LIMITS).unwrap();
    assert_eq!(rings(&steps), [4, 5]);
    for planned in &steps {
        take(&mut tables, &mut actual, planned);
    }
    assert_eq!(apply(&mut tables, &mut actual, &parted), 0);
    // The old one's id is free for the next.
    actual.forget_groups(&parted);
    parted.groups.push(group("new", &[]));
    assert_eq!(rings(&plan(&actual, &parted, LIMITS).unwrap()), [3]);
}

/// A small world: three groups over eight targets, two ways to forward to several of them, and
/// listeners on four VIPs.
fn wishes() -> impl Strategy<Value = Wish> {
    let target_sets = prop::collection::vec(prop::collection::btree_set(1u8..8, 1..5), 3);
    let listeners = prop::collection::btree_map(1u8..5, 0usize..5, 1..5);
    let weights = prop::collection::vec(1u16..10, 4);
    (
        target_sets,
        listeners,
        prop::array::uniform3(0u16..4),
        weights,
    )
        .prop_map(|(sets, listeners, kinds, weights)| Wish {
            listeners: listeners
                .into_iter()
                .map(|(last, index)| WishedListener {
                    ring: match index.checked_sub(3) {
                        Some(forward) => WishedRing::Forward(forward),
                        None => WishedRing::Group(index),
                    },
                    ..listener(last, 0)
                })
                .collect(),
            groups: ["red", "green", "blue"]
                .iter()
                .zip(sets)
                .zip(kinds)
                .map(|((name, targets), kind)| WishedGroup {
                    mode: match kind {
                        0 => Mode::NAT,
                        1 => Mode::DSR_L2,
                        _ => Mode::DSR_GUE,
                    },
                    // Of two ports, so that tunnels change.
                    tunnel: (kind > 1).then(|| tunnel(6080 + kind)),
                    ..group(name, &targets.into_iter().collect::<Vec<_>>())
                })
                .collect(),
            sources: Vec::new(),
            forwards: vec![
                forward(&[(0, weights[0]), (1, weights[1])]),
                forward(&[(1, weights[2]), (2, weights[3]), (0, 0)]),
            ],
        })
}

/// Where new flows of a listener may go, if its groups are as `listeners` and the groups are as
/// `groups` wish.
fn allowed(listeners: &Wish, groups: &Wish, last: u8) -> Option<BTreeSet<IpAddr>> {
    let listener = listeners
        .listeners
        .iter()
        .find(|listener| listener.key == vip(last))?;
    let indexes = match listener.ring {
        WishedRing::Group(index) => vec![index],
        WishedRing::Forward(index) => {
            let shares = &groups.forwards.get(index)?.shares;
            let some = shares.iter().filter(|(_, weight)| *weight > 0);
            some.map(|(index, _)| *index).collect()
        }
    };
    let mut addresses = BTreeSet::new();
    for index in indexes {
        let group = groups.groups.get(index)?;
        // A tunnel's outer header names the target where a translated packet does.
        if group.mode == Mode::DSR_L2 {
            addresses.insert(IpAddr::from([192, 0, 2, last]));
        } else {
            addresses.extend(group.targets.iter().map(|target| target.address));
        }
    }
    Some(addresses)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_prefix_of_every_plan_leaves_traffic_flowing(
        wishes in prop::collection::vec(wishes(), 2..5),
    ) {
        let (mut tables, mut actual) = (tables(), Actual::default());
        let mut before = Wish::default();
        let mut port = 1024;
        for wish in &wishes {
            fits(&actual, wish, ROOM).unwrap();
            let steps = plan(&actual, wish, ROOM).unwrap();
            prop_assert_eq!(&steps, &plan(&actual, wish, ROOM).unwrap());
            for planned in &steps {
                take(&mut tables, &mut actual, planned);
                for last in 1..5 {
                    port += 1;
                    let (old, new) = (allowed(&before, &before, last), allowed(wish, wish, last));
                    // A group changes before the listener that leaves it.
                    let between = allowed(&before, wish, last);
                    let to = destination(&tables, port, last).map(IpAddr::from);
                    match to {
                        Some(to) => prop_assert!(
                            old.iter().chain(&new).chain(&between).any(|set| set.contains(&to)),
                            "{to} after {:?}", planned.step
                        ),
                        None => prop_assert!(
                            old.is_none() || new.is_none(),
                            "a listener that stays stopped taking flows after {:?}", planned.step
                        ),
                    }
                }
                prop_assert_eq!(broken(&tables), 0);
            }
            for last in 1..5 {
                port += 1;
                let to = destination(&tables, port, last).map(IpAddr::from);
                prop_assert_eq!(to.is_some(), allowed(wish, wish, last).is_some());
                if let (Some(to), Some(set)) = (to, allowed(wish, wish, last)) {
                    prop_assert!(set.contains(&to));
                }
            }
            before = wish.clone();
        }
    }

    #[test]
    fn the_small_plan_is_the_whole_one_where_only_shares_and_ways_differ(
        older in wishes(),
        newer in wishes(),
        shares in prop::collection::vec(any::<(bool, u16, bool, bool)>(), 24),
    ) {
        // Every ring has a listener, as it does where a configuration is behind it.
        let with_listeners = |mut wish: Wish| {
            wish.forwards.push(WishedForward { settles: true, ..forward(&[(1, 1)]) });
            wish.listeners.extend((0..3).map(|index| WishedListener {
                ring: WishedRing::Forward(index),
                ..listener(10 + u8::try_from(index).unwrap(), 0)
            }));
            wish
        };
        let (mut tables, mut actual) = (tables(), Actual::default());
        apply_within(ROOM, &mut tables, &mut actual, &with_listeners(older));
        let mut wish = with_listeners(newer);
        apply_within(ROOM, &mut tables, &mut actual, &wish);
        let before = wish.groups.clone();
        let targets = wish.groups.iter_mut().flat_map(|group| &mut group.targets);
        for (target, (differs, weight, resets_flows, has_way)) in targets.zip(shares) {
            if differs {
                target.weight = weight % 3;
                target.resets_flows = resets_flows;
                target.next_hop = if has_way { HOP } else { NextHopId::NONE };
            }
        }
        let pairs = || wish.groups.iter().zip(&before).enumerate();
        prop_assert!(pairs().all(|(_, (new, old))| new.differs_in_shares_only(old)));
        let changed = pairs().filter(|(_, (new, old))| new != old).map(|(index, _)| index).collect();
        let small = plan_groups(&actual, &wish, &changed);
        prop_assert_eq!(small, Some(plan(&actual, &wish, ROOM).unwrap()));
    }

    #[test]
    fn the_small_plan_is_for_groups_whose_targets_are_all_there(
        older in wishes(),
        newer in wishes(),
    ) {
        let (mut tables, mut actual) = (tables(), Actual::default());
        apply_within(ROOM, &mut tables, &mut actual, &older);
        prop_assert!(is_tidy(&actual, &older));
        for (index, (new, old)) in newer.groups.iter().zip(&older.groups).enumerate() {
            let mut wish = older.clone();
            wish.groups[index] = new.clone();
            let is_new = new.mode != old.mode
                || new.targets.iter().any(|target| !old.targets.contains(target));
            if is_new {
                prop_assert!(!new.differs_in_shares_only(old));
                prop_assert!(plan_groups(&actual, &wish, &BTreeSet::from([index])).is_none());
            }
        }
        apply_within(ROOM, &mut tables, &mut actual, &newer);
        let targets = |wish: &Wish| -> BTreeSet<_> {
            let groups = wish.groups.iter();
            let targets = groups.flat_map(|group| {
                group.targets.iter().map(|target| (group.fingerprint, group.mode.0, target.address))
            });
            targets.collect()
        };
        let listeners = |wish: &Wish| -> BTreeSet<_> {
            wish.listeners.iter().map(|listener| IpAddr::from(listener.key.address)).collect()
        };
        let has_left_nothing = targets(&older).is_subset(&targets(&newer))
            && listeners(&older).is_subset(&listeners(&newer));
        prop_assert_eq!(is_tidy(&actual, &newer), has_left_nothing);
    }
}

/// A wish for a listener whose clients, 198.51.100.7 among them, are denied by this prefix.
fn denying(prefix: &str) -> Wish {
    let rule = SourceRule {
        allows: false,
        sources: vec![prefix.parse().unwrap()],
        protocol: None,
        ports: 1..=u16::MAX,
    };
    let rules = Compiler::new(&[rule]).compile(protocol::TCP, 80, IpVersion::Ipv4);
    Wish {
        listeners: vec![WishedListener {
            admission: WishedAdmission {
                rules,
                limits: AdmissionPolicy::default(),
            },
            ..listener(1, 0)
        }],
        groups: vec![group("web", &[1, 2])],
        ..Wish::default()
    }
}

#[test]
fn with_every_step_clients_are_judged_by_the_old_rules_or_the_new_ones() {
    let open = Wish {
        listeners: vec![listener(1, 0)],
        ..denying("10.0.0.0/8")
    };
    let (blocking, passing) = (denying("198.51.100.0/24"), denying("10.0.0.0/8"));
    let (mut tables, mut actual) = (tables(), Actual::default());
    let mut client_port = 1000;
    // Whether a new flow begins, after each wish.
    let story = [
        (&passing, true),
        (&blocking, false),
        (&blocking, false),
        (&open, true),
        (&blocking, false),
        (&passing, true),
        (&open, true),
    ];
    let mut before = None;
    for (wish, begins) in story {
        let steps = plan(&actual, wish, LIMITS).unwrap();
        let mut seen: Vec<bool> = before.into_iter().collect();
        for planned in &steps {
            take(&mut tables, &mut actual, planned);
            client_port += 1;
            let is_there = tables.listener_index.contains_key(&vip(1));
            let found = destination(&tables, client_port, 1).is_some();
            if is_there && before.is_some() {
                seen.push(found);
            }
        }
        client_port += 1;
        assert_eq!(destination(&tables, client_port, 1).is_some(), begins);
        seen.push(begins);
        seen.dedup();
        assert!(seen.len() <= 2, "from old to new once: {seen:?}");
        assert_eq!(apply(&mut tables, &mut actual, wish), 0);
        before = Some(begins);
    }
    assert_eq!(broken(&tables), 0);

    // The rules that nobody asks for go later, and once.
    let sweep = Sweep {
        by_listener: vec![1; 64],
        by_target: vec![1; 64],
        ..Sweep::default()
    };
    let steps = retire(&actual, &open, [&sweep, &sweep]);
    assert_eq!(steps, [Step::RemoveRules { id: ListenerId(1) }]);
    for step in &steps {
        tables.take(step).unwrap();
        actual.note(step);
    }
    assert_eq!(retire(&actual, &open, [&sweep, &sweep]), []);
    assert!(destination(&tables, 999, 1).is_some());
}

#[test]
fn rules_that_another_daemon_wrote_are_written_anew_and_the_flag_stays() {
    let (mut tables, mut actual) = (tables(), Actual::default());
    let wish = denying("198.51.100.0/24");
    apply(&mut tables, &mut actual, &wish);
    let mut found = found(&tables);
    found.admissions = vec![(ListenerId(1), tables.admissions[1].policy())];
    let adopted = Actual::adopt(&found);
    let steps = plan(&adopted, &wish, LIMITS).unwrap();
    let rules = |planned: &&Planned| matches!(planned.step, Step::ReplaceRules { .. });
    let changes = |planned: &&Planned| {
        matches!(
            planned.step,
            Step::ChangeListener { .. } | Step::SetAdmission { .. }
        )
    };
    assert_eq!(steps.iter().filter(rules).count(), 1);
    assert_eq!(steps.iter().filter(changes).count(), 0);
}
