//! The rules of listeners that pin flows on change only: what takes an entry for every flow cannot be
//! had beside it.

use nlb_common::listener::HashInput;

use super::super::{
    desired::{FlowLimits, Listener, Mode, Protocol},
    error::{Problem, Remedy},
    raw::RawListener,
    report::{At, Report},
};

/// Whether the listener pins flows on change only.
pub(super) fn on_change(raw: &RawListener) -> Option<&At<String>> {
    raw.pinning.value().filter(|at| at.value == "on_change")
}

/// Checks a listener that does, of these groups' modes.
pub(super) fn check(
    raw: &RawListener,
    protocol: Option<Protocol>,
    modes: &[Mode],
    hash_input: HashInput,
    limits: &FlowLimits,
    report: &mut Report<'_>,
) {
    let Some(at) = on_change(raw) else { return };
    let mut refuse = |problem, remedy| report.fault(&at.spot, problem, remedy);
    if let Some(mode) = modes.iter().find(|mode| !mode.is_dsr()) {
        refuse(Problem::OnChangeOf(*mode), Remedy::AlwaysOrDsr);
    }
    if let Some(protocol) = protocol.filter(|protocol| protocol.has_quic()) {
        refuse(Problem::OnChangeOfQuic(protocol), Remedy::Always);
    }
    if hash_input == HashInput::FiveTupleAndSequence {
        refuse(Problem::OnChangeWithSequence, Remedy::Always);
    }
    let has_limits = [
        limits.new_flows_per_second,
        limits.active_flows,
        limits.source_new_flows_per_second,
        limits.source_active_flows,
    ];
    if has_limits.iter().any(Option::is_some) {
        refuse(Problem::OnChangeWith("limits"), Remedy::Always);
    }
    for (field, key) in [
        (&raw.tcp_idle_timeout_action, "tcp.idle_timeout.action"),
        (&raw.tcp_stray_action, "tcp.stray.action"),
    ] {
        if let Some(other) = field.value()
            && other.written
            && other.value != "forward"
        {
            refuse(Problem::OnChangeWith(key), Remedy::Always);
        }
    }
}

/// Checks the listeners of a load balancer once it is known what its rules say about them; `written`
/// are those that pin on change, by name.
pub(super) fn check_rules(
    listeners: &[Listener],
    written: &[(usize, &At<String>)],
    report: &mut Report<'_>,
) {
    for (index, at) in written {
        let has_rules = |listener: &Listener| !listener.source_rules.is_empty();
        if listeners.get(*index).is_some_and(has_rules) {
            let problem = Problem::OnChangeWith("load_balancer.rule");
            report.fault(&at.spot, problem, Remedy::Always);
        }
    }
}
