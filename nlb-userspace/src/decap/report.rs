//! The counters as text: a line for each encapsulation, and for each reason that was met.

use std::fmt::Write as _;

use nlb_common::{
    decap::{DecapStop, Encapsulation},
    stop::StopVerdict,
};

use crate::dataplane::decap::DecapCounts;

/// What is printed.
pub fn report(counts: &DecapCounts) -> String {
    let mut text = String::new();
    for (encapsulation, sum) in Encapsulation::ALL.iter().zip(counts.decapsulated) {
        let _ = writeln!(
            text,
            "decapsulated {}: {} packets, {} bytes",
            encapsulation.name(),
            sum.packets,
            sum.bytes
        );
    }
    for (stop, count) in DecapStop::ALL.iter().zip(counts.stops) {
        if count > 0 {
            let verdict = match stop.verdict() {
                StopVerdict::Pass => "passed",
                StopVerdict::Drop => "dropped",
            };
            let _ = writeln!(text, "{verdict} {}: {count} packets", stop.name());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use nlb_common::decap::Decapsulated;

    use super::*;

    #[test]
    fn every_encapsulation_has_a_line_and_so_has_every_reason_that_was_met() {
        let mut counts = DecapCounts::default();
        counts.decapsulated[Encapsulation::Gue as usize] = Decapsulated {
            packets: 3,
            bytes: 120,
        };
        counts.stops[DecapStop::ForeignSource as usize] = 2;
        counts.stops[DecapStop::Fragment as usize] = 1;
        assert_eq!(
            report(&counts),
            "decapsulated ipip: 0 packets, 0 bytes\n\
             decapsulated gue: 3 packets, 120 bytes\n\
             decapsulated geneve: 0 packets, 0 bytes\n\
             passed fragment: 1 packets\n\
             dropped foreign_source: 2 packets\n"
        );
    }
}
