//! Whatever is cut where, and whoever else uses the same numbers: fragments arrive together, and what
//! they make is right.

use std::collections::HashMap;

use nlb_common::{
    fragment::LIFE_TICKS,
    listener::{ListenerId, ListenerKey},
    stop::Stop,
    wire::protocol::{TCP, UDP},
};
use nlb_ebpf::{
    Verdict, handle,
    memory::{MemoryFrame, MemoryTables},
};
use nlb_tests::{
    hostile::Random,
    packet::{
        Sentence, facts,
        fragments::{join, split},
    },
    world::{
        self, CLIENT, CLIENT_V6, DSR_VIP, DSR_VIP_V6, ETH0, ETH1, FAR_CLIENT, FAR_CLIENT_V6,
        FULL_VIP, FULL_VIP_V6, QUIET_CLIENT, VIP, VIP_V6, from_client, from_target, tables,
    },
};
use proptest::prelude::*;
use zerocopy::big_endian::U16;

fn send(tables: &MemoryTables, bytes: &[u8], interface: u32) -> (Verdict, Vec<u8>) {
    let mut frame = MemoryFrame::new(bytes.to_vec(), interface);
    let verdict = handle(&mut frame, tables);
    (verdict, frame.bytes)
}

fn say(
    from: Sentence,
    (source, from_port): (&str, u16),
    (destination, to_port): (&str, u16),
    protocol: u8,
) -> Sentence {
    let parse = |text: &str| text.parse().expect("an address of the world");
    let packet = from.ip(parse(source), parse(destination));
    if protocol == TCP {
        packet.tcp(from_port, to_port)
    } else {
        packet.udp(from_port, to_port)
    }
}

/// Cuts in eights of bytes, none inside of a transport header and no piece larger than the links take.
fn cuts(random: &mut Random, length: usize) -> Vec<usize> {
    let random_cuts = (0..=random.below(4)).map(|_| 24 + random.below(length - 24) / 8 * 8);
    let mut cuts: Vec<usize> = random_cuts.chain((1360..length).step_by(1360)).collect();
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

/// Sends all pieces, the first one first and the others in any order; what came out.
fn all(
    random: &mut Random,
    tables: &mut MemoryTables,
    whole: &Sentence,
    payload_bytes: usize,
    interface: u32,
) -> Vec<Vec<u8>> {
    let cuts = cuts(random, payload_bytes);
    let mut pieces = split(&whole.build(), &cuts, random.word());
    let out = if interface == ETH0 { ETH1 } else { ETH0 };
    let mut arrived = Vec::new();
    while !pieces.is_empty() {
        let next = if arrived.is_empty() {
            0
        } else {
            random.below(pieces.len())
        };
        let (verdict, bytes) = send(tables, &pieces.remove(next), interface);
        assert_eq!(
            verdict,
            Verdict::Redirect(out),
            "{}",
            facts::describe(&bytes)
        );
        arrived.push(bytes);
        // The flow may be forgotten, and new ones may go elsewhere.
        if random.once_in(4) {
            for group in [1, 2, 3, 4, 5, 6] {
                tables.set_ring(group, &world::ring(&[]));
            }
        }
    }
    arrived
}

/// What a receiver puts together: it goes by sender, receiver, protocol and number (RFC 791 §3.2,
/// RFC 8200 §4.5).
fn put_together(arrived: &[Vec<u8>], is_v6: bool) -> Vec<Vec<u8>> {
    let mut datagrams: HashMap<Vec<u8>, Vec<Vec<u8>>> = HashMap::new();
    for piece in arrived {
        let known_by = if is_v6 {
            [&piece[22..54], &piece[58..62]].concat()
        } else {
            [&piece[18..20], &piece[23..24], &piece[26..34]].concat()
        };
        datagrams.entry(known_by).or_default().push(piece.clone());
    }
    let joined = datagrams.values().map(|pieces| join(pieces));
    joined
        .map(|whole| whole.expect("one datagram's pieces, and all of them"))
        .collect()
}

/// Sends the pieces of all of these, mixed, but each one's first before its others; what arrived.
fn mixed(
    random: &mut Random,
    tables: &MemoryTables,
    mut datagrams: Vec<Vec<Vec<u8>>>,
    interface: u32,
) -> Vec<Vec<u8>> {
    let out = if interface == ETH0 { ETH1 } else { ETH0 };
    let mut arrived = Vec::new();
    while !datagrams.is_empty() {
        let chosen = random.below(datagrams.len());
        let piece = datagrams[chosen].remove(0);
        let (verdict, bytes) = send(tables, &piece, interface);
        assert_eq!(
            verdict,
            Verdict::Redirect(out),
            "{}",
            facts::describe(&bytes)
        );
        arrived.push(bytes);
        datagrams.retain(|pieces| !pieces.is_empty());
    }
    arrived
}

proptest! {
    /// All clients are one to the target, and all of them use the same numbers.
    #[test]
    fn what_is_put_together_behind_a_source_of_ours_is_what_one_end_sent(seed: u64, is_v6: bool) {
        let random = &mut Random::new(seed);
        let tables = tables();
        let (clients, vip, pool) = if is_v6 {
            ([CLIENT_V6, FAR_CLIENT_V6], FULL_VIP_V6, "2001:db8::50")
        } else {
            ([CLIENT, FAR_CLIENT], FULL_VIP, "192.0.2.50")
        };
        tables.set_pool(&[world::address(pool)]);
        let payload = |sender: &str, number: u16| format!("{sender} {number} ").repeat(40);
        // Each sender uses a number once.
        let datagrams: Vec<(&str, u16)> =
            (1..=20).flat_map(|number| clients.map(|client| (client, number))).collect();
        let sent = datagrams.iter().map(|(client, number)| {
            let ends = ((*client, 40_000 + number % 4), (vip, 53));
            let whole = say(from_client(), ends.0, ends.1, UDP);
            split(&whole.payload(payload(client, *number).as_bytes()).build(), &[40, 80], *number)
        });
        let sent: Vec<_> = sent.collect();
        let whole = put_together(&mixed(random, &tables, sent, ETH0), is_v6);
        prop_assert_eq!(whole.len(), datagrams.len());
        let content_at = if is_v6 { 14 + 40 + 8 } else { 14 + 20 + 8 };
        let mut answers = Vec::new();
        for (number, whole) in (1000u16..).zip(&whole) {
            let facts = facts::read(whole).expect("a whole datagram");
            prop_assert!(facts.is_intact, "{}", facts::describe(whole));
            let told = String::from_utf8_lossy(&whole[content_at..]);
            let mut words = told.split(' ');
            let (client, of) = (words.next().expect("a sender"), words.next().expect("a number"));
            prop_assert_eq!(&told, &payload(client, of.parse().expect("a number")));
            // The same goes back.
            let (from, to) = facts.ports.expect("ports");
            let (target, source) = (facts.destination.to_string(), facts.source.to_string());
            let router = if is_v6 { "fd00::fe" } else { "10.0.0.11" };
            let answer = say(from_target(router), (&target, to), (&source, from), UDP);
            answers.push(split(&answer.payload(told.as_bytes()).build(), &[64], number));
        }
        let whole = put_together(&mixed(random, &tables, answers, ETH1), is_v6);
        prop_assert_eq!(whole.len(), datagrams.len());
        for whole in &whole {
            let facts = facts::read(whole).expect("a whole datagram");
            prop_assert!(facts.is_intact, "{}", facts::describe(whole));
            prop_assert_eq!(facts.source.to_string(), vip);
            let told = String::from_utf8_lossy(&whole[content_at..]);
            prop_assert!(told.starts_with(&facts.destination.to_string()), "{told}");
        }
    }

    /// One client asks one target through two VIPs, and two targets answer one client from one VIP; all
    /// of them use the same numbers.
    #[test]
    fn what_is_put_together_behind_a_translation_is_what_one_end_sent(seed: u64, is_v6: bool) {
        let random = &mut Random::new(seed);
        let mut tables = tables();
        let (client, vips, targets, group) = if is_v6 {
            (CLIENT_V6, [VIP_V6, "2001:db8::11"], ["fd00::11", "fd00::12"], 4)
        } else {
            (CLIENT, [VIP, "192.0.2.11"], ["10.0.0.11", "10.0.0.12"], 2)
        };
        let of_group = tables.listeners.iter().find(|listener| listener.policy().group == group);
        let policy = of_group.expect("a listener of the world").policy();
        let key = ListenerKey::new(world::address(vips[1]), UDP, U16::new(53));
        tables.add_listener(ListenerId(126), key, policy);
        let all = &world::GROUPS[usize::from(group) - 1];
        let ids: Vec<u32> = all.targets.iter().map(|target| target.0).collect();
        let content_at = if is_v6 { 14 + 40 + 8 } else { 14 + 20 + 8 };
        let content = |sender: &str, number: u16| format!("{sender} {number} ").repeat(40);
        let pieces = |whole: Sentence, sender: &str, number| {
            split(&whole.payload(content(sender, number).as_bytes()).build(), &[40, 80], number)
        };

        tables.set_ring(group, &world::ring(&ids[..1]));
        let sent = (1..=20).flat_map(|number| [(vips[0], 40_000, number), (vips[1], 40_001, number)]);
        let sent = sent.map(|(vip, port, number)| {
            pieces(say(from_client(), (client, port), (vip, 53), UDP), vip, number)
        });
        let sent: Vec<_> = sent.collect();
        let arrived = put_together(&mixed(random, &tables, sent, ETH0), is_v6);
        prop_assert_eq!(arrived.len(), 40);

        tables.set_ring(group, &world::ring(&ids[1..2]));
        let first = say(from_client(), (client, 40_002), (vips[0], 53), UDP);
        let (verdict, _) = send(&tables, &first.build(), ETH0);
        prop_assert_eq!(verdict, Verdict::Redirect(ETH1));
        let answers = (1..=20).flat_map(|number| {
            [(targets[0], 40_000, number), (targets[1], 40_002, number)]
        });
        let answers = answers.map(|(target, port, number)| {
            pieces(say(from_target(target), (target, 5353), (client, port), UDP), target, number)
        });
        let answers: Vec<_> = answers.collect();
        let returned = put_together(&mixed(random, &tables, answers, ETH1), is_v6);
        prop_assert_eq!(returned.len(), 40);
        let mut told: Vec<_> = Vec::new();
        for whole in arrived.iter().chain(&returned) {
            let facts = facts::read(whole).expect("a whole datagram");
            prop_assert!(facts.is_intact, "{}", facts::describe(whole));
            told.push(String::from_utf8_lossy(&whole[content_at..]).into_owned());
        }
        let senders = vips.into_iter().chain(targets);
        let mut expected: Vec<_> = senders
            .flat_map(|sender| (1..=20).map(move |number| content(sender, number)))
            .collect();
        told.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(told, expected);
    }

    #[test]
    fn fragments_of_one_packet_arrive_together_and_make_a_right_one(
        seed: u64, is_v6: bool, is_tcp: bool, is_dsr: bool, port: u16, payload_bytes in 100usize..4000,
    ) {
        let random = &mut Random::new(seed);
        let mut tables = tables();
        let (protocol, service) = if is_tcp { (TCP, 80) } else { (UDP, 53) };
        let client = if is_v6 { CLIENT_V6 } else { CLIENT };
        let vip = match (is_v6, is_dsr) {
            (false, false) => VIP,
            (false, true) => DSR_VIP,
            (true, false) => VIP_V6,
            (true, true) => DSR_VIP_V6,
        };
        let payload = random.bytes(payload_bytes);
        let whole = say(from_client(), (client, port), (vip, service), protocol).payload(&payload);
        let pieces = all(random, &mut tables, &whole, payload_bytes, ETH0);
        prop_assert!(pieces.iter().all(|piece| piece[..12] == pieces[0][..12]));
        let joined = join(&pieces).expect("all pieces, and of one packet");
        let arrived = facts::read(&joined).unwrap();
        prop_assert!(arrived.is_intact, "{}", facts::describe(&joined));
        prop_assert!(joined.ends_with(&payload));
        if is_dsr {
            prop_assert_eq!(arrived.destination.to_string(), vip);
            return Ok(());
        }

        let target = arrived.destination.to_string();
        let (_, target_port) = arrived.ports.unwrap();
        let payload = random.bytes(payload_bytes);
        let sender = from_target(if is_v6 { "fd00::11" } else { "10.0.0.11" });
        let whole = say(sender, (&target, target_port), (client, port), protocol).payload(&payload);
        let pieces = all(random, &mut tables, &whole, payload_bytes, ETH1);
        let joined = join(&pieces).expect("all pieces, and of one packet");
        let arrived = facts::read(&joined).unwrap();
        prop_assert!(arrived.is_intact, "{}", facts::describe(&joined));
        prop_assert_eq!(arrived.source.to_string(), vip);
        prop_assert_eq!(arrived.ports, Some((service, port)));
        prop_assert!(joined.ends_with(&payload));
    }

    #[test]
    fn a_later_fragment_goes_nowhere_but_where_its_first_went(seed: u64, is_v6: bool) {
        let random = &mut Random::new(seed);
        let mut tables = tables();
        let (clients, vips) = if is_v6 {
            (&[CLIENT_V6, FAR_CLIENT_V6, CLIENT_V6][..], [VIP_V6, DSR_VIP_V6])
        } else {
            (&[CLIENT, FAR_CLIENT, QUIET_CLIENT][..], [VIP, DSR_VIP])
        };
        let mut firsts: HashMap<_, (Vec<u8>, u16)> = HashMap::new();
        // The receiver's MAC and IP addresses.
        let receiver = |bytes: &[u8]| {
            let ip = if is_v6 { 38..54 } else { 30..34 };
            [&bytes[..6], &bytes[ip]].concat()
        };
        for _ in 0..200 {
            match random.below(20) {
                0 => tables.now.set(tables.now.get().wrapping_add(random.pick(&[1, 5, 37, 38, 39]))),
                1 => {
                    let group = random.pick(&world::GROUPS[..6]);
                    let target = group.targets[random.below(group.targets.len())].0;
                    tables.set_ring(group.id, &world::ring(&[target]));
                }
                2 => tables.buckets.fill_with(Default::default),
                _ => {}
            }
            let (client, vip) = (random.pick(clients), random.pick(&vips));
            let (protocol, service) = random.pick(&[(UDP, 53), (UDP, 53), (TCP, 80)]);
            let (port, number) = (random.pick(&[40_000, 40_001, 40_002]), random.pick(&[1u16, 2]));
            let whole = say(from_client(), (client, port), (vip, service), protocol);
            let pieces = split(&whole.payload(&[7; 100]).build(), &[40, 80], number);
            let piece = random.below(3);
            // What IPv6 fragments say about their protocol need not be true.
            let datagram = (client, vip, number, if is_v6 { 0 } else { protocol });
            let before = tables.stops(Stop::NoFirstFragment);
            let (verdict, bytes) = send(&tables, &pieces[piece], ETH0);
            let now = tables.now.get();
            if piece == 0 {
                prop_assert_eq!(verdict, Verdict::Redirect(ETH1));
                firsts.insert(datagram, (receiver(&bytes), now));
                continue;
            }
            match firsts.get(&datagram) {
                Some((went_to, seen)) if now.wrapping_sub(*seen) <= LIFE_TICKS => {
                    prop_assert_eq!(verdict, Verdict::Redirect(ETH1));
                    prop_assert_eq!(&receiver(&bytes), went_to);
                }
                _ => {
                    prop_assert_eq!(verdict, Verdict::Drop);
                    prop_assert_eq!(tables.stops(Stop::NoFirstFragment), before + 1);
                }
            }
        }
    }
}
