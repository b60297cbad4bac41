//! What holds for all packets, not only for those that somebody thought of.

mod corpus;
mod fragments;
mod oracle;
mod pinning;
mod snat;

use nlb_common::{
    address::Address,
    flow::{Choice, Client, FlowState},
    listener::ListenerId,
    next_hop::NextHopId,
    stop::Stop,
    target::TargetId,
    tick::Tick,
    wire::protocol::{ICMP, ICMPV6, TCP, UDP},
};
use nlb_ebpf::{
    Stage, Verdict,
    classify::classify,
    follow,
    front::front,
    handle,
    memory::{MemoryFrame, MemoryTables, occupied},
    parse::parse,
    quote::Quote,
    rewrite::End,
};
use nlb_tests::{
    hostile::{self, Random},
    packet::{Sentence, checksum, eth, facts},
    world::{
        self, CLIENT, CLIENT_V6, ETH0, ETH1, GROUPS, LISTENERS, VIP, VIP_V6, address, from_client,
        from_target, tables, tables_with,
    },
};
use proptest::prelude::*;
use zerocopy::big_endian::U16;

/// A configuration that is right until something happens to it.
const CONFIG: &str = include_str!("../../docs/examples/nat.toml");

/// Sends a frame through; what became of it, and its bytes.
fn send(tables: &MemoryTables, sentence: &Sentence, interface: u32) -> (Verdict, Vec<u8>) {
    let mut frame = MemoryFrame::new(sentence.build(), interface);
    let verdict = handle(&mut frame, tables);
    (verdict, frame.bytes)
}

fn request(is_v6: bool, protocol: u8, port: u16) -> Sentence {
    let from = if is_v6 {
        from_client().ipv6(CLIENT_V6, VIP_V6)
    } else {
        from_client().ipv4(CLIENT, VIP)
    };
    if protocol == TCP {
        from.tcp(port, 80)
    } else {
        from.udp(port, 53)
    }
}

/// The address of the target that a frame was sent on to.
fn target_of(bytes: &[u8]) -> String {
    facts::read(bytes)
        .expect("a whole packet")
        .destination
        .to_string()
}

fn answer(is_v6: bool, protocol: u8, target: &str, port: u16) -> Sentence {
    let from = if is_v6 {
        from_target("fd00::11").ipv6(target, CLIENT_V6)
    } else {
        from_target("10.0.0.11").ipv4(target, CLIENT)
    };
    if protocol == TCP {
        from.tcp(8080, port)
    } else {
        from.udp(5353, port)
    }
}

fn is_ours(bytes: &[u8]) -> bool {
    let Some(facts) = facts::read(bytes) else {
        return true;
    };
    // An error is ours for what it quotes.
    if matches!(facts.protocol, ICMP | ICMPV6) {
        return true;
    }
    let is = |text: &str, other: std::net::IpAddr| text.parse() == Ok(other);
    LISTENERS
        .iter()
        .any(|listener| is(listener.1, facts.destination))
        || GROUPS
            .iter()
            .flat_map(|group| group.targets)
            .any(|target| is(target.1, facts.source))
}

/// Whether an ICMP message's checksum, and its IPv4 header's, hold.
fn icmp_holds(frame: &[u8], is_v6: bool) -> bool {
    if is_v6 {
        let (source, destination) = (&frame[22..38], &frame[38..54]);
        checksum::transport(source, destination, ICMPV6, &frame[54..]) == 0
    } else {
        checksum::internet(&[&frame[14..34]]) == 0 && checksum::internet(&[&frame[34..]]) == 0
    }
}

/// How many flows of this client are remembered.
fn flows_of(tables: &MemoryTables, client: &Client) -> usize {
    let entries = tables.buckets.iter().flat_map(|bucket| &bucket.entries);
    entries
        .filter(|entry| entry.choice_for(client).is_some())
        .count()
}

proptest! {
    #[test]
    fn checksums_hold_behind_us_in_both_directions(
        is_v6: bool, is_tcp: bool, port: u16, class: u8, ttl in 2u8..,
        payload in prop::collection::vec(any::<u8>(), 0..200),
        sequence: (u32, u32),
    ) {
        let protocol = if is_tcp { TCP } else { UDP };
        let tables = tables();
        let to = request(is_v6, protocol, port).payload(&payload).class(class).ttl(ttl);
        let (verdict, out) = send(&tables, &to.sequence(sequence.0, sequence.1), ETH0);
        prop_assert_eq!(verdict, Verdict::Redirect(ETH1));
        let found = facts::read(&out).unwrap();
        prop_assert!(found.is_intact, "{}", facts::describe(&out));
        prop_assert_eq!(found.ttl, ttl - 1);

        let back = answer(is_v6, protocol, &target_of(&out), port).payload(&payload).ttl(ttl);
        let (verdict, out) = send(&tables, &back, ETH1);
        prop_assert_eq!(verdict, Verdict::Redirect(ETH0));
        prop_assert!(facts::read(&out).unwrap().is_intact, "{}", facts::describe(&out));
    }

    #[test]
    fn an_error_that_is_translated_and_back_is_the_same_error(
        is_v6: bool, is_tcp: bool, is_source: bool, is_from_router: bool,
        address: [u8; 16], server: u16, port: u16, new_port: u16,
        payload in prop::collection::vec(any::<u8>(), 0..80),
        count in 8usize..100,
        rest: [u8; 4],
    ) {
        let new = if is_v6 {
            Address::from_v6_bytes(address)
        } else {
            Address::from_v4_bytes([10, address[0], address[1], address[2]])
        };
        let (vip, client, router) = if is_v6 {
            (VIP_V6, CLIENT_V6, "fd00::fe")
        } else {
            (VIP, CLIENT, "10.0.0.254")
        };
        let parse_ip = |text: &str| -> std::net::IpAddr { text.parse().unwrap() };
        let (end, from, to) = if is_source {
            (End::Source, (vip, server), (client, port))
        } else {
            (End::Destination, (client, port), (vip, server))
        };
        let quoted = eth().ip(parse_ip(from.0), parse_ip(to.0));
        let quoted = if is_tcp {
            quoted.tcp(from.1, to.1)
        } else {
            quoted.udp(from.1, to.1)
        };
        let sender = if is_from_router { router } else { to.0 };
        let error = eth().ip(parse_ip(sender), parse_ip(from.0));
        let kind = if is_v6 { 2 } else { 3 };
        let error = error.icmp(kind).code(4, rest).quoting(&quoted.payload(&payload), count);

        let before = error.ttl(255).build();
        let mut frame = MemoryFrame::new(before.clone(), ETH0);
        let translate = |frame: &mut MemoryFrame, to, port: u16| {
            let packet = parse(frame).unwrap();
            let mut quote = Quote::UNREAD;
            quote.read(frame, &packet).unwrap();
            quote.translate(frame, &packet, end, to, U16::new(port)).unwrap();
        };
        translate(&mut frame, new, new_port);
        prop_assert!(icmp_holds(&frame.bytes, is_v6), "{}", facts::hex(&frame.bytes, &before));
        translate(&mut frame, Address::from(parse_ip(vip)), server);
        // Two hops were taken; the IPv4 header's checksum says so, and holds.
        prop_assert!(facts::read(&frame.bytes).unwrap().is_intact);
        let network = if is_v6 { 40 } else { 20 };
        prop_assert_eq!(&frame.bytes[14 + network..], &before[14 + network..]);
        let (source, destination) = if is_v6 { (8..24, 24..40) } else { (12..16, 16..20) };
        prop_assert_eq!(&frame.bytes[14..][source.clone()], &before[14..][source]);
        prop_assert_eq!(&frame.bytes[14..][destination.clone()], &before[14..][destination]);
    }

    #[test]
    fn one_entry_serves_both_directions(is_v6: bool, is_tcp: bool, port: u16) {
        let protocol = if is_tcp { TCP } else { UDP };
        let tables = tables();
        let (_, out) = send(&tables, &request(is_v6, protocol, port), ETH0);
        send(&tables, &answer(is_v6, protocol, &target_of(&out), port), ETH1).1.clear();
        send(&tables, &request(is_v6, protocol, port), ETH0).1.clear();
        prop_assert_eq!(occupied(&tables.buckets), 1);
    }

    #[test]
    fn nothing_that_is_not_ours_changes(seed: u64, is_v6: bool) {
        let tables = tables();
        let mut random = Random::new(seed);
        for _ in 0..20 {
            let before = hostile::frame(&mut random, is_v6);
            let mut frame = before.clone();
            let verdict = handle(&mut frame, &tables);
            if matches!(verdict, Verdict::Pass | Verdict::Drop) {
                prop_assert_eq!(&frame.bytes, &before.bytes);
            }
            if !is_ours(&before.bytes) {
                prop_assert_eq!(verdict, Verdict::Pass, "{}", facts::describe(&before.bytes));
            }
        }
    }

    #[test]
    fn every_story_ends_each_stage_deeper_than_the_one_before(seed: u64) {
        let mut random = Random::new(seed);
        let tables = tables();
        let mut replies = Vec::new();
        for number in 0..600 {
            let mut frame = match replies.pop() {
                Some(reply) => reply,
                None => hostile::frame(&mut random, number % 2 == 0),
            };
            let mut stages = Vec::new();
            let verdict = follow(&mut frame, &tables, front, |stage| stages.push(stage));
            let may_follow = |pair: &[Stage]| pair[1].may_follow(pair[0].depth());
            prop_assert!(stages.windows(2).all(may_follow), "{:?}", stages);
            // A first fragment for a QUIC listener, of a flow that is given a source, has the longest;
            // only a pool with next to nothing left would take more.
            prop_assert!(stages.len() <= 6, "{:?}", stages);
            if matches!(verdict, Verdict::Redirect(_)) {
                let complaint = hostile::complaint(&mut random, &frame.bytes);
                replies.extend(hostile::reply(&frame.bytes).into_iter().chain(complaint));
            }
            if number % 50 == 0 {
                tables.now.set(tables.now.get() + 30);
            }
        }
        prop_assert_eq!(tables.stops(Stop::MissingStage), 0);
    }

    #[test]
    fn the_front_stage_is_only_a_shortcut(seed: u64) {
        let (with, without) = (tables(), tables());
        let mut random = Random::new(seed);
        for number in 0..200 {
            // Few clients and both directions, so that flows begin, go on and end.
            let mut frame = hostile::frame(&mut random, number % 2 == 0);
            let mut same = frame.clone();
            let verdict = handle(&mut frame, &with);
            prop_assert_eq!(verdict, follow(&mut same, &without, classify, |_| {}));
            prop_assert_eq!(&frame.bytes, &same.bytes);
            if number % 7 == 0 {
                let now = with.now.get() + 30;
                with.now.set(now);
                without.now.set(now);
            }
        }
        prop_assert_eq!(with.stop_counters.into_inner(), without.stop_counters.into_inner());
        prop_assert_eq!(
            with.listener_counters.into_inner(),
            without.listener_counters.into_inner()
        );
        prop_assert_eq!(with.fragments.into_inner(), without.fragments.into_inner());
        for (a, b) in with.buckets.iter().zip(&without.buckets) {
            for (a, b) in a.entries.iter().zip(&b.entries) {
                prop_assert_eq!(a.choice.load(), b.choice.load());
                prop_assert_eq!(a.progress.load(), b.progress.load());
            }
        }
    }

    #[test]
    fn no_frame_of_any_length_breaks_the_packet_path(seed: u64, is_v6: bool) {
        let tables = tables();
        let frame = hostile::frame(&mut Random::new(seed), is_v6).bytes;
        for length in 0..=frame.len().min(200) {
            hostile::packet(&frame[..length], &tables);
        }
    }

    #[test]
    fn no_bytes_break_the_packet_path(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        hostile::packet(&bytes, &tables());
    }

    #[test]
    fn a_pinned_flow_keeps_its_target_whatever_happens_to_the_ring(
        is_v6: bool,
        port: u16,
        rings in prop::collection::vec(prop::collection::vec(0usize..3, 0..4), 1..8),
        answers: bool,
    ) {
        let mut tables = tables();
        let (_, out) = send(&tables, &request(is_v6, TCP, port).syn(), ETH0);
        let target = target_of(&out);
        let group = if is_v6 { 3 } else { 1 };
        let ids = if is_v6 { [16, 17, 18] } else { [11, 12, 13] };
        for ring in rings {
            let ring: Vec<u32> = ring.into_iter().map(|index| ids[index]).collect();
            tables.set_ring(group, &world::ring(&ring));
            tables.now.set(tables.now.get() + 20);
            if answers {
                let (verdict, _) = send(&tables, &answer(is_v6, TCP, &target, port), ETH1);
                prop_assert_eq!(verdict, Verdict::Redirect(ETH0));
            }
            let (verdict, out) = send(&tables, &request(is_v6, TCP, port), ETH0);
            prop_assert_eq!(verdict, Verdict::Redirect(ETH1));
            prop_assert_eq!(target_of(&out), target.clone());
        }
    }

    #[test]
    fn a_flood_of_new_flows_displaces_no_established_one(
        victims in prop::collection::btree_set(1u16..1000, 1..5),
        seed: u64,
    ) {
        let tables = tables_with(4);
        let mut targets = Vec::new();
        for port in victims {
            let (verdict, out) = send(&tables, &request(false, TCP, port).syn(), ETH0);
            prop_assert_eq!(verdict, Verdict::Redirect(ETH1));
            let target = target_of(&out);
            send(&tables, &answer(false, TCP, &target, port).syn_ack(), ETH1).1.clear();
            send(&tables, &request(false, TCP, port), ETH0).1.clear();
            targets.push((port, target));
        }
        let mut random = Random::new(seed);
        for _ in 0..500 {
            let port = 1000 + random.word() % 60_000;
            send(&tables, &request(false, TCP, port).syn(), ETH0).1.clear();
        }
        for (port, target) in targets {
            let client = Client { address: address(CLIENT), port: U16::new(port), protocol: TCP };
            prop_assert_eq!(flows_of(&tables, &client), 1);
            let (verdict, out) = send(&tables, &request(false, TCP, port), ETH0);
            prop_assert_eq!(verdict, Verdict::Redirect(ETH1));
            prop_assert_eq!(target_of(&out), target.clone());
            let (verdict, _) = send(&tables, &answer(false, TCP, &target, port), ETH1);
            prop_assert_eq!(verdict, Verdict::Redirect(ETH0));
        }
    }

    /// Whatever a flow table holds, even what no packet wrote there.
    #[test]
    fn no_flow_table_breaks_the_packet_path(
        words in prop::collection::vec((any::<u64>(), any::<u8>(), any::<u16>()), 64),
        seed: u64,
    ) {
        let tables = tables();
        let entries = tables.buckets.iter().flat_map(|bucket| &bucket.entries);
        for (entry, (word, state, seen)) in entries.zip(words) {
            let client = Client {
                address: address(CLIENT),
                port: U16::new(40_000 + seen % 24),
                protocol: TCP,
            };
            let choice = Choice {
                target: TargetId(11),
                listener: ListenerId(1),
                next_hop: NextHopId(1),
            };
            entry.fill(&client, choice, FlowState(state), Tick(seen));
            if seen % 2 == 0 {
                entry.choice.store(word);
            }
        }
        let mut random = Random::new(seed);
        for number in 0..40 {
            let frame = hostile::frame(&mut random, number % 8 == 0);
            hostile::packet(&frame.bytes, &tables);
        }
    }

    /// The body of the fuzz target `config`.
    #[test]
    fn no_text_breaks_the_configuration_reader(
        text in "\\PC{0,200}",
        cut: prop::sample::Index,
        key in "[a-z_.]{1,12}",
    ) {
        hostile::config(&text);
        hostile::config(&format!("{CONFIG}\n{key} = {text}"));
        let at = CONFIG.char_indices().map(|(at, _)| at).collect::<Vec<_>>();
        hostile::config(&CONFIG[..at[cut.index(at.len())]]);
    }
}
