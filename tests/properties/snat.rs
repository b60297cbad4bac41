//! Translated sources: no two live flows share one, and every answer finds its own client.

use std::collections::HashMap;

use nlb_common::{source::PORTS, stop::Stop};
use nlb_ebpf::{
    Verdict, handle,
    memory::{MemoryFrame, MemoryTables, occupied},
};
use nlb_tests::{
    hostile::{Random, reply},
    packet::facts,
    world::{ETH0, ETH1, FULL_VIP, TCP_IDLE_TICKS, address, from_client, from_target, tables_with},
};
use proptest::prelude::*;

/// Requests of one story: enough that some hundred meet a source that is taken.
const EVENTS: usize = 6_000;

type End = (std::net::IpAddr, u16);

fn ends(bytes: &[u8]) -> (End, End) {
    let facts = facts::read(bytes).expect("a whole packet");
    assert!(facts.is_intact, "checksums hold");
    let (from, to) = facts.ports.expect("ports");
    ((facts.source, from), (facts.destination, to))
}

fn request(tables: &MemoryTables, client: &str, port: u16) -> Option<Vec<u8>> {
    let bytes = from_client().ipv4(client, FULL_VIP).tcp(port, 80).build();
    let mut frame = MemoryFrame::new(bytes, ETH0);
    (handle(&mut frame, tables) == Verdict::Redirect(ETH1)).then_some(frame.bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn no_two_live_flows_share_a_source_and_answers_reach_their_own_client(seed: u64) {
        let mut random = Random::new(seed);
        let tables = tables_with(2048);
        tables.set_pool(&[address("192.0.2.50")]);
        // By (target, source): whose it is.
        let mut owners: HashMap<(End, End), End> = HashMap::new();
        for _ in 0..EVENTS {
            if random.once_in(3_000) {
                tables.now.set(tables.now.get().wrapping_add(TCP_IDLE_TICKS + 2));
                owners.clear();
            }
            let client = random.pick(&["198.51.100.7", "203.0.113.9"]);
            let port = 1 + u16::try_from(random.below(60_000)).expect("a port");
            let me = (client.parse().expect("an address"), port);
            // Refused now and then, when buckets are full.
            let Some(out) = request(&tables, client, port) else { continue };
            let (source, target) = ends(&out);
            prop_assert!(source.1 >= 1024);
            let owner = owners.entry((target, source)).or_insert(me);
            if *owner != me {
                // The former owner had not proved itself, and was displaced: only then.
                let before = occupied(&tables.buckets);
                let (client, port) = (owner.0.to_string(), owner.1);
                let again = request(&tables, &client, port);
                let same = again.as_deref().map(ends) == Some((source, target));
                prop_assert!(!same, "two owners at once; {before} flows");
                *owner = me;
            }
            let mut answer = reply(&out).expect("a plain frame");
            let verdict = handle(&mut answer, &tables);
            prop_assert_eq!(verdict, Verdict::Redirect(ETH0));
            let (from, to) = ends(&answer.bytes);
            prop_assert_eq!(to, me);
            prop_assert_eq!(from, (FULL_VIP.parse().expect("an address"), 80));
        }
    }
}

/// One UDP target, one pool address, and room for many more flows than that makes.
#[test]
fn flows_are_refused_only_when_the_pool_is_nearly_gone_and_no_source_is_given_twice() {
    let tables = tables_with(1 << 16);
    tables.set_pool(&[address("192.0.2.50")]);
    let mut owners: HashMap<End, End> = HashMap::new();
    let (mut refused, mut first_refused_at) = (0, None);
    for (client, count) in [("198.51.100.7", 60_000), ("203.0.113.9", 60_000)] {
        for port in 1..=count {
            let bytes = from_client().ipv4(client, FULL_VIP).udp(port, 53).build();
            let mut frame = MemoryFrame::new(bytes.clone(), ETH0);
            if handle(&mut frame, &tables) == Verdict::Redirect(ETH1) {
                let (source, _) = ends(&frame.bytes);
                let me = (client.parse().expect("an address"), port);
                assert_eq!(owners.insert(source, me), None, "{source:?} is given twice");
            } else {
                assert_eq!(frame.bytes, bytes, "a refused packet is untouched");
                refused += 1;
                first_refused_at.get_or_insert(owners.len());
            }
        }
    }
    let ports = usize::try_from(PORTS).expect("a number of ports");
    let first = first_refused_at.expect("there are more flows than ports");
    assert!(
        first > ports * 85 / 100,
        "refused with {first} of {ports} in use"
    );
    assert!(
        owners.len() > ports * 95 / 100,
        "{} of {ports} given",
        owners.len()
    );
    assert_eq!(tables.stops(Stop::PortAllocationError), refused);
    let all: u64 = tables.stop_counters.borrow().iter().sum();
    assert_eq!(all, refused, "nothing else stopped a packet");
    // All of them still lead to their own clients.
    for (source, me) in owners {
        let answer =
            from_target("10.0.0.11").ip("10.0.0.11".parse().expect("an address"), source.0);
        let mut frame = MemoryFrame::new(answer.udp(5353, source.1).build(), ETH1);
        assert_eq!(handle(&mut frame, &tables), Verdict::Redirect(ETH0));
        assert_eq!(ends(&frame.bytes).1, me);
    }
}
