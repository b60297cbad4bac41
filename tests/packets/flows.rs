//! The life of flows: what is remembered, for how long, and at whose cost.

use nlb_common::{
    flow::{Choice, Client, FlowState},
    listener::{ListenerId, ListenerKey},
    next_hop::NextHopId,
    stop::Stop,
    target::{TargetControl, TargetId},
    tick::Tick,
    wire::protocol::TCP,
};
use nlb_ebpf::{
    memory::MemoryTables,
    tables::PassageKind::{self, Known, New, Return, Unpinned},
};
use nlb_tests::{
    packet::Sentence,
    world::{
        CLIENT, DSR_VIP, TCP_IDLE_TICKS, VIP, address, from_client, from_target, on_to, port_to,
        tables,
    },
};
use zerocopy::big_endian::U16;

use crate::row::{Row, row};

const ESTABLISHED: FlowState = FlowState::ANSWERED.with(FlowState::ESTABLISHED);
/// More than the 30 s that a target has for its answer.
/// A little more than the limit: what userspace takes for the present tick is within one of the
/// kernel's.
const TOO_LONG_TO_OPEN: u16 = Tick::at_least_seconds(30) + 2;

/// A connection to the web listener whose client port leads to 10.0.0.11.
#[derive(Clone, Copy)]
struct Web(u16);

/// To which target.
#[derive(Clone, Copy)]
enum At {
    Eleven,
    Thirteen,
}

impl At {
    const fn address(self) -> &'static str {
        match self {
            Self::Eleven => "10.0.0.11",
            Self::Thirteen => "10.0.0.13",
        }
    }

    const fn id(self) -> u32 {
        match self {
            Self::Eleven => 11,
            Self::Thirteen => 13,
        }
    }
}

impl Web {
    fn new() -> Self {
        Self(port_to(&tables(), CLIENT, (VIP, 80), TCP, 11, 0))
    }

    fn request(self) -> Sentence {
        from_client().ipv4(CLIENT, VIP).tcp(self.0, 80)
    }

    fn goes(self, row: Row, flags: u8, to: At, kind: PassageKind) -> Row {
        let out = on_to(to.address())
            .ipv4(CLIENT, to.address())
            .ttl(63)
            .tcp(self.0, 8080);
        row.sends(
            &self.request().flags(flags),
            &out.flags(flags),
            (1, to.id()),
            kind,
        )
    }

    fn comes(self, row: Row, flags: u8, from: At) -> Row {
        let answer = from_target(from.address())
            .ipv4(from.address(), CLIENT)
            .tcp(8080, self.0);
        let out = on_to(CLIENT).ipv4(VIP, CLIENT).ttl(63).tcp(80, self.0);
        row.sends(
            &answer.flags(flags),
            &out.flags(flags),
            (1, from.id()),
            Return,
        )
    }

    /// A connection that client and target have opened.
    fn opens(self, claim: &'static str) -> Row {
        let row = self.goes(row(claim), 2, At::Eleven, New);
        let row = self.comes(row, 0x12, At::Eleven);
        self.goes(row, 0x10, At::Eleven, Known)
    }
}

/// Fills the whole table with flows in this state.
fn fill(tables: &MemoryTables, state: FlowState) {
    for (port, entry) in (1..).zip(tables.buckets.iter().flat_map(|bucket| &bucket.entries)) {
        let client = Client {
            address: address("203.0.113.200"),
            port: U16::new(port),
            protocol: TCP,
        };
        let choice = Choice {
            target: TargetId(12),
            listener: ListenerId(1),
            next_hop: NextHopId::NONE,
        };
        entry.fill(&client, choice, state, Tick(tables.now.get()));
    }
}

fn finished(claim: &'static str, end: impl Fn(Web, Row) -> Row) -> Row {
    let web = Web::new();
    let row = end(web, web.opens(claim)).ring(1, &[13]);
    // The last acknowledgements still go where the connection was.
    let row = web.goes(row, 0x10, At::Eleven, Known);
    let row = web.goes(row, 2, At::Thirteen, New).remembers(1);
    web.goes(row, 0x10, At::Thirteen, Known)
}

fn life() -> Vec<Row> {
    let web = Web::new();
    let with_ring = |row: Row| row.ring(1, &[13]);
    let stays = with_ring(web.opens("a flow stays on its target when the ring changes"));
    let young = with_ring(web.goes(
        row("a flow that only began stays on its target when the ring changes"),
        2,
        At::Eleven,
        New,
    ));
    let begins = with_ring(row(
        "a flow that begins after the ring changed goes by the new ring",
    ));
    let again = with_ring(web.opens("a syn within a living connection stays on its target"));
    let empty = web
        .opens("a flow outlives its ring's last slot")
        .ring(1, &[]);
    let deleted = web
        .opens("a flow outlives its listener's place in the index")
        .change(|tables| {
            let key = ListenerKey::new(address(VIP), TCP, U16::new(80));
            tables.listener_index.remove(&key);
        });
    vec![
        web.goes(stays, 0x10, At::Eleven, Known),
        web.goes(young, 0x10, At::Eleven, Known),
        web.goes(begins, 2, At::Thirteen, New),
        web.goes(again, 2, At::Eleven, Known),
        web.goes(empty, 0x18, At::Eleven, Known),
        web.goes(deleted, 0x18, At::Eleven, Known),
        finished("a syn after the client's rst chooses anew", |web, row| {
            web.goes(row, 0x14, At::Eleven, Known)
        }),
        finished("a syn after the target's rst chooses anew", |web, row| {
            web.comes(row, 0x14, At::Eleven)
        }),
        finished("a syn after both fins chooses anew", |web, row| {
            web.comes(web.goes(row, 0x11, At::Eleven, Known), 0x11, At::Eleven)
        }),
        web.goes(
            with_ring(web.goes(
                web.opens("a syn after one fin stays on its target"),
                0x11,
                At::Eleven,
                Known,
            )),
            2,
            At::Eleven,
            Known,
        ),
    ]
}

fn time() -> Vec<Row> {
    let web = Web::new();
    let opened = |claim| web.opens(claim).ring(1, &[13]);
    let shortened = opened("a shorter idle time-out acts on the next packet").change(|tables| {
        let mut policy = tables.listeners[1].policy();
        policy.idle_ticks = 60;
        tables.listeners[1].set_policy(policy);
    });
    let unanswered = |claim| web.goes(row(claim), 2, At::Eleven, New).ring(1, &[13]);
    let closed = |row: Row| {
        row.change(|tables| {
            let control = tables.targets[11].control().expect("a target");
            let closed = TargetControl {
                takes_new_flows: false,
                ..control
            };
            tables.targets[11].set_control(closed);
        })
    };
    vec![
        web.goes(
            closed(opened(
                "a client that opens its flow anew leaves a target that takes no new flows",
            )),
            2,
            At::Thirteen,
            New,
        )
        .remembers(1),
        web.goes(
            closed(unanswered(
                "a repeated syn leaves a target that takes no new flows",
            )),
            2,
            At::Thirteen,
            New,
        )
        .remembers(1),
        web.goes(
            closed(opened("a flow goes on at a target that takes no new flows")),
            0x10,
            At::Eleven,
            Known,
        ),
        web.goes(
            opened("a flow that was silent for too long chooses anew").silence(TCP_IDLE_TICKS + 2),
            0x10,
            At::Thirteen,
            New,
        )
        .remembers(1),
        web.goes(
            opened("a flow that was silent for nearly too long stays").silence(TCP_IDLE_TICKS - 3),
            0x10,
            At::Eleven,
            Known,
        ),
        web.goes(
            unanswered("a flow without an answer is forgotten early").silence(TOO_LONG_TO_OPEN),
            2,
            At::Thirteen,
            New,
        ),
        web.goes(
            unanswered("a flow without an answer is not forgotten at once")
                .silence(TOO_LONG_TO_OPEN - 5),
            2,
            At::Eleven,
            Known,
        ),
        web.goes(shortened.silence(62), 0x10, At::Thirteen, New),
        web.comes(
            opened("a late answer is still translated while nobody has taken the entry")
                .silence(TCP_IDLE_TICKS + 5),
            0x18,
            At::Eleven,
        ),
        web.goes(
            web.comes(
                opened("a target that goes on keeps its flow").silence(TCP_IDLE_TICKS - 3),
                0x18,
                At::Eleven,
            )
            .silence(TCP_IDLE_TICKS - 3),
            0x10,
            At::Eleven,
            Known,
        ),
    ]
}

fn room() -> Vec<Row> {
    let web = Web::new();
    let full = |claim, state| row(claim).change(move |tables| fill(tables, state));
    let dsr_port = port_to(&tables(), CLIENT, (DSR_VIP, 80), TCP, 21, 0);
    let dsr = from_client().ipv4(CLIENT, DSR_VIP).tcp(dsr_port, 80);
    let dsr_out = on_to("10.0.0.21").ipv4(CLIENT, DSR_VIP).tcp(dsr_port, 80);
    let closing = ESTABLISHED.with(FlowState::CLIENT_CLOSED);
    vec![
        full(
            "a new translated flow is refused while all flows live",
            ESTABLISHED,
        )
        .stops(&web.request().syn(), Stop::FlowTableFull)
        .remembers(64),
        full("a half-closed flow keeps its entry", closing)
            .stops(&web.request().syn(), Stop::FlowTableFull)
            .remembers(64),
        full(
            "a new dsr flow goes by the ring while all flows live",
            ESTABLISHED,
        )
        .sends(&dsr, &dsr_out, (5, 21), Unpinned)
        .sends(&dsr, &dsr_out, (5, 21), Unpinned)
        .remembers(64),
        web.goes(
            full(
                "a new flow takes the place of one that proved nothing",
                FlowState::NEW,
            ),
            2,
            At::Eleven,
            New,
        )
        .remembers(64),
        web.goes(
            full(
                "a new flow takes the place of one that is over",
                ESTABLISHED.with(FlowState::RESET),
            ),
            2,
            At::Eleven,
            New,
        )
        .remembers(64),
        web.goes(
            full(
                "a new flow takes the place of one whose time ran out",
                ESTABLISHED,
            )
            .silence(TCP_IDLE_TICKS + 2),
            2,
            At::Eleven,
            New,
        )
        .remembers(64),
    ]
}

fn edges() -> Vec<Row> {
    let web = Web::new();
    let answer = from_target("10.0.0.11")
        .ipv4("10.0.0.11", CLIENT)
        .tcp(8080, web.0);
    vec![
        web.goes(
            row("a stray rst is sent on and not remembered"),
            4,
            At::Eleven,
            Unpinned,
        )
        .remembers(0)
        .passes(&answer),
        {
            let row = row("one client port to two vips is two flows");
            let row = web.goes(row, 2, At::Eleven, New);
            let port = web.0;
            let target = nlb_tests::world::chosen(&tables(), (CLIENT, port), (DSR_VIP, 80), TCP);
            let at = if target == Some(21) {
                "10.0.0.21"
            } else {
                "10.0.0.22"
            };
            let row = row.sends(
                &from_client().ipv4(CLIENT, DSR_VIP).tcp(port, 80),
                &on_to(at).ipv4(CLIENT, DSR_VIP).tcp(port, 80),
                (5, target.expect("a target")),
                New,
            );
            web.goes(row, 0x10, At::Eleven, Known).remembers(2)
        },
        web.goes(
            row("a flow whose target lost its record is seen"),
            2,
            At::Eleven,
            New,
        )
        .change(|tables| tables.targets[11].clear())
        .stops(&web.request(), Stop::UnwrittenTarget)
        .passes(&answer),
        row("the answer of another target of the group is not the flow's").passes(
            &from_target("10.0.0.12")
                .ipv4("10.0.0.12", CLIENT)
                .tcp(8080, web.0),
        ),
        web.goes(
            row("a fragment of an answer is left to the host"),
            2,
            At::Eleven,
            New,
        )
        .passes(&answer.clone().first_fragment())
        .passes(&answer.later_fragment()),
    ]
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = life();
    rows.extend(time());
    rows.extend(room());
    rows.extend(edges());
    rows
}
