//! From the client to the target.

use nlb_common::{
    answer::{Answer, Notice},
    flow::{Choice, Client, FlowEntry, FlowState, Progress},
    fragment::Way,
    listener::{ListenerId, ListenerKey, ListenerPolicy, Stranded},
    next_hop::{NextHop, NextHopId},
    stop::Stop,
    target::{Mode, TargetId},
    tick::Tick,
    wire::{
        protocol,
        tcp::{ACK, FIN, RST, SYN},
    },
};

use crate::{
    Exit, Stage, Verdict, admission,
    answer::tell,
    emit::{UNTAGGED, emit, fits, has_a_hop_left, room_bytes},
    flows::{self, Found, Place},
    fragment,
    frame::Frame,
    parse::{Kind, Packet},
    rewrite::{End, translate},
    segment_size,
    select::{Chosen, select},
    snat,
    tables::{Passage, PassageKind, RouteQuery, Tables},
    to_tunnel::{self, Decided},
    tunnel::{self, overhead_bytes, wrap},
};

/// From whom a packet comes, and when.
pub(crate) struct Arrival {
    pub(crate) client: Client,
    pub(crate) place: Place,
    pub(crate) now: Tick,
}

impl Arrival {
    #[inline(always)]
    pub(crate) fn of<T: Tables>(packet: &Packet, tables: &T) -> Self {
        let client = Client {
            address: packet.source,
            port: packet.source_port,
            protocol: packet.protocol,
        };
        Self {
            place: Place::of(tables, &client),
            now: tables.now(),
            client,
        }
    }
}

/// What a packet towards a target turned out to be, and what is to be remembered of it.
pub(crate) struct Decision<'t> {
    pub(crate) listener: ListenerId,
    pub(crate) target: Chosen<'t>,
    /// The entry that holds the flow, or that held it until it ended.
    pub(crate) entry: Found<'t>,
    /// What `entry` said.
    pub(crate) progress: Progress,
    /// How far the flow has come with this packet.
    pub(crate) state: FlowState,
    /// Whether a flow begins.
    pub(crate) begins: bool,
    /// Whether it is to be remembered: what its listener's limits say of a flow that begins.
    pub(crate) is_within_limits: bool,
}

impl<'t> Decision<'t> {
    /// A decision that another stage made about this packet.
    #[inline(always)]
    pub(crate) fn made<T: Tables>(
        packet: &Packet,
        tables: &'t T,
        arrival: &Arrival,
        decided: Decided,
    ) -> Result<Self, Stop> {
        let Decided {
            listener,
            target,
            begins,
            is_within_limits,
        } = decided;
        let target = Chosen::of(tables, target)?;
        let entry = find(packet, tables, arrival, |_| {});
        let progress = entry.entry.map_or(Progress::NONE, FlowEntry::progress);
        let state = if begins {
            FlowState::NEW
        } else {
            advance(progress.state, packet, target.control.mode)
        };
        Ok(Self {
            listener,
            target,
            entry,
            progress,
            state,
            begins,
            is_within_limits,
        })
    }
}

/// Sends a packet that may be addressed to a listener on to its target; [`Stop::NotOurs`] if there
/// is no such listener.
///
/// Where `ALL` is false only a remembered flow is forwarded, and only if its target's next hop is
/// known; everything else goes on to [`Stage::Begin`]. Where it is true, what needs a tunnel goes on
/// to [`Stage::Wrap`].
#[inline(always)]
pub fn to_target<const ALL: bool, F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    tables: &T,
) -> Result<Verdict, Exit> {
    to_target_or::<ALL, false, F, T>(frame, packet, tables, UNNAMED)
}

/// No target's id.
pub const UNNAMED: TargetId = TargetId(0);

/// The same. Where `QUIC` is true, `named` is what the packet's connection ID says, or
/// [`UNNAMED`]; where it is not, packets for QUIC listeners go on to [`Stage::Quic`].
#[inline(always)]
pub fn to_target_or<const ALL: bool, const QUIC: bool, F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    tables: &T,
    named: TargetId,
) -> Result<Verdict, Exit> {
    let arrival = Arrival::of(packet, tables);
    let mut decision = decide::<ALL, QUIC, F, T>(frame, packet, tables, &arrival, named)?;
    if tables.translates_sources() && decision.state.has(FlowState::SOURCE_TRANSLATED) {
        return Err(Exit::Go(Stage::SnatKnown));
    }
    let needs_source =
        ALL && decision.begins && snat::needs_source(packet, tables, &arrival, &decision)?;
    let next_hop = way::<ALL, F, T>(frame, packet, tables, &decision.target)?;
    let mode = decision.target.control.mode;
    let overhead = overhead_bytes(&decision.target);
    if mode.is_translated() {
        has_a_hop_left(packet)
            .map_err(|stop| refused::<ALL, T>(tables, stop, &decision, Notice::TIME_EXCEEDED, 0))?;
    }
    fits(packet, overhead, &next_hop).map_err(|stop| {
        let mtu_bytes = room_bytes(overhead, &next_hop);
        refused::<ALL, T>(tables, stop, &decision, Notice::TOO_BIG, mtu_bytes)
    })?;
    // Last of all that can stop the packet, so that what is counted begins.
    if ALL && decision.begins && !resets(packet) {
        decision.is_within_limits =
            admission::within_limits(packet, tables, decision.listener, arrival.now)?;
    }
    if needs_source {
        // What cannot be remembered has no source.
        return Err(if decision.is_within_limits {
            snat::begin::go(tables, &decision)
        } else {
            Exit::Stop(Stop::FlowTableFull)
        });
    }
    let mut network = packet.network;
    let mut transport = packet.transport;
    if mode.is_tunnel() {
        if ALL {
            return Err(to_tunnel::go(tables, &decision));
        }
        transport = wrap(frame, packet, tables, &decision.target, arrival.place)?;
        network = UNTAGGED;
    }
    remember::<ALL, T>(packet, tables, &arrival, &decision)?;
    if mode == Mode::NAT {
        let record = decision.target.record;
        translate(
            frame,
            packet,
            End::Destination,
            record.address(),
            record.port(),
        )?;
    }
    if ALL && opens(packet) {
        segment_size::clamp(frame, transport, decision.listener, tables);
    }
    Ok(emit(frame, network, &next_hop)?)
}

/// A packet that cannot go on is stopped, and its sender is told.
#[inline(always)]
pub(crate) fn refused<const ALL: bool, T: Tables>(
    tables: &T,
    stop: Stop,
    decision: &Decision<'_>,
    notice: Notice,
    mtu_bytes: u16,
) -> Exit {
    if !ALL {
        return Exit::Go(Stage::Begin);
    }
    let answer = Answer {
        notice,
        mtu_bytes,
        listener: decision.listener,
    };
    tell(tables, stop, answer)
}

/// What is remembered of the packet's flow; shows `note` its listener's policy.
#[inline(always)]
pub(crate) fn find<'t, T: Tables>(
    packet: &Packet,
    tables: &'t T,
    arrival: &Arrival,
    mut note: impl FnMut(ListenerPolicy),
) -> Found<'t> {
    flows::find(
        tables,
        arrival.place,
        &arrival.client,
        |choice, _| match tables.listener(choice.listener) {
            Some(listener) => {
                note(listener.policy());
                listener.is(packet.destination, packet.protocol, packet.destination_port)
            }
            None => false,
        },
    )
}

/// Which flow is it, and where does it go?
#[inline(always)]
fn decide<'t, const ALL: bool, const QUIC: bool, F: Frame, T: Tables>(
    frame: &F,
    packet: &Packet,
    tables: &'t T,
    arrival: &Arrival,
    named: TargetId,
) -> Result<Decision<'t>, Exit> {
    let mut policy = ListenerPolicy::default();
    let found = find(packet, tables, arrival, |of_listener| {
        policy = of_listener;
    });
    let mut progress = Progress::NONE;
    if let Some(entry) = found.entry {
        if !QUIC && policy.flags.is_quic() {
            return Err(Exit::Go(Stage::Quic));
        }
        progress = entry.progress();
        let state = progress.state;
        if arrival.now.since(progress.last_seen) <= state.idle_ticks(policy.idle_ticks)
            && goes_to(named, Choice::of_word(found.word).target)
        {
            let choice = Choice::of_word(found.word);
            let target = Chosen::of(tables, choice.target)?;
            let is_opening = opens(packet);
            let is_reset = target.control.resets_flows;
            // A client that opens its flow anew gets another target if its old one takes no new
            // flows: in DSR modes nobody sees a dead target's refusal. A SYN always goes on to
            // `Stage::Begin`, which may clamp it.
            let goes_on = if is_opening {
                ALL && !state.is_over() && target.control.takes_new_flows
            } else {
                !is_reset
            };
            if goes_on {
                return Ok(Decision {
                    listener: choice.listener,
                    target,
                    entry: found,
                    progress,
                    state: advance(state, packet, target.control.mode),
                    begins: false,
                    is_within_limits: true,
                });
            }
            // What is not TCP has no connection to end, and just begins anew.
            if ALL && !is_opening && packet.protocol == protocol::TCP {
                let end = Stranded::RESET;
                stranded(packet, tables, choice.listener, end, Stop::Terminated)?;
            }
        }
    }
    if !ALL {
        return Err(Exit::Go(Stage::Begin));
    }
    let listener = listener_of(packet, tables)?;
    if !QUIC && is_quic(tables, listener) {
        return Err(Exit::Go(Stage::Quic));
    }
    admission::admit(packet, tables, listener)?;
    if packet.protocol == protocol::TCP && !opens(packet) {
        let record = tables.listener(listener).ok_or(Stop::UnwrittenListener)?;
        let policy = record.policy();
        if found.entry.is_some() {
            stranded(packet, tables, listener, policy.expired, Stop::IdleExpired)?;
        } else {
            stranded(packet, tables, listener, policy.stray, Stop::Stray)?;
        }
    }
    let target = if named == UNNAMED {
        select(frame, tables, packet, listener)?
    } else {
        // Even if it takes no new flows: only the flow is new, the connection is not.
        Chosen::of(tables, named)?
    };
    Ok(Decision {
        listener,
        target,
        entry: found,
        progress,
        state: FlowState::NEW,
        begins: true,
        is_within_limits: true,
    })
}

/// Whether a packet whose connection ID names a target, or none, may go where its flow goes.
#[inline(always)]
fn goes_to(named: TargetId, target: TargetId) -> bool {
    named == UNNAMED || named == target
}

#[inline(always)]
fn is_quic<T: Tables>(tables: &T, listener: ListenerId) -> bool {
    match tables.listener(listener) {
        Some(listener) => listener.policy().flags.is_quic(),
        None => false,
    }
}

/// A TCP segment that opens nothing and has no live flow: whether it may begin one all the same.
#[inline(always)]
fn stranded<T: Tables>(
    packet: &Packet,
    tables: &T,
    listener: ListenerId,
    policy: Stranded,
    stop: Stop,
) -> Result<(), Exit> {
    if policy == Stranded::FORWARD {
        return Ok(());
    }
    // Nobody resets a reset (RFC 9293 §3.10.7.1).
    if !policy.resets() || packet.tcp_flags & RST != 0 {
        return Err(Exit::Stop(stop));
    }
    let answer = Answer {
        notice: Notice::RESET,
        mtu_bytes: 0,
        listener,
    };
    Err(tell(tables, stop, answer))
}

/// Remembers what is to be remembered of a packet that nothing stops any more, and counts it.
#[inline(always)]
pub(crate) fn remember<const ALL: bool, T: Tables>(
    packet: &Packet,
    tables: &T,
    arrival: &Arrival,
    decision: &Decision<'_>,
) -> Result<(), Stop> {
    let kind = if decision.begins {
        pin(packet, tables, arrival, decision)?
    } else {
        if let Some(entry) = decision.entry.entry {
            let old = decision.progress;
            let new = old.after(decision.state, arrival.now, old.epoch);
            flows::note(tables, entry, old, new);
        }
        PassageKind::Known
    };
    let (listener, target) = (decision.listener, decision.target.id);
    if ALL && packet.kind == Kind::FirstFragment {
        fragment::remember(packet, tables, listener, target, Way::ToTarget);
    }
    tables.count(&Passage {
        listener,
        target,
        length_bytes: packet.length_bytes,
        kind,
    });
    Ok(())
}

/// Pins a flow that begins, in its old entry if it had one.
#[inline(always)]
fn pin<T: Tables>(
    packet: &Packet,
    tables: &T,
    arrival: &Arrival,
    decision: &Decision<'_>,
) -> Result<PassageKind, Stop> {
    // A stray RST begins nothing: it goes where its flow would go, and is forgotten.
    if resets(packet) {
        return Ok(PassageKind::Unpinned);
    }
    let choice = Choice {
        target: decision.target.id,
        listener: decision.listener,
        next_hop: NextHopId::NONE,
    };
    let (client, state, now) = (&arrival.client, decision.state, arrival.now);
    let is_pinned = decision.is_within_limits
        && match decision.entry.entry {
            Some(entry) => {
                let word = decision.entry.word;
                flows::refill(tables, entry, word, client, choice, state, now)
            }
            None => flows::pin(tables, arrival.place, client, choice, state, now),
        };
    if is_pinned {
        Ok(PassageKind::New)
    } else if decision.target.control.mode.is_translated() {
        Err(Stop::FlowTableFull)
    } else {
        Ok(PassageKind::Unpinned)
    }
}

/// The listener that a packet is addressed to.
#[inline(always)]
pub(crate) fn listener_of<T: Tables>(packet: &Packet, tables: &T) -> Result<ListenerId, Stop> {
    let key = ListenerKey::new(packet.destination, packet.protocol, packet.destination_port);
    tables.listener_id(&key).ok_or(Stop::NotOurs)
}

/// Whether the packet ends a connection at once.
#[inline(always)]
pub(crate) const fn resets(packet: &Packet) -> bool {
    packet.tcp_flags & RST != 0
}

/// Whether the packet asks for a new connection.
#[inline(always)]
pub(crate) const fn opens(packet: &Packet) -> bool {
    packet.protocol == protocol::TCP && packet.tcp_flags & (SYN | ACK) == SYN
}

/// How far a flow has come with one more packet of the client.
#[inline(always)]
pub(crate) fn advance(state: FlowState, packet: &Packet, mode: Mode) -> FlowState {
    let mut state = state;
    // In DSR modes no answer is seen; that the client goes on shows that there was one.
    if !opens(packet) && (state.has(FlowState::ANSWERED) || !mode.is_translated()) {
        state = state.with(FlowState::ESTABLISHED);
    }
    if packet.tcp_flags & FIN != 0 {
        state = state.with(FlowState::CLIENT_CLOSED);
    }
    if resets(packet) {
        state = state.with(FlowState::RESET);
    }
    state
}

/// The way to a target.
#[inline(always)]
pub(crate) fn way<const ALL: bool, F: Frame, T: Tables>(
    frame: &F,
    packet: &Packet,
    tables: &T,
    target: &Chosen<'_>,
) -> Result<NextHop, Exit> {
    if let Some(slot) = tables.next_hop(target.control.next_hop)
        && let Some((next_hop, _)) = slot.read()
    {
        return Ok(next_hop);
    }
    if !ALL {
        return Err(Exit::Go(Stage::Begin));
    }
    let address = target.record.address();
    let mode = target.control.mode;
    // The routes are asked for the packet that leaves.
    let (source, protocol) = if mode.is_tunnel() {
        let source = tunnel::end(tables, target)?.source;
        (source, tunnel::outer_protocol(mode, packet))
    } else {
        (packet.source, packet.protocol)
    };
    let found = tables.route(&RouteQuery {
        destination: address,
        source,
        interface: frame.interface(),
        traffic_class: packet.traffic_class,
        protocol,
    })?;
    if mode == Mode::DSR_L2 && found.neighbour != address {
        return Err(Exit::Stop(Stop::NotOnLink));
    }
    Ok(found.next_hop)
}
