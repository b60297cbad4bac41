//! Listeners that pin flows on change: what goes by the ring alone, and what is remembered while a
//! slot has changed.

use nlb_common::{
    listener::{ListenerPolicy, Stranded},
    next_hop::NextHopId,
    ring::Slot,
    stop::Stop,
    target::TargetControl,
    wire::{
        protocol::{TCP, UDP},
        tcp::{ACK, RST},
    },
};
use nlb_ebpf::{
    memory::MemoryTables,
    tables::PassageKind::{self, Known, New},
};
use nlb_tests::{
    outer::wrapped,
    packet::Sentence,
    world::{
        CLIENT, CLIENT_V6, DSR_VIP, DSR_VIP_V6, TCP_IDLE_TICKS, TUNNEL_VIP, Turn, from_client,
        on_to, port_on, ring, settling_ring, tables,
    },
};

use crate::row::{Row, row};

/// A client's flow to a listener of a settling ring.
#[derive(Clone, Copy)]
struct Flow {
    client: &'static str,
    vip: &'static str,
    protocol: u8,
    port: u16,
    listener: u16,
    /// Addresses and ids of the ring's targets.
    targets: [(&'static str, u32); 2],
}

impl Flow {
    fn new(turn: Turn, is_v6: bool, protocol: u8) -> Self {
        let (client, vip, listener, targets) = if is_v6 {
            let targets = [("fd00::21", 92), ("fd00::22", 93)];
            (CLIENT_V6, DSR_VIP_V6, 112, targets)
        } else {
            let targets = [("10.0.0.21", 90), ("10.0.0.22", 91)];
            (CLIENT, DSR_VIP, 110, targets)
        };
        Self {
            client,
            vip,
            protocol,
            port: port_on(&tables(), client, (vip, 9200), protocol, turn, 0),
            listener: if protocol == TCP {
                listener
            } else {
                listener + 1
            },
            targets,
        }
    }

    fn packet(self, frame: Sentence, rest: impl Fn(Sentence) -> Sentence) -> Sentence {
        let parse = |text: &str| text.parse().expect("an address of the world");
        let frame = frame.ip(parse(self.client), parse(self.vip));
        rest(if self.protocol == TCP {
            frame.tcp(self.port, 9200)
        } else {
            frame.udp(self.port, 9200)
        })
    }

    fn sends(
        self,
        row: Row,
        target: usize,
        kind: PassageKind,
        rest: impl Fn(Sentence) -> Sentence,
    ) -> Row {
        let (address, id) = self.targets[target];
        row.sends(
            &self.packet(from_client(), &rest),
            &self.packet(on_to(address), &rest),
            (self.listener, id),
            kind,
        )
    }
}

fn data(segment: Sentence) -> Sentence {
    segment.flags(ACK).payload(b"more")
}

fn control(tables: &MemoryTables, id: u32, change: impl Fn(TargetControl) -> TargetControl) {
    let target = &tables.targets[id as usize];
    target.set_control(change(target.control().expect("a target of the world")));
}

fn policy(tables: &MemoryTables, id: u16, change: impl Fn(ListenerPolicy) -> ListenerPolicy) {
    let listener = &tables.listeners[usize::from(id)];
    listener.set_policy(change(listener.policy()));
}

/// Rows that hold in both IP versions.
fn of_version(is_v6: bool, claims: [&'static str; 6]) -> Vec<Row> {
    let [settled, open_syn, open_data, closed, datagram, changed] = claims;
    let tcp = |turn| Flow::new(turn, is_v6, TCP);
    let udp = |turn| Flow::new(turn, is_v6, UDP);
    let mut rows = Vec::new();

    let flow = tcp(Turn::Settled);
    let row_of = flow.sends(row(settled), 0, New, Sentence::syn);
    let row_of = flow.sends(row_of, 0, Known, data);
    rows.push(flow.sends(row_of, 0, Known, |s| s.flags(RST)).remembers(0));

    let flow = tcp(Turn::Open);
    let row_of = flow
        .sends(row(open_syn), 1, New, Sentence::syn)
        .remembers(1);
    rows.push(flow.sends(row_of, 1, Known, data).remembers(1));

    let row_of = flow.sends(row(open_data), 0, New, data).remembers(1);
    rows.push(flow.sends(row_of, 0, Known, data).remembers(1));

    let flow = tcp(Turn::Closed);
    let row_of = flow.sends(row(closed), 1, New, data).remembers(1);
    rows.push(flow.sends(row_of, 1, Known, data));

    let flow = udp(Turn::Settled);
    let row_of = flow.sends(row(datagram), 0, Known, |s| s.payload(b"query"));
    let row_of = row_of.remembers(0);
    let flow = udp(Turn::Open);
    let row_of = flow.sends(row_of, 0, New, |s| s.payload(b"query"));
    rows.push(row_of.remembers(1));

    // It begins by the ring alone; the slot changes, and changes again.
    let flow = tcp(Turn::Settled);
    let [(_, first), (_, second)] = flow.targets;
    let group = if is_v6 { 91 } else { 90 };
    let row_of = flow.sends(row(changed), 0, New, Sentence::syn).remembers(0);
    let row_of = row_of.change(move |tables| {
        let (mut slots, bases) = settling_ring(&[first, second]);
        slots.fill(second | Slot::CHANGED);
        tables.ring_bases.insert(group, bases);
        tables.set_ring(group, &slots);
    });
    let row_of = flow.sends(row_of, 0, New, data).remembers(1);
    let row_of = row_of.change(move |tables| {
        // The time is over, and this flow is the exception that keeps the slot from settling.
        tables.ring_bases.insert(group, ring(&[second]));
    });
    rows.push(flow.sends(row_of, 0, Known, data).remembers(1));
    rows
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = of_version(
        false,
        [
            "a flow of a settled slot goes by the ring and takes no entry",
            "a connection that begins while its slot is open is remembered with the new target",
            "a segment of an open slot without an entry goes to the target of before and is remembered",
            "a segment of a closed slot without an entry goes to the slot's target and is remembered",
            "a datagram of a settled slot takes no entry, and one of an open slot goes where it went",
            "a flow that began without an entry keeps its target when its slot changes",
        ],
    );
    rows.extend(of_version(
        true,
        [
            "over ipv6 a flow of a settled slot goes by the ring and takes no entry",
            "over ipv6 a connection that begins while its slot is open is remembered with the new target",
            "over ipv6 a segment of an open slot goes to the target of before and is remembered",
            "over ipv6 a segment of a closed slot goes to the slot's target and is remembered",
            "over ipv6 a datagram of a settled slot takes no entry, and one of an open slot does",
            "over ipv6 a flow that began without an entry keeps its target when its slot changes",
        ],
    ));
    rows.extend(ends());
    rows.extend(details());
    rows
}

/// What ends flows, or moves them for a reason.
fn ends() -> Vec<Row> {
    let open = Flow::new(Turn::Open, false, TCP);
    let datagrams = Flow::new(Turn::Open, false, UDP);
    let terminated = |tables: &mut MemoryTables| {
        control(tables, 90, |control| TargetControl {
            takes_new_flows: false,
            resets_flows: true,
            ..control
        });
    };
    let draining = |tables: &mut MemoryTables| {
        control(tables, 90, |control| TargetControl {
            takes_new_flows: false,
            ..control
        });
    };
    let late = open.packet(from_client(), |s| s.flags(ACK).sequence(7, 9));
    let reset = on_to(CLIENT)
        .ipv4(DSR_VIP, CLIENT)
        .tcp(9200, open.port)
        .made_by_nlb()
        .flags(RST)
        .sequence(9, 0);
    let row_of =
        row("a flow without an entry ends with the connections of its target").change(terminated);
    let ended = row_of.answers(&late, &reset, Stop::Terminated);
    let ended = open.sends(ended, 1, New, Sentence::syn);

    let row_of = row("a draining target keeps the segments of an open slot").change(draining);
    let kept = open.sends(row_of, 0, New, data);

    let row_of =
        row("datagrams of an open slot leave a target that takes no new flows").change(draining);
    let moved = datagrams.sends(row_of, 1, New, |s| s.payload(b"query"));

    let row_of =
        row("a flow of an open slot that was silent too long goes to the target of before");
    let row_of = open.sends(row_of, 0, New, data).silence(TCP_IDLE_TICKS + 2);
    let silent = open.sends(row_of, 0, New, data).remembers(1);

    let row_of = row("a connection that is remembered late is not taken for a half-open one");
    let row_of = open
        .sends(row_of, 0, New, data)
        .silence(TCP_IDLE_TICKS - 10);
    let late = open.sends(row_of, 0, Known, data).remembers(1);

    // What the listener says of strays means nothing: it cannot tell them.
    let row_of = row("a segment of a settled slot is never a stray").change(|tables| {
        policy(tables, 110, |policy| ListenerPolicy {
            stray: Stranded::RESET,
            expired: Stranded::RESET,
            ..policy
        });
    });
    let settled = Flow::new(Turn::Settled, false, TCP);
    let row_of = settled.sends(row_of, 0, Known, data);
    let strays = open.sends(row_of, 0, New, data);
    vec![ended, kept, moved, silent, late, strays]
}

fn details() -> Vec<Row> {
    let settled = Flow::new(Turn::Settled, false, TCP);
    let clamped =
        row("the segment size of a connection without an entry is lowered").change(|tables| {
            policy(tables, 110, |policy| ListenerPolicy {
                mss_clamp_bytes: 1200,
                ..policy
            });
        });
    let size = |bytes: u16| {
        let [high, low] = bytes.to_be_bytes();
        move |s: Sentence| s.syn().tcp_options(&[2, 4, high, low])
    };
    let clamped = clamped
        .sends(
            &settled.packet(from_client(), size(1460)),
            &settled.packet(on_to("10.0.0.21"), size(1200)),
            (110, 90),
            New,
        )
        .remembers(0);

    let without = row("without a hint packets take the longer way and no entry all the same");
    let without = without.change(|tables| tables.hints.clear());
    let without = settled.sends(without, 0, New, Sentence::syn);
    let without = settled.sends(without, 0, Known, data).remembers(0);

    let unknown =
        row("a target whose next hop is not known is asked for each time").change(|tables| {
            control(tables, 90, |control| TargetControl {
                next_hop: NextHopId::NONE,
                ..control
            });
        });
    let unknown = settled.sends(unknown, 0, Known, data).remembers(0);

    let port = port_on(&tables(), CLIENT, (TUNNEL_VIP, 9201), TCP, Turn::Settled, 0);
    let segment = |s: Sentence| data(s.ipv4(CLIENT, TUNNEL_VIP).tcp(port, 9201));
    let tunnel = row("a packet by the ring alone travels in its target's tunnel")
        .sends(
            &segment(from_client()),
            &wrapped(
                &tables(),
                &segment(from_client()).build(),
                ((CLIENT, port, TCP), 0),
                94,
                "10.0.0.21",
            ),
            (114, 94),
            Known,
        )
        .remembers(0);
    vec![clamped, without, unknown, tunnel]
}
