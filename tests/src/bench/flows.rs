//! Flows that are there before anything is measured.

use nlb_common::{
    address::Address,
    flow::{Bucket, Choice, Client, FlowState, WAYS},
    listener::ListenerId,
    next_hop::Epoch,
    sequence::{Numbering, Sequences},
    target::TargetId,
    tick::Tick,
};
use zerocopy::big_endian::U16;

use super::kind::NEXT_HOP;

/// The target has answered, and the client the target.
const ESTABLISHED: FlowState = FlowState::ANSWERED.with(FlowState::ESTABLISHED);

/// Makes every flow established, with a known way back; says how many there are.
pub fn establish<'b>(buckets: impl Iterator<Item = &'b Bucket>, epoch: Epoch, now: Tick) -> u32 {
    let mut count = 0;
    for entry in buckets.flat_map(|bucket| &bucket.entries) {
        let word = entry.choice.load();
        if word == Choice::EMPTY || word == Choice::BUSY {
            continue;
        }
        let choice = Choice {
            next_hop: NEXT_HOP,
            ..Choice::of_word(word)
        };
        entry.choice.store(choice.to_word());
        let old = entry.progress();
        // Beside what it is already: of a flow whose source is translated, that.
        let state = old.state.with(ESTABLISHED);
        let progress = old.after(state, now, epoch);
        entry.progress.store(progress.to_word());
        count += 1;
    }
    count
}

/// Has the target of every flow count otherwise than its client does.
pub fn shift_numbers<'b>(buckets: impl Iterator<Item = (&'b Bucket, &'b Sequences)>) {
    for (bucket, beside) in buckets {
        for (entry, sequence) in bucket.entries.iter().zip(&beside.entries) {
            sequence
                .numbering
                .store(Numbering::Shifted(0x5a5a).to_word());
            let mut progress = entry.progress();
            progress.state = progress.state.with(FlowState::SEQUENCE_TRANSLATED);
            entry.progress.store(progress.to_word());
        }
    }
}

/// Fills every entry with an established flow of somebody else's.
pub fn fill_up<'b>(
    buckets: impl Iterator<Item = &'b Bucket>,
    listener: ListenerId,
    protocol: u8,
    now: Tick,
) {
    let choice = Choice {
        target: TargetId(1),
        listener,
        next_hop: NEXT_HOP,
    };
    for (number, bucket) in (0u64..).zip(buckets) {
        for (way, entry) in (0..WAYS as u64).zip(&bucket.entries) {
            let client = Client {
                address: Address {
                    words: [u64::MAX, number << 2 | way],
                },
                port: U16::new(1),
                protocol,
            };
            entry.fill(&client, choice, ESTABLISHED, now);
        }
    }
}
