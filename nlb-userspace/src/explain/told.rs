//! Tables that write down what a packet asks them, and what they say.

use std::{cell::RefCell, ops::Deref};

use nlb_common::{
    address::Address,
    admission::{Admission, Source, SourceRecord},
    early::Claim,
    event::Event,
    flow::{Bucket, Choice, Client},
    fragment::{FragmentKey, FragmentRecord},
    hash::Secret,
    listener::{Listener, ListenerId, ListenerKey},
    maps::{Prefilter, Side},
    next_hop::{NeighbourKey, NextHopId, NextHopSlot},
    pressure::Pressure,
    quic::ServerIdKey,
    ring::Slot,
    sequence::Sequences,
    source::{Pool, SourceBucket, Translations},
    stage::Stage,
    stop::Stop,
    target::{Target, TargetId},
    tick::Tick,
    tunnel::TunnelSlot,
    word::Word,
};
use nlb_ebpf::{
    frame::Frame,
    memory::MemoryFrame,
    parse::{Kind, Packet, parse},
    tables::{Cookie, Handshake, Passage, Route, RouteQuery, Tables},
};
use zerocopy::big_endian::U16;

use super::{
    Chapter,
    fact::{Endpoint, Fact, FoundFlow, FoundListener, FoundTarget, Way},
};

/// Tables, and what was asked of them.
pub(super) struct Told<'t, T> {
    tables: &'t T,
    /// The packet as it came in, if anything can be read of it.
    packet: Option<Packet>,
    chapters: RefCell<Vec<Chapter>>,
    stops: RefCell<Vec<Stop>>,
}

impl<'t, T: Tables> Told<'t, T> {
    /// Tables that are going to be asked about this frame.
    pub(super) fn about(frame: &MemoryFrame, tables: &'t T) -> Self {
        let front = Chapter {
            stage: None,
            facts: Vec::new(),
        };
        Self {
            tables,
            packet: parse(frame).ok(),
            chapters: RefCell::new(vec![front]),
            stops: RefCell::default(),
        }
    }

    /// The next stage begins.
    pub(super) fn enter(&self, stage: Stage) {
        self.chapters.borrow_mut().push(Chapter {
            stage: Some(stage),
            facts: Vec::new(),
        });
    }

    /// What was told, and the reasons for which the packet was stopped.
    pub(super) fn end(self) -> (Vec<Chapter>, Vec<Stop>) {
        (self.chapters.into_inner(), self.stops.into_inner())
    }

    /// Writes a fact down, unless it stands there already: later stages ask much anew.
    fn note(&self, fact: Fact) {
        let mut chapters = self.chapters.borrow_mut();
        if chapters.iter().any(|chapter| chapter.facts.contains(&fact)) {
            return;
        }
        if let Some(chapter) = chapters.last_mut() {
            chapter.facts.push(fact);
        }
    }

    /// Writes down what the prefilter says of this packet: of its destination, and, unless that may be
    /// ours, of its source.
    fn note_prefilter(&self, prefilter: &Prefilter) {
        let Some(packet) = &self.packet else { return };
        let has_ports = matches!(packet.kind, Kind::Transport | Kind::FirstFragment);
        let asked = |port: U16| {
            if has_ports {
                (packet.protocol, port)
            } else {
                (0, U16::ZERO)
            }
        };
        let (protocol, port) = asked(packet.destination_port);
        let may_be = prefilter.admits(Side::Listener, packet.destination, protocol, port);
        let side = if has_ports { "listener" } else { "vip" };
        self.note(Fact::Prefilter { side, may_be });
        if !may_be {
            let (protocol, port) = asked(packet.source_port);
            let may_be = prefilter.admits(Side::Target, packet.source, protocol, port);
            let side = "target";
            self.note(Fact::Prefilter { side, may_be });
        }
    }

    /// The flows of a bucket that are of either end of the packet.
    fn flows(&self, bucket: &Bucket) -> Vec<FoundFlow> {
        let Some(packet) = &self.packet else {
            return Vec::new();
        };
        let client = |address, port| Client {
            address,
            port,
            protocol: packet.protocol,
        };
        let ends = [
            client(packet.source, packet.source_port),
            client(packet.destination, packet.destination_port),
        ];
        let found = bucket.entries.iter().filter_map(|entry| {
            let word = ends.iter().find_map(|client| entry.choice_for(client))?;
            let listener = self.tables.listener(Choice::of_word(word).listener);
            Some(FoundFlow::of(entry, word, listener, self.tables.now()))
        });
        found.collect()
    }
}

impl<T: Tables> Tables for Told<'_, T> {
    fn table_key(&self) -> impl Secret {
        self.tables.table_key()
    }

    fn select_key(&self) -> impl Secret {
        self.tables.select_key()
    }

    fn now(&self) -> Tick {
        self.tables.now()
    }

    fn prefilter(&self) -> Option<&Prefilter> {
        let prefilter = self.tables.prefilter()?;
        self.note_prefilter(prefilter);
        Some(prefilter)
    }

    fn listener_id(&self, key: &ListenerKey) -> Option<ListenerId> {
        let id = self.tables.listener_id(key);
        let address = key.address.into();
        self.note(if key.protocol == 0 {
            Fact::Vip {
                address,
                found: id.is_some(),
            }
        } else {
            Fact::Listener {
                endpoint: Endpoint::of(*key),
                found: id.map(|id| FoundListener::of(id, self.tables.listener(id))),
            }
        });
        id
    }

    fn listener(&self, id: ListenerId) -> Option<&Listener> {
        self.tables.listener(id)
    }

    fn admission(&self, id: ListenerId) -> Option<&Admission> {
        let record = self.tables.admission(id)?;
        let policy = record.policy();
        if policy.has_limits() {
            self.note(Fact::Limits {
                listener: id.0,
                active_flows: record.active.load(),
                active_flows_at_most: policy.active_flows,
                new_flows_per_tick_at_most: policy.flows_per_tick,
            });
        }
        if policy.usual_syns_per_tick != 0 {
            let (pressure, now) = (Pressure::of_word(record.pressure.load()), self.tables.now());
            self.note(Fact::Pressure {
                listener: id.0,
                syns: pressure.syns(now),
                usual_per_tick: policy.usual_syns_per_tick,
                is_high: pressure.is_high(now),
            });
        }
        Some(record)
    }

    fn admits(&self, listener: ListenerId, source: Address) -> bool {
        let admits = self.tables.admits(listener, source);
        self.note(Fact::Rules {
            listener: listener.0,
            source: source.into(),
            admits,
        });
        admits
    }

    fn source(&self, source: &Source) -> Option<impl Deref<Target = SourceRecord>> {
        self.tables.source(source)
    }

    fn target(&self, id: TargetId) -> Option<&Target> {
        let record = self.tables.target(id);
        self.note(Fact::Target {
            id: id.0,
            found: record.and_then(FoundTarget::of),
        });
        record
    }

    fn tunnel(&self, group: u16) -> Option<&TunnelSlot> {
        let record = self.tables.tunnel(group);
        self.note(Fact::Tunnel {
            group,
            found: record.and_then(TunnelSlot::read).is_some(),
        });
        record
    }

    fn ring_slot(&self, group: u16, slot: usize) -> Option<Slot> {
        let found = self.tables.ring_slot(group, slot);
        self.note(Fact::Slot {
            ring: group,
            slot,
            target: found.and_then(Slot::target).map(|target| target.0),
            is_settled: found.is_none_or(Slot::is_settled),
        });
        found
    }

    fn base_slot(&self, group: u16, slot: usize) -> Option<TargetId> {
        let found = self.tables.base_slot(group, slot);
        self.note(Fact::Base {
            ring: group,
            slot,
            target: found.map(|target| target.0),
        });
        found
    }

    fn pins_on_change(&self) -> bool {
        self.tables.pins_on_change()
    }

    fn hint(&self, number: u16) -> ListenerId {
        let id = self.tables.hint(number);
        if id != ListenerId(0) {
            self.note(Fact::OnChange { listener: id.0 });
        }
        id
    }

    fn server(&self, key: &ServerIdKey) -> Option<TargetId> {
        let target = self.tables.server(key);
        self.note(Fact::Server {
            number: key.server_id.get(),
            target: target.map(|target| target.0),
        });
        target
    }

    fn bucket(&self, hash: u32) -> Option<&Bucket> {
        let bucket = self.tables.bucket(hash)?;
        let used = |word| word != Choice::EMPTY;
        self.note(Fact::Bucket {
            number: self.tables.bucket_number(hash),
            used: (bucket.entries.iter())
                .filter(|entry| used(entry.choice.load()))
                .count(),
            flows: self.flows(bucket),
        });
        Some(bucket)
    }

    fn near(&self, hash: u32) -> u32 {
        self.tables.near(hash)
    }

    fn far(&self, hash: u32) -> u32 {
        self.tables.far(hash)
    }

    fn spill(&self, near: u32) -> Option<&Word> {
        self.tables.spill(near)
    }

    fn bucket_number(&self, hash: u32) -> u32 {
        self.tables.bucket_number(hash)
    }

    fn translates_sources(&self) -> bool {
        self.tables.translates_sources()
    }

    fn makes_cookies(&self) -> bool {
        self.tables.makes_cookies()
    }

    fn make_cookie(&self, handshake: &Handshake, segment_bytes: u16) -> Option<Cookie> {
        self.note(Fact::CookieMade);
        self.tables.make_cookie(handshake, segment_bytes)
    }

    fn is_cookie(&self, handshake: &Handshake, number: u32) -> bool {
        self.note(Fact::CookieBelieved);
        self.tables.is_cookie(handshake, number)
    }

    fn sequences(&self, bucket: u32) -> Option<&Sequences> {
        self.tables.sequences(bucket)
    }

    fn pool(&self) -> Option<&Pool> {
        self.tables.pool()
    }

    fn translations(&self, bucket: u32) -> Option<&Translations> {
        self.tables.translations(bucket)
    }

    fn source_bucket(&self, hash: u32) -> Option<&SourceBucket> {
        self.note(Fact::Pool);
        self.tables.source_bucket(hash)
    }

    fn swap(&self, word: &Word, seen: u64, new: u64) -> bool {
        let swapped = self.tables.swap(word, seen, new);
        if swapped && new == Choice::BUSY {
            self.note(Fact::Pinned);
        }
        swapped
    }

    fn forget(&self, value: u64, unknown: u64) -> u64 {
        self.tables.forget(value, unknown)
    }

    fn keep(&self, value: u64) -> u64 {
        self.tables.keep(value)
    }

    fn next_hop(&self, id: NextHopId) -> Option<&NextHopSlot> {
        let record = self.tables.next_hop(id);
        if id != NextHopId::NONE {
            let found = record.and_then(NextHopSlot::read);
            self.note(Fact::NextHop {
                id: id.0,
                way: found.map(|(next_hop, _)| Way::of(&next_hop)),
            });
        }
        record
    }

    fn next_hop_id(&self, neighbour: &NeighbourKey) -> Option<NextHopId> {
        self.tables.next_hop_id(neighbour)
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentRecord> {
        let record = self.tables.fragment(key);
        self.note(Fact::Fragment {
            found: record.is_some(),
        });
        record
    }

    fn remember_fragment(&self, key: &FragmentKey, record: &FragmentRecord) {
        self.note(Fact::FragmentRemembered);
        self.tables.remember_fragment(key, record);
    }

    fn keep_early<F: Frame>(&self, frame: &F, key: &FragmentKey, claim: Claim) -> bool {
        self.note(Fact::FragmentKept);
        self.tables.keep_early(frame, key, claim)
    }

    fn next_identification(&self, hash: u32) -> u32 {
        self.tables.next_identification(hash)
    }

    fn route(&self, query: &RouteQuery) -> Result<Route, Stop> {
        let answer = self.tables.route(query);
        let route = answer.as_ref().ok();
        self.note(Fact::Route {
            destination: query.destination.into(),
            source: query.source.into(),
            way: route.map(|route| Way::of(&route.next_hop)),
            neighbour: route.map(|route| route.neighbour.into()),
            refusal: answer.err().map(Stop::name),
        });
        answer
    }

    fn count(&self, passage: &Passage) {
        self.note(Fact::counted(passage));
        self.tables.count(passage);
    }

    fn count_stop(&self, stop: Stop) {
        self.stops.borrow_mut().push(stop);
        self.note(Fact::stopped(stop));
        self.tables.count_stop(stop);
    }

    fn hand_over(&self, word: u64) {
        self.tables.hand_over(word);
    }

    fn handed_over(&self) -> u64 {
        self.tables.handed_over()
    }

    fn error_budget(&self) -> u64 {
        self.tables.error_budget()
    }

    fn set_error_budget(&self, budget: u64) {
        self.tables.set_error_budget(budget);
    }

    fn tell(&self, event: &Event) {
        if event.kind == Event::NEIGHBOUR_WANTED {
            self.note(Fact::NeighbourWanted {
                address: event.address.into(),
            });
        }
        self.tables.tell(event);
    }
}
