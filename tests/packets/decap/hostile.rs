//! Bytes that nobody in his right mind sends.

use nlb_common::decap::{DecapStop, Decapsulated, Encapsulation};
use nlb_tests::kernel::{SHORTEST_FRAME_BYTES, unavailable};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::{
    rows::{Wrapping, inner, outer, packet, ways, wrap_bytes},
    target::{KernelTarget, MemoryTarget, OWN_V4, OWN_V6, Outcome, Setup, VIP_V4, VIP_V6},
};

/// Mostly right frames with a few bytes changed, cut or padded; and noise.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let whole: Vec<Vec<u8>> = ways()
        .flat_map(|(wrapping, outer_v4, inner_v4): (Wrapping, bool, bool)| {
            let content = packet(&inner(inner_v4));
            let sentence = wrap_bytes(wrapping, outer(outer_v4), inner_v4, &content);
            [
                sentence.build(),
                sentence.clone().vlan(5).build(),
                sentence.service_vlan(6).vlan(5).build(),
            ]
        })
        .collect();
    let changed = (
        prop::sample::select(whole),
        prop::collection::vec((0..130usize, any::<u8>()), 0..3),
        prop::option::weighted(0.2, 0..200usize),
    )
        .prop_map(|(mut frame, changes, cut)| {
            for (at, byte) in changes {
                if let Some(place) = frame.get_mut(at) {
                    *place = byte;
                }
            }
            frame.truncate(cut.unwrap_or(usize::MAX));
            frame
        });
    prop_oneof![9 => changed, 1 => prop::collection::vec(any::<u8>(), 0..200)]
}

fn holds(haystack: &[u8], address: &str) -> bool {
    let address: std::net::IpAddr = address.parse().expect("an address");
    let bytes = match address {
        std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
        std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    haystack.windows(bytes.len()).any(|window| window == bytes)
}

/// What must hold whatever came in.
fn judge(frame: &[u8], outcome: &Outcome) -> Result<(), TestCaseError> {
    let stopped: u64 = outcome.stops.iter().sum();
    let out: u64 = outcome.decapsulated.iter().map(|sum| sum.packets).sum();
    prop_assert!(stopped + out <= 1, "counted twice");
    prop_assert_eq!(outcome.stops[DecapStop::NotOurs as usize], 0);
    if out == 0 {
        prop_assert_eq!(&outcome.bytes, frame, "changed, and not decapsulated");
        prop_assert!(outcome.passed || stopped == 1, "dropped, and not counted");
        return Ok(());
    }
    prop_assert!(outcome.passed);
    let gone = frame.len() - outcome.bytes.len();
    prop_assert!(gone >= 20);
    // A mark and its checksum apart, what comes out is the frame's own end, and its MAC addresses.
    prop_assert_eq!(&outcome.bytes[..12], &frame[..12]);
    let inside = &frame[gone..];
    let differing = (14..inside.len())
        .filter(|at| inside[*at] != outcome.bytes[*at])
        .count();
    // Up to two tags, two bytes of class, two of checksum.
    prop_assert!(differing <= 12, "{} bytes differ", differing);
    prop_assert!(
        [OWN_V4, OWN_V6]
            .iter()
            .any(|own| holds(&frame[..gone + 22], own))
    );
    prop_assert!(
        [VIP_V4, VIP_V6]
            .iter()
            .any(|vip| holds(&outcome.bytes[..62.min(outcome.bytes.len())], vip))
    );
    let bytes: u64 = outcome.decapsulated.iter().map(|sum| sum.bytes).sum();
    prop_assert!(bytes + 14 <= u64::try_from(outcome.bytes.len()).expect("a length"));
    Ok(())
}

fn run(cases: u32, mut claim: impl FnMut(&[u8]) -> Result<(), TestCaseError>) {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let claim = std::cell::RefCell::new(&mut claim);
    TestRunner::new(config)
        .run(&frames(), |frame| (claim.borrow_mut())(&frame))
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn hostile_bytes_come_out_whole_or_stay_as_they_are() {
    for setup in Setup::ALL {
        let mut target = MemoryTarget::new(setup);
        let mut seen = [Decapsulated::default(); Encapsulation::ALL.len()];
        run(4000, |frame| {
            let outcome = target.run(frame);
            for (sum, one) in seen.iter_mut().zip(outcome.decapsulated) {
                *sum += one;
            }
            judge(frame, &outcome)
        });
        assert!(
            setup == Setup::GueAlone || seen[0].packets > 0,
            "nothing came out: the frames are too wild to show anything"
        );
    }
}

#[test]
fn the_kernel_does_with_hostile_bytes_what_memory_does() {
    if let Some(reason) = unavailable() {
        println!("SKIPPED packets (kernel): {reason}");
        return;
    }
    for setup in Setup::ALL {
        let mut memory = MemoryTarget::new(setup);
        let mut kernel = KernelTarget::load(setup).unwrap_or_else(|error| panic!("{error:?}"));
        run(1000, |frame| {
            if frame.len() < SHORTEST_FRAME_BYTES {
                return Ok(());
            }
            let found = kernel
                .run(frame)
                .map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
            prop_assert_eq!(found, memory.run(frame));
            Ok(())
        });
    }
}
