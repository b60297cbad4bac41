//! The packet table: frames in, and what must become of them, through the memory body always and
//! through the loaded kernel program where there is the right to load it.

mod admission;
mod answers;
mod connection;
mod cookies;
mod cookies_beside;
mod cookies_under_attack;
mod decap;
mod dsr;
mod echo;
mod explained;
mod flood;
mod flows;
mod fragments;
mod icmp;
mod large;
mod nat;
mod not_ours;
mod outer_errors;
mod prefixes;
mod quic;
mod resets;
mod row;
mod segment_sizes;
mod selection;
mod settled;
mod snat;
mod snat_fragments;
mod snat_icmp;
mod snat_told;
mod stopped;
mod tunnels;
mod vlan;
mod ways;

use nlb_tests::{
    kernel::{self, Kernel, unavailable},
    world,
};
use nlb_userspace::dataplane::XDP_OBJECT;

use crate::{explained::Explainer, row::Row};

fn table() -> Vec<Row> {
    let mut rows = nat::rows();
    rows.extend(answers::rows());
    rows.extend(resets::rows());
    rows.extend(dsr::rows());
    rows.extend(echo::rows());
    rows.extend(icmp::rows());
    rows.extend(large::rows());
    rows.extend(not_ours::rows());
    rows.extend(segment_sizes::rows());
    rows.extend(stopped::rows());
    rows.extend(flows::rows());
    rows.extend(fragments::rows());
    rows.extend(ways::rows());
    rows.extend(vlan::rows());
    rows.extend(selection::rows());
    rows.extend(settled::rows());
    rows.extend(tunnels::rows());
    rows.extend(outer_errors::rows());
    rows.extend(snat::rows());
    rows.extend(snat_fragments::rows());
    rows.extend(snat_icmp::rows());
    rows.extend(snat_told::rows());
    rows.extend(cookies::rows());
    rows.extend(cookies_beside::rows());
    rows.extend(cookies_under_attack::rows());
    rows.extend(quic::rows());
    rows.extend(admission::rows());
    rows
}

/// Runs all rows; every row that fails is shown, not only the first.
fn run(rows: &[Row], mut kernel: Option<&mut Kernel>, explainer: Option<&Explainer>) {
    let mut failed = 0;
    for row in rows {
        let faults = match row::run(row, kernel.as_deref_mut(), explainer) {
            Ok(faults) => faults,
            Err(error) => vec![format!("{error:#}")],
        };
        if !faults.is_empty() {
            failed += 1;
            println!("FAILED: {}\n{}", row.claim, faults.join("\n"));
        }
    }
    println!("{} rows, {failed} failed", rows.len());
    assert_eq!(failed, 0, "rows of the packet table failed; see above");
}

#[test]
fn every_row_holds_in_memory() {
    let rows = table();
    assert!(rows.len() >= 60);
    let mut claims: Vec<&str> = rows.iter().map(|row| row.claim).collect();
    claims.sort_unstable();
    claims.dedup();
    assert_eq!(claims.len(), rows.len(), "two rows make the same claim");
    run(&rows, None, None);
}

#[test]
fn every_row_holds_in_the_kernel() {
    if let Some(reason) = unavailable() {
        println!("SKIPPED packets (kernel): {reason}");
        return;
    }
    kernel::in_lab(|| {
        let mut kernel = Kernel::load(XDP_OBJECT, &mut world::tables())
            .unwrap_or_else(|error| panic!("{error:?}"));
        run(&table(), Some(&mut kernel), None);
    })
    .expect("a network namespace");
}

#[test]
fn every_row_is_explained_as_the_loaded_program_decides_it() {
    if let Some(reason) = unavailable() {
        println!("SKIPPED packets (explained): {reason}");
        return;
    }
    kernel::in_lab(|| {
        // What is counted per processor is explained for the one that we are on.
        kernel::stay_on_this_processor().expect("a processor");
        let mut kernel = Kernel::load(XDP_OBJECT, &mut world::tables())
            .unwrap_or_else(|error| panic!("{error:?}"));
        let explainer = Explainer::of(&kernel).unwrap_or_else(|error| panic!("{error:?}"));
        run(&table(), Some(&mut kernel), Some(&explainer));
    })
    .expect("a network namespace");
}
