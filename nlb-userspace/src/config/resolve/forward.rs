//! The rules of what a listener forwards to: one target group, or several by weight.

use std::collections::BTreeMap;

use super::{
    super::{
        desired::Share,
        error::{GroupTrait, Problem, Remedy},
        near_miss,
        raw::{RawListener, RawShare},
        reader::Field,
        report::{At, Report},
    },
    target_group::{Group, Versions},
};

/// NLB's limit of groups in one action.
const GROUPS: usize = 5;

/// A group as a listener names it.
pub(super) struct Named<'r> {
    /// The name, as written.
    pub(super) at: &'r At<String>,
    /// The group; none if there is no such group, which has been recorded.
    pub(super) index: Option<usize>,
    weight: u16,
}

impl Named<'_> {
    pub(super) fn into_share(self) -> Share {
        Share {
            target_group: self.index.unwrap_or(usize::MAX),
            name: self.at.value.clone(),
            weight: self.weight,
        }
    }
}

/// The groups of a listener that are named as groups can be.
pub(super) fn resolve<'r>(
    raw: &'r RawListener,
    groups: &[Group],
    groups_complete: bool,
    report: &mut Report<'_>,
) -> Vec<Named<'r>> {
    let named = |at: &'r At<String>, weight, report: &mut Report<'_>| Named {
        at,
        index: find(at, groups, groups_complete, report),
        weight,
    };
    let Some((spot, count)) = &raw.target_groups else {
        if matches!(raw.target_group, Field::Absent) && !raw.forward_mistyped {
            let mut spot = raw.spot.clone();
            spot.field.push_str(".target_group");
            report.fault(&spot, Problem::Missing, Remedy::WriteForward);
        }
        let one = raw.target_group.value();
        return one.map(|at| named(at, 1, report)).into_iter().collect();
    };
    if !matches!(raw.target_group, Field::Absent) {
        report.fault(spot, Problem::TwoForwards, Remedy::KeepOne);
    }
    let shares = raw.shares.as_slice();
    if !(1..=GROUPS).contains(count) {
        let problem = match *count {
            0 => Problem::Empty,
            count => Problem::TooManyGroups(count),
        };
        report.fault(spot, problem, Remedy::OneToFiveGroups);
    }
    let is_zero = |share: &RawShare| share.weight.copied() == Some(0);
    if !shares.is_empty() && shares.iter().all(is_zero) {
        report.fault(spot, Problem::NoGroupWeight, Remedy::SomeWeight);
    }
    let mut seen: Vec<Named<'r>> = Vec::new();
    for share in shares {
        let Some(at) = share.name.value() else {
            continue;
        };
        if let Some(first) = seen.iter().find(|other| other.at.value == at.value) {
            let line = report.line(&first.at.spot);
            report.fault(&at.spot, Problem::GroupTwice { line }, Remedy::Once);
            continue;
        }
        let weight = share
            .weight
            .copied()
            .and_then(|weight| weight.try_into().ok());
        seen.push(named(at, weight.unwrap_or(1), report));
    }
    check_alike(&seen, groups, report);
    check_server_ids(&seen, groups, report);
    seen
}

/// The groups of a listener have one protocol, one IP version and one kind of stickiness.
fn check_alike(shares: &[Named<'_>], groups: &[Group], report: &mut Report<'_>) {
    let traits: [fn(&Group) -> Option<GroupTrait>; 4] = [
        |group| group.protocol.map(GroupTrait::Protocol),
        |group| match group.versions {
            Versions::One(version) => Some(GroupTrait::Version(version)),
            Versions::None | Versions::Unknown => None,
        },
        |group| {
            group.resolved.quic.map(|layout| GroupTrait::ConnectionIds {
                id_bytes: layout.id_bytes,
                offset_bytes: layout.server_id_offset_bytes,
                server_id_bytes: layout.server_id_bytes,
            })
        },
        |group| {
            Some(if group.resolved.is_sticky {
                GroupTrait::Stickiness
            } else {
                GroupTrait::NoStickiness
            })
        },
    ];
    for of in traits {
        let mut known = shares
            .iter()
            .filter_map(|share| Some((share.at, of(groups.get(share.index?)?)?)));
        let Some((first, wanted)) = known.next() else {
            continue;
        };
        for (at, found) in known.filter(|(_, found)| *found != wanted) {
            let problem = Problem::GroupsDiffer {
                found,
                wanted,
                line: report.line(&first.spot),
            };
            report.fault(&at.spot, problem, Remedy::AlikeGroups);
        }
    }
}

/// A server ID names one target behind a listener. Within a group that has been seen to.
fn check_server_ids(shares: &[Named<'_>], groups: &[Group], report: &mut Report<'_>) {
    let mut lines: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
    for index in shares.iter().filter_map(|share| share.index) {
        let Some(group) = groups.get(index) else {
            continue;
        };
        for (id, spot) in &group.server_ids {
            let (owner, line) = *lines.entry(*id).or_insert((index, report.line(spot)));
            if owner != index {
                report.fault(spot, Problem::ServerIdTwice { line }, Remedy::OwnServerId);
            }
        }
    }
}

fn find(
    at: &At<String>,
    groups: &[Group],
    groups_complete: bool,
    report: &mut Report<'_>,
) -> Option<usize> {
    let found = groups
        .iter()
        .position(|group| group.name.as_ref() == Some(&at.value));
    if found.is_none() && groups_complete {
        let names: Vec<&str> = groups
            .iter()
            .filter_map(|group| group.name.as_deref())
            .collect();
        let near = near_miss::nearest(&at.value, &names);
        let names = near.map_or(names, |near| vec![near]);
        // A long list helps nobody.
        let names = names.into_iter().take(5).map(str::to_owned).collect();
        report.fault(&at.spot, Problem::UnknownGroup, Remedy::KnownGroups(names));
    }
    found
}
