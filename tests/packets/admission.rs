//! Who may begin flows, and how many: source rules and limits of listeners.

use nlb_common::{
    admission::{AdmissionPolicy, Window},
    listener::ListenerId,
    stop::Stop,
    target::Mode,
    tick::Tick,
    wire::{
        protocol::{TCP, UDP},
        tcp::{ACK, RST, SYN},
    },
};
use nlb_ebpf::tables::PassageKind::{self, Known, New, Unpinned};
use nlb_tests::{
    model::Segment,
    packet::Sentence,
    world::{
        self, CLIENT, CLIENT_V6, FAR_CLIENT, FAR_CLIENT_V6, GROUPS, LISTENERS, QUIET_CLIENT,
        chosen_by, from_client, on_to, tables,
    },
};

use crate::row::{Row, row};

/// A client's endpoint.
type Client = (&'static str, u16);

const TCP_RULES: u16 = 57;
const V6_RULES: u16 = 58;
const UDP_RULES: u16 = 59;
const DSR_LIMIT: u16 = 60;
const NAT_LIMITS: u16 = 61;
const V6_LIMITS: u16 = 62;

fn segment(client: Client, listener: u16, flags: u8) -> Segment {
    let of_id = LISTENERS.iter().find(|row| row.0 == listener);
    let &(_, vip, protocol, port, _) = of_id.expect("a listener of the world");
    Segment {
        source: client,
        destination: (vip, port),
        protocol,
        flags: if protocol == TCP { flags } else { 0 },
        ttl: 64,
        payload_bytes: 3,
        is_strict: false,
    }
}

fn frame(client: Client, listener: u16, flags: u8) -> Sentence {
    segment(client, listener, flags).frame(from_client())
}

/// The client's segment goes to the target that the hash says.
fn goes(row: Row, client: Client, listener: u16, flags: u8, kind: PassageKind) -> Row {
    let segment = segment(client, listener, flags);
    let (vip, protocol) = (segment.destination, segment.protocol);
    let id = chosen_by(&tables(), client, vip, protocol, world::SEQUENCE).expect("a target");
    let mut targets = GROUPS
        .iter()
        .flat_map(|group| group.targets.iter().map(move |target| (group.mode, target)));
    let (mode, target) = targets
        .find(|(_, target)| target.0 == id)
        .expect("a target of the world");
    let out = if mode == Mode::NAT {
        Segment {
            destination: (target.1, target.2),
            ttl: 63,
            ..segment
        }
    } else {
        segment
    };
    let (sent, out) = (segment.frame(from_client()), out.frame(on_to(target.1)));
    row.sends(&sent, &out, (listener, id), kind)
}

fn begins(row: Row, client: Client, listener: u16) -> Row {
    goes(row, client, listener, SYN, New)
}

fn rule_rows() -> Vec<Row> {
    let stops = |row: Row, client: Client, listener, stop| {
        row.stops(&frame(client, listener, SYN), stop).remembers(0)
    };
    let (tcp, udp) = (Stop::BlockedTcp, Stop::BlockedUdp);
    vec![
        begins(
            row("a source that a rule allows begins flows"),
            (CLIENT, 50_000),
            TCP_RULES,
        ),
        stops(
            row("a source that no rule allows begins no tcp flow where any is allowed"),
            (FAR_CLIENT, 50_000),
            TCP_RULES,
            tcp,
        ),
        stops(
            row("a longer prefix that denies decides over a shorter one that allows"),
            (QUIET_CLIENT, 50_000),
            TCP_RULES,
            tcp,
        ),
        begins(
            row("an ipv6 source that no rule denies begins flows"),
            (CLIENT_V6, 50_000),
            V6_RULES,
        ),
        stops(
            row("an ipv6 source in a prefix that is denied begins none"),
            (FAR_CLIENT_V6, 50_000),
            V6_RULES,
            tcp,
        ),
        stops(
            row("a udp flow that is denied is counted as such"),
            (CLIENT, 50_000),
            UDP_RULES,
            udp,
        ),
        begins(
            row("a longer prefix that allows decides over a shorter one that denies"),
            (QUIET_CLIENT, 50_000),
            UDP_RULES,
        ),
        begins(
            row("a listener's rules say nothing about another listener"),
            (FAR_CLIENT, 50_000),
            1,
        ),
        stops(
            row("a listener that asks for rules and finds none for a source blocks it"),
            (CLIENT, 50_000),
            TCP_RULES,
            tcp,
        )
        .first(|tables| drop(tables.rules.insert(ListenerId(TCP_RULES), Vec::new()))),
        begins(
            row("a listener whose rules are taken away takes everybody"),
            (FAR_CLIENT, 50_000),
            TCP_RULES,
        )
        .first(|tables| tables.set_admission(ListenerId(TCP_RULES), &AdmissionPolicy::default())),
    ]
}

fn deny_all(row: Row, listener: u16) -> Row {
    row.change(move |tables| {
        let none = world::rules(&[("::", 0, false)]);
        tables.rules.insert(ListenerId(listener), none);
    })
}

/// Established flows, and what asks again.
fn established(claim: &'static str, client: Client, listener: u16) -> Row {
    let row = begins(row(claim), client, listener);
    let row = deny_all(row, listener);
    let row = goes(row, client, listener, SYN, Known);
    let row = goes(row, client, listener, ACK, Known);
    let protocol = segment(client, listener, 0).protocol;
    let stop = if protocol == UDP {
        Stop::BlockedUdp
    } else {
        Stop::BlockedTcp
    };
    row.stops(&frame((client.0, client.1 + 1), listener, SYN), stop)
        .remembers(1)
}

fn a_flow_that_is_over() -> Row {
    let client = (CLIENT, 50_001);
    let row = begins(
        row("a flow that is over has to ask the rules before it begins anew"),
        client,
        TCP_RULES,
    );
    let row = goes(row, client, TCP_RULES, RST, Known);
    deny_all(row, TCP_RULES).stops(&frame(client, TCP_RULES, SYN), Stop::BlockedTcp)
}

/// A row whose clock of limits stands still, with nothing counted.
fn limited(claim: &'static str) -> Row {
    row(claim).change(|tables| {
        let clients = [CLIENT, FAR_CLIENT, CLIENT_V6, FAR_CLIENT_V6];
        world::set_windows(tables, &clients, || 0);
    })
}

fn new_flows_unpinned() -> Row {
    let claim = "in dsr flows over the limit are forwarded without an entry if so configured";
    let row = (50_000..50_003).fold(limited(claim), |row, port| {
        begins(row, (CLIENT, port), DSR_LIMIT)
    });
    let row = goes(row, (CLIENT, 50_003), DSR_LIMIT, SYN, Unpinned);
    let row = goes(row, (FAR_CLIENT, 50_003), DSR_LIMIT, SYN, Unpinned);
    goes(row, (CLIENT, 50_000), DSR_LIMIT, ACK, Known).remembers(3)
}

fn a_new_tick() -> Row {
    let full = |tick: Tick| Window { tick, flows: 3 }.to_word();
    let row = limited("a limit of new flows holds for a tick").change(move |tables| {
        let tick = Tick(tables.now.get().wrapping_sub(20));
        tables.admissions[usize::from(DSR_LIMIT)]
            .window
            .store(full(tick));
    });
    begins(row, (CLIENT, 50_000), DSR_LIMIT)
}

fn of_one_source() -> Row {
    let claim = "a source over its own limit is dropped and takes nothing of the listener's";
    let row = begins(limited(claim), (CLIENT, 50_000), NAT_LIMITS);
    let mut row = begins(row, (CLIENT, 50_001), NAT_LIMITS);
    for port in 50_002..50_005 {
        let stop = Stop::SourceFlowLimit;
        row = row.stops(&frame((CLIENT, port), NAT_LIMITS, SYN), stop);
    }
    // A neighbour in the same prefix is the same source.
    let neighbour = frame((QUIET_CLIENT, 50_000), NAT_LIMITS, SYN);
    row = row.stops(&neighbour, Stop::SourceFlowLimit);
    row = begins(row, (FAR_CLIENT, 50_000), NAT_LIMITS);
    row = begins(row, (FAR_CLIENT, 50_001), NAT_LIMITS);
    for client in [CLIENT, FAR_CLIENT] {
        let frame = frame((client, 50_009), NAT_LIMITS, SYN);
        row = row.stops(&frame, Stop::NewFlowLimit);
    }
    goes(row, (CLIENT, 50_000), NAT_LIMITS, ACK, Known).remembers(4)
}

fn of_one_ipv6_source() -> Row {
    let claim = "an ipv6 source is a prefix too";
    let row = (50_000..50_003).fold(limited(claim), |row, port| {
        begins(row, (CLIENT_V6, port), V6_LIMITS)
    });
    let row = row.stops(
        &frame((CLIENT_V6, 50_003), V6_LIMITS, SYN),
        Stop::SourceFlowLimit,
    );
    begins(row, (FAR_CLIENT_V6, 50_000), V6_LIMITS)
}

fn active_flows() -> Row {
    let record = |tables: &nlb_ebpf::memory::MemoryTables, found: u64| {
        let record = &tables.admissions[usize::from(V6_LIMITS)];
        record.settle(found, record.active.load());
    };
    let row = limited("no more flows are remembered than the limit until a sweep has found room")
        .change(move |tables| record(tables, 3));
    let row = begins(row, (CLIENT_V6, 50_000), V6_LIMITS);
    let row = begins(row, (CLIENT_V6, 50_001), V6_LIMITS);
    let row = row.stops(
        &frame((CLIENT_V6, 50_002), V6_LIMITS, SYN),
        Stop::ActiveFlowLimit,
    );
    let row = goes(row, (CLIENT_V6, 50_000), V6_LIMITS, ACK, Known);
    let row = row.change(move |tables| record(tables, 4));
    begins(row, (CLIENT_V6, 50_003), V6_LIMITS).remembers(3)
}

fn what_is_stopped_otherwise() -> Row {
    let claim = "a packet that begins nothing takes nothing of a limit";
    let mut row = limited(claim);
    for port in 50_000..50_004 {
        row = goes(row, (CLIENT, port), DSR_LIMIT, RST, Unpinned);
    }
    (50_000..50_003).fold(row, |row, port| begins(row, (CLIENT, port), DSR_LIMIT))
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = rule_rows();
    rows.extend([
        established(
            "an established flow lives on when its source is denied",
            (CLIENT, 50_000),
            TCP_RULES,
        ),
        established(
            "an established ipv6 flow lives on when its source is denied",
            (CLIENT_V6, 50_000),
            V6_RULES,
        ),
        established(
            "an established udp flow lives on when its source is denied",
            (QUIET_CLIENT, 50_000),
            UDP_RULES,
        ),
        a_flow_that_is_over(),
        new_flows_unpinned(),
        a_new_tick(),
        of_one_source(),
        of_one_ipv6_source(),
        active_flows(),
        what_is_stopped_otherwise(),
    ]);
    rows
}
