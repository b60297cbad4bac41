//! What is found in a table of flows that a test has made, and what is left of it.

use std::net::{IpAddr, Ipv4Addr};

use nlb_common::{
    flow::{Choice, Client},
    listener::{ListenerId, ListenerKey, ListenerPolicy},
    next_hop::NextHopId,
    target::{Mode, TargetControl, TargetId, TargetIdentity},
    tick::Clock,
    wire::protocol,
};
use proptest::{collection::vec, prelude::*};

use super::{
    filter::{Filter, FilterError, Selection},
    follow::{Change, Seen},
    scan::{Order, kill, scan},
    *,
};
use crate::names::Names;

/// After how many ticks an established flow of the made listeners is forgotten.
const IDLE_TICKS: u16 = 300;
const NOW: Tick = Tick(1000);
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ESTABLISHED: FlowState = FlowState(3);

/// Records, and room for flows.
struct Made {
    flows: Vec<Bucket>,
    listeners: Vec<Listener>,
    targets: Vec<Target>,
}

fn records<R: Default>(count: usize) -> Vec<R> {
    std::iter::repeat_with(R::default).take(count).collect()
}

impl Made {
    /// Listeners 1 (TCP) and 2 (UDP) at port 80 of the VIP, and targets 1 to 3.
    fn new(buckets: usize) -> Self {
        let made = Self {
            flows: records(buckets),
            listeners: records(4),
            targets: records(5),
        };
        for (id, protocol) in [(1, protocol::TCP), (2, protocol::UDP)] {
            let key = ListenerKey::new(IpAddr::from(VIP).into(), protocol, U16::new(80));
            let policy = ListenerPolicy {
                idle_ticks: IDLE_TICKS,
                ..ListenerPolicy::default()
            };
            made.listeners[id].write(&key, policy);
        }
        for (id, record) in (0u8..4).zip(&made.targets).skip(1) {
            let identity = TargetIdentity {
                address: IpAddr::from([10, 0, 0, id]).into(),
                port: U16::new(8080),
                group: 1,
                group_fingerprint: 0,
            };
            let control = TargetControl {
                mode: Mode::NAT,
                takes_new_flows: true,
                next_hop: NextHopId::NONE,
                resets_flows: false,
            };
            record.write(&identity, control);
        }
        made
    }

    fn table(&self) -> Table<'_> {
        Table {
            flows: &self.flows,
            translations: &[],
            pool: None,
            listeners: &self.listeners,
            targets: &self.targets,
            now: NOW,
        }
    }

    /// Puts a flow of this client into the entry with this number.
    fn put(
        &self,
        number: usize,
        client: ([u8; 4], u16),
        (listener, target): (u16, u32),
        silent: u16,
    ) {
        let protocol = if listener == 1 {
            protocol::TCP
        } else {
            protocol::UDP
        };
        let client = Client {
            address: IpAddr::from(client.0).into(),
            port: U16::new(client.1),
            protocol,
        };
        let choice = Choice {
            target: TargetId(target),
            listener: ListenerId(listener),
            next_hop: NextHopId::NONE,
        };
        let entry = &self.flows[number / 4].entries[number % 4];
        entry.fill(&client, choice, ESTABLISHED, Tick(NOW.0 - silent));
    }

    fn found(&self, filter: &Filter) -> Vec<Flow> {
        scan(
            &self.table(),
            &self.selection(filter).unwrap(),
            None,
            usize::MAX,
        )
        .flows
    }

    fn selection(&self, filter: &Filter) -> Result<Selection, FilterError> {
        filter.resolve(&self.table(), &Names::default(), clock())
    }
}

/// A clock whose ticks are a little longer than a second.
fn clock() -> Clock {
    Clock::of_jiffy(4_000_000)
}

fn with(set: impl FnOnce(&mut Filter)) -> Filter {
    let mut filter = Filter::default();
    set(&mut filter);
    filter
}

#[test]
fn each_filter_finds_the_flows_that_it_names_and_no_others() {
    let made = Made::new(4);
    made.put(0, ([198, 51, 100, 7], 1), (1, 1), 0);
    made.put(5, ([198, 51, 100, 8], 2), (1, 2), 100);
    made.put(10, ([203, 0, 113, 9], 3), (2, 3), 200);
    // Its time has run out: it is as good as forgotten.
    made.put(15, ([203, 0, 113, 9], 4), (1, 1), IDLE_TICKS + 1);
    let ports = |filter: &Filter| {
        let mut ports: Vec<u16> = made
            .found(filter)
            .iter()
            .map(|flow| flow.client.port())
            .collect();
        ports.sort_unstable();
        ports
    };
    assert_eq!(ports(&Filter::default()), [1, 2, 3]);
    assert_eq!(
        ports(&with(|it| it.vip = Some("192.0.2.1".into()))),
        [1, 2, 3]
    );
    assert_eq!(
        ports(&with(|it| it.vip = Some("192.0.2.1:81".into()))),
        [0; 0]
    );
    assert_eq!(ports(&with(|it| it.target = Some("10.0.0.2".into()))), [2]);
    assert_eq!(
        ports(&with(|it| it.target = Some("10.0.0.2:80".into()))),
        [0; 0]
    );
    assert_eq!(
        ports(&with(|it| it.client = Some("198.51.100.0/24".into()))),
        [1, 2]
    );
    assert_eq!(
        ports(&with(|it| it.client = Some("0.0.0.0/0".into()))),
        [1, 2, 3]
    );
    assert_eq!(
        ports(&with(|it| it.client = Some("203.0.113.9".into()))),
        [3]
    );
    assert_eq!(
        ports(&with(|it| it.client = Some("::/0".into()))),
        [1, 2, 3]
    );
    assert_eq!(ports(&with(|it| it.protocol = Some("udp".into()))), [3]);
    assert_eq!(ports(&with(|it| it.state = Some("new".into()))), [0; 0]);
    assert_eq!(
        ports(&with(|it| it.state = Some("established".into()))),
        [1, 2, 3]
    );
    assert_eq!(ports(&with(|it| it.silent_at_least = Some(60))), [2, 3]);
    assert_eq!(ports(&with(|it| it.silent_at_most = Some(60))), [1]);
}

#[test]
fn what_a_filter_cannot_mean_is_refused_by_field_and_value() {
    let made = Made::new(1);
    for (filter, words) in [
        (with(|it| it.vip = Some("nowhere".into())), "vip: `nowhere`"),
        (
            with(|it| it.target = Some("10.0.0.1:x".into())),
            "target: `10.0.0.1:x`",
        ),
        (with(|it| it.client = Some("10.0.0.1/8".into())), "client: "),
        (
            with(|it| it.protocol = Some("sctp".into())),
            "protocol: `sctp`",
        ),
        (
            with(|it| it.state = Some("open".into())),
            "new, resumed, answered",
        ),
        (with(|it| it.listener = Some("web".into())), "--vip"),
        (with(|it| it.target_group = Some("web".into())), "--target"),
    ] {
        let error = made.selection(&filter).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(Filter::default().or_all(), Err(FilterError::All));
    assert_eq!(with(|it| it.all = true).or_all(), Ok(()));
}

#[test]
fn killing_empties_the_entries_that_are_meant_and_leaves_all_others() {
    let made = Made::new(4);
    for number in 0..16u16 {
        let target = 1 + u32::from(number % 2);
        made.put(
            number.into(),
            ([198, 51, 100, 7], number + 1),
            (1, target),
            0,
        );
    }
    let second = made
        .selection(&with(|it| it.target = Some("10.0.0.2".into())))
        .unwrap();
    assert_eq!(kill(&made.table(), &second), 8);
    let left = made.found(&Filter::default());
    assert_eq!(left.len(), 8);
    assert!(left.iter().all(|flow| flow.target == 1));
    assert_eq!(kill(&made.table(), &second), 0);
}

#[test]
fn what_became_of_flows_is_told_once() {
    let made = Made::new(1);
    let mut seen = Seen::default();
    made.put(0, ([198, 51, 100, 7], 1), (1, 1), 0);
    let mut look = || seen.look(&made.found(&Filter::default()));
    let signs = |changes: Vec<(Change, Flow)>| -> Vec<(Change, u16)> {
        changes
            .iter()
            .map(|(change, flow)| (*change, flow.client.port()))
            .collect()
    };
    assert_eq!(signs(look()), [(Change::Began, 1)]);
    assert_eq!(signs(look()), []);
    made.put(0, ([198, 51, 100, 7], 1), (1, 2), 0);
    made.put(1, ([198, 51, 100, 7], 2), (1, 2), 0);
    assert_eq!(signs(look()), [(Change::Changed, 1), (Change::Began, 2)]);
    made.flows[0].entries[0].choice.store(Choice::EMPTY);
    assert_eq!(signs(look()), [(Change::Ended, 1)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_first_of_an_order_are_those_that_sorting_all_would_give(
        silences in vec(0..IDLE_TICKS, 1..64),
        most in 0usize..70,
    ) {
        let made = Made::new(16);
        for (number, silent) in (0u16..).zip(&silences) {
            made.put(number.into(), ([198, 51, 100, 7], number + 1), (1, 1), *silent);
        }
        for order in [Order::Silent, Order::Recent] {
            let found = scan(&made.table(), &Selection::default(), Some(order), most);
            let mut expected = silences.clone();
            expected.sort_unstable();
            if order == Order::Silent {
                expected.reverse();
            }
            expected.truncate(most);
            let given: Vec<u16> = found.flows.iter().map(|flow| flow.silent_ticks).collect();
            prop_assert_eq!(given, expected);
            prop_assert_eq!(found.counts.flows, silences.len() as u64);
            prop_assert_eq!(found.counts.by_target.get(&1), Some(&(silences.len() as u64)));
        }
    }
}
