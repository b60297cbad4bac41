//! Addresses of the pool that sources are translated to.

use std::net::IpAddr;

use nlb_common::{
    address::Address,
    source::{MAX_SOURCES, SourceId},
};

use super::{Actual, PlanError, Planned, Wish, push};
use crate::dataplane::Step;

/// Gives numbers to new addresses of the pool; their turns come when the prefilter admits answers.
pub(super) fn plan(
    wish: &Wish,
    after: &mut Actual,
    steps: &mut Vec<Planned>,
) -> Result<(), PlanError> {
    for address in wish.sources.iter().copied().map(Address::from) {
        if after.sources.values().all(|known| *known != address) {
            let id = (1..MAX_SOURCES)
                .filter_map(|id| u8::try_from(id).ok().map(SourceId))
                .find(|id| !after.sources.contains_key(id))
                .ok_or(PlanError::Sources(MAX_SOURCES - 1))?;
            push(steps, after, Step::WriteSource { id, address });
        }
    }
    Ok(())
}

pub(super) fn plan_turns(wish: &Wish, after: &mut Actual, steps: &mut Vec<Planned>) {
    for is_v4 in [true, false] {
        let of_version = |id: &SourceId| {
            let address = after.sources.get(id);
            address.is_some_and(|address| address.is_v4() == is_v4)
        };
        let old: Vec<SourceId> = after.turns.iter().copied().filter(of_version).collect();
        let ids: Vec<SourceId> = after
            .sources
            .iter()
            .filter(|(id, address)| {
                of_version(id) && wish.sources.contains(&IpAddr::from(**address))
            })
            .map(|(id, _)| *id)
            .collect();
        if ids != old {
            push(steps, after, Step::TakeTurns { is_v4, ids });
        }
    }
}
