//! The steps of a plan on the packet library's tables in memory.

use nlb_common::{
    address::Address,
    admission::{ALLOW, DENY},
};
use nlb_ebpf::memory::MemoryTables;

use super::{Dataplane, DataplaneError, Step};

fn record<'r, R>(
    map: &'static str,
    records: &'r [R],
    index: usize,
) -> Result<&'r R, DataplaneError> {
    let capacity = records.len();
    records.get(index).ok_or(DataplaneError::Full {
        map,
        capacity,
        index,
    })
}

impl Dataplane for MemoryTables {
    fn take(&mut self, step: &Step) -> Result<(), DataplaneError> {
        match step {
            Step::WriteNextHop { id, next_hop } => {
                record("NEXT_HOPS", &self.next_hops, id.0.into())?.write(next_hop);
            }
            Step::InvalidateNextHop { id } => {
                record("NEXT_HOPS", &self.next_hops, id.0.into())?.invalidate();
            }
            Step::RenewNextHop { id } => {
                record("NEXT_HOPS", &self.next_hops, id.0.into())?.renew();
            }
            Step::IndexNextHop { neighbour, id } => {
                self.next_hop_index.insert(*neighbour, *id);
            }
            Step::UnindexNextHop { neighbour } => {
                self.next_hop_index.remove(neighbour);
            }
            Step::WriteTarget {
                id,
                identity,
                control,
            } => {
                record("TARGETS", &self.targets, id.0 as usize)?.write(identity, *control);
            }
            Step::ControlTarget { id, control } => {
                record("TARGETS", &self.targets, id.0 as usize)?.set_control(*control);
            }
            Step::ClearTarget { id } => record("TARGETS", &self.targets, id.0 as usize)?.clear(),
            Step::WriteTunnel { group, tunnel } => {
                record("TUNNELS", &self.tunnels, (*group).into())?.write(tunnel);
            }
            Step::ReplaceRing {
                group,
                slots,
                bases,
            } => {
                if let Some(bases) = bases {
                    self.ring_bases.insert(*group, bases.0.to_vec());
                }
                self.set_ring(*group, &slots.0);
            }
            Step::Hint { number, id } => {
                self.hints.insert(*number, *id);
            }
            Step::WriteListener { id, key, policy } => {
                record("LISTENERS", &self.listeners, id.0.into())?.write(key, *policy);
            }
            Step::ChangeListener { id, policy } => {
                record("LISTENERS", &self.listeners, id.0.into())?.set_policy(*policy);
            }
            Step::ClearListener { id } => {
                record("LISTENERS", &self.listeners, id.0.into())?.clear();
            }
            Step::ReplaceRules { id, rules } => {
                let verdicts = rules.verdicts().iter();
                let rules = verdicts
                    .map(|verdict| {
                        let value = if verdict.allows { ALLOW } else { DENY };
                        (verdict.prefix, verdict.bits, value)
                    })
                    .collect();
                self.rules.insert(*id, rules);
            }
            Step::RemoveRules { id } => {
                self.rules.remove(id);
            }
            Step::SetAdmission { id, policy } => {
                record("ADMISSION", &self.admissions, id.0.into())?.set_policy(policy);
            }
            Step::IndexListener { key, id } => {
                self.listener_index.insert(*key, *id);
            }
            Step::UnindexListener { key } => {
                self.listener_index.remove(key);
            }
            Step::WriteSource { id, address } => self.pool.write(*id, *address),
            Step::TakeTurns { is_v4, ids } => self.pool.set_turns(*is_v4, ids),
            Step::ClearSource { id } => self.pool.write(*id, Address::UNSPECIFIED),
            Step::LayOutCids { id, layout } => {
                record("LISTENERS", &self.listeners, id.0.into())?.set_cid_layout(*layout);
            }
            Step::IndexServer { key, target } => {
                self.server_ids.insert(*key, *target);
            }
            Step::UnindexServer { key } => {
                self.server_ids.remove(key);
            }
            Step::Prefilter { index, bits } => {
                if let Some(word) = self.prefilter.words.get(*index) {
                    word.store(*bits);
                }
            }
            // Routes in memory say themselves what is behind a VLAN interface.
            Step::WriteVlanLink { .. } | Step::RemoveVlanLink { .. } | Step::Publish { .. } => {}
        }
        Ok(())
    }
}
