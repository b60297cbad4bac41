//! The packet table of the targets' program: what comes out of tunnels, what stays in them, and that
//! hostile bytes change nothing; through the memory body always, and through the loaded program
//! where there is the right to load it.

mod every_way;
mod hostile;
mod refused;
mod right;
mod rows;
mod target;

use nlb_tests::kernel::{SHORTEST_FRAME_BYTES, unavailable};

use self::{
    rows::Row,
    target::{KernelTarget, MemoryTarget, Outcome, Setup},
};

fn rows() -> Vec<Row> {
    let mut rows = every_way::rows();
    rows.extend(right::rows());
    rows.extend(refused::rows());
    rows
}

/// What is wrong about an outcome, if anything.
fn judge(row: &Row, body: &str, found: &Outcome) -> Option<String> {
    let expected = row.expected();
    (*found != expected).then(|| {
        format!(
            "FAILED: {}: {body}\n  expected {expected:02x?}\n  found    {found:02x?}",
            row.claim
        )
    })
}

fn report(faults: &[String], rows: usize) {
    for fault in faults {
        println!("{fault}");
    }
    println!("{rows} rows, {} failed", faults.len());
    assert!(faults.is_empty(), "rows of the table failed; see above");
}

#[test]
fn every_row_of_decapsulation_holds_in_memory() {
    let rows = rows();
    let mut claims: Vec<&String> = rows.iter().map(|row| &row.claim).collect();
    claims.sort_unstable();
    claims.dedup();
    assert_eq!(claims.len(), rows.len(), "two rows make the same claim");
    let faults: Vec<String> = rows
        .iter()
        .filter_map(|row| {
            let found = MemoryTarget::new(row.setup).run(&row.frame);
            judge(row, "memory", &found)
        })
        .collect();
    report(&faults, rows.len());
}

#[test]
fn every_row_of_decapsulation_holds_in_the_kernel() {
    if let Some(reason) = unavailable() {
        println!("SKIPPED packets (kernel): {reason}");
        return;
    }
    let rows = rows();
    let mut faults = Vec::new();
    for setup in Setup::ALL {
        let mut kernel = KernelTarget::load(setup).unwrap_or_else(|error| panic!("{error:?}"));
        for row in rows.iter().filter(|row| row.setup == setup) {
            if row.frame.len() < SHORTEST_FRAME_BYTES {
                continue;
            }
            let found = kernel
                .run(&row.frame)
                .unwrap_or_else(|error| panic!("{}: {error:?}", row.claim));
            faults.extend(judge(row, "kernel", &found));
        }
    }
    report(&faults, rows.len());
}
