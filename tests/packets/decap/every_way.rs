//! Rows that are made for every encapsulation with every outer and inner version.

use nlb_common::decap::{DecapStop, Encapsulation};
use nlb_tests::packet::eth;

use super::{
    rows::{Row, Wrapping, inner, outer, packet, version, ways, wrap, wrap_bytes},
    target::{CLIENT_V4, CLIENT_V6, LB_V4, LB_V6, OWN_V4, OWN_V6, STRANGER_V4, STRANGER_V6, Setup},
};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = every_way();
    rows.extend(every_lie());
    rows.extend(congestion());
    rows.extend(switched_off());
    rows
}

fn way(wrapping: Wrapping, outer_v4: bool, inner_v4: bool) -> String {
    format!(
        "{wrapping:?} of {} in {}",
        version(inner_v4),
        version(outer_v4)
    )
}

/// What every way of being wrapped has in common: where it comes out and where not.
fn every_way() -> Vec<Row> {
    let mut rows = Vec::new();
    for (wrapping, outer_v4, inner_v4) in ways() {
        let way = way(wrapping, outer_v4, inner_v4);
        let whole = wrap(wrapping, outer(outer_v4), inner_v4, &inner(inner_v4));
        let encapsulation = wrapping.encapsulation();
        rows.push(Row::comes_out(
            format!("{way} comes out"),
            (encapsulation, &whole),
            &inner(inner_v4),
        ));
        rows.push(Row::comes_out(
            format!("{way} comes out behind a tag"),
            (encapsulation, &whole.clone().vlan(5)),
            &inner(inner_v4).vlan(5),
        ));
        rows.push(Row::comes_out(
            format!("{way} comes out behind two tags"),
            (encapsulation, &whole.clone().service_vlan(7).vlan(5)),
            &inner(inner_v4).service_vlan(7).vlan(5),
        ));
        rows.push(Row::comes_out(
            format!("{way} comes out with a trailer behind it"),
            (encapsulation, &whole.clone().trailer(&[0; 6])),
            &inner(inner_v4).trailer(&[0; 6]),
        ));

        let elsewhere = if outer_v4 {
            eth().ipv4(LB_V4, "10.0.0.12")
        } else {
            eth().ipv6(LB_V6, "fd00::12")
        };
        rows.push(Row::passes(
            format!("{way} for another host passes"),
            &wrap(wrapping, elsewhere, inner_v4, &inner(inner_v4)),
        ));
        let other_vip = if inner_v4 {
            inner(true).ipv4(CLIENT_V4, "192.0.2.21")
        } else {
            inner(false).ipv6(CLIENT_V6, "2001:db8::21")
        };
        rows.push(Row::passes(
            format!("{way} for no VIP passes"),
            &wrap(wrapping, outer(outer_v4), inner_v4, &other_vip),
        ));

        let stranger = if outer_v4 {
            eth().ipv4(STRANGER_V4, OWN_V4)
        } else {
            eth().ipv6(STRANGER_V6, OWN_V6)
        };
        let foreign = wrap(wrapping, stranger, inner_v4, &inner(inner_v4));
        rows.push(Row::stops(
            format!("{way} from a stranger is stopped"),
            &foreign,
            DecapStop::ForeignSource,
        ));
        rows.push(
            Row::comes_out(
                format!("{way} from anywhere comes out where sources are not restricted"),
                (encapsulation, &foreign),
                &inner(inner_v4),
            )
            .with(Setup::Open),
        );
    }
    rows
}

/// What every way of being wrapped has in common: lies and fragments.
fn every_lie() -> Vec<Row> {
    let mut rows = Vec::new();
    for (wrapping, outer_v4, inner_v4) in ways() {
        let way = way(wrapping, outer_v4, inner_v4);
        let whole = wrap(wrapping, outer(outer_v4), inner_v4, &inner(inner_v4));
        let length = packet(&inner(inner_v4)).len() - if inner_v4 { 0 } else { 40 };
        let said = u16::try_from(length).expect("a short packet");
        for (lie, what) in [(said + 1, "longer"), (u16::MAX, "much longer")] {
            rows.push(Row::stops(
                format!("{way} that says it is {what} than its outer packet is stopped"),
                &wrap(
                    wrapping,
                    outer(outer_v4),
                    inner_v4,
                    &inner(inner_v4).length(lie),
                ),
                DecapStop::InnerLength,
            ));
        }
        let cut = packet(&inner(inner_v4))[..if inner_v4 { 19 } else { 39 }].to_vec();
        rows.push(Row::stops(
            format!("{way} whose header is cut short is stopped"),
            &wrap_bytes(wrapping, outer(outer_v4), inner_v4, &cut),
            DecapStop::Malformed,
        ));
        // In what is read of the longer header there must be room enough.
        let other_version = [
            &packet(&inner(!inner_v4))[..],
            &packet(&inner(!inner_v4))[..],
        ]
        .concat();
        if wrapping != Wrapping::GueDirect {
            rows.push(Row::stops(
                format!("{way} that is of the other version is stopped"),
                &wrap_bytes(wrapping, outer(outer_v4), inner_v4, &other_version),
                DecapStop::Malformed,
            ));
        }
        rows.push(Row::stops(
            format!("{way} in a first fragment is left to the stack"),
            &whole.clone().first_fragment(),
            DecapStop::Fragment,
        ));
        let later = whole.clone().later_fragment();
        rows.push(if wrapping == Wrapping::Ipip {
            Row::stops(
                format!("{way} in a later fragment is left to the stack"),
                &later,
                DecapStop::Fragment,
            )
        } else {
            Row::passes(
                format!("{way} in a later fragment passes as nobody can tell what it is"),
                &later,
            )
        });
        rows.push(Row::stops(
            format!("{way} with an outer length that lies is left to the stack"),
            &whole.clone().length(1400),
            DecapStop::OuterHeader,
        ));
        rows.push(
            Row::stops(
                format!("{way} cut off in the frame is left to the stack"),
                &whole,
                DecapStop::OuterHeader,
            )
            .cut(whole.build().len() - 1),
        );
    }
    rows
}

/// RFC 6040, figure 4: inner (rows) and outer (columns) as Not-ECT, ECT(0), ECT(1), CE.
const FIGURE_4: [(u8, [Option<u8>; 4]); 4] = [
    (0, [Some(0), Some(0), Some(0), None]),
    (2, [Some(2), Some(2), Some(1), Some(3)]),
    (1, [Some(1), Some(1), Some(1), Some(3)]),
    (3, [Some(3), Some(3), Some(3), Some(3)]),
];

fn congestion() -> Vec<Row> {
    let mut rows = Vec::new();
    for (outer_v4, inner_v4) in [(true, true), (true, false), (false, true), (false, false)] {
        for (inside, results) in FIGURE_4 {
            for (outside, result) in [0, 2, 1, 3].into_iter().zip(results) {
                // DSCP differs inside and outside, and stays inside.
                let packet = inner(inner_v4).class(0xb8 | inside);
                let outer = outer(outer_v4).class(0x28 | outside);
                let frame = wrap(Wrapping::Gue, outer, inner_v4, &packet);
                let claim = format!(
                    "ECN {inside:02b} of {} in {outside:02b} of {}",
                    version(inner_v4),
                    version(outer_v4)
                );
                rows.push(match result {
                    Some(ecn) => Row::comes_out(
                        claim,
                        (Encapsulation::Gue, &frame),
                        &inner(inner_v4).class(0xb8 | ecn),
                    ),
                    None => Row::stops(claim, &frame, DecapStop::Congestion),
                });
            }
        }
    }
    rows
}

fn switched_off() -> Vec<Row> {
    let mut rows = Vec::new();
    for (wrapping, outer_v4, inner_v4) in ways() {
        let frame = wrap(wrapping, outer(outer_v4), inner_v4, &inner(inner_v4));
        let way = way(wrapping, outer_v4, inner_v4);
        rows.push(if wrapping == Wrapping::Ipip {
            Row::comes_out(
                format!("{way} comes out where it alone is on"),
                (Encapsulation::Ipip, &frame),
                &inner(inner_v4),
            )
            .with(Setup::IpipAlone)
        } else {
            Row::passes(format!("{way} passes where IP in IP alone is on"), &frame)
                .with(Setup::IpipAlone)
        });
        rows.push(
            Row::passes(
                format!("{way} passes where GUE alone is on, at another port"),
                &frame,
            )
            .with(Setup::GueAlone),
        );
    }
    let elsewhere = wrap(Wrapping::Gue, outer(true), true, &inner(true)).udp(1, 7777);
    rows.push(
        Row::comes_out(
            "GUE comes out at the port that was typed",
            (Encapsulation::Gue, &elsewhere),
            &inner(true),
        )
        .with(Setup::GueAlone),
    );
    rows
}
