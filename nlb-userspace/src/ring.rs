//! Builds the ring of a target group: the table of slots that says which target a new flow takes.
//!
//! The method is Maglev hashing (Eisenbud et al., "Maglev", NSDI '16, §3.4). Every target has its
//! own permutation of all slots, targets take turns, and at its turn a target takes the first slot
//! of its permutation that is still free. Two properties make a load balancer of it:
//!
//! * **The same ring everywhere.** A permutation follows from the target's *identity* (address and
//!   port) alone, and turns are ordered by weight and identity. Map ids and the order of a config
//!   file differ between the nodes of a deployment and between two lives of one daemon; neither
//!   moves a slot to another address.
//! * **Little disruption.** When a target leaves, its own slots move, which cannot be helped, and a
//!   few others with them ([`build`] says how many).
//!
//! The module is pure, and its output is part of the protocol between the nodes of a deployment: a
//! test holds a digest of it, and changing that digest means that nodes of two versions disagree.

use std::net::{IpAddr, SocketAddr};

use xxhash_rust::xxh64::xxh64;

/// Slots of the data plane's rings. Prime, so that every step visits every slot, and some hundred
/// times the targets a group usually has, so that shares are fine-grained and disruption is small.
pub const SLOTS: usize = 65_537;

/// What an empty slot holds: no target.
pub const NO_TARGET: u32 = 0;

const OFFSET_SEED: u64 = 0;
const SKIP_SEED: u64 = 1;

/// What a target is, whichever node looks at it: its address and port as 18 bytes, the address as
/// IPv6 (IPv4 mapped, RFC 4291 §2.5.5.2) and the port in network order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity([u8; 18]);

impl From<SocketAddr> for Identity {
    fn from(address: SocketAddr) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let mut bytes = [0; 18];
        bytes[..16].copy_from_slice(&ip.octets());
        bytes[16..].copy_from_slice(&address.port().to_be_bytes());
        Self(bytes)
    }
}

/// A target that wants slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingEntry {
    /// What its slots will hold: the target's key in the data plane's maps, never [`NO_TARGET`]. An
    /// entry that breaks this is left out.
    pub target_id: u32,
    /// Where its permutation comes from. One target group lists an identity once.
    pub identity: Identity,
    /// Its share of the slots, relative to the other weights (0 to 999). 0 asks for none.
    pub weight: u16,
}

/// The ring of `entries`, whose order does not matter: for each slot the id of its target.
///
/// * **Shares**: with weights summing to W, a target of weight w gets `slots * w / W` slots,
///   rounded up or down: always within less than one slot of its exact share.
/// * **Disruption**, at [`SLOTS`]: removing one of n targets of equal weight moves its own slots
///   and, of all slots, at most 2 % more for n <= 1,000 (a test holds this; measured: up to 1 %,
///   and less than 0.3 % for n < 8).
/// * Nothing to choose from (no entries, or all weights 0) makes a ring of [`NO_TARGET`].
///
/// `slots` is [`SLOTS`] outside tests; any number up to 2^31 gives a full ring.
pub fn build(entries: &[RingEntry], slots: usize) -> Vec<u32> {
    let mut entries: Vec<RingEntry> = entries
        .iter()
        .filter(|entry| entry.weight > 0 && entry.target_id != NO_TARGET)
        .copied()
        .collect();
    // The id orders only what a config must not hold, the same identity twice.
    entries.sort_unstable_by_key(|entry| (entry.identity, entry.target_id));

    let mut ring = vec![NO_TARGET; slots];
    // A walk visits some ten taken slots for each free one: that is 8 KiB to read, not 256.
    let mut taken = Taken::new(slots);
    let mut walks: Vec<Walk> = entries
        .iter()
        .map(|entry| Walk::new(&entry.identity, slots))
        .collect();
    for index in turns(&entries, slots) {
        let walk = &mut walks[index];
        while !taken.take(walk.position) {
            walk.step(slots);
        }
        ring[walk.position] = entries[index].target_id;
    }
    ring
}

/// Which slots have a target: a bit each.
struct Taken(Vec<u64>);

impl Taken {
    fn new(slots: usize) -> Self {
        Self(vec![0; slots.div_ceil(64)])
    }

    /// Takes a slot, unless it is taken.
    fn take(&mut self, slot: usize) -> bool {
        let (word, bit) = (&mut self.0[slot / 64], 1 << (slot % 64));
        let is_free = *word & bit == 0;
        *word |= bit;
        is_free
    }
}

/// One target's way through all slots: its permutation, and how far it has come.
struct Walk {
    position: usize,
    skip: usize,
}

impl Walk {
    fn new(identity: &Identity, slots: usize) -> Self {
        let mut skip = 1 + remainder(xxh64(&identity.0, SKIP_SEED), slots.saturating_sub(1));
        // A step that shares a factor with the number of slots would never see some of them. With a
        // prime number of slots this does nothing; `slots - 1` ends it for all others.
        while slots > 1 && greatest_common_divisor(skip, slots) != 1 {
            skip += 1;
        }
        Self {
            position: remainder(xxh64(&identity.0, OFFSET_SEED), slots),
            skip,
        }
    }

    fn step(&mut self, slots: usize) {
        self.position += self.skip;
        if self.position >= slots {
            self.position -= slots;
        }
    }
}

/// The order in which targets (by index) take slots: one turn for each slot.
///
/// The k-th turn of a target of weight w comes at the time (2k + 1) / w, in the middle of its k-th
/// share of the whole, so that heavy and light targets spread evenly over the turns. The time holds
/// whoever else takes part: a target that leaves does not reorder the turns of those that stay,
/// which is half of why few of their slots move.
fn turns(entries: &[RingEntry], slots: usize) -> Vec<usize> {
    let quotas = quotas(entries, slots);
    if entries
        .windows(2)
        .all(|pair| pair[0].weight == pair[1].weight)
    {
        return in_rounds(&quotas, slots);
    }
    by_time(entries, &quotas, slots)
}

/// [`turns`] as they are defined.
fn by_time(entries: &[RingEntry], quotas: &[u64], slots: usize) -> Vec<usize> {
    let mut turns: Vec<(u64, usize)> = Vec::with_capacity(slots);
    for (index, (entry, quota)) in entries.iter().zip(quotas).enumerate() {
        // Two different fractions with 16-bit denominators are at least 2^-32 apart, so in units of
        // 2^-32 comparing the whole part alone is exact.
        let time = |k: u64| ((2 * k + 1) << 32) / u64::from(entry.weight);
        turns.extend((0..*quota).map(|k| (time(k), index)));
    }
    turns.sort_by_key(|(time, _)| *time);
    turns.into_iter().map(|(_, index)| index).collect()
}

/// [`turns`] of targets of equal weight, without sorting: they come round after round, as the k-th
/// turns of all are at one time.
fn in_rounds(quotas: &[u64], slots: usize) -> Vec<usize> {
    let mut turns = Vec::with_capacity(slots);
    for round in 0..quotas.iter().copied().max().unwrap_or(0) {
        let quotas = quotas.iter().enumerate();
        turns.extend(
            quotas
                .filter(|(_, quota)| **quota > round)
                .map(|(index, _)| index),
        );
    }
    turns
}

/// How many slots each entry gets: the whole part of its share, and one more for those with the
/// largest rest until no slot is left over (ties go by identity).
fn quotas(entries: &[RingEntry], slots: usize) -> Vec<u64> {
    let slots = slots as u64;
    let total: u64 = entries.iter().map(|entry| u64::from(entry.weight)).sum();
    if total == 0 {
        return Vec::new();
    }
    let share = |entry: &RingEntry| slots * u64::from(entry.weight);
    let mut quotas: Vec<u64> = entries.iter().map(|entry| share(entry) / total).collect();
    let left_over = slots - quotas.iter().sum::<u64>();
    let mut by_rest: Vec<usize> = (0..entries.len()).collect();
    by_rest.sort_by_key(|&index| std::cmp::Reverse(share(&entries[index]) % total));
    for (index, _) in by_rest.into_iter().zip(0..left_over) {
        quotas[index] += 1;
    }
    quotas
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a remainder is below its divisor, a usize"
)]
fn remainder(hash: u64, divisor: usize) -> usize {
    if divisor == 0 {
        0
    } else {
        (hash % divisor as u64) as usize
    }
}

fn greatest_common_divisor(mut a: usize, mut b: usize) -> usize {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn entry(host: u16, weight: u16) -> RingEntry {
        let [high, low] = host.to_be_bytes();
        RingEntry {
            target_id: 1000 + u32::from(host),
            identity: SocketAddr::from(([10, 0, high, low], 8080)).into(),
            weight,
        }
    }

    fn equals(count: u16) -> Vec<RingEntry> {
        (1..=count).map(|host| entry(host, 1)).collect()
    }

    fn shares(ring: &[u32]) -> BTreeMap<u32, usize> {
        let mut shares = BTreeMap::new();
        for id in ring {
            *shares.entry(*id).or_default() += 1;
        }
        shares
    }

    /// Slots that moved although their target `removed` did not own them.
    fn disruption(before: &[u32], after: &[u32], removed: u32) -> usize {
        before
            .iter()
            .zip(after)
            .filter(|(old, new)| **old != removed && old != new)
            .count()
    }

    fn without(entries: &[RingEntry], index: usize) -> Vec<RingEntry> {
        let mut rest = entries.to_vec();
        rest.remove(index);
        rest
    }

    fn digest(ring: &[u32]) -> u64 {
        xxh64(
            &ring
                .iter()
                .flat_map(|id| id.to_le_bytes())
                .collect::<Vec<u8>>(),
            0,
        )
    }

    fn golden() -> Vec<RingEntry> {
        [
            ("10.0.0.1:80", 1, 100),
            ("10.0.0.2:80", 2, 100),
            ("10.0.0.2:81", 3, 50),
            ("192.0.2.7:65535", 4, 999),
            ("[2001:db8::1]:443", 5, 1),
            ("[2001:db8::2]:443", 6, 0),
        ]
        .map(|(address, target_id, weight)| RingEntry {
            target_id,
            identity: address
                .parse::<SocketAddr>()
                .expect("a socket address")
                .into(),
            weight,
        })
        .to_vec()
    }

    #[test]
    fn the_ring_of_a_fixed_set_never_changes() {
        let ring = build(&golden(), SLOTS);
        assert_eq!(ring[..16], [1, 4, 4, 4, 4, 4, 4, 4, 4, 4, 2, 2, 4, 4, 4, 3]);
        assert_eq!(digest(&ring), 0xcb75_92ca_98f0_1aae);
    }

    #[test]
    fn identities_of_one_address_written_as_ipv4_and_mapped_are_the_same() {
        let plain: SocketAddr = "192.0.2.1:80".parse().expect("an address");
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:80".parse().expect("an address");
        assert_eq!(Identity::from(plain), Identity::from(mapped));
    }

    #[test]
    fn nothing_to_choose_from_makes_a_ring_without_targets() {
        for entries in [vec![], vec![entry(1, 0), entry(2, 0)]] {
            assert_eq!(build(&entries, SLOTS), vec![NO_TARGET; SLOTS]);
        }
        assert!(build(&equals(2), 0).is_empty());
    }

    #[test]
    fn a_weight_of_zero_takes_no_slots_and_moves_none() {
        let with = [entry(1, 5), entry(2, 0), entry(3, 7)];
        let without = [entry(1, 5), entry(3, 7)];
        assert_eq!(build(&with, SLOTS), build(&without, SLOTS));
    }

    #[test]
    fn a_target_that_is_alone_owns_every_slot_whatever_its_weight() {
        for weight in [1, 999, u16::MAX] {
            assert_eq!(build(&[entry(1, weight)], SLOTS), vec![1001; SLOTS]);
        }
    }

    #[test]
    fn slots_go_to_identities_and_ids_only_name_them() {
        let entries = equals(9);
        let renamed: Vec<RingEntry> = entries
            .iter()
            .map(|entry| RingEntry {
                target_id: 5000 - entry.target_id,
                ..*entry
            })
            .collect();
        let expected: Vec<u32> = build(&entries, SLOTS).iter().map(|id| 5000 - id).collect();
        assert_eq!(build(&renamed, SLOTS), expected);
    }

    #[test]
    fn flipped_weights_flip_the_shares_and_flipping_back_restores_the_ring() {
        let before = build(&[entry(1, 1), entry(2, 3)], SLOTS);
        let flipped = build(&[entry(1, 3), entry(2, 1)], SLOTS);
        assert_eq!(shares(&before)[&1001], shares(&flipped)[&1002]);
        assert_eq!(shares(&before)[&1002], shares(&flipped)[&1001]);
        // Half of all slots have to move. Hardly a slot may move the other way.
        let wrong_way = before
            .iter()
            .zip(&flipped)
            .filter(|(old, new)| **old == 1001 && **new == 1002)
            .count();
        assert!(
            wrong_way * 100 <= SLOTS,
            "{wrong_way} slots moved to the lighter target"
        );
        assert_eq!(build(&[entry(1, 1), entry(2, 3)], SLOTS), before);
    }

    #[test]
    fn removing_one_of_many_moves_few_other_slots() {
        for count in [2, 3, 5, 10, 30, 100, 1000] {
            let entries = equals(count);
            let before = build(&entries, SLOTS);
            let after = build(&without(&entries, 1), SLOTS);
            let moved = disruption(&before, &after, entries[1].target_id);
            assert!(
                moved * 100 <= 2 * SLOTS,
                "{moved} slots of others, {count} targets"
            );
        }
    }

    /// Targets at distinct random addresses, with weights from `weights`.
    fn targets(
        count: std::ops::Range<usize>,
        weights: std::ops::RangeInclusive<u16>,
    ) -> impl Strategy<Value = Vec<RingEntry>> {
        proptest::collection::btree_map(any::<(u32, u16)>(), weights, count).prop_map(|targets| {
            (1..)
                .zip(targets)
                .map(|(target_id, ((ip, port), weight))| RingEntry {
                    target_id,
                    identity: SocketAddr::from((ip.to_be_bytes(), port)).into(),
                    weight,
                })
                .collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn the_order_of_entries_does_not_matter(
            (entries, shuffled) in targets(1..20, 0..=999)
                .prop_flat_map(|entries| (Just(entries.clone()), Just(entries).prop_shuffle())),
        ) {
            prop_assert_eq!(build(&entries, SLOTS), build(&shuffled, SLOTS));
        }

        #[test]
        fn every_target_gets_its_exact_share_to_less_than_a_slot(
            entries in targets(1..60, 0..=999),
        ) {
            let total: usize = entries.iter().map(|entry| usize::from(entry.weight)).sum();
            prop_assume!(total > 0);
            let shares = shares(&build(&entries, SLOTS));
            prop_assert!(!shares.contains_key(&NO_TARGET));
            for entry in &entries {
                let got = shares.get(&entry.target_id).copied().unwrap_or(0);
                let exact = SLOTS * usize::from(entry.weight);
                prop_assert!((got * total).abs_diff(exact) < total);
            }
        }

        #[test]
        fn removing_a_target_moves_few_other_slots_and_adding_it_back_restores_the_ring(
            entries in targets(3..60, 1..=1),
            index: prop::sample::Index,
        ) {
            let index = index.index(entries.len());
            let before = build(&entries, SLOTS);
            let after = build(&without(&entries, index), SLOTS);
            let moved = disruption(&before, &after, entries[index].target_id);
            prop_assert!(moved * 100 <= 2 * SLOTS, "{} slots of others moved", moved);

            let mut restored = without(&entries, index);
            restored.push(entries[index]);
            prop_assert_eq!(build(&restored, SLOTS), before);
        }

        #[test]
        fn targets_of_equal_weight_take_turns_as_if_sorted(
            entries in (1_u16..=999).prop_flat_map(|weight| targets(1..60, weight..=weight)),
            slots in 0_usize..2000,
        ) {
            let quotas = quotas(&entries, slots);
            prop_assert_eq!(in_rounds(&quotas, slots), by_time(&entries, &quotas, slots));
        }

        #[test]
        fn any_number_of_slots_makes_a_full_ring(
            entries in targets(1..20, 1..=999),
            slots in 1_usize..2000,
        ) {
            let ring = build(&entries, slots);
            prop_assert_eq!(ring.len(), slots);
            prop_assert!(!ring.contains(&NO_TARGET));
        }
    }
}
