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
    outer::wrapped,
    packet::Sentence,
    world::{
        self, CLIENT, CLIENT_V6, FAR_CLIENT, FAR_CLIENT_V6, GROUPS, LISTENERS, QUIET_CLIENT,
        chosen_by, from_client, on_to, tables,
    },
};

use crate::row::{Row, row};

/// A client's endpoint.
type Client = (&'static str, u16);

const TCP_RULES: u16 = 106;
const V6_RULES: u16 = 107;
const UDP_RULES: u16 = 59;
const DSR_LIMIT: u16 = 60;
const NAT_LIMITS: u16 = 61;
const V6_LIMITS: u16 = 62;
const DSR_RULES: u16 = 63;
const DSR_V6_RULES: u16 = 98;
const TUNNEL_RULES: u16 = 99;
const TUNNEL_V6_RULES: u16 = 100;
const TUNNEL_LIMIT: u16 = 101;
const DSR_V6_LIMIT: u16 = 102;
const NAT_FLOWS: u16 = 103;
const DSR_FLOWS: u16 = 104;
const TUNNEL_V6_FLOWS: u16 = 105;

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
    let out = if mode.is_tunnel() {
        let client = (client.0, client.1, protocol);
        wrapped(&tables(), &out.build(), (client, 0), id, target.1)
    } else {
        out
    };
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

/// Rules where nothing is translated: one source that may begin flows, and one that may not.
fn rules_of_other_modes() -> Vec<Row> {
    let claims = [
        (
            "in dsr a source that a rule denies begins no flow",
            DSR_RULES,
            CLIENT,
            FAR_CLIENT,
        ),
        (
            "in dsr an ipv6 source that no rule allows begins no flow where any is allowed",
            DSR_V6_RULES,
            CLIENT_V6,
            FAR_CLIENT_V6,
        ),
        (
            "a source that no rule allows begins no flow to a target behind a tunnel",
            TUNNEL_RULES,
            CLIENT,
            FAR_CLIENT,
        ),
        (
            "an ipv6 source that a rule denies begins no flow to a target behind a tunnel",
            TUNNEL_V6_RULES,
            CLIENT_V6,
            FAR_CLIENT_V6,
        ),
    ];
    claims
        .into_iter()
        .map(|(claim, listener, allowed, denied)| {
            let row = begins(row(claim), (allowed, 50_000), listener);
            let denied = frame((denied, 50_000), listener, SYN);
            let row = row.stops(&denied, Stop::BlockedTcp);
            goes(row, (allowed, 50_000), listener, ACK, Known).remembers(1)
        })
        .collect()
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

fn of_a_tunnel() -> Row {
    let claim = "flows over the limit go through their tunnel without an entry if so configured";
    let row = (50_000..50_003).fold(limited(claim), |row, port| {
        begins(row, (CLIENT, port), TUNNEL_LIMIT)
    });
    let row = goes(row, (CLIENT, 50_003), TUNNEL_LIMIT, SYN, Unpinned);
    goes(row, (CLIENT, 50_000), TUNNEL_LIMIT, ACK, Known).remembers(3)
}

fn active_flows_unpinned() -> Row {
    let claim = "in dsr flows over the limit of active ones are forwarded without an entry";
    let row = (50_000..50_003).fold(limited(claim), |row, port| {
        begins(row, (CLIENT_V6, port), DSR_V6_LIMIT)
    });
    let row = goes(row, (CLIENT_V6, 50_003), DSR_V6_LIMIT, SYN, Unpinned);
    goes(row, (CLIENT_V6, 50_000), DSR_V6_LIMIT, ACK, Known).remembers(3)
}

/// Two flows are as many as a source may have; one of them ends.
fn active_flows_of_a_source() -> Row {
    let claim =
        "a source that has as many flows as it may begins another when a sweep has seen one end";
    let row = begins(limited(claim), (CLIENT, 50_000), NAT_FLOWS);
    let mut row = begins(row, (CLIENT, 50_001), NAT_FLOWS);
    // A neighbour in the same prefix is the same source.
    let others = [(CLIENT, 50_002), (QUIET_CLIENT, 50_000)];
    for client in others {
        row = row.stops(&frame(client, NAT_FLOWS, SYN), Stop::SourceActiveLimit);
    }
    let row = begins(row, (FAR_CLIENT, 50_000), NAT_FLOWS);
    let row = goes(row, (CLIENT, 50_000), NAT_FLOWS, RST, Known);
    let row = row.change(|tables| world::sweep(tables));
    let row = row.stops(&frame(others[0], NAT_FLOWS, SYN), Stop::SourceActiveLimit);
    // Long enough for the flow that was reset alone.
    let row = row.silence(20).change(|tables| world::sweep(tables));
    let row = begins(row, others[0], NAT_FLOWS);
    row.stops(&frame(others[1], NAT_FLOWS, SYN), Stop::SourceActiveLimit)
        .remembers(3)
}

fn active_flows_of_a_source_in(
    claim: &'static str,
    clients: [&'static str; 2],
    listener: u16,
) -> Row {
    let [one, other] = clients;
    let row = begins(limited(claim), (one, 50_000), listener);
    let row = begins(row, (one, 50_001), listener);
    let row = if listener == DSR_FLOWS {
        goes(row, (one, 50_002), listener, SYN, Unpinned)
    } else {
        let frame = frame((one, 50_002), listener, SYN);
        row.stops(&frame, Stop::SourceActiveLimit)
    };
    let row = begins(row, (other, 50_000), listener);
    goes(row, (one, 50_001), listener, ACK, Known).remembers(3)
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
    rows.extend(rules_of_other_modes());
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
            "an established flow in dsr lives on when its source is denied",
            (CLIENT, 50_000),
            DSR_RULES,
        ),
        established(
            "an established flow in a tunnel lives on when its source is denied",
            (CLIENT_V6, 50_000),
            TUNNEL_V6_RULES,
        ),
        established(
            "an established udp flow lives on when its source is denied",
            (QUIET_CLIENT, 50_000),
            UDP_RULES,
        ),
        a_flow_that_is_over(),
        new_flows_unpinned(),
        a_new_tick(),
        of_a_tunnel(),
        active_flows_unpinned(),
        active_flows_of_a_source(),
        active_flows_of_a_source_in(
            "in dsr a source's flows over its limit are forwarded without an entry",
            [CLIENT, QUIET_CLIENT],
            DSR_FLOWS,
        ),
        active_flows_of_a_source_in(
            "a flow to a target behind a tunnel that is over its source's limit is dropped as it came",
            [CLIENT_V6, FAR_CLIENT_V6],
            TUNNEL_V6_FLOWS,
        ),
        of_one_source(),
        of_one_ipv6_source(),
        active_flows(),
        what_is_stopped_otherwise(),
    ]);
    rows
}
