//! `nlb flows`: the flow table, looked through from outside while packets go on.
//!
//! [`filter`] says which flows are meant, [`scan`] finds them, [`follow`] tells
//! what became of them, [`text`] shows them. The table is memory
//! that the kernel shares: it is read in place, with one thread for each processor, and packets notice
//! nothing. An entry that changes while it is read is shown as it was or as it is, never as a mixture,
//! because that is how packets read it, too.
//!
//! An entry says which flow it is, how far that has come, and when a packet of it was seen last. It counts
//! neither packets nor bytes, and does not say when the flow began: 32 bytes have no room for that.

pub mod filter;
pub mod follow;
pub mod scan;
pub mod text;

use std::net::SocketAddr;

use nlb_common::{
    address::Address,
    flow::{Bucket, Choice, FlowEntry, FlowState},
    listener::Listener,
    source::{Pool, Translation, Translations},
    target::Target,
    tick::Tick,
    word::Word,
};
use zerocopy::big_endian::U16;

/// The flow table, and the records that its entries name.
#[derive(Clone, Copy, Debug)]
pub struct Table<'m> {
    /// The table.
    pub flows: &'m [Bucket],
    /// What the sources of its flows become; as many as buckets, or none where there is no pool.
    pub translations: &'m [Translations],
    /// Our addresses that sources become.
    pub pool: Option<&'m Pool>,
    /// Listeners by id.
    pub listeners: &'m [Listener],
    /// Targets by id.
    pub targets: &'m [Target],
    /// The present tick.
    pub now: Tick,
}

/// A remembered flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The client's end.
    pub client: SocketAddr,
    /// The IP protocol.
    pub protocol: u8,
    /// Its listener's id.
    pub listener: u16,
    /// Its target's id.
    pub target: u32,
    /// How far it has come.
    pub state: FlowState,
    /// For how many ticks no packet of it was seen.
    pub silent_ticks: u16,
    /// After how many it is forgotten.
    pub idle_ticks: u16,
    /// What the target sees in place of the client's end, if its source is translated.
    pub source: Option<SocketAddr>,
}

/// An address and a port of the maps.
fn end(address: Address, port: U16) -> SocketAddr {
    SocketAddr::new(address.into(), port.get())
}

impl Table<'_> {
    /// The flow in an entry, and the word under which it was read; none if it holds no flow, or is just
    /// being written.
    fn flow(&self, entry: &FlowEntry, translation: Option<&Word>) -> Option<(Flow, u64)> {
        let word = entry.choice.load();
        if word == Choice::EMPTY || word == Choice::BUSY {
            return None;
        }
        let (client, progress) = (entry.client(), entry.progress());
        if entry.choice.load() != word {
            return None;
        }
        let choice = Choice::of_word(word);
        let listener = self.listeners.get(usize::from(choice.listener.0));
        let limit = listener.map_or(0, |listener| listener.policy().idle_ticks);
        let given = translation.filter(|_| progress.state.has(FlowState::SOURCE_TRANSLATED));
        let source = given.map(|word| Translation::of_word(word.load()));
        let flow = Flow {
            client: end(client.address, client.port),
            protocol: client.protocol,
            listener: choice.listener.0,
            target: choice.target.0,
            state: progress.state,
            silent_ticks: self.now.since(progress.last_seen),
            idle_ticks: progress.state.idle_ticks(limit),
            source: source
                .and_then(|source| Some(end(self.pool?.address(source.source), source.port))),
        };
        Some((flow, word))
    }

    /// Where a listener listens, and what.
    pub fn vip(&self, listener: u16) -> Option<(SocketAddr, u8)> {
        let key = self.listeners.get(usize::from(listener))?.key()?;
        Some((end(key.address, key.port), key.protocol))
    }

    /// A target's end.
    pub fn target(&self, id: u32) -> Option<SocketAddr> {
        let record = self.targets.get(usize::try_from(id).ok()?)?;
        record.control()?;
        Some(end(record.address(), record.port()))
    }

    /// Listeners that remember flows only when their rings change.
    pub fn on_change(&self) -> impl Iterator<Item = u16> {
        (0..=u16::MAX)
            .zip(self.listeners)
            .filter_map(|(id, record)| {
                record.key()?;
                record.policy().flags.pins_on_change().then_some(id)
            })
    }
}

impl Flow {
    /// Whether its time has run out, so that it is as good as forgotten.
    pub const fn is_expired(&self) -> bool {
        self.silent_ticks > self.idle_ticks
    }
}

#[cfg(test)]
mod tests;
