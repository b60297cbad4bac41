//! The benchmark's listeners and packets in memory, where the instructions of a path are counted.

use anyhow::{Context as _, Result, ensure};
use nlb_common::{counter::Traffic, hash::Key, stop::Stop, target::Mode, tick::Tick};
use nlb_ebpf::{
    Verdict, handle,
    memory::{MemoryFrame, MemoryTables},
};
use nlb_userspace::{
    dataplane::{Dataplane as _, XDP_OBJECT},
    plan::{Actual, Limits, Wish, WishedForward, WishedRing, plan},
};

use super::{
    feature::Feature,
    flows,
    kind::{
        Kind, LISTENER_PORT, LOOPBACK, NEXT_HOP, pool, settled, to_everybody, wished_group,
        wished_listener,
    },
};
use crate::{
    kernel::Answer,
    machine::{Program, Work},
    packet::Sentence,
};

/// Buckets of the flow table.
const BUCKETS: usize = 64;
/// A second listener, which no packet is for.
const OTHER_PORT: u16 = 444;

/// Who has an optional feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// No listener.
    Nobody,
    /// A listener that no packet is for.
    Other,
    /// The packets' own listener.
    Own,
}

/// A listener of one kind, and another one, in memory.
pub struct Scene {
    kind: Kind,
    tables: MemoryTables,
    program: Program,
}

impl Scene {
    /// Listeners without any optional feature.
    pub fn plain(kind: Kind) -> Result<Self> {
        Self::with(kind, Feature::SourceRules, Who::Nobody)
    }

    /// Listeners of which one or none has a feature.
    pub fn with(kind: Kind, feature: Feature, who: Who) -> Result<Self> {
        let key = |number| Key::derive(&[0x5a; 32], number);
        let mut tables = MemoryTables::new(key(2), key(1), BUCKETS);
        let wish = wish(kind, feature, who)?;
        // As the daemon sets the loader's constants.
        tables.pins_on_change = wish.forwards.iter().any(|forward| forward.settles);
        tables.translates_sources = !wish.sources.is_empty();
        tables.take(&to_everybody())?;
        let limits = Limits {
            listeners: tables.listeners.len(),
            targets: tables.targets.len(),
            groups: tables.tunnels.len(),
        };
        let mut actual = Actual::default();
        for planned in plan(&actual, &wish, limits)? {
            tables.take(&planned.step)?;
            actual.note(&planned.step);
            if let Some(ring) = planned.ring
                && let Some(settling) = ring.settling
            {
                tables.take(&settled(ring.group, settling)?)?;
            }
        }
        tables.now.set(1_000);
        let program = Program::read(XDP_OBJECT, &tables)?;
        Ok(Self {
            kind,
            tables,
            program,
        })
    }

    /// Lets a packet come in that is not counted; the frame as it leaves.
    pub fn pass(&mut self, packet: &Sentence) -> Vec<u8> {
        let mut frame = incoming(packet);
        let _ = handle(&mut frame, &self.tables);
        frame.bytes
    }

    /// Fills the flow table with live flows of others.
    pub fn fill_up(&self) -> Result<()> {
        let key = self.kind.key()?;
        let id = self.tables.listener_index.get(&key);
        let id = *id.context("the plan gave the listener no id")?;
        let now = Tick(self.tables.now.get());
        flows::fill_up(self.tables.buckets.iter(), id, self.kind.protocol, now);
        Ok(())
    }

    /// Makes the flows that have begun established ones.
    pub fn establish(&mut self) -> Result<()> {
        let slot = self.tables.next_hops[usize::from(NEXT_HOP.0)].read();
        let (_, epoch) = slot.context("the next hop is not valid")?;
        let now = Tick(self.tables.now.get());
        let count = flows::establish(self.tables.buckets.iter(), epoch, now);
        ensure!(count == 1, "{count} flows instead of one");
        Ok(())
    }

    /// Counts what a packet takes, that must be forwarded as this kind of packet or stopped so.
    pub fn count(&mut self, packet: &Sentence, path: Path) -> Result<Work> {
        let frame = incoming(packet);
        let outcome = self.program.run(&mut self.tables, &frame)?;
        // The memory body says what must have become of it, and which way it went.
        let before = self.seen();
        let mut expected = frame;
        let verdict = handle(&mut expected, &self.tables);
        let after = self.seen();
        ensure!(
            outcome.answer == Answer::from(verdict) && outcome.frame == expected.bytes,
            "{:?}: the machine says {outcome:?}, the memory body {verdict:?} and {:?}",
            self.kind,
            expected.bytes
        );
        if let Verdict::Redirect(interface) = verdict {
            ensure!(outcome.redirected_to == Some(interface), "{outcome:?}");
        }
        ensure!(
            path.is_between(&before, &after),
            "{:?} is not {path:?}: before {before:?}, after {after:?}",
            self.kind
        );
        Ok(outcome.work)
    }

    fn seen(&self) -> Seen {
        let mut traffic = Traffic::default();
        for counted in self.tables.listener_counters.borrow().values() {
            traffic += *counted;
        }
        Seen {
            traffic,
            stops: *self.tables.stop_counters.borrow(),
        }
    }
}

fn incoming(packet: &Sentence) -> MemoryFrame {
    MemoryFrame::new(packet.build(), LOOPBACK)
}

/// What was counted so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    traffic: Traffic,
    stops: [u64; Stop::COUNT],
}

/// The way that a packet must go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// To a target, by a remembered flow or by a settled ring.
    Known,
    /// To a target, as a new flow.
    New,
    /// To a client.
    Return,
    /// Nowhere, for this reason.
    Stopped(Stop),
    /// To the host, uncounted.
    NotOurs,
}

impl Path {
    fn is_between(self, before: &Seen, after: &Seen) -> bool {
        let (old, new) = (&before.traffic, &after.traffic);
        let begun = new.new_flows - old.new_flows;
        match self {
            Self::Known => new.packets == old.packets + 1 && begun == 0,
            Self::New => new.packets == old.packets + 1 && begun == 1,
            Self::Return => new.return_packets == old.return_packets + 1,
            Self::Stopped(stop) => {
                let at = stop as usize;
                after.stops[at] == before.stops[at] + 1
            }
            Self::NotOurs => before == after,
        }
    }
}

/// Two listeners with a group each, of which the feature's owner has the feature.
fn wish(kind: Kind, feature: Feature, who: Who) -> Result<Wish> {
    let mut wish = Wish::default();
    let has_pool = kind.mode == Mode::FULL_NAT || (feature == Feature::Pool && who != Who::Nobody);
    if has_pool {
        wish.sources = pool()?;
    }
    for (index, port) in [LISTENER_PORT, OTHER_PORT].into_iter().enumerate() {
        let mut group = wished_group(kind, u32::try_from(index)? + 1)?;
        // Targets of two groups must differ, or the second were the first.
        group.targets[0].port += u16::try_from(index)?;
        let mut listener = wished_listener(kind, port, WishedRing::Group(index))?;
        let has_it = match who {
            Who::Nobody => false,
            Who::Own => port == LISTENER_PORT,
            Who::Other => port == OTHER_PORT,
        };
        if has_it {
            feature.give(kind, &mut listener, &mut group);
            if feature == Feature::PinningOnChange {
                wish.forwards.push(WishedForward {
                    shares: vec![(index, 1)],
                    settles: true,
                });
                listener.ring = WishedRing::Forward(0);
            }
        }
        wish.groups.push(group);
        wish.listeners.push(listener);
    }
    Ok(wish)
}
