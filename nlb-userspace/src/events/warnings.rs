//! From states to events: what is wrong now and was not before, and what is over.

use std::collections::BTreeMap;

use nlb_common::stop::Stop;

use super::What;

/// What is wrong at a moment: kind and subject, and what to say about it.
pub type Warnings = BTreeMap<(&'static str, String), String>;

/// Stops that tell of something used up, the warning that each is, and what helps.
pub const USED_UP: [(Stop, &str, &str); 3] = [
    (
        Stop::PortAllocationError,
        "pool_exhausted",
        "new flows found no free port of node.snat_addresses; add addresses there",
    ),
    (
        Stop::FlowTableFull,
        "flow_table_full",
        "new flows found no room in the flow table; raise node.capacity.flows",
    ),
    (
        Stop::EarlyLimit,
        "early_fragments_lost",
        "fragments that came before their first one found no room to wait",
    ),
];

/// What became of the warnings between two moments.
pub fn changes(before: &Warnings, now: &Warnings) -> Vec<What> {
    let event = |(warning, subject): &(&'static str, String), text: &str, over| What::Warning {
        warning: (*warning).to_owned(),
        subject: subject.clone(),
        text: text.to_owned(),
        over,
    };
    let ended = (before.iter())
        .filter(|(key, _)| !now.contains_key(*key))
        .map(|(key, text)| event(key, text, true));
    let new = (now.iter())
        .filter(|(key, _)| !before.contains_key(*key))
        .map(|(key, text)| event(key, text, false));
    ended.chain(new).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn warnings() -> impl Strategy<Value = Warnings> {
        let kinds = prop::sample::select(vec!["fail_open", "next_hop_lost"]);
        prop::collection::btree_map((kinds, "[a-c]"), "[x-z]", 0..6)
    }

    proptest! {
        #[test]
        fn whoever_follows_the_events_knows_what_is_wrong(before in warnings(), now in warnings()) {
            let mut known: Vec<_> = before.keys().map(|(kind, of)| ((*kind).to_owned(), of.clone())).collect();
            for change in changes(&before, &now) {
                let What::Warning { warning, subject, over, .. } = change else {
                    panic!("only warnings come of warnings");
                };
                let key = (warning, subject);
                prop_assert_eq!(known.contains(&key), over);
                if over { known.retain(|other| *other != key) } else { known.push(key) }
            }
            known.sort();
            let wrong: Vec<_> = now.keys().map(|(kind, of)| ((*kind).to_owned(), of.clone())).collect();
            prop_assert_eq!(known, wrong);
            prop_assert_eq!(changes(&now, &now), vec![]);
        }
    }
}
