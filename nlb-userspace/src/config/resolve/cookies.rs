//! The rules of listeners that answer SYNs with cookies: nothing may begin a flow past them, and they
//! have to see both directions.

use super::super::{
    desired::{Mode, SynCookies},
    error::{Problem, Remedy},
    raw::RawListener,
    report::Report,
};

/// The word for cookies in times of need.
const UNDER_ATTACK: &str = "under_attack";

/// When the listener answers SYNs with cookies.
pub(super) fn when(raw: &RawListener) -> SynCookies {
    let above = raw.tcp_syn_cookies_above_per_second.copied();
    let above_per_second = above.and_then(|number| number.try_into().ok());
    match (word(raw), above_per_second) {
        (Some("on"), _) => SynCookies::On,
        (Some(UNDER_ATTACK), Some(above_per_second)) => {
            SynCookies::UnderAttack { above_per_second }
        }
        _ => SynCookies::Off,
    }
}

fn word(raw: &RawListener) -> Option<&str> {
    raw.tcp_syn_cookies.value().map(|at| at.value.as_str())
}

/// Checks a listener that does so at any time, of these groups' modes.
pub(super) fn check(raw: &RawListener, modes: &[Mode], report: &mut Report<'_>) {
    if let Some(at) = raw.tcp_syn_cookies_above_per_second.value()
        && at.written
        && word(raw) != Some(UNDER_ATTACK)
    {
        report.fault(&at.spot, Problem::CookiesAbove, Remedy::Remove);
    }
    let written = raw.tcp_syn_cookies.value();
    let Some(at) = written.filter(|at| at.value == "on" || at.value == UNDER_ATTACK) else {
        return;
    };
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
