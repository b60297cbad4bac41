//! Builds the ring of a listener that forwards to several target groups (NLB's weighted target
//! groups), so that a packet reads one ring whether its listener has one group or five.
//!
//! Each slot first takes a group, then that group's own target at the same slot:
//!
//! * **The group** is chosen by weighted rendezvous hashing (Schindelhauer and Schomaker, "Weighted
//!   distributed hash tables", SPAA '05): for each group the slot has a number that looks random and
//!   is exponentially distributed, and the group wins whose number divided by its weight is least.
//!   A number depends on the slot and the group's name alone. So a change of weights moves no slot
//!   between groups whose weights keep their ratio, and none against the change.
//! * **The target** comes from [`crate::ring`]. A flow that falls on a group finds the target that
//!   it would find if the group were the listener's only one, on every node and on every listener:
//!   this is what stickiness over several listeners rests on.
//!
//! Nothing here asks whether a group has targets: as with NLB, a group without any keeps its share,
//! and flows that fall on it are refused. As with [`crate::ring`], the output is part of the protocol between
//! the nodes of a deployment, and integers are used throughout because logarithms of floating-point
//! numbers differ between machines.

use xxhash_rust::xxh64::xxh64;

use crate::ring::NO_TARGET;

/// Bits of [`exponential`] behind the point.
const FRACTION_BITS: u32 = 24;

/// A group that wants a share of a listener's slots.
#[derive(Clone, Copy, Debug)]
pub struct Share<'r> {
    /// Of the group's name; see [`crate::plan::fingerprint`].
    pub fingerprint: u32,
    /// Its share of new flows, relative to the other weights (0 to 999). 0 asks for none.
    pub weight: u16,
    /// The group's own ring.
    pub ring: &'r [u32],
}

/// The ring of `shares`, whose order does not matter: for each slot the id of its target.
///
/// * **Shares**: with weights summing to W, a group of weight w gets about `slots * w / W` slots;
///   each slot decides for itself, so at 65,537 slots a share is within 1 % of all slots.
/// * **Disruption**: what moves is what shares change by.
pub fn build(shares: &[Share<'_>], slots: usize) -> Vec<u32> {
    let mut shares: Vec<Share<'_>> = shares
        .iter()
        .filter(|share| share.weight > 0)
        .copied()
        .collect();
    shares.sort_unstable_by_key(|share| share.fingerprint);
    (0..slots)
        .map(|slot| {
            let share = match shares.as_slice() {
                [one] => Some(one),
                several => winner(several, slot as u64),
            };
            share
                .and_then(|share| share.ring.get(slot).copied())
                .unwrap_or(NO_TARGET)
        })
        .collect()
}

/// The group that a slot takes.
fn winner<'s, 'r>(shares: &'s [Share<'r>], slot: u64) -> Option<&'s Share<'r>> {
    let mut best: Option<(&Share<'_>, u64)> = None;
    for share in shares {
        let number = exponential(xxh64(&slot.to_le_bytes(), share.fingerprint.into()));
        // a / v < b / w without a division.
        let is_less = best.is_none_or(|(other, least)| {
            number * u64::from(other.weight) < least * u64::from(share.weight)
        });
        if is_less {
            best = Some((share, number));
        }
    }
    best.map(|(share, _)| share)
}

/// `-log2(hash / 2^64)`, at most 64, in units of 2^-24: exponentially distributed if hashes are
/// evenly.
fn exponential(hash: u64) -> u64 {
    let hash = hash.max(1);
    let zeros = hash.leading_zeros();
    // Between 1 and 2, in units of 2^-63.
    let mut mantissa = hash << zeros;
    let mut fraction = 0;
    for _ in 0..FRACTION_BITS {
        // Squaring doubles the logarithm, whose next bit is then its whole part.
        let high = widening_square_high(mantissa);
        fraction <<= 1;
        if high >> 63 == 1 {
            fraction |= 1;
            mantissa = high;
        } else {
            mantissa = high << 1;
        }
    }
    (u64::from(zeros + 1) << FRACTION_BITS) - fraction
}

/// The high half of the square.
fn widening_square_high(value: u64) -> u64 {
    ((u128::from(value) * u128::from(value)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        plan::fingerprint,
        ring::{self, RingEntry, SLOTS},
    };

    /// The ring of a group of so many targets, whose ids begin behind `base`.
    fn group_ring(base: u32, targets: u8) -> Vec<u32> {
        let entries: Vec<RingEntry> = (1..=targets)
            .map(|last| RingEntry {
                target_id: base + u32::from(last),
                identity: std::net::SocketAddr::from(([10, 0, 0, last], 8080)).into(),
                weight: 1,
            })
            .collect();
        ring::build(&entries, SLOTS)
    }

    /// A ring of one target for each group: which group has a slot.
    fn groups(weights: &[u16]) -> Vec<u32> {
        let rings: Vec<Vec<u32>> = (1..)
            .take(weights.len())
            .map(|id| vec![id; SLOTS])
            .collect();
        let shares: Vec<Share<'_>> = weights
            .iter()
            .zip(&rings)
            .enumerate()
            .map(|(index, (weight, ring))| Share {
                fingerprint: fingerprint(&format!("group-{index}")),
                weight: *weight,
                ring,
            })
            .collect();
        build(&shares, SLOTS)
    }

    fn count(ring: &[u32], id: usize) -> usize {
        ring.iter().filter(|slot| **slot as usize == id).count()
    }

    fn moved(before: &[u32], after: &[u32]) -> usize {
        before.iter().zip(after).filter(|(a, b)| a != b).count()
    }

    #[test]
    fn the_logarithm_is_right_to_its_last_bits() {
        assert_eq!(exponential(0), 64 << FRACTION_BITS);
        assert_eq!(exponential(1 << 63), 1 << FRACTION_BITS);
        assert_eq!(exponential(1), 64 << FRACTION_BITS);
        for hash in [3_u64, 0x1234_5678_9abc_def0, 0xfedc_ba98_7654_3210, 1 << 40] {
            #[expect(clippy::cast_precision_loss, reason = "an approximation is compared")]
            let (exact, found) = (
                64.0 - (hash as f64).log2(),
                exponential(hash) as f64 / f64::from(1 << FRACTION_BITS),
            );
            assert!((exact - found).abs() < 1e-6, "{hash}: {exact} {found}");
        }
    }

    #[test]
    fn the_ring_of_fixed_groups_never_changes() {
        let bytes: Vec<u8> = groups(&[90, 10, 1])
            .iter()
            .flat_map(|id| id.to_le_bytes())
            .collect();
        assert_eq!(xxh64(&bytes, 0), 0x3612_2d49_5bdc_eba8);
    }

    #[test]
    fn a_single_group_and_groups_of_weight_0_leave_a_groups_ring_as_it_is() {
        let (web, canary) = (group_ring(100, 5), group_ring(200, 2));
        let share = |name, weight, ring| Share {
            fingerprint: fingerprint(name),
            weight,
            ring,
        };
        assert_eq!(build(&[share("web", 7, &web)], SLOTS), web);
        let drained = [share("web", 7, &web), share("canary", 0, &canary)];
        assert_eq!(build(&drained, SLOTS), web);
        assert_eq!(
            build(&[share("web", 0, &web)], SLOTS),
            vec![NO_TARGET; SLOTS]
        );
    }

    #[test]
    fn a_group_without_targets_keeps_its_share() {
        let (web, empty) = (vec![7; SLOTS], vec![NO_TARGET; SLOTS]);
        let shares = [("web", &web), ("empty", &empty)].map(|(name, ring)| Share {
            fingerprint: fingerprint(name),
            weight: 1,
            ring,
        });
        let ring = build(&shares, SLOTS);
        assert!(count(&ring, 0).abs_diff(SLOTS / 2) < SLOTS / 100);
    }

    #[test]
    fn a_target_that_fails_moves_no_more_slots_than_in_its_own_group() {
        let (before, after) = (group_ring(100, 5), group_ring(100, 4));
        let canary = group_ring(200, 2);
        let with = |web| {
            let share = |name, ring| Share {
                fingerprint: fingerprint(name),
                weight: 1,
                ring,
            };
            build(&[share("web", web), share("canary", &canary)], SLOTS)
        };
        for (slot, (old, new)) in with(&before).iter().zip(with(&after)).enumerate() {
            assert!(
                *old == new || (*old == before[slot] && new == after[slot]),
                "slot {slot} changed its group"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(6))]

        #[test]
        fn shares_are_as_the_weights(weights in prop::collection::vec(1u16..=999, 2..=5)) {
            let total: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
            let ring = groups(&weights);
            for (id, weight) in (1..).zip(&weights) {
                let wanted = SLOTS * usize::from(*weight) / total;
                prop_assert!(count(&ring, id).abs_diff(wanted) * 100 < SLOTS);
            }
        }

        #[test]
        fn a_changed_weight_moves_slots_only_to_or_from_its_group(
            weights in prop::collection::vec(1u16..=999, 2..=5),
            index: prop::sample::Index,
            weight in 0u16..=999,
        ) {
            let index = index.index(weights.len());
            let mut changed = weights.clone();
            changed[index] = weight;
            let (before, after) = (groups(&weights), groups(&changed));
            let id = u32::try_from(index + 1).unwrap();
            let grows = weight > weights[index];
            for (old, new) in before.iter().zip(&after) {
                let own = if grows { new } else { old };
                prop_assert!(old == new || *own == id);
            }
            // That many slots have to move, and no more do.
            let needed = count(&before, index + 1).abs_diff(count(&after, index + 1));
            prop_assert_eq!(moved(&before, &after), needed);
        }

        #[test]
        fn the_order_of_groups_and_a_common_factor_do_not_matter(
            weights in prop::collection::vec(1u16..=99, 2..=5), factor in 1u16..=10,
        ) {
            let scaled: Vec<u16> = weights.iter().map(|weight| weight * factor).collect();
            prop_assert_eq!(groups(&weights), groups(&scaled));
            let rings: Vec<Vec<u32>> = (1..6).map(|id| vec![id; SLOTS]).collect();
            let mut shares: Vec<Share<'_>> = (1..).zip(weights.iter().zip(&rings))
                .map(|(fingerprint, (weight, ring))| Share { fingerprint, weight: *weight, ring })
                .collect();
            let forward = build(&shares, SLOTS);
            shares.reverse();
            prop_assert_eq!(forward, build(&shares, SLOTS));
        }
    }
}
