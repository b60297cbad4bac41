//! What is wrong just now, looked for whenever something has changed, and every few seconds.

use super::{Daemon, LATE_AGAIN, Way};
use crate::events::warnings::{self, USED_UP, Warnings};

/// What packets have met, as the last look at the counters knows it.
#[derive(Debug, Default)]
pub(super) struct UsedUp {
    counts: Option<[u64; USED_UP.len()]>,
    /// What they met since the look before.
    warnings: Warnings,
}

impl UsedUp {
    fn look(&mut self, counts: [u64; USED_UP.len()]) {
        let before = self.counts.replace(counts);
        let grown =
            |index: usize| before.is_some_and(|before| before.get(index) < counts.get(index));
        self.warnings = (USED_UP.iter().enumerate())
            .filter(|(index, _)| grown(*index))
            .map(|(_, (_, kind, text))| ((*kind, String::new()), (*text).to_owned()))
            .collect();
    }
}

impl Daemon {
    /// Tells what is wrong now and was not before, and what is over.
    pub(super) fn look_for_warnings(&mut self) {
        let mut now = self.used_up.warnings.clone();
        self.groups_with_too_few(&mut now);
        self.targets_without_a_way(&mut now);
        self.node_at_fault(&mut now);
        for change in warnings::changes(&self.warnings, &now) {
            self.events.tell(change);
        }
        self.warnings = now;
    }

    /// The same when some seconds have gone by, with what was used up in them.
    pub(super) fn look_at_counters(&mut self) {
        let counts = USED_UP.map(|(stop, ..)| {
            let count = self.loaded.maps.stop_count(stop);
            count.unwrap_or_default()
        });
        self.used_up.look(counts);
        self.look_for_warnings();
    }

    fn groups_with_too_few(&self, now: &mut Warnings) {
        for group in &self.groups.list {
            let selection = group.selection();
            let name = &group.configured.name;
            if selection.fail_open && !group.targets.is_empty() {
                let text = "too few targets are healthy, new flows go to all of them";
                now.insert(("fail_open", name.clone()), text.to_owned());
            }
            if !selection.is_available {
                let text = "fewer targets are healthy than dns_failover asks for";
                now.insert(("unavailable", name.clone()), text.to_owned());
            }
        }
    }

    fn targets_without_a_way(&self, now: &mut Warnings) {
        for group in &self.groups.list {
            for (address, target) in &group.targets {
                let why = match &target.way {
                    Way::Unknown => continue,
                    Way::None(reason) => reason.to_string(),
                    Way::Failed(error) => error.clone(),
                    Way::Through {
                        interface,
                        neighbour,
                    } => match self.book.get(*interface, *neighbour) {
                        Some((_, Some(_))) => continue,
                        _ => format!("the MAC address of {neighbour} is not known"),
                    },
                };
                let subject = format!("{} {address}", group.configured.name);
                now.insert(("next_hop_lost", subject), why);
            }
        }
    }

    fn node_at_fault(&self, now: &mut Warnings) {
        for name in &self.desired.node.interfaces {
            if self.watch.link_named(name).is_none() {
                let text = "there is no such interface; it gets its program when it is there";
                now.insert(("interface_gone", name.clone()), text.to_owned());
            }
        }
        let node = |kind| (kind, String::new());
        if !self.loaded.has_pins() {
            let text = "the pins are gone (was the bpffs unmounted?): traffic goes on as long as \
                        this daemon runs";
            now.insert(node("pins_gone"), text.to_owned());
        }
        if !self.is_live {
            let text = "the maps do not say what is configured; it is tried again and again";
            now.insert(node("not_live"), text.to_owned());
        }
        if let Some(error) = &self.not_kept {
            now.insert(node("journal_full"), error.clone());
        }
        if self
            .told_late
            .is_some_and(|told| told.elapsed() < LATE_AGAIN)
        {
            let text = "health checks begin late: there are more than one core can carry";
            now.insert(node("checks_late"), text.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_up_is_what_was_met_since_the_last_look() {
        let mut used_up = UsedUp::default();
        let kinds = |used_up: &UsedUp| -> Vec<&str> {
            used_up.warnings.keys().map(|(kind, _)| *kind).collect()
        };
        // What an earlier daemon counted is not now.
        used_up.look([9, 9, 9]);
        assert_eq!(kinds(&used_up), [""; 0]);
        used_up.look([10, 9, 9]);
        assert_eq!(kinds(&used_up), ["pool_exhausted"]);
        used_up.look([10, 11, 9]);
        assert_eq!(kinds(&used_up), ["flow_table_full"]);
        used_up.look([10, 11, 9]);
        assert_eq!(kinds(&used_up), [""; 0]);
    }
}
