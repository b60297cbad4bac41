//! Listeners that ask who comes, and how many there are already.

use nlb_common::{
    address::Address,
    admission::{ALLOW, AdmissionPolicy, DENY, Source, Window},
    listener::ListenerId,
    tick::Tick,
};
use nlb_ebpf::memory::MemoryTables;
use nlb_userspace::dataplane::sweep;

use super::{FAR_CLIENT, QUIET_CLIENT, address};

/// A source rule: `(prefix, bits of it that count, allows)`.
pub type RuleRow = (&'static str, u8, bool);

/// Listeners with source rules.
pub const RULES: &[(u16, &[RuleRow])] = &[
    (
        106,
        &[
            ("::", 0, false),
            ("198.51.100.0", 96 + 24, true),
            (QUIET_CLIENT, 128, false),
        ],
    ),
    (107, &[("::", 0, true), ("2001:db8:f::", 48, false)]),
    (
        59,
        &[
            ("::", 0, true),
            ("198.51.0.0", 96 + 16, false),
            (QUIET_CLIENT, 128, true),
        ],
    ),
    (63, &[("::", 0, true), (FAR_CLIENT, 128, false)]),
    (98, &[("::", 0, false), ("2001:db8:c::", 48, true)]),
    (99, &[("::", 0, false), ("198.51.100.0", 96 + 24, true)]),
    (100, &[("::", 0, true), ("2001:db8:f::", 48, false)]),
];

/// Listeners with limits.
pub const LIMITS: &[(u16, AdmissionPolicy)] = &[
    (
        60,
        AdmissionPolicy {
            has_rules: false,
            forwards_unpinned: true,
            source_bits: 128,
            flows_per_tick: 3,
            source_flows_per_tick: 0,
            active_flows: 0,
            source_active_flows: 0,
            usual_syns_per_tick: 0,
        },
    ),
    (
        61,
        AdmissionPolicy {
            has_rules: false,
            forwards_unpinned: false,
            source_bits: 96 + 24,
            flows_per_tick: 4,
            source_flows_per_tick: 2,
            active_flows: 0,
            source_active_flows: 0,
            usual_syns_per_tick: 0,
        },
    ),
    (
        62,
        AdmissionPolicy {
            has_rules: false,
            forwards_unpinned: false,
            source_bits: 64,
            flows_per_tick: 0,
            source_flows_per_tick: 3,
            active_flows: 5,
            source_active_flows: 0,
            usual_syns_per_tick: 0,
        },
    ),
    (
        101,
        AdmissionPolicy {
            has_rules: false,
            forwards_unpinned: true,
            source_bits: 128,
            flows_per_tick: 3,
            source_flows_per_tick: 0,
            active_flows: 0,
            source_active_flows: 0,
            usual_syns_per_tick: 0,
        },
    ),
    (
        102,
        AdmissionPolicy {
            has_rules: false,
            forwards_unpinned: true,
            source_bits: 128,
            flows_per_tick: 0,
            source_flows_per_tick: 0,
            active_flows: 3,
            source_active_flows: 0,
            usual_syns_per_tick: 0,
        },
    ),
    (
        103,
        AdmissionPolicy {
            has_rules: false,
            forwards_unpinned: false,
            source_bits: 96 + 24,
            flows_per_tick: 0,
            source_flows_per_tick: 0,
            active_flows: 5,
            source_active_flows: 2,
            usual_syns_per_tick: 0,
        },
    ),
    (
        104,
        AdmissionPolicy {
            has_rules: false,
            forwards_unpinned: true,
            source_bits: 128,
            flows_per_tick: 0,
            source_flows_per_tick: 3,
            active_flows: 0,
            source_active_flows: 2,
            usual_syns_per_tick: 0,
        },
    ),
    (
        105,
        AdmissionPolicy {
            has_rules: false,
            forwards_unpinned: false,
            source_bits: 64,
            flows_per_tick: 0,
            source_flows_per_tick: 0,
            active_flows: 0,
            source_active_flows: 2,
            usual_syns_per_tick: 0,
        },
    ),
];

/// The rules of [`RULES`] as the tables hold them.
pub fn rules(rows: &[RuleRow]) -> Vec<(Address, u8, u32)> {
    let rule = |(prefix, bits, allows): &RuleRow| {
        (address(prefix), *bits, if *allows { ALLOW } else { DENY })
    };
    rows.iter().map(rule).collect()
}

/// Says how many flows have begun in this tick: at each listener, and of each of these clients there.
pub fn set_windows(tables: &MemoryTables, clients: &[&str], mut flows: impl FnMut() -> u32) {
    let tick = Tick(tables.now.get());
    for (id, policy) in LIMITS {
        let listener = ListenerId(*id);
        let record = &tables.admissions[usize::from(*id)];
        let mut word = || {
            let flows = flows();
            Window { tick, flows }.to_word()
        };
        record.window.store(word());
        for client in clients {
            let source = Source::of(listener, address(client), policy.source_bits);
            let mut sources = tables.admission_sources.borrow_mut();
            sources.entry(source).or_default().window.store(word());
        }
    }
}

/// What the daemon does every few seconds: looks which flows are left, and settles what is counted
/// against limits.
pub fn sweep(tables: &MemoryTables) {
    let found = sweep::sweep(
        tables
            .buckets
            .iter()
            .zip(&tables.translations)
            .flat_map(|(bucket, beside)| bucket.entries.iter().zip(&beside.entries)),
        &sweep::Records {
            listeners: &tables.listeners,
            admissions: &tables.admissions,
            targets: &tables.targets,
            pool: Some(&tables.pool),
            settling: None,
        },
        Tick(tables.now.get()),
    );
    for (source, record) in tables.admission_sources.borrow().iter() {
        let flows = found.by_source.get(source).copied();
        record.active.store(flows.unwrap_or(0));
    }
}

/// Whether a listener has source rules or limits.
pub fn asks_who_comes(listener: u16) -> bool {
    RULES.iter().any(|(id, _)| *id == listener) || LIMITS.iter().any(|(id, _)| *id == listener)
}

/// Gives listeners the rules of [`RULES`] and the limits of [`LIMITS`].
pub(super) fn ask_who_comes(tables: &mut MemoryTables) {
    for (id, rows) in RULES {
        tables.rules.insert(ListenerId(*id), rules(rows));
        let policy = AdmissionPolicy {
            has_rules: true,
            ..AdmissionPolicy::default()
        };
        tables.set_admission(ListenerId(*id), &policy);
    }
    for (id, policy) in LIMITS {
        tables.set_admission(ListenerId(*id), policy);
    }
}
