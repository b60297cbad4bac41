//! From the client to the target.

use nlb_common::{
    answer::{Answer, Notice},
    flow::{Choice, Client, FlowState, Progress},
    fragment::Way,
    listener::{ListenerId, ListenerKey, Stranded},
    next_hop::{NextHop, NextHopId},
    stop::Stop,
    target::Mode,
    tick::Tick,
    wire::{
        protocol,
        tcp::{ACK, FIN, RST, SYN},
    },
};

use crate::{
    Exit, Stage, Verdict,
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
    tunnel::{self, overhead_bytes, wrap},
};

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
}

/// Sends a packet that may be addressed to a listener on to its target; [`Stop::NotOurs`] if there
/// is no such listener.
///
/// Where `ALL` is false only a remembered flow is forwarded, and only if its target's next hop is
/// known; everything else goes on to [`Stage::Begin`].
#[inline(always)]
pub fn to_target<const ALL: bool, F: Frame, T: Tables>(
    frame: &mut F,
    packet: &Packet,
    tables: &T,
) -> Result<Verdict, Exit> {
    let client = Client {
        address: packet.source,
        port: packet.source_port,
        protocol: packet.protocol,
    };
    let place = Place::of(tables, &client);
    let now = tables.now();
    let decision = decide::<ALL, F, T>(frame, packet, tables, place, &client, now)?;
    if tables.translates_sources() && decision.state.has(FlowState::SOURCE_TRANSLATED) {
        return Err(Exit::Go(Stage::SnatKnown));
    }
    if ALL
        && decision.begins
        && let Some(unmet) = snat::need(packet, tables, place, &client, now, &decision)
    {
        return Err(if tables.translates_sources() {
            Exit::Go(Stage::SnatBegin)
        } else {
            Exit::Stop(unmet)
        });
    }
    let next_hop = way::<ALL, F, T>(frame, packet, tables, &decision.target)?;
    let mode = decision.target.control.mode;
    let is_translated = mode.is_translated();
    let overhead = overhead_bytes(&decision.target);
    if is_translated {
        has_a_hop_left(packet)
            .map_err(|stop| refused::<ALL, T>(tables, stop, &decision, Notice::TIME_EXCEEDED, 0))?;
    }
    fits(packet, overhead, &next_hop).map_err(|stop| {
        let mtu_bytes = room_bytes(overhead, &next_hop);
        refused::<ALL, T>(tables, stop, &decision, Notice::TOO_BIG, mtu_bytes)
    })?;
    let mut network = packet.network;
    let mut transport = packet.transport;
    if mode.is_tunnel() {
        transport = wrap(frame, packet, tables, &decision.target, place)?;
        network = UNTAGGED;
    }
    let kind = if decision.begins {
        remember(packet, tables, place, &client, now, &decision)?
    } else {
        if let Some(entry) = decision.entry.entry {
            let old = decision.progress;
            flows::note(
                tables,
                entry,
                old,
                old.after(decision.state, now, old.epoch),
            );
        }
        PassageKind::Known
    };
    if ALL && packet.kind == Kind::FirstFragment {
        let (listener, target) = (decision.listener, decision.target.id);
        fragment::remember(packet, tables, listener, target, Way::ToTarget);
    }
    if is_translated {
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
    tables.count(&Passage {
        listener: decision.listener,
        target: decision.target.id,
        length_bytes: packet.length_bytes,
        kind,
    });
    Ok(emit(frame, network, &next_hop)?)
}

/// A packet that cannot go on is stopped, and its sender is told.
#[inline(always)]
fn refused<const ALL: bool, T: Tables>(
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

/// Which flow is it, and where does it go?
#[inline(always)]
pub(crate) fn decide<'t, const ALL: bool, F: Frame, T: Tables>(
    frame: &F,
    packet: &Packet,
    tables: &'t T,
    place: Place,
    client: &Client,
    now: Tick,
) -> Result<Decision<'t>, Exit> {
    let mut idle_ticks = 0;
    let found = flows::find(tables, place, client, |choice, _| {
        match tables.listener(choice.listener) {
            Some(listener) => {
                idle_ticks = listener.policy().idle_ticks;
                listener.is(packet.destination, packet.protocol, packet.destination_port)
            }
            None => false,
        }
    });
    let mut progress = Progress::NONE;
    if let Some(entry) = found.entry {
        progress = entry.progress();
        let state = progress.state;
        if now.since(progress.last_seen) <= state.idle_ticks(idle_ticks) {
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
    if packet.protocol == protocol::TCP && !opens(packet) {
        let record = tables.listener(listener).ok_or(Stop::UnwrittenListener)?;
        let policy = record.policy();
        if found.entry.is_some() {
            stranded(packet, tables, listener, policy.expired, Stop::IdleExpired)?;
        } else {
            stranded(packet, tables, listener, policy.stray, Stop::Stray)?;
        }
    }
    Ok(Decision {
        listener,
        target: select(frame, tables, packet, listener)?,
        entry: found,
        progress,
        state: FlowState::NEW,
        begins: true,
    })
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
    if policy != Stranded::RESET || packet.tcp_flags & RST != 0 {
        return Err(Exit::Stop(stop));
    }
    let answer = Answer {
        notice: Notice::RESET,
        mtu_bytes: 0,
        listener,
    };
    Err(tell(tables, stop, answer))
}

/// Remembers a flow that begins, in its old entry if it had one.
#[inline(always)]
fn remember<T: Tables>(
    packet: &Packet,
    tables: &T,
    place: Place,
    client: &Client,
    now: Tick,
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
    let is_pinned = match decision.entry.entry {
        Some(entry) => {
            let word = decision.entry.word;
            flows::refill(tables, entry, word, client, choice, decision.state, now)
        }
        None => flows::pin(tables, place, client, choice, decision.state, now),
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
const fn opens(packet: &Packet) -> bool {
    packet.protocol == protocol::TCP && packet.tcp_flags & (SYN | ACK) == SYN
}

/// How far a flow has come with one more packet of the client.
#[inline(always)]
fn advance(state: FlowState, packet: &Packet, mode: Mode) -> FlowState {
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
