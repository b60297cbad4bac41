//! Listeners that pin flows on change: whatever happens to targets, between any two steps of any
//! plan, and whenever rings settle, a live connection stays where it began.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use nlb_common::{
    address::Address,
    hash::Key,
    listener::{HashInput, ListenerKey, Stranded},
    next_hop::NextHopId,
    target::{Mode, TargetId},
    tick::Tick,
    wire::{
        protocol::TCP,
        tcp::{ACK, SYN},
    },
};
use nlb_ebpf::{
    Verdict, handle,
    memory::{MemoryFrame, MemoryTables, occupied},
};
use nlb_tests::{
    hostile::Random,
    world::{CLIENT, ETH0, ETH1, from_client, neighbour_of},
};
use nlb_userspace::{
    dataplane::{
        Dataplane as _, Step,
        sweep::{self, Sweep},
    },
    plan::{
        Actual, Limits, Wish, WishedAdmission, WishedForward, WishedGroup, WishedListener,
        WishedRing, WishedTarget, fingerprint, plan, retire,
    },
    settling::{Exceptions, Settling},
};
use proptest::prelude::*;
use zerocopy::big_endian::U16;

/// Events of one story.
const EVENTS: usize = 400;
/// Client ports that connections come from.
const PORTS: u16 = 60;
/// How long a connection may be silent.
const IDLE_TICKS: u16 = 60;
/// Ticks between two sweeps.
const SWEEP_TICKS: u16 = 5;
/// What a tick is in this test.
const TICK: Duration = Duration::from_secs(1);
const VIP: &str = "192.0.2.20";
const NEXT_HOP: NextHopId = NextHopId(1);
const LIMITS: Limits = Limits {
    listeners: 8,
    targets: 100,
    groups: 16,
};

/// A connection as its client knows it.
#[derive(Clone, Copy)]
struct Connection {
    target: TargetId,
    last_packet: u16,
    /// Whether it has sent more than its SYN.
    goes_on: bool,
}

impl Connection {
    /// Whether the documentation promises that it goes on: a half-open one is forgotten sooner.
    fn is_live(self, now: u16) -> bool {
        let patience = if self.goes_on {
            IDLE_TICKS
        } else {
            Tick::at_least_seconds(30)
        };
        Tick(now).since(Tick(self.last_packet)) <= patience
    }
}

/// A node with one listener, and what its clients know.
struct Story {
    tables: MemoryTables,
    actual: Actual,
    wish: Wish,
    connections: BTreeMap<u16, Connection>,
    sweeps: [Sweep; 2],
    /// Sweeps since the last change.
    quiet: usize,
}

fn key() -> ListenerKey {
    let address = Address::from(VIP.parse::<IpAddr>().expect("an address"));
    ListenerKey::new(address, TCP, U16::new(80))
}

/// A group of some of nine targets, by weight; 0 for one that only keeps its flows.
fn group(name: &str, first: u8, weights: &[u16]) -> WishedGroup {
    let targets = (first..).zip(weights).map(|(last, weight)| WishedTarget {
        address: IpAddr::from([10, 0, 0, last]),
        port: 80,
        weight: *weight,
        resets_flows: false,
        next_hop: NEXT_HOP,
    });
    WishedGroup {
        fingerprint: fingerprint(name),
        mode: Mode::DSR_L2,
        terminates_removed: false,
        tunnel: None,
        targets: targets.collect(),
        quic: None,
    }
}

fn wish(groups: Vec<WishedGroup>, shares: Vec<(usize, u16)>) -> Wish {
    Wish {
        listeners: vec![WishedListener {
            syn_cookies: false,
            key: key(),
            ring: WishedRing::Forward(0),
            idle_ticks: IDLE_TICKS,
            stray: Stranded::FORWARD,
            expired: Stranded::FORWARD,
            mss_clamp_bytes: 0,
            hash_input: HashInput::FiveTuple,
            admission: WishedAdmission::default(),
            answers_echo: true,
        }],
        groups,
        forwards: vec![WishedForward {
            shares,
            settles: true,
        }],
        ..Wish::default()
    }
}

impl Story {
    fn begin() -> Self {
        let mut tables = MemoryTables::new(Key::derive(&[1; 32], 1), Key::derive(&[1; 32], 2), 256);
        let hop = neighbour_of("10.0.0.21");
        tables.add_next_hop(
            NEXT_HOP,
            ETH1,
            Address::from(IpAddr::from([10, 0, 0, 21])),
            &hop.next_hop(),
        );
        let mut story = Self {
            tables,
            actual: Actual::default(),
            wish: Wish::default(),
            connections: BTreeMap::new(),
            sweeps: Default::default(),
            quiet: 0,
        };
        let wish = wish(vec![group("a", 21, &[1, 1, 1])], vec![(0, 1)]);
        story
            .change(wish, &mut |_| Ok(()))
            .expect("nobody is there");
        story
    }

    fn now(&self) -> u16 {
        self.tables.now.get()
    }

    /// Sends a segment; which target got it.
    fn send(&self, port: u16, flags: u8) -> Option<TargetId> {
        let packets = |tables: &MemoryTables| -> BTreeMap<u32, u64> {
            let counters = tables.target_counters.borrow();
            counters
                .iter()
                .map(|(id, count)| (id.0, count.packets))
                .collect()
        };
        let before = packets(&self.tables);
        let segment = from_client().ipv4(CLIENT, VIP).tcp(port, 80).flags(flags);
        let mut frame = MemoryFrame::new(segment.build(), ETH0);
        if handle(&mut frame, &self.tables) != Verdict::Redirect(ETH1) {
            return None;
        }
        let after = packets(&self.tables);
        let got = after
            .iter()
            .find(|(id, count)| before.get(id) != Some(count));
        got.map(|(id, _)| TargetId(*id))
    }

    /// A client opens a connection, or goes on with one.
    fn packet(&mut self, port: u16) -> Result<(), TestCaseError> {
        let now = self.now();
        let live = self
            .connections
            .get(&port)
            .copied()
            .filter(|known| known.is_live(now));
        let target = if let Some(known) = live {
            let got = self.send(port, ACK);
            prop_assert_eq!(
                got,
                Some(known.target),
                "a live connection of port {}",
                port
            );
            known.target
        } else {
            let Some(target) = self.send(port, SYN) else {
                // Nobody takes new connections.
                self.connections.remove(&port);
                return Ok(());
            };
            let control = self.tables.targets[target.0 as usize].control();
            prop_assert!(control.is_some(), "a record that was written");
            target
        };
        let connection = Connection {
            target,
            last_packet: now,
            goes_on: live.is_some(),
        };
        self.connections.insert(port, connection);
        Ok(())
    }

    /// Carries a wish out, and does something between any two steps.
    fn change(
        &mut self,
        wish: Wish,
        between: &mut dyn FnMut(&mut Self) -> Result<(), TestCaseError>,
    ) -> Result<(), TestCaseError> {
        let steps = plan(&self.actual, &wish, LIMITS).expect("it fits");
        for planned in steps {
            self.tables.take(&planned.step).expect("tables in memory");
            self.actual.note(&planned.step);
            if let Some(ring) = planned.ring {
                self.actual.note_ring(ring);
            }
            between(self)?;
        }
        self.wish = wish;
        self.quiet = 0;
        Ok(())
    }

    /// What the daemon does every few seconds.
    fn sweep(&mut self) {
        let buckets = self.tables.buckets.iter().zip(&self.tables.translations);
        let sweep = sweep::sweep(
            buckets.flat_map(|(bucket, beside)| bucket.entries.iter().zip(&beside.entries)),
            &sweep::Records {
                listeners: &self.tables.listeners,
                admissions: &self.tables.admissions,
                targets: &self.tables.targets,
                pool: Some(&self.tables.pool),
                settling: Some((self.actual.settling(), &self.tables.select_key)),
            },
            Tick(self.now()),
        );
        let none = Exceptions::new();
        let rings: Vec<(u16, Settling)> = (self.actual.settling().iter())
            .filter(|(_, ring)| !ring.is_settled())
            .map(|(group, ring)| {
                let idle = TICK * u32::from(self.actual.idle_ticks(*group) + SWEEP_TICKS);
                let exceptions = sweep.exceptions.get(group).unwrap_or(&none);
                (
                    *group,
                    ring.settled(TICK * u32::from(self.now()), idle, exceptions),
                )
            })
            .collect();
        for (group, ring) in rings {
            let (slots, bases) = ring.maps();
            let bases = Some(bases);
            let step = Step::ReplaceRing {
                group,
                slots,
                bases,
            };
            self.tables.take(&step).expect("tables in memory");
            self.actual.note_settling(group, ring);
        }
        let [_, newer] = std::mem::take(&mut self.sweeps);
        self.sweeps = [newer, sweep];
        self.quiet += 1;
        if self.quiet > 3 {
            let [older, newer] = &self.sweeps;
            for step in retire(&self.actual, &self.wish, [older, newer]) {
                self.tables.take(&step).expect("tables in memory");
                self.actual.note(&step);
            }
            self.actual.forget_groups(&self.wish);
        }
    }

    /// Another daemon takes over: it knows what stands in the maps, and not since when.
    fn restart(&mut self) {
        let rings: Vec<_> = (self.actual.settling().iter())
            .map(|(group, ring)| (*group, ring.maps()))
            .collect();
        for (group, (slots, bases)) in rings {
            self.actual
                .note_settling(group, Settling::found(slots.0, bases.0));
        }
    }

    fn wait(&mut self, ticks: u16) {
        for _ in 0..ticks.div_ceil(SWEEP_TICKS) {
            self.tables.now.set(self.now() + SWEEP_TICKS);
            self.sweep();
        }
    }
}

fn any_wish(random: &mut Random) -> Wish {
    let mut weights = || -> Vec<u16> {
        let count = 1 + random.below(4);
        (0..count).map(|_| random.pick(&[0, 1, 1, 1, 2])).collect()
    };
    let groups = vec![group("a", 21, &weights()), group("b", 31, &weights())];
    let shares = match random.below(4) {
        0 => vec![(1, 1)],
        1 => vec![(0, 3), (1, 1)],
        _ => vec![(0, 1)],
    };
    wish(groups, shares)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 8,
        max_shrink_iters: 0,
        ..ProptestConfig::default()
    })]
    #[test]
    fn a_live_connection_keeps_its_target_though_nothing_remembers_it(seed: u64) {
        let mut random = Random::new(seed);
        let mut story = Story::begin();
        for _ in 0..EVENTS {
            match random.below(40) {
                0 => {
                    let wish = any_wish(&mut random);
                    story.change(wish, &mut |story| {
                        story.packet(1 + u16::try_from(random.below(PORTS.into())).expect("a port"))
                    })?;
                }
                1 => story.restart(),
                2..=9 => story.wait(random.pick(&[SWEEP_TICKS, SWEEP_TICKS, 20, IDLE_TICKS - 5])),
                10 => story.wait(3 * IDLE_TICKS),
                _ => {
                    for _ in 0..4 {
                        story.packet(1 + u16::try_from(random.below(PORTS.into())).expect("a port"))?;
                    }
                }
            }
        }
        // It comes to rest, and then nothing needs to be remembered.
        story.wait(3 * IDLE_TICKS);
        story.wait(3 * IDLE_TICKS);
        prop_assert!(story.actual.settling().values().all(Settling::is_settled));
        prop_assert_eq!(occupied(&story.tables.buckets), 0);
    }
}
