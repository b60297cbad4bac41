//! What plans do about QUIC servers: a number is there before packets are read for it, and as long
//! as connections may carry it.

use std::net::IpAddr;

use nlb_common::{
    address::Address,
    listener::{HashInput, ListenerId, ListenerKey, Stranded},
    next_hop::NextHopId,
    quic::{CidLayout, ServerIdKey},
    target::{Mode, TargetId},
    wire::protocol,
};
use nlb_userspace::{
    dataplane::{Step, kernel::Found, sweep::Sweep},
    plan::{
        Actual, Limits, PlanError, Wish, WishedAdmission, WishedForward, WishedGroup,
        WishedListener, WishedQuic, WishedRing, WishedTarget, fingerprint, plan, retire,
    },
};
use zerocopy::big_endian::U16;

const LIMITS: Limits = Limits {
    listeners: 16,
    targets: 16,
    groups: 8,
};

/// A group of targets, each with its last byte and its number.
fn group(name: &str, targets: &[(u8, u64)]) -> WishedGroup {
    WishedGroup {
        fingerprint: fingerprint(name),
        mode: Mode::NAT,
        terminates_removed: false,
        tunnel: None,
        targets: targets
            .iter()
            .map(|(last, _)| WishedTarget {
                address: IpAddr::from([10, 0, 0, *last]),
                port: 4433,
                weight: 1,
                resets_flows: false,
                next_hop: NextHopId(1),
            })
            .collect(),
        quic: Some(WishedQuic {
            layout: CidLayout::NLB,
            server_ids: targets.iter().map(|(_, number)| Some(*number)).collect(),
        }),
    }
}

fn listener(protocol: u8, ring: WishedRing) -> WishedListener {
    let vip = Address::from(IpAddr::from([192, 0, 2, 10]));
    WishedListener {
        key: ListenerKey::new(vip, protocol, U16::new(443)),
        ring,
        idle_ticks: 100,
        hash_input: HashInput::FiveTuple,
        admission: WishedAdmission::default(),
        answers_echo: true,
        stray: Stranded::FORWARD,
        expired: Stranded::FORWARD,
        mss_clamp_bytes: 0,
        syn_cookies: false,
    }
}

/// Both listeners of `TCP_QUIC` on one group.
fn wish(targets: &[(u8, u64)]) -> Wish {
    let ring = WishedRing::Group(0);
    Wish {
        sources: Vec::new(),
        listeners: vec![listener(protocol::TCP, ring), listener(protocol::UDP, ring)],
        groups: vec![group("h3", targets)],
        forwards: vec![],
    }
}

fn apply(actual: &mut Actual, wish: &Wish) -> Vec<Step> {
    let steps = plan(actual, wish, LIMITS).unwrap();
    for planned in &steps {
        actual.note(&planned.step);
        if let Some(ring) = planned.ring.clone() {
            actual.note_ring(ring);
        }
    }
    assert!(
        plan(actual, wish, LIMITS).unwrap().is_empty(),
        "a plan that was carried out leaves something to do"
    );
    steps.into_iter().map(|planned| planned.step).collect()
}

/// The numbers that steps add and take away.
fn numbers(steps: &[Step]) -> (Vec<u64>, Vec<u64>) {
    let added = steps.iter().filter_map(|step| match step {
        Step::IndexServer { key, .. } => Some(key.server_id.get()),
        _ => None,
    });
    let gone = steps.iter().filter_map(|step| match step {
        Step::UnindexServer { key } => Some(key.server_id.get()),
        _ => None,
    });
    (added.collect(), gone.collect())
}

fn sweep(busy: &[u32]) -> Sweep {
    let mut sweep = Sweep {
        by_listener: vec![0; LIMITS.listeners],
        by_target: vec![0; LIMITS.targets],
        ..Sweep::default()
    };
    for id in busy {
        sweep.by_target[*id as usize] = 1;
    }
    sweep
}

#[test]
fn numbers_and_their_place_are_there_before_the_listener_that_looks() {
    let steps = apply(&mut Actual::default(), &wish(&[(1, 0xa1), (2, 0xa2)]));
    let at = |is: &dyn Fn(&Step) -> bool| steps.iter().position(is).unwrap();
    let looks = at(&|step| match step {
        Step::WriteListener { policy, .. } => policy.flags.is_quic(),
        _ => false,
    });
    let last_number = steps
        .iter()
        .rposition(|step| matches!(step, Step::IndexServer { .. }))
        .unwrap();
    let layout = at(&|step| matches!(step, Step::LayOutCids { .. }));
    let target = at(&|step| matches!(step, Step::WriteTarget { .. }));
    assert!(target < last_number && last_number < looks && layout < looks);
    assert_eq!(numbers(&steps), (vec![0xa1, 0xa2], vec![]));
    let quic = steps.iter().filter(|step| match step {
        Step::WriteListener { policy, key, .. } => {
            assert_eq!(policy.flags.is_quic(), key.protocol == protocol::UDP);
            policy.flags.is_quic()
        }
        _ => false,
    });
    assert_eq!(quic.count(), 1);
}

#[test]
fn a_target_that_left_keeps_its_number_until_its_flows_have_ended() {
    let mut actual = Actual::default();
    apply(&mut actual, &wish(&[(1, 0xa1), (2, 0xa2)]));
    let left = wish(&[(2, 0xa2)]);
    let steps = apply(&mut actual, &left);
    assert_eq!(numbers(&steps), (vec![], vec![]));
    let busy = sweep(&[1, 2]);
    assert!(retire(&actual, &left, [&busy, &busy]).is_empty());
    let idle = sweep(&[2]);
    let steps = retire(&actual, &left, [&idle, &idle]);
    let gone = steps
        .iter()
        .position(|step| *step == Step::ClearTarget { id: TargetId(1) });
    let unnamed = steps
        .iter()
        .position(|step| matches!(step, Step::UnindexServer { .. }));
    assert_eq!(numbers(&steps).1, [0xa1]);
    assert!(unnamed < gone, "{steps:?}");
}

#[test]
fn a_number_follows_its_new_owner_and_a_target_has_one_number_only() {
    let mut actual = Actual::default();
    apply(&mut actual, &wish(&[(1, 0xa1), (2, 0xa2)]));
    let steps = apply(&mut actual, &wish(&[(2, 0xa2), (3, 0xa1)]));
    assert_eq!(numbers(&steps), (vec![0xa1], vec![]));
    let steps = apply(&mut actual, &wish(&[(2, 0xa7), (3, 0xa1)]));
    assert_eq!(numbers(&steps), (vec![0xa7], vec![0xa2]));
}

#[test]
fn a_listener_of_several_groups_finds_the_servers_of_all() {
    let mut actual = Actual::default();
    let several = Wish {
        sources: Vec::new(),
        listeners: vec![listener(protocol::UDP, WishedRing::Forward(0))],
        groups: vec![group("h3", &[(1, 0xa1)]), group("canary", &[(2, 0xa2)])],
        forwards: vec![WishedForward {
            shares: vec![(0, 1), (1, 0)],
            settles: false,
        }],
    };
    let steps = apply(&mut actual, &several);
    assert_eq!(numbers(&steps), (vec![0xa1, 0xa2], vec![]));
    let steps = apply(&mut actual, &wish(&[(1, 0xa1)]));
    // Under the group's own ring now; what stood under the other is of no use to any listener.
    assert_eq!(numbers(&steps), (vec![0xa1], vec![0xa1, 0xa2]));
}

#[test]
fn a_listener_that_is_udp_again_looks_no_more() {
    let mut actual = Actual::default();
    apply(&mut actual, &wish(&[(1, 0xa1)]));
    let mut plain = wish(&[(1, 0xa1)]);
    plain.groups[0].quic = None;
    let steps = apply(&mut actual, &plain);
    assert_eq!(numbers(&steps), (vec![], vec![0xa1]));
    let looks = |step: &Step| match step {
        Step::ChangeListener { policy, .. } => Some(policy.flags.is_quic()),
        _ => None,
    };
    assert_eq!(steps.iter().find_map(looks), Some(false));
}

#[test]
fn a_daemon_that_takes_over_finds_the_numbers() {
    let mut actual = Actual::default();
    let wished = wish(&[(1, 0xa1)]);
    let mut found = Found::default();
    for step in apply(&mut actual, &wished) {
        match step {
            Step::WriteListener { id, key, policy } => found.listeners.push((id, key, policy)),
            Step::WriteTarget {
                id,
                identity,
                control,
            } => found.targets.push((id, identity, control)),
            Step::IndexServer { key, target } => found.server_ids.push((key, target)),
            Step::LayOutCids { id, layout } => found.cid_layouts.push((id, layout)),
            _ => {}
        }
    }
    assert_eq!(found.cid_layouts, [(ListenerId(2), CidLayout::NLB)]);
    assert_eq!(found.server_ids, [(ServerIdKey::new(1, 0xa1), TargetId(1))]);
    let steps = plan(&Actual::adopt(&found), &wished, LIMITS).unwrap();
    let steps: Vec<Step> = steps.into_iter().map(|planned| planned.step).collect();
    assert_eq!(numbers(&steps), (vec![], vec![]));
    assert!(
        !steps
            .iter()
            .any(|step| matches!(step, Step::LayOutCids { .. }))
    );
}

#[test]
fn more_numbers_than_there_is_room_for_are_refused_before_anything_changes() {
    let limits = Limits {
        targets: 3,
        groups: 20,
        ..LIMITS
    };
    let targets = [(1, 0xa1), (2, 0xa2)];
    let wish = Wish {
        sources: Vec::new(),
        listeners: (0..7)
            .map(|index| {
                let mut listener = listener(protocol::UDP, WishedRing::Forward(index));
                listener.key.port = U16::new(443 + u16::try_from(index).unwrap());
                listener
            })
            .collect(),
        groups: vec![group("h3", &targets)],
        forwards: vec![
            WishedForward {
                shares: vec![(0, 1)],
                settles: false,
            };
            7
        ],
    };
    assert_eq!(
        plan(&Actual::default(), &wish, limits).unwrap_err(),
        PlanError::ServerIds(12)
    );
}
