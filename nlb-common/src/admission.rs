//! Who may begin a flow, and how often: what a listener asks before a flow's first packet is
//! remembered. Packets of remembered flows ask nothing of this.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{address::Address, listener::ListenerId, tick::Tick, word::Word};

/// Sources whose new flows are counted at once. The kernel forgets the one that was silent longest.
pub const MAX_SOURCES: u32 = 1 << 16;

/// A source's bits in a rule set: all of an address.
pub const SOURCE_BITS: u32 = 128;

/// The value of a prefix in a rule set that admits.
pub const ALLOW: u32 = 1;
/// The value of a prefix in a rule set that blocks.
pub const DENY: u32 = 2;

/// A listener's rules and limits. All zero: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdmissionPolicy {
    /// Whether a flow's source is looked up in the listener's rule set.
    pub has_rules: bool,
    /// What becomes of a flow over a limit: forwarded by the ring without an entry, or dropped.
    pub forwards_unpinned: bool,
    /// Bits of a source's address (IPv4 mapped into IPv6) that tell it from others.
    pub source_bits: u8,
    /// New flows in one tick; 0 for any number.
    pub flows_per_tick: u32,
    /// New flows of one source in one tick; 0 for any number.
    pub source_flows_per_tick: u32,
    /// Flows remembered at once; 0 for any number.
    pub active_flows: u32,
    /// Flows of one source remembered at once; 0 for any number.
    pub source_active_flows: u32,
    /// SYNs in one tick beyond which a listener with SYN cookies begins to answer with them; 0 where it
    /// always does.
    pub usual_syns_per_tick: u32,
}

impl AdmissionPolicy {
    /// Whether any number is limited.
    pub const fn has_limits(&self) -> bool {
        self.flows_per_tick | self.active_flows != 0 || self.limits_sources()
    }

    /// Whether flows are counted by source.
    #[inline(always)]
    pub const fn limits_sources(&self) -> bool {
        self.source_flows_per_tick | self.source_active_flows != 0
    }
}

/// A listener's record of admission: its policy, and what was counted against it.
///
/// Apart from [`Listener`](crate::listener::Listener), whose cache line every packet reads and which
/// must therefore stay clean.
#[derive(Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)]
#[repr(C, align(64))]
pub struct Admission {
    /// bit 0: has rules, bit 1: forwards unpinned, bits 8–15: bits of a source
    control: Word,
    /// new flows per tick (low 32), and those of one source (high 32)
    rates: Word,
    /// flows remembered at once (low 32), and those of one source (high 32)
    ceilings: Word,
    /// The listener's [`Window`].
    pub window: Word,
    /// How many flows are remembered: what the last sweep found, and those that began since.
    pub active: Word,
    /// SYNs in a tick that are usual (low 32)
    syns: Word,
    /// The listener's [`Pressure`](crate::pressure::Pressure).
    pub pressure: Word,
    zero: Word,
}

const HAS_RULES: u64 = 1;
const FORWARDS_UNPINNED: u64 = 2;

impl Admission {
    /// Replaces the policy, word by word, and leaves what was counted.
    pub fn set_policy(&self, policy: &AdmissionPolicy) {
        self.rates.store(
            u64::from(policy.flows_per_tick) | u64::from(policy.source_flows_per_tick) << 32,
        );
        self.syns.store(u64::from(policy.usual_syns_per_tick));
        self.ceilings
            .store(u64::from(policy.active_flows) | u64::from(policy.source_active_flows) << 32);
        self.control.store(
            u64::from(policy.has_rules)
                | u64::from(policy.forwards_unpinned) << 1
                | u64::from(policy.source_bits) << 8,
        );
    }

    /// The policy.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "takes words apart")]
    pub fn policy(&self) -> AdmissionPolicy {
        let control = self.control.load();
        let rates = self.rates.load();
        let ceilings = self.ceilings.load();
        AdmissionPolicy {
            has_rules: control & HAS_RULES != 0,
            forwards_unpinned: control & FORWARDS_UNPINNED != 0,
            source_bits: (control >> 8) as u8,
            flows_per_tick: rates as u32,
            source_flows_per_tick: (rates >> 32) as u32,
            active_flows: ceilings as u32,
            source_active_flows: (ceilings >> 32) as u32,
            usual_syns_per_tick: self.usual_syns_per_tick(),
        }
    }

    /// [`AdmissionPolicy::usual_syns_per_tick`].
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "takes the word apart")]
    pub fn usual_syns_per_tick(&self) -> u32 {
        self.syns.load() as u32
    }

    /// Replaces the number of remembered flows by what a sweep found, and adds those that began
    /// while it went on: `before` is [`Self::active`] as it was when it began. Some of them it has
    /// seen, so the number may be too high until the next sweep, and is never too low.
    #[cfg(not(target_arch = "bpf"))]
    pub fn settle(&self, found: u64, before: u64) {
        loop {
            let now = self.active.load();
            let settled = settled(found, before, now);
            if settled == now || self.active.swap(now, settled) {
                return;
            }
        }
    }
}

/// How many flows there are after a sweep that found `found`; before it, `before` were counted, and
/// `now` are when it has ended.
#[cfg(not(target_arch = "bpf"))]
pub const fn settled(found: u64, before: u64, now: u64) -> u64 {
    found + now.saturating_sub(before)
}

/// How many flows began in a tick: tick (bits 48–63) and number (low 32).
///
/// A number for each tick instead of a bucket that drips: one word, one swap, and nothing is written
/// once the number is reached. A burst may take two ticks' worth where two ticks meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Which tick.
    pub tick: Tick,
    /// Flows that began in it.
    pub flows: u32,
}

impl Window {
    /// The window as a word.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        (self.tick.0 as u64) << 48 | self.flows as u64
    }

    /// The window in a word.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "takes the word apart")]
    pub const fn of_word(word: u64) -> Self {
        Self {
            tick: Tick((word >> 48) as u16),
            flows: word as u32,
        }
    }

    /// The window at this time: itself, or a new one.
    #[inline(always)]
    #[must_use]
    pub const fn at(self, now: Tick) -> Self {
        if now.since(self.tick) == 0 {
            self
        } else {
            Self {
                tick: now,
                flows: 0,
            }
        }
    }

    /// Whether another flow may begin.
    #[inline(always)]
    pub const fn has_room(self, flows_per_tick: u32) -> bool {
        self.flows < flows_per_tick
    }

    /// With one more flow.
    #[inline(always)]
    #[must_use]
    pub const fn with_one_more(self) -> Self {
        Self {
            flows: self.flows.saturating_add(1),
            ..self
        }
    }
}

/// Whose new flows are counted: a source, at one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Source {
    /// The address, its other bits zero.
    pub address: Address,
    /// The listener.
    pub listener: u64,
}

impl Source {
    /// The source that an address belongs to, of which so many bits count.
    #[inline(always)]
    pub const fn of(listener: ListenerId, address: Address, bits: u8) -> Self {
        Self {
            address: address.prefix(bits),
            listener: listener.0 as u64,
        }
    }
}

/// What was counted of a source.
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct SourceRecord {
    /// The source's [`Window`].
    pub window: Word,
    /// How many of its flows are remembered, as [`Admission::active`] counts them.
    pub active: Word,
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;

    #[test]
    fn a_policy_reads_back_and_leaves_what_was_counted() {
        let record = Admission::default();
        assert_eq!(record.policy(), AdmissionPolicy::default());
        record.window.store(7);
        record.active.store(8);
        let policy = AdmissionPolicy {
            has_rules: true,
            forwards_unpinned: true,
            source_bits: 128,
            flows_per_tick: 1000,
            source_flows_per_tick: u32::MAX,
            active_flows: 3,
            source_active_flows: u32::MAX - 1,
            usual_syns_per_tick: u32::MAX - 2,
        };
        record.pressure.store(9);
        record.set_policy(&policy);
        assert_eq!(record.policy(), policy);
        let counted = [&record.window, &record.active, &record.pressure];
        assert_eq!(counted.map(Word::load), [7, 8, 9]);
    }

    #[test]
    fn a_window_is_new_with_every_tick_and_not_with_another_cores_clock() {
        let window = Window {
            tick: Tick(u16::MAX),
            flows: 5,
        };
        assert_eq!(Window::of_word(window.to_word()), window);
        assert_eq!(window.at(Tick(u16::MAX)), window);
        assert_eq!(window.at(Tick(u16::MAX - 1)), window);
        let next = window.at(Tick(0));
        assert_eq!((next.tick, next.flows), (Tick(0), 0));
        assert!(next.has_room(1) && !next.with_one_more().has_room(1));
    }

    #[test]
    fn flows_that_begin_while_a_sweep_goes_on_are_not_forgotten() {
        let record = Admission::default();
        record.active.store(10);
        record.settle(4, 10);
        assert_eq!(record.active.load(), 4);
        record.active.store(6);
        record.settle(3, 4);
        assert_eq!(record.active.load(), 5);
    }

    #[test]
    fn a_source_is_its_prefix_at_one_listener() {
        let of = |text: &str, bits| {
            let address: IpAddr = text.parse().unwrap();
            Source::of(ListenerId(3), Address::from(address), bits)
        };
        assert_eq!(of("10.1.2.3", 96 + 24), of("10.1.2.200", 96 + 24));
        assert_ne!(of("10.1.2.3", 96 + 24), of("10.1.3.3", 96 + 24));
        assert_ne!(of("10.1.2.3", 128), of("10.1.2.2", 128));
        assert_eq!(of("2001:db8::1", 64), of("2001:db8::2:1", 64));
        assert_ne!(of("2001:db8::1", 64), of("2001:db8:0:1::1", 64));
        assert_eq!(of("2001:db8::1", 33), of("2001:db8:7fff::1", 33));
        assert_ne!(of("2001:db8::1", 33), of("2001:db8:8000::1", 33));
        assert_eq!(of("2001:db8::1", 0), of("10.0.0.1", 0));
    }
}
