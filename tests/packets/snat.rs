//! Flows whose source is translated, too: by mode, and where a target could not tell them apart.

use nlb_common::{
    flow::{Choice, Client},
    hash::Secret as _,
    source::{CLAIMS, Claim},
    stop::Stop,
    wire::protocol::{TCP, UDP},
};
use nlb_ebpf::{
    flows::Place,
    memory::MemoryTables,
    snat::allocate::{ATTEMPTS, ROUNDS},
    tables::PassageKind::{Known, New, Return},
};
use nlb_tests::{
    packet::Sentence,
    world::{
        CLIENT, CLIENT_V6, FULL_VIP, FULL_VIP_V6, TCP_IDLE_TICKS, VIP, address, from_client,
        from_target, on_to, port_to, source_of, tables,
    },
};
use zerocopy::big_endian::U16;

use crate::row::{Row, row};

/// Sources that are tried for one flow.
const TRIED: u64 = ATTEMPTS * ROUNDS as u64;

/// One flow of mode `full-nat`.
#[derive(Clone, Copy)]
pub(crate) struct Flow {
    pub(crate) client: (&'static str, u16),
    pub(crate) vip: (&'static str, u16),
    pub(crate) target: (&'static str, u16),
    /// Where the target's packets come from, and go.
    pub(crate) router: &'static str,
    pub(crate) protocol: u8,
    pub(crate) ids: (u16, u32),
}

pub(crate) fn segment(
    from: Sentence,
    protocol: u8,
    source: (&str, u16),
    destination: (&str, u16),
) -> Sentence {
    let parse = |text: &str| text.parse().expect("an address of the world");
    let packet = from.ip(parse(source.0), parse(destination.0));
    if protocol == TCP {
        packet.tcp(source.1, destination.1).flags(0x10)
    } else {
        packet.udp(source.1, destination.1)
    }
}

impl Flow {
    pub(crate) fn tcp_v4(nth: usize) -> Self {
        let port = port_to(&tables(), CLIENT, (FULL_VIP, 80), TCP, 46, nth);
        Self {
            client: (CLIENT, port),
            vip: (FULL_VIP, 80),
            target: ("10.0.0.11", 8080),
            router: "10.0.0.11",
            protocol: TCP,
            ids: (28, 46),
        }
    }

    pub(crate) const fn udp_v4() -> Self {
        Self {
            client: (CLIENT, 40_000),
            vip: (FULL_VIP, 53),
            target: ("10.0.0.11", 5353),
            router: "10.0.0.11",
            protocol: UDP,
            ids: (29, 48),
        }
    }

    pub(crate) const fn tcp_v6() -> Self {
        Self {
            client: (CLIENT_V6, 40_000),
            vip: (FULL_VIP_V6, 80),
            target: ("fd00::11", 8080),
            router: "fd00::11",
            protocol: TCP,
            ids: (30, 49),
        }
    }

    pub(crate) const fn udp_v6() -> Self {
        Self {
            client: (CLIENT_V6, 40_000),
            vip: (FULL_VIP_V6, 53),
            target: ("fd09::5", 5353),
            router: "fd00::fe",
            protocol: UDP,
            ids: (31, 56),
        }
    }

    pub(crate) fn source(&self, attempt: u64) -> (&'static str, u16) {
        source_of(&tables(), self.client, self.protocol, attempt)
    }

    pub(crate) fn request(&self) -> Sentence {
        segment(from_client(), self.protocol, self.client, self.vip)
    }

    pub(crate) fn through(&self, attempt: u64) -> Sentence {
        let source = self.source(attempt);
        segment(on_to(self.router), self.protocol, source, self.target).ttl(63)
    }

    pub(crate) fn answer(&self, attempt: u64) -> Sentence {
        let source = self.source(attempt);
        segment(from_target(self.router), self.protocol, self.target, source)
    }

    pub(crate) fn back(&self) -> Sentence {
        segment(on_to(self.client.0), self.protocol, self.vip, self.client).ttl(63)
    }

    /// Both ways twice; `rest` is what all packets have in common.
    fn both_ways(self, claim: &'static str, rest: fn(Sentence) -> Sentence) -> Row {
        let (request, through) = (rest(self.request()), rest(self.through(0)));
        let (answer, back) = (rest(self.answer(0)), rest(self.back()));
        row(claim)
            .sends(&request, &through, self.ids, New)
            .sends(&answer, &back, self.ids, Return)
            .sends(&request, &through, self.ids, Known)
            .sends(&answer, &back, self.ids, Return)
            .remembers(1)
    }

    /// Where an attempt would be claimed, and as what.
    fn claim(self, tables: &MemoryTables, attempt: u64) -> (usize, u32) {
        let source = self.source(attempt);
        let hash = tables.table_key.source(
            address(self.target.0),
            U16::new(self.target.1),
            address(source.0),
            U16::new(source.1),
            self.protocol,
        );
        let place = usize::try_from(hash & 0xffff_ffff).expect("half");
        let tag = u32::try_from(hash >> 32).expect("half");
        (place & (tables.sources.len() - 1), tag)
    }

    /// A flow all of whose attempts others can claim, because no bucket has to hold too many claims.
    fn claimable() -> Self {
        let tables = tables();
        let fits = |flow: &Self| {
            let mut claims = vec![0; tables.sources.len()];
            for attempt in 0..TRIED {
                claims[flow.claim(&tables, attempt).0] += 1;
            }
            claims.iter().all(|count| *count < CLAIMS)
        };
        (0..100).map(Self::tcp_v4).find(fits).expect("one of many")
    }

    /// Has the place that an attempt would take claimed by an entry that is just being filled.
    fn claim_by_another(self, tables: &mut MemoryTables, attempt: u64) {
        let entry = tables.busy_entry(&self.client());
        let (bucket, tag) = self.claim(tables, attempt);
        let claims = &tables.sources[bucket].claims;
        // Not the first: nothing may hang on where in its bucket a claim is.
        let mut free = claims
            .iter()
            .rev()
            .filter(|claim| claim.load() == Claim::NONE);
        let free = free.next().expect("few claims");
        free.store(Claim { entry, tag }.to_word());
    }

    fn client(&self) -> Client {
        Client {
            address: address(self.client.0),
            port: U16::new(self.client.1),
            protocol: self.protocol,
        }
    }
}

/// An entry that is busy, and in no bucket of this client.
trait Busy {
    fn busy_entry(&self, client: &Client) -> nlb_common::source::EntryNumber;
}

impl Busy for MemoryTables {
    fn busy_entry(&self, client: &Client) -> nlb_common::source::EntryNumber {
        let place = Place::of(self, client);
        let own = [place.near(self), place.first(self), place.second(self)];
        let (number, bucket) = (0..)
            .zip(&self.buckets)
            .find(|(number, _)| !own.contains(number))
            .expect("more than three buckets");
        bucket.entries[0].choice.store(Choice::BUSY);
        nlb_common::source::EntryNumber::new(number, 0)
    }
}

fn conflict() -> Row {
    let flow = Flow::tcp_v4(0);
    row("a source that another flow has towards the target is not given again")
        .change(move |tables| flow.claim_by_another(tables, 0))
        .sends(&flow.request(), &flow.through(1), flow.ids, New)
        .sends(&flow.answer(1), &flow.back(), flow.ids, Return)
        .passes(&flow.answer(0))
}

/// All attempts before the `free`th find a source that another flow has.
fn conflicts(claim: &'static str, free: u64) -> Row {
    let flow = Flow::claimable();
    row(claim)
        .change(move |tables| {
            for attempt in 0..free {
                flow.claim_by_another(tables, attempt);
            }
        })
        .sends(&flow.request(), &flow.through(free), flow.ids, New)
        .sends(&flow.answer(free), &flow.back(), flow.ids, Return)
        .sends(&flow.request(), &flow.through(free), flow.ids, Known)
        .remembers(1 + 1)
}

/// No source that would be tried is free, though others are.
fn unlucky() -> Row {
    let flow = Flow::claimable();
    row("a flow that finds no free source among those it tries is stopped, and nothing else is")
        .change(move |tables| {
            for attempt in 0..TRIED {
                flow.claim_by_another(tables, attempt);
            }
        })
        .stops(&flow.request().syn(), Stop::PortAllocationError)
        .stops(&flow.request().syn(), Stop::PortAllocationError)
        .remembers(1)
}

fn towards_another_target() -> Row {
    let flow = Flow::tcp_v4(0);
    let other = Flow {
        target: ("10.0.0.12", 8080),
        ..flow
    };
    row("a source that another flow has towards another target is given, too")
        .change(move |tables| other.claim_by_another(tables, 0))
        .sends(&flow.request(), &flow.through(0), flow.ids, New)
        .sends(&flow.answer(0), &flow.back(), flow.ids, Return)
}

fn stale_claim() -> Row {
    let flow = Flow::tcp_v4(0);
    row("a claim of an entry that holds no such flow any more is nobody's")
        .change(move |tables| {
            flow.claim_by_another(tables, 0);
            for entry in tables.buckets.iter().flat_map(|bucket| &bucket.entries) {
                entry.choice.store(Choice::EMPTY);
            }
        })
        .sends(&flow.request(), &flow.through(0), flow.ids, New)
        .sends(&flow.answer(0), &flow.back(), flow.ids, Return)
}

fn exhausted() -> Row {
    let flow = Flow::tcp_v4(0);
    row("a flow for which no source is free is stopped, counted, and leaves no entry")
        .change(move |tables| {
            let entry = tables.busy_entry(&flow.client());
            for (tag, word) in (1..).zip(tables.sources.iter().flat_map(|bucket| &bucket.claims)) {
                word.store(Claim { entry, tag }.to_word());
            }
        })
        .stops(&flow.request(), Stop::PortAllocationError)
        .remembers(1)
}

fn expired() -> Row {
    let flow = Flow::tcp_v4(0);
    let (request, through) = (flow.request(), flow.through(0));
    row("who comes back after the idle time-out has the same source again")
        .sends(&request, &through, flow.ids, New)
        .sends(&flow.answer(0), &flow.back(), flow.ids, Return)
        .silence(TCP_IDLE_TICKS + 2)
        .sends(&request, &through, flow.ids, New)
        .sends(&flow.answer(0), &flow.back(), flow.ids, Return)
        .remembers(1)
}

fn replaced() -> Row {
    let flow = Flow::tcp_v4(0);
    row("an answer to a flow that is forgotten passes")
        .sends(&flow.request(), &flow.through(0), flow.ids, New)
        .change(|tables| {
            for entry in tables.buckets.iter().flat_map(|bucket| &bucket.entries) {
                entry.choice.store(Choice::EMPTY);
            }
        })
        .passes(&flow.answer(0))
        .remembers(0)
}

fn out_of_the_pool() -> Row {
    let flow = Flow::tcp_v4(0);
    row("an address that is out of the pool still serves its flows")
        .sends(&flow.request(), &flow.through(0), flow.ids, New)
        .change(|tables| {
            for is_v4 in [true, false] {
                tables.pool.set_turns(is_v4, &[]);
            }
        })
        .sends(&flow.answer(0), &flow.back(), flow.ids, Return)
        .sends(&flow.request(), &flow.through(0), flow.ids, Known)
        .stops(&Flow::tcp_v4(1).request(), Stop::PortAllocationError)
}

fn closed() -> Row {
    let flow = Flow::tcp_v4(0);
    let (request, through) = (flow.request(), flow.through(0));
    row("a connection whose source is translated closes as others do")
        .sends(
            &request.clone().syn(),
            &through.clone().syn(),
            flow.ids,
            New,
        )
        .sends(
            &flow.answer(0).syn_ack(),
            &flow.back().syn_ack(),
            flow.ids,
            Return,
        )
        .sends(&request, &through, flow.ids, Known)
        .sends(
            &request.clone().fin(),
            &through.clone().fin(),
            flow.ids,
            Known,
        )
        .sends(&flow.answer(0).fin(), &flow.back().fin(), flow.ids, Return)
        // Over: a SYN begins a new flow in the old one's entry, with its source.
        .sends(&request.syn(), &through.syn(), flow.ids, New)
        .remembers(1)
}

fn stops() -> Vec<Row> {
    let flow = Flow::tcp_v4(0);
    vec![
        row("a stray rst to a target that would see a source of ours is stopped")
            .stops(&flow.request().flags(4), Stop::ResetWithoutFlow),
        row("a full-nat request that is too big for the link is stopped")
            .stops(&flow.request().payload(&[0; 1480]), Stop::TooBig)
            .remembers(0),
        row("what is addressed to the pool and answers nothing passes")
            .passes(&flow.answer(0))
            .passes(
                &from_client()
                    .ipv4(CLIENT, "192.0.2.50")
                    .tcp(40_000, 22)
                    .syn(),
            ),
    ]
}

/// A target that asks its own VIP, and is chosen.
pub(crate) struct Hairpin {
    pub(crate) port: u16,
    pub(crate) source: (&'static str, u16),
}

impl Hairpin {
    pub(crate) fn new() -> Self {
        let tables = tables();
        let port = port_to(&tables, "10.0.0.11", (VIP, 80), TCP, 11, 0);
        Self {
            port,
            source: source_of(&tables, ("10.0.0.11", port), TCP, 0),
        }
    }

    pub(crate) fn request(&self) -> Sentence {
        from_target("10.0.0.11")
            .ipv4("10.0.0.11", VIP)
            .tcp(self.port, 80)
    }

    pub(crate) fn through(&self) -> Sentence {
        let (address, port) = self.source;
        on_to("10.0.0.11")
            .ipv4(address, "10.0.0.11")
            .ttl(63)
            .tcp(port, 8080)
    }
}

fn hairpin() -> Row {
    let it = Hairpin::new();
    let (address, port) = it.source;
    let through = it.through();
    let answer = from_target("10.0.0.11")
        .ipv4("10.0.0.11", address)
        .tcp(8080, port);
    let back = on_to("10.0.0.11")
        .ipv4(VIP, "10.0.0.11")
        .ttl(63)
        .tcp(80, it.port);
    row("a target that is its own client sees a source of ours")
        .sends(&it.request().syn(), &through.clone().syn(), (1, 11), New)
        .sends(&answer.syn_ack(), &back.syn_ack(), (1, 11), Return)
        .sends(&it.request(), &through, (1, 11), Known)
}

fn hairpin_to_another() -> Row {
    let port = port_to(&tables(), "10.0.0.11", (VIP, 80), TCP, 12, 0);
    row("a target that asks another target through the vip is a client like others").sends(
        &from_target("10.0.0.11")
            .ipv4("10.0.0.11", VIP)
            .tcp(port, 80),
        &on_to("10.0.0.12")
            .ipv4("10.0.0.11", "10.0.0.12")
            .ttl(63)
            .tcp(port, 8080),
        (1, 12),
        New,
    )
}

/// A client's port whose flows to both listeners of one group go to one target.
pub(crate) struct Collision {
    pub(crate) port: u16,
    pub(crate) source: (&'static str, u16),
}

impl Collision {
    pub(crate) fn new() -> Self {
        let tables = tables();
        let port = (0..1000)
            .map(|nth| port_to(&tables, CLIENT, (VIP, 80), TCP, 11, nth))
            .find(|port| {
                nlb_tests::world::chosen(&tables, (CLIENT, *port), (VIP, 97), TCP) == Some(11)
            })
            .expect("one in nine");
        Self {
            port,
            source: source_of(&tables, (CLIENT, port), TCP, 0),
        }
    }

    pub(crate) fn request(&self, listener: u16) -> Sentence {
        from_client().ipv4(CLIENT, VIP).tcp(self.port, listener)
    }

    pub(crate) fn first(&self) -> Sentence {
        let to = on_to("10.0.0.11");
        to.ipv4(CLIENT, "10.0.0.11").ttl(63).tcp(self.port, 8080)
    }

    pub(crate) fn second(&self) -> Sentence {
        on_to("10.0.0.11")
            .ipv4(self.source.0, "10.0.0.11")
            .ttl(63)
            .tcp(self.source.1, 8080)
    }

    pub(crate) fn answer_to(source: (&str, u16)) -> Sentence {
        let from = from_target("10.0.0.11");
        from.ipv4("10.0.0.11", source.0).tcp(8080, source.1)
    }

    pub(crate) fn back(&self, listener: u16) -> Sentence {
        let to = on_to(CLIENT).ipv4(VIP, CLIENT);
        to.ttl(63).tcp(listener, self.port)
    }
}

fn collision() -> Row {
    let it = Collision::new();
    let second = it.second();
    row("two flows of one client's port to one target are kept apart by the source of the second")
        .sends(&it.request(80), &it.first(), (1, 11), New)
        .sends(&it.request(97), &second, (32, 11), New)
        .sends(
            &Collision::answer_to((CLIENT, it.port)),
            &it.back(80),
            (1, 11),
            Return,
        )
        .sends(
            &Collision::answer_to(it.source),
            &it.back(97),
            (32, 11),
            Return,
        )
        .sends(&it.request(80), &it.first(), (1, 11), Known)
        .sends(&it.request(97), &second, (32, 11), Known)
        .remembers(2)
}

fn no_collision() -> Row {
    let it = Collision::new();
    row("a flow whose time has run out does not collide with a new one")
        .sends(&it.request(80), &it.first(), (1, 11), New)
        .silence(TCP_IDLE_TICKS + 2)
        .sends(&it.request(97), &it.first(), (32, 11), New)
        .sends(
            &Collision::answer_to((CLIENT, it.port)),
            &it.back(97),
            (32, 11),
            Return,
        )
        .remembers(1)
}

fn without_pool() -> Vec<Row> {
    let no_pool = |tables: &mut MemoryTables| tables.set_pool(&[]);
    let (hairpin, it) = (Hairpin::new(), Collision::new());
    vec![
        row("a target cannot be its own client without a pool")
            .change(no_pool)
            .stops(&hairpin.request().syn(), Stop::HairpinWithoutPool)
            .remembers(0),
        row("two flows of one client's port to one target cannot be kept apart without a pool")
            .change(no_pool)
            .sends(&it.request(80), &it.first(), (1, 11), New)
            .stops(&it.request(97), Stop::CollisionWithoutPool)
            .sends(&it.request(80), &it.first(), (1, 11), Known)
            .remembers(1),
    ]
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = vec![
        Flow::tcp_v4(0).both_ways("full-nat translates both ends of tcp over ipv4", |s| {
            s.payload(b"odd")
        }),
        Flow::udp_v4().both_ways("full-nat translates both ends of udp over ipv4", |s| {
            s.payload(b"query")
        }),
        Flow::udp_v4().both_ways("full-nat keeps a udp checksum of zero", |s| {
            s.payload(b"q").no_checksum()
        }),
        Flow::tcp_v4(0).both_ways("full-nat steps over ipv4 options", |s| {
            s.options(&[1, 1, 1])
        }),
        Flow::tcp_v6().both_ways("full-nat translates both ends of tcp over ipv6", |s| {
            s.payload(b"odd")
        }),
        Flow::tcp_v6().both_ways("full-nat steps over ipv6 extension headers", |s| {
            s.hop_by_hop().routing()
        }),
        Flow::udp_v6().both_ways(
            "full-nat reaches a udp target behind a router over ipv6",
            |s| s.payload(b"query"),
        ),
        conflict(),
        conflicts("a source is looked for in a second round", ATTEMPTS),
        conflicts("the last source that is tried is given, too", TRIED - 1),
        unlucky(),
        towards_another_target(),
        stale_claim(),
        exhausted(),
        expired(),
        replaced(),
        out_of_the_pool(),
        closed(),
        hairpin(),
        hairpin_to_another(),
        collision(),
        no_collision(),
    ];
    rows.extend(stops());
    rows.extend(without_pool());
    rows
}
