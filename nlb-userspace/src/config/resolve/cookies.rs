//! The rules of listeners that answer SYNs with cookies: nothing may begin a flow past them, and they
//! have to see both directions.

use super::super::{
    desired::Mode,
    error::{Problem, Remedy},
    raw::RawListener,
    report::{At, Report},
};

/// Whether the listener answers SYNs with cookies.
pub(super) fn on(raw: &RawListener) -> Option<&At<String>> {
    raw.tcp_syn_cookies.value().filter(|at| at.value == "on")
}

/// Checks a listener that does, of these groups' modes.
pub(super) fn check(raw: &RawListener, modes: &[Mode], report: &mut Report<'_>) {
    let Some(at) = on(raw) else { return };
    let mut refuse = |problem, remedy| report.fault(&at.spot, problem, remedy);
    if let Some(mode) = modes.iter().find(|mode| **mode != Mode::Nat) {
        refuse(Problem::CookiesOf(*mode), Remedy::OffOrNat);
    }
    for (field, value, both) in [
        (
            &raw.hash,
            "five_tuple_and_sequence",
            "hash = \"five_tuple_and_sequence\": the number is gone when the flow begins",
        ),
        (
            &raw.tcp_stray_action,
            "forward",
            "tcp.stray.action = \"forward\", by which segments without a cookie begin flows",
        ),
        (
            &raw.tcp_idle_timeout_action,
            "forward",
            "tcp.idle_timeout.action = \"forward\", by which segments without a cookie begin flows",
        ),
    ] {
        if field.value().is_some_and(|at| at.value == value) {
            refuse(Problem::CookiesWith(both), Remedy::Off);
        }
    }
}
