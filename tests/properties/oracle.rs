//! The packet path against the oracle: long random stories of packets, ring changes and silence.

use nlb_common::wire::protocol::{TCP, UDP};
use nlb_ebpf::{
    Verdict, handle,
    memory::{MemoryFrame, MemoryTables},
};
use nlb_tests::{
    hostile::Random,
    model::{Fate, Model, Segment},
    packet::facts,
    world::{
        self, CLIENT, CLIENT_V6, DSR_VIP, DSR_VIP_V6, ETH0, ETH1, FAR_CLIENT, FAR_CLIENT_V6,
        GROUPS, QUIET_CLIENT, VIP, VIP_V6, from_client, from_target, tables_with,
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
    let clients = if is_v6 {
        &[CLIENT_V6, FAR_CLIENT_V6][..]
    } else {
        &[CLIENT, FAR_CLIENT, QUIET_CLIENT]
    };
    let ports = [40_000, 40_001, 40_002];
    (random.pick(clients), random.pick(&ports))
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
        payload_bytes: random.pick(&[0, 0, 1, 7, 100, 1440, 1480]),
    }
}

fn request(random: &mut Random, is_v6: bool) -> Segment {
    let vips = if is_v6 {
        [VIP_V6, DSR_VIP_V6]
    } else {
        [VIP, DSR_VIP]
    };
    let (protocol, port) = random.pick(&[
        (TCP, 80),
        (TCP, 80),
        (TCP, 93),
        (TCP, 95),
        (UDP, 53),
        (TCP, 8443),
    ]);
    let source = client(random, is_v6);
    let vip = random.pick(&vips);
    segment(random, source, (vip, port), protocol)
}

fn answer(random: &mut Random, is_v6: bool) -> Segment {
    let group = random.below(2) + if is_v6 { 2 } else { 0 };
    let group = &GROUPS[group];
    let target = random.pick(group.targets);
    let to = client(random, is_v6);
    segment(random, (target.1, target.2), to, group.protocol)
}

fn fate(tables: &MemoryTables, bytes: &[u8], interface: u32) -> Fate {
    let mut frame = MemoryFrame {
        bytes: bytes.to_vec(),
        interface,
    };
    match handle(&mut frame, tables) {
        Verdict::Pass if frame.bytes == bytes => Fate::Passed,
        Verdict::Drop if frame.bytes == bytes => Fate::Dropped,
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
            match random.below(12) {
                0 => {
                    let ticks = random.pick(SILENCES);
                    model.wait(ticks);
                    tables.now.set(tables.now.get().wrapping_add(ticks));
                }
                1 => {
                    let group = random.pick(&GROUPS[..6]);
                    let left: Vec<u32> = group.targets.iter().map(|target| target.0)
                        .filter(|_| !random.once_in(3)).collect();
                    tables.set_ring(group.id, &world::ring(&left));
                }
                2..=6 => {
                    let segment = answer(&mut random, is_v6);
                    let bytes = segment.frame(from_target("10.0.0.11")).build();
                    let expected = model.answer(&segment);
                    let found = fate(&tables, &bytes, ETH1);
                    prop_assert_eq!(found, expected, "event {}: {:?}", event, segment);
                }
                _ => {
                    let segment = request(&mut random, is_v6);
                    let bytes = segment.frame(from_client()).build();
                    let expected = model.request(&segment, &tables);
                    let found = fate(&tables, &bytes, ETH0);
                    prop_assert_eq!(found, expected, "event {}: {:?}", event, segment);
                }
            }
        }
    }
}
