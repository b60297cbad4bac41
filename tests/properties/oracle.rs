//! The packet path against the oracle: long random stories of packets, ring changes and silence.

use nlb_common::{
    admission::AdmissionPolicy,
    listener::{ListenerId, Stranded},
    target::{Mode, TargetControl},
    wire::protocol::{TCP, UDP},
};
use nlb_ebpf::{
    Verdict, handle,
    memory::{MemoryFrame, MemoryTables},
};
use nlb_tests::{
    hostile::Random,
    model::{Fate, Model, Segment, Side},
    packet::facts,
    world::{
        self, CLIENT, CLIENT_V6, DSR_VIP, DSR_VIP_V6, ETH1, FAR_CLIENT, FAR_CLIENT_V6, FULL_VIP,
        FULL_VIP_V6, GROUPS, LISTENERS, QUIET_CLIENT, SETTLING, TUNNEL_VIP, TUNNEL_VIP_V6, VIP,
        VIP_V6, asks_who_comes, settling_ring, tables_with,
    },
};
use proptest::prelude::*;

/// Events of one story.
const EVENTS: usize = 400;
const FLAGS: &[u8] = &[2, 2, 0x10, 0x10, 0x10, 0x18, 0x11, 0x14, 4, 0x12, 0];
/// On both sides of every time-out.
const SILENCES: &[u16] = &[
    0, 1, 5, 12, 13, 14, 37, 38, 39, 149, 150, 151, 437, 438, 439,
];

fn client(random: &mut Random, is_v6: bool) -> (&'static str, u16) {
    let clients = match (is_v6, random.once_in(6)) {
        (true, false) => &[CLIENT_V6, FAR_CLIENT_V6][..],
        (false, false) => &[CLIENT, FAR_CLIENT, QUIET_CLIENT],
        // Targets are clients, too, of others and of themselves.
        (true, true) => &["fd00::11", "fd00::12"],
        (false, true) => &["10.0.0.11", "10.0.0.12"],
    };
    let ports = [40_000, 40_001, 40_002];
    (random.pick(clients), random.pick(&ports))
}

/// A listener with rules or limits, and a port that only its own clients use: it shares targets with
/// others.
fn selective(random: &mut Random, is_v6: bool) -> ((&'static str, u8, u16), u16) {
    let of_version: Vec<_> = LISTENERS
        .iter()
        .filter(|listener| asks_who_comes(listener.0) && listener.1.contains(':') == is_v6)
        .collect();
    let &&(id, vip, protocol, port, _) = &of_version[random.below(of_version.len())];
    (
        (vip, protocol, port),
        41_000 + 8 * id + random.pick(&[0, 1, 2, 3]),
    )
}

fn segment(
    random: &mut Random,
    source: (&'static str, u16),
    to: (&'static str, u16),
    protocol: u8,
) -> Segment {
    Segment {
        source,
        destination: to,
        protocol,
        flags: if protocol == TCP {
            random.pick(FLAGS)
        } else {
            0
        },
        ttl: random.pick(&[64, 64, 64, 64, 255, 2, 1, 0]),
        payload_bytes: random.pick(&[0, 0, 1, 7, 100, 1440, 1400, 1480]),
        is_strict: random.once_in(2),
    }
}

fn request(random: &mut Random, is_v6: bool) -> Segment {
    let vips = if is_v6 {
        [VIP_V6, DSR_VIP_V6]
    } else {
        [VIP, DSR_VIP]
    };
    let source = client(random, is_v6);
    if random.once_in(3) {
        let vip = if is_v6 { TUNNEL_VIP_V6 } else { TUNNEL_VIP };
        let (protocol, port) = (
            random.pick(&[TCP, UDP]),
            random.pick(&[1, 2, 3, 4, 5, 6, 4433]),
        );
        return segment(random, source, (vip, port), protocol);
    }
    if random.once_in(3) {
        let ((vip, protocol, port), from) = selective(random, is_v6);
        return segment(random, (source.0, from), (vip, port), protocol);
    }
    if random.once_in(6) {
        let vip = if is_v6 { FULL_VIP_V6 } else { FULL_VIP };
        let (protocol, port) = random.pick(&[(TCP, 80), (UDP, 53), (UDP, 4433)]);
        return segment(random, source, (vip, port), protocol);
    }
    if random.once_in(5) {
        let (vip, port) = match (is_v6, random.once_in(4)) {
            (true, _) => (DSR_VIP_V6, 9200),
            (false, false) => (DSR_VIP, 9200),
            (false, true) => (DSR_VIP, 9203),
        };
        // So many that they fall on slots of every kind.
        let ports: Vec<u16> = (40_000..40_012).collect();
        let source = (source.0, random.pick(&ports));
        let protocol = random.pick(&[TCP, TCP, UDP]);
        return segment(random, source, (vip, port), protocol);
    }
    let (protocol, port) = random.pick(&[
        (TCP, 80),
        (TCP, 80),
        (TCP, 97),
        (TCP, 93),
        (TCP, 95),
        (UDP, 53),
        (UDP, 4433),
        (TCP, 8443),
    ]);
    let vip = random.pick(&vips);
    segment(random, source, (vip, port), protocol)
}

fn answer(random: &mut Random, is_v6: bool, model: &Model) -> Segment {
    let translated = model.translated();
    if !translated.is_empty() && random.once_in(3) {
        let (target, source, protocol) = random.pick(&translated);
        // Mostly the flow's own, or else perhaps nobody's.
        let source = if random.once_in(5) {
            random.pick(&translated).1
        } else {
            source
        };
        if target.0.contains(':') == source.0.contains(':') {
            return segment(random, target, source, protocol);
        }
    }
    let group = random.below(2) + if is_v6 { 2 } else { 0 };
    let group = &GROUPS[group];
    let target = random.pick(group.targets);
    let mut to = client(random, is_v6);
    if random.once_in(3) {
        to.1 = selective(random, is_v6).1;
    }
    segment(random, (target.1, target.2), to, group.protocol)
}

fn fate(tables: &MemoryTables, bytes: &[u8], interface: u32) -> Fate {
    let mut frame = MemoryFrame::new(bytes.to_vec(), interface);
    match handle(&mut frame, tables) {
        Verdict::Pass if frame.bytes == bytes => Fate::Passed,
        Verdict::Drop if frame.bytes == bytes => Fate::Dropped,
        Verdict::Transmit => Fate::Sent(interface, frame.bytes),
        Verdict::Redirect(interface) => Fate::Sent(interface, frame.bytes),
        verdict => panic!("{verdict:?} of {}", facts::describe(bytes)),
    }
}

proptest! {
    #[test]
    fn the_packet_path_does_what_the_oracle_does(seed: u64) {
        let mut random = Random::new(seed);
        let mut tables = tables_with(4096);
        let mut model = Model::default();
        for event in 0..EVENTS {
            let is_v6 = random.once_in(2);
            match random.below(16) {
                0 => {
                    let ticks = random.pick(SILENCES);
                    model.wait(ticks);
                    tables.now.set(tables.now.get().wrapping_add(ticks));
                }
                1 => {
                    let groups: Vec<_> = GROUPS.iter().filter(|group| group.targets.len() > 1).collect();
                    let group = random.pick(&groups);
                    let mut ids: Vec<u32> = group.targets.iter().map(|target| target.0).collect();
                    if SETTLING.contains(&group.id) && !random.once_in(3) {
                        if random.once_in(2) {
                            ids.reverse();
                        }
                        let (slots, bases) = settling_ring(&ids);
                        tables.set_ring(group.id, &slots);
                        tables.ring_bases.insert(group.id, bases);
                    } else {
                        ids.retain(|_| !random.once_in(3));
                        tables.set_ring(group.id, &world::ring(&ids));
                    }
                }
                2 => {
                    let id = random.pick(&[1u16, 3, 5, 7, 28, 30]);
                    let words = [Stranded::FORWARD, Stranded::RESET, Stranded::DROP];
                    let (stray, expired) = (random.pick(&words), random.pick(&words));
                    let record = &tables.listeners[usize::from(id)];
                    let mut policy = record.policy();
                    (policy.stray, policy.expired) = (stray, expired);
                    record.set_policy(policy);
                    model.strand(id, stray, expired);
                }
                3 => {
                    let full = GROUPS.iter().filter(|group| group.mode == Mode::FULL_NAT);
                    let groups: Vec<_> = GROUPS[..6].iter().chain(full).collect();
                    let group = random.pick(&groups);
                    let id = random.pick(group.targets).0;
                    let record = &tables.targets[usize::try_from(id).expect("small")];
                    let (is_open, is_ending) =
                        random.pick(&[(true, false), (true, false), (false, false), (false, true)]);
                    let control = record.control().expect("a target");
                    record.set_control(TargetControl {
                        takes_new_flows: is_open,
                        resets_flows: is_ending,
                        ..control
                    });
                    model.close(id, !is_open, is_ending);
                }
                4 => {
                    model.sweep();
                    world::sweep(&tables);
                }
                5 => {
                    let (id, _) = random.pick(world::RULES);
                    let rules = random.pick(world::RULES).1;
                    let has_rules = !random.once_in(3);
                    tables.rules.insert(ListenerId(id), world::rules(rules));
                    tables.set_admission(ListenerId(id), &AdmissionPolicy {
                        has_rules,
                        ..AdmissionPolicy::default()
                    });
                    model.rule(id, has_rules.then_some(rules));
                }
                6..=10 => {
                    let segment = answer(&mut random, is_v6, &model);
                    let bytes = segment.frame(Side::Targets.arriving()).build();
                    let expected = model.answer(&segment);
                    let found = fate(&tables, &bytes, ETH1);
                    prop_assert_eq!(found, expected, "event {}: {:?}", event, segment);
                }
                _ => {
                    let segment = request(&mut random, is_v6);
                    let side = Side::of(segment.source.0);
                    let bytes = segment.frame(side.arriving()).build();
                    let expected = model.request(&segment, &tables);
                    let found = fate(&tables, &bytes, side.interface());
                    prop_assert_eq!(found, expected, "event {}: {:?}", event, segment);
                }
            }
        }
    }
}
