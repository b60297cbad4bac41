//! The rules of QUIC groups: the shape of their connection IDs, and their targets' server IDs.

use nlb_common::quic::CidLayout;

use super::super::{
    desired::Protocol,
    error::{Problem, Remedy},
    raw::{RawTarget, RawTargetGroup},
    reader::Field,
    report::{Report, Spot},
};

/// How a group's connection IDs are read, unless that is wrong.
pub(super) fn layout(
    raw: &RawTargetGroup,
    protocol: Option<Protocol>,
    report: &mut Report<'_>,
) -> Option<CidLayout> {
    let keys = [
        &raw.quic.connection_id_length_bytes,
        &raw.quic.server_id_offset_bytes,
        &raw.quic.server_id_length_bytes,
    ];
    if let Some(protocol) = protocol.filter(|protocol| !protocol.has_quic()) {
        for at in keys.into_iter().filter_map(Field::value) {
            if at.written {
                report.fault(&at.spot, Problem::QuicOfOther(protocol), Remedy::Remove);
            }
        }
        return None;
    }
    let [length, offset, server] = keys.map(Field::value);
    let (length, offset, server) = (length?, offset?, server?);
    let end = offset.value + server.value;
    if end > length.value {
        // What is written is at fault; both, or the shorter ID, may be.
        let at = [server, offset, length]
            .into_iter()
            .find(|at| at.written)
            .unwrap_or(server);
        let problem = Problem::ServerIdBeyondId {
            end,
            length: length.value,
        };
        report.fault(&at.spot, problem, Remedy::FitServerId);
        return None;
    }
    let bytes = |number: u64| u8::try_from(number).ok();
    Some(CidLayout {
        id_bytes: bytes(length.value)?,
        server_id_offset_bytes: bytes(offset.value)?,
        server_id_bytes: bytes(server.value)?,
    })
}

/// A target's server ID; `seen` are those before it in the group.
pub(super) fn server_id(
    raw: &RawTarget,
    protocol: Option<Protocol>,
    layout: Option<CidLayout>,
    seen: &mut Vec<(u64, Spot)>,
    report: &mut Report<'_>,
) -> Option<u64> {
    let protocol = protocol?;
    let Some(at) = raw.quic_server_id.value() else {
        if protocol.has_quic() && matches!(raw.quic_server_id, Field::Absent) {
            let mut spot = raw.spot.clone();
            spot.field.push_str(".quic_server_id");
            let digits = layout.unwrap_or(CidLayout::NLB).server_id_bytes * 2;
            report.fault(&spot, Problem::Missing, Remedy::WriteServerId(digits));
        }
        return None;
    };
    if !protocol.has_quic() {
        report.fault(&at.spot, Problem::QuicOfOther(protocol), Remedy::Remove);
        return None;
    }
    let digits = layout?.server_id_bytes * 2;
    let Some(id) = parse(&at.value, digits.into()) else {
        let problem = Problem::ServerIdForm(digits);
        report.fault(&at.spot, problem, Remedy::WriteServerId(digits));
        return None;
    };
    if let Some((_, first)) = seen.iter().find(|(other, _)| *other == id) {
        let line = report.line(first);
        report.fault(
            &at.spot,
            Problem::ServerIdTwice { line },
            Remedy::OwnServerId,
        );
        return None;
    }
    seen.push((id, at.spot.clone()));
    Some(id)
}

fn parse(text: &str, digits: usize) -> Option<u64> {
    let number = text.strip_prefix("0x")?;
    let fits = number.len() == digits && number.bytes().all(|digit| digit.is_ascii_hexdigit());
    u64::from_str_radix(number, 16).ok().filter(|_| fits)
}
