//! A flood of SYNs, through the loaded program: what it does to flows that are established, and to
//! limits that it exceeds.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use nlb_common::{
    flow::{Choice, Client, Progress, WAYS},
    stop::Stop,
    tick::Tick,
    wire::{
        protocol::TCP,
        tcp::{ACK, SYN},
    },
};
use nlb_ebpf::{Verdict, handle, memory::MemoryFrame};
use nlb_tests::{
    kernel::{self, Answer, Kernel, unavailable},
    model::Segment,
    world::{self, CLIENT, DSR_VIP, ETH0, FAR_CLIENT, VIP, address, from_client, tables_with},
};
use nlb_userspace::{clock, dataplane::XDP_OBJECT};
use zerocopy::big_endian::U16;

/// Buckets of a table for 65,536 flows.
const BUCKETS: usize = (1 << 16) / WAYS;
/// Flows that are established before the flood.
const ESTABLISHED: u16 = 4_000;
/// SYNs, each of another source: thirty for each entry of the table.
const SYNS: u32 = 2_000_000;

fn segment(client: (&'static str, u16), vip: &'static str, flags: u8) -> Vec<u8> {
    let segment = Segment {
        source: client,
        destination: (vip, 80),
        protocol: TCP,
        flags,
        ttl: 64,
        payload_bytes: 0,
        is_strict: false,
    };
    segment.frame(from_client()).build()
}

/// Makes a frame that of the flood's nth source, of which none is a client of the world.
fn flooding(frame: &mut [u8], number: u32) {
    frame[26..30].copy_from_slice(&(0x0a80_0000 + number).to_be_bytes());
}

fn run() -> Result<()> {
    let mut tables = tables_with(BUCKETS);
    let began = clock::now();
    tables.now.set(began.0);
    let client = |port| Client {
        address: address(CLIENT),
        port: U16::new(port),
        protocol: TCP,
    };
    // In dsr the client's second packet shows that its flow is established.
    let ports = 10_000..10_000 + ESTABLISHED;
    for port in ports.clone() {
        for flags in [SYN, ACK] {
            let mut frame = MemoryFrame::new(segment((CLIENT, port), DSR_VIP, flags), ETH0);
            let verdict = handle(&mut frame, &tables);
            ensure!(
                matches!(verdict, Verdict::Redirect(_)),
                "{port}: {verdict:?}"
            );
        }
    }
    let mut kernel = Kernel::load_ticking(XDP_OBJECT, &mut tables)?;
    let before = kernel.flows()?;
    let entries = |flows: &[[u64; 16]]| -> Vec<[u64; 4]> {
        let entries = flows.iter().flat_map(|bucket| bucket.as_chunks::<4>().0);
        entries
            .copied()
            .filter(|entry| entry[0] != Choice::EMPTY)
            .collect()
    };
    let established = entries(&before);

    // Translated flows, which must have an entry, and others.
    let start = Instant::now();
    let mut answers = std::collections::HashMap::<Answer, u32>::new();
    for (vip, numbers) in [(DSR_VIP, 0..SYNS / 2), (VIP, SYNS / 2..SYNS)] {
        // Its checksums are not looked at.
        let mut frame = segment((FAR_CLIENT, 4_444), vip, SYN);
        for number in numbers {
            flooding(&mut frame, number);
            let (answer, _) = kernel.run(&frame, ETH0)?;
            *answers.entry(answer).or_default() += 1;
        }
    }
    let took = start.elapsed();
    let after = kernel.flows()?;
    let stops = kernel.stops()?;
    let full = stops[Stop::FlowTableFull as usize];
    let remembered = entries(&after).len();
    println!(
        "{SYNS} SYNs in {took:.1?}: {answers:?}, {full} found no place; \
         {remembered} of {} entries taken",
        BUCKETS * WAYS
    );
    ensure!(
        remembered > BUCKETS * WAYS * 9 / 10,
        "the table is not full"
    );

    // The kernel's clock is the one that we read, within a tick.
    let since = |tick: Tick| tick.0.wrapping_sub(began.0).wrapping_add(1);
    let span = since(clock::now()) + 1;
    let seen = |entry: &[u64; 4]| Progress::of_word(entry[3]).last_seen;
    let is_ours = |entry| since(seen(entry)) <= span;
    ensure!(
        entries(&after).iter().all(is_ours),
        "the kernel has another clock"
    );

    // Every established flow is where it was, byte for byte.
    let lost = before.iter().zip(&after).flat_map(|(old, new)| {
        let (old, new) = (old.as_chunks::<4>().0, new.as_chunks::<4>().0);
        let pairs = old.iter().zip(new);
        pairs.filter(|(old, new)| old[0] != Choice::EMPTY && old != new)
    });
    let lost = lost.count();
    ensure!(
        lost == 0,
        "{lost} of {} flows were changed",
        established.len()
    );
    ensure!(established.len() == usize::from(ESTABLISHED));
    for port in ports {
        let place = tables
            .buckets
            .iter()
            .flat_map(|bucket| &bucket.entries)
            .find_map(|entry| entry.choice_for(&client(port)));
        let target = Choice::of_word(place.context("no entry")?).target;
        let (answer, out) = kernel.run(&segment((CLIENT, port), DSR_VIP, ACK), ETH0)?;
        ensure!(answer == Answer::Redirect, "{port}: {answer:?}");
        let mac = world::neighbour_of(if target.0 == 21 {
            "10.0.0.21"
        } else {
            "10.0.0.22"
        });
        ensure!(out[..6] == mac.mac(), "{port} went to another target");
    }
    Ok(())
}

#[test]
fn a_flood_of_syns_changes_no_byte_of_an_established_flow() {
    if let Some(reason) = unavailable() {
        println!("SKIPPED flood: {reason}");
        return;
    }
    let outcome = kernel::in_lab(run).expect("a network namespace");
    if let Err(error) = outcome {
        panic!("{error:?}");
    }
}
