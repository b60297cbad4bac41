//! As many source rules as anybody has, through the loaded program: the kernel holds them all, and
//! each decides.

use std::{net::Ipv4Addr, time::Instant};

use anyhow::{Result, ensure};
use nlb_common::{
    address::Address,
    admission::{ALLOW, DENY},
    listener::ListenerId,
    stop::Stop,
    wire::{protocol::TCP, tcp::SYN},
};
use nlb_tests::{
    kernel::{self, Answer, Kernel, unavailable},
    model::Segment,
    world::{self, ETH0, FAR_CLIENT, VIP, from_client},
};
use nlb_userspace::dataplane::XDP_OBJECT;

/// A listener of the world with rules.
const LISTENER: (ListenerId, u16) = (ListenerId(106), 9100);
/// Prefixes beside the one of all sources.
const PREFIXES: u32 = 100_000;
/// So far apart that each stands alone: two addresses are denied, then two are not named.
const APART: u32 = 4;
/// Of so many prefixes, one is tried.
const TRIED: usize = 37;

fn first_address(number: u32) -> u32 {
    0x0b00_0000 + APART * number
}

fn run() -> Result<()> {
    let mut tables = world::tables();
    let mut kernel = Kernel::load(XDP_OBJECT, &mut tables)?;
    let denied = (0..PREFIXES).map(|number| {
        let address = Address::from_v4_bytes(first_address(number).to_be_bytes());
        (address, 96 + 31, DENY)
    });
    let rules = denied.chain([(world::address("::"), 0, ALLOW)]).collect();
    tables.rules.insert(LISTENER.0, rules);
    let start = Instant::now();
    kernel.write(&mut tables)?;
    println!("{PREFIXES} prefixes: {:.0?}", start.elapsed());
    let held = kernel.count_rules(LISTENER.0)?;
    ensure!(held == PREFIXES as usize + 1, "the kernel holds {held}");

    let segment = Segment {
        source: (FAR_CLIENT, 4_444),
        destination: (VIP, LISTENER.1),
        protocol: TCP,
        flags: SYN,
        ttl: 64,
        payload_bytes: 0,
        is_strict: false,
    };
    // Its checksums are not looked at.
    let mut frame = segment.frame(from_client()).build();
    let mut blocked = 0;
    let last = PREFIXES - 1;
    for number in (0..PREFIXES).step_by(TRIED).chain([last]) {
        for (offset, is_denied) in [(0, true), (1, true), (2, false)] {
            let source = first_address(number) + offset;
            frame[26..30].copy_from_slice(&source.to_be_bytes());
            let (answer, _) = kernel.run(&frame, ETH0)?;
            // What begins may find a full table; it was not blocked.
            let stops = kernel.stops()?[Stop::BlockedTcp as usize];
            let is_right = stops == blocked + u64::from(is_denied);
            ensure!(
                is_right && (!is_denied || answer == Answer::Drop),
                "{}: {answer:?}, {stops} blocked",
                Ipv4Addr::from(source)
            );
            blocked = stops;
        }
    }
    Ok(())
}

#[test]
fn each_of_a_hundred_thousand_prefixes_decides_in_the_kernel() {
    if let Some(reason) = unavailable() {
        println!("SKIPPED prefixes: {reason}");
        return;
    }
    let outcome = kernel::in_lab(run).expect("a network namespace");
    if let Err(error) = outcome {
        panic!("{error:?}");
    }
}
